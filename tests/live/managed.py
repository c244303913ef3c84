"""Managers of services that run devserver, with the very files that docs/managers.md and others show."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.patience import DEADLINE

DOCS = Path(__file__).parents[2] / "docs"

DEVSERVER = f"{sys.executable} -m devserver app:app"


def documented(name: str, changes: Mapping[str, str], page: str = "managers") -> str:
    """A file that a page shows, with something else in place of what a test cannot have."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found is not None, name
    text = found[1]
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


class NotifySocket:
    """What systemd listens on to hear from a service.

    Attributes:
        address: as in NOTIFY_SOCKET.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(DEADLINE)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def __enter__(self) -> NotifySocket:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def told(self) -> dict[str, str]:
        """The next message."""
        return dict(line.split("=", 1) for line in self._socket.recv(65536).decode().split("\n"))

    def until(self, name: str) -> list[dict[str, str]]:
        """The messages up to the first that assigns to this name, without those for the watchdog."""
        found: list[dict[str, str]] = []
        deadline = time.monotonic() + DEADLINE
        while not found or name not in found[-1]:
            assert time.monotonic() < deadline, f"no {name} came; had {found}"
            message = self.told()
            if "WATCHDOG" not in message or name == "WATCHDOG":
                found.append(message)
        return found


@contextlib.contextmanager
def running(
    command: Sequence[str], folder: Path, env: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A program below which servers run. At the end it is told to stop, and nothing is left of it."""
    log = folder / "manager.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT, pass_fds=pass_fds
        )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE)
        except BaseException:
            sys.stderr.write(f"--- the manager\n{log.read_text()}\n")
            raise
        finally:
            process.kill()
            process.wait()


def as_first_process() -> list[str]:
    """What runs the command behind it as PID 1, as a container's runtime does. Skips where it cannot."""
    command = ["unshare", "--pid", "--fork", "--mount-proc"]
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare here (util-linux)")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("making a PID namespace is not permitted here")
    return command


def clean() -> dict[str, str]:
    """An environment in which nothing makes Python write at once."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def free_place() -> str:
    """An address of this machine that nobody else takes, and a port: for programs that cannot choose one."""
    host = ".".join(["127", *(str(1 + secrets.randbelow(250)) for _ in range(3))])
    return f"{host}:8000"


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait for what a manager tells only to those who ask, as in its log."""
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, what
        select.select([], [], [], 0.02)


class Customers:
    """Clients that ask for as long as they are let, each request on a connection of its own.

    Attributes:
        answers: how often which status came, or which error.
        pids: who has answered.
    """

    def __init__(self, place: str | Callable[[], tuple[object, str]], count: int = 2) -> None:
        """Args: place: an address and a port; or what asks, and gives a status and a text, or an error."""
        self.answers = Counter[object]()
        self.pids = set[str]()
        self._ask = partial(ask, place) if isinstance(place, str) else place
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(count)]

    def __enter__(self) -> Customers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _ask_on(self) -> None:
        while not self._over.wait(0.002):
            result, text = self._ask()
            with self._lock:
                self.answers[result] += 1
                self.pids.add(text)


def ask(place: str, path: str = "/") -> tuple[object, str]:
    """The status and the text of an answer, or the name of an error. The request must not be repeated."""
    with contextlib.closing(http.client.HTTPConnection(place, timeout=DEADLINE)) as connection:
        try:
            connection.request("POST", path, b"order")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__, ""
