"""A devserver process that was started from a terminal: a pseudo-terminal is its keyboard and its screen."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.live.process import DevServer
from tests.patience import DEADLINE

# A shell as far as signals and terminals go: leader of the session, with the server as its foreground job.
# It lives as long as the test, since a terminal forgets its settings when the session's leader ends.
SHELL = """
import fcntl, os, signal, sys, termios
terminal, life, report = map(int, sys.argv[1:4])
os.setsid()
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
for stream in range(3):
    os.dup2(terminal, stream)
os.close(terminal)
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[4], sys.argv[4:])
signal.signal(signal.SIGHUP, lambda *_: os.killpg(pid, signal.SIGHUP))
os.write(report, b"%d " % pid)
os.write(report, b"%d " % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os.read(life, 1)
"""


class OnTerminal(DevServer):
    """See the module.

    Attributes:
        master: the terminal's other end, where its user sits.
        process: the shell; the server is `supervisor`.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        program: Sequence[str] = (sys.executable, "-m", "devserver"),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Args: program: what is the terminal's foreground job, before the arguments."""
        self.master, slave = os.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        life, self._life = os.pipe()
        self._report, report = os.pipe()
        self._inherited = [slave, life, report]
        shell = [sys.executable, "-c", SHELL, *map(str, self._inherited), *program]
        super().__init__(*arguments, cwd=cwd, command=shell, env=env, pass_fds=self._inherited)
        self._screen = b""
        self._seen_of_screen = 0
        self._more_came = threading.Condition()
        self._closed, self._close = os.pipe()
        self._status: int | None = None

    def __enter__(self) -> OnTerminal:
        super().__enter__()
        for fd in self._inherited:
            os.close(fd)
        self._pid = self._number(DEADLINE)
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if error is None and self._status is None:
                self.stop()
        finally:
            os.close(self._life)
            super().__exit__(kind, error, where)
            self.hangs_up()
            os.close(self._report)

    def _number(self, deadline: float) -> int:
        """The next thing that the shell tells."""
        ready, _, _ = select.select([self._report], [], [], deadline)
        assert ready, f"the server did not end within {deadline} s\n{self.log}"
        return int(os.read(self._report, 100))

    @property
    def supervisor(self) -> int:
        """The server's process."""
        return self._pid

    def stop(self, signum: int = signal.SIGINT) -> int:
        """Send a signal to the supervisor alone, and wait. Returns the exit code."""
        os.kill(self.supervisor, signum)
        return self.ended()

    def ended(self, deadline: float = DEADLINE) -> int:
        """Wait for the end. Returns the exit code."""
        if self._status is None:
            self._status = self._number(deadline)
        return self._status

    def hangs_up(self) -> None:
        """Close the terminal's window."""
        if self.master >= 0:
            os.close(self._close)
            self._thread.join()  # as long as somebody reads the descriptor, closing it is no hang-up
            os.close(self._closed)
            os.close(self.master)
            self.master = -1

    def _look(self) -> None:
        while self._closed not in select.select([self.master, self._closed], [], [])[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # nobody holds the terminal any more
                return
            with self._more_came:
                self._screen += data
                self._more_came.notify_all()

    @property
    def log(self) -> str:
        """Everything on the screen so far, typed keys included."""
        return self._screen.decode("utf-8", "replace")

    def reads(self, text: str) -> str:
        """Wait until a text stands on the screen, after the one waited for before.

        Returns what came before it.
        """
        end = time.monotonic() + DEADLINE
        with self._more_came:
            while (found := self._screen.find(text.encode(), self._seen_of_screen)) < 0:
                if not self._more_came.wait(end - time.monotonic()):
                    raise AssertionError(f"{text!r} was not written; the screen:\n{self.log}")
            before = self._screen[self._seen_of_screen : found]
            self._seen_of_screen = found + len(text)
        return before.decode("utf-8", "replace")

    def is_asked(self, text: str) -> None:
        """Wait for a question, and as long as a person needs at least before a key is pressed.

        A program that has asked and been preempted before its read has no claim to what comes sooner.
        """
        self.reads(text)
        self.idle(0.1)

    def types(self, keys: str) -> None:
        """Press keys; Enter is "\\n"."""
        os.write(self.master, keys.encode())

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, and gives it out by lines."""
        flags: int = termios.tcgetattr(self.master)[3]
        return flags & (termios.ECHO | termios.ICANON) == termios.ECHO | termios.ICANON
