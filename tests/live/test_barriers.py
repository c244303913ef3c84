"""What must not be in two processes is in none that waits.

All projects are one: a module with a statement in the middle. An edit behind it restarts from directly
before it, an edit before it from earlier; what is executed again is told by process ids that the module
notes. Which statements are barriers is decided without a server (`tests/test_barriers.py`); here is one of
each kind of thing that a server or its end has to do with. The others run with `-m soak`.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import importlib.util
import json
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.barrier_kinds import KINDS, Kind, elsewhere
from tests.live.process import ALL, EACH, MARKED, DevServer, save
from tests.patience import DEADLINE

pytestmark = [
    pytest.mark.live,
    pytest.mark.cpython,
    pytest.mark.skipif(sys.platform != "linux", reason="there are no warm restarts"),
]

APP = """
import json
import middle

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = {"ran": middle.RAN, "texts": [middle.EARLY, middle.LATE], "sound": middle.sound()}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
"""

MIDDLE = """\
import os, time
RAN = {{}}
EARLY = "{early}"
RAN["early"] = os.getpid()
{before}
BEFORE = True
RAN["before"] = os.getpid()
RAN["is next"] = 0
{statement}
RAN["behind"] = os.getpid()
BEHIND = True
LATE = "{late}"
def sound(): return bool({sound})
"""

LINE = 9
"""Of the statement."""


SERVED = {"thread", "temporary folder", "exit handler", "held lock of a file", "child", "log file"}
"""The rows that run each time: what is seen by a count, by a name and by the kernel, what is done at the end
of a generation, what its successor waits for; and a file that is no barrier."""


class Served:
    """A project with a statement in the middle, and a server for it."""

    def __init__(self, kind: Kind, folder: Path, server: DevServer) -> None:
        self._kind = kind
        self._path = folder / "middle.py"
        self.server = server
        self.ran: dict[str, int] = {}

    def write(self, early: str, late: str) -> None:
        kind = self._kind
        text = MIDDLE.format(
            early=early, late=late, before=kind.before, statement=kind.statement, sound=kind.sound
        )
        assert text.splitlines()[LINE - 1] == kind.statement
        save(self._path, text)

    def check(self, *texts: str) -> set[str]:
        """Ask once. Returns which statements were executed since the last time."""
        answer = self.server.get("/")
        assert answer.status == 200, self.server.log
        said = json.loads(answer.text)
        assert said["texts"] == [*texts]
        assert said["sound"] is True
        new = {name for name, pid in said["ran"].items() if self.ran.get(name) != pid}
        self.ran = said["ran"]
        return new

    def edit(self, early: str, late: str) -> tuple[dict[str, Any], set[str]]:
        """Restart on an edit. Returns the event, and what was executed again."""
        self.write(early, late)
        restart = self.server.restarted()
        assert restart["kind"] == "warm", self.server.log
        return restart, self.check(early, late)

    def edit_until(self, is_there: Callable[[int], bool]) -> None:
        """Edit what is late until a restart goes on at such a line.

        The first edit marks the module, the second the place in it.
        """
        for number in range(3):
            restart, _ = self.edit("one", f"text {number}")
            assert restart["line"] <= LINE or is_there(restart["line"])
            if is_there(restart["line"]):
                return
        raise AssertionError("no checkpoint there")


@contextlib.contextmanager
def served(kind: Kind, folder: Path) -> Iterator[Served]:
    (folder / "app.py").write_text(APP)
    (folder / "lines.txt").write_text("1\n2\n3\n")
    env = {
        **MARKED,
        "PYTHONWARNINGS": "always::DeprecationWarning:devserver.process.forks",
    }
    plenty = ["--checkpoints", "9", "--checkpoint-memory", "9"]  # none is given up for another
    with (
        elsewhere() as place,
        DevServer(
            "app:app", "--reload", "--no-access-log", *plenty, cwd=folder, env={**env, "ELSEWHERE": place}
        ) as server,
    ):
        project = Served(kind, folder, server)
        project.write("one", "one")
        server.serving()
        yield project
        assert server.stop() == 0
        assert "Traceback" not in server.log
        assert "Warning" not in server.log


def rows(barrier: bool) -> list[Any]:
    return [
        pytest.param(
            kind,
            id=name,
            marks=[
                *([] if name in SERVED else [pytest.mark.soak]),
                pytest.mark.skipif(not kind.is_here(), reason=f"{kind.needs} is not installed"),
            ],
        )
        for name, kind in KINDS.items()
        if bool(kind.reason) == barrier
    ]


@pytest.mark.parametrize("kind", rows(barrier=True))
def test_edit_behind_a_barrier_restarts_from_directly_before_it(kind: Kind, tmp_path: Path) -> None:
    with served(kind, tmp_path) as project:
        server = project.server
        project.check("one", "one")
        [event] = server.events("barrier")
        assert (event["path"], event["line"]) == (str(tmp_path / "middle.py"), LINE)
        assert event["reason"].startswith(kind.reason)
        assert f"middle.py, line {LINE}: {event['reason']} prevents checkpoints" in server.log
        # What was not known to be a barrier at first is known from now on.
        project.edit_until(lambda line: line == LINE)
        restart, executed = project.edit("one", "last")
        assert (restart["path"], restart["line"]) == (str(tmp_path / "middle.py"), LINE)
        assert executed == {"behind"}
        restart, executed = project.edit("two", "last")
        assert restart["line"] < LINE
        assert executed == {"early", "before", "behind"}
        assert len(server.events("barrier")) == 1


@pytest.mark.parametrize("kind", rows(barrier=False))
def test_edit_behind_what_is_no_barrier_restarts_from_there(kind: Kind, tmp_path: Path) -> None:
    with served(kind, tmp_path) as project:
        project.check("one", "one")
        project.edit_until(lambda line: line > LINE)
        restart, executed = project.edit("one", "last")
        assert restart["line"] > LINE
        assert executed == set()
        _, executed = project.edit("two", "last")
        assert executed == {"early", "before", "behind"}
        assert not project.server.events("barrier")


def test_a_barrier_that_goes_is_none(tmp_path: Path) -> None:
    """What was opened is closed again: behind that nothing is shared."""
    (tmp_path / "lines.txt").write_text("1\n")
    text = MIDDLE.replace("{statement}", "FILE = open('lines.txt')\n{statement}")
    closed = {"before": "", "statement": "FILE.close()", "sound": "FILE.closed", "early": "one"}
    path = tmp_path / "middle.py"
    (tmp_path / "app.py").write_text(APP)
    path.write_text(text.format(**closed, late="one"))
    with DevServer("app:app", "--reload", cwd=tmp_path, env=MARKED) as server:
        server.serving()
        lines = [0]
        while lines[-1] <= LINE + 1:
            assert len(lines) < 4
            save(path, text.format(**closed, late=str(len(lines))))
            lines.append(server.restarted()["line"])
        assert not server.events("barrier")


TUTORIAL = """
import time
import fastapi
MORE = "of the like"
import database

