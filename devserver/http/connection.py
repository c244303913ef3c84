"""One connection: reads heads, runs one exchange after the other, keeps the time.

An `asyncio.Protocol`. A request is only begun when the response before it is complete and the
client has taken most of it: what a pipelining client sent ahead waits as bytes, and when that is
too much, at the client.

How a connection ends:

    all is read and answered      the transport is closed, which sends what is left to send
    the client may be sending     our side is ended, and what arrives is dropped (`line`)
    a promise cannot be kept      the transport is aborted, so that nobody takes half for the whole
    somebody else serves next     the descriptor goes over, with what was read and not used

Refuses to know WSGI and ASGI, what a head or a body must look like (`framing`, `body`), how a
response is written (`stream`) and how a transport is closed (`line`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from devserver.http import framing
from devserver.http.body import BadBody
from devserver.http.exchange import Handler, Request
from devserver.http.framing import Framing, Refused
from devserver.http.line import Line
from devserver.http.peer import Ends, peer, show
from devserver.http.service import Service as Service
from devserver.http.stream import HIGH_WATER, Stream

logger = logging.getLogger("devserver")

CLIENT_GONE = 499
"""What the access line says of a request whose client has gone before a response began; nginx's number."""


class Connection(asyncio.Protocol):
    """See the module. It also is the `Owner` of its streams."""

    def __init__(self, service: Service, data: bytes = b"", ends: Ends = peer) -> None:
        """
        Args:
            data: what a predecessor has read of it; what still is in the socket comes after that.
            ends: says whose the two ends of a transport are.
        """
        self.service = service
        self.stream: Stream | None = None
        self._ends = ends
        self._loop = asyncio.get_running_loop()
        self._line = cast(Line, None)  # set before anything else is called
        self._buffer = data
        self._searched = 0  # of the buffer, for the end of a head
        self._partial = True  # the deadline is for the rest of a head
        self._eof = False
        self._choked = False  # the client is slower than what was written to it
        self._held = False  # the gate has not let the next request through
        self._leaving = False  # handed over as soon as everything is written

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = Line(cast(asyncio.Transport, transport), self.service, self._missed)
        self.peer = self._ends(transport)
        self._opened = not self.service.announces(self.peer)  # else a PROXY header is awaited
        self.service.connections.add(self)
        self._line.deadline.set(self.service.settings.header_timeout)
        if self._buffer:
            self._loop.call_soon(self._resume)

    def data_received(self, data: bytes) -> None:
        stream = self.stream
        if self._line.closing:
            self._line.deadline.put_off()
            return
        if stream is not None and not stream.complete:
            self._feed(stream, data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if stream is None and not self._choked:
            self._next()
        elif len(self._buffer) > HIGH_WATER:
            self._line.pause()

    def eof_received(self) -> bool:
        self._eof = True
        stream = self.stream
        if self._line.closing:
            return False
        if stream is None:
            self._loop.call_soon(self._resume)
        elif stream.complete:
            if not self._buffer:
                stream.keep_alive = False
            stream.hang_up()
        else:
            self._bad_body(stream, "the body ended early")
        return self._line.half_closes and not self._line.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.connections.discard(self)
        self._line.closing = True
        self._line.deadline.cancel()
        stream = self.stream
        if stream is not None:
            if stream.aborted or not stream.finished:
                self.service.log(stream.request, stream.status or CLIENT_GONE, stream.began)
            stream.disconnect()

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
        elif not self._line.closing:
            self._idle()

    # reading

    def _next(self, passed: bool = False) -> None:
        """Begin the next request if its head is there. Args: passed: the gate has been asked."""
        service = self.service
        try:
            if not self._opened:
                self.peer, size = service.announced(self._buffer, self.peer)
                if not size:
                    self._await_head()
                    return
                self._opened, self._buffer, self._searched = True, self._buffer[size:], 0
            if self._buffer[:2] == b"\r\n":
                self._buffer = self._buffer[framing.blank_lines(self._buffer) :]
                self._searched = 0
            buffer = self._buffer
            end = framing.end_of_head(buffer, self._searched, service.settings.max_head)
            if end < 0:
                self._await_head()
                return
            if service.draining and service.hand_over is not None:
                self._leave()
                return
            head = buffer[:end]
            frame = framing.read(head)
            if not passed and service.holds(frame.path):
                self._held = True
                service.held.append(self)
                self._line.deadline.clear()
                self._line.pause()
                return
            self._buffer, self._searched = buffer[end:], 0
            request = service.request(head, frame, self.peer)
        except Refused as refused:
            self._refuse(refused)
        else:
            self._begin(request, frame)

    def _await_head(self) -> None:
        self._searched = len(self._buffer)
        self._line.unpause()
        if self._buffer and not self._partial:
            self._partial = True
            self._line.deadline.set(self.service.settings.header_timeout)

    def _begin(self, request: Request, frame: Framing) -> None:
        service = self.service
        self._line.deadline.clear()
        self._partial = False
        if frame.upgrade == b"websocket" and request.method == "GET" and self._upgrade(request):
            return
        stream = self.stream = Stream(request, frame, self._line.transport, self, service.defaults)
        if service.draining or not service.settings.keep_alive:
            stream.keep_alive = False
        if self._feed_first(stream):
            handler = service.gateway.exchange(stream)
            if self.stream is stream:  # else it was answered, and what follows has begun, in that call
                stream.handler = handler

    def _feed_first(self, stream: Stream) -> bool:
        """Give a new stream what there is for it; whether the application is to be called."""
        if not stream.complete:
            self._line.unpause()
            data, self._buffer = self._buffer, b""
            if data:
                self._feed(stream, data)
        elif len(self._buffer) <= HIGH_WATER:
            self._line.unpause()
        if self.service.refuses(stream.request.path) and not stream.finished:
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
                self._line.deadline.put_off()

    # what is refused

    def _refuse(self, refused: Refused) -> None:
        """Answer a head that is not served, and close. The application never hears of it."""
        logger.warning("refused a request from %s: %s", show(self.peer.client), refused.reason)
        request = Request("GET", b"", b"", b"", "1.1", [], self.peer)
        frame = Framing(length=1, keep_alive=False)  # whatever follows is no request of ours
        stream = self.stream = Stream(request, frame, self._line.transport, self, self.service.defaults)
        stream.say(refused.status, refused.reason)

    def _bad_body(self, stream: Stream, reason: str) -> None:
        """The rest of the connection cannot be understood: tell both sides, and close."""
        stream.keep_alive = False
        if stream.finished:
            self._finish()
            return
        logger.warning("bad body from %s: %s", show(self.peer.client), reason)
        self._give_up(stream, 400, reason)

    def _give_up(self, stream: Stream, status: int, reason: str) -> None:
        """Answer in the application's place. A response that has begun is cut: half is not the whole."""
        stream.keep_alive = False
        if stream.withdraw():
            stream.say(status, reason)
        else:
            self.cut()
        stream.disconnect()

    # what comes after a response

    def responded(self, stream: Stream) -> None:
        if not stream.disconnected:
            self.service.log(stream.request, stream.status, stream.began)
        if self._line.closing or self._line.transport.is_closing():
            return
        if stream.complete:
            self._after(stream)
        elif stream.keep_alive:
            self._line.drop()  # the rest of a body that nobody wants; after it may come another request
        else:
            self._finish()

    def _after(self, stream: Stream) -> None:
        """Request and response are complete: wait for the next request, or begin it."""
        if stream.keep_alive:
            self.stream = None
            self._idle()
        elif self._buffer and not self._eof:
            self._finish()
        else:
            self._line.close()

    def _idle(self) -> None:
        if self.service.draining:
            self._leave()
            return
        if self._choked:
            self._line.deadline.clear()  # the client has to take what there is; then this is called again
            return
        self._line.deadline.set(self.service.settings.keep_alive)
        if self._buffer or self._eof:
            # Not in this call: a client with a thousand requests in one segment would nest as deep.
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        """Look at what has arrived and was left."""
        if self.stream is not None or self._choked or self._held or self._leaving or self._line.closing:
            return
        if self._buffer:
            self._next()
        if self.stream is None and self._eof and not (self._held or self._leaving or self._line.closing):
            if self._buffer:
                self._refuse(Refused(400, "the head of the request ended early"))
            else:
                self._line.close()

    def cut(self) -> None:
        self._line.cut()

    def _finish(self) -> None:
        """Close; a client that has not ended its side may be sending."""
        (self._line.close if self._eof else self._line.linger)()

    def _missed(self) -> None:
        """The deadline has passed."""
        if self.stream is not None:
            self._line.linger()
        elif self._buffer:
            self._refuse(Refused(408, "the head of the request did not arrive in time"))
        else:
            self._line.close()

    # the server's wishes

    @property
    def waiting(self) -> bool:
        """Whether something was read for which no request has been begun."""
        return bool(self._buffer) and self.stream is None

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
            if self._line.deadline:
                self._line.drop()
        elif stream.event_stream:
            stream.end()
            self._line.close()

    def release(self) -> None:
        """Begin a request that the gate held back."""
        if self._held and not self._leaving:
            self._held = False
            self._line.unpause()
            self._next(passed=True)

    def _leave(self) -> None:
        """Give the connection, with what was read of it, to whoever serves next."""
        if self._line.transport.is_closing() or self._line.closing:
            return
        if self.service.hand_over is None or (self._eof and not self._buffer):
            self._line.close()
            return
        self._line.deadline.clear()
        self._line.pause()
        if self._line.transport.get_write_buffer_size():
            self._leaving = True
            self._line.transport.set_write_buffer_limits(0)  # `resume_writing` comes when all is written
            return
        self._line.closing = True
        self.service.leave(self._fileno(), self.peer.letter + self._buffer, self._line.transport.abort)

    def _fileno(self) -> int:
        return cast(int, self._line.transport.get_extra_info("socket").fileno())

    def abandoned(self) -> tuple[int, bytes] | None:
        """What is given away while the loop does not turn; None if a request has begun. Any thread."""
        line, ended = self._line, self._eof and not self._buffer
        busy = self.stream is not None or line.transport.get_write_buffer_size()
        if busy or ended or line.closing or line.transport.is_closing():
            return None
        line.closing = True
        return self._fileno(), self.peer.letter + self._buffer

    def disconnect(self, why: str = "cut off") -> None:
        """The grace is over: the application sees a disconnect, and the client is told why."""
        stream = self.stream
        if stream is None or stream.finished:
            self.cut()
            return
        logger.warning("%s %s was %s", stream.request.method, stream.request.target.decode("latin-1"), why)
        self._give_up(stream, 503, f"this request was {why}")

    # WebSocket

    def _upgrade(self, request: Request) -> bool:
        service = self.service
        is_off = not service.gateway.websockets or service.websocket.implementation == "none"
        if is_off or service.refuses(request.path):
            return False  # answered, or refused, like any other request
        from devserver.http.upgrade import Upgrade  # wsproto is only loaded when a WebSocket comes

        self._line.unpause()
        self._line.deadline.cancel()
        service.connections.discard(self)
        rest, self._buffer = self._buffer, b""
        Upgrade(service, self._take_back).begin(self._line.transport, request, rest)
        return True

    def _take_back(self, request: Request) -> Stream:
        """Answer a handshake by an ordinary response, after which the connection closes."""
        self.service.connections.add(self)
        self._line.transport.set_protocol(self)
        last = Framing(keep_alive=False)
        self.stream = Stream(request, last, self._line.transport, self, self.service.defaults)
        return self.stream
