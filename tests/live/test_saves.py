"""No save is lost, and what is no change makes no restart.

That nothing happens is shown by what happens next: the thing that must not count is done first, then
a save that counts, and only that one is told.
"""

from __future__ import annotations

import os
import random
import select
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.process import DevServer, save
from tests.live.projects import PROJECTS, answer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

QUICK = ("--reload", "--reload-grace", "0.2")

APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [str(TEXT).encode()]
"""


# Saves during a load

SLOW = """
import os, time

import first
time.sleep({load})
import last

TEXT = first.A, last.B
with open({loads!r}, "w") as pipe:
    pipe.write(f"{{TEXT}}\\n")
"""


def wait_for_load(pipe: int, text: str) -> None:
    """Wait until an application that says this has been loaded, as far as its own last line."""
    end, loaded = time.monotonic() + DEADLINE, ""
    while f"{text}\n" not in loaded:
        ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{text} was never loaded; last were {loaded[-200:]}"
        loaded += os.read(pipe, 65536).decode()


def check_random_saves(count: int, load: float, folder: Path, seed: int = 3) -> None:
    """Save at random moments of a load that takes so many seconds; in the end the last save is served."""
    rng = random.Random(seed)
    first, last = folder / "first.py", folder / "last.py"
    first.write_text("A = 0\n")
    last.write_text("B = 0\n")
    loads = folder.parent / f"{folder.name}-loads"
    (folder / "app.py").write_text(SLOW.format(load=load, loads=str(loads)) + APP)
    os.mkfifo(loads)
    pipe = os.open(loads, os.O_RDWR)  # for writing too, so that there is no end of file
    numbers = {"A": 0, "B": 0}
    with DevServer("app:app", *QUICK, "--no-access-log", cwd=folder) as server:
        server.serving()
        for number in range(1, count + 1):
            name = rng.choice("AB")
            numbers[name] = number
            save(first if name == "A" else last, f"{name} = {number}\n")
            server.idle(rng.uniform(0, 1.2 * load))  # the moment of the next save
            if rng.random() < 0.1:
                assert server.get("/").text == str(tuple(numbers.values()))
        # First without a request, which would ask whether something changed.
        wait_for_load(pipe, str(tuple(numbers.values())))
        assert server.answered().text == str(tuple(numbers.values()))
        boots = len(server.events("serving"))
        assert 2 <= boots <= count + 1
        assert not server.events("failed")
    os.close(pipe)
    print(f"{count} saves at random moments of a load of {load} s: {boots} boots, the last save served")  # noqa: T201


def test_saves_at_random_moments_of_a_load(tmp_path: Path) -> None:
    check_random_saves(8, 0.3, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_saves_at_random_moments_of_a_load(tmp_path: Path) -> None:
    check_random_saves(200, 2.0, tmp_path)


def check_saves_while_it_begins_to_serve(count: int, folder: Path) -> None:
    """Save around the moment at which a generation that was loaded begins to serve, and ask at once."""
    path = PROJECTS["asgi"].make(folder)
    with DevServer("app:app", "--reload", "--no-access-log", cwd=folder) as server:
        server.serving()
        for number in range(count):
            save(path, answer(f"a{number}"))
            server.wait("loaded")
            server.idle(number % 12 * 0.001)  # the moment of the next save
            save(path, "TEXT = (" if number % 2 else answer(f"b{number}"))
            page = server.get("/")  # whoever accepts this connection answers, or hands it over
            assert page.text == f"b{number}" or (page.status == 500 and number % 2)
            server.forget()


def test_saves_while_it_begins_to_serve(tmp_path: Path) -> None:
    check_saves_while_it_begins_to_serve(24, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_saves_while_it_begins_to_serve(tmp_path: Path) -> None:
    check_saves_while_it_begins_to_serve(1000, tmp_path)


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0"]
    subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, timeout=DEADLINE, capture_output=True
    )


def test_checkout_of_many_files_is_at_most_two_boots(tmp_path: Path) -> None:
    count = 500
    modules = [tmp_path / "parts" / f"part{number}.py" for number in range(count)]
    modules[0].parent.mkdir()
    imports = "".join(f"from parts import part{number}\n" for number in range(count))
    total = " + ".join(f"part{number}.VALUE" for number in range(count))
    (tmp_path / "app.py").write_text(f"{imports}TEXT = {total}\n{APP}")
    (tmp_path / ".gitignore").write_text("__pycache__\n")
    git(tmp_path, "init", "-q", "-b", "one")
    for branch, value in (("one", 1), ("two", 2)):
        if value == 2:
            git(tmp_path, "checkout", "-q", "-b", branch)
        for module in modules:
            module.write_text(f"VALUE = {value}\n")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-q", "-m", branch)
    with DevServer("app:app", *QUICK, cwd=tmp_path) as server:
        server.serving()
        assert server.get("/").text == str(2 * count)
        for branch, value in (("one", 1), ("two", 2)):
            before = len(server.events("serving"))
            git(tmp_path, "checkout", "-q", branch)
            assert server.answered().text == str(value * count)
            while len(server.events("serving")) == before:  # it is told a moment after the answer
                server.idle(0.01)
            assert len(server.events("serving")) - before <= 2
        assert not server.events("failed")


# What is no change


def touch(folder: Path) -> None:
    os.utime(folder / "answer.py")
    (folder / "data.json").touch()


def change_modes(folder: Path) -> None:
    for name in ("answer.py", "data.json"):
        (folder / name).chmod(0o755)
        (folder / name).chmod(0o600)


def save_the_same(folder: Path) -> None:
    for name in ("answer.py", "data.json"):
        text = (folder / name).read_text()
        save(folder / name, text)
        beside = folder / f"{name}.tmp"
        beside.write_text(text)
        beside.replace(folder / name)


def write_a_log(folder: Path) -> None:
    """The application's own, and another's."""
    for name in ("app.log", "other.log"):
        with (folder / name).open("a") as file:
            file.write("something happened\n")


def write_a_database(folder: Path) -> None:
    """The application's own, and another's."""
    for name in ("app.sqlite3", "other.sqlite3"):
        with sqlite3.connect(folder / name) as connection:
            connection.execute("create table if not exists t (x)")
            connection.execute("insert into t values (1)")
        connection.close()


def install_packages(folder: Path) -> None:
    """As pip does it: into the environment, through files that are renamed, with bytecode."""
    packages = next((folder / ".venv" / "lib").glob("python*")) / "site-packages"
    for number in range(5):
        package = packages / f"package{number}"
        package.mkdir()
        (package / "__init__.py.tmp").write_text("VALUE = 1\n")
        (package / "__init__.py.tmp").rename(package / "__init__.py")
        (package / "__pycache__").mkdir()
        (package / "__pycache__" / "__init__.cpython-311.pyc").write_bytes(b"\0" * 100)
    (packages / "answer.py").write_text("TEXT = 'from the environment'\n")
    (folder / ".venv" / "bin" / "tool").write_text("#!/bin/sh\n")


def write_what_nobody_reads(folder: Path) -> None:
    """A note, a test, an upload."""
    (folder / "notes.md").write_text("note\n")
    (folder / "test_app.py").write_text("def test(): pass\n")
    (folder / "uploads").mkdir(exist_ok=True)
    (folder / "uploads" / "picture.png").write_bytes(b"\x89PNG")


NOTHING: list[Callable[[Path], None]] = [
    touch,
    change_modes,
    save_the_same,
    write_a_log,
    write_a_database,
    install_packages,
    write_what_nobody_reads,
]

READER = """
import json, logging, sqlite3
import answer