app = fastapi.FastAPI()

@app.post("/heroes/{name}")
def create(name: str):
    with database.CONNECTION:
        database.CONNECTION.execute("INSERT INTO hero VALUES (?)", [name])

@app.get("/")
def heroes():
    found = database.CONNECTION.execute("SELECT name FROM hero ORDER BY name")
    return {"ran": RAN, "heroes": [f"one {name}" for name, in found]}

import os
RAN = {"database": database.RAN, "fastapi": fastapi.RAN, "views": os.getpid()}
"""

DATABASE = """
import os
import sqlite3
import fastapi
fastapi.RAN = os.getpid()
NEXT = "a barrier"
CONNECTION = sqlite3.connect("heroes.sqlite3", check_same_thread=False)
CONNECTION.execute("CREATE TABLE IF NOT EXISTS hero (name)")
RAN = os.getpid()
"""


def test_tutorial_that_opens_sqlite_at_import_does_not_import_the_framework_again(tmp_path: Path) -> None:
    """As FastAPI's tutorial on databases does. What is executed again opens the database, no more."""
    main = tmp_path / "main.py"
    main = tmp_path / "main.py"
    main.write_text(TUTORIAL)
    (tmp_path / "database.py").write_text(DATABASE)
    with DevServer("main:app", "--reload", cwd=tmp_path, env=MARKED) as server:
        server.serving()
        server.ask("POST", "/heroes/Deadpond")
        first = json.loads(server.get("/").text)
        assert first["heroes"] == ["one Deadpond"]
        said, lines = first, [0]
        while lines[-2:] != [7, 7]:
            assert len(lines) < 6
            before, name = said, f"{len(lines)}"
            save(main, TUTORIAL.replace('"one ', f'"{name} '))
            restart = server.restarted()
            lines.append(restart["line"] if restart["path"] == str(tmp_path / "database.py") else 0)
            said = json.loads(server.get("/").text)
            assert said["heroes"] == [f"{name} Deadpond"]
            assert restart["kind"] == "warm"
        assert said["ran"]["fastapi"] == before["ran"]["fastapi"]
        assert said["ran"]["database"] != before["ran"]["database"]


