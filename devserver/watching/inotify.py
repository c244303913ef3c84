"""Watching on Linux, with inotify(7).

The kernel queues an event before the system call that caused it returns, so whoever asks after a
save sees it; to ask whether there is one costs less than a microsecond. The theory:

- A folder has one watch, known by a number, however many paths lead to it (bind mounts).
- Folders in which something may happen to a name that matters get the mask `NAMES`. Folders above
  them get `SELF`: a watch says nothing when a folder above it is renamed. `SELF` includes
  IN_DELETE, since IN_DELETE_SELF waits until nobody has the folder open or as working directory.
- A watch follows its folder when that is moved. So it is dropped as soon as its folder, or one
  above, goes; then the trails are walked anew, which waits in the nearest ancestor or finds the
  folder back. Events still queued for a dropped number are ignored: all that lay there is hinted.
- After IN_MODIFY, or when a file has been made, somebody may still be writing. The path is held
  back until IN_CLOSE_WRITE, but not for ever: logs and databases stay open.
- What is written to a file that nobody asked for is nothing, also where the names in its folder were
  asked for: only that it comes or goes.

Where events do not arrive, or there are no watches left, `Polling` does the rest.
"""

import errno
import itertools
import logging
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from devserver import procfs
from devserver.watching.inotify_calls import (
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_DONT_FOLLOW,
    IN_IGNORED,
    IN_MASK_ADD,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    Kernel,
)
from devserver.watching.mounts import find_silent_mount, read_mounts
from devserver.watching.places import Places, Trail, ancestors, beneath
from devserver.watching.polling import Polling
from devserver.watching.watcher import EVERYTHING, Hints

if sys.platform != "linux":
    raise ImportError("inotify is a part of Linux")

_open = open  # an application may replace them

SELF = IN_DELETE_SELF | IN_MOVE_SELF | IN_DELETE | IN_ONLYDIR | IN_DONT_FOLLOW
NAMES = SELF | IN_MODIFY | IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO
LEAVES = IN_DELETE | IN_MOVED_FROM
COMES_OR_GOES = LEAVES | IN_CREATE | IN_MOVED_TO
LOST = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED

REFUSED = -1
"""In place of a watch: the folder may not be read."""

HOLD = 0.1
"""Seconds for which a path being written is held back at most."""

log = logging.getLogger("devserver")


