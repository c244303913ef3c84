"""Looks at each path now and then: where the system tells nothing, or not everything."""

import os
import stat
import time
from collections.abc import Callable
from typing import NamedTuple

from devserver.watching.places import names_in

GRAIN = 0.02
"""Seconds within which two changes may get the same time stamp: Linux stamps by its timer."""

COARSE_GRAIN = 2.0
"""The same where stamps are whole seconds (FAT counts in 2 s)."""

PAUSE = 0.25
"""Seconds between two sweeps, when they cost little."""

COST = 50.0
"""How many times longer than a sweep the pause after it is at least: 2 % of the time goes into sweeps."""


class Fingerprint(NamedTuple):
    """By what a file is known without reading it. Two of them differ if the file was changed."""

    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int
    folder: bool

    @property
    def changed_at(self) -> float:
        """The time of the last change, in seconds since the epoch."""
        return max(self.mtime_ns, self.ctime_ns) / 1e9

    @property
    def grain(self) -> float:
        """Seconds within which another change may leave the stamps as they are."""
        return GRAIN if self.mtime_ns % 1_000_000_000 or self.ctime_ns % 1_000_000_000 else COARSE_GRAIN


def take_fingerprint(path: str) -> Fingerprint | None:
    """Look at `path`, through links; None if it is not there or may not be asked for."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    folder = stat.S_ISDIR(found.st_mode)
    return Fingerprint(found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, folder)


class Polling:
    """Asks the file system for every watched path, now and then.

    The pause between two sweeps grows with their cost, so that they take at most a fixed share of
    the time. A fingerprint taken just after a change says nothing about a second change in the same
    grain of the file system's clock, so such a path is hinted once more (a folder: its names
    compared) when the grain is over.

    Args:
        clock: seconds since the epoch, as file systems count them.
        pause: the shortest time between two sweeps, in seconds.
        cost: how many times longer than a sweep the pause is at least.
    """

    name = "polling"

    def __init__(
        self, clock: Callable[[], float] = time.time, pause: float = PAUSE, cost: float = COST
    ) -> None:
        self._clock = clock
        self._shortest, self._cost = pause, cost
        self._pause = pause
        self._last = clock()
        self._seen: dict[str, Fingerprint | None] = {}
        self._names: dict[str, frozenset[str]] = {}
        self._racy: dict[str, float] = {}  # fingerprints that prove nothing: until when

    @property
    def interval(self) -> float | None:
        """The time until the next sweep; None while nothing is watched."""
        if not self._seen:
            return None
        passed = self._clock() - self._last
        return max(0.0, self._pause - passed) if passed >= 0 else 0.0  # a clock set back: now

    def watch(self, path: str) -> None:
        """Take the fingerprint to compare with."""
        if path not in self._seen:
            self._seen[path] = found = take_fingerprint(path)
            self._note_age(path, found, self._clock())
            if found is not None and found.folder:
                self._names[path] = names_in(path)

    def hurry(self) -> None:
        """Sweep as often as when polling is all there is."""
        self._pause, self._shortest, self._cost = PAUSE, PAUSE, COST

    def forget(self) -> None:
        """Drop every path."""
        self._seen.clear()
        self._names.clear()
        self._racy.clear()

    def fileno(self) -> None:
        """There is none: polling is all about `interval`."""
        return None

    def quiet(self) -> bool:
        """Say whether it is not time for a sweep."""
        return self.interval != 0.0

    def hints(self) -> set[str]:
        """Sweep if it is time to."""
        return self.sweep() if self.interval == 0.0 else set()

    def sweep(self) -> set[str]:
        """Look at every path now."""
        began = self._clock()
        touched: set[str] = set()
        for path, old in self._seen.items():
            new = take_fingerprint(path)
            if new != old:
                self._seen[path] = new
                self._note_age(path, new, began)
                touched |= self._compare(path, old, new)
            elif self._racy.get(path, began) < began:
                del self._racy[path]
                touched |= self._compare(path, old, new)
        self._last = self._clock()
        self._pause = max(self._shortest, self._cost * (self._last - began))
        return touched

    def close(self) -> None:
        """Drop every path."""
        self.forget()

    def _compare(self, path: str, old: Fingerprint | None, new: Fingerprint | None) -> set[str]:
        names = names_in(path) if new is not None and new.folder else frozenset()
        before = self._names.pop(path, frozenset())
        touched = {os.path.join(path, name) for name in names ^ before}
        if new is not None and new.folder:
            self._names[path] = names
        if touched or new != old or not (new is not None and new.folder):
            touched.add(path)
        return touched

    def _note_age(self, path: str, found: Fingerprint | None, now: float) -> None:
        self._racy.pop(path, None)
        if found is not None and found.changed_at + found.grain > now:
            self._racy[path] = now + found.grain  # counted from now: a file server's clock may be ahead
