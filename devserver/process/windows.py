"""Children on Windows; the same names as `posix`. Checked for types, not run.

There are no descriptors to inherit, so the child connects to a loopback port and shows a token.
Listening sockets are duplicated into the child by `socket.share`, as text within the message. A
thread waits for the end of the process and closes a socket, for the selector. A child notices the
end of its supervisor as the end of its channel.
"""

from __future__ import annotations

import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress

from devserver.process.control import CONTROL, Channel, Message, QueueingChannel
from devserver.process.reactor import Reactor

_CONNECT = 10.0
"""Seconds that a child has to connect."""


class Process:
    """See `posix.Process`."""

    def __init__(self, process: subprocess.Popen[bytes], channel: QueueingChannel) -> None:
        self.pid = process.pid
        self.channel = channel
        self._process = process
        self._exit, ended = socket.socketpair()

        def wait() -> None:
            process.wait()
            ended.close()

        threading.Thread(target=wait, name="devserver-wait", daemon=True).start()

    def fileno(self) -> int:
        """For a selector: readable when the process has exited."""
        return self._exit.fileno()

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait until it has exited."""
        return self._process.wait()

    def terminate(self) -> None:
        """There is no SIGTERM: the message on the channel has to do."""

    def kill(self) -> None:
        """End it; it cannot refuse."""
        self._process.kill()

    def send_listeners(self, message: Message, sockets: Sequence[socket.socket]) -> None:
        """Send a message with duplicates of the listening sockets."""
        if sys.platform == "win32":
            shared = [base64.b64encode(sock.share(self.pid)).decode("ascii") for sock in sockets]
            self.channel.send({**message, "sockets": shared})

    def close(self) -> None:
        """Let go of what belongs to a process that has exited."""
        self.channel.close()
        self._exit.close()


def spawn(argv: Sequence[str], environ: Mapping[str, str], cwd: str | None = None) -> Process:
    """See `posix.spawn`."""
    token = secrets.token_hex(16)
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(_CONNECT)
        environ = {**environ, CONTROL: f"{door.getsockname()[1]}:{token}"}
        process = subprocess.Popen(argv, cwd=cwd, env=environ)
        while True:
            connection, _ = door.accept()
            connection.settimeout(_CONNECT)
            if secrets.compare_digest(connection.recv(len(token)), token.encode("ascii")):
                return Process(process, QueueingChannel(connection))
            connection.close()


def adopt() -> Channel | None:
    """See `posix.adopt`."""
    port, _, token = os.environ.pop(CONTROL, "").partition(":")
    if not port.isdigit():
        return None
    try:
        connection = socket.create_connection(("127.0.0.1", int(port)), _CONNECT)
        connection.settimeout(None)
        connection.sendall(token.encode("ascii"))
    except OSError:
        return None  # an inherited flag: that supervisor waits for nobody any more
    return Channel(connection)


def listeners_from(message: Message, fds: Sequence[int]) -> list[socket.socket]:
    """See `posix.listeners_from`."""
    if sys.platform == "win32":
        return [socket.fromshare(base64.b64decode(share)) for share in message["sockets"]]
    return []


PROGRAM = "DEVSERVER_PROGRAM"
"""See `group.PROGRAM`."""


class Group:
    """See `group.Group`. A selector cannot wait for a pipe: a thread writes into a socket what comes from it.

    Whoever of the group has outlived our end is not found; it can notice that its standard input has ended.
    """

    def __init__(
        self, command: str | Sequence[str], folder: str, environ: Mapping[str, str], columns: int | None
    ) -> None:
        """See `group.Group`; `columns` only says whether colours are wanted."""
        if columns is not None:
            environ = {"FORCE_COLOR": "1", **environ}
        self._process = subprocess.Popen(
            command,
            shell=isinstance(command, str),
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self.pid = self._process.pid
        self.output, printed = socket.socketpair()
        self.output.setblocking(False)
        self._exit, ended = socket.socketpair()
        for work in (self._pass_on, self._wait):
            sock = printed if work == self._pass_on else ended
            threading.Thread(target=work, args=(sock,), name="devserver-wait", daemon=True).start()

    def _pass_on(self, sock: socket.socket) -> None:
        assert self._process.stdout is not None
        with sock, suppress(OSError):  # nobody reads any more
            while data := os.read(self._process.stdout.fileno(), 4096):
                sock.sendall(data)

    def _wait(self, sock: socket.socket) -> None:
        self._process.wait()
        sock.close()

    def fileno(self) -> int:
        """For a selector: readable when the program has exited."""
        return self._exit.fileno()

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def read(self, most: int) -> bytes | None:
        """See `group.Group.read`."""
        try:
            return self.output.recv(most)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def orphans(self) -> set[int]:
        """There are no orphans to inherit."""
        return set()

    def lives(self) -> bool:
        """Whether the program is left."""
        return self.exit_code() is None

    def interrupt(self) -> None:
        """Ask all to end by Ctrl-Break: a group of its own hears no Ctrl-C."""
        with suppress(OSError):
            self._process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))

    def terminate(self) -> None:
        """There is nothing firmer than `interrupt` that could be heeded."""

    def kill(self) -> None:
        """End it, and what it has started."""
        command = ["taskkill", "/F", "/T", "/PID", str(self.pid)]
        with suppress(OSError):
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def close(self) -> None:
        """Let go of what belongs to a program that has exited."""
        self.output.close()
        self._exit.close()
        if self._process.stdin is not None:
            self._process.stdin.close()


def reads_keys() -> bool:
    """A console has no such state that could be asked for."""
    return False


class Terminal:
    """See `terminal.Terminal`; a Windows console needs no restoring, and its keys are not read."""

    def restore(self) -> None:
        """Nothing to put back."""

    def hung_up(self) -> bool:
        """There is no SIGHUP that would ask."""
        return True

    def keys(self) -> int | None:
        """A selector cannot wait for a console."""
        return None

    def read_lines(self) -> list[str] | None:
        """Nothing can be typed."""
        return None


class Orphans:
    """See `orphans.Orphans`; there are no orphans to inherit."""

    def attend(self, reactor: Reactor) -> None:
        """Nobody to attend to."""

    def end(self, ours: Callable[[], Set[int]] = frozenset) -> set[int]:
        """Nothing to end."""
        return set()

    def reap(self, ours: Callable[[], Set[int]]) -> None:
        """Nothing stays as a zombie."""


def await_end(pids: Set[int], seconds: float = 1.0) -> None:
    """See `orphans.await_end`; there is nobody to wait for."""


@contextmanager
def guard(restore: Callable[[], None]) -> Iterator[None]:
    """See `orphans.guard`; children notice the end of their channel."""
    yield
