"""Programs that run beside the server: their order, their environment, their lines, and their ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live.leftovers import MARK, nothing_is_left
from tests.live.polls import make, runserver
from tests.live.process import DevServer, gone, save
from tests.live.terminal import OnTerminal

pytestmark = pytest.mark.live

APP = """
import jobs

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": jobs.NAME.encode()})
"""

QUICK = ("app:app", "--reload", "--lifespan", "off")

STUBBORN = """
import os, signal, sys
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
if sys.argv[1:]:
    signal.signal(signal.SIGTERM, lambda *_: print("terminated", flush=True))
read, write = os.pipe()
if os.fork() == 0:
    os.setpgrp()  # as `timeout` does
    with open("deep", "w") as file:
        file.write(str(os.getpid()))
    os.close(write)
else:
    os.close(write)
    os.read(read, 1)
    print("up", os.isatty(1), flush=True)
while True:
    signal.pause()
"""
"""It heeds SIGTERM, or with an argument nothing. It starts another one, in a process group of its own."""


def table(name: str, command: object, **keys: object) -> str:
    """One companion of [tool.devserver.run]; what is written for TOML is the same in JSON."""
    lines = [f"[tool.devserver.run.{name}]", f"command = {json.dumps(command)}"]
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]) + "\n"


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of two modules."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "jobs.py").write_text("NAME = 'one'\n")
    return tmp_path


def order(server: DevServer) -> list[tuple[str, Any]]:
    """What has happened so far to companions and to the application."""
    names = ("companion_started", "companion_exited", "loaded", "serving")
    return [(each["event"], each.get("companion")) for each in server.seen if each["event"] in names]


def test_before_the_application_and_when_it_serves(folder: Path) -> None:
    """The application waits for a program's work; what comes after it in the table waits, too."""
    os.mkfifo(folder / "gate")
    (folder / ".env").write_text("FROM_FILE=file\nREAL=file\n")
    names = ("FROM_FILE", "REAL", "OWN", "DEVSERVER_URL", "RUN_MAIN")
    show = python(f"import os; print(*map(os.environ.get, {names}))")
    (folder / "pyproject.toml").write_text(
        table("late", "exec sleep 1000", start="serving")
        + table("db", "echo waits; cat gate", once=True)
        + table("show", show, once=True)
        + 'env = { OWN = "table" }\n'
    )
    with DevServer(*QUICK, "--env-file", ".env", cwd=folder, env={"REAL": "real"}) as server:
        url = server.listening()
        server.wait("companion_started", companion="db")
        server.wait_log("the application waits for db and show of")
        assert order(server) == [("companion_started", "db")]
        with server.asking() as answer:
            (folder / "gate").write_text("up")
            server.wait("companion_started", companion="late")
            assert answer().text == "one"
        assert order(server) == [
            ("companion_started", "db"),
            ("companion_exited", "db"),
            ("companion_started", "show"),
            ("companion_exited", "show"),
            ("loaded", None),
            ("serving", None),
            ("companion_started", "late"),
        ]
        assert "db   | waits\n" in server.log
        assert "db   | up\n" in server.log
        assert "still loading: the application waits for db and show of [tool.devserver.run]" in server.log
        assert f"show | file real table {url} None\n" in server.log
        assert "devserver: db is done" in server.log
        assert server.stop() == 0
        assert server.events("companion_exited")[-1]["wanted"] is True
        assert server.seen[-1]["event"] == "stopped"


def test_a_failure_of_what_the_application_waits_for(folder: Path) -> None:
    """It is named, tried again, and mended by a save of pyproject.toml; the browser is told."""
    (folder / "pyproject.toml").write_text(table("db", "echo no; exit 3", once=True))
    with DevServer(*QUICK, "--load-timeout", "0.5", cwd=folder) as server:
        server.listening()
        exited = server.wait("companion_exited", companion="db")
        assert (exited["code"], exited["wanted"], exited["pause"]) == (3, False, 1.0)
        server.wait("companion_exited", companion="db", pause=2.0)
        answer = server.get()
        assert answer.status == 503
        assert "the application waits for db" in answer.text
        assert "db exited with code 3; the application waits for it; starting it again in 1 s" in server.log
        save(folder / "pyproject.toml", table("db", "echo yes", once=True))
        server.serving()
        assert server.get().text == "one"


