"""The file with the process's id."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devserver.errors import UsageError
from devserver.process.pidfile import PidFile

OTHER = f"{os.getppid()}\n"


def test_it_is_there_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path))
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    file.close()
    assert not path.exists()


def test_another_process_that_lives_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(OTHER)
    with pytest.raises(UsageError, match="runs, whose file that is"):
        PidFile(str(path)).write()
    assert path.read_text() == OTHER


def test_a_successor_has_a_file_of_its_own_first(tmp_path: Path) -> None:
    path, beside = tmp_path / "pid", tmp_path / "pid.2"
    path.write_text(OTHER)
    file = PidFile(str(path))
    file.write_beside()
    assert (path.read_text(), beside.read_text()) == (OTHER, f"{os.getpid()}\n")
    file.succeed()
    assert path.read_text() == f"{os.getpid()}\n"
    assert not beside.exists()
    file.close()
    assert not path.exists()


def test_a_successor_that_ends_first_leaves_nothing(tmp_path: Path) -> None:
    path, beside = tmp_path / "pid", tmp_path / "pid.2"
    path.write_text(OTHER)
    file = PidFile(str(path))
    file.write_beside()
    file.close()
    assert path.read_text() == OTHER
    assert not beside.exists()


def test_none_is_written_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = PidFile(None)
    file.write()
    file.write_beside()
    file.succeed()
    file.close()
    assert list(tmp_path.iterdir()) == []
