"""What a WSGI application is handed: the environ, the body's stream, the file wrapper.

All of it is made from a checked `Request` by pure functions; only `BodyStream` blocks, in the
function it is given. The rules are those of PEP 3333 ("environ Variables") and RFC 3875
section 4.1. Text is "bytes in disguise": every str holds only U+0000 to U+00FF.

A header's name loses information on its way into the environ, because "-" becomes "_". So names
that contain "_" are dropped: `X_User` could otherwise pose as `X-User` behind a proxy that
removes only the latter. `Proxy` is dropped because `HTTP_PROXY` is a setting that HTTP clients
obey (CVE-2016-5385, "httpoxy").

This module refuses to know threads, event loops and exchanges.
"""

import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote_to_bytes

from devserver.gateway.tls import environ as tls_environ
from devserver.http.exchange import Request

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 65536
"""Bytes in one block of a file, and about what is read or written ahead of the other side."""

_PAGE = 65536
"""Bytes in the largest page of memory that a system has."""

Environ = dict[str, Any]


class ClientDisconnected(ConnectionError):
    """Raised from `wsgi.input` when the rest of the body will never come.

    It is an OSError, which frameworks expect from a body that cannot be read.
    """


class Readable(Protocol):
    """What `wsgi.file_wrapper` wraps; a `close` method is optional."""

    def read(self, size: int, /) -> bytes: ...


class FileWrapper:
    """`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").

    Args:
        file: read in blocks until it returns b"".
        size: bytes in a block.
    """

    def __init__(self, file: Readable, size: int = BLOCK) -> None:
        self.file = file
        self._size = size
        # PEP 3333: the wrapper has `close` only when the file has it.
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = self.file.read(self._size)
        if not block:
            raise StopIteration
        return block


FilePart = tuple[int, int, int]
"""Descriptor, offset and the number of bytes."""


def file_part(file: object) -> FilePart | None:
    """What a file object would give if it were read to its end.

    Returns None if that is not simply what is on the disk. Only Python's own binary files are known to be no
    more than that: `gzip.GzipFile` has the descriptor of a file with other content.
    """
    raw = file.raw if type(file) in (io.BufferedReader, io.BufferedRandom) else file  # type: ignore[attr-defined]
    if type(raw) is not io.FileIO:
        return None
    try:
        if isinstance(file, io.BufferedRandom):
            file.flush()
        offset, info = file.tell(), os.fstat(raw.fileno())  # type: ignore[attr-defined]
    except (OSError, ValueError):
        return None
    count = info.st_size - offset
    is_part = stat.S_ISREG(info.st_mode) and count > 0 and not is_made(info)
    return (raw.fileno(), offset, count) if is_part else None


def is_made(info: os.stat_result) -> bool:
    """Whether the kernel may make a file's content when it is read, so that its size says nothing.

    In /proc the size is 0, in /sys that of a page; on the disk neither has a block. A file with a hole may be
    so, too, and loses nothing when it is read.
    """
    return not getattr(info, "st_blocks", 1) and info.st_size <= _PAGE


