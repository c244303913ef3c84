"""One wait for everything that can happen to a process, on the standard library's selectors.

Knows neither what the sources are nor what their callbacks do.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from typing import Protocol


class Source(Protocol):
    """Something that a selector can wait for."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


class Reactor:
    """Waits for sources to become readable and calls what belongs to them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, source: int | Source, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever a source is readable."""
        self._selector.register(source, selectors.EVENT_READ, callback)

    def remove(self, source: int | Source) -> bool:
        """Let go of a source. False: it was not waited for."""
        try:
            self._selector.unregister(source)
        except (KeyError, ValueError):
            return False
        return True

    def __contains__(self, source: int | Source) -> bool:
        return (source if isinstance(source, int) else source.fileno()) in self._selector.get_map()

    def wait(self, until: float | None) -> None:
        """Wait for sources, but not longer than `until` (on `time.monotonic`), and call what is theirs."""
        timeout = None if until is None else max(0.0, until - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if key.fd in self._selector.get_map():  # it may have been let go of by one before it
                key.data()

    def close(self) -> None:
        """Let go of everything; the sources stay open."""
        self._selector.close()
