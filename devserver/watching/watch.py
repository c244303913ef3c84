"""Watchers: they hint at paths that may have changed.

A hint is not a change: whoever asked compares the contents and decides. So a watcher may hint too
much, never too little; what it cannot tell apart it hints as `EVERYTHING`. What happened before
`watch` returned is not hinted: watch first, then look.

Folders are watched, never single files: editors save by putting another file in place. On Linux
the watcher is in `inotify`, elsewhere in `notify`, and where neither can be, or events do not
arrive, it is `Polling`. This module holds the interface, the choice, and polling, on which the
other two lean; it loads no backend but the chosen one. It refuses to know which paths matter and
what a change leads to.

A watcher belongs to the process that made it, and is used under its caller's lock: `hints` never
blocks.
"""

import enum
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from devserver.watching.places import names_in
from devserver.watching.rules import Counts, Rules

MAX_FOLDERS = 20_000
"""Folders that `walk` gives at most: beyond, the system's limits are near and the rules are wrong."""

GRAIN = 0.02
"""Seconds within which two changes may get the same time stamp: Linux stamps by its timer."""

COARSE_GRAIN = 2.0
"""The same where stamps are whole seconds (FAT counts in 2 s)."""

PAUSE = 0.25
"""Seconds between two sweeps, when they cost little."""

COST = 50.0
"""How many times longer than a sweep the pause after it is at least: 2 % of the time goes into sweeps."""

log = logging.getLogger("devserver")


class Everything(enum.Enum):
    """The type of `EVERYTHING`."""

    EVERYTHING = "everything"


EVERYTHING: Final = Everything.EVERYTHING
"""In place of hints: something was lost, so look at all."""

Hints = set[str] | Everything


class Watcher(Protocol):
    """What every backend does.

    Attributes:
        name: of the backend, for the banner.
    """

    name: str

    @property
    def interval(self) -> float | None:
        """Seconds after which `hints` should be called though `fileno` is silent; None: no need."""
        ...

    def watch(self, path: str) -> None:
        """Watch the absolute `path`: a file, a folder (also the names in it), or nothing yet.

        Cheap when repeated. What may not be read is left out in silence.
        """
        ...

    def forget(self) -> None:
        """Drop every path; the watcher and its descriptor stay."""
        ...

    def fileno(self) -> int | None:
        """Give a descriptor that is readable when hints may wait, or None."""
        ...

    def quiet(self) -> bool:
        """Say whether `hints` has nothing to give. To be asked often: cheap, and needs no lock."""
        ...

    def hints(self) -> Hints:
        """Give the paths touched since the last call, as `watch` was told to spell them.

        A path still being written is given when it has been closed, or 100 ms later.
        """
        ...

    def close(self) -> None:
        """Give everything back. May be called twice."""
        ...


def make(poll: bool = False, quiet: bool = False) -> Watcher:
    """Choose the backend: polling if `poll`, else the best that this system has.

    Args:
        quiet: another process watches the same, and has said what cannot be watched.
    """
    if not poll:
        if sys.platform == "linux":
            from devserver.watching.inotify import Inotify

            try:
                return Inotify(quiet=quiet)
            except OSError as error:
                level = logging.DEBUG if quiet else logging.WARNING
                log.log(level, "inotify cannot be used (%s): polling instead", error.strerror)
        else:
            from devserver.watching.notify import Watchfiles

            try:
                return Watchfiles()
            except ImportError:
                pass  # optional: there is none for PyPy
    return Polling()


def walk(rules: Rules, top: str | None = None, warn: Callable[[str], None] = log.warning) -> Iterator[str]:
    """Yield what must be watched because of rules by which a change counts, read or not.

    Each folder comes before the files in it that count. Linked folders are entered, once.

    Args:
        rules: say where to begin, what counts and what is left out; learn of virtual environments.
        top: begin here only (a folder that has appeared).
        warn: told if there is more than can be watched.
    """
    todo = [top] if top is not None else rules.trees()
    begun = frozenset(todo)
    entered: set[tuple[int, int]] = set()
    while todo:
        folder = todo.pop()
        yield folder
        found = _entries(folder, entered)
        if "pyvenv.cfg" in found and folder not in begun:
            rules.add_environment(folder)
            continue
        for name, inside in found.items():
            path = os.path.join(folder, name)
            if inside and not rules.closed(path):
                todo.append(path)
            elif not inside and rules.verdict(path).kind is Counts.ALWAYS:
                yield path
        if len(entered) > MAX_FOLDERS:
            warn(
                f"more than {MAX_FOLDERS} folders to watch below {', '.join(sorted(begun))}: "
                "the rest is not watched; leave some out with --reload-exclude"
            )
            return


def _entries(folder: str, entered: set[tuple[int, int]]) -> dict[str, bool]:
    """List `folder` unless it was entered before: names, and whether each is a folder."""
    try:
        found = os.stat(folder)
        if (found.st_dev, found.st_ino) in entered:
            return {}
        entered.add((found.st_dev, found.st_ino))
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_dir() for entry in entries}
    except OSError:
        return {}


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
        self._young: dict[str, float] = {}  # fingerprints that prove nothing: until when

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
        self._young.clear()

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
            elif self._young.get(path, began) < began:
                del self._young[path]
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
        self._young.pop(path, None)
        if found is not None and found.changed_at + found.grain > now:
            self._young[path] = now + found.grain  # counted from now: a file server's clock may be ahead