class BodyStream(io.RawIOBase):
    """The request's body as a raw stream, for an `io.BufferedReader` around it.

    Args:
        receive: blocks until a part of the body is there and returns it, b"" at the end.
    """

    def __init__(self, receive: Callable[[], bytes]) -> None:
        super().__init__()
        self._receive = receive
        self._rest = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        """Say that this stream can be read."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill what has arrived into the buffer; 0 is the end of the body."""
        if not self._rest and not self._ended:
            self._rest = memoryview(self._receive())
            self._ended = not self._rest
        room = memoryview(buffer)
        size = min(len(room), len(self._rest))
        room[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def input_stream(receive: Callable[[], bytes]) -> io.BufferedReader:
    """Make `wsgi.input` for a body that is still arriving."""
    return io.BufferedReader(BodyStream(receive), BLOCK)


def constant_environ(root_path: str) -> Environ:
    """Return what is the same for every request; it is copied for each."""
    return {
        "SCRIPT_NAME": _script_name(root_path),
        "SERVER_SOFTWARE": "devserver",
        "wsgi.version": (1, 0),
        # Middleware may read to the end whatever CONTENT_LENGTH says or does not say.
        "wsgi.input_terminated": True,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }


def _script_name(root_path: str) -> str:
    # A prefix is text of the user's; PEP 3333 wants its UTF-8 bytes in disguise.
    return root_path.rstrip("/").encode().decode("latin-1")


def request_environ(constant: Environ, request: Request) -> Environ:
    """Make the environ for one request, without `wsgi.input`.

    Args:
        constant: what `constant_environ` returned.
        request: the head of the request.
    """
    environ = constant.copy()
    target = request.target.decode("latin-1")
    environ["REQUEST_METHOD"] = request.method
    if request.prefix:
        environ["SCRIPT_NAME"] = _script_name(request.prefix)
    environ["PATH_INFO"] = _path_info(request.path)
    environ["QUERY_STRING"] = request.query.decode("latin-1")
    environ["REQUEST_URI"] = environ["RAW_URI"] = target
    # RFC 3875 section 4.1.16 has two numbers, and so do others for HTTP/2, which has one.
    environ["SERVER_PROTOCOL"] = "HTTP/2.0" if request.version == "2" else f"HTTP/{request.version}"
    environ["wsgi.url_scheme"] = request.peer.scheme
    # Looked up for each request: whoever replaces sys.stderr expects to see this too.
    environ["wsgi.errors"] = sys.stderr
    _add_headers(environ, request)
    _add_peer(environ, request)
    if request.peer.tls is not None:
        environ.update(tls_environ(request.peer.tls))
    if request.parameters is not None:
        _add_parameters(environ, request.parameters)
    return environ


def _add_parameters(environ: Environ, parameters: dict[str, str]) -> None:
    """Add what a proxy has said by the uwsgi protocol. An empty value is no reason to forget what is known.

    The server's own keys, which PEP 3333 gives meanings to, are not for a proxy to set.
    """
    for name, value in parameters.items():
        if not name.startswith("wsgi.") and (value or name not in environ):
            environ[name] = value


def _path_info(path: bytes) -> str:
    # `OPTIONS *` asks about the server as a whole: no path. "*" itself is not one, since PEP 3333
    # wants an empty string or a leading "/"; REQUEST_URI still has it.
    if path == b"*":
        return ""
    return (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")


@lru_cache(maxsize=512)
def _key(name: bytes) -> str | None:
    """Return the environ's key for a header in lower case, None for one that is dropped."""
    if b"_" in name or name == b"proxy":
        return None
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _add_headers(environ: Environ, request: Request) -> None:
    for name, value in request.headers:
        key = _key(name)
        if key is None:
            continue
        text = value.decode("latin-1")
        if key not in environ:
            environ[key] = text
        elif key == "HTTP_COOKIE":
            environ[key] += f"; {text}"  # RFC 6265 section 5.4: commas may be part of a cookie
        elif key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):  # no lists: the first one counts
            environ[key] += f",{text}"


def _add_peer(environ: Environ, request: Request) -> None:
    client, server = request.peer.client, request.peer.server
    environ["REMOTE_ADDR"] = client[0] if client is not None else ""
    if client is not None and client[1]:
        environ["REMOTE_PORT"] = str(client[1])
    if server is not None and server[1] is not None:
        name, port = server[0], str(server[1])
        # RFC 3875 section 4.1.14: the form an address has in a URL.
        environ["SERVER_NAME"] = f"[{name}]" if ":" in name else name
        environ["SERVER_PORT"] = port
    else:
        name, port = _split_host(environ.get("HTTP_HOST", ""))
        # PEP 3333: neither is ever empty, although a Unix socket has neither.
        environ["SERVER_NAME"] = name or "localhost"
        environ["SERVER_PORT"] = port or ("443" if request.peer.scheme == "https" else "80")


def _split_host(host: str) -> tuple[str, str]:
    name, _, port = host.rpartition(":")
    return (name, port) if name and port.isdecimal() else (host, "")
