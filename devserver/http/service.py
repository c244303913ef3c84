"""What all connections of a server share."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from devserver.config import Http
from devserver.http import framing
from devserver.http.exchange import Address, Gateway, Handler, Headers, Peer, Request
from devserver.http.peer import show
from devserver.http.repeats import Repeats
from devserver.http.response import Defaults
from devserver.http.tally import CONNECTIONS, HANDLERS, Counted, Share
from devserver.websockets import WebSocket

logger = logging.getLogger("devserver")

AT_ONCE = 64
"""Connections that leave together at most: who waits for the end of a drain sees that it goes on."""

UNTOLD: Address = ("unknown", 0)
"""What the access line has for a client of whom a proxy does not tell the address (RFC 7239 section 6.2)."""
ALLOWANCE = 2.0
"""Seconds for which an idle connection is kept beyond the time that is announced.

Who reuses a connection up to that time must find it open, but its clock began when the response arrived, and
what it sends takes its way. Node adds 1 s for this, nginx has a second time to announce.
"""

HandOver = Callable[[list[tuple[int, bytes]]], None]
"""Gives connections away: descriptors, which are closed afterwards, and the bytes read of each."""

AccessLog = Callable[[Address | None, str, bytes, str, int, float], None]
"""Client, method, target, version, status and seconds."""


class Open(Protocol):
    """A connection that is open, as far as its end goes.

    Attributes:
        waiting: something was read for which no request has been begun.
        endless: the applications at work on it on what never ends by itself.
    """

    @property
    def waiting(self) -> bool: ...

    @property
    def endless(self) -> Iterable[Handler]: ...

    def shutdown(self, code: int) -> None:
        """Leave as soon as what has begun is answered. `code` is for WebSockets."""

    def disconnect(self, why: str = "") -> None:
        """The grace is over: the application sees a disconnect, and the client is told why."""

    def abandoned(self) -> tuple[int, bytes] | None:
        """What is given away while the loop does not turn; None if a request has begun. Any thread."""


class Held(Protocol):
    """A connection whose request the gate has held back."""

    def release(self) -> None:
        """Begin it."""


class Own(Protocol):
    """Pages that the server itself answers. Neither the gate nor `--limit-concurrency` is for them.

    Attributes:
        waiting: the number of connections on which such a page waits.
    """

    @property
    def waiting(self) -> int: ...

    def has(self, path: bytes) -> bool:
        """Whether a path is one of these."""
        ...

    def before(self, gateway: Gateway) -> Gateway:
        """What answers these paths, and gives the others to the application's gateway."""
        ...


class Gate(Protocol):
    """What is asked before a request begins: what is served may have become old."""

    def lets_in(self) -> bool:
        """Whether it may begin; else it is held back. In the event loop."""
        ...


class Heads(Protocol):
    """How the head of a request is read: `framing` for HTTP/1, or `uwsgi`. Each module is one."""

    def blank_lines(self, buffer: bytes, begin: int) -> int:
        """How many bytes may be passed over before a head. Args: begin: where to look."""
        ...

    def end_of_head(self, buffer: bytes, begin: int, searched: int, limit: int) -> int:
        """Index after a head; -1 when it has not arrived.

        Args:
            buffer: what has arrived.
            begin: where in it the head begins.
            searched: up to where it was looked at before, in vain.
            limit: the most bytes that a head may have.

        Raises:
            framing.Refused: it is too large, or is none.
        """
        ...

    def read(self, head: bytes) -> framing.Framing:
        """What a head says.

        Raises:
            framing.Refused: it breaks the rules, or contradicts itself.
        """
        ...


class Front(Protocol):
    """The proxies in front of this server."""

    def believe(self, request: Request) -> Request:
        """A request as it was made to the first proxy, as far as the proxies are believed.

        Raises:
            framing.Refused: it came by the uwsgi protocol from a peer that is not trusted.
        """
        ...

    def announces(self, peer: Peer) -> bool:
        """Whether a connection begins with a PROXY header."""
        ...

    def announced(self, data: bytes, peer: Peer) -> tuple[Peer, int]:
        """The peer that a PROXY header names, and the header's size in bytes; 0 while it is not all there.

        Args:
            data: what has arrived.
            peer: the proxy's.

        Raises:
            framing.Refused: there is no such header, or it is malformed.
        """
        ...


