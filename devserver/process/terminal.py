"""The terminal that a supervisor was started from: its settings, and lines typed into it.

It is never put into raw mode, so there is nothing to restore but what an application changed: a
debugger or a line editor that is killed leaves a terminal without echo.

The terminal is the application's, too, and nothing says who reads it: `sys.stdin`, a program that was
started, `getpass`. But the kernel wakes everybody who waits, and who is blocked in a read takes the
line without needing an interpreter. So the supervisor, which only polls, is polite: it waits a moment
and takes what nobody has taken, without blocking, since it may all be gone. To look into the
application instead, and to replace its `sys.stdin`, would reach less and change what it sees. Only on
a machine so busy that a woken reader is not run within the moment can a line go astray; who calls
`input` is known otherwise and loses none even there.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
from typing import Protocol

assert sys.platform != "win32"  # see the package; a type checker reads no further there

_STDIN = 0

_LINES = termios.ICANON | termios.ECHO
"""The flags of a terminal that gives out lines, and shows what is typed."""

_MOMENT = 0.1
"""Seconds in which somebody else may take a line that was typed."""

_STEP = 0.005
"""Seconds after which it is looked again whether somebody has."""


class _Arrivals(Protocol):
    """What an epoll object is here; there is none outside of Linux."""

    def fileno(self) -> int: ...

    def poll(self, timeout: float) -> object: ...


def reads_keys() -> bool:
    """Whether somebody of this process group has the terminal give out each key, or show none."""
    try:
        flags = termios.tcgetattr(_STDIN)[3]
        return flags & _LINES != _LINES and os.tcgetpgrp(_STDIN) == os.getpgrp()
    except (termios.error, OSError):
        return False


class Terminal:
    """See the module. Without a terminal it does nothing."""

    def __init__(self) -> None:
        self._own = -1
        self._arrivals: _Arrivals | None = None
        try:
            self._settings = termios.tcgetattr(_STDIN)
            self._is_there = True
        except (termios.error, OSError):
            self._is_there = False

    def restore(self, *, unless_taken: bool = False) -> None:
        """Put the settings back, also from the background.

        Args:
            unless_taken: not when a shell has taken the terminal back: it has settings of its own.
        """
        if not self._is_there or (unless_taken and not self._is_foreground()):
            return
        # Without this a process that is not in the foreground would be stopped by the call.
        ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, self._settings)
        except (termios.error, OSError):
            pass  # the terminal is gone
        finally:
            signal.signal(signal.SIGTTOU, ignored)

    def _is_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(_STDIN) == os.getpgrp()
        except OSError:
            return False

    def hung_up(self) -> bool:
        """Whether there was a terminal and it is gone."""
        if not self._is_there:
            return False
        try:
            termios.tcgetattr(_STDIN)
        except (termios.error, OSError):
            return True
        return False

    def keys(self) -> int | None:
        """The descriptor to wait for until there may be lines; None when nobody can type any."""
        if not self._is_there:
            return None
        if self._own < 0:
            try:
                # Not stdin itself, which the application shares: there, not to block would be for all.
                self._own = os.open("/dev/tty", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            except OSError:
                return None  # stdin is a terminal, but not ours
            if sys.platform == "linux":
                # Tells of each arrival once. Else what is left for another would wake us without end.
                self._arrivals = select.epoll()
                self._arrivals.register(_STDIN, select.EPOLLIN | select.EPOLLET)
        return _STDIN if self._arrivals is None else self._arrivals.fileno()

    def read_lines(self) -> list[str] | None:
        """The lines that were typed for us, without their ends; None at the end of file."""
        if self._arrivals is not None:
            self._arrivals.poll(0)
        lines: list[str] = []
        try:
            end = time.monotonic() + _MOMENT
            while self._is_ours() and self._is_waiting() and time.monotonic() < end:
                time.sleep(_STEP)
            while self._is_ours():
                data = os.read(self._own, 1024)
                if not data:
                    return None
                lines.append(data.decode("utf-8", "replace").strip())
        except BlockingIOError:
            pass
        except (termios.error, OSError):
            return None
        return lines

    def _is_waiting(self) -> bool:
        """Whether a line has been typed that nobody has read."""
        return bool(select.select([self._own], [], [], 0)[0])

    def _is_ours(self) -> bool:
        """Whether what is typed now may be for us.

        It is not when we are in the background, when a program reads characters and not lines, or when
        one asks for a password.
        """
        flags, before = termios.tcgetattr(_STDIN)[3], self._settings[3]
        asks = (flags ^ before) & termios.ECHO
        return bool(self._is_foreground() and flags & termios.ICANON and not asks)
