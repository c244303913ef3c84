"""What is watched: a timeline of answers, a watcher for hints, and the rules about both.

The supervisor has one, to notice a change whatever its children do. A child that serves has one of
its own, as its *gate*: before a request is begun it asks, and on Linux the kernel has queued the
event before the writer's system call returned, so that a save is known to the next request however
soon it comes. Knows no processes, and not what follows from a change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from devserver.config import Config
from devserver.reload import watch
from devserver.reload.rules import Rules
from devserver.reload.timeline import ASK, Entry, Kind, Timeline, read_entry


def rules_of(config: Config) -> Rules:
    """The rules of the `--reload-*` options."""
    section = config.reload
    return Rules(section.dirs, section.include, section.exclude, config.app.app_dir)


class WatchSet:
    """See the module. For one thread; `Gate` is for several.

    Attributes:
        timeline: the answers so far.
        watcher: gives the hints; its `fileno` and `interval` say when to call `changed`.
    """

    def __init__(self, config: Config, *, quiet: bool = False) -> None:
        """Args: quiet: see `watch.make`."""
        self._rules = rules_of(config)
        self.watcher = watch.make(config.reload.poll, quiet)
        self.timeline = Timeline(self._rules)
        self._begin(config)

    def begin(self, config: Config) -> Timeline:
        """Forget everything, for a new generation. Returns the timeline as it was."""
        self._rules = rules_of(config)
        old, self.timeline = self.timeline, Timeline(self._rules)
        self.watcher.forget()
        self._begin(config)
        return old

    def _begin(self, config: Config) -> None:
        if config.file is not None:
            self.add(read_entry(config.file))
        for folder in watch.walk(self._rules):
            self.watcher.watch(folder)

    def add(self, entry: Entry) -> None:
        """Watch for another answer to a question."""
        if entry.kind is Kind.TREE:
            self._rules.include(entry.answer or "")
            for path in watch.walk(self._rules, entry.path):
                self.watcher.watch(path)
                self.timeline.expect(path)
            return
        for path in self.timeline.add(entry):
            self.watcher.watch(path)

    def accept(self, paths: Iterable[str]) -> None:
        """See `Timeline.accept`."""
        for path in paths:
            self.timeline.accept(path)

    def recall(self, timeline: Timeline) -> None:
        """Watch what an earlier timeline asked, too: by the answers of now, not of then."""
        for entry in timeline:
            self.add(ASK[entry.kind](entry.path))

    def changed(self) -> list[str]:
        """The paths whose answers are others than they were; never waits."""
        hints = self.watcher.hints()
        if hints is watch.EVERYTHING:
            return self.timeline.changes(None)
        if not hints and not self.timeline.suspicious:
            return []
        return self.timeline.changes(hints)

    def close(self) -> None:
        """Stop watching."""
        self.watcher.close()


class Gate:
    """A watch set for the event loop and the threads of an application."""

    def __init__(self, config: Config) -> None:
        self._lock = threading.Lock()
        self._set = WatchSet(config, quiet=True)

    def add(self, entry: Entry) -> None:
        """See `WatchSet.add`."""
        with self._lock:
            self._set.add(entry)

    def changed(self) -> list[str]:
        """See `WatchSet.changed`. About a microsecond when nothing has happened."""
        with self._lock:
            return self._set.changed()

    def accept(self, path: str) -> None:
        """See `Timeline.accept`."""
        with self._lock:
            self._set.accept([path])

    def settle(self) -> None:
        """Take the digests of data files that the application read: who reads does not, for speed.

        Until then a `touch` of one counts as a change here, and is found to be none by the supervisor.
        """
        for entry in self._set.timeline:
            if entry.kind is Kind.FILE and entry.answer is None:
                fresh = read_entry(entry.path)
                with self._lock:
                    if entry.answer is None and fresh.fingerprint == entry.fingerprint:
                        entry.answer = fresh.answer
