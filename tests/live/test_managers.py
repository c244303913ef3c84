"""Below systemd, supervisor and circus, with the very files that docs/managers.md shows."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.managed import (
    DEVSERVER,
    Customers,
    NotifySocket,
    ask,
    clean,
    documented,
    eventually,
    free_place,
    running,
)
from tests.live.process import DevServer, descendants, save
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

VARIABLES = ("LISTEN_", "NOTIFY_", "WATCHDOG_")

APP = f"""
import os, socket, time
print("loaded by", os.getpid())

def mark(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text, os.environ["MARKS"])

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    text = str(os.getpid())
    if scope["path"] == "/variables":
        text = " ".join(name for name in os.environ if name.startswith({VARIABLES!r}))
    elif scope["path"] == "/input":
        text = os.readlink("/proc/self/fd/0")
    elif scope["path"] == "/block":
        mark(b"BLOCKED=1")
        time.sleep(0.6)  # many times the interval of the watchdog, and the loop does nothing else
        mark(b"BLOCKED=0")
    await send({{"type": "http.response.start", "status": 200}})
    await send({{"type": "http.response.body", "body": text.encode()}})
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """With the application. Its path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="managed-") as name:
        Path(name, "app.py").write_text(APP)
        yield Path(name)


class Heard:
    """The events of all servers below a manager."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "events"
        self._path.touch()
        self.env = {**clean(), "DEVSERVER_EVENTS": str(self._path), "MARKS": str(folder / "notify")}

    def events(self, name: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [event for event in found if event["event"] == name]

    def wait(self, count: int, name: str = "serving") -> list[dict[str, Any]]:
        """Wait until so many servers have told an event."""
        eventually(lambda: len(self.events(name)) >= count, f"{count} times {name}")
        return self.events(name)

    @property
    def place(self) -> str:
        """The address and port that they listen on."""
        url: str = self.wait(1, "listening")[0]["url"]
        return url.removeprefix("http://")


# systemd

ACTIVATE = shutil.which("systemd-socket-activate")


@pytest.mark.skipif(ACTIVATE is None, reason="needs systemd-socket-activate")
@pytest.mark.parametrize("reload", [["--reload"], []], ids=["reload", "alone"])
def test_sockets_of_systemd(reload: list[str], folder: Path) -> None:
    """Two sockets with names; whoever connects before there is a server waits for it."""
    assert ACTIVATE is not None
    heard = Heard(folder)
    place = free_place()
    sockets = ["-l", place, "-l", str(folder / "s"), "--fdname=shop:local"]
    passed = [f"-E{name}" for name in ("DEVSERVER_EVENTS", "MARKS", "PATH")]
    command = [ACTIVATE, *sockets, *passed, *DEVSERVER.split(), *reload]
    with running(command, folder, heard.env):
        log = folder / "manager.log"
        eventually(lambda: log.read_text().count("Listening on") == 2, "both sockets")
        for _ in range(2):  # the first starts the server
            with socket.socket(socket.AF_UNIX) as local:
                local.connect(str(folder / "s"))
                local.sendall(b"GET /variables HTTP/1.0\r\n\r\n")
                assert local.recv(65536).startswith(b"HTTP/1.1 200")
        assert heard.events("listening")[0]["urls"] == [f"http://{place}", f"unix:{folder / 's'}"]
        assert ask(place, "/variables") == (200, "")
        assert "loaded by" in log.read_text(), "a print is seen at once"
        if reload:
            save(folder / "app.py", f"{APP}\n")
            heard.wait(2)
            assert ask(place, "/variables") == (200, "")
    if not reload:
        explained = explain([ACTIVATE, *sockets, *DEVSERVER.split(), "--explain-config"], folder)
        assert f"LISTEN_FDS: descriptor 3 (shop), http://{place}" in explained
        assert f"LISTEN_FDS: descriptor 4 (local), unix:{folder / 's'}" in explained
        assert "default, not used" in explained


def explain(command: list[str], folder: Path) -> str:
    """What a server says that a first connection has started."""
    (folder / "s").unlink()
    text = folder / "explained"
    with text.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=clean(), stdout=output, stderr=output)
    eventually(lambda: text.read_text().count("Listening on") == 2, "both sockets")
    with socket.socket(socket.AF_UNIX) as local:
        local.connect(str(folder / "s"))
        assert process.wait(DEADLINE) == 0
    return text.read_text()


