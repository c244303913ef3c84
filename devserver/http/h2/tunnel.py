"""One WebSocket over a stream of HTTP/2 (RFC 8441): the transport that `websocket` knows, made of a stream.

Frames, messages, pings and the close are the same as over HTTP/1.1. The handshake differs: it has no key,
and its answer is a 200. Refuses to know all that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import Any, Protocol

from devserver.http.exchange import Handler, Headers, Request
from devserver.http.framing import Framing
from devserver.http.h2.outbox import Outbox
from devserver.http.h2.stream import Owner as StreamOwner
from devserver.http.h2.stream import Stream, answered
from devserver.http.handshake import Opening, accepted
from devserver.http.service import Service
from devserver.http.websocket import WebSocketConnection

_OK = 200


class Owner(StreamOwner, Protocol):
    """The connection, as a tunnel sees it."""

    def drop(self, number: int) -> None:
        """A tunnel is over on both sides."""
        ...

    def replace(self, stream: Stream) -> None:
        """A tunnel is an exchange from here on."""
        ...


class Tunnel(asyncio.Transport):
    """See the module. It is the transport of a WebSocket, and its `Owner`.

    Attributes:
        number: of the stream.
        outbox: what is to be sent.
        handler: None; a session tells of its own.
        defaults: headers that the answer to a handshake gets unless it has them.
    """

    handler: Handler | None = None

    def __init__(self, number: int, owner: Owner, service: Service) -> None:
        super().__init__()
        self.number = number
        self.outbox = Outbox(number, self._pause, self.sent)
        self.defaults = service.defaults
        self._owner = owner
        self._service = service
        self._began = perf_counter()
        self._session: WebSocketConnection | None = None
        self._waiting: deque[tuple[bytes, bool]] = deque()  # what has come while nobody was to read
        self._is_paused = False
        self._is_accepted = False
        self._is_closing = False
        self._is_lost = False
        self._is_sent = self._is_heard = False  # either side has ended

    def begin(self, request: Request, ended: bool) -> None:
        """Begin the WebSocket. Args: request: its handshake; ended: nothing follows."""
        service = self._service
        session = self._session = WebSocketConnection(self, request, service.gateway, service.websocket, self)
        service.connections.add(session)
        session.begin(b"")
        if ended:
            self.arrive(b"", True)

    # what the connection tells

    def arrive(self, data: bytes, ended: bool) -> None:
        """Take bytes from the client. Args: ended: they are the last."""
        self._waiting.append((data, ended))
        self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting and not self._is_paused and self._session is not None:
            data, ended = self._waiting.popleft()
            self._owner.credit(self.number, len(data))
            if data and not self._is_lost:
                self._session.data_received(data)
            if ended:
                self._is_heard = True
                self._session.eof_received()
                self.close()
                self._end()

    def hang_up(self) -> None:
        """The client has ended its side of the connection."""
        self.close()

    def sent(self) -> None:
        """Our side is ended, and everything is sent. The client's end is awaited by the session."""
        self._is_sent = True
        self._end()

    def _end(self) -> None:
        if self._is_sent and self._is_heard:
            self._owner.drop(self.number)
            self.disconnect()

    def disconnect(self) -> None:
        """The stream is over."""
        self._owner.credit(self.number, sum(len(data) for data, _ in self._waiting))
        self._waiting.clear()
        session, self._session = self._session, None
        self._is_closing = self._is_lost = True
        if session is not None:
            session.connection_lost(None)

    def _pause(self, paused: bool) -> None:
        if self._session is None:
            return
        if paused:
            self._session.pause_writing()
        else:
            self._session.resume_writing()

    # asyncio.Transport, as far as a WebSocket uses it

    def write(self, data: Any) -> None:
        if not self._is_closing:
            self.outbox.put(bytes(data))
            self._owner.push(self.outbox)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._is_closing = True
        self.outbox.ends = True
        self._owner.push(self.outbox)

    def close(self) -> None:
        if not self._is_accepted:
            self.abort()  # nothing can end without a head
        elif not self._is_closing:
            self.write_eof()

    def abort(self) -> None:
        if not self._is_lost:
            self._owner.cut(self.number)

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        self._pass_on()

    def get_write_buffer_size(self) -> int:
        return self.outbox.size

    # `websocket.Owner`

    def accept(self, opening: Opening, subprotocol: str | None, extension: str, headers: Headers) -> None:
        """See `websocket.Owner`."""
        self._is_accepted = True
        fields = answered(accepted(opening, subprotocol, extension, headers, self.defaults))
        self._owner.head(self.number, [(b":status", b"%d" % _OK), *fields], False)
        if self._session is not None:
            self._service.log(self._session.request, _OK, self._began)

    def closed(self, connection: WebSocketConnection) -> None:
        """See `websocket.Owner`."""
        self._service.connections.discard(connection)

    def refusal(self, request: Request) -> Stream:
        """See `websocket.Owner`."""
        self._session = None
        stream = Stream(self.number, request, Framing(), self._owner, self.defaults)
        self._owner.replace(stream)
        return stream
