"""What every watcher does, whatever backend: real files, saved in every way that editors know."""

import contextlib
import itertools
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devserver.watching import watch
from devserver.watching.places import MAX_LINKS, walk_trail
from devserver.watching.polling import GRAIN, Polling
from devserver.watching.rules import Rules
from devserver.watching.watcher import EVERYTHING, Watcher
from devserver.watching.watchfiles_backend import Watchfiles
from tests.patience import DEADLINE


def make_inotify() -> Watcher:
    if sys.platform != "linux":
        pytest.skip("inotify is a part of Linux")
    from devserver.watching.inotify import Inotify

    return Inotify()


def make_watchfiles() -> Watcher:
    try:
        return Watchfiles()
    except ImportError:
        pytest.skip("watchfiles is not installed")


@pytest.fixture(params=[make_inotify, make_watchfiles, Polling], ids=["inotify", "watchfiles", "polling"])
def watcher(request: pytest.FixtureRequest) -> Iterator[Watcher]:
    with contextlib.closing(request.param()) as made:
        yield made


def start(watcher: Watcher, *paths: Path) -> None:
    """Watch, and wait until watching has begun."""
    for path in paths:
        watcher.watch(str(path))
    if isinstance(watcher, Watchfiles):
        wait(watcher)
        assert watcher.hints() is EVERYTHING
    else:
        watcher.hints()


def wait(watcher: Watcher, timeout: float = DEADLINE) -> None:
    fd = watcher.fileno()
    assert fd is not None
    select.select([fd], [], [], timeout)


def expect(watcher: Watcher, *paths: Path | str) -> None:
    """Assert that `paths` are hinted: at once by inotify, by the next sweep, or within the deadline."""
    missing = {str(path) for path in paths}
    if isinstance(watcher, Polling):
        missing -= watcher.sweep()
    elif not isinstance(watcher, Watchfiles):
        hints = watcher.hints()
        missing -= hints if hints is not EVERYTHING else missing
    else:
        deadline = time.monotonic() + DEADLINE
        while missing and time.monotonic() < deadline:
            hints = watcher.hints()
            missing -= hints if hints is not EVERYTHING else missing
            if missing:
                wait(watcher, min(watcher.interval or DEADLINE, deadline - time.monotonic()))
    assert not missing, f"not hinted: {missing}"


def in_place(path: Path) -> None:
    with open(path, "r+") as file:
        file.write("# in place, longer\n")


def truncated(path: Path) -> None:
    path.write_text("")
    path.write_text("# new\n")


def renamed_over(path: Path) -> None:
    new = path.with_name(".goutputstream-X")
    new.write_text("# new\n")
    os.replace(new, path)


def by_jetbrains(path: Path) -> None:
    new, old = (path.with_name(path.name + mark) for mark in ("___jb_tmp___", "___jb_old___"))
    new.write_text("# new\n")
    path.rename(old)
    new.rename(path)
    old.unlink()


def by_vim(path: Path) -> None:
    backup = path.with_name(path.name + "~")
    path.with_name("4913").touch()
    path.with_name("4913").unlink()
    path.rename(backup)
    path.write_text("# new\n")
    backup.unlink()


def by_emacs(path: Path) -> None:
    lock = path.with_name(".#" + path.name)
    lock.symlink_to("user@host.1234:5678")
    path.with_name(path.name + "~").write_bytes(path.read_bytes())
    path.write_text("# new\n")
    lock.unlink()


def same_length_and_older(path: Path) -> None:
    """Only the time of the change of the inode (ctime), which nobody can set, tells."""
    path.write_text("# not\n")
    os.utime(path, (0, 0))


SAVES = [in_place, truncated, renamed_over, by_jetbrains, by_vim, by_emacs, same_length_and_older]


