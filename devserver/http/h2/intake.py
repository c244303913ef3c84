"""What arrives on a connection, and what it means (RFC 9113 sections 3 to 6): bytes in, events out.

It decides by itself what the protocol decides: a frame that cannot be ends the connection (`Failed`, and
GOAWAY) or its stream (`Ended`, and RST_STREAM). SETTINGS and PING are answered here. Priorities are read and
not followed: they are deprecated (section 5.3.2).

Pure. Knows no transport and no time.
"""

from __future__ import annotations

from collections.abc import Callable

from devserver.http.exchange import Headers
from devserver.http.framing import Framing, Refused
from devserver.http.h2 import frames, heads
from devserver.http.h2.compression import Reader
from devserver.http.h2.events import Arrived, Ended, Event, Failed, Gone, Piece, Room
from devserver.http.h2.frames import HEAD, MAX_FRAME, MAX_WINDOW, PREFACE, Broken, Code, Kind, Setting
from devserver.http.h2.wire import MAX_STREAMS, Half, Wire

_LARGEST_FRAME = 65536
"""Bytes of a frame that is sent, if the client takes it: others have their turn behind it."""

_CONTINUATIONS = 64
"""Frames of one head."""

_TIMES = 4
"""A head that has more than is allowed is read, and answered. One that has this many times as much is not."""


