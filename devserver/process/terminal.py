"""The terminal that a supervisor was started from: its settings, and lines typed into it.

It is never put into raw mode, so there is nothing to restore but what an application changed: a
debugger or a line editor that is killed leaves a terminal without echo.
"""

from __future__ import annotations

import os
import signal
import sys
import termios

assert sys.platform != "win32"  # see the package; a type checker reads no further there

_STDIN = 0


class Terminal:
    """See the module. Without a terminal it does nothing."""

    def __init__(self) -> None:
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
        """The descriptor that lines can be read from; None when nobody can type any."""
        return _STDIN if self._is_there else None

    def read_key(self) -> str | None:
        """The line that was typed; None at the end of file, "" when it is not for us.

        It is not when we are in the background, or when a program reads characters and not lines:
        then what was typed is left where it is.
        """
        try:
            if not self._is_foreground() or not termios.tcgetattr(_STDIN)[3] & termios.ICANON:
                return ""
            data = os.read(_STDIN, 1024)
        except (termios.error, OSError):
            return None
        return data.decode("utf-8", "replace").strip() if data else None