@pytest.mark.parametrize("save", SAVES, ids=lambda save: save.__name__)
def test_every_way_of_saving(tmp_path: Path, watcher: Watcher, save: Callable[[Path], None]) -> None:
    path = tmp_path / "app.py"
    path.write_text("# old\n")
    os.utime(path, (1e9, 1e9))
    start(watcher, path)
    for _ in range(2):
        save(path)
        expect(watcher, path)


@pytest.mark.parametrize("name", ["with space.py", "Grüße/naïve ☃.py", "[id]/*.py", "a\nb.py"])
def test_names_as_people_give_them(tmp_path: Path, watcher: Watcher, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("1")
    start(watcher, path)
    in_place(path)
    expect(watcher, path)


def test_names_in_a_watched_folder(tmp_path: Path, watcher: Watcher) -> None:
    (tmp_path / "old").touch()
    start(watcher, tmp_path)
    (tmp_path / "new").write_text("x")
    expect(watcher, tmp_path, tmp_path / "new")
    (tmp_path / "old").rename(tmp_path / "renamed")
    expect(watcher, tmp_path, tmp_path / "old", tmp_path / "renamed")
    (tmp_path / "new").unlink()
    expect(watcher, tmp_path, tmp_path / "new")


def test_a_file_that_does_not_exist_yet(tmp_path: Path, watcher: Watcher) -> None:
    start(watcher, tmp_path / "missing.py")
    (tmp_path / "missing.py").write_text("x")
    expect(watcher, tmp_path / "missing.py")
    (tmp_path / "missing.py").unlink()
    expect(watcher, tmp_path / "missing.py")


def test_a_folder_that_does_not_exist_yet(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "one" / "two" / "three.py"
    start(watcher, path, path.parent)
    path.parent.parent.mkdir()
    path.parent.mkdir()
    expect(watcher, path.parent)
    path.write_text("x")
    expect(watcher, path)
    path.write_text("longer")
    expect(watcher, path)


def test_the_names_in_a_folder_that_does_not_exist_yet(tmp_path: Path, watcher: Watcher) -> None:
    folder = tmp_path / "one" / "two"
    start(watcher, folder)
    folder.mkdir(parents=True)
    expect(watcher, folder)
    (folder / "new").write_text("x")
    expect(watcher, folder, folder / "new")


def test_a_path_below_a_file(tmp_path: Path, watcher: Watcher) -> None:
    """`package.py` may become `package/`."""
    (tmp_path / "package").write_text("x")
    path = tmp_path / "package" / "module.py"
    start(watcher, path)
    (tmp_path / "package").unlink()
    path.parent.mkdir()
    path.write_text("x")
    expect(watcher, path)
    path.write_text("longer")
    expect(watcher, path)


def test_a_file_becomes_a_folder_becomes_a_link(tmp_path: Path, watcher: Watcher) -> None:
    path, real = tmp_path / "thing", tmp_path / "elsewhere" / "real"
    real.parent.mkdir()
    real.write_text("x")
    path.write_text("x")
    start(watcher, path)
    path.unlink()
    path.mkdir()
    expect(watcher, path)
    (path / "inside").write_text("x")
    expect(watcher, path / "inside")
    (path / "inside").unlink()
    path.rmdir()
    path.symlink_to(real)
    expect(watcher, path)
    real.write_text("longer")
    expect(watcher, path)


def test_a_project_moved_away_and_back(tmp_path: Path, watcher: Watcher) -> None:
    """Only the folder above the watched ones is renamed: they themselves see nothing."""
    path = tmp_path / "work" / "project" / "package" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text("x")
    (path.parent / "unasked.py").touch()
    start(watcher, path, path.parent)
    (tmp_path / "work").rename(tmp_path / "away")
    expect(watcher, path, path.parent)
    (tmp_path / "away").rename(tmp_path / "work")
    expect(watcher, path, path.parent, path.parent / "unasked.py")
    path.write_text("longer")
    expect(watcher, path)


def test_a_project_cloned_anew(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "project" / "package" / "a.py"

    def clone(text: str) -> None:
        path.parent.mkdir(parents=True)
        path.write_text(text)

    clone("old")
    start(watcher, path, path.parent)
    path.unlink()
    path.parent.rmdir()
    path.parent.parent.rmdir()
    clone("new one")
    expect(watcher, path)
    path.write_text("edited now")
    expect(watcher, path)
    (path.parent / "b.py").write_text("x")
    expect(watcher, path.parent / "b.py")


def test_a_linked_file_by_either_name(tmp_path: Path, watcher: Watcher) -> None:
    real, between, link = (tmp_path / name / "file.py" for name in ("real", "between", "link"))
    for path in (real, between, link):
        path.parent.mkdir()
    real.write_text("x")
    between.symlink_to("../real/file.py")
    link.symlink_to(between)
    start(watcher, link)
    real.write_text("by its own name")
    expect(watcher, link)
    link.write_text("by the link")
    expect(watcher, link)
    renamed_over(real)
    expect(watcher, link)


def test_a_link_is_turned_to_another_file(tmp_path: Path, watcher: Watcher) -> None:
    one, two, link = tmp_path / "1" / "a", tmp_path / "2" / "b", tmp_path / "link"
    for path in (one, two):
        path.parent.mkdir()
        path.write_text("x")
    link.symlink_to(one)
    start(watcher, link)
    new = tmp_path / "new"
    new.symlink_to(two)
    new.rename(link)
    expect(watcher, link)
    two.write_text("longer")
    expect(watcher, link)
    two.unlink()
    expect(watcher, link)
    two.write_text("back, and longer still")
    expect(watcher, link)


def test_a_linked_folder_by_either_name(tmp_path: Path, watcher: Watcher) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    (real / "sub").mkdir(parents=True)
    link.symlink_to(real)
    path = Path("sub", "a.py")
    (real / path).write_text("x")
    start(watcher, real / path, link / path)
    (real / path).write_text("longer")
    expect(watcher, real / path, link / path)
    (link / path).write_text("even longer")
    expect(watcher, real / path, link / path)


def test_a_link_above_is_turned(tmp_path: Path, watcher: Watcher) -> None:
    """Releases side by side, `current` points to one of them."""
    for release in ("1", "2"):
        (tmp_path / release / "app").mkdir(parents=True)
        (tmp_path / release / "app" / "a.py").write_text(release * int(release))
    (tmp_path / "current").symlink_to("1")
    path = tmp_path / "current" / "app" / "a.py"
    start(watcher, path)
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(tmp_path / "current")
    expect(watcher, path)
    (tmp_path / "2" / "app" / "a.py").write_text("longer")
    expect(watcher, path)


def test_paths_that_cannot_be(watcher: Watcher, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    (tmp_path / "loop").symlink_to("loop")
    start(watcher, tmp_path / "\0", tmp_path / "\ud800.py", tmp_path / "loop" / "a", path)
    path.write_text("x")
    expect(watcher, path)


def test_forgotten_paths_are_not_hinted(tmp_path: Path, watcher: Watcher) -> None:
    old, new = tmp_path / "1" / "old.py", tmp_path / "2" / "new.py"
    for path in (old, new):
        path.parent.mkdir()
    start(watcher, old)
    watcher.forget()
    start(watcher, new)
    old.write_text("x")
    new.write_text("x")
    hints: set[str] = set()
    deadline = time.monotonic() + DEADLINE
    while str(new) not in hints and time.monotonic() < deadline:
        if not isinstance(watcher, Polling):
            wait(watcher)
        found = watcher.sweep() if isinstance(watcher, Polling) else watcher.hints()
        hints |= found if found is not EVERYTHING else set()
    assert hints == {str(new)}


def test_closing_twice_does_no_harm(tmp_path: Path, watcher: Watcher) -> None:
    watcher.watch(str(tmp_path))
    watcher.close()
    watcher.close()


def test_watching_again_costs_nothing(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "a.py"
    path.write_text("x")
    start(watcher, path)
    path.write_text("longer")
    watcher.watch(str(path))
    expect(watcher, path)


# polling alone


class Clock:
    """The time of day, which goes on only when told to, and far from any file's stamps."""

    def __init__(self) -> None:
        self.now = time.time() + 1000

    def __call__(self) -> float:
        return self.now


def test_polling_sweeps_when_it_is_time(tmp_path: Path) -> None:
    clock = Clock()
    watcher = Polling(clock)
    assert watcher.interval is None
    watcher.watch(str(tmp_path / "a"))
    (tmp_path / "a").touch()
    assert watcher.interval == pytest.approx(0.25)
    clock.now += 0.2
    assert watcher.hints() == set()
    clock.now += 0.1
    assert watcher.interval == 0.0
    assert watcher.hints() == {str(tmp_path / "a")}
    assert watcher.hints() == set()
    clock.now -= 3600  # set back
    (tmp_path / "a").unlink()
    assert watcher.hints() == {str(tmp_path / "a")}


def test_polling_slows_down_when_sweeps_cost_much(tmp_path: Path) -> None:
    ticks = itertools.count(time.time() + 1000, 0.1)  # each look at the clock takes 0.1 s
    watcher = Polling(lambda: next(ticks))
    watcher.watch(str(tmp_path))
    watcher.sweep()
    assert watcher.interval == pytest.approx(50 * 0.1 - 0.1)


def test_polling_says_nothing_of_what_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    watcher = Polling(Clock())
    for path in (tmp_path, tmp_path / "a", tmp_path / "missing"):
        watcher.watch(str(path))
    assert watcher.sweep() == set()
    (tmp_path / "a").write_text("longer")
    assert watcher.sweep() == {str(tmp_path / "a")}, "the folder's names have not changed"
    assert watcher.sweep() == set()


def test_polling_doubts_a_stamp_that_was_fresh_when_taken(tmp_path: Path) -> None:
    """A second save in the same tick of the file system's clock may leave all stamps as they are."""
    (tmp_path / "a").write_text("x")
    clock = Clock()
    clock.now = (tmp_path / "a").stat().st_mtime + GRAIN / 2
    watcher = Polling(clock)
    watcher.watch(str(tmp_path / "a"))
    assert watcher.sweep() == set()
    clock.now += 2 * GRAIN
    assert watcher.sweep() == {str(tmp_path / "a")}
    assert watcher.sweep() == set()


# watchfiles alone


class Broken:
    """A library whose queue has failed."""

    def __init__(self, *_: object) -> None:
        pass

    def watch(self, *_: object) -> set[tuple[int, str]]:
        raise RuntimeError("queue gone")

    def close(self) -> None:
        pass


def test_polling_takes_over_when_watchfiles_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.closing(Watchfiles(Broken)) as watcher:
        watcher.watch(str(tmp_path / "a"))
        watcher._thread.join(DEADLINE)
        assert watcher.hints() is EVERYTHING
        assert watcher.name == "polling"
        assert watcher.interval is not None
        assert watcher.interval <= 0.25
        (tmp_path / "a").touch()
        assert str(tmp_path / "a") in watcher._net.sweep()
    assert any("polling instead" in record.getMessage() for record in caplog.records)


def test_loading_watchfiles_loads_neither_asyncio_nor_anyio() -> None:
    program = (
        "import sys; from devserver.watching import watch, watchfiles_backend as backend;"
        " backend.load_notify(); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    if "ImportError" in done.stderr:
        pytest.skip("watchfiles is not installed")
    assert not {"asyncio", "anyio", "watchfiles"} & set(done.stdout.split()), done


# the choice


def test_the_choice_of_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(watch.make()) as best, contextlib.closing(watch.make(poll=True)) as polling:
        assert polling.name == "polling"
        if sys.platform == "linux":
            assert best.name == "inotify"
    monkeypatch.setattr(sys, "platform", "darwin")
    with contextlib.closing(watch.make()) as other:
        assert other.name in ("watchfiles", "polling")
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with contextlib.closing(watch.make()) as last:
        assert last.name == "polling"


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is a part of Linux")
def test_without_inotify_instances_polling_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        from devserver.watching import inotify

        assert inotify is not None
        made = watch.make()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert made.name == "polling"
    [record] = caplog.records
    assert record.levelno == logging.WARNING


# trails and walks


def test_a_trail_through_links(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to("./../real")
    trail = walk_trail(str(tmp_path / "here" / "link" / "sub" / "a.py"))
    assert trail.folders == (str(tmp_path / "here"), str(tmp_path / "real" / "sub"))
    assert trail.names == (str(tmp_path / "here" / "link"), str(tmp_path / "real" / "sub" / "a.py"))
    assert trail.end is None
    assert walk_trail(str(tmp_path)).end == str(tmp_path)
    assert walk_trail(os.sep).end == os.sep


def test_a_trail_in_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    trail = walk_trail(str(tmp_path / "a"))
    assert trail.end is None
    assert len(trail.names) == MAX_LINKS + 1


def tree(top: Path, *paths: str) -> None:
    for path in paths:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).touch()


def test_a_walk_gives_the_folders_and_the_files_that_count(tmp_path: Path) -> None:
    tree(
        tmp_path,
        *("src/a.py", "src/a.txt", "src/sub/b.py", "src/.git/c.py", "src/node_modules/d.py"),
        *("src/venv/pyvenv.cfg", "src/venv/lib/e.py", "other/f.py"),
    )
    rules = Rules(("src",), (), (), str(tmp_path))
    found = {os.path.relpath(path, tmp_path) for path in watch.walk(rules)}
    assert found == {"src", "src/a.py", "src/sub", "src/sub/b.py", "src/venv"}
    assert "virtual environment" in rules.verdict(str(tmp_path / "src/venv/lib/e.py")).rule


def test_a_walk_of_a_project_that_is_its_own_environment(tmp_path: Path) -> None:
    tree(tmp_path, "pyvenv.cfg", "app.py", "lib/site-packages/a.py")
    found = {os.path.relpath(path, tmp_path) for path in watch.walk(Rules((".",), (), (), str(tmp_path)))}
    assert found == {".", "app.py", "lib"}


def test_a_walk_enters_links_once(tmp_path: Path) -> None:
    tree(tmp_path, "src/a.py", "real/b.py")
    (tmp_path / "src" / "self").symlink_to(tmp_path / "src")
    (tmp_path / "src" / "link").symlink_to(tmp_path / "real")
    found = list(watch.walk(Rules(("src",), (), (), str(tmp_path))))
    assert str(tmp_path / "src" / "link" / "b.py") in found
    assert len(found) == len(set(found)) == 5


def test_a_walk_from_a_folder_that_has_appeared(tmp_path: Path) -> None:
    tree(tmp_path, "src/a.py", "src/new/b.py")
    found = list(watch.walk(Rules(("src",), (), (), str(tmp_path)), str(tmp_path / "src" / "new")))
    assert found == [str(tmp_path / "src" / "new"), str(tmp_path / "src" / "new" / "b.py")]


def test_a_walk_reaches_into_what_is_left_out_where_it_was_named(tmp_path: Path) -> None:
    tree(tmp_path, "node_modules/mine/deep/a.js", "node_modules/other/b.js")
    rules = Rules((), ("node_modules/mine/**/*.js",), (), str(tmp_path))
    found = {os.path.relpath(path, tmp_path) for path in watch.walk(rules)}
    assert found == {f"node_modules/mine{more}" for more in ("", "/deep", "/deep/a.js")}


def test_a_walk_ends_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "MAX_FOLDERS", 3)
    tree(tmp_path, *(f"{number}/a.py" for number in range(10)))
    folders = [path for path in watch.walk(Rules((".",), (), (), str(tmp_path))) if os.path.isdir(path)]
    assert len(folders) == 4
    [record] = caplog.records
    assert "--reload-exclude" in record.getMessage()
