"""One connection: reads heads, runs one exchange after the other, keeps the time.

An `asyncio.Protocol`. A request is only begun when the response before it is complete: what a
pipelining client sent ahead waits as bytes. There is one timer per connection; it is not set
again for every request but looks, when it fires, at the deadline as it is then.

Refuses to know WSGI and ASGI, what a head or a body must look like (`framing`) and how a response
is written (`stream`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, cast

from devserver.config import Http, WebSocket
from devserver.http import framing
from devserver.http.exchange import Address, Gateway, Handler, Headers, Peer, Request
from devserver.http.framing import BadBody, Refused
from devserver.http.stream import HIGH_WATER, Stream

if TYPE_CHECKING:
    from devserver.http.websocket import WebSocketConnection

logger = logging.getLogger("devserver")

LINGER = 2.0
"""Seconds that a refused or unread request may go on arriving, so that the client reads the answer
instead of a reset."""

AccessLog = Callable[[Address | None, str, bytes, str, int, float], None]
"""Client, method, target, version, status and seconds."""


@dataclass(slots=True)
class Service:
    """What all connections of a server share.

    Attributes:
        gateway: the application.
        parse: the parser of heads.
        settings, websocket: sections of the configuration.
        defaults: headers that each response gets unless it has them; an empty value is the date.
        access: writes the access line; None for no lines.
        connections: those that are open.
        draining: no request is begun any more; a connection without one is handed over or closed.
        gate: asked before each request is begun; False holds the request back.
        hand_over: gives a connection to whoever serves next: its descriptor, which is closed
            afterwards, and the bytes that were read and not used. None: connections are closed.
    """

    gateway: Gateway
    parse: framing.Head
    settings: Http
    websocket: WebSocket
    defaults: Headers
    access: AccessLog | None = None
    connections: set[Connection | WebSocketConnection] = field(default_factory=set)
    draining: bool = False
    gate: Callable[[], bool] | None = None
    hand_over: Callable[[int, bytes], None] | None = None

    @property
    def full(self) -> bool:
        """Whether `--limit-concurrency` forbids another request."""
        limit = self.settings.concurrency
        return limit is not None and (len(self.connections) > limit or len(self.gateway.running) >= limit)


class Connection(asyncio.Protocol):
    """See the module. It also is the `Owner` of its streams and of a WebSocket it turned into."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.stream: Stream | None = None
        self.peer = Peer()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)  # set before anything else is called
        self._buffer = b""
        self._searched = 0
        self._eof = False
        self._closing = False  # the last response has been sent; what still arrives is dropped
        self._paused = False
        self._held = False  # the gate has not let the next request through
        self._leaving = False  # handed over as soon as everything is written
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.peer = Peer(
            _address(transport.get_extra_info("peername")),
            _address(transport.get_extra_info("sockname")),
            "https" if transport.get_extra_info("sslcontext") else "http",
        )
        self.service.connections.add(self)
        self._expect_by(self.service.settings.header_timeout)

    def data_received(self, data: bytes) -> None:
        stream = self.stream
        if self._closing:
            return
        if stream is not None and not stream.complete:
            self._feed(stream, data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if stream is None:
            self._next()
        elif len(self._buffer) > HIGH_WATER:
            self._pause()

    def eof_received(self) -> bool:
        self._eof = True
        stream = self.stream
        if stream is None:
            return self._held or self._leaving
        if stream.complete:
            stream.keep_alive = False
            stream.hang_up()
            return True
        self._bad_body(stream, "the body ended before its announced length")
        return not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.connections.discard(self)
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self.stream is not None:
            self.stream.disconnect()

    def pause_writing(self) -> None:
        if self.stream is not None:
            self.stream.pause(True)

    def resume_writing(self) -> None:
        if self._leaving:
            self._leave()
        elif self.stream is not None:
            self.stream.pause(False)

    # reading

    def _next(self, passed: bool = False) -> None:
        """Begin the next request if its head is there. Args: passed: the gate has been asked."""
        buffer = self._buffer
        if not self._searched and buffer[:2] == b"\r\n":
            buffer = self._buffer = buffer.lstrip(b"\r\n")  # RFC 9112 section 2.2
        try:
            end = framing.end_of_head(buffer, self._searched, self.service.settings.max_head)
            if end < 0:
                if not self._searched and buffer:
                    self._expect_by(self.service.settings.header_timeout)
                self._searched = len(buffer)
                return
            if not passed and self.service.gate is not None and not self.service.gate():
                self._held, self._deadline = True, 0.0
                self._pause()
                return
            head, self._buffer, self._searched = buffer[:end], buffer[end:], 0
            framing.check_head(head)
            method, target, version, headers = self.service.parse(head)
            frame = framing.framing(method, version, headers)
            path, query = framing.split_target(method, target)
        except Refused as refused:
            self._refuse(refused)
            return
        self._begin(Request(method, target, path, query, version, headers, self.peer), frame)

    def _begin(self, request: Request, frame: framing.Framing) -> None:
        service = self.service
        self._deadline = 0.0
        if frame.upgrade == b"websocket" and request.method == "GET" and self._upgrade(request):
            return
        stream = self.stream = Stream(request, frame, self._transport, self, service.defaults)
        if service.draining:
            stream.keep_alive = False
        if self._eof:
            stream.half_closed, stream.keep_alive = True, False
        if service.full:
            stream.start(503, [(b"content-type", b"text/plain"), (b"retry-after", b"1")])
            stream.write(b"Too many requests at once (--limit-concurrency).\n", False)
            return
        if not stream.complete and self._buffer:
            data, self._buffer = self._buffer, b""
            self._feed(stream, data)
            if self.stream is not stream:
                return
        handler = service.gateway.exchange(stream)
        if self.stream is stream:  # else it was answered, and what follows has begun, in that call
            stream.handler = handler

    def _feed(self, stream: Stream, data: bytes) -> None:
        try:
            rest = stream.feed(data)
        except BadBody as error:
            self._bad_body(stream, str(error))
            return
        if rest is not None:
            self._buffer = rest
            if stream.finished:
                self._after(stream)

    # what is refused

    def _refuse(self, refused: Refused) -> None:
        """Answer a head that is not served, and close. The application never hears of it."""
        logger.warning("refused a request from %s: %s", _show(self.peer.client), refused.reason)
        request = Request("GET", b"", b"", b"", "1.1", [], self.peer)
        stream = self.stream = Stream(request, framing.Framing(keep_alive=False), self._transport, self, self.service.defaults)
        stream.start(refused.status, [(b"content-type", b"text/plain; charset=utf-8")])
        stream.complete = False  # whatever follows is no request of ours
        stream.write(refused.reason.encode() + b"\n", False)

    def _bad_body(self, stream: Stream, reason: str) -> None:
        """The rest of the connection cannot be understood: tell both sides, and close."""
        stream.keep_alive = False
        if stream.finished:
            self._transport.close()
            return
        logger.warning("bad body from %s: %s", _show(self.peer.client), reason)
        handler, stream.handler = stream.handler, None
        if not stream.started:
            stream.start(400, [(b"content-type", b"text/plain; charset=utf-8")])
            stream.write(reason.encode() + b"\n", False)
        else:
            self._transport.abort()
        stream.disconnected = True
        if handler is not None:
            handler.wake()

    # what comes after a response

    def responded(self, stream: Stream) -> None:
        if self.service.access is not None:
            request = stream.request
            if request.target:  # else the head was refused, which has a line of its own
                seconds = perf_counter() - stream.began
                self.service.access(
                    self.peer.client, request.method, request.target, request.version, stream.status, seconds
                )
        if self._closing or self._transport.is_closing():
            return
        if stream.complete and not stream.keep_alive:
            self._closing = True
            self._transport.close()
        elif stream.complete:
            self._after(stream)
        elif stream.keep_alive and not stream.disconnected:
            # The rest of a body that nobody wants is read and dropped, for a while.
            self._expect_by(LINGER)
        else:
            self._linger()

    def _after(self, stream: Stream) -> None:
        """Request and response are complete: wait for the next request, or begin it."""
        if not stream.keep_alive:
            self._transport.close()
            return
        self.stream = None
        if self.service.draining:
            self._leave()
            return
        self._unpause()
        self._expect_by(self.service.settings.keep_alive)
        if self._buffer:
            # Not in this call: a client with a thousand requests in one segment would nest as deep.
            self._loop.call_soon(self._resume)
        elif self._eof:
            self._transport.close()

    def _resume(self) -> None:
        if self.stream is None and not self._closing and not self._leaving:
            self._next()
            if self.stream is None and self._eof and not self._held:
                self._transport.close()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _unpause(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _linger(self) -> None:
        """Close so that the response arrives: a close with unread data would reset the connection."""
        self._closing = True
        if self._eof or not self._transport.can_write_eof():
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:
            self._transport.abort()  # the other side was faster
        self._transport.resume_reading()
        self._expect_by(LINGER)

    def cut(self) -> None:
        self._closing = True
        self._transport.abort()

    # time

    def _expect_by(self, seconds: float) -> None:
        deadline = self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._deadline:
            return  # a request is being answered, which has no limit; the next one sets it anew
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
        elif self.stream is None and self._buffer and not self._closing:
            self._refuse(Refused(408, "the head of the request did not arrive in time"))
        else:
            self._transport.abort() if self._closing else self._transport.close()

    # the server's wishes

    def shutdown(self, code: int) -> None:
        """Leave as soon as what has begun is answered. `code` is for WebSockets only."""
        stream = self.stream
        if stream is None:
            self._leave()
            return
        if self.service.hand_over is None:
            stream.keep_alive = False
        if stream.event_stream:
            self._closing = True
            stream.end()
            self._transport.close()

    @property
    def endless(self) -> bool:
        """Whether what is being answered never ends by itself."""
        return self.stream is not None and self.stream.event_stream

    @property
    def handler(self) -> Handler | None:
        """The application at work here."""
        return None if self.stream is None else self.stream.handler

    def release(self) -> None:
        """Begin a request that the gate held back."""
        if self._held and not self._leaving:
            self._held = False
            self._unpause()
            self._next(passed=True)

    def _leave(self) -> None:
        """Give the connection, with what was read of it, to whoever serves next."""
        hand_over = self.service.hand_over
        if self._transport.is_closing() or self._closing:
            return
        if hand_over is None or (self._eof and not self._buffer):
            self._transport.close()
            return
        self._deadline = 0.0
        self._pause()
        if self._transport.get_write_buffer_size():
            self._leaving = True
            self._transport.set_write_buffer_limits(0)  # `resume_writing` comes when all is written
            return
        self._closing = True
        hand_over(self._transport.get_extra_info("socket").fileno(), self._buffer)
        self._transport.abort()

    def disconnect(self) -> None:
        """The grace is over: the application sees a disconnect, the client an abort."""
        if self.stream is not None:
            self.stream.disconnect()
        self.cut()

    # WebSocket

    def _upgrade(self, request: Request) -> bool:
        service = self.service
        if not service.gateway.websockets or service.websocket.implementation == "none":
            return False
        from devserver.http.websocket import WebSocketConnection  # wsproto is only loaded when one comes

        rest, self._buffer = self._buffer, b""
        session = WebSocketConnection(self._transport, request, service.gateway, service.websocket, self)
        if self._timer is not None:
            self._timer.cancel()
        service.connections.discard(self)
        service.connections.add(session)
        self._began = perf_counter()
        self._transport.set_protocol(session)
        session.begin(rest)
        return True

    def closed(self, connection: WebSocketConnection) -> None:
        """A WebSocket that this connection turned into is over."""
        self.service.connections.discard(connection)

    def handshake(self, request: Request, status: int) -> None:
        """A handshake was answered; refusals are logged as the responses that they are."""
        if self.service.access is not None and status == 101:
            seconds = perf_counter() - self._began
            self.service.access(self.peer.client, request.method, request.target, request.version, status, seconds)

    def refusal(self, request: Request) -> Stream:
        """An exchange for an ordinary response to a handshake; the connection closes after it."""
        self.service.connections.add(self)
        self._transport.set_protocol(self)
        stream = Stream(request, framing.Framing(keep_alive=False), self._transport, self, self.service.defaults)
        self.stream = stream
        return stream


def _address(name: object) -> Address | None:
    """An address of a socket as the gateways show it: (host, port), or (path, None) on Unix."""
    if isinstance(name, tuple) and len(name) >= 2:
        return str(name[0]), int(name[1])
    if isinstance(name, str | bytes) and name:
        return (name if isinstance(name, str) else name.decode(errors="replace")), None
    return None


def _show(address: Address | None) -> str:
    return "a Unix socket" if address is None else address[0] if address[1] is None else f"{address[0]}:{address[1]}"
