"""One connection of HTTP/2: gives the wire what arrives, sends what it says, and runs an exchange on each
stream.

A request is only begun when the gate lets it in; until then it is held, and nobody has seen it. How a
connection ends:

    another process serves next   what has begun is answered; then the connection goes over, with what is
                                  held, and the client notices nothing (`handover`). No GOAWAY: not all
                                  clients send again by themselves what was on its way when one arrives
    nobody does                   GOAWAY with the last stream that was begun; what has begun is answered
    idle for too long             the same
    a promise cannot be kept      its stream is reset, and no other
    the client breaks the rules   GOAWAY that says which, and everything is cut

In the end our side is closed, and what arrives is dropped until the client's end or silence (`line`): else
the client might not see the GOAWAY. There is only one GOAWAY. A first one with the highest number of all
(RFC 9113 section 6.8) would spare clients a second try, but when nobody serves next there is no second try.

Refuses to know frames, fields and how long a head may be (`wire`), and what an application may send
(`stream`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import cast

from devserver.http.codes import CLIENT_GONE, NOT_IMPLEMENTED, SERVICE_UNAVAILABLE
from devserver.http.exchange import Handler, Headers, Peer, Request
from devserver.http.framing import Framing, Refused
from devserver.http.h2.calm import Abandoned, Calm
from devserver.http.h2.events import Arrived, Ended, Event, Failed, Piece, Room
from devserver.http.h2.frames import PACKED, Code
from devserver.http.h2.handover import pack, unpack
from devserver.http.h2.held import Held, Holding
from devserver.http.h2.intake import Intake
from devserver.http.h2.outbox import Outbox
from devserver.http.h2.stream import Stream
from devserver.http.h2.tunnel import Tunnel
from devserver.http.h2.turns import Turns
from devserver.http.h2.wire import MAX_STREAMS, Wire
from devserver.http.line import Line
from devserver.http.peer import show
from devserver.http.service import Service
from devserver.http.states import Reading
from devserver.http.stream import HIGH_WATER

logger = logging.getLogger("devserver")

_ANSWERS = 65536
"""Bytes of answers to such frames that wait for a client which does not read."""


class Connection(asyncio.Protocol):
    """See the module. It also is the `Owner` of its streams.

    Attributes:
        service: what all connections share.
        peer: the two ends.
    """

    def __init__(self, service: Service, peer: Peer) -> None:
        self.service = service
        self.peer = peer
        self._loop = asyncio.get_running_loop()
        self._line = cast(Line, None)  # set before anything else is called
        self._wire = cast(Wire, None)  # likewise
        self._intake = cast(Intake, None)  # likewise
        self._streams: dict[int, Stream | Tunnel] = {}
        self._held = Holding()
        self._turns = cast(Turns, None)  # likewise
        self._is_leaving = False  # nothing is begun any more
        self._is_last = False  # the client will send no more requests
        self._is_over = False  # nothing is sent any more
        self._awaits_head = True
        self._calm = Calm()
        self._abandoned = Abandoned(MAX_STREAMS)

    def begin(self, transport: asyncio.Transport, data: bytes) -> None:
        """Take over a transport.

        Args:
            data: what was read of it, from the preface on; or what a predecessor has left (`handover.pack`).
        """
        service = self.service
        self._line = Line(transport, service, self._missed)
        if data.startswith(PACKED):
            self._intake, data = unpack(data, service.settings.max_head)
        else:
            self._intake = Intake(Wire(), service.settings.max_head)
            self._intake.wire.greet(service.settings.max_head, service.serves_websockets)
        self._wire = self._intake.wire
        self._turns = Turns(self._wire, self._line, self)
        service.connections.add(self)
        transport.set_protocol(self)
        self._is_last = service.draining
        self._awaits_head = self._intake.is_amid
        self._line.deadline.set(service.settings.header_timeout if self._awaits_head else service.kept)
        self.data_received(data)

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            self._line.deadline.put_off()
            return
        wire, intake = self._wire, self._intake
        for event in intake.receive(data):
            self._take(event)
        self._turns.schedule()
        if self._is_over:
            return
        calm = self._calm.spend(wire.idle_frames, intake.resets, self._loop.time())
        wire.idle_frames = intake.resets = 0
        if not calm or (self._line.choked and wire.answers > _ANSWERS):
            self._fail("too much of what costs a client nothing")
            return
        self._pace()
        if intake.is_amid is not self._awaits_head:
            self._awaits_head = intake.is_amid
            if self._awaits_head:
                self._line.deadline.set(self.service.settings.header_timeout)
            else:
                self._rest()

    def eof_received(self) -> bool:
        self._line.ended()
        if self._is_over:
            return False
        self._is_last = True
        for stream in list(self._streams.values()):
            stream.hang_up()
        self._turns.schedule()
        return self._line.half_closes and not self._line.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.connections.discard(self)
        self._is_over = True
        self._line.deadline.cancel()
        self._held.clear()
        self._turns.close()
        for stream in list(self._streams.values()):
            self._lose(stream)

    def pause_writing(self) -> None:
        self._line.choked = True

    def resume_writing(self) -> None:
        self._line.choked = False
        self._wire.answers = 0
        self._turns.flush()
        if not self._is_over:
            self._pace()

    # what arrives

    def _take(self, event: Event) -> None:
        if isinstance(event, Piece):
            self._feed(event)
        elif isinstance(event, Arrived):
            if event.stream in self._wire.streams:  # else it was reset in the same breath
                self._arrived(event)
        elif isinstance(event, Room):
            self._turns.make_room(event.stream)
        elif isinstance(event, Ended):
            self._ended(event)
        elif isinstance(event, Failed):
            self._failed(event.reason)
        else:
            self._is_last = True

    def _feed(self, piece: Piece) -> None:
        stream = self._streams.get(piece.stream)
        if stream is not None:
            stream.arrive(piece.data, piece.ended)
        elif piece.stream in self._held:
            self._held[piece.stream].add(piece)
        else:
            self._wire.drop(piece.stream, len(piece.data))

    def _pace(self) -> None:
        """Read on, or no more for now.

        Not while much is held and nothing is answered: it would only have to be handed over. Nor while the
        client does not take what it has asked for: windows hold back bodies, and nothing does heads.
        """
        is_much = not self._streams and self._held.size > HIGH_WATER
        (self._line.pause if is_much or self._line.is_clogged else self._line.resume)()

    def _ended(self, event: Ended) -> None:
        """A stream is over, by the client or its fault."""
        if event.reason:
            logger.warning("ended a stream of %s: %s", show(self.peer.client), event.reason)
        self._wire.credit(0, self._held.drop(event.stream))
        stream = self._streams.pop(event.stream, None)
        if stream is not None:
            if stream.handler is not None:
                self._abandoned.add(stream.handler)
            self._lose(stream)
        self._rest()

    def _lose(self, stream: Stream | Tunnel) -> None:
        """Nobody is there any more."""
        self._turns.forget(stream.outbox)
        if isinstance(stream, Stream) and (stream.aborted or not stream.finished):
            self.service.log(stream.request, stream.status or CLIENT_GONE, stream.began)
        stream.disconnect()
        self._streams.pop(stream.number, None)

    def _arrived(self, event: Arrived) -> None:
        number, said, service = event.stream, event.said, self.service
        if isinstance(said, Refused):
            self._refuse(number, said, "HEAD" if event.is_head else "GET")
            return
        if self._is_leaving:
            self._held[number] = Held(event, self._release)
        elif self._abandoned.are_many(service.gateway.running):
            self._wire.reset(number, Code.REFUSED_STREAM)
        elif service.gate is not None and service.holds(said[0].path):
            held = self._held[number] = Held(event, self._release)
            service.held.append(held)
        else:
            self._begin(number, *said, event.ended)

    def _begin(self, number: int, frame: Framing, headers: Headers, ended: bool) -> None:
        service = self.service
        request = service.made(frame, headers, self.peer)
        if frame.upgrade and service.upgrades(request, frame.upgrade):
            tunnel = self._streams[number] = Tunnel(number, self, service)
            tunnel.begin(request, ended)
            return
        stream = self._streams[number] = Stream(number, request, frame, self, service.defaults)
        limited = service.settings.concurrency is not None and service.refuses(request.path)
        if frame.upgrade and not limited:
            stream.say(NOT_IMPLEMENTED, "no WebSocket is served here")
        elif limited:
            stream.say(SERVICE_UNAVAILABLE, "too many requests at once (--limit-concurrency)")
        else:
            stream.handler = service.gateway.exchange(stream)

    def _refuse(self, number: int, refused: Refused, method: str) -> None:
        """Answer a request that is not served. The application never hears of it."""
        self.service.tell_refused(self.peer, refused)
        request = Request(method, b"", b"", b"", "2", [], self.peer)
        stream = self._streams[number] = Stream(number, request, Framing(), self, self.service.defaults)
        stream.say(refused.status, refused.reason)

    def _release(self, held: Held) -> None:
        """Begin a request that the gate held back."""
        if self._is_leaving or self._held.pop(held.stream, None) is None:
            return
        for event in held.events:
            if isinstance(event, Piece):
                self._feed(event)
            elif not isinstance(event.said, Refused):
                self._begin(held.stream, *event.said, event.ended)
        if self._line.reading is Reading.ENDED and held.stream in self._streams:
            self._streams[held.stream].hang_up()
        self._pace()
        self._turns.schedule()

    # what is sent: `stream.Owner`

    def head(self, stream: int, fields: Headers, ended: bool) -> None:
        """See `stream.Owner`."""
        if self._wire.is_open(stream):  # else it was reset, and that is among what is still to be looked at
            self._wire.head(stream, fields, ended)
            self._turns.schedule()
            if ended:
                self.done(stream)

    def push(self, outbox: Outbox) -> None:
        """See `stream.Owner`."""
        self._turns.push(outbox)

    def credit(self, stream: int, size: int) -> None:
        """See `stream.Owner`."""
        self._wire.credit(stream, size)
        self._turns.schedule()

    def responded(self, stream: Stream) -> None:
        """See `stream.Owner`."""
        if not stream.disconnected:
            self.service.log(stream.request, stream.status, stream.began)

    def cut(self, number: int) -> None:
        """See `stream.Owner` and `turns.Owner`."""
        stream = self._streams.get(number)
        if stream is not None:
            self._wire.reset(number, Code.INTERNAL_ERROR)
            self._lose(stream)
            self._turns.schedule()
            self._rest()

    # `tunnel.Owner`

    def drop(self, number: int) -> None:
        """See `tunnel.Owner`."""
        self._streams.pop(number, None)
        self._rest()

    def replace(self, stream: Stream) -> None:
        """See `tunnel.Owner`."""
        self._streams[stream.number] = stream

    # `turns.Owner`

    def done(self, number: int) -> None:
        """See `turns.Owner`. What the client still has to send of it is dropped."""
        stream = self._streams.get(number)
        if isinstance(stream, Tunnel):
            stream.sent()
            return
        self._streams.pop(number, None)
        self._rest()

    def written(self) -> None:
        """See `turns.Owner`. Nothing is given away before: everything that has arrived was looked at."""
        if not self._streams and (self._is_leaving or (self._is_last and not self._held)):
            self._leave()

    # rest and end

    def _rest(self) -> None:
        """Wait for the next request, or leave, if nothing is to be answered."""
        if self._streams or self._is_over:
            return
        self._pace()
        if self._is_leaving or self._is_last:
            self._turns.schedule()
        elif not (self._held or self._awaits_head):
            self._line.deadline.set(self.service.kept)

    def _leave(self) -> None:
        """Give the connection to whoever serves next, or close it, as soon as everything is written."""
        line = self._line
        if not self._turns.is_idle:
            self._turns.schedule()
            return
        gone = line.transport.is_closing() or (line.reading is Reading.ENDED and not self._held)
        if self.service.draining and self.service.hand_over is not None and not gone:
            if line.give(self._packed()):
                self._end()
                line.deadline.clear()
        else:
            self._close()

    def _packed(self) -> bytes:
        return self.peer.letter + pack(self._intake, self._held.events())

    def _close(self) -> None:
        """Say that this is the end, and end."""
        self._refuse_held()
        self._wire.go_away(self._wire.highest, Code.NO_ERROR)
        self._end()
        self._line.finish()

    def _end(self) -> None:
        """Send what the wire has to say, and nothing more."""
        self._turns.write()
        self._turns.close()
        self._is_over = True

    def _refuse_held(self) -> None:
        """Say of what was not begun that it may be sent again (section 8.7): numbers behind it were."""
        for number in self._held:
            self._wire.reset(number, Code.REFUSED_STREAM)
        self._held.clear()

    def _fail(self, reason: str) -> None:
        self._wire.go_away(self._wire.highest, Code.ENHANCE_YOUR_CALM, reason)
        self._failed(reason)

    def _failed(self, reason: str) -> None:
        """The client was told that it has broken the rules: everything is cut."""
        logger.warning("closed a connection of %s: %s", show(self.peer.client), reason)
        self._end()
        self._held.clear()
        for stream in list(self._streams.values()):
            self._lose(stream)
        self._line.finish()

    def _missed(self) -> None:
        """The deadline has passed. It says nothing of what else is waited for since it was set."""
        if self._is_over:
            self._line.waited()
        elif self._intake.is_amid and self._line.reading is Reading.PAUSED:
            self._line.deadline.set(self.service.settings.header_timeout)  # it waits for us, not we for it
        elif self._intake.is_amid:
            self._fail("a head did not arrive in time")
        elif not self._streams and not self._held and not self._line.arrived():
            self._close()

    # the server's wishes

    @property
    def waiting(self) -> bool:
        """See `service.Open`."""
        return bool(self._held or self._intake.buffer)

    @property
    def endless(self) -> Iterable[Handler]:
        """See `service.Open`."""
        streams = (each for each in self._streams.values() if isinstance(each, Stream))
        return [each.handler for each in streams if each.event_stream and each.handler is not None]

    def shutdown(self, code: int) -> None:
        """See `service.Open`. WebSockets are told by themselves."""
        self._is_leaving = True
        if self._is_over:
            if self._line.deadline:
                self._line.drop()
            return
        if self.service.hand_over is None:
            self._refuse_held()
            self._wire.go_away(self._wire.highest, Code.NO_ERROR)
        for stream in list(self._streams.values()):
            if isinstance(stream, Stream) and stream.event_stream:
                stream.end()
        self._turns.schedule()

    def disconnect(self, why: str = "cut off") -> None:
        """See `service.Open`."""
        for stream in list(self._streams.values()):
            if not isinstance(stream, Stream):
                continue
            if not stream.finished:
                request = stream.request
                logger.warning("%s %s was %s", request.method, request.target.decode("latin-1"), why)
                stream.give_up(SERVICE_UNAVAILABLE, f"this request was {why}")
        self._turns.flush()
        for stream in list(self._streams.values()):
            self._wire.reset(stream.number, Code.CANCEL)
            self._lose(stream)
        self._is_leaving = True
        self._turns.flush()

    def abandoned(self) -> tuple[int, bytes] | None:
        """See `service.Open`."""
        line = self._line
        busy = self._streams or self._wire.out or line.transport.get_write_buffer_size()
        if busy or self._is_over or line.transport.is_closing():
            return None
        self._end()
        return line.fileno(), self._packed()
