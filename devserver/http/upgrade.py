"""A connection that turns into a WebSocket, and back if the handshake is refused.

Keeps the books of the service meanwhile. Refuses to know what a handshake must look like, and frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from devserver.http.codes import SWITCHING_PROTOCOLS
from devserver.http.exchange import Headers, Request
from devserver.http.handshake import Opening, answer
from devserver.http.service import Service
from devserver.http.stream import Stream
from devserver.http.websocket import WebSocketConnection


class Upgrade:
    """The `Owner` of one WebSocket."""

    def __init__(self, service: Service, take_back: Callable[[Request], Stream]) -> None:
        """Args: take_back: makes the connection an ordinary one again, and an exchange on it."""
        self._service = service
        self._take_back = take_back
        self._began = perf_counter()
        self._transport: asyncio.Transport | None = None
        self._request: Request | None = None

    def begin(self, transport: asyncio.Transport, request: Request, rest: bytes) -> None:
        """Hand a transport to a new WebSocket. Args: rest: bytes that came after the head."""
        service = self._service
        self._transport, self._request = transport, request
        session = WebSocketConnection(transport, request, service.gateway, service.websocket, self)
        service.connections.add(session)
        transport.set_protocol(session)
        session.begin(rest)

    def closed(self, connection: WebSocketConnection) -> None:
        """The WebSocket is over."""
        self._service.connections.discard(connection)

    def accept(self, opening: Opening, subprotocol: str | None, extension: str, headers: Headers) -> None:
        """See `websocket.Owner`. Refusals are logged as the responses that they are."""
        assert self._transport is not None
        assert self._request is not None
        self._transport.write(answer(opening, subprotocol, extension, headers, self._service.defaults))
        self._service.log(self._request, SWITCHING_PROTOCOLS, self._began)

    def refusal(self, request: Request) -> Stream:
        """An exchange for an ordinary response to a handshake."""
        return self._take_back(request)
