"""What an application leaves behind: the programs that it started.

Two cases. When a generation ends and the supervisor lives, the supervisor, as a *subreaper*
(prctl(2)), has become the parent of whatever the generation had started, and ends it. When the
supervisor itself is killed, nobody of its own could do that; so at its start it makes a *guardian*,
which does nothing but wait for the end of a pipe, and then ends everything that carries the
supervisor's tag. Programs have it in their environment. In /proc a copy of the supervisor, as a worker is,
has the environment with which the supervisor was started; but it has a file open that is named so. The
guardian is forked, which costs nothing; but a process that has threads, as under a debugger, cannot safely
fork, and starts an interpreter for it.

Only processes of our own session are ended. One that made a session of its own wanted to be
left alone: a browser that the application opened, a daemon. And only what a generation has started: a shell
that began another program and then became this one has left us a child that is none of our business.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from functools import partial
from typing import NoReturn

from devserver import procfs
from devserver.cpython import CAN_SPAWN
from devserver.process.control import TAG
from devserver.process.reactor import Reactor

assert sys.platform != "win32"  # see the package; a type checker reads no further there

_PR_SET_CHILD_SUBREAPER = 36
_GRACE = 1.0
"""Seconds in which processes may end by themselves after their supervisor was killed."""

_POLL = 0.05
_TRACKER = "resource_tracker"
"""In the command line of `multiprocessing`'s, and of joblib's."""

_UNHEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a guardian outlives: it is sent to every process of a terminal, or by an IDE."""

_PROGRAM = """
import sys
sys.path.append(sys.argv[1])
from devserver.process import Terminal
from devserver.process.orphans import stand_guard
terminal = Terminal()
stand_guard(int(sys.argv[2]), sys.argv[3], terminal.restore)
"""


class Orphans:
    """The orphans of a supervisor's children. Linux; elsewhere it finds none."""

    def __init__(self) -> None:
        self._session = os.getsid(0)
        if sys.platform == "linux":
            import ctypes  # loaded by the watcher, too

            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def attend(self, reactor: Reactor) -> None:
        """Have the guardian replaced when somebody has killed it."""
        if sys.platform == "linux" and hasattr(os, "pidfd_open"):
            for guardian in _guardians:
                with suppress(OSError):
                    fd = os.pidfd_open(guardian.pid)
                    reactor.add(fd, partial(self._replace, guardian, fd, reactor))

    def _replace(self, guardian: _Guardian, fd: int, reactor: Reactor) -> None:
        reactor.remove(fd)
        os.close(fd)
        with suppress(OSError):  # no process can be started, and there is nobody to tell
            guardian.tend()
            self.attend(reactor)

    def end(self, ours: Callable[[], Set[int]] = frozenset) -> set[int]:
        """Kill the children that we inherited and that share our session.

        Args:
            ours: our own children's process ids; asked after looking who is there.

        Returns:
            Those that are at removing what the dead have left in the system, and end then: the resource
            trackers of `multiprocessing`. Killed, they would leave shared memory behind.
        """
        seen = _before | {guardian.pid for guardian in _guardians}
        trackers = set[int]()
        # The children of those that are killed are ours next.
        while orphans := (found := procfs.children() - seen) and found - ours():
            for pid in orphans:
                try:
                    near = self._is_near(pid)
                    if near and _is_tracker(pid):
                        trackers.add(pid)
                        near = False
                    near = near and _kill(pid)
                    os.waitpid(pid, 0 if near else os.WNOHANG)
                except (ProcessLookupError, ChildProcessError):
                    pass  # ended meanwhile
            seen |= orphans
        return trackers

    def reap(self, ours: Callable[[], Set[int]]) -> None:
        """Take the exit codes of inherited children that have ended, while a generation goes on.

        Args:
            ours: see `end`.
        """
        known = _before | {guardian.pid for guardian in _guardians}
        if found := procfs.children() - known:
            for pid in found - ours():
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _is_near(self, pid: int) -> bool:
        """Whether a generation has started it. Where others were here before us, by what it inherited."""
        if os.getsid(pid) != self._session:
            return False
        return not _before or _carries(pid, os.environ.get(TAG, ""))


def await_end(pids: Set[int], seconds: float = _GRACE) -> None:
    """Wait until children of this process have ended, for a bounded time."""
    end = time.monotonic() + seconds
    for pid in pids:
        with suppress(ChildProcessError):
            while not os.waitpid(pid, os.WNOHANG)[0] and time.monotonic() < end:
                time.sleep(_POLL / 10)


def _is_tracker(pid: int) -> bool:
    return any(_TRACKER in word for word in procfs.words(pid, "cmdline"))


_before: set[int] = set()
"""Children that this process had before it supervised anything."""

_guardians: list[_Guardian] = []
"""The one that there is, if there is one."""


