"""What can go wrong with an application, and when: at the first start, on a reload, while it serves.

Each time the supervisor lives, terminal and browser say why, one save is one boot, and the save that
mends it brings the answer back without a key press. More rows of this table, by every kind of
application, are in `test_restart`; what heals without a save is in `test_failures_at_run_time`.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import site
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.process import DevServer, save
from tests.live.projects import PROJECTS, answer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]

HOLDS_THE_GIL = "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')"

# Address space for what it has now and a little more, then small pieces until it is used up.
OUT_OF_MEMORY = """
import resource
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, -1))
hoard = []
while True:
    hoard.append(bytearray(10_000))
"""


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        breaks: done in the project's folder.
        error: what terminal and browser say.
        mends: done in the project's folder, so that the application answers with a text.
        status: of the page; 503 for what hangs.
        phase: of the `failed` event.
        outside: whether the server is started beside the project's folder and not in it.
    """

    breaks: Callable[[Path], object]
    error: str
    mends: Callable[[Path, str], object] = lambda folder, text: save(folder / "answer.py", answer(text))
    status: int = 500
    phase: str = "load"
    outside: bool = False


def writes(source: str) -> Callable[[Path], None]:
    """A save of `answer.py`."""
    return lambda folder: save(folder / "answer.py", source)


def writes_package(folder: Path) -> None:
    """`answer` becomes a package whose first lines are broken."""
    (folder / "answer.py").unlink(missing_ok=True)
    (folder / "answer").mkdir(exist_ok=True)
    save(folder / "answer" / "__init__.py", "import answer.inside\n")


def hangs_in_lifespan(folder: Path) -> None:
    """The loop runs, and the startup never ends."""
    source = PROJECTS["asgi"].source.replace("answer.start()", "await __import__('asyncio').Event().wait()")
    save(folder / "app.py", source)


def writes_app(folder: Path, text: str) -> None:
    """Mends `app.py`. The text is in it, so that one file is saved and not two."""
    save(folder / "app.py", f"{PROJECTS['asgi'].source}\nanswer.TEXT = {text!r}\n")


def renames_attribute(folder: Path) -> None:
    save(folder / "app.py", PROJECTS["asgi"].source.replace("def app(", "def other_app("))


def moves_away(folder: Path) -> None:
    folder.rename(folder.with_name("away"))


def moves_back(folder: Path, text: str) -> None:
    """With another answer in it, so that it can be told from the one before."""
    save(folder.with_name("away") / "answer.py", answer(text))
    folder.with_name("away").rename(folder)


