"""A program in a process group of its own, with what it prints. Linux and macOS.

The terminal's Ctrl-C goes to the foreground's group, so not to this one: whoever has started it ends it, once
and when its time has come. It stays in our session, where the guardian finds it, but gives up the session's
terminal: the kernel would stop it without a word when it asks for a password there (SIGTTIN), and what it
changed of the terminal's settings would be changed for us, too. So /dev/tty cannot be opened, and it says so.

Standard input is a pipe that nobody writes to, and that ends with us. Programs that watch files (esbuild,
tailwindcss, postcss) end with their standard input, so as not to be left behind; with /dev/null they would
end at once. What it prints comes through a pipe or, for who wants colours, through a pseudo-terminal: most
programs print colours, and lines as they are complete, only to a terminal.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from devserver import procfs
from devserver.process.control import TAG
from devserver.process.limits import raise_limit, set_limit
from devserver.process.posix import exit_descriptor, first_limit

assert sys.platform != "win32"  # see the package; a type checker reads no further there

PROGRAM = "DEVSERVER_PROGRAM"
"""Environment variable with the name of the program, which whatever it starts inherits."""

_ROWS = 24


class Group:
    """See the module.

    Attributes:
        pid: of the program that was started.
        output: a descriptor that is readable when something was printed.
    """

    def __init__(
        self, command: str | Sequence[str], folder: str, environ: Mapping[str, str], columns: int | None
    ) -> None:
        """
        Args:
            command: text for the shell, or a program and its arguments.
            folder: that it is started in.
            environ: its environment, with PROGRAM.
            columns: those of the terminal that it prints to; None: it prints to a pipe.

        Raises:
            OSError: it cannot be started; `filename` is what is missing.
        """
        self.output, theirs = os.pipe() if columns is None else _terminal(columns)
        silence, self._input = os.pipe()
        try:
            with _own_limit():
                self._process = subprocess.Popen(
                    command,
                    shell=isinstance(command, str),
                    cwd=folder,
                    env=environ,
                    stdin=silence,
                    stdout=theirs,
                    stderr=theirs,
                    process_group=0,
                    # Not amid a debugger's threads: nobody lets go of what they held while we were copied.
                    preexec_fn=None if "pydevd" in sys.modules else _give_up_terminal,
                )
        except OSError:
            os.close(self.output)
            os.close(self._input)
            raise
        finally:
            os.close(theirs)
            os.close(silence)
        os.set_blocking(self.output, False)
        self.pid = self._process.pid
        self._exit = exit_descriptor(self._process)
        tag = environ.get(TAG)
        self._marks = {f"{TAG}={tag}", f"{PROGRAM}={environ[PROGRAM]}"} if tag else set[str]()

    def fileno(self) -> int:
        """For a selector: readable when the program has exited."""
        return self._exit

    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    def read(self, most: int) -> bytes | None:
        """What was printed, up to so many bytes; b"" at its end, None if there is nothing now."""
        try:
            return os.read(self.output, most)
        except BlockingIOError:
            return None
        except OSError:  # EIO: nobody has the terminal's other end any more
            return b""

    def orphans(self) -> set[int]:
        """What it has started whose parents have ended, so that they are our children. Linux."""
        return {pid for pid in procfs.children() if pid != self.pid and self._is_marked(pid)}

    def lives(self) -> bool:
        """Whether any process is left, the program or what it has started."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return any(True for _ in self._scattered())
        except PermissionError:
            pass  # another user's, by sudo
        return True

    def interrupt(self) -> None:
        """Ask all to end by SIGINT, as Ctrl-C does it."""
        self._signal(signal.SIGINT)

    def terminate(self) -> None:
        """Ask all to end by SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End all, those too that have left the group and not the session. What is another user's is left."""
        self._signal(signal.SIGKILL)
        for pid in self._scattered():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of what belongs to a program that has exited."""
        for fd in (self.output, self._input, self._exit):
            os.close(fd)

    def _signal(self, signum: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def _scattered(self) -> Iterator[int]:
        """What it has started that is in another group of our session. Linux; elsewhere it is not found."""
        session = os.getsid(0)
        for pid in procfs.pids() if self._marks else ():
            try:
                near = os.getsid(pid) == session and os.getpgid(pid) != self.pid
            except OSError:
                continue  # ended meanwhile
            if near and self._is_marked(pid):
                yield pid

    def _is_marked(self, pid: int) -> bool:
        return bool(self._marks) and self._marks <= {*procfs.words(pid, "environ")}


def _terminal(columns: int) -> tuple[int, int]:
    """Both ends of a pseudo-terminal that passes bytes on as they are; it controls nobody."""
    ours, theirs = os.openpty()
    flags = termios.tcgetattr(theirs)
    flags[1] &= ~termios.OPOST
    flags[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, flags)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    return ours, theirs


def _give_up_terminal() -> None:
    """Have no controlling terminal any more, in a process that leads no session: tty_ioctl(4)."""
    with suppress(OSError):  # there is none
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        with suppress(OSError):
            fcntl.ioctl(fd, termios.TIOCNOTTY)
        os.close(fd)


@contextmanager
def _own_limit() -> Iterator[None]:
    """Have the limit of descriptors for a moment that we were started with; see `limits`."""
    set_limit(first_limit())
    try:
        yield
    finally:
        raise_limit()
