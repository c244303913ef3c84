"""What a person does at the terminal: keys, signals, and talking with the application."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.process import DevServer, save
from tests.live.projects import PROJECTS, answer
from tests.live.terminal import OnTerminal

pytestmark = pytest.mark.live

QUICK = ("--reload", "--reload-grace", "0.2")


def test_r_restarts_and_q_quits(tmp_path: Path) -> None:
    PROJECTS["asgi"].make(tmp_path)
    with OnTerminal("app:app", *QUICK, cwd=tmp_path) as server:
        server.serving()
        first = server.child
        server.types("r\n")
        assert server.restarted()["reason"] == "r was pressed"
        assert server.child != first
        assert server.get("/").text == "one"
        server.types("nothing that it knows\n")
        for wish in ("h", "?"):
            server.types(f"{wish}\n")
        server.wait_log("R restarts and loads everything again")
        server.types("q\n")
        assert server.ended() == 0
        assert len(server.events("restart")) == 1
        assert server.events("stopped")
        assert server.echoes


def test_r_restarts_what_has_failed(tmp_path: Path) -> None:
    """What it failed for is mended where no save is seen."""
    path = PROJECTS["wsgi"].make(tmp_path)
    flag = tmp_path.parent / f"{tmp_path.name}-outside"
    path.write_text(f"import os\nassert os.path.exists({str(flag)!r}), 'no flag'\n{answer('up')}")
    with OnTerminal("app:application", *QUICK, cwd=tmp_path) as server:
        assert "no flag" in server.failed()["error"]
        flag.touch()
        server.types("r\n")
        assert server.restarted()["reason"] == "r was pressed"
        assert server.get("/").text == "up"
        server.types("q\n")
        assert server.ended() == 0


def test_hang_up_restarts(tmp_path: Path) -> None:
    """SIGHUP, as to any daemon, when there is no terminal that could have hung up; also after a failure."""
    path = PROJECTS["wsgi"].make(tmp_path)
    with DevServer("app:application", *QUICK, cwd=tmp_path) as server:
        server.serving()
        first = server.child
        server.process.send_signal(signal.SIGHUP)
        assert server.restarted()["reason"] == "SIGHUP"
        assert server.child != first
        save(path, "TEXT = (")
        server.failed()
        server.process.send_signal(signal.SIGHUP)
        assert server.wait("restart")["reason"] == "SIGHUP"
        save(path, answer("two"))
        server.serving()
        assert server.get("/").text == "two"
        assert server.stop() == 0


def test_no_keys_without_a_terminal(tmp_path: Path) -> None:
    """A pipe is the application's: what was written into it is still there when the application reads."""
    path = PROJECTS["wsgi"].make(tmp_path)
    path.write_text(answer("one", ask="import sys; global TEXT; TEXT = repr(sys.stdin.readline())"))
    with DevServer("app:application", *QUICK, cwd=tmp_path, stdin=subprocess.PIPE) as server:
        server.serving()
        assert server.process.stdin is not None
        with server.process.stdin as pipe:
            pipe.write(b"q\nr\n")
            pipe.flush()
            assert server.get("/").text == "'q\\n'"
        assert server.process.poll() is None
        assert not server.events("restart")
        assert server.stop() == 0


def test_a_line_for_the_application_is_not_taken(tmp_path: Path) -> None:
    path = PROJECTS["wsgi"].make(tmp_path)
    path.write_text(answer("one", ask="global TEXT; TEXT = input('your wish? ')"))
    with OnTerminal("app:application", *QUICK, cwd=tmp_path) as server:
        server.serving()
        for wish in ("q", "r"):
            with server.asking() as answered:
                server.is_asked("your wish? ")
                server.types(f"{wish}\n")
                assert answered().text == wish
        assert not server.events("restart")
        assert not server.events("stopped")
        server.types("r\n")  # afterwards the keys are the server's again
        assert server.restarted()["reason"] == "r was pressed"
        server.types("q\n")
        assert server.ended() == 0


READERS = {
    "readline": "import sys; print('wish? ', end='', flush=True); TEXT = sys.stdin.readline().strip()",
    "iteration": "import sys; print('wish? ', flush=True); TEXT = next(sys.stdin).strip()",
    "descriptor": "import os; print('wish? ', flush=True); TEXT = os.read(0, 100).decode().strip()",
    "password": "from getpass import getpass; TEXT = getpass('wish? ')",
    "program": "import subprocess; command = 'printf \"wish? \" >&2; read wish; echo $wish'; "
    "TEXT = subprocess.check_output(command, shell=True, text=True).strip()",
}