@pytest.mark.parametrize("abstract", [True, False])
def test_what_systemd_is_told_with_reload(abstract: bool, folder: Path) -> None:
    address = f"@{folder}" if abstract else str(folder / "notify")
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}
    with NotifySocket(address) as manager, DevServer("app:app", "--reload", cwd=folder, env=env) as server:
        assert [each["STATUS"] for each in manager.until("READY")] == ["loading app:app", "serving app:app"]
        server.serving()
        assert server.get("/variables").text == ""
        manager.until("WATCHDOG")
        save(folder / "app.py", f"{APP}\n1 / 0\n")
        told = manager.until("READY")
        assert told[0]["RELOADING"] == "1"
        assert int(told[0]["MONOTONIC_USEC"]) > 0
        assert told[0]["STATUS"] == "loading app:app: app.py changed"
        place = f"({folder / 'app.py'}, line {APP.count(chr(10)) + 2})"
        assert told[-1]["STATUS"] == f"failed: ZeroDivisionError: division by zero {place}"
        save(folder / "app.py", f"{APP}\n1 / 0 \n")
        assert manager.until("READY")[-1]["STATUS"] == told[-1]["STATUS"], "the same failure again"
        server.process.send_signal(signal.SIGHUP)
        manager.until("READY")
        save(folder / "app.py", APP)
        assert manager.until("READY")[-1]["STATUS"] == "serving app:app"
        assert server.stop(signal.SIGTERM) == 0
        assert manager.until("STOPPING")[-1]["STATUS"] == "finishing requests"


def test_what_systemd_is_told_without_reload(folder: Path) -> None:
    """The watchdog hears nothing while the loop hangs."""
    address = str(folder / "notify")
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "40000", "MARKS": address}
    with NotifySocket(address) as manager, DevServer("app:app", cwd=folder, env=env) as server:
        manager.until("READY")
        server.serving()
        manager.until("WATCHDOG")
        server.get("/block")
        manager.until("BLOCKED")
        assert manager.told() == {"BLOCKED": "0"}, "the loop did not turn, and yet the watchdog was told"
        manager.until("WATCHDOG")
        assert server.get("/variables").text == ""
        assert server.stop(signal.SIGQUIT) == 0
        manager.until("STOPPING")


def test_a_failing_start_without_reload_is_not_ready(folder: Path) -> None:
    (folder / "app.py").write_text("1 / 0\n")
    address = str(folder / "notify")
    with (
        NotifySocket(address) as manager,
        DevServer("app:app", cwd=folder, env={"NOTIFY_SOCKET": address}) as server,
    ):
        assert server.ended() == 1
        assert manager.told() == {"STATUS": "loading app:app"}
        failed = f"failed: ZeroDivisionError: division by zero ({folder / 'app.py'}, line 1)"
        assert manager.told() == {"STATUS": failed}


def test_a_watchdog_for_another_process_is_left_to_it(folder: Path) -> None:
    address = str(folder / "notify")
    env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}
    with NotifySocket(address) as manager, DevServer("app:app", cwd=folder, env=env) as server:
        server.serving()
        assert server.get("/variables").text.split() == ["WATCHDOG_USEC", "WATCHDOG_PID"]
        assert server.stop(signal.SIGTERM) == 0
        assert [list(manager.told()) for _ in range(3)] == [
            ["STATUS"],
            ["READY", "STATUS"],
            ["STOPPING", "STATUS"],
        ]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_units_of_the_page_are_valid(folder: Path) -> None:
    command = f"{sys.executable} -m devserver shop.main:app"
    service = {"/srv/shop/.venv/bin/devserver shop.main:app": command, "/srv/shop": str(folder)}
    (folder / "shop.socket").write_text(documented("shop.socket", {}))
    (folder / "shop.service").write_text(documented("shop.service", service))
    units = [str(folder / "shop.socket"), str(folder / "shop.service")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "shop." in line] == []


# supervisor

SUPERVISOR = shutil.which("supervisord")


