"""One exchange over HTTP/2: what differs from HTTP/1.1 in how a body arrives and a response leaves.

What an application may do, what its headers may be, and what was announced and has to come is the same, and
is `http.response_writer`'s. Here a response is fields and data on a stream: nothing has to be framed, and
what is cut is the stream and not the connection.
"""

from __future__ import annotations

import asyncio
import os
from functools import lru_cache
from typing import Protocol, cast

from devserver.http import stream as http1
from devserver.http.codes import BODILESS, EARLY_HINTS
from devserver.http.exchange import Headers, Request
from devserver.http.framing import Framing
from devserver.http.h2.events import SMALL
from devserver.http.h2.outbox import Outbox
from devserver.http.response import (
    UNKNOWN,
    Defaults,
    Head,
    response_head,
    takes_for_final,
    trailer_lines,
)

_OF_A_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
"""Fields that a message of HTTP/2 cannot have (RFC 9113 section 8.2.2)."""


class Owner(Protocol):
    """The connection, as a stream sees it."""

    def head(self, stream: int, fields: Headers, ended: bool) -> None:
        """Send fields."""
        ...

    def push(self, outbox: Outbox) -> None:
        """There is something to send in it, or its end."""
        ...

    def credit(self, stream: int, size: int) -> None:
        """Bytes of a body were read, or never will be."""
        ...

    def responded(self, stream: Stream) -> None:
        """The response is complete; it may not have been sent."""
        ...

    def cut(self, number: int) -> None:
        """End a stream now; what was promised on it cannot be kept."""
        ...


