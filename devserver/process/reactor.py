"""One wait for everything that can happen to a process, on the standard library's selectors.

Knows neither what the sources are nor what their callbacks do.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from typing import Protocol

from devserver.process.control import Closed


class Source(Protocol):
    """Something that a selector can wait for."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


class Writer(Source, Protocol):
    """Something that may have more to write than could be written."""

    @property
    def pending(self) -> bool:
        """Whether it has."""
        ...

    def flush(self) -> None:
        """Write what can be written now."""
        ...


class Reactor:
    """Waits for sources to become readable and calls what belongs to them."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._writers: dict[int, Writer] = {}

    def add(self, source: int | Source, callback: Callable[[], None], writer: Writer | None = None) -> None:
        """Have `callback` called whenever a source is readable.

        Args:
            writer: the same source if it writes, too; it is flushed whenever that is possible.
        """
        key = self._selector.register(source, selectors.EVENT_READ, callback)
        if writer is not None:
            self._writers[key.fd] = writer

    def remove(self, source: int | Source) -> bool:
        """Let go of a source. False: it was not waited for."""
        try:
            key = self._selector.unregister(source)
        except (KeyError, ValueError):
            return False
        self._writers.pop(key.fd, None)
        return True

    def __contains__(self, source: int | Source) -> bool:
        return (source if isinstance(source, int) else source.fileno()) in self._selector.get_map()

    def wait(self, until: float | None) -> None:
        """Wait for sources, but not longer than `until` (on `time.monotonic`), and call what is theirs."""
        for fd, writer in self._writers.items():
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writer.pending else 0)
            if self._selector.get_key(fd).events != events:
                self._selector.modify(fd, events, self._selector.get_key(fd).data)
        timeout = None if until is None else max(0.0, until - time.monotonic())
        for key, events in self._selector.select(timeout):
            if events & selectors.EVENT_WRITE and key.fd in self._writers:
                try:
                    self._writers[key.fd].flush()
                except Closed:
                    pass  # reading it says so, too
            now = self._selector.get_map().get(key.fd)
            # Unless it was let go of by one before it; its number may be another's by now.
            if events & selectors.EVENT_READ and now is not None and now.data is key.data:
                key.data()

    def close(self) -> None:
        """Let go of everything; the sources stay open."""
        self._selector.close()
