"""What no save mends: a process that dies, a service that is not up yet."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.process import Answer, DevServer, gone, save
from tests.live.projects import PROJECTS, answer

pytestmark = pytest.mark.live

RETRIED = 2.0
"""Seconds: a failed start is tried again for a request at most so often."""


@pytest.mark.parametrize("name", ["asgi", "wsgi"])
def test_killed_process_is_started_again_by_itself_twice(name: str, tmp_path: Path) -> None:
    project = PROJECTS[name]
    path = project.make(tmp_path)
    with DevServer(project.target, "--reload", cwd=tmp_path) as server:
        for generation in (1, 2, 3):
            assert server.serving()["generation"] == generation
            assert server.get("/").text == "one"
            os.kill(server.child, signal.SIGKILL)
            gone(server.child)
        failed = server.failed()
        assert failed["phase"] == "crash"
        assert failed["error"] == "the application's process was ended by SIGKILL while it served"
        page = server.get("/")
        assert page.status == 500
        assert failed["error"] in page.text
        save(path, answer("two"))
        assert until_answered(server).text == "two"
        reasons = [event["reason"] for event in server.events("restart")]
        assert reasons[:2] == ["the application's process was ended by SIGKILL"] * 2
        assert len(server.events("failed")) == 1
        assert server.stop() == 0
        assert server.log.count("SIGKILL while it served; starting it again") == 2


def test_process_that_ends_itself_is_started_again(tmp_path: Path) -> None:
    """os._exit(3) is the code of a wanted restart, but nobody announced one."""
    path = PROJECTS["asgi"].make(tmp_path)
    path.write_text(answer("one", ask="import os; os._exit(3)"))
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        for _ in range(3):
            server.serving()
            with pytest.raises((ConnectionError, OSError)):
                server.get("/")
        assert "exited with code 3 while it served" in server.failed()["error"]
        save(path, answer("two"))
        server.restarted()
        assert server.get("/").text == "two"


def test_request_that_waited_and_ends_the_process_is_not_repeated(tmp_path: Path) -> None:
    """It came right after a save, and so it was handed over to the new code. A POST is done once."""
    path = PROJECTS["asgi"].make(tmp_path)
    ends = "import os; open('asked', 'a').write('x'); os.kill(os.getpid(), 9)"
    # On one processor whoever is woken may well go on first.
    hasty = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        for number in range(6):
            save(path, hasty + answer(f"{number}", ask=ends))
            with pytest.raises((ConnectionError, OSError)):
                server.get("/")
            save(path, answer(f"{number}"))
            assert server.answered().text == f"{number}"
            assert (tmp_path / "asked").read_text() == "x" * (number + 1)


def test_application_that_ends_its_event_loop_is_started_again(tmp_path: Path) -> None:
    path = PROJECTS["asgi"].make(tmp_path)
    path.write_text(answer("one", ask="import asyncio; asyncio.get_running_loop().stop()"))
    with DevServer("app:app", "--reload", "--loop", "asyncio", cwd=tmp_path) as server:
        for generation in (1, 2, 3):
            assert server.serving()["generation"] == generation
            assert server.get("/").text == "one"
        assert "Event loop stopped" in server.failed()["error"]
        save(path, answer("two"))
        assert server.restarted()["generation"] == 4
        assert server.get("/").text == "two"


def test_page_that_is_killed_comes_back(tmp_path: Path) -> None:
    path = PROJECTS["asgi"].make(tmp_path)
    path.write_text("TEXT = (")
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.failed()
        assert server.get("/").status == 500
        for pid in pages(server):
            os.kill(pid, signal.SIGKILL)
            gone(pid)
        assert "SyntaxError" in server.get("/").text
        save(path, answer("two"))
        assert until_answered(server).text == "two"


def pages(server: DevServer) -> list[int]:
    """The processes that answer a request."""
    with server.connect() as connection:
        connection.request("GET", "/")
        connection.getresponse().read()
        local = connection.sock.getsockname()[1]
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {f"socket:[{row[9]}]" for row in rows if int(row[2].rpartition(":")[2], 16) == local}
        found = [pid for pid in server.processes() if sockets & set(descriptors(pid))]
    assert found
    return found


def descriptors(pid: int) -> Iterator[str]:
    """What a process has open."""
    with contextlib.suppress(OSError):  # ended meanwhile
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                yield str(fd.readlink())


def until_answered(server: DevServer) -> Answer:
    """Ask as a browser does whose user is impatient, until the application answers."""
    while (page := server.get("/")).status != 200:
        assert page.status == 500
    return page


@pytest.fixture
def service() -> Iterator[socket.socket]:
    """A port on which nobody listens yet, and nobody else can: connections are refused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


CONNECT = "import socket; socket.create_connection(('127.0.0.1', {port})).close()"


@pytest.mark.parametrize("where", ["load", "lifespan"])
def test_start_that_failed_for_a_service_heals_when_a_request_arrives(
    where: str, service: socket.socket, tmp_path: Path
) -> None:
    """No save happens here: `listen` is all that changes."""
    path = PROJECTS["asgi"].make(tmp_path)
    connect = CONNECT.format(port=service.getsockname()[1])
    path.write_text(answer("up", start=connect) if where == "lifespan" else f"{connect}\n{answer('up')}")
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        failed = server.failed()
        assert "ConnectionRefusedError" in failed["error"]
        assert failed["phase"] == where
        service.listen()
        first = server.get("/")
        if first.status == 500:
            assert "ConnectionRefusedError" in first.text
            server.serving()
            first = server.get("/")
        assert first.text == "up"
        assert [event["reason"] for event in server.events("restart")] == [
            "tried again, because a request came"
        ]
        assert not server.events("change")


def test_failed_start_is_tried_again_at_most_every_two_seconds(
    service: socket.socket, tmp_path: Path
) -> None:
    path = PROJECTS["wsgi"].make(tmp_path)
    path.write_text(CONNECT.format(port=service.getsockname()[1]) + "\n" + answer("up"))
    with DevServer("app:application", "--reload", cwd=tmp_path) as server:
        server.failed()
        while len(tries := [event["time"] for event in server.events("restart")]) < 2:
            assert server.get("/").status == 500
            server.idle(0.02)
        # The event comes after the decision, later on a busy machine. `test_machine` has the very seconds.
        assert tries[1] - tries[0] >= RETRIED / 2
        assert len(server.events("failed")) == 1  # the same failure is told once
        assert not server.events("serving")
