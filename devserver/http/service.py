"""What all connections of a server share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from devserver.config import Http, WebSocket
from devserver.http import framing
from devserver.http.exchange import Address, Gateway, Headers, Request
from devserver.http.response import Defaults

if TYPE_CHECKING:
    from devserver.http.connection import Connection
    from devserver.http.websocket import WebSocketConnection

AT_ONCE = 64
"""Connections that leave together at most: who waits for the end of a drain sees that it goes on."""

HandOver = Callable[[list[tuple[int, bytes]]], None]
"""Gives connections away: descriptors, which are closed afterwards, and the bytes read of each."""

AccessLog = Callable[[Address | None, str, bytes, str, int, float], None]
"""Client, method, target, version, status and seconds."""


@dataclass(slots=True)
class Service:
    """See the module.

    Attributes:
        gateway: the application.
        parse: the parser of heads.
        settings, websocket: sections of the configuration.
        headers: what each response gets unless it has it; the date is added as the settings say.
        access: writes the access line; None for no lines.
        connections: those that are open.
        held: those whose request the gate has held back, once for each time, in order.
        draining: no request is begun any more; a connection without one is handed over or closed.
        gate: asked with the path before each request is begun; False holds the request back.
        hand_over: gives connections to whoever serves next. None: they are closed.
        defaults: `headers`, encoded.
    """

    gateway: Gateway
    parse: framing.Parser
    settings: Http
    websocket: WebSocket
    headers: Headers
    access: AccessLog | None = None
    connections: set[Connection | WebSocketConnection] = field(default_factory=set)
    held: deque[Connection] = field(default_factory=deque)
    draining: bool = False
    gate: Callable[[bytes], bool] | None = None
    hand_over: HandOver | None = None
    defaults: Defaults = field(init=False)
    _leaving: list[tuple[int, bytes, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.defaults = Defaults(self.headers, date=self.settings.date_header)

    def log(self, request: Request, status: int, began: float) -> None:
        """Write the access line. Args: began: when the head had been read, by `perf_counter`."""
        # A refused head is not kept as a request; it has a line of its own.
        if self.access is not None and request.target and not request.quiet:
            peer, seconds = request.peer, perf_counter() - began
            self.access(peer.client, request.method, request.target, request.version, status, seconds)

    def leave(self, fd: int, data: bytes, then: Callable[[], None]) -> None:
        """Give a connection to whoever serves next, together with others that leave in this turn of the loop.

        Args:
            fd: its descriptor; nothing is read of it any more.
            data: what was read and not used.
            then: closes it here.
        """
        self._leaving.append((fd, data, then))
        if len(self._leaving) == 1:
            asyncio.get_running_loop().call_soon(self.flush)
        elif len(self._leaving) == AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Give away those that leave."""
        leaving, self._leaving = self._leaving, []
        if leaving and self.hand_over is not None:
            self.hand_over([(fd, data) for fd, data, _ in leaving])
        for _, _, then in leaving:
            then()

    @property
    def full(self) -> bool:
        """Whether `--limit-concurrency` forbids another request."""
        limit = self.settings.concurrency
        return limit is not None and (len(self.connections) > limit or len(self.gateway.running) >= limit)
