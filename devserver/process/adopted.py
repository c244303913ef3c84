"""Children that nobody has spawned: a child has made them, and left them to us when it ended. Linux."""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress

from devserver.process.control import QueueingChannel
from devserver.process.posix import Process

assert sys.platform == "linux"  # a type checker reads no further elsewhere


class Adopted(Process):
    """A process that a child has made, and that has become our own when its maker ended. Linux."""

    def __init__(self, pid: int, channel: QueueingChannel) -> None:
        self.pid = pid
        self.channel = channel
        self._exit = os.pidfd_open(pid)
        self._code: int | None = None

    def exit_code(self) -> int | None:
        """See `Process.exit_code`."""
        if self._code is None:
            self._wait(os.WNOHANG)
        return self._code

    def wait(self) -> int:
        """See `Process.wait`."""
        ended = select.poll()
        ended.register(self._exit, select.POLLIN)
        ended.poll()
        while self._code is None:
            self._wait(0)
        return self._code

    def _wait(self, options: int) -> None:
        try:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        except ChildProcessError:  # its maker has not ended yet
            try:
                signal.pidfd_send_signal(self._exit, 0)
            except ProcessLookupError:
                # It has ended, and nothing is left of it: the maker, which ignores SIGCHLD as the application
                # wants, has taken the code along. Only we end a copy before its maker has ended.
                self._code = -signal.SIGKILL

    def terminate(self) -> None:
        """See `Process.terminate`."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """See `Process.kill`."""
        self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._exit, signum)