class Watches:
    """Which real folder has which watch: `NAMES` for those that matter, `SELF` for all above them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._numbers: dict[str, int] = {}
        self._masks: dict[int, int] = {}
        self._folders: dict[int, set[str]] = {}

    def __contains__(self, folder: str) -> bool:
        return folder in self._numbers

    def folders(self, wd: int) -> list[str]:
        """Give the folders that `wd` stands for; none if it has been dropped."""
        return list(self._folders.get(wd, ()))

    def cover(self, folder: str) -> None:
        """Watch the names in `folder`, and those above it for their own fate.

        Raises:
            OSError: as `Kernel.add`. What was added before stays.
        """
        above = itertools.takewhile(lambda each: each not in self._numbers, ancestors(folder))
        for each in reversed([*above][1:]):  # from the top, so that above a known one all are known
            try:
                self._add(each, SELF)
            except PermissionError:
                self._numbers[each] = REFUSED
        if self._masks.get(self._numbers.get(folder, REFUSED)) != NAMES:
            self._add(folder, NAMES)

    def drop(self, gone: set[str]) -> None:
        """End the watches of the folders in `gone` and of all below them."""
        for folder in list(beneath(self._numbers, gone)):
            self._remove(folder)

    def keep(self, wanted: set[str]) -> None:
        """End what is watched beyond the names in `wanted` and the fate of those above them."""
        above = {each for folder in wanted for each in ancestors(folder)}
        masks: dict[int, int] = {}
        for folder, wd in list(self._numbers.items()):
            if folder not in above:
                self._remove(folder)
            else:
                masks[wd] = masks.get(wd, SELF) | (NAMES if folder in wanted else SELF)
        for wd, mask in masks.items():
            if wd != REFUSED and mask != self._masks[wd]:
                self._narrow(next(iter(self._folders[wd])), mask)

    def clear(self) -> None:
        """End all."""
        for wd in self._folders:
            self._kernel.remove(wd)
        self._numbers.clear()
        self._masks.clear()
        self._folders.clear()

    def _add(self, folder: str, mask: int) -> None:
        wd = self._kernel.add(folder, mask | IN_MASK_ADD)
        self._numbers[folder] = wd
        self._masks[wd] = self._masks.get(wd, 0) | mask
        self._folders.setdefault(wd, set()).add(folder)

    def _narrow(self, folder: str, mask: int) -> None:
        try:
            wd = self._kernel.add(folder, mask)
        except OSError:
            return  # gone meanwhile: the event that says so is queued
        if wd in self._folders:
            self._masks[wd] = mask
        else:
            self._kernel.remove(wd)  # another folder is in its place: likewise

    def _remove(self, folder: str) -> None:
        wd = self._numbers.pop(folder)
        folders = self._folders.get(wd, set())
        folders.discard(folder)
        if wd != REFUSED and not folders:
            del self._folders[wd], self._masks[wd]
            self._kernel.remove(wd)


class Hold(NamedTuple):
    """A path held back until `until` (monotonic); `made`: it is a new name in its folder."""

    until: float
    made: bool


class Inotify:
    """The watcher for Linux.

    Args:
        kernel: the system calls.
        clock: seconds, monotonic.
        mountinfo: the file that lists the mounts.  quiet: see `watch.make`.

    Raises:
        OSError: as `Kernel`.
    """

    name = "inotify"

    def __init__(
        self,
        kernel: Kernel | None = None,
        clock: Callable[[], float] = time.monotonic,
        mountinfo: str = procfs.MOUNTS,
        quiet: bool = False,
    ) -> None:
        self._kernel = kernel or Kernel()
        self._clock = clock
        self._mountinfo, self._quiet = mountinfo, quiet
        self._said: set[str] = set()  # warnings, each given once
        self._reset()

    def _reset(self) -> None:
        self._places = Places()
        self._watches = Watches(self._kernel)
        self._held: dict[tuple[str, str], Hold] = {}  # by real folder and name
        self._polled: set[str] = set()  # keys left to polling
        self._polling = Polling()
        self._mounts: dict[str, str] | None = None

    @property
    def interval(self) -> float | None:
        """The time until a path held back is due, or a sweep."""
        waits = [hold.until - self._clock() for hold in self._held.values()]
        if (sweep := self._polling.interval) is not None:
            waits.append(sweep)
        return max(0.0, min(waits)) if waits else None

    def watch(self, path: str) -> None:
        """Watch the folder of `path`, or `path` if it is one; also where its links lead."""
        if path in self._places:
            return
        for key in self._places.ask(path):
            self._follow(key)
        if self._polled and not self._polled.isdisjoint(self._places.keys(path)):
            self._polling.watch(path)

    def forget(self) -> None:
        """Drop every path. The mounts are read again."""
        self._watches.clear()
        self._reset()

    def fileno(self) -> int | None:
        """The inotify descriptor."""
        return self._kernel.fd

    def quiet(self) -> bool:
        """Say whether the queue is empty and nothing has to be looked at again later."""
        if self._kernel.waiting():
            return False
        return not (self._held or self._polled)

    def hints(self) -> Hints:
        """Read the queue; walk trails anew where folders or links have changed."""
        touched: set[str] = set()
        gone: set[str] = set()
        bent: set[str] = set()
        lost = False
        for wd, mask, name in self._kernel.read():
            lost = lost or bool(mask & IN_Q_OVERFLOW)
            for folder in self._watches.folders(wd):
                if mask & LOST:
                    gone.add(folder)
                    continue
                if mask & LEAVES and (path := os.path.join(folder, name)) in self._watches:
                    gone.add(path)
                if mask & COMES_OR_GOES:
                    bent |= self._places.bent(folder, name)
                touched |= self._hold_or_spell(folder, name, mask)
        if lost:
            self._start_over()
            return EVERYTHING
        if gone or bent:
            touched |= self._mend(gone, bent)
        if self._held:
            touched |= self._release()
        return touched | self._polling.hints()

    def close(self) -> None:
        """Close the descriptor."""
        self._kernel.close()
        self._reset()

    def _follow(self, key: str) -> None:
        """Walk the trail of `key` and watch it, until it stays the same while it is being watched."""
        for _ in range(10):
            trail = self._places.follow(key)
            if not self._cover(trail):
                break
            if self._places.follow(key) == trail:
                self._polled.discard(key)
                return
        self._polled.add(key)
        for path in self._places.below(key):
            if path in self._places:
                self._polling.watch(path)

    def _cover(self, trail: Trail) -> bool:
        """Watch the folders of `trail`; False if it has to be polled."""
        if self._mounts is None:
            self._mounts = read_mounts(procfs.text(self._mountinfo))
        for folder in trail.folders:
            mount = find_silent_mount(folder, self._mounts)
            if mount is not None:
                self._say_once(logging.INFO, f"polling {mount[0]}: {mount[1]} mounts do not announce changes")
                return False
            try:
                self._watches.cover(folder)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    continue  # changed under our feet: the trail will be another
                if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EMFILE):
                    self._say_once(logging.WARNING, _exhaustion())
                return False
        return True

    def _hold_or_spell(self, folder: str, name: str, mask: int) -> set[str]:
        """Hold a path back if somebody may still be writing it, else give its spellings."""
        made = bool(mask & IN_CREATE) and _is_new_file(os.path.join(folder, name))
        hold = self._held.pop((folder, name), None)
        made = made or (hold is not None and hold.made)
        spelled = self._places.spell(folder, name, listing=made or bool(mask & COMES_OR_GOES))
        if spelled and (mask & IN_MODIFY or (mask & IN_CREATE and made)):
            until = self._clock() + HOLD if hold is None else hold.until
            self._held[folder, name] = Hold(until, made)
            return set()
        return spelled

    def _release(self) -> set[str]:
        """Give the spellings of what has been held back long enough."""
        due = [item for item in self._held.items() if item[1].until <= self._clock()]
        touched: set[str] = set()
        for (folder, name), hold in due:
            del self._held[folder, name]
            touched |= self._places.spell(folder, name, listing=hold.made)
        return touched

    def _mend(self, gone: set[str], bent: set[str]) -> set[str]:
        """Walk the trails that have changed; give all that may have changed with them."""
        self._watches.drop(gone)
        touched: set[str] = set()
        todo = bent | self._places.through(gone)
        while todo:
            key = todo.pop()
            self._follow(key)
            touched |= self._places.below(key)
            todo |= self._places.arrived(key)
        trails = self._places.trails
        self._watches.keep({each for key in trails.keys() - self._polled for each in trails[key].folders})
        return touched

    def _start_over(self) -> None:
        """Watch everything anew: what became of the folders was lost with the rest."""
        self._held.clear()
        self._watches.clear()
        self._mend(set(), set(self._places.trails))

    def _say_once(self, level: int, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.log(logging.DEBUG if self._quiet else level, text)


def _is_new_file(path: str) -> bool:
    """Say whether a name that has come is a new file; a link (hard or symbolic) was never open."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _exhaustion() -> str:
    limit = procfs.text(procfs.MOST_WATCHES).strip()
    return (
        f"inotify watches are exhausted (fs.inotify.max_user_watches = {limit or 'unknown'}): polling the "
        f"rest; raise it with: sudo sysctl fs.inotify.max_user_watches={max(524288, 2 * int(limit or 0))}"
    )
