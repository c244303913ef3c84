"""What both sides of a connection may still send, and what is sent: streams, windows, frames (RFC 9113
sections 5, 6).

Streams are the client's alone; there is no push. A stream is open from its head until both sides have ended,
or one has reset it. Behind that it is one of three: not begun (a higher number than any), reset by us (what
the client has sent meanwhile is dropped), or over (what comes is a fault).

Pure: what is to be sent is in `out`, and whoever owns it sends that. Knows nothing of what a stream carries
but the lengths that were announced.
"""

from __future__ import annotations

from collections import deque

from devserver.http.exchange import Headers
from devserver.http.h2 import frames
from devserver.http.h2.compression import NO_TABLE, encode
from devserver.http.h2.frames import FIRST_WINDOW, MAX_FRAME, Broken, Code, Kind, Setting

MAX_STREAMS = 100
"""Streams that a client may have open at once."""

STREAM_WINDOW = 131072
"""Bytes that a client may send on a stream before somebody has read them."""

CONNECTION_WINDOW = 2**24
"""The same of all streams: more than one with each window full, so that no stream holds up another."""

MOST_DROPPED = 2**26
"""Bytes of a request that are taken after its response.

A server may reset such a stream (section 8.1). But not all clients have a response that comes with a reset.
"""

_REMEMBERED = 256
"""Streams of which it is remembered that they were reset by us, and that they are over."""


class Half:
    """What is known of an open stream.

    Attributes:
        send, receive: windows, in bytes.
        read: bytes that were read, of which the client has not been told.
        left: bytes that are still to come of an announced length; None if none was announced.
        is_over: the client has ended its side.
        is_answered: we have ended ours.
        dropped: bytes that came after that.
    """

    __slots__ = ("dropped", "is_answered", "is_over", "left", "read", "receive", "send")

    def __init__(self, send: int) -> None:
        self.send = send
        self.receive = STREAM_WINDOW
        self.read = self.dropped = 0
        self.left: int | None = None
        self.is_over = self.is_answered = False


