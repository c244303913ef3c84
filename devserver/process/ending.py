"""How a process ends that somebody waits for.

Python takes an interpreter apart object by object before the process is gone; the more an application
has loaded, the longer that takes, and its successor waits for it. So what has a meaning is done, and the
rest is left to the kernel, which takes it all at once.
"""

from __future__ import annotations

import atexit
import logging
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

from devserver import procfs

_listdir = os.listdir  # an application may replace them

_ACCESS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
"""Of a descriptor's flags those that say how it was opened (`O_ACCMODE`, which PyPy lacks)."""

_last: list[Callable[[], None]] = []
_ran = False


def at_last(callback: Callable[[], None]) -> None:
    """Have something done directly before the kernel is left to end this process, if it comes to that."""
    _last.append(callback)


def leave(code: int, *, whole: bool = False) -> NoReturn:
    """End this process: join its threads, run its exit handlers, write out what streams hold.

    Where files are open for writing it ends as any other Python program does, since what they hold in
    memory would be lost. So it does where the system does not say which files are open.

    Args:
        whole: end as any other program in any case.
    """
    threading._shutdown()  # type: ignore[attr-defined] # the first that an interpreter does at its end
    run_exit_handlers()
    flush()
    if whole or _has_files_to_write():
        sys.exit(code)
    for callback in _last:
        with suppress(Exception):  # it ends, whatever they meet
            callback()
    os._exit(code)


def run_exit_handlers() -> None:
    """Run them, once: if another thread has begun and hangs in one, those before it must not run again."""
    global _ran
    if not _ran:
        _ran = True
        atexit._run_exitfuncs()


def flush() -> None:
    """Write out what the standard streams hold, if they can be written to."""
    for stream in dict.fromkeys((sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)):
        with suppress(Exception):  # user code may have put anything there
            stream.flush()  # type: ignore[union-attr] # or None


def flush_files() -> None:
    """Write out what open files hold in memory, where the interpreter is not taken apart."""
    import gc
    import io

    for each in gc.get_objects():
        # By its type: a proxy of what is gone raises when it is asked for its class.
        if issubclass(type(each), io.BufferedWriter | io.BufferedRandom | io.TextIOWrapper):
            with suppress(Exception):  # it is closed, or full
                each.flush()


def _has_files_to_write() -> bool:
    """Whether files are open for writing, apart from those of log handlers, which write at once."""
    if sys.platform != "linux":
        return True
    import fcntl  # there is none on Windows

    for fd in procfs.descriptors() - set(log_files()) - {0, 1, 2}:
        with suppress(OSError):  # the one by which the folder was listed is closed by now
            writes = fcntl.fcntl(fd, fcntl.F_GETFL) & _ACCESS != os.O_RDONLY
            status = os.fstat(fd)
            if writes and stat.S_ISREG(status.st_mode) and status.st_nlink:  # without a name nobody reads it
                return True
    return False


def log_files() -> Iterator[int]:
    """The descriptors of log handlers' streams."""
    for reference in list(logging._handlerList):  # type: ignore[attr-defined] # there is no other way
        yield fileno(getattr(reference(), "stream", None))


def fileno(stream: Any) -> int:
    """The descriptor of a stream; -1 if it has none."""
    try:
        return int(stream.fileno())
    except Exception:  # whatever a handler may write to
        return -1
