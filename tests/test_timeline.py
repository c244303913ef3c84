"""Which changes of the file system are changes of an answer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from devserver.watching import answers, timeline
from devserver.watching.answers import (
    ASK,
    OWN,
    Entry,
    Question,
    digest_of,
    fingerprint_at,
    list_entry,
    name_entry,
    path_entry,
    read_entry,
)
from devserver.watching.rules import Rules
from devserver.watching.timeline import Timeline

pytestmark = pytest.mark.interpreter

LATER = 3600 * 10**9
"""Nanoseconds: for a clock by which nothing that a test has made is racy."""


class Folder:
    """A project and its timeline."""

    def __init__(self, root: Path, *, late: bool = False, **options: tuple[str, ...]) -> None:
        self.root = root
        rules = {"dirs": (), "include": (), "exclude": (), **options}
        clock: Callable[[], int] = (lambda: time.time_ns() + LATER) if late else time.time_ns
        self.timeline = Timeline(Rules(**rules, root=str(root)), clock=clock)

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def write(self, name: str, text: str = "") -> str:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def ask(self, kind: Question, name: str = "") -> None:
        """Ask as the application would."""
        self.timeline.add(ASK[kind](self.path(name) if name else str(self.root)))

    def changes(self, *names: str) -> list[str]:
        """What a hint for each name comes to, as names."""
        return self.names(self.timeline.changes([self.path(name) for name in names]))

    def names(self, paths: Iterable[str]) -> list[str]:
        return [os.path.relpath(path, self.root) for path in paths]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# files


def touch(path: str) -> None:
    os.utime(path, ns=(1, 1))


def chmod(path: str) -> None:
    os.chmod(path, 0o600)


def same_content(path: str) -> None:
    Path(path).write_text("old")


def renamed_over_with_the_same(path: str) -> None:
    Path(path + ".new").write_text("old")
    os.replace(path + ".new", path)


@pytest.mark.parametrize("act", [touch, chmod, same_content, renamed_over_with_the_same])
@pytest.mark.parametrize("late", [True, False])
def test_what_leaves_the_bytes_is_no_change(tmp_path: Path, act: Callable[[str], None], late: bool) -> None:
    folder = Folder(tmp_path, late=late)
    path = folder.write("a.txt", "old")
    folder.ask(Question.FILE, "a.txt")
    act(path)
    assert folder.changes("a.txt") == []
    assert folder.timeline.changes(None) == []


def same_length(path: str) -> None:
    Path(path).write_text("new")


def same_length_and_stamps(path: str) -> None:
    found = os.stat(path)
    Path(path).write_text("new")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def older(path: str) -> None:
    Path(path).write_text("newer")
    os.utime(path, ns=(1, 1))


def renamed_over(path: str) -> None:
    Path(path + ".new").write_text("new")
    os.replace(path + ".new", path)


def replaced_by_folder(path: str) -> None:
    os.remove(path)
    os.mkdir(path)


def replaced_by_fifo(path: str) -> None:
    os.remove(path)
    os.mkfifo(path)  # whoever opened this would wait for ever


@pytest.mark.parametrize(
    "act",
    [
        same_length,
        same_length_and_stamps,
        older,
        renamed_over,
        os.remove,
        replaced_by_folder,
        replaced_by_fifo,
    ],
)
@pytest.mark.parametrize("late", [True, False])
def test_other_bytes_are_a_change(tmp_path: Path, act: Callable[[str], None], late: bool) -> None:
    folder = Folder(tmp_path, late=late)
    path = folder.write("a.txt", "old")
    folder.ask(Question.FILE, "a.txt")
    assert folder.changes() == []
    act(path)
    assert folder.changes("a.txt") == ["a.txt"]
    assert folder.timeline.changes(None) == [path]


@pytest.mark.parametrize("late", [True, False])
def test_saves_within_one_tick_of_the_clock_are_told_apart(tmp_path: Path, late: bool) -> None:
    """Equal in size and stamps: a hint, or its youth, has the file read."""
    folder = Folder(tmp_path, late=late)
    path = folder.write("a.txt", "old")
    entry = read_entry(path)
    Path(path).write_text("new")
    entry.fingerprint = fingerprint_at(path)
    folder.timeline.add(entry)
    assert folder.changes() == ([] if late else ["a.txt"])  # without a hint nobody could know
    assert folder.changes("a.txt") == ["a.txt"]


def test_a_file_that_could_not_be_read(folder: Folder) -> None:
    folder.timeline.add(read_entry(folder.path("a.txt")))
    assert folder.changes("a.txt") == []
    folder.write("a.txt")
    assert folder.changes("a.txt") == ["a.txt"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_made_unreadable(folder: Folder) -> None:
    path = folder.write("a.txt")
    folder.ask(Question.FILE, "a.txt")
    os.chmod(path, 0)
    assert folder.changes("a.txt") == ["a.txt"]


def test_a_large_file_is_known_by_size_and_mtime(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "DIGEST_LIMIT", 2)
    path = folder.write("a.bin", "old")
    folder.ask(Question.FILE, "a.bin")
    os.chmod(path, 0o600)
    assert folder.changes("a.bin") == []
    os.utime(path, ns=(1, 1))
    assert folder.changes("a.bin") == ["a.bin"]


def test_the_digest_is_taken_by_who_watches(folder: Folder) -> None:
    path = folder.write("a.txt", "old")
    folder.timeline.add(Entry(Question.FILE, path, None, fingerprint_at(path)))
    assert folder.timeline.suspicious
    assert folder.changes() == []
    touch(path)
    assert folder.changes("a.txt") == []
    Path(path).write_text("new")
    assert folder.changes("a.txt") == ["a.txt"]


def test_a_file_changed_before_it_was_watched(folder: Folder) -> None:
    path = folder.write("a.txt", "old")
    entry = Entry(Question.FILE, path, None, fingerprint_at(path))
    Path(path).write_text("newer")
    folder.timeline.add(entry)
    assert folder.changes() == ["a.txt"]


def test_digests_are_remembered_for_the_next_generation(tmp_path: Path) -> None:
    first = Folder(tmp_path, late=True)
    path = first.write("a.txt", "old")
    fingerprint = fingerprint_at(path)
    first.timeline.add(Entry(Question.FILE, path, None, fingerprint))
    assert first.changes() == []
    touch(path)  # between the child's reading and the look of who watches
    rules = Rules((), (), (), str(tmp_path))
    second = Timeline(rules, first.timeline, clock=lambda: time.time_ns() + LATER)
    second.add(Entry(Question.FILE, path, None, fingerprint))
    assert second.changes(()) == []
    third = Timeline(rules, clock=lambda: time.time_ns() + LATER)
    third.add(Entry(Question.FILE, path, None, fingerprint))
    assert third.changes(()) == [path]


# folders


@pytest.mark.parametrize(
    "name",
    ["a.py~", ".a.py.swp", "x.pyc", "__pycache__", "4913", "a.py___jb_tmp___", "db.sqlite3-journal", ".git"],
)
def test_names_that_come_and_go_are_no_change_of_a_listing(folder: Folder, name: str) -> None:
    folder.write("a.py")
    folder.ask(Question.LIST)
    folder.write(name)
    assert folder.changes(name) == []
    assert folder.timeline.changes([str(folder.root)]) == []


def test_a_name_that_the_rules_leave_out_is_no_change_of_a_listing(tmp_path: Path) -> None:
    folder = Folder(tmp_path, exclude=("*.log",))
    folder.ask(Question.LIST)
    folder.write("a.log")
    assert folder.changes("a.log") == []
    folder.write("b.txt")
    assert folder.changes("b.txt") == ["b.txt"]


def test_a_listing_changes_with_its_names_only(folder: Folder) -> None:
    folder.write("plugins/a.py", "old")
    folder.ask(Question.LIST, "plugins")
    folder.write("plugins/a.py", "new")
    assert folder.changes("plugins/a.py") == []
    folder.write("plugins/b.py")
    assert folder.changes("plugins/b.py") == ["plugins/b.py"]
    os.remove(folder.path("plugins/b.py"))
    assert folder.changes("plugins/b.py") == []
    os.remove(folder.path("plugins/a.py"))
    assert folder.changes("plugins/a.py") == ["plugins/a.py"]


def test_an_empty_folder_is_not_a_missing_one(folder: Folder) -> None:
    os.mkdir(folder.path("plugins"))
    folder.ask(Question.LIST, "plugins")
    os.rmdir(folder.path("plugins"))
    assert folder.changes("plugins") == ["plugins"]


def test_a_file_that_was_emptied_a_moment_ago_is_given_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by an editor that empties it first and then writes: the same text is no change."""
    path = tmp_path / "a.txt"
    path.write_text("text")
    before = read_entry(str(path))
    path.write_text("")
    assert read_entry(str(path)).answer == digest_of(b"")
    monkeypatch.setattr(answers, "sleep", lambda seconds: path.write_text("text"))
    path.write_text("")
    assert read_entry(str(path)).answer == before.answer


