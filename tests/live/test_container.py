"""As the first process of a container, and below tini: signals, zombies, prints, the health check."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.managed import as_first_process
from tests.live.process import DevServer, descendants, save
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

APP = """
import os, subprocess
print("loaded by", os.getpid())

def app(environ, start_response):
    path, text = environ["PATH_INFO"], "fine"
    if path == "/orphan":  # its parent is gone when the pipe tells its number
        command = ["sh", "-c", f"(exec >&-; read line <{os.environ['FIFO']}) & echo $!"]
        text = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    elif path == "/code":
        text = str(subprocess.Popen(["sh", "-c", "exit 7"]).wait())
    print("asked for", path)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
"""

SLOW = """
import time
print("loading")
time.sleep(3600)
"""

HEALTH = re.search(
    r"^HEALTHCHECK CMD (.*)$",
    (Path(__file__).parents[2] / "docs" / "docker.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)

RELOAD = pytest.mark.parametrize("reload", [["--reload"], []], ids=["reload", "alone"])


@pytest.fixture(scope="module")
def container() -> list[str]:
    """A command that runs another one as PID 1."""
    return as_first_process()


@contextlib.contextmanager
def contained(
    container: list[str], folder: Path, *more: str, init: tuple[str, ...] = ()
) -> Iterator[DevServer]:
    """A server that is PID 1, or whose parent is: `init`."""
    command = [*container, *init, sys.executable, "-m", "devserver", "app:app", *more]
    env = {"PYTHONUNBUFFERED": "", "FIFO": str(folder / "fifo")}
    with DevServer(command=command, cwd=folder, env=env) as server:
        try:
            yield server
        finally:
            for pid in descendants(server.process.pid)[:1]:
                os.kill(pid, signal.SIGKILL)  # unshare itself heeds no SIGINT


def end(server: DevServer, signum: int) -> int:
    """Send a signal to PID 1, as `docker stop` does. Returns the exit code."""
    os.kill(descendants(server.process.pid)[0], signum)
    return server.ended()


def shells(server: DevServer) -> list[int]:
    """The shells below a server: orphans, dead or alive."""
    found = []
    for pid in server.processes():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "sh\n":
                found.append(pid)
    return found


@RELOAD
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("init", [(), ("tini", "--")], ids=["by itself", "tini"])
def test_in_a_container(
    init: tuple[str, ...], signum: int, reload: list[str], container: list[str], tmp_path: Path
) -> None:
    if init and not shutil.which(init[0]):
        pytest.skip(f"there is no {init[0]} here")
    (tmp_path / "app.py").write_text(APP)
    os.mkfifo(tmp_path / "fifo")
    with contained(container, tmp_path, *reload, init=init) as server:
        server.serving()
        server.wait_log("loaded by")
        if reload:
            save(tmp_path / "app.py", f"{APP}\n")
            server.restarted()
        assert server.get("/orphan").text.strip().isdigit()
        [orphan] = shells(server)
        assert server.get("/code").text == "7", "the exit code of the application's own child is its own"
        server.wait_log("asked for /code")
        (tmp_path / "fifo").write_text("end\n")  # heard by the orphan, which ends
        deadline = time.monotonic() + DEADLINE
        while Path(f"/proc/{orphan}").exists():
            assert time.monotonic() < deadline, "it is a zombie"
            server.idle(0.01)
        assert end(server, signum) == 0
        assert "killed" not in server.log, "it waited for the end of a grace"
        assert "Traceback" not in server.log


@RELOAD
def test_the_health_check_of_the_page(reload: list[str], tmp_path: Path) -> None:
    assert HEALTH is not None
    (tmp_path / "app.py").write_text(APP)
    with DevServer("app:app", *reload, cwd=tmp_path) as server:
        server.serving()
        command = HEALTH[1].replace("localhost:8000", f"{server.host}:{server.port}")
        check = [sys.executable, *shlex.split(command)[1:]]
        assert subprocess.run(check, check=False).returncode == 0
        if reload:
            save(tmp_path / "app.py", "app = (")
            server.failed()
            assert subprocess.run(check, stderr=subprocess.DEVNULL, check=False).returncode == 1


@RELOAD
def test_a_container_is_stopped_while_the_application_loads(
    reload: list[str], container: list[str], tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(SLOW)
    with contained(container, tmp_path, *reload) as server:
        server.wait_log("loading\n")
        assert end(server, signal.SIGTERM) == (0 if reload else 128 + signal.SIGTERM)


def test_signals_come_to_the_arbiter_of_a_container(container: list[str], tmp_path: Path) -> None:
    """PID 1, to which they are sent, is not the arbiter."""
    (tmp_path / "app.py").write_text("def app(environ, start_response): ...\n")
    with contained(container, tmp_path, "--workers", "2") as server:
        server.serving()
        os.kill(descendants(server.process.pid)[0], signal.SIGTTIN)
        server.wait("worker_serving", worker=3)
        os.kill(descendants(server.process.pid)[0], signal.SIGTTOU)
        server.wait("worker_exited", worker=3, wanted=True)
        assert end(server, signal.SIGTERM) == 0
