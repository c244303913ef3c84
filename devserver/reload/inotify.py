"""Watching on Linux: inotify(7) through ctypes.

The kernel queues an event before the system call that caused it returns, so whoever asks after a
save sees it; to ask costs one `read` that finds nothing. The theory:

- A folder has one watch, known by a number, however many paths lead to it (bind mounts).
- Folders in which something may happen to a name that matters get the mask `NAMES`. Folders above
  them get `SELF`: a watch says nothing when a folder above it is renamed. `SELF` includes
  IN_DELETE, since IN_DELETE_SELF waits until nobody has the folder open or as working directory.
- A watch follows its folder when that is moved. So it is dropped as soon as its folder, or one
  above, goes; then the trails are walked anew, which waits in the nearest ancestor or finds the
  folder back. Events still queued for a dropped number are ignored: all that lay there is hinted.
- After IN_MODIFY, or when a file has been made, somebody may still be writing. The path is held
  back until IN_CLOSE_WRITE, but not for ever: logs and databases stay open.

Where events do not arrive, or there are no watches left, `Polling` does the rest.
"""

import ctypes
import errno
import logging
import os
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator

from devserver.reload.places import Places, Trail, ancestors, beneath
from devserver.reload.watch import EVERYTHING, Hints, Polling

if sys.platform != "linux":
    raise ImportError("inotify is a part of Linux")

IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000
IN_MASK_ADD = 0x20000000
IN_ISDIR = 0x40000000

SELF = IN_DELETE_SELF | IN_MOVE_SELF | IN_DELETE | IN_ONLYDIR
NAMES = SELF | IN_MODIFY | IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO
LOST = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED

HOLD = 0.1
"""Seconds for which a path being written is held back at most."""

BUFFER = 65536

SILENT = ("9p", "drvfs", "nfs", "nfs4", "cifs", "smb3", "smbfs", "vboxsf", "virtiofs", "prl_fs", "vmhgfs")
"""File systems on which others may write without an event here; so may all whose type begins with fuse."""

log = logging.getLogger("devserver")


class Kernel:
    """The system calls, and nothing else.

    Raises:
        OSError: there is no inotify, or no instance left (fs.inotify.max_user_instances).
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._check(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def add(self, folder: str, mask: int) -> int:
        """Watch `folder`, or change its mask; give the watch's number.

        Raises:
            OSError: ENOSPC when there are no watches left; EACCES, ENOENT, ENOTDIR.
        """
        path = os.fsencode(folder)
        return self._check(self._libc.inotify_add_watch(self.fd, path, ctypes.c_uint32(mask)))

    def remove(self, wd: int) -> None:
        """End the watch `wd`; no harm if the kernel has ended it already."""
        self._libc.inotify_rm_watch(self.fd, wd)

    def read(self) -> Iterator[tuple[int, int, str]]:
        """Yield what is queued: watch, mask and name."""
        while True:
            try:
                data = os.read(self.fd, BUFFER)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                wd, mask, _, length = struct.unpack_from("iIII", data, at)
                at += 16 + length
                yield wd, mask, os.fsdecode(data[at - length : at].rstrip(b"\0"))
            if len(data) < BUFFER // 2:
                return  # there was room for more

    def close(self) -> None:
        """Give the descriptor back, and all watches with it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _check(self, result: int) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result


def read_mounts(table: str) -> dict[str, str]:
    """Read /proc/self/mountinfo (proc(5)): mount point to type; what was mounted last covers the rest."""
    mounts = {}
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        if after:
            point = before.split()[4].encode().decode("unicode_escape").encode("latin-1")
            mounts[os.fsdecode(point)] = after.split()[0]
    return mounts


def find_silent_mount(folder: str, mounts: dict[str, str]) -> tuple[str, str] | None:
    """Give mount point and type if `folder` lies on a mount where events do not arrive."""
    for point in ancestors(folder):
        kind = mounts.get(point)
        if kind is not None:
            return (point, kind) if kind in SILENT or kind.startswith("fuse") else None
    return None


