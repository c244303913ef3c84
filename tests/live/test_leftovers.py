"""However it ends, nothing of it is left: no process, no listener, no terminal without echo."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.leftovers import MARK, nothing_is_left
from tests.live.process import DevServer, descendants, gone, save
from tests.live.projects import PROJECTS, answer
from tests.live.terminal import OnTerminal

pytestmark = pytest.mark.live

# One that ends when asked to and one that does not, and a child of it; none in a session of its own.
PROGRAMS = """
import subprocess
subprocess.Popen(["sleep", "1000"])
subprocess.Popen(["sh", "-c", "trap '' HUP INT TERM; sleep 1000; sleep 1000"])
"""

NOT_SERVING = {
    "failure": "TEXT = (",
    "load": "import time; time.sleep(1000)",
    # In C, without ever looking up: no signal handler and no thread of Python's gets its turn.
    "load that holds the GIL": "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')",
}

STARTS = {"alone": "", "with programs": PROGRAMS}


def kill_supervisor(server: DevServer) -> None:
    os.kill(server.supervisor, signal.SIGKILL)


def kill_both(server: DevServer) -> None:
    """As far as two calls are one moment; the child is the one that could have helped."""
    os.kill(server.child, signal.SIGKILL)
    os.kill(server.supervisor, signal.SIGKILL)


def terminate_supervisor(server: DevServer) -> None:
    """As an IDE stops what it has started."""
    os.kill(server.supervisor, signal.SIGTERM)


def hang_up(server: DevServer) -> None:
    """The terminal's window is closed."""
    assert isinstance(server, OnTerminal)
    server.hangs_up()


ENDS: dict[str, Callable[[DevServer], None]] = {
    "supervisor killed": kill_supervisor,
    "both killed": kill_both,
    "supervisor terminated": terminate_supervisor,
    "terminal closed": hang_up,
}


@pytest.mark.parametrize(
    ("end", "programs"),
    [("supervisor killed", "alone"), ("terminal closed", "alone"), *((end, "with programs") for end in ENDS)],
)
def test_nothing_is_left_of_what_served(end: str, programs: str, tmp_path: Path) -> None:
    path = PROJECTS["asgi"].make(tmp_path)
    path.write_text(answer("one") + STARTS[programs])
    mark = secrets.token_hex(8)
    with OnTerminal("app:app", "--reload", cwd=tmp_path, env={MARK: mark}) as server:
        server.serving()
        assert server.get("/").text == "one"
        with nothing_is_left(server, mark) as before:
            assert len(before) >= (6 if programs == "with programs" else 3)
            ENDS[end](server)


@pytest.mark.parametrize(
    ("what", "end"),
    [
        ("failure", "terminal closed"),
        ("failure", "supervisor killed"),
        ("load", "supervisor terminated"),
        ("load", "supervisor killed"),
        ("load that holds the GIL", "supervisor terminated"),
        ("load that holds the GIL", "supervisor killed"),
    ],
)
def test_nothing_is_left_of_what_did_not_serve(what: str, end: str, tmp_path: Path) -> None:
    path = PROJECTS["wsgi"].make(tmp_path)
    path.write_text(NOT_SERVING[what])
    mark = secrets.token_hex(8)
    patience = "20" if what == "failure" else "0.2"  # a busy machine takes a while to fail, too
    arguments = ["--reload", "--load-timeout", patience, "--timeout-graceful-shutdown", "1"]
    with OnTerminal("app:application", *arguments, cwd=tmp_path, env={MARK: mark}) as server:
        server.listening()
        assert server.get("/").status == (500 if what == "failure" else 503)
        with nothing_is_left(server, mark):
            ENDS[end](server)


@pytest.mark.parametrize("end", [*ENDS, "child killed"])
def test_terminal_echoes_after_a_breakpoint(end: str, tmp_path: Path) -> None:
    """A line editor has switched the echo off, and is not there any more to switch it on."""
    path = PROJECTS["asgi"].make(tmp_path)
    path.write_text(answer("one", ask="import readline; breakpoint()"))
    mark = secrets.token_hex(8)
    arguments = ["--reload", "--timeout-graceful-shutdown", "1"]
    with OnTerminal("app:app", *arguments, cwd=tmp_path, env={MARK: mark}) as server:
        server.serving()
        assert server.echoes
        with server.asking():
            server.reads("(Pdb) ")
            assert not server.echoes, "the trap is not set"
            if end == "child killed":
                os.kill(server.child, signal.SIGKILL)
                assert "SIGKILL" in server.restarted()["reason"]
                assert server.echoes
                return
            with nothing_is_left(server, mark):
                ENDS[end](server)
        if end != "terminal closed":
            assert server.echoes


