"""The system calls of inotify(7), through ctypes, and nothing else: numbers in, numbers out.

Refuses to know which folders are watched and what an event means.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import sys
import termios
from array import array
from collections.abc import Iterator

if sys.platform != "linux":
    raise ImportError("inotify is a part of Linux")

IN_MODIFY, IN_CLOSE_WRITE = 0x2, 0x8
IN_MOVED_FROM, IN_MOVED_TO = 0x40, 0x80
IN_CREATE, IN_DELETE = 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF = 0x400, 0x800
IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED = 0x2000, 0x4000, 0x8000
IN_ONLYDIR, IN_DONT_FOLLOW = 0x1000000, 0x2000000
IN_MASK_ADD = 0x20000000

BUFFER = 65536
"""Bytes that are read at once."""

_LARGE = 2048
"""Bytes. CPython up to 3.13 keeps the GIL in an `ioctl` whose buffer is larger than 1024: it answers at
once, and whoever gives the GIL away may get it back 5 ms later."""

_libc = ctypes.CDLL(None, use_errno=True)
_ioctl, _FIONREAD = fcntl.ioctl, termios.FIONREAD


class Kernel:
    """One inotify instance.

    Raises:
        OSError: there is no inotify, or no instance left (fs.inotify.max_user_instances).
    """

    def __init__(self) -> None:
        self.fd = _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self._queued = array("i", bytes(_LARGE))

    def add(self, folder: str, mask: int) -> int:
        """Watch `folder`, or change its mask; give the watch's number.

        Raises:
            OSError: ENOSPC when there are no watches left; EACCES, ENOENT, ENOTDIR.
        """
        return _check(_libc.inotify_add_watch(self.fd, os.fsencode(folder), ctypes.c_uint32(mask)))

    def remove(self, wd: int) -> None:
        """End the watch `wd`; no harm if the kernel has ended it already."""
        _libc.inotify_rm_watch(self.fd, wd)

    def waiting(self) -> bool:
        """Say whether something is queued. A third of a microsecond; a `read` in vain takes 2."""
        _ioctl(self.fd, _FIONREAD, self._queued)
        return self._queued[0] > 0

    def read(self) -> Iterator[tuple[int, int, str]]:
        """Yield what is queued: watch, mask and name."""
        while self.fd >= 0 and self.waiting():
            data, at = os.read(self.fd, BUFFER), 0
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


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