PRINTS = """
import ctypes, logging, logging.handlers, sys, time
logging.basicConfig(stream=sys.stdout, format="%(message)s")
SAVED = logging.handlers.MemoryHandler(100, target=logging.getLogger().handlers[0])
logging.getLogger("saved").addHandler(SAVED)
logging.getLogger("saved").propagate = False
sys.stdout.write("by stdout;")
sys.__stdout__.write("by the first stdout;")
sys.stderr.write("by stderr;")
ctypes.CDLL(None).printf(b"by C;")
logging.warning("by logging;")
logging.getLogger("saved").warning("by a handler;")
NEXT = "middle"
import middle
"""


def test_nothing_is_printed_twice(tmp_path: Path) -> None:
    """What buffers hold at a checkpoint is written before it, and not by each copy."""
    (tmp_path / "app.py").write_text(PRINTS + APP.replace("middle.RAN", "{}").replace("middle.sound()", "1"))
    (tmp_path / "middle.py").write_text('EARLY = LATE = "one"\n')
    with DevServer("app:app", "--reload", cwd=tmp_path, env=MARKED) as server:
        server.serving()
        from_start = 0
        for number in range(4):
            save(tmp_path / "middle.py", f'EARLY = LATE = "{number}"\n')
            restart = server.restarted()
            from_start += not restart["line"]
        assert restart["path"] == str(tmp_path / "middle.py") or restart["line"] >= PRINTS.count("\n")
        assert server.stop() == 0
        for way in ("stdout", "the first stdout", "stderr", "C", "logging"):
            assert server.log.count(f"by {way};") == 1 + from_start, server.log
        # What a handler collects each generation has, and gives out at its end, as a fresh process would.
        assert server.log.count("by a handler;") == 5


def test_log_file_that_was_moved_is_opened_anew(tmp_path: Path) -> None:
    """A process that waits still has the old one; a fresh one would make a new one."""
    kind = KINDS["log file"]
    with served(kind, tmp_path) as project:
        project.edit_until(lambda line: line > LINE)
        before = (tmp_path / "app.log").read_text()
        log = tmp_path / "app.log"
        log.rename(tmp_path / "app.log.1")
        restart, executed = project.edit("one", "five")
        assert restart["line"] <= LINE
        assert "behind" in executed
        assert log.read_text() == "asked\n"
        assert (tmp_path / "app.log.1").read_text() == before


THREAD = Kind(
    "import threading; GO = threading.Event()",
    "T = threading.Thread(target=GO.wait)",
    "T.start() or T.is_alive() and not GO.set() and not T.join(10) and not T.is_alive()",
    "",
)


@pytest.mark.interpreter
def test_thread_that_has_not_been_started_can_be_started_in_each_copy(tmp_path: Path) -> None:
    with served(THREAD, tmp_path) as project:
        project.check("one", "one")
        project.edit_until(lambda line: line > LINE)


