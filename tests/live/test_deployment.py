"""The files and commands of docs/deployment.md, each run once."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.live.behind import through
from tests.live.managed import (
    Customers,
    NotifySocket,
    as_first_process,
    clean,
    documented,
    eventually,
    free_place,
    running,
)
from tests.live.nginx import CLIENT, NAME, Nginx, needs_nginx
from tests.live.polls import make_stock
from tests.live.process import Answer, DevServer, UnixConnection, descendants, save
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

VERSION = "one"

APP = f"""
import asyncio, os, sys
VERSION = {VERSION!r}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({{"type": "websocket.accept"}})
        await send({{"type": "websocket.send", "text": f"{{scope['scheme']}} {{scope['client'][0]}}"}})
        await receive()
        return
    headers = []
    if scope["path"] == "/events":
        headers = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
    if scope["path"] == "/held":
        print("held", flush=True)
        await asyncio.to_thread(open, "fifo")
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    if scope["path"] == "/events":
        await send({{"type": "http.response.body", "body": b"data: first\\n\\n", "more_body": True}})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    text = f"{{VERSION}} {{os.getpid()}} {{scope['client'][0]}} {{scope['scheme']}}"
    await send({{"type": "http.response.body", "body": text.encode()}})
"""

LEFT = "[tool.devserver]\nreload = true\n"
"""In the project's pyproject.toml: `--no-reload` has to win."""

shown = partial(documented, page="deployment")
"""A file of the page, with changes."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """With the project. Its path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="live-") as name:
        folder = Path(name)
        (folder / "shop").mkdir()
        (folder / "shop/main.py").write_text(APP)
        (folder / "pyproject.toml").write_text(LEFT)
        os.mkfifo(folder / "fifo")
        yield folder


def ask(nginx: Nginx, method: str = "POST", path: str = "/") -> tuple[object, str]:
    """The status and the text of an answer by way of nginx, or the name of an error."""
    try:
        with through(nginx) as connection:
            connection.request(method, path, b"order" if method == "POST" else None, {"Connection": "close"})
            answer = Answer(connection.getresponse())
            return answer.status, answer.text
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, ""


def behind_nginx(folder: Path, upstream: str, **changes: str) -> Nginx:
    """nginx with the page's configuration."""
    plain = f"unix:{folder / 'plain'}"
    return Nginx(folder, upstream, {"listen 80;": f"listen {plain};", **changes}, page="deployment")


# one machine

ACTIVATE = shutil.which("systemd-socket-activate")

COMMANDS = {Path(line.split()[0]).name: line for line in shown("commands", {}).splitlines()}
"""The servers, and how each is started."""


@needs_nginx
@pytest.mark.skipif(ACTIVATE is None, reason="needs systemd-socket-activate")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_server_behind_nginx(name: str, folder: Path) -> None:
    """What a client sees of it, by a Unix socket of systemd's and by TCP; what systemd is told."""
    assert ACTIVATE is not None
    if name == "uvicorn":
        pytest.importorskip("uvicorn")
        (folder / "devserver.py").write_text("raise ImportError('it is not installed')\n")
    (folder / "gunicorn.conf.py").write_text(shown("gunicorn.conf.py", {"workers = 4": "workers = 2"}))
    words = COMMANDS[name].replace("/srv/shop/.venv/bin/", "").replace("/srv/shop", str(folder))
    server = [sys.executable, "-m", *words.replace("--workers 4", "--workers 2").split()]
    place, notify = free_place(), str(folder / "notify")
    sockets = ["-l", str(folder / "s"), "-l", place, "-EPATH", f"-ENOTIFY_SOCKET={notify}"]
    log = folder / "manager.log"
    with (
        NotifySocket(notify) as manager,
        running([ACTIVATE, *sockets, *server], folder, clean()) as process,
        behind_nginx(folder, f"unix:{folder / 's'}") as nginx,
    ):
        eventually(lambda: log.read_text().count("Listening on") == 2, "both sockets")
        check_site(nginx, folder)
        if name != "uvicorn":
            manager.until("READY")
            nginx.reload(f"unix:{folder / 's'};", f"{place};")
            assert answered(nginx)[1:] == [CLIENT, "https"]
        if name == "devserver":
            check_new_version(process, nginx, folder)
        assert not nginx.faults
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()


