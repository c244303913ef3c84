"""What is watched, and the gate that is asked before each request."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devserver.config import Config
from devserver.watching import answers, trees, watch, watchset
from devserver.watching.answers import (
    OWN,
    Entry,
    Question,
    fingerprint_at,
    list_entry,
    name_entry,
    read_entry,
    tree_entry,
)
from devserver.watching.polling import Polling
from devserver.watching.rules import Counts, Rules
from devserver.watching.watcher import EVERYTHING
from devserver.watching.watchset import Gate, WatchSet, roots_of, rules_of
from tests.patience import DEADLINE

pytestmark = pytest.mark.interpreter


def config(root: Path, target: str = "app:app", **options: Any) -> Config:
    return Config(target, reload=True, app_dir=str(root), **options)


def write(path: Path, text: str = "") -> str:
    """Write a file that is not racy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return str(path)


def old(path: str) -> Entry:
    """A file as who reads it reports it: without its digest."""
    return Entry(Question.FILE, path, None, fingerprint_at(path))


@pytest.fixture(autouse=True)
def _nothing_is_racy(monkeypatch: pytest.MonkeyPatch) -> None:
    """By ctime, which cannot be set, everything that a test has made is."""
    monkeypatch.setattr(answers, "YOUNG", 0)


class Sweeping(WatchSet):
    """A watch set whose watcher looks when it is asked: what it hints does not depend on the system."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        assert isinstance(self.watcher, Polling)
        self.watcher.hints = self.watcher.sweep  # type: ignore[method-assign]


def make(kind: str, made: Config) -> WatchSet:
    return Sweeping(made) if kind == "polling" else WatchSet(made)


KINDS = [
    pytest.param("best", marks=pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="waits elsewhere")),
    "polling",
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# generations


def test_digests_are_kept_from_generation_to_generation(tmp_path: Path) -> None:
    """A touch between the application's reading and the first look at it is known to be none."""
    path = write(tmp_path / "data.txt", "text")
    made = config(tmp_path)
    with closing(WatchSet(made)) as watched:
        entry = old(path)
        watched.add(old(path))
        assert watched.changed() == []
        watched.begin(made)
        os.utime(path, (1, 1))
        watched.add(entry)
        assert watched.changed() == []


def test_a_generation_has_the_rules_of_its_configuration(tmp_path: Path) -> None:
    path = write(tmp_path / "data.txt", "text")
    with closing(WatchSet(config(tmp_path))) as watched:
        watched.begin(config(tmp_path, reload_exclude=["*.txt"]))
        watched.add(old(path))
        Path(path).write_text("other")
        assert watched.changed() == []


def test_what_is_recalled_is_watched_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "data.txt", "text")
    made = config(tmp_path)
    with closing(WatchSet(made)) as watched:
        watched.add(old(path))
        assert watched.changed() == []
        before = watched.begin(made)
        write(Path(path), "other")
        watched.recall(before)
        assert watched.changed() == []
        Path(path).write_text("third")
        assert watched.changed() == [path]


# what counts without being read


def toml(root: Path, kind: str, **options: Any) -> WatchSet:
    return make(kind, config(root, reload_include=["*.toml"], poll=kind == "polling", **options))


def test_touching_what_counts_without_being_read_is_no_change(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "deep" / "a.toml", "text")
    with closing(toml(tmp_path, kind)) as watched:
        assert watched.changed() == []
        os.utime(path)
        assert watched.changed() == []
        Path(path).write_text("other")
        assert watched.changed() == [path]


