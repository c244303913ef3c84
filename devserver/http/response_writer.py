"""The response of one exchange over HTTP/1.1, as it leaves.

It decides how the response is framed and counts what was promised; it refuses to know the request's body,
what comes before or after it on the connection, and what a gateway does. A `Stream` is one of these that
takes the body as well. It tells the connection, its `Owner`, when a response must be cut.

A response's head is checked and encoded when it is started, but it leaves with the first part of
the body: only then is it known whether that is all (a length) or not (chunks). Until then the
response can be taken back.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Protocol

from devserver.errors import ApplicationError
from devserver.http.codes import BODILESS, EARLY_HINTS, SERVICE_UNAVAILABLE
from devserver.http.exchange import Handler, Headers, Request
from devserver.http.framing import Framing
from devserver.http.response import (
    UNKNOWN,
    Defaults,
    Head,
    encode,
    response_head,
    takes_for_final,
    trailer_lines,
)
from devserver.http.sendfile import FilePart

logger = logging.getLogger("devserver")

CHUNKED = -1
LAST_CHUNK = b"0\r\n"


class Owner(Protocol):
    """The connection, as the writer of a response sees it."""

    def cut(self, open_ended: bool = False) -> None:
        """Close the connection now; what was promised on it cannot be kept.

        Args:
            open_ended: only the end of the connection tells the client that it has the whole response.
        """
        ...


class ResponseWriter:
    """The half of `exchange.Exchange` that is about the response.

    Attributes beyond those:
        handler: the gateway's side; None only until the gateway has been called.
        keep_alive: whether the connection may go on after the response.
        status: what was started, or 0.
        event_stream: the response is a stream of server-sent events, which never ends by itself.
        aborted: it was given up, whatever it had sent.
    """

    __slots__ = (
        "_bare",
        "_defaults",
        "_expects",
        "_file",
        "_head",
        "_keeps",
        "_no_body",
        "_owner",
        "_remaining",
        "_transport",
        "aborted",
        "disconnected",
        "event_stream",
        "finished",
        "handler",
        "keep_alive",
        "paused",
        "request",
        "started",
        "status",
        "takes_trailers",
    )

    def __init__(
        self, request: Request, frame: Framing, transport: asyncio.Transport, owner: Owner, defaults: Defaults
    ) -> None:
        """Args: the checked head and its framing; where to write; headers that every response gets."""
        self.request = request
        self.handler: Handler | None = None
        self.keep_alive = frame.keep_alive
        self.disconnected = self.paused = self.started = self.finished = self.aborted = False
        self.event_stream = False
        self.takes_trailers = frame.trailers
        self.status = 0
        self._owner = owner
        self._defaults = defaults
        self._transport = transport
        self._expects = frame.expects  # the client waits for `100 Continue`
        self._keeps = frame.keeps
        self._bare = frame.bare
        self._head: Head | None = None  # what was started and has not been sent
        # What is left of the announced length; or CHUNKED; or UNKNOWN, which then ends with the connection.
        self._remaining = UNKNOWN
        self._no_body = False
        self._file: FilePart | None = None  # what is being sent

    def _finish(self) -> None:
        """The response is complete: say so in `finished`, and to the connection."""
        raise NotImplementedError

    @property
    def under_way(self) -> bool:
        """The head has left."""
        return self.started and self._head is None

    def hint(self, headers: Headers) -> None:
        lines = response_head(EARLY_HINTS, headers)
        unknown = self._bare or self.request.version != "1.1" or takes_for_final(self.request.headers)
        if not (self.under_way or self.disconnected or unknown):
            self._transport.write(lines)

    def start(self, status: int, headers: Headers) -> None:
        if self.started:
            if self.disconnected:
                return  # answered by the connection, with a 400 for the body
            raise ApplicationError("the application started its response a second time")
        head = self._head = encode(status, headers)
        if head.dropped:
            _tell_of(head.dropped)
        self.started = True
        self.status = status
        self.event_stream = head.event_stream
        self._remaining = head.length
        self._no_body = status in BODILESS or self.request.method == "HEAD"

    def withdraw(self) -> bool:
        if self.under_way:
            return False
        self.started = self.event_stream = False
        self.status = 0
        self._head = None
        return True

    def write(self, data: bytes, more: bool) -> None:
        if not self.started or self.finished or self._file is not None:
            self._check_open()
            return
        if self._remaining >= 0:
            self._count(len(data), more)
        if self._head is not None:
            out = self._opening(self._head, len(data), more) + self._framed(data, more)
            self._head = None
        else:
            out = self._framed(data, more)
        if out and not self.disconnected:
            self._transport.write(out)
            if more and self._transport.is_closing():
                # An application that never waits would not hear of it: the loop cannot say so
                # before the application lets it run.
                self.disconnect()
        if not more:
            self._finish()

    def _check_open(self) -> None:
        """Find the fault in a write at the wrong time; it has none if nobody waits for the response."""
        if not self.started:
            raise ApplicationError("the application sent a body before it started the response")
        if self.disconnected:
            return
        if self.finished:
            raise ApplicationError("the application sent more after the end of its response")
        raise ApplicationError("the application sent more before the file was sent")

    def send_file(self, file: int, offset: int, count: int, more: bool) -> None:
        if not (count and self.started) or self.finished or self._file is not None:
            self.write(b"", more)  # that has no effect, or is a fault
            return
        part = None
        if not (self._no_body or self.disconnected):
            part = FilePart(self._transport, file, offset, count)
        try:
            opening = self._open_file(count, more)
        except ApplicationError:
            if part is not None:
                part.close()
            raise
        if opening and not self.disconnected:
            self._transport.write(opening)
        if part is not None:
            part.paused = self.paused  # nobody says again that the buffer is full
            self._file, self.paused = part, True
            part.begin(partial(self._file_sent, part, more))
        elif not more:
            self._finish()

    def _open_file(self, count: int, more: bool) -> bytes:
        """What goes before a part of a file: the head, if it has not left, and the size of a chunk."""
        if self._remaining >= 0:
            self._count(count, more)
        opening = b""
        if self._head is not None:
            opening, self._head = self._opening(self._head, count, more), None
        if self._remaining == CHUNKED and not self._no_body:
            opening += b"%x\r\n" % count
        return opening

    def _file_sent(self, part: FilePart, more: bool, fault: Exception | None) -> None:
        self._file = None
        if fault is not None:
            if not isinstance(fault, ConnectionError):
                request = self.request
                logger.error("%s %s failed: %s", request.method, request.target.decode("latin-1"), fault)
            self.abort()
            self.disconnect()
            return
        if self._remaining == CHUNKED:
            self._transport.write(b"\r\n" if more else b"\r\n" + LAST_CHUNK + b"\r\n")
        self.paused = part.paused
        if not more:
            self._finish()
        self.wake()

    def trail(self, headers: Headers) -> None:
        lines = trailer_lines(headers)
        if self.takes_trailers and lines and self.started and not self.finished:
            self.write(b"", True)  # the head, if it has not left
            if self._remaining == CHUNKED and not self._no_body and not self.disconnected:
                self._transport.write(LAST_CHUNK + lines + b"\r\n")
                self._finish()
                return
        self.write(b"", False)

    def _opening(self, head: Head, size: int, more: bool) -> bytes:
        """The head with all that was missing. Args: size: of the first part of the body, in bytes."""
        framing = b""
        if head.length == UNKNOWN and self.status not in BODILESS:
            if not more:
                self._remaining = 0
                if size or not self._no_body:  # to HEAD, nothing says nothing of what GET would have
                    framing = b"Content-Length: %d\r\n" % size
            elif self.request.version == "1.1" and not self._bare:
                self._remaining = CHUNKED
                framing = b"Transfer-Encoding: chunked\r\n"
            else:
                self.keep_alive = False
        if head.close or self._expects:  # whether an expected body still comes only the client knows
            self.keep_alive = False
        connection = b"Connection: close\r\n"
        if self.keep_alive:
            # Only to who speaks of it: other responses are left as they are.
            connection = self._defaults.kept if self._keeps else b""
        return b"".join((head.block, framing, connection, self._defaults.lines(head.names), b"\r\n"))

    def _framed(self, data: bytes, more: bool) -> bytes:
        """A part of the body as it is sent."""
        if self._no_body:
            return b""
        if self._remaining != CHUNKED:
            return data
        if data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        return data if more else data + LAST_CHUNK + b"\r\n"

    def _count(self, size: int, more: bool) -> None:
        """Hold a part of the body against the announced length, before anything of it is sent."""
        if self.status in BODILESS:
            return
        left = self._remaining - size
        if left < 0:
            raise ApplicationError("the application sent a body longer than its content-length")
        if left and not more and self.request.method != "HEAD":
            raise ApplicationError(
                f"the application ended its response {left} bytes short of its content-length"
            )
        self._remaining = left

    def say(self, status: int, text: str) -> None:
        """Answer with one line, instead of the application."""
        headers = [(b"Content-Type", b"text/plain; charset=utf-8")]
        if status == SERVICE_UNAVAILABLE:
            headers.append((b"Retry-After", b"1"))
        self.start(status, headers)
        self.write(text.encode() + b"\n", False)

    def abort(self) -> None:
        self.finished = self.aborted = True
        self._drop_file()
        self._owner.cut(self.under_way and self._remaining == UNKNOWN)

    def give_up(self, status: int, text: str) -> None:
        """Answer instead of the application. A response that has begun is cut: half is not the whole."""
        self.keep_alive = False
        if self.withdraw():
            self.say(status, text)
        else:
            self._owner.cut(self.under_way and self._remaining == UNKNOWN)
        self.disconnect()

    # what the connection tells

    def end(self) -> None:
        """The server stops: end a response that would go on for ever, as well as its framing allows."""
        if self.under_way and self._remaining == CHUNKED and not self._no_body and not self.disconnected:
            self._transport.write(LAST_CHUNK + b"\r\n")
        self.disconnect()

    def disconnect(self) -> None:
        """The client is gone, or is to be treated so."""
        if not self.disconnected:
            self.disconnected = True
            self._drop_file()
            self.wake()

    def _drop_file(self) -> None:
        part, self._file = self._file, None
        if part is not None:
            part.close()

    def pause(self, paused: bool) -> None:
        """The transport's buffer has filled up, or has room again."""
        if self._file is not None:
            self._file.pause(paused)
            return
        self.paused = paused
        if not paused:
            self.wake()

    def wake(self) -> None:
        """Let the gateway look."""
        if self.handler is not None:
            self.handler.wake()


_told: set[bytes] = set()


def _tell_of(dropped: bytes) -> None:
    """Say that a field of the application's is not sent; once for each name."""
    name = dropped.partition(b":")[0].lower()
    if name not in _told:
        _told.add(name)
        logger.warning(
            "the application sent the header %r, which only the server may send: it is dropped",
            dropped.decode("latin-1"),
        )
