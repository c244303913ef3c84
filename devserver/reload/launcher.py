"""Makes children: one call, whether a process is new or was waiting.

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
import signal
import site
import socket
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from devserver.origin import environ_for_another
from devserver.process import RUN_MAIN, Child, spawn
from devserver.process.control import Closed
from devserver.process.standing import Standing, ask
from devserver.reload import protocol
from devserver.reload.prompt import debugged
from devserver.reload.protocol import APP
from devserver.watching.watchset import here


class Spawned:
    """A child and what the supervisor remembers of it.

    Attributes:
        role: APP or PAGE.
        generation: running number of the application's loads; a page has that of its failure.
        began: when it was told its role, on `time.monotonic`.
        loaded, serving, failed: what it has said.
        told: it was told to serve: from then on it reads messages.
        exited: the process is gone.
        kill_at: when it is killed, on `time.monotonic`; None while it is not retired.
        judges: its application wants to say itself what a change means.
        unjudged: so many changes it has not answered yet.
        at: what it said last that it would read.
        resumed: it goes on from a checkpoint.
    """

    def __init__(self, child: Child, crash: int) -> None:
        self.child = child
        self.role = ""
        self.generation = 0
        self.began = 0.0
        self.loaded = False
        self.told = False
        self.serving = False
        self.failed = False
        self.judges = False
        self.unjudged = 0
        self.exited = False
        self.kill_at: float | None = None
        self.at = ""
        self.resumed = False
        self._crash = crash

    def copied(self, child: Child) -> Spawned:
        """What a copy is that this process has made of itself."""
        copy = Spawned(child, os.dup(self._crash) if self._crash >= 0 else -1)
        copy.role, copy.generation, copy.began, copy.at = self.role, self.generation, self.began, self.at
        return copy

    def tell(self, word: protocol.Told, fds: Sequence[int] = ()) -> bool:
        """Tell it something; whether that could be sent. A child that is gone is known by its exit."""
        try:
            self.child.channel.send(protocol.encode(word), fds)
        except Closed:
            return False
        return True

    def ask(self, paths: list[str]) -> bool:
        """Ask what a change means to the application; whether that could be sent."""
        self.unjudged += 1
        return self.tell(protocol.Judge(paths))

    def answered(self) -> bool:
        """Note an answer to `ask`; whether no other is awaited."""
        self.unjudged -= 1
        return not self.unjudged

    def boot(self, word: protocol.Boot, generation: int, sockets: Sequence[socket.socket]) -> None:
        """Tell it what to be."""
        self.role, self.generation, self.began = word.role, generation, time.monotonic()
        shared: list[Any] = list(sockets)
        if self._crash >= 0:
            shared.append(_Descriptor(self._crash))
        try:
            self.child.send_listeners({**protocol.encode(word), "crash": self._crash >= 0}, shared)
        except Closed:
            pass  # it died at once, which its exit reports

    def last_words(self) -> str:
        """What a fatal signal made the process say; to be asked once, when it is gone."""
        if sys.platform == "win32" or self._crash < 0:
            return ""
        fd, self._crash = self._crash, -1
        try:
            return os.pread(fd, 65536, 0).decode("utf-8", "replace")
        finally:
            os.close(fd)

    def stands(self, ours: Collection[int]) -> Standing:
        """Where it stands. Args: ours: inodes of the sockets that it was given."""
        return ask(self.child.pid, self._crash, ours)

    def discard(self) -> None:
        """End a process that is of no more use, and let go of it."""
        self.child.kill()
        self.child.wait()
        self.last_words()
        self.child.close()


class Launcher:
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
        self.spare: Spawned | None = None
        self._packages: object = None
        self._folder = os.getcwd()

    def launch(self, role: str) -> Spawned:
        """A process that waits for its boot message.

        Raises:
            OSError: none can be started.
        """
        spare, self.spare = self.spare, None
        if spare is not None:
            if spare.child.exit_code() is None and self._packages == _installed():
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

    def _start(self, argv: list[str]) -> Spawned:
        # A debugger tells by variables what it is to be in the processes that this one starts.
        repeats = self._repeats and not debugged()
        began = environ_for_another(os.environ) if repeats else dict(os.environ)
        environ = {**began, RUN_MAIN: "true", "RUN_MAIN": "true", "WERKZEUG_RUN_MAIN": "true"}
        if not here():
            with suppress(OSError):  # unless it has been made anew since
                os.chdir(self._folder)
        child = spawn(argv, environ)
        return Spawned(child, _crash_file())


class _Descriptor:
    """A descriptor that can be sent like a socket."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


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


def describe_exit(code: int) -> str:
    """What an exit code says, as the end of a sentence about a process."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
