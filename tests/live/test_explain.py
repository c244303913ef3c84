"""`--explain PATH` says what a change would do; what it says is then done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.process import DevServer
from tests.patience import DEADLINE, SLOWNESS

pytestmark = pytest.mark.live

APP = """
import os, sys
import shop.views

try:
    import extra
except ImportError:
    pass
with open("data.json") as file:
    file.read()
with open("app.log", "a") as file:
    file.write("started\\n")
os.path.exists("flag")
os.path.exists("there")
os.listdir("plugins")
print("loading")

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]
"""

RESTARTS = {
    "app.py": "executed as module app",
    "shop/views.py": "executed as module shop.views",
    "shop/__init__.py": "executed as module shop",
    "data.json": "read at load",
    "extra.py": "looked for, not found",
    "extra/__init__.py": "looked for, not found",
    "shop.py": "shop was found in the same place",
    "flag": "looked for, not found",
    "plugins/new": "its folder was listed",
    "plugins": "its names were listed",
    "style.css": "--reload-include '*.css'",
}

NOTHING = {
    "other.py": "not read while the application was loaded",
    "there": "not read, but looked for and found; to remove it would restart",
    "plugins/old": "not read, but its folder was listed; to remove it would restart",
    "app.log": "the application writes it itself",
    "shop/views.py~": "ignored by the built-in list, *~",
    ".git/HEAD": "ignored by the built-in list, .git",
    "secret/data.json": "ignored by --reload-exclude 'secret'",
}

RULES = ["--reload-include", "*.css", "--reload-exclude", "secret"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("shop", "plugins", "secret", ".git"):
        (tmp_path / name).mkdir()
    for name in ("shop/__init__.py", "shop/views.py", "data.json", "plugins/old", "there", "other.py"):
        (tmp_path / name).touch()
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def explain(folder: Path, *arguments: str) -> list[str]:
    """The lines that are printed, by a program that ends with 0."""
    command = [sys.executable, "-m", "devserver", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "loading the application …\n"
    return [line for line in done.stdout.splitlines() if line != "loading"]


def test_explain(project: Path) -> None:
    """With a target, and with the one that is found."""
    expected = [f"{path}: would restart: {why}" for path, why in RESTARTS.items()]
    expected += [f"{path}: would not restart: {why}" for path, why in NOTHING.items()]
    paths = [part for path in (*RESTARTS, *NOTHING) for part in ("--explain", path)]
    assert explain(project, "app:app", *RULES, *paths) == expected
    found = explain(project, *RULES, *paths)
    assert found[1:] == expected[1:]
    assert found[0].startswith("app.py: would restart: ")


def test_explain_of_what_is_not_the_project(project: Path) -> None:
    assert explain(project, "app:app", "--explain", "never/was", "--explain", json.__file__) == [
        "never/was: would not restart: there is no such path, and nothing looked for it",
        f"{json.__file__}: would not restart: it is Python's or an installed package's; "
        "--reload-dir watches it all the same",
    ]


def test_explain_is_true(project: Path) -> None:
    """Everything that would do nothing is written; then what would restart, and only that is told."""
    with DevServer("app:app", "--reload", *RULES, cwd=project) as server:
        server.serving()
        for path in NOTHING:
            (project / path).write_text("# changed\n")
        changes = 0
        for path in RESTARTS:
            if path in ("extra/__init__.py", "plugins", "shop.py"):
                continue  # a folder, and what hides behind what was made or is there
            with (project / path).open("a") as file:
                file.write(f"# changed {changes}\n")
            assert server.get("/").text == "served"
            assert server.restarted()["reason"] == f"{path} changed"
            changes += 1
        assert [len(event["files"]) for event in server.events("change")] == [1] * changes


def test_explain_of_what_cannot_be_loaded(project: Path) -> None:
    """What it has read until then is known, and so is what mends it."""
    (project / "app.py").write_text("import shop.views, missing\n")
    views = str(project / "shop" / "views.py")
    lines = explain(project, "app:app", "--explain", "missing.py", "--explain", views)
    assert lines == [
        "the application could not be loaded, only what it read until then counts: "
        "ModuleNotFoundError: No module named 'missing'",
        "missing.py: would restart: looked for, not found",
        f"{views}: would restart: executed as module shop.views",
    ]


def test_explain_of_what_hangs_or_dies(project: Path) -> None:
    (project / "app.py").write_text("import time; time.sleep(1000)\n")
    most = 1.0 * SLOWNESS  # in which it must have come to the module
    short = ["--load-timeout", f"{most:g}", "--reload-grace", "0.1"]
    lines = explain(project, "app:app", *short, "--explain", "app.py")
    assert lines[0].endswith(f"counts: still loading after {most:g} s (--load-timeout)")
    (project / "app.py").write_text("import os; os._exit(7)\n")
    lines = explain(project, "app:app", "--explain", "app.py")
    assert lines[0].endswith("counts: its process exited with code 7")
    assert lines[1] == "app.py: would restart: executed as module app"


def test_what_was_not_read_until_loading_was_given_up_is_not_known(project: Path) -> None:
    (project / "app.py").write_text("import shop.views, missing\n")
    command = [sys.executable, "-m", "devserver", "app:app"]
    asked = [word for path in ("app.py", "data.json", "new.py") for word in ("--explain", path)]
    done = subprocess.run(
        [*command, *asked], cwd=project, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 4
    assert done.stderr == "loading the application …\n"
    assert done.stdout.splitlines()[1:] == [
        "app.py: would restart: executed as module app",
        "data.json: not known: it was not read until then, and may be later",
        "new.py: not known: it was not read until then, and may be later",
    ]
