"""One exchange over HTTP/1.1: the body as it arrives, and what the connection tells.

Implements `exchange.Exchange` on a transport; the response is written by what it is made from, a
`ResponseWriter`. It refuses to know how requests are read, what comes before or after it on the
connection, and what a gateway does with it. What the connection must know it is told by `Owner`.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Protocol

from devserver.http import response_writer
from devserver.http.body import body
from devserver.http.exchange import Request
from devserver.http.framing import Framing
from devserver.http.response import Defaults
from devserver.http.response_writer import ResponseWriter

HIGH_WATER = 65536
"""Bytes of a body that wait for the application before the connection stops reading."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Owner(response_writer.Owner, Protocol):
    """The connection, as a stream sees it."""

    def responded(self, stream: Stream) -> None:
        """The response is complete."""
        ...

    def read_on(self, stream: Stream) -> None:
        """Another turn of the loop has come: feed what is still to be read of the body, or `skip` it."""
        ...


class Stream(ResponseWriter):
    """See `exchange.Exchange`.

    Attributes beyond those and those of `ResponseWriter`:
        began: when the head had been read, on the clock of `time.perf_counter`.
    """

    _owner: Owner

    __slots__ = ("_body", "_buffered", "_goes_on", "_pieces", "_unheld", "began", "complete", "half_closed")

    def __init__(
        self, request: Request, frame: Framing, transport: asyncio.Transport, owner: Owner, defaults: Defaults
    ) -> None:
        """Args: the checked head and its framing; where to write; headers that every response gets."""
        ResponseWriter.__init__(self, request, frame, transport, owner, defaults)
        self.began = perf_counter()
        self.complete = frame.length == 0
        self.half_closed = False
        self._body = body(frame.length) if frame.length else None
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._unheld = True
        self._goes_on = False  # the loop has been asked for another turn

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes from the connection; returns what follows the body, None while it goes on.

        Many chunks are not read in one turn of the loop. Then the connection is not read, and told in another
        turn to go on.

        Raises:
            body.BadBody: the body is malformed.
        """
        assert self._body is not None
        self._expects = False  # it comes, so nobody waits
        piece, rest = self._body.feed(data)
        if rest is not None:
            self.complete = True
        if piece and not self.finished:
            self._pieces.append(piece)
            self._buffered += len(piece)
            if self._buffered > HIGH_WATER and rest is None and self._unheld:
                self._unheld = False
                self._transport.pause_reading()
        if rest is None and self._body.behind:
            self._fall_behind()
        elif not self._unheld and self._buffered <= HIGH_WATER:
            self._unhold()
        if (piece or rest is not None) and self.handler is not None:
            self.handler.wake()
        return rest

    def _fall_behind(self) -> None:
        if self._unheld:
            self._unheld = False
            self._transport.pause_reading()
        if not self._goes_on:
            self._goes_on = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        if self.behind:
            self._owner.read_on(self)

    @property
    def behind(self) -> bool:
        """Something has arrived of the body, and been fed, that has not been read."""
        return self._body is not None and self._body.behind

    def skip(self) -> None:
        """Nobody wants what has not been read, nor what comes."""
        self._body = None
        self._unhold()

    def read(self) -> bytes:
        if self._expects:
            self._expects = False
            if not (self.under_way or self.disconnected):
                self._transport.write(CONTINUE)
        if not self._pieces:
            return b""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._buffered = 0
        self._unhold()
        return data

    def _unhold(self) -> None:
        if not (self._unheld or self.behind):
            self._unheld = True
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _finish(self) -> None:
        self.finished = True
        self.paused = False  # the connection does not let the next exchange begin before there is room
        self._pieces.clear()
        self._buffered = 0
        self._unhold()
        self._owner.responded(self)

    def hang_up(self) -> None:
        """The client has closed its sending side."""
        self.half_closed = True
        self.wake()
