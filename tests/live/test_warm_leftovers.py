"""The processes of a warm server: whichever is killed, the rest goes on or is gone; they do not grow."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.leftovers import MARK, nothing_is_left
from tests.live.process import EACH, MARKED, DevServer, descendants, gone, save, tell
from tests.patience import DEADLINE

pytestmark = [
    pytest.mark.live,
    pytest.mark.cpython,
    pytest.mark.skipif(sys.platform != "linux", reason="there are no warm restarts"),
]

APP = """
import page

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    answer = page.BY if scope["path"] == "/by" else f"{page.EARLY} {page.LATE}"
    await send({"type": "http.response.body", "body": str(answer).encode()})
"""

# BY: the process that executed the last statement. Another may serve, if it left a checkpoint behind that.
PAGE = """
import os, time
EARLY = "{early}"
MIDDLE = "{middle}"
BY, LATE = os.getpid(), "{late}"
"""


class Page:
    """A project, and what its processes are.

    Attributes:
        server: for it.
        guardian: see `devserver.process.orphans`.
    """

    def __init__(self, folder: Path, server: DevServer) -> None:
        self._path = folder / "page.py"
        self._texts = {"early": "one", "middle": "one", "late": "one"}
        self.server = server
        self.guardian = 0

    def edit(self, **texts: str) -> None:
        self._texts.update(texts)
        save(self._path, PAGE.format(**self._texts))

    def check(self) -> None:
        """It serves what was saved last, with nothing done by anybody."""
        assert self.server.answered().text == f"{self._texts['early']} {self._texts['late']}"

    def find_guardian(self) -> None:
        """It has closed everything but the end of a pipe."""
        assert self.find_guardians() == [self.guardian]

    def find_guardians(self) -> list[int]:
        """Those that there are; the first is noted."""
        found = [pid for pid in self._children() if len(os.listdir(f"/proc/{pid}/fd")) <= 4]
        self.guardian = found[0] if found else 0
        return found

    def checkpoints(self) -> list[int]:
        """The processes that wait, in the order in which they began; a copy made ahead is the last."""
        others = {self.server.child, self.guardian}
        return sorted((pid for pid in self._children() if pid not in others), key=_began)

    def _children(self) -> list[int]:
        return [pid for pid in descendants(self.server.supervisor) if _state(pid) not in ("Z", "X", "")]

    def is_clean(self) -> None:
        """Soon there is no zombie and no orphan: all are children of the supervisor, and live."""
        end = time.monotonic() + DEADLINE
        above = str(self.server.supervisor)
        while left := [
            (pid, _state(pid), _field(pid, 4))
            for pid in descendants(self.server.supervisor)
            if _state(pid) in ("Z", "X") or _field(pid, 4) not in (above, "")
        ]:
            assert time.monotonic() < end, left
            self.server.get("/")


def _field(pid: int, number: int) -> str:
    """A field of proc(5)'s `stat`; "" when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return [str(pid), "", *text.rpartition(")")[2].split()][number - 1]


def _state(pid: int) -> str:
    return _field(pid, 3)


def _began(pid: int) -> tuple[int, int]:
    return int(_field(pid, 22) or 0), pid


@contextlib.contextmanager
def served(folder: Path, *options: str, mark: str = "") -> Iterator[Page]:
    """A server that has restarted warm, and has three checkpoints."""
    (folder / "app.py").write_text(APP)
    arguments = ["app:app", "--reload", "--no-access-log", "--checkpoint-memory", "9", *options]
    with DevServer(*arguments, cwd=folder, env={MARK: mark, **MARKED}) as server:
        page = Page(folder, server)
        page.edit()
        server.serving()
        page.find_guardian()
        page.check()
        for number in range(12):
            page.edit(**{"middle" if number % 4 == 0 else "late": str(number)})
            assert server.restarted()["kind"] == "warm"
            page.check()
            server.wait("checkpoints")
            if number > 2 and len(page.checkpoints()) >= 3:
                break
        assert len(page.checkpoints()) >= 3
        yield page


