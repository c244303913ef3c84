"""The Linux watcher with the real kernel: what is queued when a save returns is seen at once."""

import contextlib
import errno
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("inotify is a part of Linux", allow_module_level=True)

from devserver.watching.inotify import HOLD, SELF, Inotify
from devserver.watching.inotify_calls import IN_CREATE, IN_DONT_FOLLOW, IN_MODIFY, IN_ONLYDIR, Kernel
from devserver.watching.mounts import find_silent_mount, read_mounts
from devserver.watching.watcher import EVERYTHING
from tests.patience import DEADLINE


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watcher(clock: Clock) -> Iterator[Inotify]:
    with contextlib.closing(Inotify(clock=clock)) as made:
        yield made


def write(path: Path, text: str = "x") -> str:
    path.write_text(text)
    return str(path)


def watch(watcher: Inotify, *paths: Path) -> None:
    for path in paths:
        watcher.watch(str(path))
    watcher.hints()


def masks(watcher: Inotify) -> dict[int, int]:
    """The kernel's own list of the watches (proc(5)): number to mask."""
    lines = Path(f"/proc/self/fdinfo/{watcher.fileno()}").read_text().splitlines()
    fields = [dict(part.split(":") for part in line.split()[1:] if ":" in part) for line in lines]
    return {int(found["wd"], 16): int(found["mask"], 16) for found in fields if "wd" in found}


# being written


def test_an_open_file_is_held_back_until_it_is_closed(tmp_path: Path, watcher: Inotify) -> None:
    path = write(tmp_path / "a.py")
    watch(watcher, tmp_path / "a.py")
    with open(path, "w") as file:
        file.write("half")
        file.flush()
        assert watcher.hints() == set()
        assert watcher.interval == pytest.approx(HOLD)
        file.write("whole")
    assert watcher.hints() == {path}
    assert watcher.interval is None


def test_a_file_that_stays_open_is_hinted_after_a_while(
    tmp_path: Path, watcher: Inotify, clock: Clock
) -> None:
    path = write(tmp_path / "log")
    watch(watcher, tmp_path / "log")
    with open(path, "a") as file:
        print("line", file=file, flush=True)
        assert watcher.hints() == set()
        clock.now += HOLD / 2
        print("line", file=file, flush=True)
        assert watcher.hints() == set()
        assert watcher.interval == pytest.approx(HOLD / 2)
        clock.now += HOLD / 2
        assert watcher.hints() == {path}
        assert watcher.hints() == set()
        print("line", file=file, flush=True)
        assert watcher.hints() == set(), "held back anew"
        clock.now += HOLD
        assert watcher.hints() == {path}


def test_a_new_file_is_held_back_and_changes_the_listing(tmp_path: Path, watcher: Inotify) -> None:
    watch(watcher, tmp_path)
    with open(tmp_path / "new", "w"):
        assert watcher.hints() == set()
        assert watcher.interval == pytest.approx(HOLD)
    assert watcher.hints() == {str(tmp_path), str(tmp_path / "new")}


def test_new_names_that_nobody_writes_are_hinted_at_once(tmp_path: Path, watcher: Inotify) -> None:
    write(tmp_path / "a")
    watch(watcher, tmp_path)
    (tmp_path / "hard").hardlink_to(tmp_path / "a")
    (tmp_path / "soft").symlink_to("a")
    (tmp_path / "folder").mkdir()
    assert watcher.hints() == {str(tmp_path), *(str(tmp_path / name) for name in ("hard", "soft", "folder"))}
    assert watcher.interval is None


def test_a_rename_over_a_path_held_back_is_hinted_at_once(tmp_path: Path, watcher: Inotify) -> None:
    path = write(tmp_path / "a.py")
    new = write(tmp_path / "a.py.new", "new")
    watch(watcher, tmp_path / "a.py")
    with open(path, "a") as file:
        print("x", file=file, flush=True)
        assert watcher.hints() == set()
        os.rename(new, path)
        assert path in as_set(watcher)
        assert watcher.interval is None


