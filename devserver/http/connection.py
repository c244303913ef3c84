"""One connection: reads heads, runs one exchange after the other, keeps the time.

An `asyncio.Protocol`. A request is only begun when the response before it is complete and the
client has taken most of it: what a pipelining client sent ahead waits as bytes, and when that is
too much, at the client.

How a connection ends:

    all is read and answered      the transport is closed, which sends what is left to send
    the client still sends        our side is ended, and what arrives is dropped until the client's
                                  end or silence: a close with unread data would reset the connection,
                                  and the client would never see the answer
    a promise cannot be kept      the transport is aborted, so that nobody takes half for the whole
    somebody else serves next     the descriptor goes over, with what was read and not used

Refuses to know WSGI and ASGI, what a head or a body must look like (`framing`, `body`) and how a
response is written (`stream`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from devserver.http import framing
from devserver.http.body import BadBody
from devserver.http.deadline import Deadline
from devserver.http.exchange import Handler, Peer, Request
from devserver.http.framing import Framing, Refused
from devserver.http.peer import peer, show
from devserver.http.service import Service as Service
from devserver.http.stream import HIGH_WATER, Stream

logger = logging.getLogger("devserver")

SILENCE = 2.0
"""Seconds without a byte after which the rest of what nobody wants is not waited for."""

PATIENCE = 30.0
"""Seconds after which it is not waited for even if it still comes."""

HURRY = 0.2
"""Seconds for the same when the server stops."""


class Connection(asyncio.Protocol):
    """See the module. It also is the `Owner` of its streams."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.stream: Stream | None = None
        self.peer = Peer()
        self._loop = asyncio.get_running_loop()
        self._transport = cast(asyncio.Transport, None)  # set before anything else is called
        self._deadline = Deadline(self._loop, self._missed)
        self._buffer = b""
        self._searched = 0  # of the buffer, for the end of a head
        self._partial = True  # the deadline is for the rest of a head
        self._eof = False
        self._paused = False  # reading is, because of the buffer
        self._choked = False  # the client is slower than what was written to it
        self._held = False  # the gate has not let the next request through
        self._leaving = False  # handed over as soon as everything is written
        self._closing = False  # the last response is complete; what still arrives is dropped

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.peer = peer(transport)
        self.service.connections.add(self)
        self._deadline.set(self.service.settings.header_timeout)

    def data_received(self, data: bytes) -> None:
        stream = self.stream
        if self._closing:
            self._deadline.put_off()
            return
        if stream is not None and not stream.complete:
            self._feed(stream, data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if stream is None and not self._choked:
            self._next()
        elif len(self._buffer) > HIGH_WATER:
            self._pause()

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
        self._deadline.cancel()
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

    def _next(self, passed: bool = False) -> None:
        """Begin the next request if its head is there. Args: passed: the gate has been asked."""
        service = self.service
        if self._buffer[:2] == b"\r\n":
            self._buffer = self._buffer[framing.blank_lines(self._buffer) :]
            self._searched = 0
        buffer = self._buffer
        try:
            end = framing.end_of_head(buffer, self._searched, service.settings.max_head)
            if end < 0:
                self._await_head()
                return
            if service.draining and service.hand_over is not None:
                self._leave()
                return
            if not passed and service.gate is not None and not service.gate():
                self._held = True
                self._deadline.clear()
                self._pause()
                return
            head, self._buffer, self._searched = buffer[:end], buffer[end:], 0
            frame = framing.read(head)
            request = service.request(head, frame, self.peer)
        except Refused as refused:
            self._refuse(refused)
        else:
            self._begin(request, frame)

    def _await_head(self) -> None:
        self._searched = len(self._buffer)
        self._unpause()
        if self._buffer and not self._partial:
            self._partial = True
            self._deadline.set(self.service.settings.header_timeout)

    def _begin(self, request: Request, frame: Framing) -> None:
        service = self.service
        self._deadline.clear()
        self._partial = False
        if frame.upgrade == b"websocket" and request.method == "GET" and self._upgrade(request):
            return
        stream = self.stream = Stream(request, frame, self._transport, self, service.defaults)
        if service.draining or not service.settings.keep_alive:
            stream.keep_alive = False
        if self._feed_first(stream):
            handler = service.gateway.exchange(stream)
            if self.stream is stream:  # else it was answered, and what follows has begun, in that call
                stream.handler = handler

    def _feed_first(self, stream: Stream) -> bool:
        """Give a new stream what there is for it; whether the application is to be called."""
        if not stream.complete:
            self._unpause()
            data, self._buffer = self._buffer, b""
            if data:
                self._feed(stream, data)
        elif len(self._buffer) <= HIGH_WATER:
            self._unpause()
        if self.service.full and not stream.finished:
            stream.keep_alive = False
            stream.say(503, "too many requests at once (--limit-concurrency)")
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
                self._deadline.put_off()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _unpause(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    # what is refused

    def _refuse(self, refused: Refused) -> None:
        """Answer a head that is not served, and close. The application never hears of it."""
        logger.warning("refused a request from %s: %s", show(self.peer.client), refused.reason)
        request = Request("GET", b"", b"", b"", "1.1", [], self.peer)
        frame = Framing(length=1, keep_alive=False)  # whatever follows is no request of ours
        stream = self.stream = Stream(request, frame, self._transport, self, self.service.defaults)
        stream.say(refused.status, refused.reason)

    def _bad_body(self, stream: Stream, reason: str) -> None:
        """The rest of the connection cannot be understood: tell both sides, and close."""
        stream.keep_alive = False
        if stream.finished:
            self._linger()
            return
        logger.warning("bad body from %s: %s", show(self.peer.client), reason)
        if stream.withdraw():
            stream.say(400, reason)
        else:
            self.cut()
        stream.disconnect()

    # what comes after a response

    def responded(self, stream: Stream) -> None:
        self.service.log(stream.request, stream.status, stream.began)
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
        if self.service.draining:
            self._leave()
            return
        if self._choked:
            self._deadline.clear()  # first the client has to take what there is; then this is called again
            return
        self._deadline.set(self.service.settings.keep_alive)
        if self._buffer or self._eof:
            # Not in this call: a client with a thousand requests in one segment would nest as deep.
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        """Look at what has arrived and was left."""
        if self.stream is not None or self._choked or self._held or self._leaving or self._closing:
            return
        if self._buffer:
            self._next()
        if self.stream is None and self._eof and not (self._held or self._leaving or self._closing):
            if self._buffer:
                self._refuse(Refused(400, "the head of the request ended early"))
            else:
                self._close()

    def _close(self) -> None:
        self._closing = True
        self._deadline.clear()
        self._transport.close()

    def _linger(self) -> None:
        """End our side and drop what still arrives."""
        self._closing = True
        if self._eof or not self._transport.can_write_eof():
            self._close()
            return
        self._unpause()
        try:
            self._transport.write_eof()
        except (OSError, RuntimeError):  # the latter is uvloop's
            self.cut()  # the other side was faster
        else:
            self._drop()

    def _drop(self) -> None:
        """Wait for the end of what is dropped, but not for ever."""
        if self.service.draining:
            self._deadline.set(HURRY)
        else:
            self._deadline.set(SILENCE, PATIENCE)

    def cut(self) -> None:
        self._closing = True
        self._deadline.clear()
        self._transport.abort()

    def _missed(self) -> None:
        """The deadline has passed."""
        if self._closing:
            if self._transport.get_write_buffer_size():
                self._drop()  # the answer has not left yet; no response is cut for being slow
            else:
                self._transport.abort()
        elif self.stream is not None:
            self._linger()
        elif self._buffer:
            self._refuse(Refused(408, "the head of the request did not arrive in time"))
        else:
            self._close()

    # the server's wishes

    @property
    def endless(self) -> bool:
        """Whether what is being answered never ends by itself."""
        return self.stream is not None and self.stream.event_stream

    @property
    def handler(self) -> Handler | None:
        """The application at work here."""
        return None if self.stream is None else self.stream.handler

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
            self._close()
            return
        self._deadline.clear()
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
        from devserver.http.upgrade import Upgrade  # wsproto is only loaded when a WebSocket comes

        self._unpause()
        self._deadline.cancel()
        service.connections.discard(self)
        rest, self._buffer = self._buffer, b""
        Upgrade(service, self._take_back).begin(self._transport, request, rest)
        return True

    def _take_back(self, request: Request) -> Stream:
        """Answer a handshake by an ordinary response, after which the connection closes."""
        self.service.connections.add(self)
        self._transport.set_protocol(self)
        stream = Stream(request, Framing(keep_alive=False), self._transport, self, self.service.defaults)
        self.stream = stream
        return stream
