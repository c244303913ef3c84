"""Where a process stands that says nothing: the line that it executes, and what it listens on. Linux.

A signal has `faulthandler` write the stack into a file in memory that both processes have. It does so in C,
at once: also where a loop in C holds the GIL, and without a thread, which would be in the way of forks. It
is a real-time signal, since programs use the others; it is sent only to who has a handler for it, and would
end any other.

Elsewhere nothing is known.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from devserver import procfs

QUESTION: int = getattr(signal, "SIGRTMAX", 1) - 1 if sys.platform == "linux" else 0
"""The signal; 0 where there is none."""

GUARD = 'put what starts it below `if __name__ == "__main__":`'
"""What to do with a module that starts a server of its own when it is imported."""

_PATIENCE, _STEP = 0.05, 0.001
"""Seconds that an answer may take, and between two looks at how long it is."""

_FRAME = re.compile(r'^  File "(.*)", line (\d+) in ', re.M)


@dataclass(frozen=True)
class Standing:
    """Where a process stands.

    Attributes:
        frames: paths and lines, the innermost first; empty if that is not known.
        listens: addresses that it listens on by sockets of its own, as `host:port`.
    """

    frames: list[tuple[str, int]] = field(default_factory=list)
    listens: list[str] = field(default_factory=list)


def answer(fd: int) -> None:
    """Have this process, and copies of it, answer into a file."""
    if QUESTION and hasattr(faulthandler, "register"):
        faulthandler.register(QUESTION, fd, all_threads=False)


def ask(pid: int, fd: int, ours: Collection[int]) -> Standing:
    """Ask a process that may answer into a file; waits for a moment.

    Args:
        fd: of the file, opened for appending.
        ours: inodes of sockets that it was given.
    """
    if sys.platform == "win32" or not QUESTION or fd < 0 or not procfs.catches(pid, QUESTION):
        return Standing()
    before = size = os.fstat(fd).st_size
    try:
        os.kill(pid, QUESTION)
    except OSError:
        return Standing()
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        time.sleep(_STEP)
        now = os.fstat(fd).st_size
        if now == size > before:
            break
        size = now
    text = os.pread(fd, max(0, size - before), before).decode("utf-8", "replace")
    os.ftruncate(fd, before)
    return Standing([(path, int(line)) for path, line in _FRAME.findall(text)], list(_listens(pid, ours)))


def _listens(pid: int, ours: Collection[int]) -> Iterator[str]:
    theirs = procfs.sockets(pid).difference(ours)
    for host, port, inode in procfs.listeners(pid):
        if inode in theirs:
            yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
