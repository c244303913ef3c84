"""Each generation has its time alone: startup, shutdown, exit handlers and `finally` blocks.

The applications append a line with their process id to a file outside of the project; so the order of
the lines is the order of the events, whichever process wrote them.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.live.process import DevServer, begin, gone

pytestmark = pytest.mark.live

APP = """
import asyncio, atexit, os, threading
from number import NUMBER

MARKS = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

def mark(what):
    os.write(MARKS, f"{os.getpid()} {what}\\n".encode())

atexit.register(mark, "atexit")

async def until_cancelled(name):
    try:
        await asyncio.Event().wait()
    finally:
        mark(name)

def imported():
    with open(os.environ["MARKS"]) as file:
        return [line.split(" ")[0] for line in file if line.endswith("imported\\n")]

async def until_successor_is_imported():
    while imported()[-1] == str(os.getpid()):
        await asyncio.sleep(0.01)

mark("imported")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        mark("startup begins")
        await asyncio.sleep(float(os.environ.get("SLOW", "0")))
        mark("startup ends")
        task = asyncio.create_task(until_cancelled("task's finally"))
        try:
            await send({"type": "lifespan.startup.complete"})
            await receive()
            mark("shutdown begins")
            if "SLOW" in os.environ:
                await until_successor_is_imported()
                await asyncio.sleep(float(os.environ["SLOW"]))
            mark("shutdown ends")
            await send({"type": "lifespan.shutdown.complete"})
        finally:
            mark("lifespan's finally")
    elif scope["type"] == "http":
        kind = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        if scope["path"] == "/":
            await send({"type": "http.response.body", "body": str(NUMBER).encode()})
            return
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        if scope["path"] == "/thread":
            threading.Thread(target=threading.Event().wait, name="busy-bee").start()
            await send({"type": "http.response.body", "body": b" and ended"})
        elif scope["path"] == "/loop":
            while True:
                pass
        else:
            await until_cancelled("request's finally")
"""

ONCE = [
    "startup begins",
    "startup ends",
    "shutdown begins",
    "shutdown ends",
    "lifespan's finally",
    "task's finally",
    "atexit",
]
"""What each generation that ends by itself does, in this order."""

TRIES = 5
"""A child that gets no processor for so long is killed; that says something about the machine only."""


class Marked:
    """The project, and the marks that it leaves."""

    def __init__(self, folder: Path, slow: float | None = None) -> None:
        """Args: slow: seconds of startup and shutdown, which waits for a loaded successor, too."""
        self.folder = folder / "project"
        self.folder.mkdir()
        (self.folder / "app.py").write_text(APP)
        self._marks = folder / "marks"
        self.env = {"MARKS": str(self._marks), **({} if slow is None else {"SLOW": str(slow)})}
        self._number = 0
        self.save()

    def save(self) -> str:
        """Returns what the new code will answer."""
        self._number += 1
        (self.folder / "number.py").write_text(f"NUMBER = {self._number}\n")
        return str(self._number)

    def stop(self, server: DevServer) -> None:
        """End the server; the last generation must not wait for a successor."""
        with self._marks.open("a") as file:
            file.write("0 imported\n")
        assert server.stop() == 0

    def marks(self) -> list[tuple[int, list[str]]]:
        """The marks of each process, in the order of their first ones.

        Raises:
            AssertionError: the marks of two processes mix.
        """
        lines = [line.split(" ", 1) for line in self._marks.read_text().splitlines()]
        lines = [line for line in lines if line[1] != "imported"]
        groups = itertools.groupby(lines, lambda line: line[0])
        found = [(int(pid), [mark for _, mark in group]) for pid, group in groups]
        pids = [pid for pid, _ in found]
        assert len(pids) == len(set(pids)), f"two generations at a time: {lines}"
        return found


@pytest.mark.parametrize(("slow", "restarts"), [(None, 10), (0.15, 5)], ids=["quick", "slow"])
@pytest.mark.parametrize("asked", [True, False], ids=["request", "watcher"])
def test_lifespans_never_overlap(slow: float | None, restarts: int, asked: bool, tmp_path: Path) -> None:
    """Whether the request after the save or the watcher begins the restart, and with a stream open."""
    project = Marked(tmp_path, slow)
    with DevServer("app:app", "--reload", cwd=project.folder, env=project.env) as server:
        pids = [server.serving()["pid"]]
        for _ in range(restarts):
            with begin(server, "/events"):
                expected = project.save()
                if asked:
                    assert server.get("/").text == expected
                pids.append(server.serving()["pid"])
            assert server.get("/").text == expected
        project.stop(server)
    marks = project.marks()
    assert [pid for pid, _ in marks] == pids
    for pid, of_one in marks:
        assert [mark for mark in of_one if mark != "request's finally"] == ONCE, pid
        # The last one was ended with nothing in flight.
        assert of_one.count("request's finally") == (pid != pids[-1]), pid


def test_overtaken_load_has_no_lifespan(tmp_path: Path) -> None:
    """Each save comes while the one before is being loaded, or starts up."""
    project = Marked(tmp_path)
    with DevServer("app:app", "--reload", cwd=project.folder, env=project.env) as server:
        server.serving()
        for _ in range(20):
            expected = project.save()
            # Whatever comes next: this save may be noticed on its own or be read by the load before it.
            server.wait("change", "restart", "loaded", "serving")
        assert server.get("/").text == expected
        project.stop(server)
    for pid, of_one in project.marks():
        assert of_one.count("atexit") == 1, (pid, of_one)
        assert of_one.count("startup ends") == of_one.count("shutdown ends"), (pid, of_one)
        assert of_one.count("startup ends") == of_one.count("lifespan's finally"), (pid, of_one)


@pytest.mark.parametrize(
    ("path", "named", "loses"),
    [
        ("/thread", "busy-bee", set()),
        # The loop never comes to what is after the startup, but for the exit handlers.
        ("/loop", "the main thread", set(ONCE[2:-1])),
    ],
)
def test_exit_handlers_run_and_what_still_runs_is_named(
    path: str, named: str, loses: set[str], tmp_path: Path
) -> None:
    project = Marked(tmp_path)
    with DevServer("app:app", "--reload", cwd=project.folder, env=project.env) as server:
        server.serving()
        for _ in range(TRIES):
            old, before = server.child, len(server.log)
            with begin(server, path):
                expected = project.save()
                assert server.get("/").text == expected
            gone(old, 0)
            server.serving()
            log = server.log[before:]
            if "was killed" not in log:
                break
        assert dict(project.marks())[old] == [mark for mark in ONCE if mark not in loses]
        (line,) = [line for line in log.splitlines() if "still running" in line]
        assert "at the end of the grace" in line
        assert named in line
        assert server.stop() == 0
