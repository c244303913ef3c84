"""What an application leaves behind: the programs that it started.

Two cases. When a generation ends and the supervisor lives, the supervisor, as a *subreaper*
(prctl(2)), has become the parent of whatever the generation had started, and ends it. When the
supervisor itself is killed, nobody of its own could do that; so at its start it forks a *guardian*,
which does nothing but wait for the end of a pipe, and then ends everything that carries the
supervisor's mark in its environment.

Only processes of our own session are ended. One that made a session of its own wanted to be
left alone: a browser that the application opened, a daemon.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

assert sys.platform != "win32"  # see the package; a type checker reads no further there

MARK = "DEVSERVER_TREE"
"""Environment variable that everything below a supervisor inherits."""

_PR_SET_CHILD_SUBREAPER = 36
_GRACE = 1.0
"""Seconds in which processes may end by themselves after their supervisor was killed."""

_POLL = 0.05


class Kin:
    """The orphans of a supervisor's children. Linux; elsewhere it finds none."""

    def __init__(self) -> None:
        self._children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
        self._session = os.getsid(0)
        if sys.platform == "linux":
            import ctypes  # loaded by the watcher, too

            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def end(self, apart_from: Set[int] = frozenset()) -> None:
        """Kill the children that we inherited and that share our session.

        Args:
            apart_from: our own children's process ids.
        """
        seen = set(apart_from) | _guardians
        while orphans := self._inherited() - seen:  # the children of those that are killed are ours next
            for pid in orphans:
                try:
                    near = os.getsid(pid) == self._session
                    if near:
                        os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0 if near else os.WNOHANG)
                except (ProcessLookupError, ChildProcessError):
                    pass  # ended meanwhile
            seen |= orphans

    def _inherited(self) -> set[int]:
        try:
            return {int(pid) for pid in self._children.read_text().split()}
        except OSError:
            return set()


_guardians: set[int] = set()


@contextmanager
def guard(restore: Callable[[], None]) -> Iterator[None]:
    """Have everything below this process end with it, however it ends.

    Args:
        restore: called by the guardian when it has ended everything: puts the terminal in order.

    Where this process has threads it cannot safely fork; then only its own children notice its end.
    """
    os.environ[MARK] = f"{os.getpid()}-{secrets.token_hex(8)}"
    # Not `threading.active_count`, from which debuggers hide their threads; and not the kernel's count,
    # in which are those of numerical libraries, which do no harm.
    if sys.platform != "linux" or len(sys._current_frames()) > 1:
        yield
        return
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        _stand_guard(read, os.environ[MARK], restore)
    os.close(read)
    _guardians.add(pid)
    try:
        yield
    finally:
        os.close(write)
        _guardians.discard(pid)
        os.kill(pid, signal.SIGKILL)  # nothing is left for it to do
        os.waitpid(pid, 0)
        del os.environ[MARK]


def _stand_guard(read: int, mark: str, restore: Callable[[], None]) -> None:
    """The guardian's whole life. It never returns into the frames that it was forked from."""
    try:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        # The listeners among them: a port must be free although a guardian lives.
        os.closerange(3, read)
        os.closerange(read + 1, os.sysconf("SC_OPEN_MAX"))
        os.read(read, 1)
        deadline = time.monotonic() + _GRACE
        while marked(mark) and time.monotonic() < deadline:
            time.sleep(_POLL)
        for pid in marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        restore()
    finally:
        os._exit(0)


def marked(mark: str) -> list[int]:
    """Processes of our session that have a mark in their environment, apart from this one."""
    wanted = f"{MARK}={mark}".encode()
    session = os.getsid(0)
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            pid = int(entry.name)
            near = pid != os.getpid() and os.getsid(pid) == session
            if near and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(pid)
        except (OSError, ValueError):
            continue  # ended meanwhile, or another user's
    return found
