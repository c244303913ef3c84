"""How much of what costs a client nothing it may send: so much at once, and so much a second. Pure."""

from collections.abc import Set

from devserver.http.exchange import Handler

_IDLE_FRAMES = 5000, 500.0
"""Frames without use at once, and a second: PING, SETTINGS, PRIORITY, empty DATA."""

_RESETS = 1024, 33.0
"""Streams that are begun and reset likewise (CVE-2023-44487), about as many as with nghttp2."""


class Allowance:
    """What is spent comes back with time."""

    def __init__(self, most: float, rate: float) -> None:
        """Args: most: at once; rate: a second."""
        self._most = most
        self._rate = rate
        self._spent = 0.0
        self._at = 0.0

    def spend(self, count: int, now: float) -> bool:
        """Take some, or give some back. Returns whether there was as much."""
        self._spent = max(0.0, max(0.0, self._spent - (now - self._at) * self._rate) + count)
        self._at = now
        return self._spent <= self._most


class Calm:
    """What a client has spent of both."""

    def __init__(self) -> None:
        self._idle_frames = Allowance(*_IDLE_FRAMES)
        self._resets = Allowance(*_RESETS)

    def spend(self, idle_frames: int, resets: int, now: float) -> bool:
        """Take some of each. Returns whether there was as much."""
        calm = self._idle_frames.spend(idle_frames, now)
        return self._resets.spend(resets, now) and calm


class Abandoned(set[Handler]):
    """Applications at work on streams that their client has reset."""

    def __init__(self, most: int) -> None:
        """Args: most: how many there may be."""
        super().__init__()
        self._most = most

    def are_many(self, running: Set[Handler]) -> bool:
        """Whether there are as many. Args: running: all that are at work."""
        if len(self) >= self._most:
            self &= running
        return len(self) >= self._most
