"""The memory of a process that ends, left to another one to take apart. Linux.

To the kernel a process is gone when its memory has been unmapped, which takes the longer the more there is,
and a successor would wait for it. So at the very end, with everything closed, a second process is made that
has the *same* memory and nothing else. The first one then is gone at once: its descriptors and process id
with it. The second ends a moment later, by itself, and it is for that one that the kernel works, beside
whoever comes next. It executes one function of the C library and nothing of ours.

A process ends as any other where there is none to be had; where threads still run that are not ours, native
ones, too, since they could meet descriptors that are closed; and where it has locked whole files or opened
devices, which are released when nobody has them mapped any more. Mappings whose descriptors were closed
before are not seen.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from devserver import procfs
from devserver.cpython import CAN_COPY
from devserver.process.reactor import Reactor

_open, _listdir = open, os.listdir  # an application may replace them

STAYS = 0.02
"""Seconds for which the second process lives: more than the first one needs to be gone."""

NICE = 5
"""How much more whoever comes next needs the processor. Not for ever: memory is given back at last."""

OURS = ("devserver-control", "devserver-digests", "devserver-deadline")
"""Threads that execute nothing of the application's, and wait."""

_HARMLESS = (1, 4, 5, *range(136, 144))
"""Major numbers of devices (Linux, admin-guide/devices): null, zero and random; terminals."""

_LOCK = re.compile(rb"^lock:.*(FLOCK|OFDLCK)", re.M)

_CLONE_VM = 0x100
_STACK = 64 * 1024
_stacks: list[object] = []  # memory that must stay although nobody here needs it


def hand_over_memory(keep: int, tell: Callable[[int], None]) -> None:
    """Leave the memory of this process to another one. What follows must be the end, by `os._exit`.

    Args:
        keep: the one descriptor that stays open, apart from the standard ones.
        tell: is told the other's process id: it becomes a child of who adopts this one's.
    """
    if sys.platform != "linux" or not CAN_COPY or not hasattr(os, "pidfd_open"):
        return
    fds = procfs.descriptors() - {0, 1, 2, keep}
    if _others_run() or _may_hold_by_memory(fds):
        return
    import ctypes

    libc = ctypes.PyDLL(None)  # which keeps the GIL
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for fd in fds:
        with suppress(OSError):
            os.close(fd)
    _stacks.append(stack := ctypes.create_string_buffer(_STACK))
    top = (ctypes.addressof(stack) + _STACK) & ~15
    sleep = ctypes.cast(libc.usleep, ctypes.c_void_p)
    pid = libc.clone(sleep, ctypes.c_void_p(top), _CLONE_VM, ctypes.c_void_p(int(STAYS * 1e6)))
    if pid > 0:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, NICE)
        tell(pid)


def _others_run() -> bool:
    ours = {thread.native_id for thread in threading.enumerate() if thread.name in OURS}
    main = os.getpid()  # the number of its thread; Python does not know it in a copy
    return not procfs.thread_ids() <= {*ours, main, threading.get_native_id()}


def _may_hold_by_memory(fds: Iterable[int]) -> bool:
    """Whether there is what a mapping could keep from a successor."""
    if sys.platform == "win32":
        return True
    for fd in fds:
        with suppress(OSError):  # the one by which the folder was listed is closed by now
            status = os.fstat(fd)
            if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) not in _HARMLESS:
                return True
            # Not by the table of all locks, for which the kernel waits tens of milliseconds.
            if stat.S_ISREG(status.st_mode) and _LOCK.search(procfs.details(fd)):
                return True
    return False


class Teardowns:
    """What takes apart the memory of children that have ended.

    Attributes:
        pids: of those that live.
    """

    def __init__(self, reactor: Reactor) -> None:
        self.pids: set[int] = set()
        self._reactor = reactor

    def add(self, pid: int) -> None:
        """Have its end noticed, after which nothing is left of it. Else `Orphans` ends it."""
        if sys.platform == "linux":
            with suppress(OSError):
                fd = os.pidfd_open(pid)
                self.pids.add(pid)
                self._reactor.add(fd, lambda: self._ended(pid, fd))

    def _ended(self, pid: int, fd: int) -> None:
        self._reactor.remove(fd)
        os.close(fd)
        self.pids.discard(pid)
        if sys.platform != "win32":
            with suppress(ChildProcessError):  # its maker has not ended, and `Orphans` will find it
                os.waitpid(pid, os.WNOHANG)
