"""What ends a start at once, and says what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.process import DevServer
from tests.live.projects import PROJECTS, answer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

RELOAD = pytest.mark.parametrize("reload", [["--reload"], []], ids=["reload", "alone"])


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start a server that is to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "devserver", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@RELOAD
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_port_in_use_ends_it_and_names_the_holder(host: str, reload: list[str], tmp_path: Path) -> None:
    PROJECTS["asgi"].make(tmp_path)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        ended = run(tmp_path, "app:app", *reload, "--host", host, "--port", port)
    assert ended.returncode == 1
    assert f"port {port}" in ended.stderr
    assert f"(pid {os.getpid()})" in ended.stderr
    assert "--port auto" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_port_held_by_another_devserver_names_that(tmp_path: Path) -> None:
    PROJECTS["asgi"].make(tmp_path)
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        ended = run(tmp_path, "app:app", "--port", str(server.port))
        assert ended.returncode == 1
        assert "-m devserver app:app" in ended.stderr
        assert server.get("/").text == "one"


def test_auto_takes_the_next_free_port(tmp_path: Path) -> None:
    PROJECTS["asgi"].make(tmp_path)
    with DevServer("app:app", "--port", "auto", cwd=tmp_path) as first:
        first.serving()
        with DevServer("app:app", "--port", "auto", cwd=tmp_path) as second:
            second.serving()
            assert 8000 <= first.port < second.port
            assert first.get("/").text == second.get("/").text == "one"


def test_unix_socket_in_use_and_one_that_was_left_behind(tmp_path: Path) -> None:
    PROJECTS["asgi"].make(tmp_path)
    place = Path("/tmp", f"devserver-port-{os.getpid()}.sock")
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind(str(place))
        holder.listen()
        ended = run(tmp_path, "app:app", "--uds", str(place))
        assert ended.returncode == 1
        assert "in use" in ended.stderr
    assert place.exists()
    with DevServer("app:app", "--uds", str(place), cwd=tmp_path) as server:
        server.serving()
        assert server.get("/").text == "one"
        assert server.stop() == 0
    assert not place.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reload-dir", "missing"], "missing"),
        (["--env-file", "missing.env"], "missing.env"),
        (["--no-such-option"], "--no-such-option"),
        (["--port", "eighty"], "eighty"),
        (["--debugger"], "--debugger is not supported"),
        (["--fd", "999"], "999"),
        (["--reload", "--fd", "999"], "999"),
    ],
)
def test_usage_errors_end_it_with_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    PROJECTS["asgi"].make(tmp_path)
    ended = run(tmp_path, "app:app", *arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "listening" not in ended.stderr


def test_unreadable_key_in_the_file_ends_it_with_2(tmp_path: Path) -> None:
    PROJECTS["asgi"].make(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.devserver]\nprot = 8000\n")
    ended = run(tmp_path, "app:app", "--reload")
    assert ended.returncode == 2
    assert "prot" in ended.stderr
    assert "pyproject.toml" in ended.stderr


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("app.py:ap", "did you mean 'app'"),
        ("nothing.like.it:app", "there is no module"),
    ],
)
def test_target_that_cannot_be_loaded(target: str, said: str, tmp_path: Path) -> None:
    """Without --reload it ends with 1, with near misses; with --reload it says the same, and waits."""
    PROJECTS["asgi"].make(tmp_path)
    ended = run(tmp_path, target, "--port", "0")
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    with DevServer(target, "--reload", cwd=tmp_path) as server:
        assert said in server.failed()["error"]
        page = server.get("/")
        assert page.status == 500
        assert said in page.text
        assert server.process.poll() is None
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_missing_target_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "answer.py").write_text(answer("one"))
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        assert "there is no module 'app'" in server.failed()["error"]
        (tmp_path / "app.py").write_text(PROJECTS["asgi"].source)
        assert server.restarted()["reason"] == "app.py changed"
        assert server.get("/").text == "one"


@RELOAD
def test_nothing_to_serve(reload: list[str], tmp_path: Path) -> None:
    if not reload:
        ended = run(tmp_path, "--port", "0")
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        return
    with DevServer("--reload", cwd=tmp_path) as server:
        server.failed()
        (tmp_path / "answer.py").write_text(answer("one"))
        (tmp_path / "main.py").write_text(PROJECTS["wsgi"].source)
        server.restarted()
        assert server.get("/").text == "one"