@pytest.mark.skipif(SUPERVISOR is None, reason="needs supervisor")
def test_supervisor(folder: Path) -> None:
    """Four processes on one socket; each restart of one loses nothing; every stop signal ends it cleanly."""
    assert SUPERVISOR is not None
    heard = Heard(folder)
    place = free_place()
    text = documented(
        "supervisord.conf",
        {
            "/srv/shop/.venv/bin/devserver shop.main:app": DEVSERVER,
            "/srv/shop": str(folder),
            "/var/log/supervisor": str(folder),
            "/run": str(folder),
            "127.0.0.1:8000": place,
            "stopwaitsecs = 15": "stopwaitsecs = 15\nstartsecs = 0",
        },
    )
    config = folder / "supervisord.conf"
    config.write_text(text)

    def control(*command: str) -> str:
        done = subprocess.run(
            ["supervisorctl", "-c", str(config), *command], capture_output=True, text=True, check=False
        )
        return done.stdout

    with running([SUPERVISOR, "-c", str(config)], folder, heard.env) as manager:
        heard.wait(4)
        assert sorted(descendants(manager.pid)) == sorted(each["pid"] for each in heard.events("serving"))
        assert ask(place, "/input") == (200, os.devnull)
        with Customers(place) as customers:
            for number in range(4):
                assert "started" in control("restart", f"shop:shop_0{number}")
                heard.wait(5 + number)
        assert set(customers.answers) == {200}
        first = (folder / "shop_00.log").read_text()
        assert first.count("loaded by") == 2
        assert first.count("devserver: stopped") == 1
        assert "\x1b" not in first
        for count, name in ((12, "QUIT"), (16, "INT")):
            config.write_text(text.replace("stopsignal = TERM", f"stopsignal = {name}"))
            control("update")
            heard.wait(count)
        # Last, a server that only says what it was given.
        changes = {"--fd 0": "--fd 0 --explain-config", "numprocs = 4": "numprocs = 1", ":shop]": ":told]"}
        for before, after in changes.items():
            text = text.replace(before, after)
        config.write_text(f"{text}\nautorestart = false\n")
        control("update")
        told = folder / "told_00.log"
        eventually(lambda: told.exists() and "of the group told" in told.read_text(), "the explanation")
        given = f"--fd: descriptor 0, http://{place}, from supervisord (pid {manager.pid})"
        assert given in told.read_text()
    assert len(heard.events("stopped")) == len(heard.events("serving")) == 16, "each was stopped cleanly"


# circus

CIRCUSD = [sys.executable, "-m", "circus.circusd", "circus.ini"]
needs_circus = pytest.mark.skipif(importlib.util.find_spec("circus") is None, reason="needs circus")


@needs_circus
def test_circus(folder: Path) -> None:
    """Its watcher is restarted and reloaded without a lost request."""
    heard = Heard(folder)
    text = documented(
        "circus.ini",
        {
            "/srv/shop/.venv/bin/devserver shop.main:app": DEVSERVER,
            "/srv/shop": str(folder),
            "tcp://127.0.0.1:5555": f"ipc://{folder}/control",
            "tcp://127.0.0.1:5556": f"ipc://{folder}/told",
            "port = 8000": "port = 0",
        },
    )
    (folder / "circus.ini").write_text(text)

    def control(*command: str) -> str:
        circusctl = [sys.executable, "-m", "circus.circusctl", "--endpoint", f"ipc://{folder}/control"]
        return subprocess.run([*circusctl, *command], capture_output=True, text=True, check=False).stdout

    with running(CIRCUSD, folder, heard.env):
        heard.wait(2)
        with Customers(heard.place) as customers:
            for count, command in ((4, "reload"), (6, "restart")):
                assert "ok" in control(command, "shop")
                heard.wait(count)
        assert set(customers.answers) == {200}
    assert len(heard.events("stopped")) == len(heard.events("serving")) == 6
    explaining = text.replace("--fd $", "--explain-config --fd $").replace(
        "numprocesses = 2", "numprocesses = 1"
    )
    (folder / "circus.ini").write_text(explaining)
    with running(CIRCUSD, folder, heard.env) as manager:
        told = folder / "manager.log"
        eventually(lambda: f"from circusd (pid {manager.pid})" in told.read_text(), "the explanation")