logging.basicConfig(filename="app.log")
logging.warning("started")
database = sqlite3.connect("app.sqlite3", check_same_thread=False)
with open("data.json") as file:
    data = json.load(file)

def app(environ, start_response):
    start_response("200 OK", [])
    return [answer.TEXT.encode()]
"""


@pytest.mark.parametrize("watcher", ["events", "polling"])
def test_what_is_no_change_makes_no_restart(watcher: str, tmp_path: Path) -> None:
    path = tmp_path / "answer.py"
    path.write_text(answer("0"))
    (tmp_path / "data.json").write_text("{}")
    (tmp_path / "app.py").write_text(READER)
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True, timeout=DEADLINE
    )
    how = ["--poll"] if watcher == "polling" else ["app:app"]  # without a target it is looked for
    with DevServer(*how, *QUICK, cwd=tmp_path) as server:
        server.serving()
        for number, nothing in enumerate(NOTHING, 1):
            nothing(tmp_path)
            assert server.get("/").text == str(number - 1), nothing.__name__
            save(path, answer(str(number)))
            restart = server.restarted()
            assert restart["reason"] == "answer.py changed", nothing.__name__
            assert restart["generation"] == number + 1, nothing.__name__
            assert server.get("/").text == str(number)
        assert [event["files"] for event in server.events("change")] == [["answer.py"]] * len(NOTHING)


DATABASE = """
import json

