"""The debuggers of VS Code and PyCharm, driven as those do it, with the run configurations of docs/ide.md."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from devserver.reload.children import SLACK_DEBUGGED
from tests.live.dap import Dap, Editor, Message, Pydevd, Stop
from tests.live.launched import SHORT_GRACE, Launched
from tests.live.process import Answer, DevServer, descendants, gone, save
from tests.patience import DEADLINE

pytest.importorskip("debugpy")
# Not imported: that would begin to debug this process.
PYDEVD = Path(sysconfig.get_path("platlib"), "pydevd.py")

pytestmark = pytest.mark.live

PAGE = Path(__file__).parents[2] / "docs" / "ide.md"

PATIENCE = 0.2 + SLACK_DEBUGGED + 0.3
"""Seconds: a short grace, what a debugged process has beyond it, and more. Nothing may be killed by then."""

SHORT_TIMEOUT = {"DEVSERVER_TIMEOUT_GRACEFUL_SHUTDOWN": "0.5"}
"""Short, so that it is soon over for a process that stands at a breakpoint."""

APPS = {
    "flask": """
from flask import Flask

app = Flask(__name__)

@app.get("/")
def view():
    text = "one"  # here
    return text
""",
    "fastapi": """
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

app = FastAPI()

@app.get("/", response_class=PlainTextResponse)
def view():
    text = "one"  # here
    return text
""",
    "asgi": """
started = True  # loading

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        with open("shutdowns", "a") as file:
            file.write("x")
        await send({"type": "lifespan.shutdown.complete"})
        return
    text = "one"  # here
    body = text.encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
""",
}


class Project:
    """An application in a folder, and the line of it at which a breakpoint is set."""

    def __init__(self, folder: Path, app: str, mark: str = "# here") -> None:
        self.folder = folder
        self.path = folder / "shop" / "main.py"
        self._source = APPS[app]
        self.line = self._source[: self._source.index(mark)].count("\n") + 1
        self.path.parent.mkdir()
        self.say("one")

    def say(self, text: str) -> None:
        """Save another version."""
        save(self.path, self._source.replace('"one"', repr(text)))


def configuration() -> Message:
    """The launch.json of docs/ide.md."""
    text = PAGE.read_text()
    block = re.search(r"`\.vscode/launch\.json`.*?```json\n(.*?)```", text, re.DOTALL)
    assert block is not None
    (only,) = json.loads(block[1])["configurations"]
    result: Message = only
    return result


@contextmanager
def vs_code(project: Project, env: Mapping[str, str] = SHORT_GRACE) -> Iterator[tuple[DevServer, Editor]]:
    """The documented configuration, as VS Code's Python debugger starts it."""
    editor = Dap({project.path: [project.line]})
    wanted = {**configuration(), "console": "integratedTerminal"}
    with Launched(project.folder, editor, wanted, env) as server:
        yield server, editor


@contextmanager
def attached(project: Project, env: Mapping[str, str] = SHORT_GRACE) -> Iterator[tuple[DevServer, Editor]]:
    """The documented command, with an editor that attaches."""
    fifo = project.folder.parent / f"{project.folder.name}.endpoints"
    os.mkfifo(fifo)
    line = re.search(r"<!-- attach -->\n```sh\npython (.*)\n```", PAGE.read_text())
    assert line is not None
    command = [sys.executable, *line[1].replace(" 5678 ", " 127.0.0.1:0 ").split()]
    editor = Dap({project.path: [project.line]})
    with DevServer(
        cwd=project.folder,
        command=command,
        env={**env, "DEBUGPY_ADAPTER_ENDPOINTS": str(fifo)},
    ) as server:
        where = json.loads(fifo.read_text())["client"]
        editor.attach({"request": "attach", "connect": where})
        yield server, editor


