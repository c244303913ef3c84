"""The net for unsteady tests: what it catches, and what falls through."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

COUNTS = """
from pathlib import Path
import pytest

def runs(name):
    path = Path(__file__).with_name(name)
    count = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(count))
    return count

"""

UNSTEADY = "def test_unsteady():\n    assert runs('unsteady') == 2, 'busy'\n"
BROKEN = "def test_broken():\n    assert runs('broken') == 0\n"
SOUND = "def test_sound():\n    assert runs('sound') == 1\n"
MANY = (
    "@pytest.mark.parametrize('number', range(11))\ndef test_many(number):\n"
    "    assert runs(f'many{number}') == 2\n"
)


def run(folder: Path, text: str, *arguments: str) -> tuple[int, str, str]:
    """Returns the exit code, what was printed, and the list of unsteady tests."""
    (folder / "test_it.py").write_text(COUNTS + text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    listed = folder / "unsteady.txt"
    command = [sys.executable, "-m", "pytest", "-p", "tests.unsteady", "--again", str(listed), *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return ended.returncode, ended.stdout, listed.read_text() if listed.exists() else ""


def test_a_test_that_passes_by_itself_is_listed_and_fails_nothing(tmp_path: Path) -> None:
    code, printed, listed = run(tmp_path, UNSTEADY + SOUND, "-n", "2")
    assert code == 0, printed
    assert listed == "test_it.py::test_unsteady: AssertionError: busy\n"
    assert "unsteady: test_it.py::test_unsteady" in printed
    assert (tmp_path / "sound").read_text() == "1", "what passed does not run again"


def test_a_test_that_fails_twice_fails_the_run(tmp_path: Path) -> None:
    code, printed, listed = run(tmp_path, UNSTEADY + BROKEN)
    assert code == 1
    assert "failed twice: test_it.py::test_broken" in printed
    assert listed == "test_it.py::test_unsteady: AssertionError: busy\n"


def test_more_than_ten_failures_are_not_tried_again(tmp_path: Path) -> None:
    code, printed, listed = run(tmp_path, MANY)
    assert code == 1
    assert "11 tests failed: more than 10 do not run again" in printed
    assert listed == ""


def test_a_module_that_cannot_be_collected_fails_the_run(tmp_path: Path) -> None:
    code, _, listed = run(tmp_path, "import no_such_module\n" + UNSTEADY)
    assert code == 2
    assert listed == ""