class Watches:
    """Which real folder has which watch.

    Args:
        kernel: where they are.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._numbers: dict[str, int] = {}  # folder: watch; -1: it may not be watched
        self._masks: dict[int, int] = {}
        self._folders: dict[int, set[str]] = {}

    def folders(self, wd: int) -> list[str]:
        """Give the folders that `wd` stands for; none if it has been dropped."""
        return list(self._folders.get(wd, ()))

    def cover(self, folder: str) -> None:
        """Watch the names in `folder`, and those above it for their own fate.

        Raises:
            OSError: as `Kernel.add`. What was added before stays.
        """
        for above in ancestors(os.path.dirname(folder)):
            if above in self._numbers:
                break  # and so are those above it
            try:
                self._add(above, SELF)
            except PermissionError:
                self._numbers[above] = -1
        if self._masks.get(self._numbers.get(folder, -1), 0) != NAMES:
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
            if wd >= 0 and mask != self._masks[wd]:
                try:
                    self._kernel.add(next(iter(self._folders[wd])), mask)
                    self._masks[wd] = mask
                except OSError:
                    pass  # gone meanwhile: its events are on their way

    def clear(self) -> None:
        """End all."""
        for wd in self._folders:
            self._kernel.remove(wd)
        self._numbers.clear()
        self._masks.clear()
        self._folders.clear()

    def _add(self, folder: str, mask: int) -> None:
        known = self._masks.get(self._numbers.get(folder, -1), 0)
        wd = self._kernel.add(folder, mask | known | IN_MASK_ADD)
        self._numbers[folder] = wd
        self._masks[wd] = self._masks.get(wd, 0) | mask
        self._folders.setdefault(wd, set()).add(folder)

    def _remove(self, folder: str) -> None:
        wd = self._numbers.pop(folder)
        folders = self._folders.get(wd, set())
        folders.discard(folder)
        if wd >= 0 and not folders:
            del self._folders[wd], self._masks[wd]
            self._kernel.remove(wd)


class Inotify:
    """The watcher for Linux.

    Args:
        kernel: the system calls.
        clock: seconds, monotonic.
        mountinfo: the file that lists the mounts.

    Raises:
        OSError: as `Kernel`.
    """

    name = "inotify"

    def __init__(
        self,
        kernel: Kernel | None = None,
        clock: Callable[[], float] = time.monotonic,
        mountinfo: str = "/proc/self/mountinfo",
    ) -> None:
        self._kernel = kernel or Kernel()
        self._clock = clock
        self._mountinfo = mountinfo
        self._said: set[str] = set()  # warnings, each given once
        self._reset()

    def _reset(self) -> None:
        self._places = Places()
        self._watches = Watches(self._kernel)
        self._held: dict[tuple[str, str], float] = {}  # real folder and name: until when
        self._polled: set[str] = set()  # keys left to polling
        self._polling = Polling()
        self._mounts: dict[str, str] | None = None

    @property
    def interval(self) -> float | None:
        """The time until a path held back is due, or a sweep."""
        waits = [until - self._clock() for until in self._held.values()]
        if (sweep := self._polling.interval) is not None:
            waits.append(sweep)
        return max(0.0, min(waits)) if waits else None

    @property
    def writing(self) -> set[str]:
        """The paths held back."""
        return {path for folder, name in self._held for path in self._places.spell(folder, name)}

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
                if mask & IN_ISDIR and mask & (IN_DELETE | IN_MOVED_FROM):
                    gone.add(os.path.join(folder, name))
                if mask & (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO):
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
            self._mounts = _read_mounts_of(self._mountinfo)
        for folder in trail.folders:
            mount = find_silent_mount(folder, self._mounts)
            if mount is not None:
                self._say_once(f"polling {mount[0]}: changes on {mount[1]} mounts are not announced")
                return False
            try:
                self._watches.cover(folder)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    continue  # changed under our feet: the trail will be another
                if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EMFILE):
                    self._say_once(_exhaustion())
                return False
        return True

    def _hold_or_spell(self, folder: str, name: str, mask: int) -> set[str]:
        """Hold a path back while it is being written; else give its spellings."""
        made = mask & IN_CREATE and not mask & IN_ISDIR
        if mask & IN_MODIFY or (made and _is_new_file(os.path.join(folder, name))):
            self._held.setdefault((folder, name), self._clock() + HOLD)
            return set()
        if not mask & IN_CLOSE_WRITE:
            self._held.pop((folder, name), None)
            return self._places.spell(folder, name, listing=True)
        return self._end_hold(folder, name)