class Intake:
    """See the module.

    Attributes:
        wire: what the frames are held against, and changed by them.
        reader: of fields.
        buffer: a part of a frame, or of the preface.
        block: stream, flags and parts of a head that has not ended.
        has_preface: the preface has come.
        is_greeted: the client has introduced itself.
        resets: streams that the client has reset; whoever looks sets it to 0.
    """

    def __init__(self, wire: Wire, limit: int) -> None:
        """Args: limit: the most bytes that a head may have, with 32 for each field."""
        self.wire = wire
        self.reader = Reader(_TIMES * limit)
        self.buffer = bytearray()
        self.block: tuple[int, int, list[bytes]] | None = None
        self.has_preface = self.is_greeted = False
        self.resets = 0
        self._limit = limit
        self._has_failed = False
        self._events: list[Event] = []
        self._takers: tuple[Callable[[int, int, bytes], None], ...] = (
            self._data,
            self._headers,
            self._priority,
            self._rst_stream,
            self._settings,
            self._push_promise,
            self._ping,
            self._goaway,
            self._window_update,
            self._continuation,
        )

    @property
    def is_amid(self) -> bool:
        """Whether the client has begun a head, or its introduction, and not ended it."""
        return self.block is not None or not self.is_greeted

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the client. Returns what they mean."""
        events = self._events = []
        if self._has_failed:
            return events
        buffer = self.buffer
        buffer += data
        at = 0
        try:
            if not self.has_preface:
                at = self._read_preface()
            while self.has_preface and len(buffer) - at >= HEAD:
                size, kind, flags, stream = frames.head(buffer, at)
                if size > MAX_FRAME:
                    raise Broken(Code.FRAME_SIZE_ERROR, "a frame larger than was agreed")
                if len(buffer) - at < HEAD + size:
                    break
                payload = bytes(buffer[at + HEAD : at + HEAD + size])
                at += HEAD + size
                self._take(kind, flags, stream, payload)
        except Broken as broken:
            self._has_failed = True
            self.wire.go_away(self.wire.highest, broken.code, broken.reason)
            events.append(Failed(broken.reason))
        del buffer[:at]
        return events

    def _read_preface(self) -> int:
        size = min(len(self.buffer), len(PREFACE))
        if self.buffer[:size] != PREFACE[:size]:
            raise Broken(Code.PROTOCOL_ERROR, "this is not how HTTP/2 begins")
        self.has_preface = size == len(PREFACE)
        return size if self.has_preface else 0

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if not self.is_greeted:
            if kind != Kind.SETTINGS or flags & frames.ACK:
                raise Broken(Code.PROTOCOL_ERROR, "the first frame has to be SETTINGS")
            self.is_greeted = True
        if self.block is not None and (kind != Kind.CONTINUATION or stream != self.block[0]):
            raise Broken(Code.PROTOCOL_ERROR, "another frame amid a head")
        if kind < len(self._takers):
            self._takers[kind](stream, flags, payload)
        else:
            self.wire.idle_frames += 1  # of an extension that nobody has agreed upon (section 5.5)

    def _fault(self, stream: int, code: Code, reason: str) -> None:
        if self.wire.fault(stream, code):
            self._events.append(Ended(stream, reason))

    # heads

    def _headers(self, stream: int, flags: int, payload: bytes) -> None:
        if not stream & 1:
            raise Broken(Code.PROTOCOL_ERROR, "a client's streams have odd numbers")
        block = frames.unpadded(flags, payload)
        if flags & frames.PRIORITY:
            if len(block) < 5:
                raise Broken(Code.FRAME_SIZE_ERROR, "a head that is too short")
            block = block[5:]
        self.block = stream, flags, [block]
        if flags & frames.END_HEADERS:
            self._end_block()

    def _continuation(self, stream: int, flags: int, payload: bytes) -> None:
        if self.block is None:
            raise Broken(Code.PROTOCOL_ERROR, "CONTINUATION without a head")
        parts = self.block[2]
        parts.append(payload)
        if len(parts) > _CONTINUATIONS or sum(map(len, parts)) > _TIMES * self._limit:
            raise Broken(Code.ENHANCE_YOUR_CALM, "a head that does not end")
        if flags & frames.END_HEADERS:
            self._end_block()

    def _end_block(self) -> None:
        assert self.block is not None
        stream, flags, parts = self.block
        self.block = None
        # Read in any case: later heads refer to it.
        fields = self.reader.read(parts[0] if len(parts) == 1 else b"".join(parts))
        ended = bool(flags & frames.END_STREAM)
        wire = self.wire
        found = wire.streams.get(stream)
        if found is not None:
            self._trailers(stream, found, fields, ended)
        elif wire.is_behind(stream):
            wire.highest = max(wire.highest, stream)
        elif wire.is_new(stream):
            self._begin(stream, fields, ended)
        elif wire.was_open(stream):
            self._fault(stream, Code.STREAM_CLOSED, "")
        elif not wire.is_ignored(stream):
            raise Broken(Code.PROTOCOL_ERROR, "a stream with a lower number than one before")

    def _begin(self, stream: int, fields: Headers, ended: bool) -> None:
        wire = self.wire
        found = wire.begin(stream)
        if len(wire.streams) > MAX_STREAMS:
            wire.fault(stream, Code.REFUSED_STREAM)
            return
        found.is_over = ended
        said: tuple[Framing, Headers] | Refused
        try:
            said = heads.read(fields, ended, self._limit)
        except heads.Malformed as malformed:
            self._fault(stream, Code.PROTOCOL_ERROR, malformed.reason)
            return
        except Refused as refused:
            said = refused
        else:
            found.left = said[0].length if said[0].length >= 0 else None
        self._events.append(Arrived(stream, said, ended, (b":method", b"HEAD") in fields))

    def _trailers(self, stream: int, found: Half, fields: Headers, ended: bool) -> None:
        if found.is_over:
            self._fault(stream, Code.STREAM_CLOSED, "more after its end")
            return
        try:
            heads.check_trailers(fields)
            if not ended:
                raise heads.Malformed("more after the fields behind a body")
        except heads.Malformed as malformed:
            self._fault(stream, Code.PROTOCOL_ERROR, malformed.reason)
        else:
            self._body(stream, found, b"", True)

    # bodies

    def _data(self, stream: int, flags: int, payload: bytes) -> None:
        wire, size = self.wire, len(payload)
        found = wire.find(stream)
        wire.receive -= size
        if wire.receive < 0:
            raise Broken(Code.FLOW_CONTROL_ERROR, "more than the connection's window")
        data = frames.unpadded(flags, payload)
        ended = bool(flags & frames.END_STREAM)
        if not data and not ended:
            wire.idle_frames += 1
        if found is None or found.is_over:
            wire.credit(0, size)
            if found is not None or not wire.is_ignored(stream):
                self._fault(stream, Code.STREAM_CLOSED, "more after its end")
            return
        found.receive -= size
        if found.receive < 0:
            wire.credit(0, size)
            self._fault(stream, Code.FLOW_CONTROL_ERROR, "more than the stream's window")
            return
        if size > len(data):
            wire.credit(stream, size - len(data))
        self._body(stream, found, data, ended)

    def _body(self, stream: int, found: Half, data: bytes, ended: bool) -> None:
        if found.left is not None and not found.is_answered:  # else nobody reads it, and it may be given up
            found.left -= len(data)
            if found.left < 0 or (ended and found.left):
                self.wire.credit(0, len(data))
                self._fault(stream, Code.PROTOCOL_ERROR, "a body that is not as long as announced")
                return
        if data or ended:
            self._events.append(Piece(stream, data, ended))
        if ended:
            found.is_over = True
            self.wire.close_if_over(stream)

    # the rest

    def _priority(self, stream: int, flags: int, payload: bytes) -> None:
        self.wire.idle_frames += 1
        if not stream:
            raise Broken(Code.PROTOCOL_ERROR, "PRIORITY for no stream")
        if len(payload) != 5:
            if stream not in self.wire.streams:
                raise Broken(Code.FRAME_SIZE_ERROR, "PRIORITY of another size")
            self._fault(stream, Code.FRAME_SIZE_ERROR, "PRIORITY of another size")

    def _rst_stream(self, stream: int, flags: int, payload: bytes) -> None:
        found = self.wire.find(stream)
        if len(payload) != 4:
            raise Broken(Code.FRAME_SIZE_ERROR, "RST_STREAM of another size")
        if found is None:
            self.wire.idle_frames += 1
            return
        self.resets += 1
        self.wire.close(stream)
        self._events.append(Ended(stream))

    def _settings(self, stream: int, flags: int, payload: bytes) -> None:
        if stream:
            raise Broken(Code.PROTOCOL_ERROR, "SETTINGS for a stream")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise Broken(Code.FRAME_SIZE_ERROR, "SETTINGS of another size")
        settings = frames.read_settings(payload)
        self.wire.idle_frames += max(1, len(settings))  # each costs as much as a frame
        if flags & frames.ACK:
            return
        for name, value in settings:
            self._set(name, value)
        self.wire.answer(frames.frame(Kind.SETTINGS, frames.ACK, 0))
        self._events.append(Room(0))

    def _set(self, name: int, value: int) -> None:
        """Take over what the client says of itself (section 6.5.2)."""
        wire = self.wire
        if name == Setting.ENABLE_PUSH and value > 1:
            raise Broken(Code.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        if name == Setting.INITIAL_WINDOW_SIZE:
            for found in wire.streams.values():
                found.send += value - wire.first_window
            if max([value, *(found.send for found in wire.streams.values())]) > MAX_WINDOW:
                raise Broken(Code.FLOW_CONTROL_ERROR, "a window that is too large")
            wire.first_window = value
        elif name == Setting.MAX_FRAME_SIZE:
            if not MAX_FRAME <= value < 2**24:
                raise Broken(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE is between 16384 and 16777215")
            wire.max_frame = min(value, _LARGEST_FRAME)

    def _push_promise(self, stream: int, flags: int, payload: bytes) -> None:
        raise Broken(Code.PROTOCOL_ERROR, "PUSH_PROMISE is not for clients")

    def _ping(self, stream: int, flags: int, payload: bytes) -> None:
        if stream:
            raise Broken(Code.PROTOCOL_ERROR, "PING for a stream")
        if len(payload) != 8:
            raise Broken(Code.FRAME_SIZE_ERROR, "PING of another size")
        self.wire.idle_frames += 1
        if not flags & frames.ACK:
            self.wire.answer(frames.frame(Kind.PING, frames.ACK, 0, payload))

    def _goaway(self, stream: int, flags: int, payload: bytes) -> None:
        if stream:
            raise Broken(Code.PROTOCOL_ERROR, "GOAWAY for a stream")
        if len(payload) < 8:
            raise Broken(Code.FRAME_SIZE_ERROR, "GOAWAY of another size")
        self.wire.idle_frames += 1
        self._events.append(Gone())

    def _window_update(self, stream: int, flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken(Code.FRAME_SIZE_ERROR, "WINDOW_UPDATE of another size")
        wire, increment = self.wire, frames.number(payload)
        wire.idle_frames += 1
        code = Code.FLOW_CONTROL_ERROR if increment else Code.PROTOCOL_ERROR
        if not stream:
            wire.send += increment
            if not increment or wire.send > MAX_WINDOW:
                raise Broken(code, "a window that cannot be")
        elif (found := wire.find(stream)) is not None:
            found.send += increment
            if not increment or found.send > MAX_WINDOW:
                self._fault(stream, code, "a window that cannot be")
        self._events.append(Room(stream))
