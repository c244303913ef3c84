"""The memory of a process that ends, left to another one to take apart. Linux.

To the kernel a process is gone when its memory has been unmapped: a millisecond for each 20 MB, for which
a successor would wait. So at the very end, with everything closed, a second process is made that has the
*same* memory and nothing else. The first one then is gone at once: its descriptors, locks and process id with
it. The second ends a moment later, by itself, and it is for that one that the kernel works, beside
whoever comes next.

It executes one function of the C library and nothing of ours. Where there is none to be had, or where threads
of the application still run, which could meet the descriptors that are closed, the process ends as any other.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from devserver.process.reactor import Reactor

STAYS = 0.02
"""Seconds for which the second process lives: more than the first one needs to be gone."""

_CLONE_VM = 0x100
_STACK = 64 * 1024
_stacks: list[object] = []  # memory that must stay although nobody here needs it


def bequeath(keep: int, tell: Callable[[int], None]) -> None:
    """Leave the memory of this process to another one. What follows must be the end, by `os._exit`.

    Args:
        keep: the one descriptor that stays open, apart from the standard ones.
        tell: is told the other's process id: it becomes a child of who adopts this one's.
    """
    if sys.platform != "linux" or sys.implementation.name != "cpython" or _others_run():
        return
    import ctypes

    libc = ctypes.PyDLL(None)  # which keeps the GIL
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    _stacks.append(stack := ctypes.create_string_buffer(_STACK))
    top = (ctypes.addressof(stack) + _STACK) & ~15
    sleep = ctypes.cast(libc.usleep, ctypes.c_void_p)
    pid = libc.clone(sleep, ctypes.c_void_p(top), _CLONE_VM, ctypes.c_void_p(int(STAYS * 1e6)))
    if pid > 0:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, 19)  # what comes next needs the processor more
        tell(pid)


def _others_run() -> bool:
    ours = threading.current_thread(), threading.main_thread()
    return any(
        thread not in ours and not thread.name.startswith("devserver-") for thread in threading.enumerate()
    )


class Remains:
    """What takes apart the memory of children that have ended.

    Attributes:
        pids: of those that live.
    """

    def __init__(self, reactor: Reactor) -> None:
        self.pids: set[int] = set()
        self._reactor = reactor

    def add(self, pid: int) -> None:
        """Have its end noticed, after which nothing is left of it."""
        if sys.platform == "linux":
            with suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                self.pids.add(pid)
                self._reactor.add(fd, lambda: self._ended(pid, fd))

    def _ended(self, pid: int, fd: int) -> None:
        self._reactor.remove(fd)
        os.close(fd)
        self.pids.discard(pid)
        if sys.platform != "win32":
            with suppress(ChildProcessError):  # its maker has not ended, and `Kin` will find it
                os.waitpid(pid, os.WNOHANG)
