"""Every kind of application served, restarted on a save, broken in every way, and healed by a save."""

from __future__ import annotations

import http.client
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.live.process import USUAL, DevServer, save
from tests.live.projects import PROJECTS, Project, answer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

SEGFAULT = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


@dataclass(frozen=True)
class Failure:
    """A way to break an application.

    Attributes:
        source: of `answer.py`.
        phase: what the `failed` event and the page call it.
        error: what they say.
        creates: the file that the mending save creates; otherwise it writes `answer.py`.
        lifespan: whether only an application with a lifespan can be broken like this.
        requests: how many requests it takes to break it for good.
    """

    source: str
    phase: str
    error: str
    creates: str = ""
    lifespan: bool = False
    requests: int = 0


FAILURES = {
    "syntax error": Failure("TEXT = (", "load", "SyntaxError: '(' was never closed"),
    "missing module": Failure(
        f"import not_there_yet\n{answer('mended')}",
        "load",
        "ModuleNotFoundError: No module named 'not_there_yet'",
        creates="not_there_yet.py",
    ),
    "exception": Failure("raise RuntimeError('out of cheese')", "load", "RuntimeError: out of cheese"),
    "exit": Failure("import sys; sys.exit(4)", "load", "the application called sys.exit(4)"),
    "segfault": Failure(SEGFAULT, "crash", "was ended by SIGSEGV while it loaded"),
    "lifespan": Failure(
        answer("one", start="raise RuntimeError('no database')"),
        "lifespan",
        "RuntimeError: no database",
        lifespan=True,
    ),
    # It had served, so it is started again by itself, twice; then a change is waited for.
    "segfault in a request": Failure(
        answer("one", ask=SEGFAULT), "crash", "was ended by SIGSEGV while it served", requests=3
    ),
}


def failures(project: Project) -> Iterator[Failure]:
    """Those that an application of this kind can have; what ends a process that serves comes last."""
    yield from (each for each in FAILURES.values() if project.lifespan or not each.lifespan)


FIRST = [
    # Each kind of application and each failure, once at the first start. On a save each failure, with the
    # kind that has a lifespan, and with the one whose framework has most to do with imports and failures.
    *(("asgi", name) for name in FAILURES),
    ("wsgi", "missing module"),
    ("flask", "syntax error"),
    ("fastapi", "lifespan"),
    ("django", "exception"),
    ("django-asgi", "exit"),
]


@pytest.mark.parametrize(("name", "what"), FIRST)
def test_failure_of_the_first_start_is_shown_and_healed_by_a_save(
    name: str, what: str, tmp_path: Path
) -> None:
    project, failure = PROJECTS[name], FAILURES[what]
    path = project.make(tmp_path)
    path.write_text(failure.source)
    with DevServer(project.target, "--reload", cwd=tmp_path) as server:
        supervisor = server.process.pid
        check_failure(server, failure)
        mend(tmp_path, failure)
        assert "mended" in answered(server)
        check_restarts(server, 1)
        assert len(server.events("failed")) == 1
        assert server.seen[0]["pid"] == supervisor
        assert server.stop() == 0


@pytest.mark.parametrize("name", ["asgi", "django"])
def test_failure_of_a_save_is_shown_and_healed_by_the_next(name: str, tmp_path: Path) -> None:
    """One after the other: what comes after a mended failure is as good as what came before it."""
    project = PROJECTS[name]
    path = project.make(tmp_path)
    with DevServer(project.target, "--reload", cwd=tmp_path) as server:
        server.serving()
        supervisor = server.process.pid
        for number, failure in enumerate(failures(project), 1):
            save(path, failure.source)
            check_failure(server, failure)
            mend(tmp_path, failure)
            assert "mended" in answered(server)
            check_restarts(server, 2 * number)
            assert len(server.events("failed")) == number
        assert server.seen[0]["pid"] == supervisor
        assert server.stop() == 0


def mend(folder: Path, failure: Failure) -> None:
    """The save that heals."""
    save(folder / (failure.creates or "answer.py"), "" if failure.creates else answer("mended"))


def check_failure(server: DevServer, failure: Failure) -> None:
    """The events say what is wrong once, and so does the browser."""
    for _ in range(failure.requests):
        server.serving()
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            server.get("/")
    failed = server.failed()
    assert failure.error in failed["error"]
    assert failed["phase"] == failure.phase
    page = server.get("/")
    assert page.status == 500
    assert failure.error in page.text


def answered(server: DevServer) -> str:
    """What the newest code answers. A request that met the page may itself have begun a start."""
    while (page := server.get("/")).status != 200:
        server.serving()
    return page.text


def check_restarts(server: DevServer, saves: int) -> None:
    """A save leads to one restart, or to none if a request had just begun one; each has its number."""
    reasons = [event["reason"] for event in server.events("restart")]
    by_save = [reason for reason in reasons if reason.endswith(" changed")]
    by_request = reasons.count("tried again, because a request came")
    by_itself = [reason for reason in reasons if "was ended by" in reason]
    assert len(by_save) <= saves <= len(by_save) + by_request
    assert len(by_save) + by_request + len(by_itself) == len(reasons)
    assert all(len(event["files"]) == 1 for event in server.events("change"))
    newest = server.events("restart")[-1]["generation"]
    if newest not in served(server):
        server.wait("serving", generation=newest)  # the answer may come before the event
    assert served(server) == sorted({*served(server)})
    assert served(server)[-1] == newest


