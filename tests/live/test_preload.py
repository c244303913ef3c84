"""Workers that share what was loaded once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.live.clients import Clients
from tests.live.process import DevServer, gone
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

APP = """
import os, time

VERSION = 1
LOADED_BY = os.getpid()
with open("loads", "a") as log:
    log.write("x")

async def app(scope, receive, send):
    place = os.environ["DEVSERVER_WORKER"]
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        with open("ended", "a") as log:
            log.write(place)
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/hang":
        time.sleep(3600)
    text = f"{VERSION} {place} {os.getpid()} {LOADED_BY}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


def pids(server: DevServer) -> set[int]:
    """The workers that live, by the events so far."""
    started = {event["pid"] for event in server.events("worker_started")}
    return started - {event["pid"] for event in server.events("worker_exited")}


def loader(server: DevServer) -> int:
    """The process that has loaded the newest code."""
    return int(server.get().text.split()[3])


def test_the_application_is_loaded_once(folder: Path) -> None:
    with DevServer("main:app", "--workers", "3", "--preload", cwd=folder) as server:
        server.serving()
        workers, seen, loaded = pids(server), dict[int, str](), loader(server)
        with Clients(server, 3):
            while set(seen) != workers:
                _, place, served_by, loaded_by = server.get().text.split()
                assert int(loaded_by) == loaded
                seen[int(served_by)] = place
        assert sorted(seen.values()) == ["1", "2", "3"]
        assert loaded not in workers
        assert (folder / "loads").read_text() == "x"
        assert "--preload" not in server.log  # there is nothing to warn of
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(DEADLINE) == 0
        assert sorted((folder / "ended").read_text()) == ["1", "2", "3"]
    for pid in (*workers, loaded):
        gone(pid)


def test_signals_change_the_workers_and_no_request_is_lost(folder: Path) -> None:
    """A death, TTIN, HUP with code that cannot load, HUP with new code, TTOU; and the end."""
    main = folder / "main.py"
    with (
        DevServer("main:app", "--workers", "2", "--preload", cwd=folder) as server,
    ):
        server.serving()
        with Clients(server) as clients:
            before = pids(server)
            server.process.send_signal(signal.SIGTTIN)
            server.wait("worker_serving", worker=3)
            assert (folder / "loads").read_text() == "x"

            main.write_text("syntax error")
            before = pids(server)
            server.process.send_signal(signal.SIGHUP)
            assert "syntax" in server.wait("failed")["error"]
            server.wait_log("ended (exit code 1), and is started again now")
            assert before <= pids(server)

            main.write_text(APP.replace("VERSION = 1", "VERSION = 2  # new"))
            old = loader(server)
            server.process.send_signal(signal.SIGHUP)
            while before & pids(server):
                server.wait("worker_exited", wanted=True)
            assert server.get().text.startswith("2 ")
            assert loader(server) != old
            gone(old)
            assert (folder / "loads").read_text() == "xx"

            server.process.send_signal(signal.SIGTTOU)
            server.wait("worker_exited", worker=3, wanted=True)
        assert not clients.failures
        assert set(clients.answers) == {"200 1", "200 2"}


def test_who_dies_is_forked_again(folder: Path) -> None:
    with DevServer("main:app", "--workers", "2", "--preload", cwd=folder) as server:
        server.serving()
        [pid, _] = pids(server)
        os.kill(pid, signal.SIGKILL)
        heard = {server.wait("worker_exited", "worker_serving")["event"] for _ in range(2)}
        assert heard == {"worker_exited", "worker_serving"}
        assert server.events("worker_exited")[0]["code"] == -signal.SIGKILL
        assert (folder / "loads").read_text() == "x"


@pytest.mark.skipif(sys.platform != "linux", reason="who hears of the ends of orphans is another matter")
def test_workers_outlive_who_has_forked_them(folder: Path) -> None:
    with DevServer("main:app", "--workers", "2", "--preload", cwd=folder) as server:
        server.serving()
        before = pids(server)
        os.kill(loader(server), signal.SIGKILL)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
            assert server.wait("worker_exited", pid=pid)["code"] == -signal.SIGKILL
        while len(pids(server)) < 2:
            server.wait("worker_serving")
        assert (folder / "loads").read_text() == "xx"
        assert server.get().status == 200
        assert server.stop() == 0


def test_a_loader_that_stands_still_holds_nobody_up(folder: Path) -> None:
    with DevServer("main:app", "--workers", "2", "--preload", cwd=folder) as server:
        server.serving()
        stopped = loader(server)
        os.kill(stopped, signal.SIGSTOP)
        assert server.stop(signal.SIGQUIT) == 0
        gone(stopped)


def test_who_stands_still_is_ended(folder: Path) -> None:
    options = ("--timeout-worker-healthcheck", "1", "--timeout-graceful-shutdown", "0.2")
    with DevServer("main:app", "--workers", "2", "--preload", *options, cwd=folder) as server:
        server.serving()
        with server.connect() as connection:
            connection.request("GET", "/hang")
            assert server.wait("worker_exited")["code"] in (-signal.SIGABRT, -signal.SIGKILL)
        assert server.get().status == 200


def test_what_cannot_load_ends_it_with_its_reason(folder: Path) -> None:
    (folder / "main.py").write_text("raise RuntimeError('cannot load')")
    with DevServer("main:app", "--workers", "2", "--preload", cwd=folder) as server:
        assert server.process.wait(DEADLINE) == 1
        assert server.log.count("RuntimeError: cannot load") == 1


def test_an_interrupt_ends_who_still_loads(folder: Path) -> None:
    (folder / "main.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(3600)")
    with DevServer("main:app", "--workers", "2", "--preload", cwd=folder) as server:
        server.listening()
        while not (folder / "begun").exists():
            server.idle(0.01)
        assert server.stop() == 0


@pytest.mark.cpython("what a copy would share is not looked for")
@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("threading.Timer(3600, print).start()", "a thread (Thread-1)"),
        ("folder = tempfile.TemporaryDirectory()", "a finalizer (TemporaryDirectory._cleanup)"),
        ("sleeper = subprocess.Popen(['sleep', '3600'])", "a child process"),
    ],
)
def test_what_workers_would_share_is_told(folder: Path, statement: str, told: str) -> None:
    (folder / "main.py").write_text(f"import subprocess, tempfile, threading\n{statement}\n{APP}")
    with DevServer("main:app", "--workers", "2", "--preload", cwd=folder) as server:
        server.serving()
        server.wait_log(f"--preload: {told} was made while the application was loaded")
        assert server.log.count("--preload: ") == 1