FAULTS = {
    "lifespan that awaits for ever": Fault(
        hangs_in_lifespan, "the lifespan's startup is not complete after", writes_app, status=503
    ),
    "lifespan that blocks for ever": Fault(
        writes(answer("one", start="import time; time.sleep(1000)")),
        "the lifespan's startup is not complete after",
        status=503,
    ),
    "import that hangs": Fault(writes("import time\ntime.sleep(1000)"), "answer.py, line 2", status=503),
    "import that holds the GIL": Fault(writes(HOLDS_THE_GIL), "answer.py, line 1", status=503),
    "os._exit": Fault(
        writes("import os; os._exit(5)"),
        "the application's process exited with code 5 while it loaded",
        phase="crash",
    ),
    "os._exit in the lifespan": Fault(
        writes(answer("one", start="import os; os._exit(0)")), "exited with code 0", phase="crash"
    ),
    "killed while it loads": Fault(
        writes("import os; os.kill(os.getpid(), 9)"), "was ended by SIGKILL while it loaded", phase="crash"
    ),
    "too much memory": Fault(writes(OUT_OF_MEMORY), "MemoryError"),
    "package with a broken __init__": Fault(
        writes_package,
        "ModuleNotFoundError: No module named 'answer.inside'",
        lambda folder, text: save(folder / "answer" / "__init__.py", answer(text)),
    ),
    "entry file that is gone": Fault(
        lambda folder: (folder / "app.py").unlink(), "there is no module 'app'", writes_app
    ),
    "attribute that has another name": Fault(renames_attribute, "app has no attribute 'app'", writes_app),
    "folder that is moved away": Fault(moves_away, "project", moves_back, outside=True),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_shown_and_healed_by_a_save(name: str, tmp_path: Path) -> None:
    """At the first start, and on a reload."""
    fault = FAULTS[name]
    folder = tmp_path / "project"
    folder.mkdir()
    PROJECTS["asgi"].make(folder)
    place = ["--app-dir", str(folder)] if fault.outside else []
    patience = ["--load-timeout", "0.5"] if fault.status == 503 else []
    if not fault.outside:
        fault.breaks(folder)
    arguments = ["--reload", "--reload-grace", "0.2", *place, *patience]
    with DevServer("app:app", *arguments, cwd=tmp_path if fault.outside else folder) as server:
        server.listening()
        if fault.outside:  # a folder that is not there at the first start is a wrong option
            server.serving()
            fault.breaks(folder)
        check(server, fault)
        fault.mends(folder, "two")
        assert server.answered().text == "two"
        fault.breaks(folder)
        check(server, fault)
        fault.mends(folder, "three")
        assert server.answered().text == "three"
        check_boots(server, saves=4 if fault.outside else 3, failures=0 if fault.status == 503 else 2)
        assert server.process.poll() is None
        assert server.stop() == 0


@pytest.mark.parametrize("restart", ["warm", "cold"])
def test_working_folder_that_is_deleted_and_made_again(restart: str, tmp_path: Path) -> None:
    """As by a new checkout in its place: the old one, in which the server was started, is nowhere."""
    folder = tmp_path / "project"
    folder.mkdir()
    PROJECTS["asgi"].make(folder, "one")
    with DevServer("app:app", "--reload", "--restart", restart, cwd=folder) as server:
        server.serving()
        for text in ("two", "three"):
            shutil.rmtree(folder)
            server.failed()
            assert server.get("/").status == 500
            folder.mkdir()
            PROJECTS["asgi"].make(folder, text)
            assert server.answered().text == text
        assert server.stop() == 0


def test_interpreter_that_is_gone_for_a_while(tmp_path: Path) -> None:
    """As while an environment is made anew."""
    path = PROJECTS["asgi"].make(tmp_path)
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), *site.getsitepackages()])}
    arguments = ["app:app", "--reload", "--restart", "cold"]
    with DevServer(*arguments, cwd=tmp_path, command=[str(python), "-m", "devserver"], env=env) as server:
        server.serving()
        python.rename(tmp_path / "away")
        for text in ("two", "three", "four"):  # one interpreter was ready
            save(path, answer(text))
            if server.restarted_or_failed() == "failed":
                break
            assert server.get("/").text == text
        assert "no process can be started: " in server.events("failed")[-1]["error"]
        (tmp_path / "away").rename(python)
        save(path, answer("mended"))
        assert server.answered().text == "mended"
        assert server.stop() == 0


def check(server: DevServer, fault: Fault) -> None:
    """Events, terminal and browser say what is wrong, the browser as often as it asks."""
    if fault.status == 500:
        failed = server.failed()
        assert fault.error in failed["error"]
        assert failed["phase"] == fault.phase
    # On a slow machine a hang is noticed before it is where it will be.
    end = time.monotonic() + DEADLINE
    while fault.error not in (page := server.get("/")).text and fault.status == 503:
        assert time.monotonic() < end, page.text
    assert page.status == fault.status
    assert fault.error in page.text
    said = (
        "still loading after|startup is not complete after" if fault.status == 503 else re.escape(fault.error)
    )
    assert re.search(said, server.log)


def check_boots(server: DevServer, saves: int, failures: int) -> None:
    """A save leads to one boot, or to none if a request had just begun one for the failed start."""
    reasons = [event["reason"] for event in server.events("restart")]
    by_request = reasons.count("tried again, because a request came")
    by_save = len([reason for reason in reasons if " changed" in reason])
    assert by_save + by_request == len(reasons), reasons
    assert by_save <= saves <= len(reasons), reasons
    assert len(server.events("failed")) == failures


# While it serves


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """By which the application says that it has come to a point: a path to open, a descriptor to read."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield str(path), descriptor
    os.close(descriptor)


def keeps_busy(pid: int) -> None:
    """Wait until a process has computed for a tenth of a second."""
    began, end = processor_time(pid), time.monotonic() + DEADLINE
    while processor_time(pid) < began + 0.1:
        assert time.monotonic() < end


def processor_time(pid: int) -> float:
    """Seconds of it that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


SAYS_SO = "import os; os.close(os.open({path!r}, os.O_WRONLY)); "


