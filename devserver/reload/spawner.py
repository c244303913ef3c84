"""Spawns children: one call, whether a process is new or was waiting.

A *spare* is a child that was started ahead of time: an interpreter with the same arguments that has
imported what is ours and reads its boot message, with no user code in it. The next child is the
spare, so that a restart does not wait for an interpreter to start. It is used once, and thrown away
when the installed packages have changed since it was started (what it has imported, or where it
would look, may be another then). Where restarts are warm none is made ahead: the first checkpoint
is in its place.

Knows neither when a child is wanted nor what becomes of it.
"""

from __future__ import annotations

import os
import site
import sys
from contextlib import suppress

from devserver.origin import environ_for_another, folder_at_start
from devserver.process import RUN_MAIN, spawn
from devserver.process.prompt import debugged
from devserver.reload.child import Child
from devserver.reload.protocol import APP
from devserver.watching.watchset import here


class Spawner:
    """Starts children for a program.

    Attributes:
        spare: the one that waits for its role, if there is one.
        is_clean: a child runs none of the user's code before it is told its role.
    """

    def __init__(self, argv: list[str], page_argv: list[str], *, spare: bool, repeats: bool = True) -> None:
        """
        Args:
            argv: how this program was started, and how a child is.
            page_argv: how a child is started that holds no user code.
            spare: whether a process started by `argv` runs none of the user's code before it reads
                its boot message: true for the command line, not for a script that calls `run`.
            repeats: whether it does by itself to its environment what was done to this one's.
        """
        self._repeats = repeats
        self._argv = argv
        self._page_argv = page_argv
        self.is_clean = spare
        self.spare: Child | None = None
        self._packages: object = None
        self._folder = os.getcwd()
        self._began_in = folder_at_start()

    def launch(self, role: str) -> Child:
        """A process that waits for its boot message.

        Raises:
            OSError: none can be started.
        """
        spare, self.spare = self.spare, None
        if spare is not None:
            if spare.process.exit_code() is None and self._packages == _installed():
                return spare
            spare.discard()
        if role == APP:
            self._packages = _installed()
        return self._start(self._argv if role == APP else self._page_argv)

    def begin(self) -> None:
        """Start the first child, ahead of its `launch`: it is certain to be wanted."""
        self._packages = _installed()
        with suppress(OSError):  # `launch` will say it
            self.spare = self._start(self._argv)

    def prepare(self) -> None:
        """Have a spare started, unless there is one."""
        if self.is_clean and self.spare is None:
            self.begin()

    def outdated(self) -> bool:
        """Whether packages were installed or removed since a process was started."""
        return self._packages != _installed()

    def close(self) -> None:
        """End the spare."""
        if self.spare is not None:
            self.spare.discard()
            self.spare = None

    def _start(self, argv: list[str]) -> Child:
        # A debugger tells by variables what it is to be in the processes that this one starts.
        repeats = self._repeats and not debugged()
        began = environ_for_another(os.environ) if repeats else dict(os.environ)
        environ = {**began, RUN_MAIN: "true", "RUN_MAIN": "true", "WERKZEUG_RUN_MAIN": "true"}
        if not here():
            with suppress(OSError):  # unless it has been made anew since
                os.chdir(self._folder)
        return Child(spawn(argv, environ, self._began_in), _crash_file())


def _installed() -> list[int]:
    """Something that changes when packages are installed or removed."""
    times = []
    for folder in (*getattr(site, "getsitepackages", list)(), site.getusersitepackages()):
        try:
            times.append(os.stat(folder).st_mtime_ns)
        except OSError:
            times.append(0)
    return times


def _crash_file() -> int:
    """A file in memory for the last words of a process; -1 where there is no such thing."""
    if sys.platform == "linux":
        import fcntl  # there is none on Windows

        try:
            fd = os.memfd_create("devserver-crash")
        except OSError:
            return -1
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)  # what was read of it is taken out
        return fd
    return -1