def answered(nginx: Nginx) -> list[str]:
    """What the application says: its version, the client, and the scheme."""
    status, text = ask(nginx)
    assert status == 200
    version, _, *seen = text.split()
    return [version, *seen]


def check_site(nginx: Nginx, folder: Path) -> None:
    """Each of what the page promises of nginx."""
    assert answered(nginx) == ["one", CLIENT, "https"]
    with contextlib.closing(UnixConnection(str(folder / "plain"))) as plain:
        plain.request("GET", "/a?b=c", headers={"Host": NAME})
        answer = Answer(plain.getresponse())
    assert (answer.status, answer.headers["location"]) == (301, f"https://{NAME}/a?b=c")
    (nginx.files / "static").mkdir()
    (nginx.files / "static/style.css").write_text("h1 { color: green }")
    with through(nginx) as connection:
        connection.request("GET", "/static/style.css")
        answer = Answer(connection.getresponse())
    assert (answer.status, answer.text) == (200, "h1 { color: green }")
    assert "expires" in answer.headers
    with connect(f"wss://{NAME}/live", sock=nginx.dial(), ssl=nginx.context) as opened:
        assert opened.recv(DEADLINE) == f"wss {CLIENT}"
    with nginx.connect() as stream:  # not buffered, since the application says so
        stream.sendall(f"GET /events HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        text = b""
        while b"data: first\n\n" not in text:
            text += (data := stream.recv(65536))
            assert data, text


def check_new_version(process: subprocess.Popen[bytes], nginx: Nginx, folder: Path) -> None:
    """`systemctl reload` replaces the workers, and no request is lost."""
    [reload] = re.findall(r"^ExecReload=kill -(\w+) \$MAINPID$", shown("shop.service", {}), re.MULTILINE)
    with Customers(partial(ask, nginx)) as customers:
        # Of another size: by it Python knows that its bytecode, of the same second, is an old one's.
        save(folder / "shop/main.py", APP.replace("'one'", "'two'") + "# new\n")
        process.send_signal(signal.Signals[f"SIG{reload}"])
        log = folder / "manager.log"
        eventually(lambda: len(re.findall(r"worker \d serves", log.read_text())) == 2, "new workers")
        eventually(lambda: any(text.startswith("two ") for text in customers.pids), "the new version")
    assert set(customers.answers) == {200}
    assert answered(nginx)[0] == "two"


def test_the_units_of_the_page(folder: Path) -> None:
    """They are valid, and start what the page says."""
    unit = shown("shop.service", {})
    assert f"ExecStart={COMMANDS['devserver']}\n" in unit
    if shutil.which("systemd-analyze"):
        own = {"/srv/shop/.venv/bin/devserver": sys.executable, "/srv/shop": str(folder)}
        (folder / "shop.service").write_text(shown("shop.service", own))
        (folder / "shop.socket").write_text(shown("shop.socket", {}))
        units = [str(folder / name) for name in ("shop.service", "shop.socket")]
        done = subprocess.run(
            ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
        )
        assert [line for line in done.stderr.splitlines() if "shop." in line] == []


# containers


def in_docker() -> list[str]:
    """What the Dockerfile starts."""
    found = re.search(r"^CMD (.*)$", shown("Dockerfile", {}), re.MULTILINE)
    assert found is not None
    words: list[str] = json.loads(found[1])
    return words


def kubernetes() -> tuple[dict[str, Any], dict[str, Any]]:
    """The Deployment and the Service."""
    deployment, service = pytest.importorskip("yaml").safe_load_all(shown("shop.yaml", {}))
    return deployment, service


def in_kubernetes() -> list[str]:
    """What a pod starts."""
    words: list[str] = kubernetes()[0]["spec"]["template"]["spec"]["containers"][0]["command"]
    return words


@pytest.mark.parametrize("words", [in_docker, in_kubernetes])
def test_a_container_finishes_what_has_begun(words: Callable[[], list[str]], folder: Path) -> None:
    started = [*as_first_process(), sys.executable, "-m", *words(), "--port", "0"]
    with DevServer(command=started, cwd=folder) as server:
        server.serving()
        with server.asking("/held") as held:
            server.wait_log("held")
            os.kill(descendants(server.process.pid)[0], signal.SIGTERM)
            server.wait("stopping")
            (folder / "fifo").write_text("")
            assert held().status == 200
        assert server.ended() == 0
        assert "restarting on save" not in server.log


def test_the_times_of_containers() -> None:
    """Each is longer than what it waits for."""
    deployment, service = kubernetes()
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    *_, before = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > int(before) + 2 * grace(in_kubernetes())
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert deployment["spec"]["template"]["metadata"]["labels"] == service["spec"]["selector"]
    ports = {container["ports"][0]["containerPort"], container["readinessProbe"]["httpGet"]["port"]}
    assert ports == {service["spec"]["ports"][0]["targetPort"]} == {8000}
    assert all(isinstance(word, str) for word in [*in_kubernetes(), before])
    compose = pytest.importorskip("yaml").safe_load(shown("compose.yaml", {}))
    assert int(compose["services"]["shop"]["stop_grace_period"].rstrip("s")) > 2 * grace(in_docker())
    [unit] = re.findall(r"^TimeoutStopSec=(\d+)$", shown("shop.service", {}), re.MULTILINE)
    assert int(unit) > 2 * grace(COMMANDS["devserver"].split())


def grace(words: list[str]) -> int:
    """The seconds of `--timeout-graceful-shutdown`."""
    return int(words[words.index("--timeout-graceful-shutdown") + 1])


# several machines


@needs_nginx
def test_machines_are_taken_out_and_put_back(folder: Path) -> None:
    """No request is lost; and if a machine dies, the other one answers."""
    places = [free_place(), free_place()]
    lines = re.findall(r"^    (server 10\..*;)$", shown("balancer", {}), re.MULTILINE)
    assert len(lines) == len(places)
    lines = [re.sub(r"10\S+", place, line) for line, place in zip(lines, places, strict=True)]
    with contextlib.ExitStack() as machines:
        servers = [machines.enter_context(machine(place, folder)) for place in places]
        for server in servers:
            server.serving()
        nginx = machines.enter_context(behind_nginx(folder, "many", **{"server many;": "\n    ".join(lines)}))
        with Customers(partial(ask, nginx)) as customers:
            for i, line in enumerate(lines):
                until_asked(servers[i], customers)
                nginx.reload(line, f"{line[:-1]} down;")
                assert servers[i].stop(signal.SIGTERM) == 0
                servers[i] = machines.enter_context(machine(places[i], folder))
                servers[i].serving()
                nginx.reload(f"{line[:-1]} down;", line)
            until_asked(servers[1], customers)
        assert set(customers.answers) == {200}
        assert not nginx.faults
        servers[0].process.kill()
        servers[0].process.wait()
        assert {ask(nginx, "GET")[0] for _ in range(4)} == {200}


def until_asked(server: DevServer, customers: Customers) -> None:
    """Wait until a server has answered customers."""
    pid = f" {server.process.pid} "
    eventually(lambda: any(pid in text for text in list(customers.pids)), "both answer")


def machine(place: str, folder: Path) -> DevServer:
    """A server as the page has it on each machine."""
    host, _, port = place.partition(":")
    words = shown("backend", {"10.0.0.11": host, "10.0.0.5": "127.0.0.1"}).split()
    return DevServer(command=[sys.executable, "-m", *words, "--port", port], cwd=folder)


# Django

CHECK = """
import sys
sys.modules["devserver"] = None  # it need not be installed
import django
from django.core.management import call_command
django.setup()
for line in {lines!r}:
    name, *arguments = line.removeprefix("python manage.py ").split()
    call_command(name, *arguments)
"""


@pytest.mark.django
def test_django(tmp_path: Path) -> None:
    """With the page's settings `check --deploy` finds nothing, and static files are collected."""
    project = make_stock(tmp_path)
    text = shown("settings.py", {"/srv/shop": str(tmp_path)})
    settings = project / "mysite/settings.py"
    settings.write_text(f"{settings.read_text()}\n{text}")
    program = CHECK.format(lines=shown("manage", {}).splitlines())
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "mysite.settings", "SECRET_KEY": secrets.token_urlsafe(50)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert (tmp_path / "static/polls/style.css").exists()