@pytest.mark.parametrize(
    ("interface", "source"),
    [("asgi", HOLDS_THE_GIL), ("wsgi", HOLDS_THE_GIL), ("wsgi", "import lazy")],
    ids=["asgi-GIL", "wsgi-GIL", "wsgi-import"],
)
def test_request_that_never_ends_is_ended_by_a_save(
    source: str, interface: str, fifo: tuple[str, int], tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    project = PROJECTS[interface]
    path = project.make(folder)
    (folder / "lazy.py").write_text("import time; time.sleep(1000)")
    path.write_text(answer("one", ask=SAYS_SO.format(path=fifo[0]) + source))
    with DevServer(project.target, "--reload", "--reload-grace", "0.2", cwd=folder) as server:
        server.serving()
        with server.asking():
            assert select.select([fifo[1]], [], [], DEADLINE)[0]
            if source == HOLDS_THE_GIL:
                keeps_busy(server.child)  # or the next connection may still be accepted there, and is lost
            save(path, answer("two"))
            assert server.answered().text == "two"
        assert [event["reason"] for event in server.events("restart")] == ["answer.py changed"]
        assert server.stop() == 0


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_request_that_takes_too_much_memory_is_one_failure_and_no_end(interface: str, tmp_path: Path) -> None:
    project = PROJECTS[interface]
    path = project.make(tmp_path)
    path.write_text(answer("one", ask="bytearray(2**60)"))
    with DevServer(project.target, "--reload", cwd=tmp_path) as server:
        server.serving()
        for _ in range(2):
            page = server.get("/")
            assert page.status == 500
            assert "MemoryError" in page.text
        save(path, answer("two"))
        assert server.answered().text == "two"
        assert len(server.events("restart")) == 1
        assert server.log.count("Traceback") == 2


ASGI_BODY = """
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"mended"})
"""

SERVERS = {
    "http.server": "import http.server; http.server.HTTPServer(('127.0.0.1', 0), None).serve_forever()",
    "wsgiref": "from wsgiref import simple_server as s; s.make_server('127.0.0.1', 0, 0).serve_forever()",
}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is known of another process")
@pytest.mark.parametrize("name", SERVERS)
def test_a_module_that_serves_by_itself_is_told_of(name: str, tmp_path: Path) -> None:
    path = tmp_path / "app.py"
    path.write_text(f"\n{SERVERS[name]}\nasync def app(scope, receive, send): ...\n")
    with DevServer("app:app", "--reload", "--load-timeout", "1", cwd=tmp_path) as server:
        server.listening()
        answer = server.get("/")
        assert answer.status == 503
        assert re.search(
            r"app.py, line 2; it serves by itself, on 127.0.0.1:\d+: put what starts it", answer.text
        )
        server.wait_log("it serves by itself")
        save(path, "async def app(scope, receive, send):\n" + ASGI_BODY)
        server.serving()
        assert server.get("/").text == "mended"


def test_an_unguarded_run_of_flask_is_told_of(tmp_path: Path) -> None:
    """It takes itself for the child of werkzeug's reloader."""
    path = tmp_path / "app.py"
    text = "from flask import Flask\napp = Flask(__name__)\n@app.get('/')\ndef index(): return 'mended'\n"
    path.write_text(f"{text}app.run(debug=True)\n")
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.failed()
        assert "put what starts it below" in server.get("/").text
        server.wait_log("put what starts it below")
        save(path, f"{text}if __name__ == '__main__':\n    app.run(debug=True)\n")
        assert server.get("/").text == "mended"


@pytest.mark.parametrize("reload", [["--reload"], []], ids=["reload", "alone"])
@pytest.mark.parametrize(
    ("library", "statement"),
    [("gevent", "from gevent import monkey; monkey.patch_all()"), ("eventlet", "eventlet.monkey_patch()")],
)
def test_a_standard_library_that_was_made_green_is_refused_at_once(
    library: str, statement: str, reload: list[str], tmp_path: Path
) -> None:
    pytest.importorskip(library)
    text = PROJECTS["wsgi"].source.replace("import answer", "")
    (tmp_path / "answer.py").write_text(answer("mended"))
    (tmp_path / "app.py").write_text(f"import {library}\n{statement}\nimport answer\n{text}")
    told = f"{library} has patched the standard library"
    with DevServer("app:application", *reload, cwd=tmp_path) as server:
        server.listening()
        assert told in server.wait("failed")["error"]
        if not reload:
            assert server.ended() == 1
            return
        assert told in server.get("/").text
        save(tmp_path / "app.py", f"import answer\n{text}")
        assert server.get("/").text == "mended"


def test_a_loop_that_may_be_nested_is_asyncios(tmp_path: Path) -> None:
    pytest.importorskip("nest_asyncio")
    (tmp_path / "app.py").write_text(
        "import asyncio, nest_asyncio\nnest_asyncio.apply()\n"
        "async def inner():\n    return b'nested'\n"
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    body = asyncio.get_running_loop().run_until_complete(inner())\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': body})\n"
    )
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        assert server.get("/").text == "nested"