with open("data.json") as file:
    data = json.load(file)

def app(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        data["count"] += 1
        with open("data.json", "w") as file:
            json.dump(data, file)
    start_response("200 OK", [])
    return [f"{data['count']} {VERSION}".encode()]

VERSION = 1
"""


def test_application_that_writes_what_it_has_read_does_not_restart_itself(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(DATABASE)
    (tmp_path / "data.json").write_text('{"count": 0}')
    with DevServer("app:app", *QUICK, cwd=tmp_path) as server:
        server.serving()
        for generation in (1, 2):
            for _ in range(5):
                server.ask("POST", "/")
            assert server.get("/").text == f"{5 * generation} {generation}"
            save(tmp_path / "app.py", DATABASE.replace("VERSION = 1", f"VERSION = {generation + 1}"))
            assert server.restarted()["reason"] == "app.py changed"
            assert server.get("/").text == f"{5 * generation} {generation + 1}"
        assert len(server.events("restart")) == 2


# What was looked for

SEEKER = """
import os

try:
    import extra
    TEXT = extra.TEXT
except ImportError:
    TEXT = "no extra"

try:
    TEXT += " " + open("settings.ini").read()
except FileNotFoundError:
    TEXT += " no settings"

if os.path.exists("flag"):
    TEXT += " flag"
TEXT += " " + ",".join(sorted(os.listdir("plugins")))
"""


def test_what_was_looked_for_counts_when_it_comes_and_when_it_goes(tmp_path: Path) -> None:
    """A module, a data file, an answer to a question, a name in a folder: one restart each."""
    (tmp_path / "app.py").write_text(SEEKER + APP)
    (tmp_path / "plugins").mkdir()
    steps: list[tuple[str, str | None, str]] = [
        ("extra.py", "TEXT = 'extra'", "extra no settings "),
        ("settings.ini", "settings", "extra settings "),
        ("flag", "", "extra settings flag "),
        ("plugins/a.py", "", "extra settings flag a.py"),
        ("extra.py", None, "no extra settings flag a.py"),
        ("settings.ini", None, "no extra no settings flag a.py"),
        ("flag", None, "no extra no settings a.py"),
        ("plugins/a.py", None, "no extra no settings "),
    ]
    with DevServer("app:app", *QUICK, cwd=tmp_path) as server:
        server.serving()
        assert server.get("/").text == "no extra no settings "
        for number, (name, content, text) in enumerate(steps, 1):
            if content is None:
                (tmp_path / name).unlink()
            else:
                beside = tmp_path.parent / f"{tmp_path.name}-beside"
                beside.write_text(content)
                beside.rename(tmp_path / name)
            restart = server.restarted()
            assert (restart["reason"], restart["generation"]) == (f"{name} changed", number + 1)
            assert server.get("/").text == text
        assert len(server.events("change")) == len(steps)


def test_missing_module_that_is_created_and_deleted(tmp_path: Path) -> None:
    """Each is one restart, and the failure in between is told once."""
    path = PROJECTS["asgi"].make(tmp_path)
    path.unlink()
    with DevServer("app:app", *QUICK, cwd=tmp_path) as server:
        assert "No module named 'answer'" in server.failed()["error"]
        save(path, answer("one"))
        assert server.restarted()["reason"] == "answer.py changed"
        assert server.get("/").text == "one"
        path.unlink()
        assert server.restarted_or_failed() == "failed"
        assert server.get("/").status == 500
        save(path, answer("two"))
        assert server.answered().text == "two"
        assert len(server.events("failed")) == 2
        assert [event["files"] for event in server.events("change")][:2] == [["answer.py"]] * 2
