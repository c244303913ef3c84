"""A devserver process for tests: its log, its events, its requests.

Readiness comes from the event stream, which is a pipe: never from a port probe, never from a
sleep. Every wait has a deadline, and what is waited for in vain is reported with the log.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from devserver import procfs
from devserver.cpython import CAN_COPY
from tests.patience import DEADLINE

EACH = {"_DEVSERVER_CHECKPOINTS": "each"}
"""An environment in which a child leaves a checkpoint before each statement, whatever time has passed."""

MARKED = {"_DEVSERVER_CHECKPOINTS": "marked"}
"""One in which it does so at the start and where the latest edits were, and nowhere else."""

USUAL = "warm" if CAN_COPY else "cold"
"""The kind of restart that a change of a module causes here."""

ALL = ("--checkpoints", "99", "--checkpoint-memory", "99")
"""Options with which no checkpoint is given up for another."""


class Answer:
    """A response: `status`, `headers` (lower-case names), `text`."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode()


class UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DevServer:
    """Runs `python -m devserver` with the arguments in a folder, on a free port unless they say otherwise.

    Attributes:
        url, scheme, host, port, path: from the `listening` event; `path` is that of a Unix socket, else "".
        tls: what a client needs where the scheme is https.
        child: the process of the newest generation that has served.
        seen: every event so far.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        command: list[str] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        new_session: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """
        Args:
            command: what is run instead of `python -m devserver`; the arguments follow it all the same.
            env: variables in addition to our own.
            stdin: a descriptor.
            new_session: whether signals to the terminal's group are to be tried.
            pass_fds: descriptors that it inherits.
        """
        self._arguments = arguments
        self._cwd = cwd
        self._command = command or [sys.executable, "-m", "devserver"]
        self._env = {**os.environ, **(env or {})}
        self._stdin = stdin
        self._new_session = new_session
        self._pass_fds = pass_fds
        self._buffer = b""
        self._cursor = 0
        self.seen: list[dict[str, Any]] = []
        self.url = ""
        self.scheme = "http"
        self.tls: ssl.SSLContext | None = None
        self.host = "127.0.0.1"
        self.port = 0
        self.path = ""
        self.child = 0
        self.log_file = tempfile.TemporaryFile()  # noqa: SIM115 # closed by __exit__

    def __enter__(self) -> DevServer:
        self._read, write = os.pipe()
        places = {"--port", "--uds", "--fd", "--host", "runserver"}
        port = [] if places & {*self._command, *self._arguments} else ["--port", "0"]
        self.process = subprocess.Popen(
            [*self._command, *self._arguments, *port, "--events", f"fd:{write}"],
            cwd=self._cwd,
            env=self._env,
            stdin=self._stdin,
            stdout=self.log_file,
            stderr=subprocess.STDOUT,
            pass_fds=[write, *self._pass_fds],
            start_new_session=self._new_session,
        )
        os.close(write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                if error is None:
                    raise AssertionError(f"did not stop within {DEADLINE} s\n{self.log}") from None
        finally:
            if error is not None:
                sys.stderr.write(f"--- log of devserver\n{self.log}\n--- events\n{self.seen}\n")
            os.close(self._read)
            self.log_file.close()

    @property
    def supervisor(self) -> int:
        """The process that was started."""
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything printed so far."""
        return os.pread(self.log_file.fileno(), 10_000_000, 0).decode("utf-8", "replace")

    # events

    def wait(self, *names: str, **fields: Any) -> dict[str, Any]:
        """The next event of one of these names (and with these fields) after the one returned before."""
        deadline = time.monotonic() + DEADLINE
        while True:
            while self._cursor < len(self.seen):
                event = self.seen[self._cursor]
                self._cursor += 1
                if event["event"] in names and all(event.get(key) == value for key, value in fields.items()):
                    return event
            if not self._more(deadline):
                raise AssertionError(f"no event {names} {fields or ''} came; had {self.seen}\n{self.log}")

    def _more(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(self._read, 65536) if ready else b""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self.seen += [json.loads(line) for line in lines]
        return bool(data)

    def serving(self) -> dict[str, Any]:
        """Wait until a generation serves."""
        if not self.url:
            self.listening()
        event = self.wait("serving")
        self.child = event["pid"]
        return event

    def failed(self) -> dict[str, Any]:
        """Wait until a generation has failed."""
        if not self.url:
            self.listening()
        return self.wait("failed")

    def restarted(self) -> dict[str, Any]:
        """Wait until the next restart has begun and its generation serves. Returns the `restart` event."""
        event = self.wait("restart")
        self.serving()
        return event

    def restarted_or_failed(self) -> str:
        """Wait until the next restart has begun and its generation serves or has failed. Returns which."""
        self.wait("restart")
        name: str = self.wait("serving", "failed")["event"]
        return name

    def listening(self) -> str:
        """Wait for the address. Returns the URL."""
        self.url = self.wait("listening")["url"]
        if self.url.startswith("unix:"):
            self.path = self.url.removeprefix("unix:")
        else:
            scheme, _, rest = self.url.partition("://")
            self.scheme = scheme
            host, _, port = rest.rpartition(":")
            self.host, self.port = host.strip("[]"), int(port)
        return self.url

    def idle(self, seconds: float) -> None:
        """Let time pass, reading what comes: for moments that are random, not for waiting."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._more(end):
            pass

    def forget(self) -> None:
        """Drop the events so far, of a test that makes very many."""
        self.seen.clear()
        self._cursor = 0

    def events(self, name: str) -> list[dict[str, Any]]:
        """All events of a name so far."""
        while select.select([self._read], [], [], 0)[0] and self._more(time.monotonic() + 1):
            pass
        return [event for event in self.seen if event["event"] == name]

    def wait_log(self, text: str) -> None:
        """Wait until a text has been printed, for which there is no event."""
        deadline = time.monotonic() + DEADLINE
        while text not in self.log:
            assert time.monotonic() < deadline, f"{text!r} was not printed\n{self.log}"
            self.idle(0.05)

    # requests

    def connect(self) -> contextlib.closing[http.client.HTTPConnection]:
        """A connection that is closed at the end of a `with`."""
        if self.path:
            return contextlib.closing(UnixConnection(self.path))
        if self.scheme == "https":
            return contextlib.closing(
                http.client.HTTPSConnection(self.host, self.port, timeout=DEADLINE, context=self.tls)
            )
        return contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE))

    def get(self, path: str = "/", **headers: str) -> Answer:
        """One request on a connection of its own."""
        return self.ask("GET", path, headers=headers)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        with self.connect() as connection:
            connection.request(method, path, body, dict(headers or {}))
            return Answer(connection.getresponse())

    @contextlib.contextmanager
    def asking(self, path: str = "/") -> Iterator[Callable[[], Answer]]:
        """A request that has been sent. What is given waits for its answer."""
        with self.connect() as connection:
            connection.request("GET", path)
            yield lambda: Answer(connection.getresponse())

    def answered(self, path: str = "/") -> Answer:
        """The answer of the application, for which an error page or two may have to be waited out."""
        while (answer := self.get(path)).status in (500, 503):
            self.serving()
        return answer

    # ending

    def stop(self, signum: int = signal.SIGINT) -> int:
        """Send a signal to the supervisor alone, and wait. Returns the exit code."""
        self.process.send_signal(signum)
        return self.ended()

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to the whole group, as a terminal sends it; needs `new_session`."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self, deadline: float = DEADLINE) -> int:
        """Wait for the end. Returns the exit code."""
        return self.process.wait(deadline)

    def processes(self) -> list[int]:
        """Every process below the one that was started."""
        return descendants(self.process.pid)


def begin(server: DevServer, path: str) -> socket.socket:
    """Send a request, and read until its response has begun, and not a byte beyond."""
    sock = socket.create_connection((server.host, server.port), timeout=DEADLINE)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
    text = b""
    while not text.endswith((b"begun", b"started")):
        data = sock.recv(1)
        assert data, text
        text += data
    return sock


def tell(text: str) -> None:
    """Print a line of figures; pytest shows it with -s, or when the test fails."""
    sys.stdout.write(f"{text}\n")


def save(path: Path, text: str) -> None:
    """Save as editors do that write beside a file and rename: no moment shows a part of the text.

    Who writes in place empties the file first, and a busy machine may stop a test in between. Half-written
    files have tests of their own.
    """
    path = path.resolve()
    with tempfile.TemporaryDirectory() as elsewhere:
        new = Path(elsewhere, path.name)
        new.write_text(text)
        if path.exists():
            shutil.copymode(path, new)
        os.replace(new, path)


def gone(pid: int, deadline: float = DEADLINE) -> None:
    """Wait until a process is no more."""
    if not hasattr(os, "pidfd_open"):  # PyPy
        end = time.monotonic() + deadline
        while procfs.text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"]):
            assert time.monotonic() < end, f"process {pid} lives"
            select.select([], [], [], 0.02)
        return
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([pidfd], [], [], deadline)
        assert ready, f"process {pid} lives"
    finally:
        os.close(pidfd)


def descendants(pid: int) -> list[int]:
    """The processes below a process, as they are now."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found
