"""A file with the id of this process, for scripts and managers that want to send it signals."""

from __future__ import annotations

import os
from contextlib import suppress

from devserver.errors import UsageError


class PidFile:
    """See the module."""

    def __init__(self, path: str | None) -> None:
        """Args: path: of the file; None for none."""
        self._path = path
        self._named: str | None = None  # another process's for the time being

    def write_beside(self) -> None:
        """Write it for a process that succeeds the one whose file this is: its own has `.2` at the end.

        Raises:
            UsageError: it cannot be written.
        """
        if self._path is not None:
            self._named, self._path = self._path, f"{self._path}.2"
            self.write()

    def succeed(self) -> None:
        """The other process has ended: this one's is the file by its name from now on."""
        if self._path is not None and self._named is not None:
            with suppress(OSError):  # its folder is gone
                os.replace(self._path, self._named)
            self._path, self._named = self._named, None

    def write(self) -> None:
        """Write it.

        Raises:
            UsageError: it cannot be written, or names a process that lives.
        """
        if self._path is None:
            return
        other = self._read()
        if other and other != os.getpid() and _lives(other):
            raise UsageError(
                f"--pidfile {self._path}: process {other} runs, whose file that is; end it first"
            )
        try:
            with open(self._path, "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
        except OSError as error:
            raise UsageError(f"--pidfile {self._path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Remove it, unless another process has written into it."""
        if self._path is not None and self._read() == os.getpid():
            with suppress(OSError):
                os.unlink(self._path)

    def _read(self) -> int:
        try:
            with open(self._path or "", encoding="ascii") as file:
                return int(file.read(32))
        except (OSError, ValueError):
            return 0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