def test_files_in_a_folder_that_has_appeared_count(tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    with closing(toml(tmp_path, kind)) as watched:
        assert watched.changed() == []
        elsewhere.rename(tmp_path / "new")
        assert watched.changed() == []
        path = tmp_path / "new" / "deep" / "a.toml"
        path.write_text("text")
        assert watched.changed() == [str(path)]


def test_a_folder_that_appears_with_a_file_that_counts_is_a_change(tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    write(elsewhere / "deep" / "a.toml")
    write(elsewhere / "deep" / "a.txt")
    with closing(toml(tmp_path, kind)) as watched:
        assert watched.changed() == []
        elsewhere.rename(tmp_path / "new")
        assert watched.changed() == [str(tmp_path / "new" / "deep" / "a.toml")]


def test_a_folder_made_again_is_walked_again(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems give the number of a folder that has gone to the next one."""
    monkeypatch.setattr(trees, "folder_at", lambda path: (1, 1) if os.path.isdir(path) else None)
    folder = tmp_path / "new"
    with closing(toml(tmp_path, kind)) as watched:
        for number in range(3):
            deep = folder / f"deep{number}"
            deep.mkdir(parents=True)
            assert watched.changed() == []
            (deep / "a.toml").write_text("text")
            assert watched.changed() == [str(deep / "a.toml")]
            shutil.rmtree(folder)
            watched.changed()


@pytest.fixture
def tops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that have been walked because they have appeared."""
    found: list[str] = []
    walk = watch.walk

    def noted(rules: Rules, top: str | None, warn: Callable[[str], None]) -> Iterator[str]:
        found.extend(filter(None, [top]))
        return walk(rules, top, warn)

    monkeypatch.setattr(watch, "walk", noted)
    return found


def test_a_new_folder_that_is_left_out_is_not_walked(tmp_path: Path, kind: str, tops: list[str]) -> None:
    with closing(toml(tmp_path, kind, reload_exclude=["build/"])) as watched:
        (tmp_path / "build").mkdir()
        (tmp_path / "src").mkdir()
        assert watched.changed() == []
        assert tops == [str(tmp_path / "src")]


def test_a_folder_with_other_names_is_not_walked_again(tmp_path: Path, kind: str, tops: list[str]) -> None:
    (tmp_path / "deep").mkdir()
    with closing(toml(tmp_path, kind)) as watched:
        (tmp_path / "deep" / "a.txt").write_text("text")
        assert watched.changed() == []
        assert tops == []


def test_a_new_file_is_found_when_the_watcher_has_lost_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = write(tmp_path / "known.toml", "text")
    with closing(toml(tmp_path, "best")) as watched:
        assert watched.changed() == []
        new = write(tmp_path / "deep" / "new.toml")
        os.utime(known)
        watched.watcher.hints()
        monkeypatch.setattr(watched.watcher, "hints", lambda: EVERYTHING)
        assert watched.changed() == [new]


def test_too_many_folders_are_said_once_and_not_by_a_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "MAX_FOLDERS", 3)
    for number in range(10):
        (tmp_path / f"{number}").mkdir()
    made = config(tmp_path, reload_dir=["."])
    with closing(WatchSet(made)) as watched:
        for _ in range(3):
            watched.begin(made)
        Gate(made).open()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "--reload-exclude" in caplog.text


# the project


def test_a_file_elsewhere_makes_its_folder_one_of_the_project(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    write(elsewhere / "node_modules" / "a.txt")
    for target in (
        f"{elsewhere}/app.py:app",
        f"{elsewhere}/app.py",
        "../elsewhere/app.py:app",
        "../elsewhere/app",
    ):
        made = config(project, target)
        assert str(elsewhere) in roots_of(made), target
        assert rules_of(made).verdict(str(elsewhere / "node_modules" / "a.txt")).kind is Counts.NEVER
        assert rules_of(made).verdict(str(project / "node_modules" / "a.txt")).kind is Counts.NEVER


def test_a_file_in_a_package_elsewhere_is_imported_from_above_it(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    write(tmp_path / "elsewhere" / "shop" / "__init__.py")
    assert roots_of(config(project, f"{tmp_path}/elsewhere/shop/app.py:app"))[-1] == str(
        tmp_path / "elsewhere"
    )


@pytest.mark.parametrize("target", ["app:app", "shop.app:make", None])
def test_a_module_brings_no_folder_of_its_own(tmp_path: Path, target: Any) -> None:
    assert roots_of(config(tmp_path, target)) == [os.getcwd(), str(tmp_path)]


# the gate


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(config(tmp_path))
    made.open()
    yield made
    made._set.close()


def test_a_gate_notices_a_save_at_once(tmp_path: Path, gate: Gate) -> None:
    path = write(tmp_path / "a.py", "old")
    gate.add(read_entry(path))
    for _ in range(3):
        assert gate.changed() == []
        os.utime(path)
    Path(path).write_text("new")
    assert gate.changed() == [path]
    assert gate.changed() == [path], "what is served stays old"
    assert not gate.quiet()


def test_a_gate_is_unsure_of_what_it_has_not_looked_at(tmp_path: Path, gate: Gate) -> None:
    """Written after the application read it, and before it was watched: nothing hints at it."""
    path = write(tmp_path / "a.py", "old")
    entry = read_entry(path)
    assert gate.changed() == []
    assert gate.quiet()
    Path(path).write_text("new")
    gate.add(entry)
    assert not gate.quiet()
    assert gate.changed() == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="a first look is taken")
def test_what_was_noted_before_it_opens_is_believed(tmp_path: Path) -> None:
    """The supervisor has watched it, and is asked; what comes later is noticed here."""
    path, other = write(tmp_path / "a.py", "old"), write(tmp_path / "b.py", "old")
    gate = Gate(config(tmp_path))
    for each in (path, other):
        gate.add(read_entry(each))
    Path(other).write_text("new")
    gate.open()
    with closing(gate._set):
        assert gate.quiet()
        Path(path).write_text("new")
        assert not gate.quiet()
        assert gate.changed() == [path]


def test_of_two_answers_noted_before_it_opens_the_later_counts(tmp_path: Path) -> None:
    """A process that goes on from a checkpoint reads anew what it had begun to execute."""
    path = write(tmp_path / "a.py", "old")
    gate = Gate(config(tmp_path))
    gate.add(read_entry(path))
    Path(path).write_text("new")
    gate.add(read_entry(path))
    gate.open()
    with closing(gate._set):
        os.utime(path)
        assert gate.changed() == []
        Path(path).write_text("old")
        assert gate.changed() == [path]


def test_what_the_application_wrote_before_it_opens_is_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "old")
    gate = Gate(config(tmp_path))
    for entry in (read_entry(path), Entry(Question.FILE, path, OWN), replace(read_entry(path), own=True)):
        gate.add(entry)
    gate.open()
    with closing(gate._set):
        Path(path).write_text("new")
        assert gate.changed() == []


def test_a_tree_that_was_noted_before_it_opens_is_looked_at_then(tmp_path: Path) -> None:
    gate = Gate(config(tmp_path))
    gate.add(tree_entry(str(tmp_path / "pages"), "**/*.txt"))
    path = write(tmp_path / "pages" / "a.txt", "old")
    gate.open()
    with closing(gate._set):
        assert gate.changed() == []
        Path(path).write_text("new")
        new = write(tmp_path / "pages" / "b.txt", "new")
        assert sorted(gate.changed()) == [path, new]


def test_digests_may_be_taken_before_it_opens_until_there_is_no_more_time(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, "text") for name in ("a.txt", "b.txt")]
    gate = Gate(config(tmp_path))
    for path in paths:
        gate.add(old(path))
    answers = iter([False, True])
    gate.digest(lambda: next(answers))
    gate.open()
    with closing(gate._set):
        for path in paths:
            os.utime(path, (1, 1))
            Path(path).open("a").close()  # what a watcher notices
        assert len(gate.changed()) == 1, "of one there was none: then a touch is a change"


def test_digests_of_large_files_are_not_taken_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchset, "LARGE", 10)
    small, large = write(tmp_path / "a.txt", "text"), write(tmp_path / "b.txt", "text" * 10)
    gate = Gate(config(tmp_path))
    for path in (small, large):
        gate.add(old(path))
    gate.digest(lambda: False)
    undigested = gate._set.timeline.undigested()
    assert undigested is not None
    assert undigested.path == large
    assert gate._set.timeline.undigested() is None