def test_restarts_by_patterns_and_with_the_application(folder: Path) -> None:
    (folder / "tasks").mkdir()
    tasks = folder / "tasks" / "mail.py"
    tasks.write_text("A = 1\n")
    background = "(sleep 1000 & echo $! > orphan); exec sleep 1000"  # its parent is the supervisor
    (folder / "pyproject.toml").write_text(
        table("worker", "exec sleep 1000", watch=["tasks/**/*.py"])
        + table("celery", "exec sleep 1000", restart=True)
        + table("vite", background)
    )
    with DevServer(*QUICK, cwd=folder) as server:
        server.serving()
        started = {each["companion"]: each["pid"] for each in server.events("companion_started")}
        assert list(started) == ["worker", "celery", "vite"]
        save(tasks, "A = 2\n")
        assert server.wait("companion_exited", companion="worker")["wanted"] is True
        server.wait("companion_started", companion="worker")
        assert "devserver: tasks/mail.py changed: restarting worker\n" in server.log
        assert not server.events("restart")
        save(folder / "jobs.py", "NAME = 'two'\n")
        server.restarted()
        server.wait("companion_started", companion="celery")
        assert "devserver: restarting celery with the application\n" in server.log
        assert server.get().text == "two"
        assert len(server.events("companion_started")) == 5
        # Another table: one is left out, one is another, one is new.
        tables = table("celery", "exec sleep 1001"), table("vite", background), table("new", ["cat"])
        save(folder / "pyproject.toml", "".join(tables))
        exited = {server.wait("companion_exited")["companion"] for _ in range(2)}
        assert exited == {"worker", "celery"}
        assert "devserver: ending worker: its table is gone\n" in server.log
        server.wait("companion_started", companion="celery")
        assert len(server.events("companion_started")) == 7
        orphan = int((folder / "orphan").read_text())
        for pid in (started["vite"], orphan):
            os.kill(pid, 0)
        assert server.stop() == 0
        gone(orphan)


def test_ctrl_c_is_heard_once_and_nothing_is_left(folder: Path) -> None:
    """In a terminal: colours stay, and each program is asked to end by one SIGINT, then more firmly."""
    colored = python("print('\\x1b[32mgreen\\x1b[2J\\ncut', end='')")
    (folder / "pyproject.toml").write_text(
        table("stubborn", python(STUBBORN), grace=0.3) + table("short", colored, once=True, start="serving")
    )
    with OnTerminal(*QUICK, cwd=folder, env={MARK: str(folder), "NO_COLOR": "", "TERM": "xterm"}) as server:
        server.serving()
        server.wait("companion_exited", companion="short")
        server.wait_log("stubborn |\x1b[0m up True")
        name = "\x1b[33mshort    |\x1b[0m"
        server.wait_log(f"{name} \x1b[32mgreen\x1b[0m\r\n{name} cut\r\n")
        with nothing_is_left(server, str(folder)) as processes:
            assert len(processes) > 4
            server.types("\x03")
            assert server.ended() == 0
        assert server.log.count("interrupted") == 1
        assert server.events("companion_exited")[-1]["code"] == -signal.SIGTERM


def test_the_terminal_is_not_a_companions(folder: Path) -> None:
    """What would ask for a password there is told that there is none. The kernel does not stop it."""
    (folder / "pyproject.toml").write_text(table("ask", "read word < /dev/tty; echo not stopped", once=True))
    with OnTerminal(*QUICK, cwd=folder) as server:
        server.serving()
        assert "not stopped" in server.log
        assert server.stop() == 0


