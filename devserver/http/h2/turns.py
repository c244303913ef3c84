"""Whose turn it is to send: frames of the wire first, then a frame from each outbox that has room.

Bytes go to the transport once in a turn of the loop, after everybody who runs in it has written. Refuses to
know what is sent, and when a connection ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Protocol

from devserver.http.h2.outbox import Outbox
from devserver.http.h2.wire import Wire
from devserver.http.line import Line

logger = logging.getLogger("devserver")

_AT_ONCE = 65536
"""Bytes that are given to the transport at once."""


class Owner(Protocol):
    """The connection, as this sees it."""

    def done(self, number: int) -> None:
        """Our side of a stream has ended."""
        ...

    def cut(self, number: int) -> None:
        """End a stream now; what was promised on it cannot be kept."""
        ...

    def written(self) -> None:
        """What could be sent is with the transport."""
        ...


class Turns:
    """See the module."""

    def __init__(self, wire: Wire, line: Line, owner: Owner) -> None:
        self._wire = wire
        self._line = line
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Outbox] = deque()  # those with something that can be sent
        self._blocked: dict[int, Outbox] = {}  # those whose window is used up
        self._is_scheduled = False
        self._is_closed = False

    @property
    def is_idle(self) -> bool:
        """Nothing waits but for a window."""
        return not (self._wire.out or self._ready)

    def push(self, outbox: Outbox) -> None:
        """There is something to send in an outbox, or its end."""
        if not outbox.is_listed:
            outbox.is_listed = True
            self._ready.append(outbox)
            self.schedule()

    def make_room(self, stream: int) -> None:
        """There may be more room on a stream, or on all (0)."""
        if not stream:
            self._ready.extend(self._blocked.values())
            self._blocked.clear()
        elif stream in self._blocked:
            self._ready.append(self._blocked.pop(stream))

    def forget(self, outbox: Outbox) -> None:
        """Send nothing more of an outbox."""
        outbox.clear()
        self._blocked.pop(outbox.stream, None)
        if outbox.is_listed and outbox in self._ready:
            self._ready.remove(outbox)

    def close(self) -> None:
        """Send nothing more."""
        self._is_closed = True
        self._ready.clear()
        self._blocked.clear()

    def schedule(self) -> None:
        """Send what can be sent, in the next turn of the loop."""
        if not self._is_scheduled and not self._is_closed:
            self._is_scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what can be sent."""
        self._is_scheduled = False
        if self._is_closed:
            return
        wire, line = self._wire, self._line
        while not line.choked and self._ready and wire.room(0) > 0:
            size = 0
            while size < _AT_ONCE and self._ready and wire.room(0) > 0:
                size += self._send_some(self._ready.popleft())
            self.write()
        # What ends a stream needs no window.
        for outbox in [each for each in self._ready if not each.size]:
            self._ready.remove(outbox)
            self._send_some(outbox)
        self.write()
        if not line.choked:
            wire.answers = 0
        self._owner.written()

    def write(self) -> None:
        """Give the wire's frames to the transport."""
        out = self._wire.out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            if not self._line.transport.is_closing():
                self._line.transport.write(data)

    def _send_some(self, outbox: Outbox) -> int:
        """Send a frame of what waits in an outbox; if there is more, it waits again. Returns its size."""
        wire, stream = self._wire, outbox.stream
        if not wire.is_open(stream):
            outbox.is_listed = False
            outbox.clear()
            return 0
        most = min(wire.room(stream), wire.max_frame)
        if outbox.size and most <= 0:
            self._blocked[stream] = outbox
            return 0
        try:
            data = outbox.take(most)
        except OSError as error:
            logger.error("a response was cut: %s", error)
            outbox.is_listed = False
            self._owner.cut(stream)
            return 0
        is_last = outbox.ends and not outbox.size
        if data or (is_last and not outbox.trailers):
            wire.data(stream, data, is_last and not outbox.trailers)
        if is_last and outbox.trailers:
            wire.head(stream, outbox.trailers, True)
        if outbox.size:
            self._ready.append(outbox)
        else:
            outbox.is_listed = False
        if is_last:
            self._owner.done(stream)
        outbox.taken()
        return len(data)
