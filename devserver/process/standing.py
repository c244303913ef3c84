"""Where a process stands that says nothing: the line that it executes, and what it listens on. Linux.

A signal has `faulthandler` write the stack into a file in memory that both processes have, without a thread,
which would be in the way of forks. It is a real-time signal, since programs use the others; it is sent only
to who has a handler for it, and would end any other.

There are two such signals. The first is handled by Python, between two instructions, where frames are whole.
Where that does not happen, as in a loop in C that holds the GIL, the second has `faulthandler` write at once.
It is not sent before it is certain that no instruction of Python is being executed: amid one a frame may be
half made, and looking at it ends the process by SIGSEGV (5 of 13,000 times under CPython 3.13). PyPy's
`faulthandler` does not know lines, so there the first signal is the only one.

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
from types import FrameType

from devserver import procfs
from devserver.cpython import EXACT_STACKS

QUESTION: int = getattr(signal, "SIGRTMAX", 1) - 1 if sys.platform == "linux" else 0
"""The signal that Python handles; 0 where there is none."""

INSISTENT: int = QUESTION - 1 if QUESTION else 0
"""The one that is handled at once."""

GUARD = 'put what starts it below `if __name__ == "__main__":`'
"""What to do with a module that starts a server of its own when it is imported."""

_PATIENCE, _STEP = 0.05, 0.001
"""Seconds that an answer may take, and between two looks at how long it is."""

_LONG, _RUNS = 0.1, 0.03
"""Seconds in which a process may show that it is in C, and of the processor's time that show it."""

_DEEPEST = 100
"""Frames in an answer, as in one of `faulthandler`."""

_FRAME = re.compile(r'^  File "(.*)", line (\d+) in ', re.M)


@dataclass(frozen=True)
class Standing:
    """Where a process stands.

    Attributes:
        frames: paths and lines, the innermost first; empty if that is not known.
        listens: addresses that it listens on by sockets of its own, as `host:port`.
        awaits: names of companions whose work has to be done before it begins.
    """

    frames: list[tuple[str, int]] = field(default_factory=list)
    listens: list[str] = field(default_factory=list)
    awaits: list[str] = field(default_factory=list)


def answer(fd: int) -> None:
    """Have this process, and copies of it, answer into a file. To be called in the main thread."""

    def write(signum: int, frame: FrameType | None) -> None:
        os.write(fd, "".join(_lines(frame)).encode("utf-8", "backslashreplace"))

    if QUESTION and hasattr(faulthandler, "register"):
        if EXACT_STACKS:
            faulthandler.register(INSISTENT, fd, all_threads=False)
        signal.signal(QUESTION, write)


def _lines(frame: FrameType | None) -> Iterator[str]:
    """A stack as `faulthandler` writes it, which PyPy's does without the lines that are executed."""
    for _ in range(_DEEPEST):
        if frame is None:
            return
        code = frame.f_code
        yield f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}\n'
        frame = frame.f_back


def ask(pid: int, fd: int, ours: Collection[int]) -> Standing:
    """Ask a process that may answer into a file; waits for a moment.

    Args:
        fd: of the file, opened for appending.
        ours: inodes of sockets that it was given.
    """
    if sys.platform == "win32" or not QUESTION or fd < 0 or not procfs.catches(pid, QUESTION):
        return Standing()
    ran = procfs.activity(pid).seconds
    text = _answer(pid, fd, QUESTION)
    if not text and _is_in_c(pid, ran) and procfs.catches(pid, INSISTENT):
        text = _answer(pid, fd, INSISTENT)
    frames = [(path, int(line)) for path, line in _FRAME.findall(text) if path != __file__]
    return Standing(frames, list(_listens(pid, ours)))


def _is_in_c(pid: int, ran: float) -> bool:
    """Whether a process that has not answered executes no instruction of Python: it waits, or runs for long.

    Args:
        ran: seconds of the processor's time that its main thread had had when it was asked.
    """
    end = time.monotonic() + _LONG
    while True:
        now = procfs.activity(pid)
        if now.waits or now.seconds - ran >= _RUNS:
            return True
        if time.monotonic() >= end:
            return False  # it has not come to run since it was asked
        time.sleep(_STEP)


def _answer(pid: int, fd: int, signum: int) -> str:
    """What a process writes when it gets this signal; "" for nothing."""
    if sys.platform == "win32":
        return ""
    before = size = os.fstat(fd).st_size
    try:
        os.kill(pid, signum)
    except OSError:
        return ""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        time.sleep(_STEP)
        now = os.fstat(fd).st_size
        if now == size > before:
            break
        size = now
    text = os.pread(fd, max(0, size - before), before).decode("utf-8", "replace")
    os.ftruncate(fd, before)
    return text


def _listens(pid: int, ours: Collection[int]) -> Iterator[str]:
    theirs = procfs.sockets(pid).difference(ours)
    for host, port, inode in procfs.listeners(pid):
        if inode in theirs:
            yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
