"""More connections than a process may have descriptors: they wait, but none is lost."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.live.process import DevServer, save
from tests.live.projects import PROJECTS, answer
from tests.patience import DEADLINE

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1024,
        reason="the hard limit leaves no room to raise a soft one",
    ),
]

SOFT = 64
COMMAND = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({SOFT}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.execv(sys.executable, [sys.executable, "-m", "devserver", *sys.argv[1:]])
"""

APP = """
import resource, subprocess

TEXT = {text!r}
own = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
program = int(subprocess.check_output("ulimit -Sn", shell=True))

async def app(scope, receive, send):
    body = f"{{TEXT}} {{own}} {{program}}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})
"""


@contextmanager
def limited(folder: Path, *arguments: str) -> Iterator[DevServer]:
    save(folder / "app.py", APP.format(text="one"))
    command = [sys.executable, "-c", COMMAND]
    with DevServer("app", "--lifespan", "off", *arguments, cwd=folder, command=command) as server:
        server.serving()
        yield server


def ask(clients: list[socket.socket]) -> None:
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def answers(clients: list[socket.socket], count: int) -> dict[socket.socket, str]:
    """The bodies of so many answers, by client; each must come whole and on a connection that lives."""
    got: dict[socket.socket, str] = {}
    end = time.monotonic() + DEADLINE
    while len(got) < count:
        waiting = [client for client in clients if client not in got]
        ready, _, _ = select.select(waiting, [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{len(got)} of {count} answers came"
        for client in ready:
            answer = client.recv(65536).decode()
            assert answer.startswith("HTTP/1.1 "), answer
            got[client] = answer.rpartition("\r\n")[2]
    return got


def test_connections_go_over_and_none_is_lost(tmp_path: Path) -> None:
    """Each process holds as many as it can, and the next one gets those beside what it has accepted."""
    with limited(tmp_path, "--reload", "--timeout-keep-alive", "60") as server, ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((server.host, server.port), DEADLINE))
            for _ in range(100)
        ]
        ask(clients)
        inside = answers(clients, 30)
        assert set(inside.values()) == {f"one {SOFT} {SOFT}"}
        save(tmp_path / "app.py", "TEXT = (")
        server.failed()
        ask(list(inside))
        assert all("SyntaxError" in text for text in answers(list(inside), len(inside)).values())
        save(tmp_path / "app.py", APP.format(text="two"))
        server.serving()
        ask(list(inside))
        assert set(answers(list(inside), len(inside)).values()) == {f"two {SOFT} {SOFT}"}
        for client in inside:
            client.close()
        outside = [client for client in clients if client not in inside]
        while outside:
            got = answers(outside, 1)
            for client in got:
                client.close()
            outside = [client for client in outside if client not in got]
        assert len(server.events("failed")) == 1
        assert not [event for event in server.events("restart") if "process" in event["reason"]]
        assert server.stop() == 0


def test_a_worker_that_has_all_it_may_is_given_connections(tmp_path: Path) -> None:
    """Two hold 60, which is more than one may open; the one that ends gives its own to the other."""
    options = ("--workers", "2", "--timeout-keep-alive", "3600")
    with limited(tmp_path, *options) as server, ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((server.host, server.port), DEADLINE))
            for _ in range(60)
        ]
        ask(clients)
        assert set(answers(clients, 60).values()) == {f"one {SOFT} {SOFT}"}
        ended = server.events("worker_started")[0]["pid"]
        os.kill(ended, signal.SIGTERM)
        server.wait("worker_exited", pid=ended)
        ask(clients)
        assert set(answers(clients, 60).values()) == {f"one {SOFT} {SOFT}"}
        assert len(server.events("worker_exited")) == 1


def test_a_python_that_knows_no_pidfds_restarts_from_nothing(tmp_path: Path) -> None:
    """One that was built where the kernel's headers were old."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import os\nvars(os).pop('pidfd_open', None)\n")
    project = PROJECTS["asgi"]
    path = project.make(tmp_path)
    with DevServer(project.target, "--reload", cwd=tmp_path, env={"PYTHONPATH": str(site)}) as server:
        server.serving()
        for text in ("two", "three"):
            save(path, answer(text))
            assert server.restarted()["kind"] == "cold"
            assert server.get("/").text == text
        assert server.stop() == 0