def test_where_changes_are_found_by_looking_the_first_look_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.py", "old")
    gate = Gate(config(tmp_path, poll=True))
    gate.add(read_entry(path))
    Path(path).write_text("new")
    gate.open()
    with closing(gate._set):
        assert not gate.quiet()
        assert gate.changed() == [path]


def test_a_sure_look_waits_for_no_sweep(tmp_path: Path) -> None:
    path = write(tmp_path / "a.py", "old")
    watched = WatchSet(config(tmp_path, poll=True))
    with closing(watched):
        watched.add(read_entry(path))
        assert watched.changed() == []
        Path(path).write_text("new")
        assert watched.changed() == []
        assert watched.changed(surely=True) == [path]


def test_what_the_first_look_finds_is_not_lost(tmp_path: Path, gate: Gate) -> None:
    """The thread's look takes the event from the kernel: the next question must be answered by it."""
    path = write(tmp_path / "a.py", "old")
    gate.add(read_entry(path))
    Path(path).write_text("new")
    looked = threading.Event()
    gate.digest = looked.set  # type: ignore[assignment,method-assign] # it comes after the look
    threading.Thread(target=gate.settle, daemon=True).start()
    assert looked.wait(DEADLINE)
    assert not gate.quiet()
    assert gate.changed() == [path]