LOCKED = {
    "logging": """
import logging.config
logging.config.dictConfig({
    "version": 1,
    "filters": {"f": {"()": "inner.Filter"}},
    "handlers": {"h": {"class": "logging.StreamHandler", "filters": ["f"]}},
    "root": {"handlers": ["h"]},
})
""",
    "a handler's lock": """
import logging
class Handler(logging.Handler):
    def emit(self, record):
        import inner
handler = Handler()
logging.getLogger("here").addHandler(handler)
logging.getLogger("here").warning("x")
""",
    "a library's lock": """
import os, threading
lock = threading.Lock()
os.register_at_fork(after_in_child=lock._at_fork_reinit)
with lock:
    import inner
""",
}
INNER = """
import logging, os
ONE = "{one}"
TWO = os.getpid()
class Filter(logging.Filter):
    def filter(self, record): return True
"""
LOCKED_APP = """
import inner
LATE = "{late}"
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{inner.ONE}} {{LATE}} {{inner.TWO}}".encode()]
"""


@pytest.mark.parametrize("name", LOCKED)
def test_no_checkpoint_is_left_while_a_lock_is_held_that_a_fork_makes_anew(name: str, tmp_path: Path) -> None:
    """`inner` is loaded under the lock: an edit of it restarts from before the statement that took it."""
    inner, main = tmp_path / "inner.py", tmp_path / "app.py"
    save(inner, INNER.format(one="one"))
    save(main, LOCKED[name] + LOCKED_APP.format(late="one"))
    with DevServer("app:app", "--reload", *ALL, cwd=tmp_path, env=EACH) as server:
        server.serving()
        *texts, first = server.get("/").text.split()
        assert texts == ["one", "one"]
        save(main, LOCKED[name] + LOCKED_APP.format(late="two"))
        assert server.restarted()["kind"] == "warm"
        assert server.get("/").text == f"one two {first}", "what comes behind the lock went on from there"
        save(inner, INNER.format(one="two"))
        restart = server.restarted()
        assert (restart["kind"], restart["path"]) == ("warm", str(main))
        assert server.get("/").text.startswith("two two ")
        assert server.stop() == 0
        assert "Error" not in server.log


REPORTED = """
import sentry_sdk
sentry_sdk.init("http://key@127.0.0.1:{port}/1", auto_session_tracking=False)
import leaf

def app(environ, start_response):
    sentry_sdk.capture_message(leaf.WORD)
    start_response("200 OK", [])
    return [leaf.WORD.encode()]
"""


class _Sentry(http.server.BaseHTTPRequestHandler):
    """Takes what is reported."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        cast(_Reports, self.server).queue.put(
            gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
        )
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Reports(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Sentry)
        self.queue: queue.Queue[bytes] = queue.Queue()


@pytest.mark.skipif(importlib.util.find_spec("sentry_sdk") is None, reason="sentry_sdk is not installed")
def test_each_copy_reports_to_sentry_and_once(tmp_path: Path) -> None:
    """Its exit handler, which each copy has, sends nothing that another has sent."""
    leaf = tmp_path / "leaf.py"
    with _Reports() as reports:
        save(leaf, "WORD = 'word 0'\n")
        save(tmp_path / "app.py", REPORTED.format(port=reports.server_port))
        thread = threading.Thread(target=reports.serve_forever)
        thread.start()
        try:
            with DevServer("app", "--reload", *ALL, cwd=tmp_path, env=EACH) as server:
                server.serving()
                for number in range(3):
                    if number:
                        save(leaf, f"WORD = 'word {number}'\n")
                        assert server.restarted()["kind"] == "warm"
                    assert server.get().text == f"word {number}"
                    assert f"word {number}".encode() in reports.queue.get(timeout=DEADLINE)
                assert server.stop() == 0
                assert not server.events("barrier")
            assert reports.queue.empty()
        finally:
            reports.shutdown()
            thread.join()