def as_set(watcher: Inotify) -> set[str]:
    hints = watcher.hints()
    assert hints is not EVERYTHING
    return hints


def test_what_happens_to_files_that_nobody_asked_for_is_nothing(tmp_path: Path, watcher: Inotify) -> None:
    """Neither a hint nor a wait for the end: a log would cost something at every request."""
    write(tmp_path / "app.log")
    watch(watcher, tmp_path, tmp_path / "sub" / "a.py")
    with open(tmp_path / "app.log", "a") as file:
        print("line", file=file, flush=True)
        assert watcher.hints() == set()
        assert watcher.interval is None
    assert watcher.hints() == set()
    (tmp_path / "app.log").unlink()
    assert watcher.hints() == {str(tmp_path), str(tmp_path / "app.log")}


def test_names_that_come_and_go_by_themselves_do_not_change_a_listing(
    tmp_path: Path, watcher: Inotify
) -> None:
    watch(watcher, tmp_path)
    write(tmp_path / "db.sqlite3-journal")
    assert watcher.hints() == {str(tmp_path / "db.sqlite3-journal")}
    (tmp_path / "db.sqlite3-journal").unlink()
    assert watcher.hints() == {str(tmp_path / "db.sqlite3-journal")}


# quiet


def test_quiet_until_something_happens(tmp_path: Path, watcher: Inotify, clock: Clock) -> None:
    path = write(tmp_path / "a.py")
    watch(watcher, tmp_path / "a.py")
    assert watcher.quiet()
    with open(path, "a") as file:
        print("x", file=file, flush=True)
        assert not watcher.quiet()
        assert watcher.hints() == set()
        assert not watcher.quiet(), "held back: it is due though the kernel says nothing more"
    assert watcher.hints() == {path}
    assert watcher.quiet()


def test_the_length_of_the_queue_is_more_than_its_lowest_byte(tmp_path: Path) -> None:
    with contextlib.closing(Kernel()) as kernel:
        kernel.add(str(tmp_path), IN_CREATE)
        assert not kernel.waiting()
        for number in range(8):  # 32 bytes each, with the name
            (tmp_path / f"{number}").touch()
        assert kernel.waiting()
        assert len(list(kernel.read())) == 8
        assert not kernel.waiting()


# the kernel's ways


def test_reading_touching_and_chmod_are_no_hints(tmp_path: Path, watcher: Inotify) -> None:
    path = Path(write(tmp_path / "a.py"))
    watch(watcher, path, tmp_path)
    path.read_text()
    os.utime(path)
    path.chmod(0o600)
    os.listdir(tmp_path)
    assert watcher.hints() == set()


