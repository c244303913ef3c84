"""One exchange over HTTP/1.1: the body as it arrives, the response as it leaves.

Implements `exchange.Exchange` on a transport. It decides how the response is framed and counts
what was promised; it refuses to know how requests are read, what comes before or after it on
the connection, and what a gateway does with it. What the connection must know it is told by
`Owner`.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Protocol

from devserver.errors import ApplicationError
from devserver.http import framing
from devserver.http.exchange import Handler, Headers, Request

HIGH_WATER = 65536
"""Bytes of a body that wait for the application before the connection stops reading."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BODILESS = frozenset((204, 304))


class Owner(Protocol):
    """The connection, as a stream sees it."""

    def responded(self, stream: Stream) -> None:
        """The response is complete."""
        ...

    def cut(self) -> None:
        """Close the connection now; what was promised on it cannot be kept."""
        ...


class Stream:
    """See `exchange.Exchange`.

    Attributes beyond those:
        handler: the gateway's side; None only until the gateway has been called.
        keep_alive: whether the connection may go on after the response.
        status: what was sent, or 0.
        began: when the head had been read, on the clock of `time.perf_counter`.
    """

    __slots__ = (
        "_body",
        "_buffered",
        "_event_stream",
        "_expects",
        "_head",
        "_no_body",
        "_pieces",
        "_remaining",
        "_transport",
        "_unheld",
        "began",
        "complete",
        "defaults",
        "disconnected",
        "finished",
        "half_closed",
        "handler",
        "keep_alive",
        "owner",
        "paused",
        "request",
        "started",
        "status",
    )

    def __init__(
        self, request: Request, frame: framing.Framing, transport: asyncio.Transport, owner: Owner, defaults: Headers
    ) -> None:
        """Args: the checked head and its framing; where to write; headers that every response gets."""
        self.request = request
        self.owner = owner
        self.defaults = defaults
        self.handler: Handler | None = None
        self.began = perf_counter()
        self.keep_alive = frame.keep_alive
        self.complete = frame.length == 0
        self.disconnected = self.half_closed = self.paused = self.started = self.finished = False
        self.status = 0
        self._transport = transport
        self._body = framing.body(frame.length)
        self._expects = frame.expects
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._unheld = True
        self._head: Headers | None = None
        # What is left of the announced length; -1 for chunked, -2 for "until the connection closes".
        self._remaining = -2
        self._no_body = False
        self._event_stream = False

    # the request's body

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes from the connection; returns what follows the body, None while it goes on.

        Raises:
            framing.BadBody: the body is malformed.
        """
        assert self._body is not None
        piece, rest = self._body.feed(data)
        if piece and not self.finished:
            self._pieces.append(piece)
            self._buffered += len(piece)
            if self._buffered > HIGH_WATER and rest is None and self._unheld:
                self._unheld = False
                self._transport.pause_reading()
        if rest is not None:
            self.complete = True
            self._expects = False
        if self.handler is not None:
            self.handler.wake()
        return rest

    def read(self) -> bytes:
        if self._expects:
            self._expects = False
            if not self.started and not self.disconnected:
                self._transport.write(CONTINUE)
        if not self._pieces:
            return b""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._buffered = 0
        self._unhold()
        return data

    def _unhold(self) -> None:
        if not self._unheld:
            self._unheld = True
            if not self.disconnected:
                self._transport.resume_reading()

    # the response

    @property
    def event_stream(self) -> bool:
        """The response is a stream of server-sent events, which never ends by itself."""
        return self._event_stream

    def start(self, status: int, headers: Headers) -> None:
        if self.started:
            raise ApplicationError("the application started its response a second time")
        self._remaining, kept = _announced(headers)
        if len(kept) != len(headers) and any(n == b"connection" and b"close" in v.lower() for n, v in headers):
            self.keep_alive = False
        framing.response_head(status, kept)  # before anything is decided: a bad header is the caller's error
        self.started = True
        self.status = status
        self._head = kept
        self._no_body = status in BODILESS or self.request.method == "HEAD"
        self._event_stream = any(n == b"content-type" and v.startswith(b"text/event-stream") for n, v in kept)

    def write(self, data: bytes, more: bool) -> None:
        if not self.started:
            raise ApplicationError("the application sent a body before it started the response")
        if self.finished:
            raise ApplicationError("the application sent more after the end of its response")
        out = self._opening(len(data), more) if self._head is not None else b""
        self._count(len(data), more)
        if not self._no_body:
            if self._remaining == -1:
                if data:
                    out = b"%b%x\r\n%b\r\n" % (out, len(data), data)
                if not more:
                    out += b"0\r\n\r\n"
            else:
                out = out + data if out else data
        if not self.disconnected and out:
            self._transport.write(out)
        if not more:
            self.finished = True
            self._pieces.clear()
            self._unhold()
            self.owner.responded(self)

    def _opening(self, size: int, more: bool) -> bytes:
        """The head, with framing for a body whose first piece has `size` bytes."""
        head, self._head = self._head, None
        assert head is not None
        if self._remaining == -2 and self.status not in BODILESS:
            if not more:
                self._remaining = size
                head.append((b"content-length", b"%d" % size))
            elif self.request.version == "1.1":
                self._remaining = -1
                head.append((b"transfer-encoding", b"chunked"))
            else:
                self.keep_alive = False
        if self._expects:
            self.keep_alive = False  # whether its body still comes only the client knows
        if not self.keep_alive:
            head.append((b"connection", b"close"))
        for name, value in self.defaults:
            if not any(n == name for n, _ in head):
                head.append((name, value or framing.date()))
        return framing.response_head(self.status, head)

    def _count(self, size: int, more: bool) -> None:
        if self._remaining < 0 or self.status in BODILESS:
            return
        if size > self._remaining:
            raise ApplicationError("the application sent a body longer than its content-length")
        self._remaining -= size
        if not more and self._remaining and self.request.method != "HEAD":
            raise ApplicationError(f"the application's body ended {self._remaining} bytes short of its content-length")

    def abort(self) -> None:
        self.finished = True
        self.owner.cut()

    # what the connection tells

    def disconnect(self) -> None:
        """The client is gone, or is to be treated so."""
        if not self.disconnected:
            self.disconnected = True
            self.wake()

    def end(self) -> None:
        """End a response that never ends by itself, so that the client sees its end and not a cut."""
        if self._remaining == -1 and self._head is None and not self.finished and not self.disconnected:
            self._transport.write(b"0\r\n\r\n")
        self.disconnect()

    def hang_up(self) -> None:
        """The client has closed its sending side."""
        self.half_closed = True
        self.wake()

    def pause(self, paused: bool) -> None:
        """The transport's buffer has filled up, or has room again."""
        self.paused = paused
        if not paused:
            self.wake()

    def wake(self) -> None:
        """Let the gateway look."""
        if self.handler is not None:
            self.handler.wake()


def _announced(headers: Headers) -> tuple[int, Headers]:
    """The announced length (-2 for none) and the headers that are the application's to set.

    Connection, Keep-Alive and Transfer-Encoding describe this connection, not the response.
    """
    length, kept = -2, []
    for header in headers:
        name, value = header
        if name == b"content-length":
            if not value.isdigit() or (length >= 0 and length != int(value)):
                raise ApplicationError(f"the application sent content-length {value!r}")
            if length >= 0:
                continue
            length = int(value)
        elif name in (b"connection", b"transfer-encoding", b"keep-alive"):
            continue
        kept.append(header)
    return length, kept