VICTIMS: dict[str, Callable[[Page], list[int]]] = {
    "first checkpoint": lambda page: page.checkpoints()[:1],
    "last checkpoint": lambda page: page.checkpoints()[-1:],
    "all checkpoints": lambda page: page.checkpoints(),
    "serving process and last checkpoint": lambda page: [page.server.child, *page.checkpoints()[-1:]],
    "all but the supervisor": lambda page: [page.server.child, *page.checkpoints()],
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_process_is_not_missed(victim: str, tmp_path: Path) -> None:
    """It serves, at once or again, and a change is answered by the new code, wherever it is."""
    with served(tmp_path) as page:
        server = page.server
        victims, served_by = VICTIMS[victim](page), server.child
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):  # a copy goes with what it is a copy of
                os.kill(pid, signal.SIGKILL)
        for pid in victims:
            gone(pid)
        if served_by in victims:
            assert "SIGKILL" in server.restarted()["reason"]
        page.check()
        page.is_clean()
        assert not {*victims} & {*descendants(server.supervisor)}
        assert (server.child == served_by) == (served_by not in victims)
        for change in ({"late": "six"}, {"early": "six"}, {"late": "seven"}):
            page.edit(**change)
            server.restarted()
            page.check()
        page.is_clean()
        assert not server.events("failed")
        assert server.stop() == 0


@pytest.mark.interpreter
def test_a_copy_made_ahead_is_what_goes_on(tmp_path: Path) -> None:
    with served(tmp_path) as page:
        for text in ("six", "seven", "eight"):
            ready = page.server.wait("prepared")["pid"]
            page.edit(late=text)
            page.server.restarted()
            page.check()
            assert page.server.get("/by").text == str(ready)
        assert page.server.stop() == 0


def test_a_copy_is_made_ahead_of_the_save_that_mends(tmp_path: Path) -> None:
    with served(tmp_path) as page:
        server = page.server
        server.wait("prepared")
        page.edit(late='six"; raise ValueError; "')
        assert "ValueError" in server.failed()["error"]
        ready = server.wait("prepared")["pid"]
        page.edit(late="six")
        server.restarted()
        page.check()
        assert server.get("/by").text == str(ready)
        assert server.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victims", [1, 2])
