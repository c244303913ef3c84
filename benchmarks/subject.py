"""A server that is measured: its process, its log, and a client that asks it.

It is asked as a browser would ask it after a save: on a new connection each time, again and again,
until the new token comes. Everything that came instead is counted.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tree
from applications import FIRST, Project
from servers import Command

PAUSE = 0.002
"""Seconds between an answer and the next question."""

START_LIMIT = 60.0
STOP_LIMIT = 5.0


@dataclass
class Asked:
    """What came of asking until a token was answered.

    Attributes:
        seconds: until then; None: it never was.
        refused: connections that were refused.
        errors: connections that broke, answers that took too long, and error pages.
        stale: answers with another token.
    """

    seconds: float | None = None
    refused: int = 0
    errors: int = 0
    stale: int = 0


class Subject:
    """A running server."""

    def __init__(self, command: Command, project: Project, *, more: Sequence[str] = (), fd: int = -1) -> None:
        """
        Args:
            more: arguments added to the command.
            fd: a descriptor that it inherits.
        """
        self.name = command.name
        self.project = project
        self.port = free_port()
        self.log = project.folder.with_suffix(".log")
        self.began = time.perf_counter()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command.argv(project, self.port), *more],
                cwd=project.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment(),
                start_new_session=True,
                pass_fds=[fd] if fd >= 0 else [],
            )

    def ask(self, timeout: float = 30.0) -> tuple[int, str]:
        """Status and text of the answer to `GET /` on a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", "/", headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")

    def ask_until(self, token: str, limit: float, began: float | None = None) -> Asked:
        """Ask until a token is answered, at most `limit` seconds. Counts from `began`, or from now."""
        asked = Asked()
        began = time.perf_counter() if began is None else began
        while time.perf_counter() - began < limit:
            try:
                status, text = self.ask(limit)
            except ConnectionRefusedError:
                asked.refused += 1
            except (OSError, http.client.HTTPException):
                asked.errors += 1
            else:
                if status == 200 and token in text:
                    asked.seconds = time.perf_counter() - began
                    return asked
                asked.stale += status == 200
                asked.errors += status != 200
            time.sleep(PAUSE)
        return asked

    def await_start(self, token: str = FIRST) -> float:
        """Wait for the first answer. Returns the seconds since the process was started.

        Raises:
            RuntimeError: there is none; with the end of the log.
        """
        asked = self.ask_until(token, START_LIMIT, self.began)
        if asked.seconds is None:
            raise RuntimeError(f"{self.name} does not answer:\n{self.log.read_text()[-2000:]}")
        return asked.seconds

    def cpu_seconds(self) -> float:
        """Processor time of the whole tree so far."""
        return tree.cpu_seconds(self._process.pid)

    def pss_mib(self) -> float:
        """Memory of the whole tree."""
        return tree.pss_mib(self._process.pid)

    @property
    def session(self) -> int:
        """The session of all of its processes."""
        return self._process.pid

    def stop(self) -> None:
        """End the whole tree."""
        for signum in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self._process.pid, signum)
                self._process.wait(STOP_LIMIT)
        self._process.wait()


def environment() -> dict[str, str]:
    """Ours, without what would have Python or a server behave otherwise than for a newcomer."""
    # PYTHONDONTWRITEBYTECODE for one would have every start compile everything.
    strange = ("PYTHON", "DEVSERVER_", "UVICORN_", "GRANIAN_", "GUNICORN_", "WEB_CONCURRENCY")
    return {name: value for name, value in os.environ.items() if not name.startswith(strange)}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def all_stopped(subjects: list[Subject]) -> Iterator[None]:
    """Stop every server in a list at the end, also those added meanwhile."""
    try:
        yield
    finally:
        while subjects:
            subjects.pop().stop()


def idle_percent(subjects: Sequence[Subject], seconds: float) -> list[float]:
    """Processor time that each server uses when nobody asks it, in percent of one core."""
    began = [subject.cpu_seconds() for subject in subjects]
    time.sleep(seconds)
    return [
        100 * (subject.cpu_seconds() - then) / seconds for subject, then in zip(subjects, began, strict=True)
    ]


def folder_for(work: Path, *names: str) -> Path:
    """A folder for one server's copy of a project."""
    return work / "-".join("".join(c if c.isalnum() else "_" for c in name) for name in names)