@contextmanager
def pycharm(project: Project, env: Mapping[str, str] = SHORT_GRACE) -> Iterator[tuple[DevServer, Editor]]:
    """The documented fields, as PyCharm starts them for debugging."""
    fields = dict(re.findall(r"^\| (module|parameters) \| `(.*)` \|$", PAGE.read_text(), re.MULTILINE))
    editor = Pydevd({project.path: [project.line]})
    command = [
        *(sys.executable, str(PYDEVD), "--module", "--multiprocess", "--qt-support=auto"),
        *("--client", "127.0.0.1", "--port", str(editor.port), "--file", fields["module"]),
    ]
    own = {"DEVSERVER_PORT": "0", **env}  # --port is the debugger's above, and 8000 is everybody's
    with DevServer(*fields["parameters"].split(), cwd=project.folder, command=command, env=own) as server:
        try:
            yield server, editor
        finally:
            editor.close()


WAYS: dict[str, Callable[..., AbstractContextManager[tuple[DevServer, Editor]]]] = {
    "vs_code": vs_code,
    "attached": attached,
    "pycharm": pycharm,
}
USUAL = {
    ("vs_code", "flask"): [],
    ("attached", "asgi"): [],
    ("pycharm", "flask"): [pytest.mark.interpreter],  # debuggers work differently on each
}
CASES = [
    pytest.param(way, app, marks=USUAL.get((way, app), pytest.mark.soak)) for way in WAYS for app in APPS
]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """For requests that stop on their way."""
    with ThreadPoolExecutor() as executor:
        yield executor


def hit(
    server: DevServer, editor: Editor, pool: ThreadPoolExecutor, project: Project
) -> tuple[Future[Answer], Stop]:
    """Ask, and stop in the view. Returns the answer to come, and where it stands."""
    answer = pool.submit(server.get)
    stop = editor.stopped()
    assert (stop.path, stop.line) == (str(project.path), project.line)
    return answer, stop