def test_checkpoint_that_does_not_answer_is_passed_over(victims: int, signum: int, tmp_path: Path) -> None:
    """Killed or stopped when it is asked: another one answers for it. The last is a copy made ahead."""
    with served(tmp_path) as page:
        page.server.wait("prepared")  # none is stopped while it forks
        for pid in page.checkpoints()[-victims:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        page.edit(late="six")
        page.check()
        page.is_clean()
        assert page.server.stop() == 0


def test_killed_while_it_loads(tmp_path: Path) -> None:
    """The half that goes on after a checkpoint, and is killed: what waits is left, and is not in the way."""
    with served(tmp_path) as page:
        server = page.server
        for _ in range(5):
            page.edit(early=secrets.token_hex(4))
            server.wait("restart")
            loading = [pid for pid in descendants(server.supervisor) if pid not in page.checkpoints()]
            newest = max(loading, key=_began)
            if newest not in (page.guardian, server.child):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(newest, signal.SIGKILL)
            page.check()
        page.is_clean()
        assert server.stop() == 0


@pytest.mark.parametrize("ends", [[signal.SIGKILL], [signal.SIGTERM], ["guardian", signal.SIGKILL]])
def test_nothing_is_left_of_a_chain(ends: list[int | str], tmp_path: Path) -> None:
    mark = secrets.token_hex(8)
    with served(tmp_path, mark=mark) as page:
        victims = [
            (page.guardian, signal.SIGKILL) if end == "guardian" else (page.server.supervisor, int(end))
            for end in ends
        ]
        with nothing_is_left(page.server, mark) as before:
            assert len(before) >= 6
            for pid, signum in victims:
                os.kill(pid, signum)


def test_a_guardian_that_is_killed_is_replaced(tmp_path: Path) -> None:
    mark = secrets.token_hex(8)
    with served(tmp_path, mark=mark) as page:
        old = page.guardian
        os.kill(old, signal.SIGKILL)
        while os.path.exists(f"/proc/{old}"):  # also as one that nobody has waited for
            page.server.idle(0.01)
        while page.find_guardians() != [page.guardian]:
            page.server.idle(0.01)
        assert page.guardian != old
        page.edit(late="two")
        page.check()
        with nothing_is_left(page.server, mark):
            os.kill(page.server.supervisor, signal.SIGKILL)


def test_processes_of_a_failed_restart_are_gone(tmp_path: Path) -> None:
    """Of each broken save, and of a chain that goes cold, nothing is left."""
    with served(tmp_path) as page:
        server = page.server
        before = len(descendants(server.supervisor))
        for number in range(3):
            save(tmp_path / "page.py", f"EARLY = {number} +")
            assert server.get("/").status == 500
            page.edit(late=str(number))
            page.check()
        page.is_clean()
        server.wait("checkpoints")
        end = time.monotonic() + DEADLINE
        while (
            len(left := descendants(server.supervisor)) > before + 1
        ):  # what was killed takes a moment to end
            assert time.monotonic() < end, left
            server.get("/")
        assert server.stop() == 0


# memory

# Counting references makes each copy's memory its own.
LOAD = """
DATA = [f"{{n}}" for n in range(500_000)]
TOUCHED = sum(map(len, DATA))
TOUCHED = sum(map(len, DATA))
TOUCHED = sum(map(len, DATA))
TOUCHED = sum(map(len, DATA))
LATE = EARLY = "{late}"
"""


def pss(server: DevServer) -> int:
    """The proportional size of the tree, in KiB."""
    size = 0
    for pid in [server.supervisor, *descendants(server.supervisor)]:
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            size += int(found[1]) if found else 0
    return size


def settled(server: DevServer, least: int = 0) -> tuple[int, int]:
    """PSS and processes when nothing changes any more, and there are as many as a spare makes them."""
    last, since = (0, 0), 0
    deadline = time.monotonic() + DEADLINE
    while since < 5:
        assert time.monotonic() < deadline
        for _ in range(30):
            server.get("/")
        processes = server.processes()
        busy = any(_state(pid) not in ("S", "") for pid in processes if pid != server.child)
        now = pss(server), len(processes)
        calm = not busy and least <= now[1] == last[1] and abs(now[0] - last[0]) < now[0] / 100
        since, last = since + 1 if calm else 0, now
    return last


def needed(folder: Path, *options: str) -> tuple[int, int]:
    """PSS after some restarts, and how many checkpoints there are."""
    (folder / "app.py").write_text(APP)
    with DevServer("app:app", "--reload", "--no-access-log", *options, cwd=folder, env=EACH) as server:
        (folder / "page.py").write_text(LOAD.format(late="one"))
        server.serving()
        for late in ("two", "three", "four"):
            save(folder / "page.py", LOAD.format(late=late))
            server.restarted()
            assert server.get("/").text == f"{late} {late}"
        if "cold" not in options:
            server.wait("checkpoints")
        size, _ = settled(server, least=3)
        counts = [event["count"] for event in server.events("checkpoints")]
        return size, counts[-1] if counts else 0


def test_memory_is_bounded_by_the_option(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("cold", "default")]
    for folder in folders:
        folder.mkdir()
    cold, _ = needed(folders[0], "--restart", "cold")
    default, some = needed(folders[1])
    tell(f"KiB and checkpoints: cold {cold}, 1.5: {default}, {some}")
    assert some >= 1
    assert default <= 1.5 * cold


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_thousand_warm_restarts_keep_memory_and_processes_flat(tmp_path: Path) -> None:
    with served(tmp_path) as page:
        server = page.server
        first = 0, 0
        began = time.monotonic()
        for number in range(1021):  # the last look comes after the same kind of edit as the first
            page.edit(late=str(number)) if number % 10 else page.edit(early=str(number))
            server.restarted()
            page.check()
            server.forget()
            if number == 20:
                first = settled(server)
        last = settled(server)
        seconds = time.monotonic() - began
        page.is_clean()
        assert server.stop() == 0
    tell(f"1,000 warm restarts, {seconds / 1021:.3f} s each: PSS {first[0]} -> {last[0]} KiB, "
         f"processes {first[1]} -> {last[1]}")  # fmt: skip
    assert last[0] <= 1.1 * first[0]
    assert last[1] <= first[1]