class Stream(http1.Stream):
    """See `exchange.Exchange`.

    Attributes beyond those of HTTP/1.1:
        number: of the stream.
        outbox: what is to be sent of the response's body.
    """

    __slots__ = ("_connection", "_sending", "number", "outbox")

    def __init__(
        self, number: int, request: Request, frame: Framing, owner: Owner, defaults: Defaults
    ) -> None:
        """Args: as over HTTP/1.1, but for the stream's number."""
        # There is no transport: whatever would use one is done here.
        super().__init__(request, frame, cast(asyncio.Transport, None), self, defaults)
        self.number = number
        self.outbox = Outbox(number, self.pause, self._all_sent)
        self._connection = owner
        self._sending: bool | None = None  # a file is being sent, and whether more follows

    # the request's body

    def arrive(self, data: bytes, ended: bool) -> None:
        """Take a part of the body. Args: ended: it is the last."""
        self._expects = False
        if ended:
            self.complete = True
        if data and (self.finished or self.disconnected):
            self._connection.credit(self.number, len(data))
        elif data and self._pieces and len(self._pieces[-1]) + len(data) <= SMALL:
            self._pieces[-1] += data
        elif data:
            self._pieces.append(data)
        self.wake()

    def read(self) -> bytes:
        if self._expects:
            self._expects = False
            if not (self.under_way or self.disconnected):
                self._connection.head(self.number, [(b":status", b"100")], False)
        if not self._pieces:
            return b""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        if not self.disconnected:
            self._connection.credit(self.number, len(data))
        return data

    # the response

    def hint(self, headers: Headers) -> None:
        lines = response_head(EARLY_HINTS, headers)
        if not (self.under_way or self.disconnected or takes_for_final(self.request.headers)):
            fields = [(b":status", b"%d" % EARLY_HINTS), *_fields(lines)]
            self._connection.head(self.number, fields, False)

    def write(self, data: bytes, more: bool) -> None:
        if not self.started or self.finished or self._sending is not None:
            self._check_open()
            return
        if self._remaining >= 0:
            self._count(len(data), more)
        if self._head is not None and self._open(self._head, len(data), more):
            return
        if not self.disconnected:
            if data and not self._no_body:
                self.outbox.put(data)
            self.outbox.ends = not more
            self._connection.push(self.outbox)
        if not more:
            self._finish()

    def _open(self, head: Head, size: int, more: bool) -> bool:
        """Send the head. Returns whether that is all.

        Args:
            size: of the first part of the body, in bytes.
        """
        self._head = None
        fields = [(b":status", b"%d" % self.status), *_fields(head.block)]
        if head.length == UNKNOWN and not more and self.status not in BODILESS:
            self._remaining = 0
            if size or not self._no_body:
                fields.append((b"content-length", b"%d" % size))
        fields += _added(self._defaults.lines(head.names))
        is_all = not more and (self._no_body or not size)
        if not self.disconnected:
            self._connection.head(self.number, fields, is_all)
        if is_all:
            self._finish()
        return is_all

    def _finish(self) -> None:
        self._credit_unread()
        self._pieces.clear()
        self.finished, self.paused = True, False
        self._connection.responded(self)

    def send_file(self, file: int, offset: int, count: int, more: bool) -> None:
        if not (count and self.started) or self.finished or self._sending is not None:
            self.write(b"", more)  # that has no effect, or is a fault
            return
        copy = None if self._no_body or self.disconnected else os.dup(file)
        try:
            if self._remaining >= 0:
                self._count(count, more)
        except BaseException:
            if copy is not None:
                os.close(copy)
            raise
        if self._head is not None and self._open(self._head, count, more):
            return
        if copy is not None:
            self._sending = more
            self.outbox.put_file(copy, offset, count)
            self._connection.push(self.outbox)
        elif not more:
            self.write(b"", False)

    def trail(self, headers: Headers) -> None:
        lines = trailer_lines(headers)
        wanted = self.takes_trailers and lines and self.started and not self.finished
        if not wanted or self._sending is not None or self._no_body:
            self.write(b"", False)
            return
        if self._remaining >= 0:
            self._count(0, False)
        self.write(b"", True)  # the head, if it has not left
        if not self.disconnected:
            self.outbox.trailers = [(name.lower(), value) for name, value in _pairs(lines)]
            self.outbox.ends = True
            self._connection.push(self.outbox)
        self._finish()

    def abort(self) -> None:
        self.finished = self.aborted = True
        self._connection.cut(self.number)

    # what the connection tells

    def end(self) -> None:
        """The server stops: end a response that would go on for ever."""
        if self.under_way and self._remaining == UNKNOWN and not self.disconnected:
            self.outbox.ends = True
            self._connection.push(self.outbox)
            self.disconnect()
        else:
            self._connection.cut(self.number)

    def hang_up(self) -> None:
        if self.complete:
            super().hang_up()
        else:
            self._connection.cut(self.number)

    def disconnect(self) -> None:
        self._sending = None
        self._credit_unread()
        super().disconnect()

    def _credit_unread(self) -> None:
        """What nobody has read, or what is read later, must not hold up other streams."""
        unread = sum(map(len, self._pieces))
        if unread and not self.disconnected:
            self._connection.credit(self.number, unread)

    def pause(self, paused: bool) -> None:
        """The outbox is full, or has room again."""
        self.paused = paused
        if paused:
            return
        more, self._sending = self._sending, None
        if more is False:
            self.outbox.ends = True
            self._connection.push(self.outbox)
            self._finish()
        self.wake()

    def _all_sent(self) -> None:
        """The outbox is empty, and the stream ended on our side."""

    # `http.stream.Owner`: what it tells of itself is about its stream alone

    def responded(self, stream: http1.Stream) -> None:
        """See `http.stream.Owner`."""
        self._connection.responded(self)

    def read_on(self, stream: http1.Stream) -> None:
        """See `http.stream.Owner`: a body in frames is never read in parts."""

    def cut(self, open_ended: bool = False) -> None:
        """See `http.stream.Owner`."""
        self._connection.cut(self.number)


def _pairs(lines: bytes) -> Headers:
    """Header lines of HTTP/1.1 as names and values."""
    pairs = (line.partition(b": ") for line in lines.split(b"\r\n") if b": " in line)
    return [(name, value.strip(b" \t")) for name, _, value in pairs]


def _fields(block: bytes) -> Headers:
    """The fields of an encoded head, after the status line."""
    pairs = _pairs(block.partition(b"\r\n")[2])
    return [(lower, value) for name, value in pairs if (lower := name.lower()) not in _OF_A_CONNECTION]


@lru_cache(maxsize=16)
def _added(lines: bytes) -> Headers:
    """The fields that the server adds; they are mostly the same."""
    return [
        (lower, value) for name, value in _pairs(lines) if (lower := name.lower()) not in _OF_A_CONNECTION
    ]


def answered(lines: bytes) -> Headers:
    """The fields of an answer to a handshake (see `handshake.accepted`)."""
    return _added(lines.partition(b"\r\n")[2])
