"""What is watched: a timeline of answers, a watcher for hints, and the rules about both.

The supervisor has one, to notice a change whatever its children do. A child that serves has one of
its own, as its *gate*: before a request is begun it asks, and on Linux the kernel has queued the
event before the writer's system call returned, so that a save is known to the next request however
soon it comes. Knows no processes, and not what follows from a change.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Container, Iterable
from queue import SimpleQueue
from time import time_ns

from devserver.config import App, Config
from devserver.options import FILE
from devserver.process.serializer import Serializer
from devserver.watching import watch
from devserver.watching.answers import file_entry
from devserver.watching.changed_lines import ChangedLines
from devserver.watching.project import library_folders, linked_top
from devserver.watching.rules import Rules
from devserver.watching.timeline import ASK, Entry, Question, Timeline, read_entry
from devserver.watching.trees import Trees
from devserver.watching.watcher import EVERYTHING, Watcher

logger = logging.getLogger("devserver")

LARGE = 2**20
"""Bytes of a file of which the digest may take longer than somebody should wait."""


def prepare() -> None:
    """Do ahead what costs milliseconds the first time: load the watcher, ask where libraries are."""
    watch.make(quiet=True).close()
    library_folders()


def target_folder(section: App) -> str | None:
    """The folder from which a target is imported that is a file; None for a module's.

    It need not be there yet. See `devserver.app.parse`, which a supervisor is too light to import.
    """
    target = section.target if isinstance(section.target, str) else ""
    drive, rest = os.path.splitdrive(target)
    place = drive + (rest.rpartition(":")[0] or rest)
    if os.path.basename(place) == place and not place.endswith((".py", ".pyw")):
        return None
    paths = [os.path.normpath(os.path.join(base, place)) for base in (section.app_dir, *here())]
    path = next((path for path in paths if os.path.exists(path) or os.path.exists(path + ".py")), paths[0])
    folder = os.path.dirname(path)
    while os.path.isfile(os.path.join(folder, "__init__.py")) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder


def roots_of(config: Config) -> list[str]:
    """The folders of the project: data counts that is read below them."""
    folder = target_folder(config.app)
    roots = [*here(), config.app.app_dir, *config.reload.dirs]
    return roots if folder is None else [*roots, folder]


def here() -> list[str]:
    """The working directory, unless it has been deleted."""
    try:
        return [os.getcwd()]
    except FileNotFoundError:
        return []


def awaited_file(config: Config) -> str | None:
    """The pyproject.toml that counts, or that would if it were made now; None: none does."""
    if config.file is None and config.origin is not None:
        return os.path.join(config.origin.folder, FILE)
    return config.file


def rules_of(config: Config) -> Rules:
    """The rules of the `--reload-*` options."""
    section, folder = config.reload, target_folder(config.app)
    also = () if folder is None else (folder,)
    return Rules(section.dirs, section.include, section.exclude, config.app.app_dir, also=also)


def admit(rules: Rules, entry: Entry) -> str | None:
    """Have a package count that is installed as a link to the user's: none else is noted of those installed.

    Returns the link.
    """
    top = linked_top(entry.path)
    if top is not None:
        rules.add_base(top)
    return top


class WatchSet:
    """See the module. For one thread; `Gate` is for several.

    Attributes:
        timeline: the answers so far.
        watcher: gives the hints; its `fileno` and `interval` say when to call `changed`.
    """

    timeline: Timeline

    watcher: Watcher

    def __init__(self, config: Config, *, second: bool = False) -> None:
        """
        Args:
            second: another process watches the same and says what cannot be watched. This one watches
                nothing before `open`, and leaves digests to whoever asks the timeline for what lacks them.
        """
        self._warned = self._lazy = second
        self._noted: dict[str, None] | None = {} if second else None  # paths to be watched, in order
        self._linked: set[str] = set()
        self._lines = ChangedLines()
        if not second:
            self.watcher = watch.make(config.reload.poll)
        self._begin(config, None)

    def open(self, config: Config) -> None:
        """Begin to watch what was noted until now, and what counts without being read."""
        noted, self._noted = self._noted or {}, None
        self.watcher = watch.make(config.reload.poll, quiet=True)
        for path in noted:
            self.watcher.watch(path)
        self._expect(self._trees.walk())

    def begin(self, config: Config) -> Timeline:
        """Forget everything but digests, for a new generation. Returns the timeline as it was."""
        old = self.timeline
        self.watcher.forget()
        self._begin(config, old)
        return old

    def resume(self, seq: int, without: Container[str], old: Timeline) -> None:
        """Have what was read before a sequence number, apart from those about files that are read again.

        Args:
            old: the timeline that says so: this one, or an earlier one of the same rules.
        """
        self.timeline = Timeline(self._rules, old, lazy=self._lazy)
        self._watch(self.timeline.begin_like(old, seq, without))

    def _begin(self, config: Config, before: Timeline | None) -> None:
        self._rules = rules_of(config)
        self._trees = Trees(self._rules, lambda path: self.watcher.watch(path), self._warn)
        for folder in self._linked:
            self._rules.add_base(folder)
        self.timeline = Timeline(self._rules, before, lazy=self._lazy)
        if (file := awaited_file(config)) is not None:
            self.add(read_entry(file))
        if self._noted is None:
            self._expect(self._trees.walk())

    def add(self, entry: Entry) -> None:
        """Watch for another answer to a question. Of two texts noted ahead of `open` the later counts."""
        if (top := admit(self._rules, entry)) is not None:
            self._linked.add(top)
        if entry.kind is Question.TREE:
            self._rules.include(entry.answer or "")
            self._trees.ask()
            if self._noted is None:
                self._expect(self._trees.walk(entry.path))
        elif self._noted is None:
            self._watch(self.timeline.add(entry))
        else:
            self._watch(self.timeline.renew(entry))

    def _watch(self, paths: Iterable[str]) -> None:
        for path in paths:
            if self._noted is None:
                self.watcher.watch(path)
            else:
                self._noted[path] = None

    def _expect(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.timeline.expect(path)

    def note_lines(self) -> None:
        """When there is time: keep the texts of files, to tell later at which line one has changed."""
        self._lines.note(entry.path for entry in self.timeline if entry.kind is Question.FILE)

    def line(self, path: str) -> int:
        """At which line a file has changed since then; 0 if that is not known."""
        return self._lines.changed(path)

    def accept(self, paths: Iterable[str]) -> None:
        """See `Timeline.accept`."""
        for path in paths:
            self.timeline.accept(path)

    def believe(self) -> bool:
        """Spare the first look: somebody else has watched for longer, and looks from now on before it counts.

        Returns whether that will do: not where changes are found by looking now and then.
        """
        if self._is_immediate():
            self.timeline.believe()
            return True
        return False

    def _is_immediate(self) -> bool:
        """Whether the watcher tells of a change as soon as it has happened, and of all that has."""
        told = sys.platform == "linux" and self.watcher.fileno() is not None
        return told and self.watcher.interval is None

    def recall(self, timeline: Timeline) -> None:
        """Watch what an earlier timeline asked, too: by the answers of now, not of then."""
        now = time_ns()
        for entry in timeline:
            is_file = entry.kind is Question.FILE
            self.add(file_entry(entry.path, now) if is_file else ASK[entry.kind](entry.path))

    def changed(self, *, surely: bool = False) -> list[str]:
        """The paths whose answers are others than they were; never waits.

        Args:
            surely: look at all where the watcher may still come to tell of what has happened.
        """
        hints = self.watcher.hints()
        if hints is EVERYTHING or (surely and not self._is_immediate()):
            return self.timeline.changes(None, self._trees.walk())
        if not hints and not self.timeline.suspicious:
            return []
        return self.timeline.changes(hints, self._trees.explore(hints))

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("%s", text)

    def close(self) -> None:
        """Stop watching."""
        self.watcher.close()


class Gate:
    """A watch set for the event loop and the threads of an application.

    Until it is opened it only takes note: a process that is forked meanwhile shares no watcher, and has what
    was noted before.
    """

    def __init__(self, config: Config) -> None:
        self._turns = Serializer(self._take)
        self._config = config
        self._set = WatchSet(config, second=True)
        self._is_open = False
        self._is_silent: Callable[[], bool] = lambda: False
        self._unsure = True
        self._found: list[str] = []
        self._came = SimpleQueue[None]()

    def open(self) -> None:
        """Begin to watch what has been noted.

        Whether it is as it was noted the supervisor says, whose watch set has had it all the time: it looks
        when it is told that this one is open, before it lets anybody serve.
        """
        with self._turns.own():
            self._set.open(self._config)
            self._is_open = True
            self._unsure = not self._set.believe()
            self._is_silent = self._set.watcher.quiet

    def add(self, entry: Entry) -> None:
        """See `WatchSet.add`."""
        self._turns.give(entry)
        if entry.kind is Question.FILE and entry.answer is None:
            self._came.put(None)

    def _take(self, entry: Entry) -> None:
        self._unsure = True
        self._set.add(entry)

    def quiet(self) -> bool:
        """Whether nothing has happened since the last look, which found nothing. Takes no lock.

        In this order: who looks is unsure first, and takes the events from the watcher then.
        """
        return self._is_silent() and not self._unsure

    def changed(self) -> list[str]:
        """The paths whose answers are others than they were; from then on it stays so."""
        if self.quiet():
            return []
        with self._turns.own() as mine:
            if not self._found and self._is_open and mine:
                self._unsure = True
                self._found = self._set.changed()
                self._unsure = bool(self._found)
            return self._found

    def accept(self, path: str) -> None:
        """See `Timeline.accept`."""
        with self._turns.own():
            if self._is_open:
                self._set.accept([path])
            self._found = [each for each in self._found if each != path]
            self._unsure = True

    def settle(self) -> None:
        """What a thread of its own does for ever.

        A first look, if it takes one, holds every answer against the file system, and should not be left to
        the first request. And the application has not waited for the digests of what it read; without
        one a `touch` is a change.
        """
        self.changed()
        while True:
            self.digest()
            self._came.get()

    def digest(self, stop: Callable[[], bool] | None = None) -> None:
        """Take the digests that are missing.

        Args:
            stop: asked before each; the others are left for the next time, and so are all of large files.
        """
        most = math.inf if stop is None else LARGE
        while stop is None or not stop():
            with self._turns.own():
                entry = self._set.timeline.undigested(most)
            if entry is None:
                return
            fresh = read_entry(entry.path)
            with self._turns.own():
                self._set.timeline.digest(entry, fresh)
