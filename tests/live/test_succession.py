"""One arbiter replaces another while both serve: SIGUSR2, SIGWINCH, and the end of either."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.live.clients import Clients
from tests.live.process import DevServer, gone
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

APP = """
import os

VERSION = 1

async def app(scope, receive, send):
    text = f"{VERSION} {os.getppid()}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


def succeeds(server: DevServer) -> int:
    """Have another arbiter begin, and wait until its workers serve, too. Returns its process id."""
    server.process.send_signal(signal.SIGUSR2)
    pid: int = server.wait("successor_started")["pid"]
    server.wait("successor_serving", pid=pid)
    return pid


def rest(server: DevServer, pid: int, workers: int = 2) -> None:
    """Have the workers of an arbiter leave, without which it goes on."""
    os.kill(pid, signal.SIGWINCH)
    for _ in range(workers):
        server.wait("worker_exited", wanted=True)


@pytest.mark.parametrize(
    "options", [[], ["--preload"], ["--uds", "socket"]], ids=["forked", "preloaded", "uds"]
)
def test_a_new_version_takes_over_and_no_request_is_lost(folder: Path, options: list[str]) -> None:
    with DevServer("main:app", "--workers", "2", "--pidfile", "pid", *options, cwd=folder) as server:
        server.serving()
        with Clients(server) as clients:
            (folder / "main.py").write_text(APP.replace("VERSION = 1", "VERSION = 2  # new"))
            successor = succeeds(server)
            assert (folder / "pid").read_text() == f"{server.supervisor}\n"
            assert (folder / "pid.2").read_text() == f"{successor}\n"
            rest(server, server.supervisor)
            version, parent = server.get().text.split()
            assert version == "2"
            assert int(parent) == successor or "--preload" in options
            server.process.send_signal(signal.SIGTERM)
            server.wait("stopped")
            assert server.process.wait(DEADLINE) == 0
            while not server.log.count("has ended, and this one succeeds it"):
                server.idle(0.01)
            assert server.get().text.startswith("2 ")
        assert (folder / "pid").read_text() == f"{successor}\n"
        assert not (folder / "pid.2").exists()
        os.kill(successor, signal.SIGTERM)
        server.wait("stopped")
        gone(successor)
    assert not clients.failures
    assert set(clients.answers) == {"200 1", "200 2"}
    assert not (folder / "pid").exists()
    assert not (folder / "socket").exists()


def test_the_way_back(folder: Path) -> None:
    """The new version is not what was wanted: the workers of the old one come back, and it ends."""
    with DevServer("main:app", "--workers", "2", "--pidfile", "pid", cwd=folder) as server:
        server.serving()
        with Clients(server) as clients:
            (folder / "main.py").write_text(APP.replace("VERSION = 1", "VERSION = 2  # new"))
            successor = succeeds(server)
            rest(server, server.supervisor)
            (folder / "main.py").write_text(APP.replace("VERSION = 1", "VERSION = 3  # back"))
            server.process.send_signal(signal.SIGHUP)
            for _ in range(2):
                server.wait("worker_serving")
            os.kill(successor, signal.SIGTERM)
            server.wait("successor_exited", pid=successor)
            gone(successor)
            assert server.get().text.startswith("3 ")
        assert not clients.failures
        assert (folder / "pid").read_text() == f"{server.supervisor}\n"
        assert not (folder / "pid.2").exists()
        # And forth.
        (folder / "main.py").write_text(APP.replace("VERSION = 1", "VERSION = 4  # again"))
        successor = succeeds(server)
        server.process.send_signal(signal.SIGQUIT)
        assert server.process.wait(DEADLINE) == 0
        assert server.get().text.startswith("4 ")
        os.kill(successor, signal.SIGTERM)
        gone(successor)


def test_a_successor_that_cannot_load_ends_alone(folder: Path) -> None:
    with DevServer("main:app", "--workers", "2", cwd=folder) as server:
        server.serving()
        (folder / "main.py").write_text("syntax error")
        server.process.send_signal(signal.SIGUSR2)
        pid = server.wait("successor_started")["pid"]
        server.wait("successor_exited", pid=pid)
        assert server.get().status == 200
        assert "which was to succeed this one, has ended" in server.log
        gone(pid)


def test_there_are_two_at_most(folder: Path) -> None:
    with DevServer("main:app", "--workers", "2", cwd=folder) as server:
        server.serving()
        successor = succeeds(server)
        server.process.send_signal(signal.SIGUSR2)
        server.wait_log(f"process {successor} is the other arbiter: there are two at most")
        os.kill(successor, signal.SIGTERM)
        server.wait("successor_exited")


def test_a_killed_arbiter_takes_nothing_of_its_successor(folder: Path) -> None:
    with DevServer("main:app", "--workers", "2", cwd=folder) as server:
        server.serving()
        old = {event["pid"] for event in server.events("worker_started")}
        successor = succeeds(server)
        server.process.kill()
        server.process.wait()
        for pid in old:
            gone(pid)
        assert server.get().text == f"1 {successor}"
        os.kill(successor, signal.SIGTERM)
        gone(successor)