@dataclass(slots=True)
class Service:
    """See the module.

    Attributes:
        gateway: the application.
        parse: makes header lines of a head.
        settings, websocket: sections of the configuration.
        headers: what each response gets unless it has it; the date is added as the settings say.
        access: writes the access line; None for no lines.
        connections: those that are open.
        held: those whose request the gate has held back, once for each time, in order.
        draining: no request is begun any more; a connection without one is handed over or closed.
        gate: asked before each request is begun; None lets all in.
        hand_over: gives connections to whoever serves next. None: they are closed.
        own: pages of the server's own; None for none.
        http2: whether HTTP/2 is spoken.
        front: the proxies in front; None if no proxy is believed.
        heads: how heads are read.
        defaults: `headers`, encoded.
        share: what other workers have to do; None where there are none, or where it does not matter.
        kept: seconds for which an idle connection is kept.
    """

    gateway: Gateway
    parse: framing.Parser
    settings: Http
    websocket: WebSocket
    headers: Headers
    access: AccessLog | None = None
    connections: set[Open] = field(default_factory=set)
    held: deque[Held] = field(default_factory=deque)
    draining: bool = False
    gate: Gate | None = None
    hand_over: HandOver | None = None
    own: Own | None = None
    front: Front | None = None
    heads: Heads = framing
    http2: bool = False
    share: Share | None = None
    defaults: Defaults = field(init=False)
    kept: float = field(init=False)
    _refusals: Repeats = field(default_factory=Repeats)
    _leaving: list[tuple[int, bytes, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.share is not None:
            self.connections = Counted(self.share, CONNECTIONS)
            self.gateway.running = Counted(self.share, HANDLERS)
        self.kept = self.settings.keep_alive + ALLOWANCE
        self.defaults = Defaults(self.headers, date=self.settings.date_header, keep=self.settings.keep_alive)

    def announces(self, peer: Peer) -> bool:
        """Whether a connection begins with a PROXY header."""
        return self.front is not None and self.front.announces(peer)

    def announced(self, data: bytes, peer: Peer) -> tuple[Peer, int]:
        """See `Front`; for a connection that begins so."""
        assert self.front is not None
        return self.front.announced(data, peer)

    def request(self, head: bytes, frame: framing.Framing, peer: Peer) -> Request:
        """The request that a checked head makes; where a proxy has sent it, as the client made it.

        Raises:
            framing.Refused: the parser finds fault with it.
        """
        headers = self.parse(head)
        if frame.authority:
            headers = frame.hosted(headers, peer)
        return self.made(frame, headers, peer)

    def made(self, frame: framing.Framing, headers: Headers, peer: Peer) -> Request:
        """The request that header lines make; where a proxy has sent it, as the client made it."""
        request = Request(frame.method, frame.target, frame.path, frame.query, frame.version, headers, peer)
        if not frame.forwarded or self.front is None:
            return request
        request.parameters = frame.parameters
        return self.front.believe(request)

    def log(self, request: Request, status: int, began: float) -> None:
        """Write the access line, unless the request is for a page of the server's own.

        Args:
            began: when the head had been read, by `perf_counter`.
        """
        # A refused head is not kept as a request; it has a line of its own.
        if self.access is not None and request.target and not self.is_own(request.path):
            peer, seconds = request.peer, perf_counter() - began
            client = peer.client or (UNTOLD if peer.is_proxied else None)
            self.access(client, request.method, request.target, request.version, status, seconds)

    def tell_refused(self, peer: Peer, refused: framing.Refused) -> None:
        """Say that a request was refused, unless that is said all the time."""
        more = self._refusals.another(refused.status, perf_counter())
        if more is not None:
            logger.warning("refused a request from %s: %s%s", show(peer.client), refused.reason, more)

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

    def is_own(self, path: bytes) -> bool:
        """Whether the server itself answers a path."""
        return self.own is not None and self.own.has(path)

    def holds(self, path: bytes) -> bool:
        """Whether the gate holds a request for this path back."""
        return self.gate is not None and not self.is_own(path) and not self.gate.lets_in()

    def upgrades(self, request: Request, protocol: bytes) -> bool:
        """Whether a request turns into what it asks for, a protocol in lower case."""
        if protocol != b"websocket" or request.method != ("CONNECT" if request.version == "2" else "GET"):
            return False
        if not self.serves_websockets:
            return False
        return not self.refuses(request.path)  # else it is refused like any other request

    @property
    def serves_websockets(self) -> bool:
        """Whether WebSockets are served at all."""
        return self.gateway.websockets and self.websocket.implementation != "none"

    def refuses(self, path: bytes) -> bool:
        """Whether `--limit-concurrency` forbids another request, for this path."""
        limit = self.settings.concurrency
        if limit is None or self.is_own(path):
            return False
        connections = len(self.connections) - (self.own.waiting if self.own is not None else 0)
        running = len(self.gateway.running)
        if self.share is not None:
            connections += self.share.others(CONNECTIONS)
            running += self.share.others(HANDLERS)
        return connections > limit or running >= limit