@pytest.mark.parametrize(("way", "app"), CASES)
def test_breakpoint_is_hit_in_every_generation(
    way: str, app: str, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """And a restart waits while somebody stands at one."""
    project = Project(tmp_path, app)
    with WAYS[way](project) as (server, editor):
        server.serving()
        for generation, text in enumerate(("one", "two", "three"), 1):
            if generation > 1:
                project.say(text)
                assert server.serving()["generation"] == generation
            if generation != 2:
                answer, stop = hit(server, editor, pool, project)
                stop.step()
                stop = editor.stopped()
                assert (stop.path, stop.line) == (str(project.path), project.line + 1)
                stop.resume()
                assert answer.result(DEADLINE).text == text
        answer, stop = hit(server, editor, pool, project)
        newest = save_while_stopped(server, project, PATIENCE if app == "asgi" else 0.0)
        assert not answer.done()
        os.kill(server.child, 0)
        stop.resume()
        assert answer.result(DEADLINE).text == "three"
        server.serving()
        answer, stop = hit(server, editor, pool, project)
        stop.resume()
        assert answer.result(DEADLINE).text == newest
        os.kill(server.seen[0]["pid"], signal.SIGINT)
        server.wait("stopped")
        check(server, editor)


def save_while_stopped(server: DevServer, project: Project, seconds: float) -> str:
    """Save; if seconds are given, let these pass, and save again. Returns the newest text."""
    texts = ["while stopped", "and once more"] if seconds else ["while stopped"]
    for text in texts:
        project.say(text)
        server.wait("loaded")
        if text != texts[-1]:
            server.idle(seconds)
    assert server.log.count("the restart waits: a debugger has stopped in ") == 1
    return texts[-1]


def check(server: DevServer, editor: Editor) -> None:
    """It has all gone quietly."""
    # What CPython 3.13.0 says at the end of a process in which a debugger has met threads of others.
    log = re.sub(
        r"Exception ignored in: <function _DeleteDummyThreadOnDel.*?\nTypeError: ", "", server.log, flags=re.S
    )
    assert "was killed" not in log
    assert "Traceback" not in log
    assert editor.idle()  # neither an entry point nor an exception has stopped anything
    assert not editor.problems


@pytest.mark.parametrize(
    ("way", "app", "saved"),
    [
        ("attached", "asgi", True),
        ("pycharm", "flask", False),
        pytest.param("attached", "asgi", False, marks=pytest.mark.soak),
        pytest.param("pycharm", "flask", True, marks=pytest.mark.soak),
    ],
)
def test_interrupt_ends_it_although_somebody_stands_at_a_breakpoint(
    way: str, app: str, saved: bool, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """In the main thread, or in another; also when a restart waits already."""
    project = Project(tmp_path, app)
    with WAYS[way](project, SHORT_TIMEOUT) as (server, editor):
        server.serving()
        answer, _ = hit(server, editor, pool, project)
        if saved:
            project.say("two")
            server.wait("loaded")
        below = server.processes()
        assert server.stop(signal.SIGINT) == 0
        for pid in below:
            gone(pid)
        answer.exception(DEADLINE)  # cut off or answered, but over


def test_pycharm_stops_it_by_one_signal_to_each_process(tmp_path: Path) -> None:
    """That is one Ctrl-C: the lifespan's shutdown runs, and once."""
    project = Project(tmp_path, "asgi")
    with pycharm(project) as (server, editor):
        server.serving()
        editor.attached(3)  # the spare, too
        blocked = re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{server.child}/status").read_text())
        assert blocked is not None
        assert (
            not int(blocked[1], 16) & 1 << signal.SIGINT - 1
        )  # or programs that it starts could not be stopped
        for pid in [server.process.pid, *server.processes()]:
            os.kill(pid, signal.SIGINT)
        assert server.ended() == 0
        assert (tmp_path / "shutdowns").read_text() == "x"
        check(server, editor)


def test_vs_code_opens_a_browser_and_stops_it_at_a_breakpoint(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """It ends everything by SIGKILL."""
    project = Project(tmp_path, "flask")
    with vs_code(project) as (server, editor):
        server.serving()
        ready = re.search(configuration()["serverReadyAction"]["pattern"], server.log)
        assert ready is not None
        assert ready[1] == f"http://localhost:{server.port}"
        hit(server, editor, pool, project)
        below = server.processes()
        assert len(below) >= 2
        editor.end()
        for pid in [server.process.pid, *below]:
            gone(pid)


PROGRAM = """
import subprocess
subprocess.Popen(["sh", "-c", "trap '' HUP INT TERM; sleep 1000; sleep 1000"])
"""


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_when_the_supervisor_is_killed(way: str, tmp_path: Path) -> None:
    """Not even what cannot be asked. The guardian that sees to it is no process to be debugged."""
    project = Project(tmp_path, "asgi")
    save(project.path, PROGRAM + project.path.read_text())
    with WAYS[way](project) as (server, editor):
        server.serving()
        editor.attached(3)  # the supervisor, the child, and the spare, which is the last to be started
        assert editor.sessions == 3
        check(server, editor)
        supervisor = server.seen[0]["pid"]
        below = descendants(supervisor)
        assert descendants(server.child)
        os.kill(supervisor, signal.SIGKILL)
        for pid in [supervisor, *below]:
            gone(pid)


def test_restart_waits_for_a_breakpoint_while_loading(tmp_path: Path) -> None:
    project = Project(tmp_path, "asgi", "# loading")
    with pycharm(project) as (server, editor):
        server.listening()
        first = editor.stopped()
        assert (first.path, first.line) == (str(project.path), project.line)
        project.say("two")
        second = editor.stopped()
        assert server.log.count("the restart waits: a debugger has stopped in MainThread") == 1
        assert server.wait("restart")["generation"] == 2
        second.resume()
        server.wait("loaded", generation=2)
        first.resume()
        server.serving()
        assert server.get().text == "two"
        assert server.stop(signal.SIGINT) == 0
        check(server, editor)