def test_nothing_is_left_of_a_supervisor_that_has_threads(tmp_path: Path) -> None:
    """It cannot fork; what it starts instead knows the terminal, too."""
    path = PROJECTS["asgi"].make(tmp_path)
    path.write_text(answer("one", ask="import readline; breakpoint()") + PROGRAMS)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, threading\n"
        "if 'DEVSERVER_RUN_MAIN' not in os.environ:\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    mark = secrets.token_hex(8)
    env = {MARK: mark, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    with OnTerminal("app:app", "--reload", cwd=tmp_path, env=env) as server:
        server.serving()
        assert len(list(Path(f"/proc/{server.supervisor}/task").iterdir())) > 1, "the trap is not set"
        with server.asking():
            server.reads("(Pdb) ")
            assert not server.echoes, "the trap is not set"
            with nothing_is_left(server, mark):
                kill_supervisor(server)
        assert server.echoes


def test_killed_child_leaves_nothing_but_its_successor(tmp_path: Path) -> None:
    path = PROJECTS["wsgi"].make(tmp_path)
    path.write_text(answer("one") + PROGRAMS)
    mark = secrets.token_hex(8)
    with DevServer("app:application", "--reload", cwd=tmp_path, env={MARK: mark}) as server:
        server.serving()
        # The spare is not among them: it lives on as the successor.
        below = {server.child, *descendants(server.child)}
        os.kill(server.child, signal.SIGKILL)
        for pid in below:
            gone(pid)
        server.restarted()
        assert server.get("/").text == "one"
        with nothing_is_left(server, mark):
            terminate_supervisor(server)


def test_a_program_that_was_there_before_is_none_of_ours(tmp_path: Path) -> None:
    """A shell that begins another program and then becomes the server: `npm run watch & exec devserver …`.

    What a generation starts ends with it all the same.
    """
    path = PROJECTS["wsgi"].make(tmp_path)
    started = "import subprocess\nPID = subprocess.Popen(['sleep', '1000']).pid\n"
    path.write_text(f"{started}{answer('one')}open('started', 'w').write(str(PID))\n")
    script = 'sleep 1000 & echo $! > before; exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "devserver"]
    with DevServer("app:application", "--reload", command=command, cwd=tmp_path) as server:
        server.serving()
        before, ours = (int((tmp_path / name).read_text()) for name in ("before", "started"))
        try:
            save(path, f"{started}{answer('two')}")
            server.restarted()
            assert server.get("/").text == "two"
            gone(ours)
            os.kill(before, 0)
            assert server.stop() == 0
            os.kill(before, 0)
        finally:
            os.kill(before, signal.SIGKILL)


@pytest.mark.parametrize("end", ["child killed", "restart", "supervisor terminated", "supervisor killed"])
def test_shared_memory_goes_with_its_generation(end: str, tmp_path: Path) -> None:
    """`multiprocessing` has a process remove what is left of it, which must be let do so."""
    path = PROJECTS["wsgi"].make(tmp_path)
    memory = (
        "\nfrom multiprocessing import shared_memory\n"
        "MEMORY = shared_memory.SharedMemory(create=True, size=1000)\nTEXT = MEMORY.name\n"
    )
    path.write_text(answer("one") + memory)
    mark = secrets.token_hex(8)
    with DevServer("app:application", "--reload", cwd=tmp_path, env={MARK: mark}) as server:
        server.serving()
        shared = Path("/dev/shm", server.get("/").text)
        assert shared.exists()
        if end.startswith("supervisor"):
            with nothing_is_left(server, mark):
                (kill_supervisor if end == "supervisor killed" else terminate_supervisor)(server)
        else:
            if end == "restart":
                save(path, answer("two") + memory)
            else:
                os.kill(server.child, signal.SIGKILL)
            server.restarted()
            below = descendants(server.supervisor)
            second = Path("/dev/shm", server.get("/").text)
            assert second.exists()
            server.stop()
            for pid in below:
                gone(pid)
            assert not second.exists()
        assert not shared.exists()