@contextmanager
def guard(restore: Callable[[], None]) -> Iterator[None]:
    """Have everything below this process end with it, however it ends.

    Linux; elsewhere, only our own children notice the end.

    Args:
        restore: called by the guardian when it has ended everything: puts the terminal in order.
            One that could not be forked does the like with a `Terminal` of its own.
    """
    if sys.platform != "linux" or not (is_single() or CAN_SPAWN):
        yield
        return
    _before.update(procfs.children())
    guardian = _Guardian(restore)
    _guardians.append(guardian)
    os.environ[TAG] = guardian.tag
    try:
        yield
    finally:
        _guardians.remove(guardian)
        guardian.end()
        del os.environ[TAG]


def let_go() -> None:
    """In a copy of a guarded process: not to be what the guardian waits for the end of."""
    for guardian in _guardians:
        guardian.let_go()


class _Guardian:
    """A guardian, and another one when that is killed.

    Attributes:
        pid: its process id.
        tag: what it will end has it in its environment.
    """

    def __init__(self, restore: Callable[[], None]) -> None:
        self.tag = f"{os.getpid()}-{os.urandom(8).hex()}"
        self._restore = restore
        self._mark = _mark(self.tag)
        self._write = -1
        self.pid = self._begin()

    def _begin(self) -> int:
        read, write = os.pipe()
        try:
            tag = self.tag
            pid = _fork(read, write, tag, self._restore) if is_single() else _start(read, tag)
        except OSError:
            os.close(write)
            raise
        finally:
            os.close(read)
        if self._write >= 0:
            os.close(self._write)
        self._write = write
        return pid

    def tend(self) -> None:
        """Have another one if it was killed.

        Raises:
            OSError: no process can be started.
        """
        if os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = self._begin()

    def let_go(self) -> None:
        """In a copy of the guarded process: close its end of the pipe."""
        os.close(self._write)

    def end(self) -> None:
        """There is nothing left for it to do."""
        os.close(self._write)
        if self._mark >= 0:
            os.close(self._mark)
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def is_single() -> bool:
    """Whether this process has one thread, and may fork.

    Not by `threading.active_count`, from which debuggers hide their threads; and not by the kernel's count,
    in which are those of numerical libraries, which do no harm.
    """
    return len(sys._current_frames()) == 1


def _fork(read: int, write: int, tag: str, restore: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        os.close(write)
        stand_guard(read, tag, restore)
    return pid


def _start(read: int, tag: str) -> int:
    # Not that of `os`: debuggers replace it by one that has the new process debugged.
    from posix import posix_spawn

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    os.set_inheritable(read, True)
    argv = [sys.executable, "-P", "-S", "-c", _PROGRAM, root, str(read), tag]
    return posix_spawn(sys.executable, argv, os.environ, setsigmask=_UNHEARD)


def stand_guard(read: int, tag: str, restore: Callable[[], None]) -> NoReturn:
    """A guardian's whole life. It never returns into the frames that it was forked from.

    Args:
        read: the end of a pipe whose other end is nobody's but the supervisor's.
        tag: what is to be ended has it in its environment.
        restore: see `guard`.
    """
    try:
        for signum in _UNHEARD:
            signal.signal(signum, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        # The listeners among them: a port must be free although a guardian lives.
        os.closerange(3, read)
        os.closerange(read + 1, os.sysconf("SC_OPEN_MAX"))
        os.read(read, 1)
        deadline = time.monotonic() + _GRACE
        while tagged(tag) and time.monotonic() < deadline:
            time.sleep(_POLL)
        deadline += _GRACE  # more than one look: what is killed may have been forking
        while (left := tagged(tag)) and time.monotonic() < deadline:
            # Trackers last: they remove what the others leave.
            for pid in [each for each in left if not _is_tracker(each)]:
                with suppress(ProcessLookupError):
                    _kill(pid)
            time.sleep(_POLL)
        for pid in left:
            with suppress(ProcessLookupError):
                _kill(pid)
        restore()
    finally:
        os._exit(0)


def _kill(pid: int) -> bool:
    """Whether that may be done: what has become another user's, by sudo say, is left."""
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return False
    return True


def _mark(tag: str) -> int:
    """A file in memory that is named by a tag, or -1. Copies of this process inherit it, programs do not."""
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        with suppress(OSError):  # a sandbox forbids it
            return os.memfd_create(tag)
    return -1


def _carries(pid: int, tag: str) -> bool:
    if f"{TAG}={tag}" in procfs.words(pid, "environ"):
        return True
    return any(f"/memfd:{tag} " in target for target in procfs.targets(pid))


def tagged(tag: str) -> list[int]:
    """Processes of our session that carry a tag, apart from this one."""
    session = os.getsid(0)
    found = []
    for pid in procfs.pids():
        try:
            if pid != os.getpid() and os.getsid(pid) == session and _carries(pid, tag):
                found.append(pid)
        except OSError:
            continue  # ended meanwhile
    return found
