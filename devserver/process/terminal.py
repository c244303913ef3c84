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
from typing import Any, Protocol

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
        self._is_new = True
        self._arrivals: _Arrivals | None = None
        self._settings: list[Any] | None = None
        try:
            termios.tcgetattr(_STDIN)
            self._is_there = True
        except (termios.error, OSError):
            self._is_there = False
        self._learn()

    def _learn(self) -> None:
        """Note how the terminal was given to us.

        Who is started in the background finds it as the shell has it to edit a line. What is ours is known
        when it comes to the foreground, if it is in order then.
        """
        if self._settings is None and self._is_there and self._is_foreground():
            settings = termios.tcgetattr(_STDIN)
            if settings[3] & _LINES == _LINES or self._is_new:
                self._settings = settings
        self._is_new = False

    def restore(self) -> None:
        """Put the settings back, unless a shell has taken the terminal: it has settings of its own."""
        if not self._is_there or self._is_taken():
            return
        self._learn()
        settings = _in_order() if self._settings is None else self._settings
        # Without this a process that is not in the foreground would be stopped by the call.
        ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, settings)
        except (termios.error, OSError):
            pass  # the terminal is gone
        finally:
            signal.signal(signal.SIGTTOU, ignored)

    def _is_taken(self) -> bool:
        """Whether the terminal belongs to processes of another group, and these live."""
        try:
            group = os.tcgetpgrp(_STDIN)
            if group == os.getpgrp():
                return False
            os.killpg(group, 0)
        except PermissionError:
            return True
        except OSError:
            return False
        return True

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
        self._learn()
        flags = termios.tcgetattr(_STDIN)[3]
        if self._settings is None or not self._is_foreground() or not flags & termios.ICANON:
            return False
        asks = (flags ^ self._settings[3]) & termios.ECHO
        return not asks


def _in_order() -> list[Any]:
    """The settings of the terminal as they are, with what it takes to type lines into it: `stty sane`."""
    settings = termios.tcgetattr(_STDIN)
    settings[0] |= termios.BRKINT | termios.ICRNL | termios.IXON
    settings[1] |= termios.OPOST | termios.ONLCR
    settings[3] |= _LINES | termios.ISIG | termios.IEXTEN | termios.ECHOE | termios.ECHOK
    return settings
