"""One connection: reads heads, runs one exchange after the other, keeps the time.

An `asyncio.Protocol`. A request is only begun when the response before it is complete and the client has
taken most of it: what a pipelining client sent ahead waits as bytes (`unread`), and when that is too much,
at the client.

What it is at is a `Phase`, and `states` has the table of them. How it ends:

    all is read and answered      the transport is closed, which sends what is left to send
    the client may be sending     our side is ended, and what arrives is dropped (`line`)
    a promise cannot be kept      the transport is aborted, so that nobody takes half for the whole
    somebody else serves next     the descriptor goes over, with what was read and not used

A client that speaks HTTP/2 begins with a head that HTTP/1.1 refuses (RFC 9113 section 3.4), in plain text
and within TLS. So nothing is looked for in other heads: where that one is refused, `h2` takes the transport.

Refuses to know WSGI and ASGI, what a head or a body must look like (`framing`, `body`), how a response is
written (`response_writer`) and how a transport is closed (`line`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from devserver.http.body import BadBody
from devserver.http.codes import BAD_REQUEST, CLIENT_GONE, REQUEST_TIMEOUT, SERVICE_UNAVAILABLE
from devserver.http.exchange import Handler, Request
from devserver.http.framing import Framing, Refused
from devserver.http.h2.frames import PACKED, beginning
from devserver.http.line import Line
from devserver.http.peer import Ends, peer, show
from devserver.http.service import Service as Service
from devserver.http.states import PHASES, Event, Phase, Reading
from devserver.http.stream import HIGH_WATER, Stream
from devserver.http.unread import Unread

logger = logging.getLogger("devserver")

_FRESH = 0.5
"""Seconds since it was accepted in which a connection may bring its first request, though the server ends."""

_RECENT = 0.1
"""Seconds since its last response in which it may bring another one."""

_AWAITING = (Phase.IDLE, Phase.OPENING)
_UNBOUND = (Phase.OPENING, Phase.OVER)
"""A head has a bound of its own, and what is dropped takes no room."""

# What comes with each request is asked for by short ways.
_BEGIN, _NEXT, _OVER, _OPEN, _ENDED = Event.BEGIN, Event.NEXT, Phase.OVER, Reading.OPEN, Reading.ENDED


class Connection(asyncio.Protocol):
    """See the module. It also is the `Owner` of its streams."""

    def __init__(self, service: Service, data: bytes | None = None, ends: Ends = peer) -> None:
        """
        Args:
            data: what a predecessor has read of it and not used, and what still is in the socket comes
                after that; None for a connection that had none.
            ends: says whose the two ends of a transport are.
        """
        self.service = service
        self.stream: Stream | None = None
        self._ends = ends
        self._loop = asyncio.get_running_loop()
        self._line = cast(Line, None)  # set before anything else is called
        self._unread = Unread(data or b"")
        self._http2, self._left = beginning(data or b""), len(data or b"")
        self._phase = Phase.IDLE if data == b"" else Phase.OPENING

    def _on(self, event: Event) -> None:
        self._phase = PHASES[self._phase, event]

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = Line(cast(asyncio.Transport, transport), self.service, self._missed)
        self.peer = self._ends(transport)
        self._opened = not self.service.announces(self.peer)  # else a PROXY header is awaited
        self.service.connections.add(self)
        service, idle = self.service, self._phase is Phase.IDLE
        self._line.deadline.set(service.kept if idle else service.settings.header_timeout)
        if self._unread:
            self._loop.call_soon(self._resume)

    def data_received(self, data: bytes) -> None:
        stream, unread = self.stream, self._unread
        if self._phase is _OVER:
            self._line.deadline.put_off()
        elif stream is not None and not stream.complete:
            self._feed(stream, data)
        else:
            if unread.data:
                unread.add(data)
            else:
                unread.data = data
            if self._phase in _AWAITING:
                self._next()
            if len(unread.data) > HIGH_WATER:
                self._bound()

    def _bound(self) -> None:
        """Let a client wait that has sent enough."""
        if len(self._unread) > HIGH_WATER and self._phase not in _UNBOUND:
            self._line.pause()

    def eof_received(self) -> bool:
        self._line.ended()
        if self._phase is Phase.OVER:
            return False
        while self.stream is not None and self.stream.behind:
            self.read_on(self.stream)
        stream = self.stream
        if stream is None:
            self._loop.call_soon(self._resume)
        elif stream.complete:
            if not self._unread:
                stream.keep_alive = False
            stream.hang_up()
        else:
            self._bad_body(stream, "the body ended early")
        return self._line.half_closes and not self._line.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.connections.discard(self)
        self._on(Event.END)
        self._line.deadline.cancel()
        stream = self.stream
        if stream is not None:
            if stream.aborted or not stream.finished:
                self.service.log(stream.request, stream.status or CLIENT_GONE, stream.began)
            stream.disconnect()

    def pause_writing(self) -> None:
        self._line.choked = True
        if self.stream is not None:
            self.stream.pause(True)

    def resume_writing(self) -> None:
        self._line.choked = False
        if self._phase is Phase.LEAVING:
            self._leave()
        elif self.stream is not None:
            self.stream.pause(False)
        elif self._phase is Phase.CLOGGED:
            self._on(Event.ROOM)
            self._idle()

    # reading

    def _next(self, passed: bool = False) -> None:
        """Begin the next request if its head is there. Args: passed: the gate has been asked."""
        service, unread = self.service, self._unread
        try:
            if not self._opened:
                self.peer, size = service.announced(unread.all(), self.peer)
                if not size:
                    self._await_head()
                    return
                self._opened, self._http2 = True, beginning(unread.all()[size : self._left])
                unread.drop(size)
            if not (head := unread.head(service.heads, service.settings.max_head)):
                self._await_head()
                return
            if service.draining and service.hand_over is not None:
                self._leave()
                return
            frame = service.heads.read(head)
            if service.gate is not None and not passed and service.holds(frame.path):
                self._on(Event.HOLD)
                service.held.append(self)
                self._line.pause()
                return
            request = service.request(head, frame, self.peer)
            unread.drop(len(head))
        except Refused as refused:
            if service.http2 and unread.all().startswith(self._http2):
                # Only loaded when one comes.
                from devserver.http.h2.connection import Connection as Http2Connection

                Http2Connection(service, self.peer).begin(self._line.transport, self._let_go())
            else:
                self._refuse(refused)
        else:
            self._begin(request, frame)

    def _await_head(self) -> None:
        self._line.resume()
        if self._unread and self._phase is Phase.IDLE:
            self._on(Event.PART)
            self._line.deadline.set(self.service.settings.header_timeout)

    def _begin(self, request: Request, frame: Framing) -> None:
        service = self.service
        if frame.upgrade and service.upgrades(request, frame.upgrade):
            self._upgrade(request)
            return
        self._phase = PHASES[self._phase, _BEGIN]
        stream = self.stream = Stream(request, frame, self._line.transport, self, service.defaults)
        if service.draining or not service.settings.keep_alive:
            stream.keep_alive = False
        # Most requests have no body, and nothing of what `_feed_first` looks for.
        usual = stream.complete and self._line.reading is _OPEN and service.settings.concurrency is None
        if usual or self._feed_first(stream, frame.length):
            handler = service.gateway.exchange(stream)
            if self.stream is stream:  # else it was answered, and what follows has begun, in that call
                stream.handler = handler

    def _feed_first(self, stream: Stream, length: int) -> bool:
        """Give a new stream what there is for it; whether the application is to be called.

        Args:
            length: bytes of its body, -1 if only the body says so.
        """
        line, service = self._line, self.service
        if line.reading is not _OPEN and (not stream.complete or len(self._unread) <= HIGH_WATER):
            line.resume()
        if not stream.complete and self._unread.data:
            self._feed(stream, self._unread.take(length))
            self._bound()
        while line.reading is _ENDED and stream.behind:
            self.read_on(stream)
        if not stream.finished and service.refuses(stream.request.path):
            stream.keep_alive = False
            stream.say(SERVICE_UNAVAILABLE, "too many requests at once (--limit-concurrency)")
        elif line.reading is _ENDED and not stream.finished:
            if not stream.complete:
                self._bad_body(stream, "the body ended early")
            else:
                stream.half_closed = True
                stream.keep_alive = stream.keep_alive and bool(self._unread)
        return not stream.finished

    def _feed(self, stream: Stream, data: bytes) -> None:
        try:
            rest = stream.feed(data)
        except BadBody as error:
            self._bad_body(stream, str(error))
            return
        if rest:
            self._unread.add(rest)
        if stream.finished:
            if rest is not None:
                self._after(stream)
            else:
                self._line.deadline.put_off()

    def read_on(self, stream: Stream) -> None:
        """See `stream.Owner`."""
        if self._phase is _OVER:
            stream.skip()
        else:
            self._feed(stream, b"")

    # what is refused

    def _refuse(self, refused: Refused) -> None:
        """Answer a head that is not served, and close. The application never hears of it."""
        self.service.tell_refused(self.peer, refused)
        self._on(Event.BEGIN)
        frame = Framing(length=1, keep_alive=False)  # whatever follows is no request of ours
        self.stream = self._stream(Request("GET", b"", b"", b"", "1.1", [], self.peer), frame)
        self.stream.say(refused.status, refused.reason)

    def _stream(self, request: Request, frame: Framing) -> Stream:
        return Stream(request, frame, self._line.transport, self, self.service.defaults)

    def _bad_body(self, stream: Stream, reason: str) -> None:
        """The rest of the connection cannot be understood: tell both sides, and close."""
        stream.keep_alive = False
        if stream.finished:
            self._end(self._line.finish)
            return
        logger.warning("bad body from %s: %s", show(self.peer.client), reason)
        stream.give_up(BAD_REQUEST, reason)

    # what comes after a response

    def responded(self, stream: Stream) -> None:
        if not stream.disconnected:
            self.service.log(stream.request, stream.status, stream.began)
        if self._phase is _OVER or self._line.transport.is_closing():
            return
        if stream.complete:
            self._after(stream)
        elif stream.keep_alive:
            self._on(Event.ANSWERED)
            self._line.drop()  # the rest of a body that nobody wants; after it may come another request
        else:
            self._end(self._line.finish)

    def _after(self, stream: Stream) -> None:
        """Request and response are complete: wait for the next request, or begin it."""
        if stream.keep_alive:
            self.stream, self._http2 = None, ()
            self._phase = PHASES[self._phase, _NEXT]
            self._idle()
        else:
            self._end(self._line.finish if self._unread else self._line.close)

    def _idle(self) -> None:
        if self.service.draining and self.service.hand_over is not None:
            self._leave()
            return
        if self._line.choked:
            self._on(Event.CLOG)
            return
        # The head of that response may have left before anybody knew of the end, and promised another one.
        self._line.deadline.set(_RECENT if self.service.draining else self.service.kept)
        if self._unread.data or self._line.reading is _ENDED:
            # Not in this call: a client with a thousand requests in one segment would nest as deep.
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        """Look at what has arrived and was left."""
        if self._phase in _AWAITING and self._unread:
            self._next()
        if self._phase in _AWAITING and self._line.reading is _ENDED:
            self._await_no_more(Refused(BAD_REQUEST, "the head of the request ended early"))

    def _await_no_more(self, refused: Refused) -> None:
        """Refuse a head of which there is a part; close where there is none.

        A request may be on its way, and nothing can be done for one that meets our end. But one that has
        arrived is answered, even if it is not yet read.
        """
        if self._unread:
            self._refuse(refused)
        elif not self._line.arrived():
            self._end(self._line.close if self.service.draining else self._line.finish)

    def cut(self, open_ended: bool = False) -> None:
        self._end(self._line.reset if open_ended else self._line.cut)

    def _end(self, how: Callable[[], None]) -> None:
        self._on(Event.END)
        how()

    def _missed(self) -> None:
        """The deadline has passed. It says nothing of what else is waited for since it was set."""
        if self._phase is Phase.OVER:
            self._line.waited()
        elif self._phase is Phase.DROPPING:
            self._end(self._line.finish)
        elif self._phase in _AWAITING:
            self._await_no_more(Refused(REQUEST_TIMEOUT, "the head of the request did not arrive in time"))

    # the server's wishes

    @property
    def waiting(self) -> bool:
        """Whether something was read for which no request has been begun."""
        return bool(self._unread) and self.stream is None

    @property
    def endless(self) -> list[Handler]:
        """The application at work here, if what it answers never ends by itself."""
        stream = self.stream
        return [stream.handler] if stream is not None and stream.event_stream and stream.handler else []

    def shutdown(self, code: int) -> None:
        """Leave as soon as what has begun is answered. `code` is for WebSockets only."""
        stream = self.stream
        if stream is not None and self.service.hand_over is None and not stream.under_way:
            stream.keep_alive = False
        if self._phase in (Phase.DROPPING, Phase.OVER):
            if self._line.deadline:
                self._line.drop()
        elif stream is None:
            if self.service.hand_over is not None or not self._may_be_asked():
                self._leave()
        elif stream.event_stream:
            stream.end()
            self._end(self._line.close)

    def _may_be_asked(self) -> bool:
        """Whether a request is on its way that was sent before its client could know of the end.

        Others may serve the same socket, and would have answered it. A client whose first request is lost
        does not ask again.
        """
        if self._phase not in _AWAITING:
            return False
        self._line.deadline.hasten(_FRESH if self._phase is Phase.OPENING else _RECENT)
        return True

    def release(self) -> None:
        """Begin a request that the gate held back."""
        if self._phase is Phase.HELD:
            self._line.resume()
            self._next(passed=True)

    def _leave(self) -> None:
        """Give the connection, with what was read of it, to whoever serves next."""
        if self.service.hand_over is not None and not self._gone:
            self._on(Event.END if self._line.give(self.peer.letter + self._unread.all()) else Event.LEAVE)
        elif self._phase is not Phase.OVER:
            self._end(self._line.close)

    @property
    def _gone(self) -> bool:
        """Whether nobody is there who could be served by anybody.

        Who sends what only a predecessor may begin with would be refused, and is not to be believed.
        """
        ended = self._line.reading is _ENDED and not self._unread
        forged = PACKED not in self._http2 and self._unread.all().lstrip(b"\r\n").startswith(PACKED)
        return ended or forged or self._phase is Phase.OVER or self._line.transport.is_closing()

    def abandoned(self) -> tuple[int, bytes] | None:
        """What is given away while the loop does not turn; None if a request has begun. Any thread."""
        if self.stream is not None or self._line.transport.get_write_buffer_size() or self._gone:
            return None
        self._on(Event.END)
        return self._line.fileno(), self.peer.letter + self._unread.all()

    def disconnect(self, why: str = "cut off") -> None:
        """The grace is over: the application sees a disconnect, and the client is told why."""
        stream = self.stream
        if stream is None or stream.finished:
            self.cut()
            return
        logger.warning("%s %s was %s", stream.request.method, stream.request.target.decode("latin-1"), why)
        stream.give_up(SERVICE_UNAVAILABLE, f"this request was {why}")

    # what a connection turns into

    def _let_go(self) -> bytes:
        """Serve it no more. Returns what was read and not used."""
        self._on(Event.UPGRADE)
        self._line.let_go()
        self.service.connections.discard(self)
        return self._unread.take()

    def _upgrade(self, request: Request) -> None:
        """Give the transport to a new WebSocket."""
        from devserver.http.upgrade import Upgrade  # wsproto is only loaded when a WebSocket comes

        Upgrade(self.service, self._take_back).begin(self._line.transport, request, self._let_go())

    def _take_back(self, request: Request) -> Stream:
        """Answer a handshake by an ordinary response, after which the connection closes."""
        self._on(Event.REFUSE)
        self.service.connections.add(self)
        self._line.transport.set_protocol(self)
        self.stream = self._stream(request, Framing(keep_alive=False))
        return self.stream