def served(server: DevServer) -> list[int]:
    return [event["generation"] for event in server.events("serving")]


@pytest.mark.parametrize("name", PROJECTS)
def test_save_restarts_and_is_told_once(name: str, tmp_path: Path) -> None:
    project = PROJECTS[name]
    path = project.make(tmp_path)
    with DevServer(project.target, "--reload", cwd=tmp_path) as server:
        assert server.serving()["generation"] == 1
        first = server.child
        assert "one" in server.get("/").text
        for number, text in enumerate(("two", "three"), 2):
            save(path, answer(text))
            assert server.wait("change")["files"] == ["answer.py"]
            restart = server.wait("restart")
            assert (restart["kind"], restart["reason"]) == (USUAL, "answer.py changed")
            assert server.serving()["generation"] == number
            assert text in server.get("/").text
        # A broken save and its mending are told as one restart, too.
        save(path, "TEXT = (")
        assert server.restarted_or_failed() == "failed"
        save(path, answer("four"))
        server.serving()
        assert "four" in server.get("/").text
        assert server.child != first
        assert len(server.events("change")) == len(server.events("restart")) == 4
        assert len(server.events("failed")) == 1
        assert server.stop() == 0
        how = r"resumed .*, \d+\.\d\d s \(cold: \d+\.\d s\)" if USUAL == "warm" else r"restarted, \d+\.\d\d s"
        restarts = re.findall(rf"^devserver: (.*?)(?: at line 1)?: {how}$", server.log, re.MULTILINE)
        assert restarts == ["answer.py changed"] * 3
        assert server.log.count("waiting for a change") == 1
        assert server.events("stopped") == server.seen[-1:]


@pytest.mark.parametrize(("name", "path"), [("asgi", "/"), ("fastapi", "/ws")])
def test_websocket_is_closed_with_1012_on_a_restart(name: str, path: str, tmp_path: Path) -> None:
    file = PROJECTS[name].make(tmp_path)
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        for text, after in (("one", "two"), ("two", "three")):
            server.serving()
            with connect(f"ws://127.0.0.1:{server.port}{path}", open_timeout=DEADLINE) as socket:
                socket.send("hello")
                assert socket.recv(DEADLINE) == f"{text}: hello"
                save(file, answer(after))
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv(DEADLINE)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012
        server.serving()
        assert server.stop() == 0


def test_websocket_is_closed_with_1001_at_the_end(tmp_path: Path) -> None:
    PROJECTS["asgi"].make(tmp_path)
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        with connect(f"ws://127.0.0.1:{server.port}/", open_timeout=DEADLINE) as socket:
            assert server.stop() == 0
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(DEADLINE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001


def test_django_view_broken_at_run_time_is_healed_by_a_save(tmp_path: Path) -> None:
    """Django imports views at the first request, and shows what is wrong with them itself."""
    PROJECTS["django"].make(tmp_path)
    views = tmp_path / "guestbook" / "views.py"
    good = views.read_text()
    views.write_text(f"{good}\nraise RuntimeError('out of cheese')\n")
    with DevServer("mysite.wsgi", "--reload", cwd=tmp_path) as server:
        server.serving()
        page = server.get("/")
        assert page.status == 500
        assert "out of cheese" in page.text
        save(views, good)
        assert server.restarted()["reason"] == "guestbook/views.py changed"
        assert server.get("/").status == 200
        assert not server.events("failed")


def test_several_failures_one_after_the_other(tmp_path: Path) -> None:
    """Each is told once, and the page says the newest."""
    path = PROJECTS["asgi"].make(tmp_path)
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        for name, failure in FAILURES.items():
            if failure.requests or failure.creates:
                continue
            save(path, failure.source)
            assert failure.error in server.failed()["error"], name
        assert FAILURES["lifespan"].error in server.get("/").text
        save(path, answer("two"))
        assert answered(server) == "two"
        assert len(server.events("failed")) == 5


def test_same_save_twice_restarts_once(tmp_path: Path) -> None:
    """Content decides: absence is shown by the save that comes after it."""
    path = PROJECTS["asgi"].make(tmp_path)
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        os.utime(path)
        save(path, answer("one"))
        save(tmp_path / "unrelated.py", "")
        save(tmp_path / "app.py", PROJECTS["asgi"].source + "\n")
        assert server.restarted()["reason"] == "app.py changed"
        assert [event["files"] for event in server.events("change")] == [["app.py"]]


@pytest.fixture
def rename(tmp_path: Path) -> Path:
    """A file beside the project, to be renamed into it."""
    return tmp_path / ".answer.py.tmp"


def test_save_by_rename_restarts_once(tmp_path: Path, rename: Path) -> None:
    path = PROJECTS["wsgi"].make(tmp_path)
    with DevServer("app:application", "--reload", cwd=tmp_path) as server:
        server.serving()
        for text in ("two", "three", "four"):
            rename.write_text(answer(text))
            rename.replace(path)
            assert server.restarted()["reason"] == "answer.py changed"
            assert server.get("/").text == text
        assert len(server.events("restart")) == 3