def test_a_second_ctrl_c_hurries(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(table("stubborn", python(STUBBORN, "heeds nothing"), grace=3600))
    with DevServer(*QUICK, cwd=folder, env={MARK: str(folder)}) as server:
        server.serving()
        server.wait_log("stubborn | up False")
        with nothing_is_left(server, str(folder)):
            server.process.send_signal(signal.SIGINT)
            server.wait_log("stubborn | interrupted")
            server.wait_log("waiting for stubborn to end, up to 359")
            assert server.stop() == 0
        assert server.events("companion_exited")[-1]["code"] == -signal.SIGKILL


def test_nothing_is_left_when_the_supervisor_is_killed(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(table("stubborn", python(STUBBORN, "heeds nothing")))
    with DevServer(*QUICK, cwd=folder, env={MARK: str(folder)}) as server:
        server.serving()
        server.wait_log("stubborn | up False")
        with nothing_is_left(server, str(folder)):
            server.process.kill()


def test_one_that_dies_leaves_nothing_behind_and_is_started_again(folder: Path) -> None:
    """The application's own programs are left alone meanwhile, though their parents may have ended."""
    orphan = "import subprocess\nsubprocess.run('sleep 1000 & echo $! > orphan', shell=True)\n"
    (folder / "app.py").write_text(orphan + APP)
    fork = f"{sys.executable} -c '{STUBBORN}' & echo $! > child; read line"
    (folder / "pyproject.toml").write_text(table("leader", ["sh", "-c", fork]))
    with DevServer(*QUICK, "--restart", "cold", cwd=folder) as server:
        server.serving()
        server.wait_log("leader | up False")
        pid = server.events("companion_started")[0]["pid"]
        child, deep, own = (int((folder / name).read_text()) for name in ("child", "deep", "orphan"))
        os.kill(pid, signal.SIGKILL)
        exited = server.wait("companion_exited")
        assert (exited["code"], exited["pause"]) == (-signal.SIGKILL, 1.0)
        gone(child)
        gone(deep)
        os.kill(own, 0)
        server.wait("companion_started")
        assert "devserver: error: leader was ended by SIGKILL; starting it again in 1 s\n" in server.log


def test_one_that_cannot_be_started_is_named_and_mended_by_a_save(folder: Path) -> None:
    """Its table may come later than the server."""
    with DevServer(*QUICK, cwd=folder) as server:
        server.serving()
        save(folder / "pyproject.toml", table("vite", ["no-such-program"]))
        failed = server.wait("companion_failed")
        assert (failed["error"], failed["pause"]) == ("no-such-program: No such file or directory", 1.0)
        assert "[tool.devserver.run.vite] in pyproject.toml: no-such-program: No such file" in server.log
        save(folder / "pyproject.toml", table("vite", "no-such-program"))
        assert server.wait("companion_exited")["code"] == 127
        server.wait_log("vite exited with code 127, by which a shell says that it does not find a command")


def test_one_that_prints_without_pause_holds_up_nobody(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(table("yes", "yes") + table("slow", python("input('name? ')")))
    with DevServer(*QUICK, cwd=folder) as server:
        server.serving()
        server.wait_log("yes  | y\nyes  | y\n")
        server.wait_log("slow | name? \n")
        save(folder / "jobs.py", "NAME = 'two'\n")
        server.restarted()
        assert server.get().text == "two"
        assert not server.events("companion_exited")  # their standard input has not ended
        assert server.stop() == 0
        assert {line for line in server.log.splitlines() if line.startswith("yes")} == {"yes  | y"}


@pytest.mark.parametrize("options", [("--no-companions", "--reload"), ()])
def test_without(folder: Path, options: tuple[str, ...]) -> None:
    """Left out by an option, or for want of --reload, which is said."""
    (folder / "pyproject.toml").write_text(table("vite", "exec sleep 1000"))
    with DevServer("app:app", *options, cwd=folder) as server:
        server.serving()
        assert not server.events("companion_started")
        assert ("without --reload no companion runs beside the server: vite" in server.log) is (not options)


@pytest.mark.django
def test_manage_py_runserver_has_them(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        table("css", "echo $RUN_MAIN-$DEVSERVER_PROGRAM; exec sleep 1000")
    )
    with runserver(tmp_path) as server:
        server.serving()
        assert server.events("companion_started")[0]["companion"] == "css"
        assert "css | -css\n" in server.log
        assert server.stop() == 0
        assert server.events("companion_exited")[-1]["wanted"] is True
