"""A server in a thread, and a client that sends what a test says, byte for byte.

Everything has a deadline: a socket that says nothing for so long fails the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

import devserver
from tests.patience import DEADLINE


class Signal:
    """Something that happens once, told between a test and an application in the server's loop."""

    def __init__(self) -> None:
        self._future: Future[Any] = Future()

    def set(self, value: Any = None) -> None:
        self._future.set_result(value)

    @property
    def done(self) -> bool:
        return self._future.done()

    def wait(self) -> Any:
        """In the test."""
        return self._future.result(DEADLINE)

    async def here(self) -> Any:
        """In the application."""
        return await asyncio.shield(asyncio.wrap_future(self._future))


@contextlib.contextmanager
def serving(app: Any, **options: Any) -> Iterator[devserver.Server]:
    """Serve an application on 127.0.0.1; without lifespan unless the options have one."""
    where = {} if "uds" in options else {"host": "127.0.0.1", "port": 0}
    with devserver.Server(devserver.Config(app, **{**where, "lifespan": "off", **options})) as server:
        yield server


class Answer(NamedTuple):
    """A response: names in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Raw:
    """A connection to a server."""

    def __init__(self, server: devserver.Server) -> None:
        listener = server.listeners.sockets[0]
        self.sock = socket.socket(listener.family, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(listener.getsockname())
        self._buffer = b""

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def end(self) -> None:
        """Close our sending side."""
        self.sock.shutdown(socket.SHUT_WR)

    def take(self, size: int) -> bytes:
        """Read so many bytes, exactly."""
        while len(self._buffer) < size:
            self._more()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def until(self, mark: bytes) -> bytes:
        """Read up to and including a mark."""
        while mark not in self._buffer:
            self._more()
        return self.take(self._buffer.index(mark) + len(mark))

    def rest(self) -> bytes:
        """Read until the server ends its side; a reset is an error."""
        pieces = [self._buffer]
        while piece := self.sock.recv(1 << 18):
            pieces.append(piece)
        self._buffer = b""
        return b"".join(pieces)

    def head(self) -> tuple[int, dict[bytes, bytes]]:
        first, *lines = self.until(b"\r\n\r\n")[:-4].split(b"\r\n")
        version, status, *_ = first.split(b" ")
        assert version == b"HTTP/1.1"
        fields = (line.split(b": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in fields}
        assert len(headers) == len(lines), lines
        return int(status), headers

    def answer(self, *, bodiless: bool = False) -> Answer:
        """Read a response. Args: bodiless: to HEAD, or a 204 or 304."""
        status, headers = self.head()
        body = b""
        if bodiless:
            pass
        elif b"content-length" in headers:
            body = self.take(int(headers[b"content-length"]))
        elif headers.get(b"transfer-encoding") == b"chunked":
            body = b"".join(self.chunks())
        else:
            body = self.rest()
        return Answer(status, headers, body)

    def chunks(self) -> Iterator[bytes]:
        while size := int(self.until(b"\r\n"), 16):
            yield self.take(size)
            assert self.take(2) == b"\r\n"
        assert self.take(2) == b"\r\n"

    def get(self, target: str = "/", *lines: str, method: str = "GET", version: str = "1.1") -> None:
        """Send a request without a body."""
        self.send(request(target, *lines, method=method, version=version))

    def _more(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError(f"the server closed the connection; before: {self._buffer[:200]!r}")
        self._buffer += data


def request(
    target: str = "/", *lines: str, method: str = "GET", version: str = "1.1", body: bytes | None = None
) -> bytes:
    """A request; with a body, its length is announced."""
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    head = "\r\n".join([f"{method} {target} HTTP/{version}", "Host: test", *lines, *length, "", ""])
    return head.encode("latin-1") + (body or b"")