def test_nothing_is_watched_twice_and_the_folders_above_only_for_their_fate(
    tmp_path: Path, watcher: Inotify
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    watch(watcher, tmp_path / "a", tmp_path / "b", tmp_path)
    before = masks(watcher)
    assert len(before) == len(tmp_path.parts)
    kernels = SELF & ~IN_ONLYDIR & ~IN_DONT_FOLLOW
    assert sorted(mask & 0xFFF for mask in before.values())[:-1] == [kernels] * (len(before) - 1)
    watch(watcher, tmp_path / "a", tmp_path / "link" / "b")
    assert masks(watcher).keys() == before.keys()


def test_noise_in_folders_above_is_not_hinted(tmp_path: Path, watcher: Inotify) -> None:
    (tmp_path / "project").mkdir()
    watch(watcher, tmp_path / "project" / "a.py", tmp_path / "project")
    write(tmp_path / "other").encode()
    (tmp_path / "other").unlink()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").rmdir()
    assert watcher.hints() == set()


def test_a_folder_removed_while_it_is_somebodys_working_directory(tmp_path: Path, watcher: Inotify) -> None:
    """The kernel announces its end only when the last user has left, but then it is back already."""
    project = tmp_path / "project"
    project.mkdir()
    path = write(project / "a.py")
    watch(watcher, project / "a.py")
    inside = os.open(project, os.O_RDONLY)
    try:
        os.unlink(path)
        project.rmdir()
        assert path in as_set(watcher)
        project.mkdir()
        assert path in as_set(watcher)
        write(project / "a.py")
        assert path in as_set(watcher)
    finally:
        os.close(inside)


def test_waiting_for_a_folder_ends_when_it_is_there(tmp_path: Path, watcher: Inotify) -> None:
    """A watch for names in a busy folder (/tmp, a home) would wake us for nothing ever after."""
    path = tmp_path / "one" / "two" / "a.py"
    watch(watcher, path)
    few = masks(watcher)
    path.parent.mkdir(parents=True)
    assert str(path) in as_set(watcher)
    write(tmp_path / "noise")
    assert watcher.hints() == set()
    now = masks(watcher)
    assert len(now) == len(few) + 2
    assert sum(bool(mask & IN_MODIFY) for mask in now.values()) == 1
    assert write(path) in as_set(watcher)


def test_a_link_turned_away_is_no_longer_hinted(tmp_path: Path, watcher: Inotify) -> None:
    old, new, link = tmp_path / "1" / "a", tmp_path / "2" / "a", tmp_path / "link"
    for path in (old, new):
        path.parent.mkdir()
        path.touch()
    link.symlink_to(old)
    watch(watcher, link, old)
    link.unlink()
    link.symlink_to(new)
    assert as_set(watcher) == {str(link)}
    write(old)
    assert as_set(watcher) == {str(old)}
    write(new)
    assert as_set(watcher) == {str(link)}


def test_the_queue_overflows(tmp_path: Path, watcher: Inotify) -> None:
    late = tmp_path / "late" / "c.py"
    watch(watcher, tmp_path / "a", tmp_path / "b", late)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with open(tmp_path / "a", "wb", 0) as one, open(tmp_path / "b", "wb", 0) as two:
        for _ in range(limit // 2 + 1):  # in turns: equal events in a row are one
            one.write(b"x")
            two.write(b"x")
    late.parent.mkdir()  # the event for this is lost
    assert watcher.hints() is EVERYTHING
    assert write(late) in as_set(watcher)
    assert write(tmp_path / "a") in as_set(watcher)


def test_forget_keeps_the_descriptor_and_nothing_else(tmp_path: Path, watcher: Inotify) -> None:
    path = Path(write(tmp_path / "a.py"))
    watch(watcher, path)
    fd = watcher.fileno()
    write(path)
    watcher.forget()
    assert watcher.hints() == set()
    assert masks(watcher) == {}
    watch(watcher, path)
    assert write(path) in as_set(watcher)
    assert watcher.fileno() == fd


def test_the_descriptor_is_not_inherited(watcher: Inotify) -> None:
    fd = watcher.fileno()
    assert fd is not None
    assert not os.get_inheritable(fd)


def test_a_closed_watcher_is_silent(tmp_path: Path) -> None:
    watcher = Inotify()
    watcher.watch(str(tmp_path))
    watcher.close()
    watcher.close()
    assert watcher.hints() == set()


def test_a_name_that_is_not_utf8(tmp_path: Path, watcher: Inotify) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe.py")
    watch(watcher, path)
    assert as_set(watcher) == set()
    assert write(path) in as_set(watcher)


# nothing is missed


def stamps(path: Path) -> object:
    """What must not change without a hint."""
    try:
        found = path.stat()
    except OSError:
        return None
    if path.is_dir():
        return found.st_ino, frozenset(os.listdir(path))
    return found.st_ino, found.st_size, found.st_mtime_ns


class Chaos:
    """Random things done to a small tree: folders, files and links, made, moved and removed.

    Args:
        top: the tree's folder.
        seed: the same number, the same deeds.
    """

    def __init__(self, top: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self._top = top

    def path(self) -> Path:
        """Any path; most of them are not there."""
        return self._top.joinpath(*self.random.choices("abc", k=self.random.randint(1, 4)))

    def act(self) -> str:
        """Do one thing, if it can be done now; say what."""
        one, other = self.path(), self.path()
        deeds = (self.write, self.write, self.folder, self.remove, self.move, self.link)
        deed = self.random.choice(deeds)
        with contextlib.suppress(OSError):
            deed(one, other)
        return f"{deed.__name__} {one} {other}"

    def write(self, one: Path, _: Path) -> None:
        with open(one, "a") as file:
            file.write("x")

    def folder(self, one: Path, _: Path) -> None:
        one.mkdir(parents=True)

    def remove(self, one: Path, _: Path) -> None:
        if one.is_dir() and not one.is_symlink():
            one.rmdir()
        else:
            one.unlink()

    def move(self, one: Path, other: Path) -> None:
        one.rename(other)

    def link(self, one: Path, other: Path) -> None:
        target = other if self.random.random() < 0.5 else Path(os.path.relpath(other, one.parent))
        one.symlink_to(target)


@pytest.mark.parametrize("seed", range(20))
def test_no_change_goes_without_a_hint(tmp_path: Path, seed: int) -> None:
    chaos = Chaos(tmp_path / "top", seed)
    (tmp_path / "top").mkdir()
    paths = sorted({chaos.path() for _ in range(10)})
    with contextlib.closing(Inotify()) as watcher:
        watch(watcher, *paths)
        before = {path: stamps(path) for path in paths}
        for _ in range(150):
            done = [chaos.act() for _ in range(chaos.random.choice((1, 1, 2, 3, 10)))]
            hints = as_set(watcher)
            for path in paths:
                now = stamps(path)
                assert now == before[path] or str(path) in hints, (done, path, before[path], now)
                before[path] = now
        assert masks(watcher).keys() == watcher._watches._masks.keys(), "none is left behind"


# polling instead


class Refusing(Kernel):
    """The real kernel, but for an error on some folders."""

    def __init__(self, code: int, refuses: Callable[[str], bool]) -> None:
        super().__init__()
        self._code, self._refuses = code, refuses

    def add(self, folder: str, mask: int) -> int:
        if self._refuses(folder):
            raise OSError(self._code, os.strerror(self._code))
        return super().add(folder, mask)


def sweep(watcher: Inotify) -> set[str]:
    """What polling would find in the end."""
    return watcher._polling.sweep()


def test_a_folder_without_permission_is_polled_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
    closed, other = tmp_path / "closed" / "a.py", tmp_path / "open" / "a.py"
    refused = str(closed.parent)
    kernel = Refusing(errno.EACCES, lambda folder: folder == refused)
    with contextlib.closing(Inotify(kernel)) as watcher:
        watch(watcher, closed, other)
        assert write(other) in as_set(watcher)
        assert watcher.interval is not None
        write(closed)
        assert str(closed) in sweep(watcher)
        watch(watcher, closed.parent / "later.py")
        assert write(closed.parent / "later.py") in sweep(watcher)
    assert not caplog.records


def test_a_folder_above_without_permission_does_not_matter(tmp_path: Path) -> None:
    kernel = Refusing(errno.EACCES, lambda folder: folder == str(tmp_path.parent))
    with contextlib.closing(Inotify(kernel)) as watcher:
        watch(watcher, tmp_path / "a.py")
        assert write(tmp_path / "a.py") in as_set(watcher)
        assert watcher.interval is None


def test_watches_run_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As many as are left are used; one warning, whatever the number of folders."""
    folders = [tmp_path / str(number) for number in range(10)]
    for folder in folders:
        folder.mkdir()
    kernel = Refusing(errno.ENOSPC, lambda folder: folder in map(str, folders[4:]))
    with contextlib.closing(Inotify(kernel)) as watcher:
        watch(watcher, *folders, *(folder / "a.py" for folder in folders))
        for folder in folders:
            write(folder / "a.py")
        seen = as_set(watcher)
        assert {str(folder / "a.py") for folder in folders[:4]} <= seen
        swept = sweep(watcher)
        assert {str(folder / "a.py") for folder in folders[4:]} <= swept
        assert {str(folder) for folder in folders[4:]} <= swept
        watcher.forget()
        watch(watcher, *folders)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "sudo sysctl fs.inotify.max_user_watches=" in record.getMessage()


def test_watches_run_out_for_real(tmp_path: Path) -> None:
    """In a user namespace, whose limit is its own."""
    program = """if True:
        import logging, os, sys
        from devserver.watching.inotify import Inotify
        logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
        watcher = Inotify()
        folders = [os.path.join(sys.argv[1], str(number)) for number in range(30)]
        paths = [os.path.join(folder, "a.py") for folder in folders]
        for folder in folders:
            os.mkdir(folder)
        for path in paths:
            watcher.watch(path)
        for path in paths:
            open(path, "w").close()
        found = watcher.hints() | watcher._polling.sweep()
        print(len(watcher._polled), sorted(paths) == sorted(found & set(paths)))
    """
    script = 'echo 20 > /proc/sys/user/max_inotify_watches && exec "$0" -c "$1" "$2"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script, sys.executable, program]
    try:
        done = subprocess.run(
            [*command, tmp_path], capture_output=True, text=True, timeout=DEADLINE, check=False
        )
    except FileNotFoundError:
        pytest.skip("no unshare(1) here")
    if "max_inotify_watches" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr}")
    warning, result = done.stdout.splitlines()
    assert warning.startswith("WARNING inotify watches are exhausted"), done
    polled, complete = result.split()
    assert int(polled) > 10
    assert complete == "True"


TABLE = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
28 27 0:30 / /mnt/c\\040d rw,noatime - 9p C:\\134 rw,dirsync
29 28 0:31 / /mnt/c\\040d/fast rw - tmpfs tmpfs rw
30 27 0:32 / /remote rw - nfs4 server:/export rw
31 27 0:33 / /sshfs rw - fuse.sshfs user@host: rw
32 30 0:34 / /remote rw - ext4 /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("/home/u", None),
        ("/", None),
        ("/mnt/c d/project", ("/mnt/c d", "9p")),
        ("/mnt/c d", ("/mnt/c d", "9p")),
        ("/mnt/c", None),
        ("/mnt/c d/fast/project", None),
        ("/sshfs/project", ("/sshfs", "fuse.sshfs")),
        ("/remote/project", None),
    ],
)
def test_the_longest_mount_point_decides(folder: str, found: tuple[str, str] | None) -> None:
    assert find_silent_mount(folder, read_mounts(TABLE)) == found


def test_a_mount_without_events_is_polled_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "devserver")
    mount, local = tmp_path / "mount", tmp_path / "local"
    for folder in (mount / "one", mount / "two", local):
        folder.mkdir(parents=True)
    (local / "link.py").symlink_to(mount / "one" / "a.py")
    table = tmp_path / "mountinfo"
    table.write_text(f"1 1 0:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / {mount} rw - 9p C: rw\n")
    with contextlib.closing(Inotify(mountinfo=str(table))) as watcher:
        watch(watcher, mount / "one" / "a.py", mount / "two", local / "b.py", local / "link.py")
        assert as_set(watcher) == set()
        written = {write(mount / "one" / "a.py"), write(mount / "two" / "b.py")}
        assert as_set(watcher) == set(), "events on this mount are not relied on"
        assert sweep(watcher) >= written | {str(local / "link.py")}
        assert write(local / "b.py") in as_set(watcher)
    [record] = caplog.records
    assert str(mount) in record.getMessage()
    assert "9p" in record.getMessage()


def test_one_folder_by_two_mounts(tmp_path: Path) -> None:
    """The kernel gives both the same watch."""
    real = tmp_path / "real"
    real.mkdir()
    bound = tmp_path / "bound"
    bound.mkdir()
    same = {str(bound): str(real)}

    class Binding(Kernel):
        def add(self, folder: str, mask: int) -> int:
            return super().add(same.get(folder, folder), mask)

    with contextlib.closing(Inotify(Binding())) as watcher:
        watch(watcher, real / "a.py", bound / "a.py")
        write(real / "a.py")
        assert as_set(watcher) >= {str(real / "a.py"), str(bound / "a.py")}