def test_a_listing_too_long_to_keep(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LIST_LIMIT", 3)
    folder.write("plugins/a.py")
    folder.ask(Question.LIST, "plugins")
    folder.write("plugins/b.py")
    assert folder.changes("plugins/b.py") == ["plugins"]
    folder.timeline.add(Entry(Question.FILE, folder.path("plugins/b.py"), OWN))
    assert folder.changes("plugins/b.py") == []


# paths


def test_a_path_appears_changes_kind_and_disappears(folder: Folder) -> None:
    folder.ask(Question.PATH, "data")
    folder.write("data")
    assert folder.changes("data") == ["data"]
    folder = Folder(folder.root)
    folder.ask(Question.PATH, "data")
    assert folder.changes("data") == []
    os.remove(folder.path("data"))
    os.mkdir(folder.path("data"))
    assert folder.changes("data") == ["data"]
    os.rmdir(folder.path("data"))
    assert folder.changes("data") == ["data"]


def test_the_bytes_of_what_was_only_asked_for_do_not_matter(folder: Folder) -> None:
    folder.write("data", "old")
    folder.ask(Question.PATH, "data")
    folder.write("data", "newer")
    assert folder.changes("data") == []


# names of modules


def extension(name: str) -> str:
    return name + EXTENSION_SUFFIXES[0]


@pytest.mark.parametrize(
    "made",
    ["pkg/sub.py", "pkg/sub/__init__.py", extension("pkg/sub"), "pkg/sub/other.txt"],
    ids=["module", "package", "extension", "namespace"],
)
def test_a_module_that_was_looked_for_appears(folder: Folder, made: str) -> None:
    """`from pkg import sub`."""
    os.mkdir(folder.path("pkg"))
    folder.ask(Question.NAME, "pkg/sub")
    assert folder.changes() == []
    folder.write(made)
    parts = made.split("/")
    hinted = "/".join(parts[:2])  # a new folder is hinted by its own name
    assert folder.changes(hinted) == [hinted]


def test_a_module_that_would_be_taken_instead(folder: Folder) -> None:
    folder.write("shop.py")
    folder.ask(Question.NAME, "shop")
    folder.write("shop/__init__.py")
    assert folder.changes("shop/__init__.py") == ["shop"]


def test_a_namespace_package_becomes_a_real_one(folder: Folder) -> None:
    folder.write("shop/a.py")
    entry = name_entry(str(folder.root), "shop")
    assert entry.answer == "shop/"
    # The folder must be watched, or its __init__ is never hinted.
    assert folder.path("shop") in folder.timeline.add(entry)
    folder.write("shop/__init__.py")
    assert folder.changes("shop/__init__.py") == ["shop"]


def test_a_stranger_beside_a_module_is_none(folder: Folder) -> None:
    folder.write("shop.py")
    folder.ask(Question.NAME, "shop")
    folder.write("shop.txt")
    folder.write("shop.py~")
    assert folder.changes("shop.txt", "shop.py~", "shop") == []


def test_an_imported_file_carries_the_answer_for_its_name(folder: Folder) -> None:
    path = folder.write("shop.py")
    entry = read_entry(path)
    entry.names = "shop.py"
    watched = folder.timeline.add(Entry.from_json(json.loads(json.dumps(entry.to_json()))))
    assert watched == [path, str(folder.root)]
    assert [entry.kind for entry in folder.timeline] == [Question.FILE, Question.NAME]
    folder.write("shop/__init__.py")
    assert folder.changes("shop") == ["shop"]


# links and folders above


def test_a_linked_file_is_known_by_the_name_that_was_asked_for(folder: Folder) -> None:
    folder.write("real.txt", "old")
    os.symlink(folder.path("real.txt"), folder.path("link.txt"))
    folder.ask(Question.FILE, "link.txt")
    folder.write("real.txt", "new")
    assert folder.changes("link.txt") == ["link.txt"]


def test_a_linked_folder_points_elsewhere(folder: Folder) -> None:
    folder.write("one/a.txt", "old")
    folder.write("two/a.txt", "new")
    os.symlink("one", folder.path("now"))
    folder.ask(Question.FILE, "now/a.txt")
    assert folder.changes("now") == []
    os.symlink("two", folder.path("next"))
    os.replace(folder.path("next"), folder.path("now"))
    assert folder.changes("now") == ["now/a.txt"]


def test_a_folder_moved_away_and_back(folder: Folder) -> None:
    folder.write("shop/deep/a.txt", "old")
    folder.ask(Question.FILE, "shop/deep/a.txt")
    os.rename(folder.path("shop"), folder.path("away"))
    assert folder.changes("shop") == ["shop/deep/a.txt"]
    os.rename(folder.path("away"), folder.path("shop"))
    assert folder.changes("shop") == []


def test_a_folder_moved_away_while_nothing_was_there(folder: Folder) -> None:
    """What a generation asks while the folder is away is answered otherwise when it is back."""
    folder.ask(Question.NAME, "shop/main")
    folder.write("elsewhere/main.py")
    os.rename(folder.path("elsewhere"), folder.path("shop"))
    assert folder.changes("shop") == ["shop/main.py"]


def test_a_folder_replaced_by_a_copy_with_one_other_file(folder: Folder) -> None:
    for name in ("a.txt", "b.txt"):
        folder.write(f"shop/{name}", "old")
        folder.write(f"copy/{name}", "old" if name == "a.txt" else "new")
        folder.ask(Question.FILE, f"shop/{name}")
    assert folder.changes() == []
    os.rename(folder.path("shop"), folder.path("away"))
    os.rename(folder.path("copy"), folder.path("shop"))
    assert folder.changes("shop") == ["shop/b.txt"]


def test_what_is_below_another_folder_of_the_same_name_is_looked_at(folder: Folder) -> None:
    """Nothing was asked for in `shop` itself."""
    folder.write("shop/deep/a.txt", "old")
    folder.write("copy/deep/a.txt", "new")
    folder.ask(Question.FILE, "shop/deep/a.txt")
    assert folder.changes("shop") == []
    os.rename(folder.path("shop"), folder.path("away"))
    os.rename(folder.path("copy"), folder.path("shop"))
    assert folder.changes("shop") == ["shop/deep/a.txt"]


class Counted:
    """Counts the calls of a function."""

    def __init__(self, patch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
        self._function = getattr(module, name)
        self.count = 0
        patch.setattr(module, name, self)

    def __call__(self, *arguments: Any) -> Any:
        self.count += 1
        return self._function(*arguments)


def test_names_in_a_folder_above_cost_no_look_at_all_below(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        folder.write(f"parts/part{number}/a.txt", "old")
        folder.ask(Question.FILE, f"parts/part{number}/a.txt")
    assert folder.changes() == []
    looks = Counted(monkeypatch, timeline, "identity_at")
    folder.write("parts/new", "x")
    assert folder.changes("parts", "parts/new") == []
    assert looks.count == 1


def test_a_name_that_is_there_as_it_was_costs_no_listing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("data/a.log", "x")
    folder.ask(Question.LIST, "data")
    assert folder.changes() == []
    listings = Counted(monkeypatch, timeline, "list_entry")
    folder.write("data/a.log", "xx")
    folder.write("data/db-journal")
    assert folder.changes("data/a.log", "data/gone.log", "data/db-journal") == []
    assert listings.count == 0
    folder.write("data/b.log")
    assert folder.changes("data/b.log") == ["data/b.log"]
    os.remove(folder.path("data/a.log"))
    assert folder.changes("data/a.log") == ["data/a.log"]
    assert listings.count == 2


def test_a_link_that_leads_nowhere_is_a_name(folder: Folder) -> None:
    folder.write("data/a")
    folder.ask(Question.LIST, "data")
    assert folder.changes() == []
    os.symlink("nowhere", folder.path("data/b"))
    assert folder.changes("data/b") == ["data/b"]


def test_changes_come_in_the_order_of_reading(folder: Folder) -> None:
    names = ["c.txt", "a.txt", "b.txt"]
    for name in names:
        folder.write(name, "old")
        folder.ask(Question.FILE, name)
    assert folder.changes() == []
    for name in names:
        folder.write(name, "new")
    assert folder.changes("b.txt", "a.txt", "c.txt") == names
    assert folder.names(folder.timeline.changes(None)) == names


# rules


def test_a_file_that_never_counts(tmp_path: Path) -> None:
    folder = Folder(tmp_path, exclude=("generated/",))
    folder.write("generated/a.py", "old")
    folder.ask(Question.FILE, "generated/a.py")
    folder.ask(Question.LIST, "generated")
    folder.write("generated/a.py", "new")
    folder.write("generated/b.py", "new")
    assert folder.changes("generated/a.py", "generated/b.py") == []


def test_a_file_that_counts_though_nobody_read_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path, include=("*.toml",))
    path = folder.write("a.toml", "old")
    folder.timeline.expect(path)
    assert folder.changes("a.toml") == []
    touch(path)
    assert folder.changes("a.toml") == []
    folder.write("a.toml", "new")
    assert folder.changes("a.toml") == ["a.toml"]
    folder.write("b.toml")
    assert folder.changes("b.toml", "b.txt") == ["b.toml"]
    own(folder, "b.toml")
    assert folder.changes("b.toml") == []
    os.remove(path)
    assert folder.changes("a.toml") == ["a.toml"]


def test_a_racy_file_that_counts_though_nobody_read_it(folder: Folder) -> None:
    """Equal in size and stamps: as it was when it was expected, not when somebody first looked."""
    folder = Folder(folder.root, include=("*.toml",))
    path = folder.write("a.toml", "old")
    folder.timeline.expect(path)
    [entry] = folder.timeline
    same_length(path)
    entry.fingerprint = fingerprint_at(path)
    assert folder.changes("a.toml") == ["a.toml"]


def test_what_is_expected_and_then_read_counts_as_it_was_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path, include=("*.py",))
    path = folder.write("shop.py", "old")
    folder.timeline.expect(path)
    folder.write("shop.py", "new")
    entry = read_entry(path)
    entry.names = "shop.py"
    assert folder.timeline.add(entry) == [str(tmp_path)], "the name is another question"
    assert folder.changes("shop.py") == []
    folder.write("shop.py", "old")
    assert folder.changes("shop.py") == ["shop.py"]
    folder.write(extension("shop"))
    assert folder.changes(extension("shop")) == [extension("shop")]


def test_what_is_no_file_or_does_not_count_is_not_expected(tmp_path: Path) -> None:
    folder = Folder(tmp_path, include=("conf",))
    folder.write("conf/a.txt")
    folder.timeline.expect(folder.path("conf"))
    folder.timeline.expect(folder.write("b.txt"))
    assert len(folder.timeline) == 0


def test_a_file_that_counts_and_was_only_looked_for_counts_by_its_bytes(tmp_path: Path) -> None:
    folder = Folder(tmp_path, include=("*.toml",))
    folder.write("a.toml", "old")
    folder.ask(Question.PATH, "a.toml")
    assert folder.changes() == []
    folder.write("a.toml", "new")
    assert folder.changes("a.toml") == ["a.toml"]


def test_files_that_are_found_count_if_they_are_new(tmp_path: Path) -> None:
    folder = Folder(tmp_path, include=("*.toml",))
    old, new, other = (folder.write(name) for name in ("old.toml", "new.toml", "new.txt"))
    folder.timeline.expect(old)
    for hints in ((), None):
        assert folder.timeline.changes(hints, [old, new, other]) == [new]


# digests that are left to somebody else


def lazy(folder: Folder, name: str) -> tuple[Timeline, str]:
    """A timeline that takes no digests, of a file that was read long ago."""
    rules = Rules((), (), (), str(folder.root))
    made = Timeline(rules, lazy=True, clock=lambda: time.time_ns() + LATER)
    path = folder.write(name, "old")
    made.add(Entry(Question.FILE, path, None, fingerprint_at(path)))
    return made, path


def test_a_look_takes_no_digest(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    made, path = lazy(folder, "a.txt")
    reads = Counted(monkeypatch, timeline, "read_entry")
    assert made.changes(()) == []
    assert made.changes(None) == []
    assert reads.count == 0
    touch(path)
    assert made.changes([path]) == [path]


def test_a_digest_that_was_left_is_taken_once(folder: Folder) -> None:
    made, path = lazy(folder, "a.txt")
    entry = made.undigested()
    assert entry is not None
    assert made.undigested() is None
    made.digest(entry, read_entry(path))
    touch(path)
    assert made.changes([path]) == []
    Path(path).write_text("new")
    assert made.changes([path]) == [path]


def test_a_digest_of_newer_bytes_is_not_believed(folder: Folder) -> None:
    made, path = lazy(folder, "a.txt")
    entry = made.undigested()
    assert entry is not None
    Path(path).write_text("new")
    made.digest(entry, read_entry(path))
    assert made.changes([path]) == [path]


def test_bytes_written_while_they_are_read_do_not_get_the_old_stamps(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.write("a.txt", "old")
    os.utime(path, (1, 1))
    before = fingerprint_at(path)
    stamp = answers.fingerprint_of

    def stamp_and_write(status: os.stat_result) -> answers.Fingerprint:
        monkeypatch.setattr(answers, "fingerprint_of", stamp)
        fingerprint = stamp(status)
        Path(path).write_text("new")
        return fingerprint

    monkeypatch.setattr(answers, "fingerprint_of", stamp_and_write)
    read = read_entry(path)
    assert read.answer == answers.digest_of(b"new")
    assert read.fingerprint == fingerprint_at(path) != before


# what the application writes itself


def own(folder: Folder, name: str) -> None:
    folder.timeline.add(Entry(Question.FILE, folder.path(name), OWN))


def test_what_was_read_and_then_written_is_own(folder: Folder) -> None:
    folder.write("db.json", "old")
    folder.ask(Question.FILE, "db.json")
    own(folder, "db.json")
    folder.write("db.json", "new")
    assert folder.changes("db.json") == []
    assert folder.timeline.changes(None) == []


def test_what_was_absent_and_then_created_is_own(folder: Folder) -> None:
    """`if not os.path.exists("db.sqlite3"): create(...)`."""
    folder.ask(Question.PATH, "db.sqlite3")
    own(folder, "db.sqlite3")
    folder.write("db.sqlite3")
    assert folder.changes("db.sqlite3") == []
    folder.timeline.add(path_entry(folder.path("db.sqlite3")))
    os.remove(folder.path("db.sqlite3"))
    assert folder.changes("db.sqlite3") == []


def test_a_module_that_is_looked_for_then_generated_is_own(folder: Folder) -> None:
    folder.ask(Question.NAME, "_version")
    own(folder, "_version.py")
    path = folder.write("_version.py", "1")
    assert folder.changes("_version.py") == []
    folder.timeline.add(read_entry(path))
    folder.write("_version.py", "2")
    assert folder.changes("_version.py") == ["_version.py"]


def test_a_module_that_is_read_then_written_then_executed_counts_as_executed(folder: Folder) -> None:
    path = folder.write("_version.py", "1")
    folder.ask(Question.FILE, "_version.py")
    own(folder, "_version.py")
    folder.write("_version.py", "2")
    folder.timeline.add(read_entry(path))
    assert folder.changes("_version.py") == []
    folder.write("_version.py", "3")
    assert folder.changes("_version.py") == ["_version.py"]


def test_own_names_are_no_change_of_a_listing_but_those_of_others_are(folder: Folder) -> None:
    folder.write("uploads/a.txt")
    folder.ask(Question.LIST, "uploads")
    own(folder, "uploads/b.txt")
    folder.write("uploads/b.txt")
    assert folder.changes("uploads/b.txt") == []
    folder.write("uploads/c.txt")
    assert folder.changes("uploads/c.txt") == ["uploads/c.txt"]
    os.remove(folder.path("uploads/c.txt"))
    own(folder, "uploads/a.txt")
    os.remove(folder.path("uploads/a.txt"))
    assert folder.changes("uploads/a.txt") == []


# odd names


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_utf_8(folder: Folder) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    folder.write(name, "old")
    folder.ask(Question.FILE, name)
    folder.ask(Question.LIST)
    for entry in folder.timeline:
        assert Entry.from_json(json.loads(json.dumps(entry.to_json()))).answer == entry.answer
    assert folder.changes(name) == []
    folder.write(name, "new")
    assert folder.changes(name) == [name]
    other = os.fsdecode(b"th\xe9.txt")
    folder.write(other)
    assert folder.changes(other) == [other]


def test_paths_that_cannot_be(folder: Folder) -> None:
    for kind in ASK:
        folder.ask(kind, "nul\0")
    assert folder.changes() == []
    assert folder.timeline.changes(None) == []
    assert folder.timeline.changes([folder.path("nul\0")]) == []


def test_a_question_is_asked_once(folder: Folder) -> None:
    folder.write("a.txt", "old")
    folder.ask(Question.FILE, "a.txt")
    folder.write("a.txt", "new")
    folder.ask(Question.FILE, "a.txt")
    assert len(folder.timeline) == 1
    assert folder.changes() == ["a.txt"]
    assert not folder.timeline.suspicious


def test_looking_at_a_folder_does_not_look_at_all_below(folder: Folder) -> None:
    """A hint for a folder comes with every name in it that comes or goes; its files are hinted themselves."""
    folder.write("a.txt", "old")
    folder.ask(Question.FILE, "a.txt")
    assert folder.changes() == []
    folder.write("a.txt", "new")
    assert folder.timeline.changes([str(folder.root)]) == []
    assert folder.changes("a.txt") == ["a.txt"]


def test_asking_leaves_the_answers_alone(folder: Folder) -> None:
    assert list_entry(folder.path("missing")).answer == ""
    assert read_entry(str(folder.root)).answer == ""
    assert path_entry(str(folder.root)).answer == "folder"


# what a process must not have seen that goes on from a checkpoint


def outdated(folder: Folder, *names: str) -> list[tuple[str, int]]:
    """The entries that a fresh process would answer otherwise, after changes of these names."""
    found = folder.timeline.outdated([folder.path(name) for name in names])
    return [(os.path.relpath(entry.path, folder.root), entry.seq) for entry in found]


def test_entries_are_outdated_in_order(folder: Folder) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        folder.write(name, "old")
        folder.ask(Question.FILE, name)
    folder.write("c.txt", "new")
    folder.write("b.txt", "new")
    assert outdated(folder, "c.txt", "b.txt") == [("b.txt", 1), ("c.txt", 2)]
    assert outdated(folder, "a.txt") == []


def test_what_the_application_has_written_is_outdated(folder: Folder) -> None:
    folder.write("data.json", "{}")
    folder.ask(Question.FILE, "data.json")
    folder.timeline.add(Entry(Question.FILE, folder.path("data.json"), OWN))
    assert folder.changes("data.json") == []
    assert outdated(folder) == [("data.json", 0)]


def test_names_that_the_application_has_made_are_outdated(folder: Folder) -> None:
    folder.ask(Question.LIST)
    folder.timeline.add(Entry(Question.FILE, folder.path("made.txt"), OWN))
    folder.write("made.txt")
    assert folder.changes("made.txt") == []
    assert outdated(folder) == [(".", 0)]


def test_what_was_dealt_with_is_outdated(folder: Folder) -> None:
    folder.write("page.html", "old")
    folder.ask(Question.FILE, "page.html")
    folder.write("page.html", "new")
    folder.timeline.accept(folder.path("page.html"))
    assert folder.changes("page.html") == []
    assert outdated(folder) == [("page.html", 0)]


def test_stamps_that_were_asked_for_are_outdated_by_a_touch(folder: Folder) -> None:
    path = folder.write("style.css", "a {}")
    folder.ask(Question.PATH, "style.css")
    assert outdated(folder) == []
    folder.timeline.add(replace(path_entry(path), fingerprint=fingerprint_at(path)))
    touch(path)
    assert folder.changes("style.css") == []
    assert outdated(folder) == [("style.css", 0)]


def test_a_timeline_begins_like_another(folder: Folder) -> None:
    for name in ("a.py", "b.py", "c.py"):
        folder.write(name, "old")
        folder.ask(Question.FILE, name)
    before = folder.timeline
    again = Folder(folder.root)
    paths = again.timeline.begin_like(before, 2, {folder.path("b.py")})
    assert again.names(paths) == ["a.py"]
    assert again.timeline.seq == 2
    again.ask(Question.FILE, "b.py")
    again.ask(Question.FILE, "c.py")
    # What is read again was read then for the first time: earlier checkpoints stand behind that.
    assert [(os.path.basename(entry.path), entry.seq) for entry in again.timeline] == [
        ("a.py", 0),
        ("b.py", 1),
        ("c.py", 2),
    ]
    folder.write("a.py", "new")
    assert again.changes("a.py") == ["a.py"]


def test_files_that_were_only_touched_are_told_with_their_stamps_of_now(tmp_path: Path) -> None:
    folder = Folder(tmp_path, late=True)
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        folder.write(name, "old")
        folder.ask(Question.FILE, name)
    assert folder.changes("a.txt", "b.txt", "c.txt", "d.txt") == []
    assert folder.timeline.touched(4, ()) == []
    folder.write("b.txt", "new")
    for name in ("a.txt", "c.txt"):
        os.utime(folder.path(name), (0, 0))
    assert folder.changes("a.txt", "b.txt", "c.txt", "d.txt") == ["b.txt"]
    again = Folder(tmp_path)
    again.timeline.begin_like(folder.timeline, 4, ())
    for each in (folder, again):
        assert folder.names(entry.path for entry in each.timeline.touched(4, ())) == ["a.txt", "c.txt"]
        assert folder.names(entry.path for entry in each.timeline.touched(2, ())) == ["a.txt"]
        assert each.timeline.touched(4, ())[0].fingerprint == fingerprint_at(folder.path("a.txt"))


def test_what_is_noticed_late_counts_as_read_before_everything(folder: Folder) -> None:
    folder.write("a.py", "old")
    folder.write("main.py", "old")
    folder.write("other.py", "old")
    folder.ask(Question.FILE, "a.py")
    for name in ("main.py", "other.py"):
        folder.timeline.add(replace(read_entry(folder.path(name)), late=True))
    again = Folder(folder.root)
    again.timeline.begin_like(folder.timeline, folder.timeline.seq, ())
    for each in (folder, again):
        assert each.timeline.seq == 1
        folder.write("main.py", "new")
        folder.write("other.py", "new")
        found = each.timeline.outdated([folder.path("main.py"), folder.path("other.py")])
        assert {os.path.basename(entry.path) for entry in found} == {"main.py", "other.py"}
        assert all(entry.seq < 0 for entry in found)


def test_what_never_counts_is_outdated_without_a_hint(tmp_path: Path) -> None:
    """Its change restarts nothing, but the next restart reads it."""
    folder = Folder(tmp_path, exclude=("*.dat",))
    for name in ("a.dat", "b.dat", ".git/HEAD"):
        folder.write(name, "old")
        folder.ask(Question.FILE, name)
    for name in ("a.dat", ".git/HEAD"):
        folder.write(name, "new")
        assert folder.changes(name) == []
    assert outdated(folder) == [("a.dat", 0), (".git/HEAD", 2)]