class Wire:
    """See the module.

    Attributes:
        out: frames to be sent.
        answers: bytes of `out`, in all, that are answers to frames which cost a client nothing.
        streams: those that are open.
        highest: the highest stream that was begun.
        max_frame: the most bytes of a frame that the client takes at once.
        first_window: the window of a stream that begins, for us to send.
        send, receive: windows of the connection.
        read: bytes that were read, of which the client has not been told.
        expected: streams that have not begun, although a higher one has, and their windows.
        dropped: a predecessor may have reset streams up to this.
        last: the last stream that we said we begin; None if we have not.
        idle_frames: frames that had no use; whoever looks sets it to 0.
    """

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.answers = 0
        self.streams: dict[int, Half] = {}
        self.highest = 0
        self.max_frame = MAX_FRAME
        self.first_window = FIRST_WINDOW
        self.send = FIRST_WINDOW
        self.receive = CONNECTION_WINDOW
        self.read = 0
        self.expected: dict[int, int] = {}
        self.dropped = 0
        self.last: int | None = None
        self.idle_frames = 0
        self._over: deque[int] = deque(maxlen=_REMEMBERED)
        self._reset: deque[int] = deque(maxlen=_REMEMBERED)
        self._is_sized = False  # we have said that we use no table

    def greet(self, limit: int, connect: bool) -> None:
        """Introduce ourselves.

        Args:
            limit: the most bytes that a head may have.
            connect: whether WebSockets are served (RFC 8441 section 3).
        """
        values = {
            Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: limit,
        }
        if connect:
            values[Setting.ENABLE_CONNECT_PROTOCOL] = 1
        self.out.append(frames.settings(values))
        self.out.append(frames.window_update(0, CONNECTION_WINDOW - FIRST_WINDOW))

    # streams

    def find(self, stream: int) -> Half | None:
        """The stream that a frame is about; None if it is over, or was reset, and what comes is dropped.

        Raises:
            Broken: nobody has begun it (section 5.1).
        """
        found = self.streams.get(stream)
        if found is None and (not stream & 1 or (stream > self.highest and not self.is_ignored(stream))):
            raise Broken(Code.PROTOCOL_ERROR, "a frame for a stream that was not begun")
        return found

    def begin(self, stream: int) -> Half:
        """Begin a stream."""
        self.highest = max(self.highest, stream)
        found = self.streams[stream] = Half(self.expected.pop(stream, self.first_window))
        return found

    def is_new(self, stream: int) -> bool:
        """Whether a head may begin a stream of this number."""
        return stream > self.highest or stream in self.expected

    def is_behind(self, stream: int) -> bool:
        """Whether a stream comes after the last one that we said we begin."""
        return self.last is not None and stream > self.last

    def is_ignored(self, stream: int) -> bool:
        """Whether it was reset by us, or came after our GOAWAY, of which the client could not know."""
        return stream in self._reset or stream <= self.dropped or self.is_behind(stream)

    def was_open(self, stream: int) -> bool:
        """Whether a stream is over by what both sides have said."""
        return stream in self._over

    def close(self, stream: int) -> None:
        """A stream is over by what the client has said."""
        del self.streams[stream]
        self._over.append(stream)

    def close_if_over(self, stream: int) -> None:
        """A side has ended."""
        found = self.streams[stream]
        if found.is_over and found.is_answered:
            self.close(stream)

    def is_open(self, stream: int) -> bool:
        """Whether something can be sent on a stream."""
        found = self.streams.get(stream)
        return found is not None and not found.is_answered

    def room(self, stream: int) -> int:
        """The number of bytes that may be sent on a stream, or on all (0); they may be less than none."""
        return self.send if not stream else min(self.send, self.streams[stream].send)

    # what is sent

    def answer(self, frame: bytes) -> None:
        """Send a frame that answers one which cost the client nothing."""
        self.answers += len(frame)
        self.out.append(frame)

    def head(self, stream: int, fields: Headers, ended: bool) -> None:
        """Send fields. Args: fields: names in lower case; ended: nothing follows."""
        block = encode(fields)
        if not self._is_sized:
            # Whoever wants a smaller table than is usual has to be told (RFC 7541 section 4.2).
            self._is_sized, block = True, NO_TABLE + block
        kind, flags = Kind.HEADERS, frames.END_STREAM if ended else 0
        while len(block) > self.max_frame:
            self.out.append(frames.frame(kind, flags, stream, block[: self.max_frame]))
            block = block[self.max_frame :]
            kind, flags = Kind.CONTINUATION, 0
        self.out.append(frames.frame(kind, flags | frames.END_HEADERS, stream, block))
        if ended:
            self._end(stream)

    def data(self, stream: int, data: bytes, ended: bool) -> None:
        """Send a part of a body: not more than there is room for, and than `max_frame`."""
        self.idle_frames -= 4  # the client says what it has read of it
        self.send -= len(data)
        self.streams[stream].send -= len(data)
        self.out.append(frames.frame(Kind.DATA, frames.END_STREAM if ended else 0, stream, data))
        if ended:
            self._end(stream)

    def _end(self, stream: int) -> None:
        self.streams[stream].is_answered = True
        self.close_if_over(stream)

    def credit(self, stream: int, size: int) -> None:
        """Somebody has read bytes of a stream, or nobody ever will (0)."""
        self.read += size
        if self.read >= CONNECTION_WINDOW // 2:
            self.out.append(frames.window_update(0, self.read))
            self.receive += self.read
            self.read = 0
        found = self.streams.get(stream)
        if found is not None and not found.is_over:
            found.read += size
            if found.read >= STREAM_WINDOW // 2:
                self.out.append(frames.window_update(stream, found.read))
                found.receive += found.read
                found.read = 0

    def drop(self, stream: int, size: int) -> None:
        """Bytes have come that nobody wants. They are taken, up to a limit: see `MOST_DROPPED`."""
        self.credit(stream, size)
        found = self.streams.get(stream)
        if found is not None:
            found.dropped += size
            if found.dropped > MOST_DROPPED:
                self.reset(stream, Code.NO_ERROR)

    def reset(self, stream: int, code: Code) -> None:
        """End a stream on both sides, if it is not over."""
        if self.streams.pop(stream, None) is not None:
            self._reset.append(stream)
            self.out.append(frames.reset(stream, code))

    def fault(self, stream: int, code: Code) -> bool:
        """End a stream for what the client has done (section 5.4.2). Returns whether it was open."""
        self.idle_frames += 1
        self.answer(frames.reset(stream, code))
        if stream not in self._reset:
            self._reset.append(stream)
        return self.streams.pop(stream, None) is not None

    def go_away(self, last: int, code: Code, reason: str = "") -> None:
        """Begin no more streams. Args: last: the last one that was begun, or may have been."""
        # It must not grow (section 6.8).
        self.last = last if self.last is None else min(last, self.last)
        self.out.append(frames.go_away(self.last, code, reason))
