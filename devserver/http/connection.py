"""One connection: reads heads, runs one exchange after the other, keeps the time.

An `asyncio.Protocol`. A request is only begun when the response before it is complete and the
client has taken most of it: what a pipelining client sent ahead waits as bytes, and when that is
too much, at the client. There is one timer per connection; it is not set again for every request
but looks, when it fires, at the deadline as it is then.

How a connection ends:

    all is read and answered      the transport is closed, which sends what is left to send
    the client still sends        our side is ended, and what arrives is dropped until the client's
                                  end or silence: a close with unread data would reset the connection,
                                  and the client would never see the answer
    a promise cannot be kept      the transport is aborted, so that nobody takes half for the whole

Refuses to know WSGI and ASGI, what a head or a body must look like (`framing`, `body`) and how a
response is written (`stream`).
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING, cast

from devserver.http import framing
from devserver.http.body import BadBody
from devserver.http.exchange import Handler, Headers, Peer, Request
from devserver.http.framing import Framing, Refused
from devserver.http.peer import peer, show
from devserver.http.service import Service as Service
from devserver.http.stream import HIGH_WATER, Stream

if TYPE_CHECKING:
    from devserver.http.websocket import WebSocketConnection

logger = logging.getLogger("devserver")

SILENCE = 2.0
"""Seconds without a byte after which the rest of what nobody wants is not waited for."""

PATIENCE = 30.0
"""Seconds after which it is not waited for even if it still comes."""

HURRY = 0.2
"""Seconds for the same when the server stops."""

_PLAIN: Headers = [(b"content-type", b"text/plain; charset=utf-8")]


class Connection(asyncio.Protocol):
    """See the module. It also is the `Owner` of its streams and of a WebSocket it turned into."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.stream: Stream | None = None
        self.peer = Peer()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)  # set before anything else is called
        self._buffer = b""
        self._searched = 0  # of the buffer, for the end of a head
        self._eof = False
        self._closing = False  # the last response is complete; what still arrives is dropped
        self._held = False  # reading is paused because of the buffer
        self._waits = False  # the gate has not let the next request through
        self._leaving = False  # handed over as soon as all is written
        self._choked = False  # the client is slower than what was written to it
        self._partial = True  # the deadline is for the rest of a head
        self._deadline = 0.0  # 0 for none
        self._latest = 0.0  # the deadline is put off until then at most, while data is dropped
        self._timer: asyncio.TimerHandle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.peer = peer(transport)
        self.service.connections.add(self)
        self._expect_by(self.service.settings.header_timeout)

    def data_received(self, data: bytes) -> None:
        stream = self.stream
        if self._closing:
            self._put_off()
            return
        if stream is not None and not stream.complete:
            self._feed(stream, data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if stream is None and not self._choked:
            self._next()
        elif len(self._buffer) > HIGH_WATER:
            self._hold()

    def eof_received(self) -> bool:
        self._eof = True
        stream = self.stream
        if self._closing:
            return False
        if stream is None:
            self._loop.call_soon(self._resume)
        elif stream.complete:
            if not self._buffer:
                stream.keep_alive = False
            stream.hang_up()
        else:
            self._bad_body(stream, "the body ended early")
        return not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.connections.discard(self)
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self.stream is not None:
            self.stream.disconnect()

    def pause_writing(self) -> None:
        self._choked = True
        if self.stream is not None:
            self.stream.pause(True)

    def resume_writing(self) -> None:
        self._choked = False
        if self._leaving:
            self._leave()
        elif self.stream is not None:
            self.stream.pause(False)
        elif not self._closing:
            self._idle()

    # reading

    def _next(self, *, passed: bool = False) -> None:
        """Begin the next request if its head is there. Args: passed: the gate has let it through."""
        if self._buffer[:2] == b"\r\n":
            self._buffer = self._buffer[framing.blank_lines(self._buffer) :]
            self._searched = 0
        buffer = self._buffer
        try:
            end = framing.end_of_head(buffer, self._searched, self.service.settings.max_head)
            if end < 0:
                self._await_head()
                return
            if not passed and self.service.gate is not None and not self.service.gate():
                self._wait()
                return
            head, self._buffer, self._searched = buffer[:end], buffer[end:], 0
            frame = framing.read(head)
            method, target, version, headers = self.service.parse(head)
        except Refused as refused:
            self._refuse(refused)
            return
        self._begin(Request(method, target, frame.path, frame.query, version, headers, self.peer), frame)

    def _await_head(self) -> None:
        self._searched = len(self._buffer)
        self._release()
        if self._buffer and not self._partial:
            self._partial = True
            self._expect_by(self.service.settings.header_timeout)

    def _begin(self, request: Request, frame: Framing) -> None:
        service = self.service
        self._deadline = 0.0
        self._partial = False
        if frame.upgrade == b"websocket" and request.method == "GET" and self._upgrade(request):
            return
        stream = self.stream = Stream(request, frame, self._transport, self, service.defaults)
        if not service.settings.keep_alive:
            stream.keep_alive = False
        if self._feed_first(stream):
            handler = service.gateway.exchange(stream)
            if self.stream is stream:  # else it was answered, and what follows has begun, in that call
                stream.handler = handler

    def _feed_first(self, stream: Stream) -> bool:
        """Give a new stream what there is for it; whether the application is to be called."""
        if not stream.complete:
            self._release()
            data, self._buffer = self._buffer, b""
            if data:
                self._feed(stream, data)
        elif len(self._buffer) <= HIGH_WATER:
            self._release()
        if self.service.full and not stream.finished:
            stream.keep_alive = False
            stream.start(503, [*_PLAIN, (b"retry-after", b"1")])
            stream.write(b"Too many requests at once (--limit-concurrency).\n", False)
        elif self._eof and not stream.finished:
            if not stream.complete:
                self._bad_body(stream, "the body ended early")
            else:
                stream.half_closed = True
                stream.keep_alive = stream.keep_alive and bool(self._buffer)
        return not stream.finished

    def _feed(self, stream: Stream, data: bytes) -> None:
        try:
            rest = stream.feed(data)
        except BadBody as error:
            self._bad_body(stream, str(error))
            return
        if rest is not None:
            self._buffer = rest
        if stream.finished:
            if rest is not None:
                self._after(stream)
            else:
                self._put_off()

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            self._transport.pause_reading()

    def _release(self) -> None:
        if self._held:
            self._held = False
            self._transport.resume_reading()

    # what is refused

    def _refuse(self, refused: Refused) -> None:
        """Answer a head that is not served, and close. The application never hears of it."""
        logger.warning("refused a request from %s: %s", show(self.peer.client), refused.reason)
        request = Request("GET", b"", b"", b"", "1.1", [], self.peer)
        frame = Framing(length=1, keep_alive=False)  # whatever follows is no request of ours
        stream = self.stream = Stream(request, frame, self._transport, self, self.service.defaults)
        stream.start(refused.status, _PLAIN)
        stream.write(refused.reason.encode() + b"\n", False)

    def _bad_body(self, stream: Stream, reason: str) -> None:
        """The rest of the connection cannot be understood: tell both sides, and close."""
        stream.keep_alive = False
        if stream.finished:
            self._linger()
            return
        logger.warning("bad body from %s: %s", show(self.peer.client), reason)
        if stream.withdraw():
            stream.start(400, _PLAIN)
            stream.write(reason.encode() + b"\n", False)
        else:
            self.cut()
        stream.disconnect()

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
        if stream.complete:
            self._after(stream)
        elif stream.keep_alive:
            self._drop()  # the rest of a body that nobody wants; after it may come another request
        else:
            self._linger()

    def _after(self, stream: Stream) -> None:
        """Request and response are complete: wait for the next request, or begin it."""
        if stream.keep_alive:
            self.stream = None
            self._idle()
        elif self._buffer and not self._eof:
            self._linger()
        else:
            self._close()

    def _idle(self) -> None:
        if self._choked:
            self._deadline = 0.0  # first the client has to take what there is; then this is called again
            return
        self._expect_by(self.service.settings.keep_alive)
        if self._buffer or self._eof or self.service.draining:
            # Not in this call: a client with a thousand requests in one segment would nest as deep.
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        """Look at what has arrived and was left."""
        if self.stream is not None or self._choked or self._closing or self._waits or self._leaving:
            return
        if self.service.draining:
            self._leave()
            return
        if self._buffer:
            self._next()
        if self.stream is None and not self._closing:
            if self._eof and self._buffer:
                self._refuse(Refused(400, "the head of the request ended early"))
            elif self._eof and not self._waits:
                self._close()

    # handing over

    def _wait(self) -> None:
        """Hold a request back: it is begun by `release`, or by whoever takes the connection over."""
        self._waits = True
        self._deadline = 0.0
        self._hold()

    def release(self) -> None:
        """Begin a request that the gate held back."""
        if self._waits and not self._leaving:
            self._waits = False
            self._release()
            self._next(passed=True)

    def _leave(self) -> None:
        """Give the connection, with what was read of it, to whoever serves next."""
        hand_over = self.service.hand_over
        if self._closing or self._transport.is_closing():
            return
        if hand_over is None or (self._eof and not self._buffer):
            self._close()
            return
        self._deadline = 0.0
        self._hold()
        if self._transport.get_write_buffer_size():
            self._leaving = True
            self._transport.set_write_buffer_limits(0)  # `resume_writing` comes when all is written
            return
        self._closing = True
        hand_over(self._transport.get_extra_info("socket").fileno(), self._buffer)
        self._transport.abort()

    @property
    def endless(self) -> bool:
        """What is being answered never ends by itself."""
        return self.stream is not None and self.stream.event_stream

    @property
    def handler(self) -> Handler | None:
        """The application at work here."""
        return None if self.stream is None else self.stream.handler

    def _close(self) -> None:
        self._closing = True
        self._deadline = 0.0
        self._transport.close()

    def _linger(self) -> None:
        """End our side and drop what still arrives."""
        self._closing = True
        if self._eof or not self._transport.can_write_eof():
            self._close()
            return
        self._release()
        try:
            self._transport.write_eof()
        except OSError:
            self.cut()  # the other side was faster
        else:
            self._drop()

    def _drop(self) -> None:
        """Wait for the end of what is dropped, but not for ever."""
        silence, patience = (HURRY, HURRY) if self.service.draining else (SILENCE, PATIENCE)
        self._latest = self._loop.time() + patience
        self._expect_by(silence)

    def _put_off(self) -> None:
        if self._deadline:
            self._deadline = min(self._loop.time() + SILENCE, self._latest)

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
        elif self._closing:
            self._cut_unless_sending()
        elif self.stream is not None:
            self._linger()
        elif self._buffer:
            self._refuse(Refused(408, "the head of the request did not arrive in time"))
        else:
            self._close()

    def _cut_unless_sending(self) -> None:
        if self._transport.get_write_buffer_size():
            self._expect_by(SILENCE)  # the answer has not left yet; no response is cut for being slow
        else:
            self._transport.abort()

    # the server's wishes

    def shutdown(self, code: int) -> None:
        """Leave as soon as what has begun is answered. `code` is for WebSockets only."""
        stream = self.stream
        if stream is None:
            self._leave()
            return
        if self.service.hand_over is None:
            stream.keep_alive = False
        if stream.finished:
            if self._deadline:
                self._drop()
        elif stream.event_stream:
            stream.end()
            self._close()

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

        self._release()
        rest, self._buffer = self._buffer, b""
        session = WebSocketConnection(self._transport, request, service.gateway, service.websocket, self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
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
        stream = Stream(request, Framing(keep_alive=False), self._transport, self, self.service.defaults)
        self.stream = stream
        return stream
