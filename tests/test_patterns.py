"""Files that patterns name, with real files and each watcher."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from devserver.watching.patterns import Patterns
from devserver.watching.polling import Polling
from devserver.watching.watcher import EVERYTHING


@pytest.fixture(params=[False, True], ids=["best", "polling"])
def patterns(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Patterns]:
    """Those of a Celery application."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "tasks.py").write_text("a = 1")
    with closing(Patterns(["jobs/**/*.py", "!jobs/test_*.py"], str(tmp_path), poll=request.param)) as made:
        if isinstance(made.watcher, Polling):  # it looks when it is asked, whatever time has passed
            made.watcher.hints = made.watcher.sweep  # type: ignore[method-assign]
        made.changed()
        yield made


def test_each_change_is_told_once(patterns: Patterns, tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "tasks.py"
    for text in ("a = 2", "a = 33", "a = 2"):
        path.write_text(text)
        assert patterns.changed() == [str(path)]
        assert patterns.changed() == []


def test_what_is_new_and_what_has_gone_has_changed(patterns: Patterns, tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "deep" / "more.py"
    path.parent.mkdir()
    patterns.changed()
    path.write_text("b = 1")
    assert patterns.changed() == [str(path)]
    path.unlink()
    assert patterns.changed() == [str(path)]
    assert patterns.changed() == []


def test_what_no_pattern_names_and_a_touch_are_no_change(patterns: Patterns, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("c = 1")
    (tmp_path / "jobs" / "notes.txt").write_text("text")
    (tmp_path / "jobs" / "test_tasks.py").write_text("d = 1")
    os.utime(tmp_path / "jobs" / "tasks.py")
    assert patterns.changed() == []


def test_a_watcher_that_has_lost_count(patterns: Patterns, tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "tasks.py"
    path.write_text("a = 4")
    hints = patterns.watcher.hints
    patterns.watcher.hints = lambda: EVERYTHING if hints() else set()  # type: ignore[method-assign]
    assert patterns.changed() == [str(path)]
