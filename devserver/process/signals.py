"""Signals as bytes on a socket, and the handlers put back afterwards.

The handler itself does nothing: Python's C handler writes the signal's number to a socket
(`signal.set_wakeup_fd`), which a selector reads together with everything else. So nothing runs in
the middle of other code and no lock can be met in a handler. signalfd would do the same on Linux
only and needs the signals blocked, which children would inherit.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from devserver import procfs
from devserver.cpython import KNOWS_IGNORED


def _noted(signum: int, frame: FrameType | None) -> None:
    """The byte has been written; whoever reads it acts."""


class Signals:
    """Captures signals between `__enter__` and `__exit__`; main thread only."""

    def __init__(self, signums: Iterable[int]) -> None:
        self._signums = list(signums)
        self._previous: dict[int, Any] = {}
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def fileno(self) -> int:
        """For a selector: readable when a signal has come."""
        return self._read.fileno()

    def taken(self) -> list[int]:
        """The signals that have come since the last call, in order."""
        try:
            return list(self._read.recv(256))
        except BlockingIOError:
            return []

    def were_ignored(self, signum: int) -> bool:
        """Whether a signal was ignored before `__enter__`."""
        return self._previous.get(signum) is signal.SIG_IGN

    def __enter__(self) -> Signals:
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for signum in self._signums:
            ignored = is_ignored(signum)
            before = signal.signal(signum, _noted)
            self._previous[signum] = signal.SIG_IGN if ignored else before
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._wakeup)
        self._read.close()
        self._write.close()


class Bell:
    """A socket to wait on, rung by whoever likes and, in the main thread, by every signal.

    Python runs handlers between bytecodes. A signal that comes just as a thread begins to wait, or that
    the kernel gives to another thread, does not end a wait: its handler would run at the next event.
    """

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)

    def fileno(self) -> int:
        """For a selector: readable when it has been rung."""
        return self._read.fileno()

    def ring(self) -> None:
        """End a `wait`, the next one if there is none; any thread."""
        with suppress(OSError):  # it is full, and that will do; or closed
            self._write.send(b"\0")

    def wait(self) -> None:
        """Wait until it has been rung since the last call."""
        self._read.recv(4096)

    @contextmanager
    def rung_by_signals(self) -> Iterator[None]:
        """Have signals ring it within; in another thread than the main one, which handles none, nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def close(self) -> None:
        """To be called when nobody rings any more."""
        self._read.close()
        self._write.close()


def is_ignored(signum: int) -> bool:
    """Whether this process ignores a signal, as below nohup."""
    return signal.getsignal(signum) is signal.SIG_IGN or (
        not KNOWS_IGNORED and procfs.ignores(os.getpid(), signum)
    )


def leave_interrupts() -> None:
    """In a child: leave SIGINT to the supervisor, which acts on it for both. To be called first of all.

    Ctrl-C in a terminal, and stopping in an IDE, send it to every process. By a function and not by
    SIG_IGN, which programs that the application starts would inherit.
    """
    signal.signal(signal.SIGINT, _noted)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def interrupts_held() -> AbstractContextManager[None]:
    """Block SIGINT, which a process that is started within inherits: while it starts it would end in
    a traceback. Nothing is lost for this process."""
    return held([signal.SIGINT])


@contextmanager
def held(signums: Iterable[int]) -> Iterator[None]:
    """Block signals: those that come within are heard after it."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ending() -> list[int]:
    """The signals that ask a server to end, on this system.

    Managers of processes send SIGQUIT for that, too. From a terminal it ends a program that heeds nothing
    else, and is not handled.
    """
    typed = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
    names = ("SIGINT", "SIGTERM", "SIGBREAK", *(() if typed else ("SIGQUIT",)))
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def managing() -> list[int]:
    """The signals that mean something to an arbiter of workers, on this system; see `workers.arbiter`."""
    names = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR2", "SIGWINCH", "SIGCHLD")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def wanted() -> list[int]:
    """The signals that mean something to a supervisor, on this system.

    SIGCHLD tells that something has ended that an application had started and left behind.
    One that was ignored when this program was started stays ignored (nohup), except SIGINT, which
    shells ignore for what they start in the background.
    """
    others = (getattr(signal, name) for name in ("SIGHUP", "SIGCHLD") if hasattr(signal, name))
    signums = [*ending(), *others]
    return [n for n in signums if n == signal.SIGINT or not is_ignored(n)]
