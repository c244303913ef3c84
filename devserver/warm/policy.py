"""Where a checkpoint is worth what it costs: a decision about times, which knows no clock.

A fork of a large process takes tens of milliseconds, and pages that are written to afterwards take some
more. So a checkpoint must stand for enough loading to pay for itself; less is enough before a statement
that was edited lately, since the next edit is likely there. What the last checkpoint cost says what the
next one will cost.

Times are arguments, in seconds on any clock that does not go back. Nothing is imported that could tell one.
"""

from __future__ import annotations

PACE = 0.05
"""Seconds of loading that are worth a checkpoint, at least."""

COST = 60
"""A checkpoint must also stand for this many times the seconds that the last one took: a first start is to
be 5 % slower at most."""

SLOWER = 3
"""The largest factor by which one slow checkpoint may lengthen the pace: perhaps the machine was busy."""

WORTH = 0.003
"""Seconds of loading that are worth a checkpoint at a statement that was edited lately."""


class Policy:
    """See the module.

    Attributes:
        seconds: of loading up to the last checkpoint.
    """

    def __init__(self, now: float, places: str = "") -> None:
        """
        Args:
            now: when loading begins.
            places: "each" if every place is worth a checkpoint, "marked" if those are where the latest edits
                were and no others; else time decides.
        """
        self.seconds = 0.0
        self._places = places
        self._since = now
        self._pace = PACE

    def wants(self, now: float, *, marked: bool) -> bool:
        """Whether a place that loading has come to is worth a checkpoint.

        Args:
            marked: the latest edits were here.
        """
        if self._places in ("each", "marked"):
            return marked or self._places == "each"
        passed = now - self._since
        return passed > self._pace or (marked and passed > WORTH)

    def begins(self, now: float) -> None:
        """A checkpoint is tried here; if it cannot be made, the next one is as far away as after one."""
        self.seconds += now - self._since
        self._since = now

    def made(self, now: float) -> None:
        """The checkpoint that was begun last is made."""
        self._pace = max(PACE, min(COST * (now - self._since), SLOWER * self._pace))

    def goes_on(self, now: float) -> None:
        """Loading goes on; what was done since `begins` is not part of it."""
        self._since = now
