"""Managers of services that run devserver, with the very files that docs/managers.md shows."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.patience import DEADLINE

PAGE = (Path(__file__).parents[2] / "docs" / "managers.md").read_text(encoding="utf-8")

DEVSERVER = f"{sys.executable} -m devserver app:app"


def documented(name: str, changes: Mapping[str, str]) -> str:
    """A file of the page, with something else in place of what a test cannot have."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n```ini\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
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

    def __init__(self, place: str, count: int = 2) -> None:
        self.answers = Counter[object]()
        self.pids = set[str]()
        self._place = place
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
            result, text = ask(self._place)
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
