"""What a supervisor does when a time is over: which event that is, and when.

Knows the times and not what follows. Times are seconds on `time.monotonic`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from devserver.reload.child import Child
from devserver.reload.machine import Event
from devserver.reload.report import Report

SETTLE = 0.05
"""Seconds without a change after which a load that changes overtook is begun again."""

UNSETTLED = 1.0
"""Seconds after which it is begun again although changes go on."""

LATER = 0.1
"""Seconds until the first requests have most likely been answered: they need the processor."""

JUDGE = 0.5
"""Seconds in which an application must say what a change means to it; else it is started anew."""


class Timers:
    """See the module."""

    def __init__(self, report: Report) -> None:
        """Args: report: knows how long a load from nothing took."""
        self._report = report
        self._due: dict[Event, float] = {}
        self._unsettled: float | None = None
        self._stood = ""
        self._rest_at: float | None = None

    def __iter__(self) -> Iterator[float]:
        """When something is due."""
        yield from self._due.values()
        if self._rest_at is not None:
            yield self._rest_at

    def __contains__(self, event: Event) -> bool:
        return event in self._due

    def over(self, now: float) -> list[Event]:
        """The events whose time is over, each once."""
        over = [event for event, due in self._due.items() if due <= now]
        for event in over:
            del self._due[event]
        return over

    def stop(self, *events: Event) -> None:
        """Forget about events."""
        for event in events:
            self._due.pop(event, None)

    def judge(self) -> None:
        """An application has been asked what a change means."""
        self._due[Event.CHANGED] = time.monotonic() + JUDGE

    def settle(self) -> None:
        """A load was overtaken by a change."""
        now = time.monotonic()
        self._unsettled = self._unsettled or now
        self._due[Event.SETTLED] = min(now + SETTLE, self._unsettled + UNSETTLED)

    def begins(self) -> None:
        """A load begins: nobody rests."""
        self._unsettled = self._rest_at = None

    def rest(self) -> None:
        """Nothing is to be done but answering requests."""
        self._rest_at = time.monotonic() + LATER

    def rested(self, now: float) -> bool:
        """Whether the first requests after that have most likely been answered; once."""
        if self._rest_at is None or self._rest_at > now:
            return False
        self._rest_at = None
        return True

    def expect(self, child: Child | None, most: float) -> None:
        """Somebody loads, or starts up: requests wait no longer than `most` seconds."""
        self._due[Event.SLOW] = time.monotonic() + most
        self._expect_progress(child, most)

    def is_stuck(self, child: Child | None, most: float) -> bool:
        """Whether a start from a checkpoint, whose time is over, stands where it stood; else it has more."""
        if child is not None and child.at == self._stood:
            return True
        self._expect_progress(child, most)
        return False

    def _expect_progress(self, child: Child | None, most: float) -> None:
        self._stood = "" if child is None else child.at
        self._due.pop(Event.STRAYED, None)
        if (patience := self._report.patience(most)) is not None:
            self._due[Event.STRAYED] = time.monotonic() + patience