@pytest.mark.parametrize("reader", READERS)
def test_a_line_is_the_applications_however_it_reads(reader: str, tmp_path: Path) -> None:
    path = PROJECTS["wsgi"].make(tmp_path)
    path.write_text(answer("one", ask=f"global TEXT; {READERS[reader]}"))
    with OnTerminal("app:application", *QUICK, cwd=tmp_path) as server:
        server.serving()
        for wish in ("q", "r") * 2:
            with server.asking() as answered:
                server.is_asked("wish? ")
                server.types(f"{wish}\n")
                assert answered().text == wish
        assert not server.events("restart")
        assert not server.events("stopped")
        if reader != "password":  # at whose end the terminal drops what was typed
            with server.asking() as answered:
                server.is_asked("wish? ")
                server.types("mine\nr\n")
                assert answered().text == "mine"
            assert server.restarted()["reason"] == "r was pressed"
        server.types("q\n")
        assert server.ended() == 0


@pytest.mark.parametrize("name", ["asgi", "wsgi"])
def test_restart_waits_for_whoever_is_at_a_breakpoint(name: str, tmp_path: Path) -> None:
    """In the loop's thread and in another one."""
    project = PROJECTS[name]
    path = project.make(tmp_path)
    path.write_text(answer("one", ask="secret = 6 * 7; breakpoint()"))
    with OnTerminal(project.target, *QUICK, cwd=tmp_path) as server:
        server.serving()
        first = server.child
        with server.asking() as answered:
            server.reads("(Pdb) ")
            server.types("p secret\n")
            assert "42" in server.reads("(Pdb) ")
            save(path, answer("two"))
            server.reads("the restart waits: the application waits for a line from the terminal")
            server.types("p secret + 1\n")
            assert "43" in server.reads("(Pdb) ")
            server.types("c\n")
            assert answered().text == "one"
        assert server.wait("restart")["reason"] == "answer.py changed"
        server.serving()
        assert server.child != first
        assert server.get("/").text == "two"
        assert len(server.events("restart")) == 1
        assert server.echoes
        server.types("q\n")
        assert server.ended() == 0
        assert "was killed" not in server.log


KEYS = {
    "ipdb": ("import ipdb; ipdb.set_trace()", "ipdb>", "c\r"),
    "IPython": ("import IPython; IPython.embed(colors='nocolor')", "In [", "exit\r"),
    "pudb": ("import pudb; pudb.set_trace()", "PuDB", "c"),
    "getpass": ("import getpass; getpass.getpass('secret? ')", "secret? ", "mine\n"),
}


@pytest.mark.parametrize("name", KEYS)
def test_restart_waits_for_whoever_reads_keys(name: str, tmp_path: Path) -> None:
    """These take the terminal out of its lines, and call no `input`."""
    pytest.importorskip(name)
    statement, prompt, leave = KEYS[name]
    project = PROJECTS["wsgi"]
    path = project.make(tmp_path)
    path.write_text(answer("one", ask=statement))
    home = tmp_path.with_name(f"{tmp_path.name}-home")  # what they write there is none of the project's
    (home / "pudb").mkdir(parents=True)
    (home / "pudb/pudb.cfg").write_text("[pudb]\nseen_welcome = e999\n")
    env = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    with OnTerminal(project.target, *QUICK, cwd=tmp_path, env=env) as server:
        server.serving()
        with server.asking() as answered:
            server.reads(prompt)
            save(path, answer("two"))
            server.reads("the restart waits: the application reads the terminal")
            server.types(leave)
            assert answered().text == "one"
        server.restarted()
        assert server.get("/").text == "two"


BASH = """
import os, shlex, sys
os.environ["SERVE"] = shlex.join([sys.executable, "-m", "devserver", *sys.argv[1:]])
os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_a_job_that_comes_to_the_foreground_takes_keys(tmp_path: Path) -> None:
    """Started in the background it finds the terminal as the shell has it to edit a line."""
    path = PROJECTS["asgi"].make(tmp_path)
    path.write_text(answer("one"))
    program = (sys.executable, "-c", BASH)
    env = {"PS1": "prompt> ", "TERM": "xterm"}
    with OnTerminal("app:app", *QUICK, cwd=tmp_path, program=program, env=env) as server:
        server.reads("prompt> ")
        server.types("$SERVE &\n")
        server.serving()
        assert not server.echoes, "the trap is not set"
        save(path, answer("two"))
        server.restarted()
        assert not server.echoes, "it belongs to the shell"
        server.types("fg\n")
        while os.tcgetpgrp(server.master) == server.supervisor:  # which is the shell
            server.idle(0.05)
        server.types("r\n")
        assert server.restarted()["reason"] == "r was pressed"
        save(path, answer("three"))
        server.restarted()
        assert server.echoes
        server.types("q\n")
        server.wait("stopped")
        server.reads("prompt> ")
        server.types("exit\n")
        server.ended()
