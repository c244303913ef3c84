"""Children on Linux and macOS.

A child gets its channel as an inherited descriptor. The flag in the environment names descriptor
and inode: whatever the application starts inherits the flag, but not the descriptor, and is no
child of ours. It also says what limit of descriptors a child is to have (`limits`). The listeners
come over the channel, so that a process made by fork gets them the same way.

A child must not outlive its supervisor: the thread that reads the channel notices its end, and
what no thread can notice (a loop in C that holds the GIL) is ended by the guardian (`orphans`).
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache

from devserver.process.control import CONTROL, Channel, Message, QueueingChannel
from devserver.process.limits import raise_limit, set_limit
from devserver.process.signals import interrupts_held


class Process:
    """A process that was spawned, and the way to talk to it.

    Attributes:
        pid: its process id.
        channel: our end of the control channel; it never waits.
    """

    def __init__(self, process: subprocess.Popen[bytes], channel: QueueingChannel) -> None:
        self.pid = process.pid
        self.channel = channel
        self._process = process
        self._exit = exit_descriptor(process)

    def fileno(self) -> int:
        """For a selector: readable when the process has exited."""
        return self._exit

    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait until it has exited; used after `kill` only."""
        return self._process.wait()

    def terminate(self) -> None:
        """Ask it to end by SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it; it cannot refuse."""
        self._process.kill()

    def send_listeners(self, message: Message, sockets: Sequence[socket.socket]) -> None:
        """Send a message with duplicates of the listening sockets.

        Raises:
            devserver.process.control.Closed: it is gone.
        """
        self.channel.send(message, [sock.fileno() for sock in sockets])

    def close(self) -> None:
        """Let go of what belongs to a process that has exited."""
        self.channel.close()
        os.close(self._exit)


def exit_descriptor(process: subprocess.Popen[bytes]) -> int:
    """A descriptor that becomes readable when the process exits."""
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        return os.pidfd_open(process.pid)
    read, write = os.pipe()

    def wait() -> None:
        process.wait()
        os.close(write)

    threading.Thread(target=wait, name="devserver-wait", daemon=True).start()
    return read


@cache
def first_limit() -> int:
    """Raise our limit of descriptors, once. Returns what it was and is for children."""
    return raise_limit()


def spawn(argv: Sequence[str], environ: Mapping[str, str], cwd: str | None = None) -> Process:
    """Start a child with a control channel. SIGINT is blocked in it until it calls `leave_interrupts`.

    Args:
        argv: the program and its arguments.
        environ: the child's environment; where to find the channel is added.
        cwd: the folder that it begins in, if not in this process's.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    try:
        inode = os.fstat(theirs.fileno()).st_ino
        with interrupts_held():
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**environ, CONTROL: f"{theirs.fileno()}:{inode}:{first_limit()}"},
                pass_fds=(theirs.fileno(),),
            )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Process(process, QueueingChannel(ours))


def adopt() -> Channel | None:
    """The channel to the supervisor that spawned this process; None when there is none.

    An inherited flag proves nothing: the descriptor must be the very socket that it names.
    """
    named = os.environ.pop(CONTROL, "")
    try:
        fd, inode, limit = map(int, named.split(":"))
        status = os.fstat(fd)
    except (ValueError, OSError):
        return None
    if not stat.S_ISSOCK(status.st_mode) or status.st_ino != inode:
        return None
    os.set_inheritable(fd, False)
    set_limit(limit)
    return Channel(socket.socket(fileno=fd))


def listeners_from(message: Message, fds: Sequence[int]) -> list[socket.socket]:
    """The listening sockets that came with a message of `Process.send_listeners`."""
    return [socket.socket(fileno=fd) for fd in fds]