def test_a_request_waits_for_a_look_that_is_going_on(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event is taken already, and what it comes to is not known yet."""
    path = write(tmp_path / "a.py", "old")
    new = write(tmp_path.with_name(f"{tmp_path.name}-new"), "new")
    gate.add(read_entry(path))
    assert gate.changed() == []
    taken, go_on = threading.Event(), threading.Event()
    changes = gate._set.timeline.changes

    def slow(*arguments: Any) -> list[str]:
        taken.set()
        assert go_on.wait(DEADLINE)
        return changes(*arguments)

    monkeypatch.setattr(gate._set.timeline, "changes", slow)
    os.replace(new, path)  # one event: of an emptied file and a written one the look may take the first only
    thread = threading.Thread(target=gate.changed)
    thread.start()
    assert taken.wait(DEADLINE)
    assert gate._set.watcher.quiet()
    assert not gate.quiet()
    go_on.set()
    thread.join()
    assert gate.changed() == [path]


def test_digests_are_taken_as_files_are_read(tmp_path: Path, gate: Gate) -> None:
    """Then a touch is known to be none."""
    digested = threading.Semaphore(0)
    take = gate.digest

    def digest() -> None:
        take()
        digested.release()

    gate.digest = digest  # type: ignore[assignment,method-assign]
    threading.Thread(target=gate.settle, daemon=True).start()
    assert digested.acquire(timeout=DEADLINE)
    for name in ("a.txt", "b.txt"):
        path = write(tmp_path / name, "text")
        gate.add(old(path))
        assert digested.acquire(timeout=DEADLINE)
        os.utime(path)
        assert gate.changed() == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="what is hinted elsewhere is less exact")
def test_a_file_that_is_not_of_the_set_costs_no_look(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.py", "old")
    write(tmp_path / "app.log")
    for entry in (read_entry(path), name_entry(str(tmp_path), "a"), list_entry(str(tmp_path))):
        gate.add(entry)
    assert gate.changed() == []
    calls: list[object] = []
    changes = gate._set.timeline.changes

    def counted(*paths: Any) -> Any:
        calls.append(paths)
        return changes(*paths)

    monkeypatch.setattr(gate._set.timeline, "changes", counted)
    for text in ("x", "xx"):
        (tmp_path / "app.log").write_text(text)
        assert gate.changed() == []
        assert gate.quiet()
    assert calls == []


def test_preparing_leaves_nothing_to_be_imported(tmp_path: Path) -> None:
    """Milliseconds on the way of every restart."""
    program = f"""if True:
        import sys
        from devserver import config
        from devserver.child import process
        from devserver.loading import recorder as loader
        from devserver.watching import watchset
        watchset.prepare()
        made = config.Config("app:app", reload=True, app_dir={str(tmp_path)!r}, reload_include=["*.toml"])
        before = set(sys.modules)
        gate = watchset.Gate(made)
        gate.open()
        recorder = loader.Recorder(gate.add, watchset.roots_of(made))
        recorder.start()
        sys.path.insert(0, {str(tmp_path)!r})
        import app
        recorder.loaded()
        assert gate.changed() == []
        print(sorted(set(sys.modules) - before))
    """
    write(tmp_path / "app.py", "X = 1")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    assert done.stdout == "['app']\n"
