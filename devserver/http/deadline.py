"""A time by which something must have happened.

A deadline changes with every request, and is hardly ever missed. So there is one timer, which is
not set again for a later deadline but looks, when it fires, at the deadline as it is then.
"""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `missed` when it has passed. Times are in seconds from now."""

    __slots__ = ("_at", "_latest", "_loop", "_missed", "_seconds", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, missed: Callable[[], None]) -> None:
        """Args: missed: called in the loop, once for each time that is set."""
        self._loop = loop
        self._missed = missed
        self._at = 0.0  # 0 for none
        self._seconds = 0.0
        self._latest = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self._at != 0.0

    def set(self, seconds: float, latest: float = 0.0) -> None:
        """Set it, in place of the one before. Args: latest: `put_off` goes no further than this."""
        now = self._loop.time()
        self._at, self._seconds, self._latest = now + seconds, seconds, now + latest
        if self._timer is None or self._timer.when() > self._at:
            self.cancel()
            self._timer = self._loop.call_at(self._at, self._look)

    def clear(self) -> None:
        """Have none."""
        self._at = 0.0

    def put_off(self) -> None:
        """Something has happened: begin to count again."""
        if self._at:
            self._at = max(self._at, min(self._loop.time() + self._seconds, self._latest))

    def hasten(self, seconds: float) -> None:
        """Have it pass when so many seconds are over since it was set, if that is sooner."""
        sooner = self._at - self._seconds + seconds
        if 0.0 < sooner < self._at:
            self.cancel()
            self._at, self._seconds = sooner, seconds
            self._timer = self._loop.call_at(sooner, self._look)

    def cancel(self) -> None:
        """Stop the timer. It is needed no more, or set again at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._at:
            return  # the next `set` starts the timer
        if self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._look)
        else:
            self._at = 0.0
            self._missed()
