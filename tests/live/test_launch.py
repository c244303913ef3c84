"""How a program is started, and what its children see of that: arguments, flags, paths, addresses."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import zipapp
from pathlib import Path
from typing import Any

import pytest

from tests.live.process import USUAL, DevServer, descendants, gone, save
from tests.live.projects import PROJECTS, answer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

REPORT = """
import json, os, sys
from dataclasses import dataclass

while_loading = dict(os.environ)

def app(environ, start_response):
    main = sys.modules["__main__"]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "path": sys.path,
        "flags": str(sys.flags),
        "warnings": sys.warnoptions,
        "xoptions": sys._xoptions,
        "executable": sys.executable,
        "folder": os.getcwd(),
        "main": [main.__name__, getattr(main, "__file__", None), getattr(main, "__package__", None)],
        "loading": while_loading,
        "serving": dict(os.environ),
    }).encode()]

NUMBER = 0
"""
"""An application that tells how it was started."""

CALL = """
import sys

import devserver

if __name__ == "__main__":
    devserver.run("app:app", reload=True, port=0, events=sys.argv[-1])
"""
"""A program that serves `app`; it takes the descriptor for events from its last argument."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the application that reports, and programs that serve it."""
    (tmp_path / "app.py").write_text(REPORT)
    (tmp_path / "serve.py").write_text(CALL)
    for name in ("package/__main__.py", "package/other.py", "folder/__main__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(CALL)
    (tmp_path / "package" / "__init__.py").touch()
    zipapp.create_archive(tmp_path / "folder", tmp_path / "serve.pyz")
    return tmp_path


PYTHON = [sys.executable]
SCRIPT = str(Path(sys.executable).with_name("devserver"))
OPTIONS = ["-X", "dev", "-W", "error::DeprecationWarning"]

LAUNCHES = {
    "console script": [SCRIPT, "app:app", "--reload"],
    "console script with options": [*PYTHON, *OPTIONS, SCRIPT, "app:app", "--reload"],
    "-m devserver": [*PYTHON, "-m", "devserver", "app:app", "--reload"],
    "-m devserver with options": [*PYTHON, *OPTIONS, "-m", "devserver", "app:app", "--reload"],
    "script with options": [*PYTHON, "-B", "-s", "-u", "serve.py", "an argument", "--a=b"],
    "-m package": [*PYTHON, *OPTIONS, "-m", "package", "an argument"],
    "-m package.module": [*PYTHON, "-m", "package.other"],
    "folder": [*PYTHON, "folder", "an argument"],
    "zipapp": [*PYTHON, "serve.pyz", "an argument"],
}


@pytest.mark.parametrize(
    "launch", [name for name in LAUNCHES if name != "-m devserver"]
)  # as all other tests start it
def test_every_generation_is_started_as_the_program_was(launch: str, project: Path) -> None:
    command = LAUNCHES[launch]
    with DevServer(command=command, cwd=project) as server:
        server.listening()
        program = Path(f"/proc/{server.process.pid}/cmdline").read_text().split("\0")[:-1]
        reports = []
        for number in range(1, 4):
            server.serving()
            reports.append(json.loads(server.get("/").text))
            if number < 3:
                save(project / "app.py", f"{REPORT}\nNUMBER = {number}\n")
                server.wait("restart")
        first, _, third = reports
        for key in first.keys() - {"loading", "serving"}:
            assert first[key] == third[key], key
        assert Path(first["orig_argv"][0]).samefile(sys.executable)
        assert first["orig_argv"][1:] == program[1:]
        assert first["argv"][1:] == program[-len(first["argv"][1:]) :]
        assert first["folder"] == str(project)
        assert str(project) in first["path"]
        if OPTIONS[0] in command:
            assert "dev_mode=True" in first["flags"]
            assert "error::DeprecationWarning" in first["warnings"]
        assert server.stop() == 0
        # With -X dev Python tells of what is left open, in the supervisor and in every child.
        assert "Warning" not in server.log


def test_both_ways_to_start_see_the_same_modules(project: Path) -> None:
    """`python -m` puts the working directory on the path, a console script its own folder."""
    paths = []
    for launch in ("console script", "-m devserver"):
        with DevServer(command=LAUNCHES[launch], cwd=project) as server:
            server.serving()
            paths.append(json.loads(server.get("/").text)["path"])
    assert paths[0][0] == paths[1][0] == str(project)


def test_object_cannot_be_reloaded_and_says_so_at_once(tmp_path: Path) -> None:
    (tmp_path / "serve.py").write_text(
        "import devserver\ndef app(environ, start_response): ...\ndevserver.run(app, reload=True, port=0)\n"
    )
    command = [sys.executable, "serve.py"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert ended.returncode != 0
    assert "reload=True needs the target as an import string" in ended.stderr
    assert "listening" not in ended.stderr


REFUSED = {
    "in a thread": (
        "import threading\ndef serve():\n    try: devserver.run('app:app', reload=True)\n"
        "    except devserver.errors.UsageError as error: print(error)\n"
        "thread = threading.Thread(target=serve)\nthread.start()\nthread.join()\n",
        "must be called in the main thread",
    ),
    "in a loop": (
        "import asyncio\nasync def serve():\n    try: devserver.run('app:app')\n"
        "    except devserver.errors.UsageError as error: print(error)\nasyncio.run(serve())\n",
        "while an event loop runs",
    ),
}


@pytest.mark.parametrize("where", REFUSED)
def test_where_run_cannot_serve_it_names_what_can(where: str, tmp_path: Path) -> None:
    script, told = REFUSED[where]
    (tmp_path / "serve.py").write_text(f"import devserver, devserver.errors\n{script}")
    command = [sys.executable, "-W", "error", "serve.py"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert told in ended.stdout
    assert "devserver.Server serves" in ended.stdout


def test_a_process_that_multiprocessing_has_spawned_restarts(tmp_path: Path) -> None:
    """Its own command line is `multiprocessing`'s, and cannot be run again."""
    PROJECTS["asgi"].make(tmp_path)
    (tmp_path / "serve.py").write_text(
        "import multiprocessing, os, sys, devserver\n"
        "def serve(**more):\n"
        "    os.environ['SET'] = 'here'\n"
        "    devserver.run('app:app', **more)\n"
        "if __name__ == '__main__':\n"
        "    events = f'/proc/{os.getpid()}/fd/{sys.argv[-1].removeprefix(\"fd:\")}'\n"
        "    more = dict(port=0, reload=True, events=events)\n"
        "    spawn = multiprocessing.get_context('spawn')\n"
        "    process = spawn.Process(target=serve, kwargs=more)\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    with DevServer(command=[sys.executable, "serve.py"], cwd=tmp_path) as server:
        server.serving()
        for text in ("two", "three"):
            save(tmp_path / "answer.py", f"{answer(text)}\nimport os\nTEXT += os.environ['SET']\n")
            assert server.get("/").text == f"{text}here"
            server.restarted()
        os.kill(server.events("listening")[0]["pid"], signal.SIGTERM)
        assert server.ended() == 0


def test_object_is_served_without_reload(tmp_path: Path) -> None:
    call = CALL.replace('"app:app", reload=True', "application")
    (tmp_path / "serve.py").write_text(f"{PROJECTS['wsgi'].source}\n{call}")
    (tmp_path / "answer.py").write_text(answer("one"))
    with DevServer(command=[sys.executable, "serve.py"], cwd=tmp_path) as server:
        server.serving()
        assert server.child == server.process.pid
        assert server.get("/").text == "one"
        assert server.stop() == 0


def test_flags_in_the_environment(project: Path) -> None:
    with DevServer("app:app", "--reload", cwd=project) as server:
        for _ in range(2):
            server.serving()
            report = json.loads(server.get("/").text)
            loading, serving = report["loading"], report["serving"]
            assert loading["DEVSERVER_RUN_MAIN"] == serving["DEVSERVER_RUN_MAIN"] == "true"
            assert loading["RUN_MAIN"] == serving["RUN_MAIN"] == "true"
            assert loading["WERKZEUG_RUN_MAIN"] == "true"
            assert "WERKZEUG_RUN_MAIN" not in serving
            assert "DEVSERVER_CONTROL" not in loading
            save(project / "app.py", f"{REPORT}\nNUMBER = 1\n")


def test_no_flags_without_reload(project: Path) -> None:
    with DevServer("app:app", cwd=project) as server:
        server.serving()
        loading = json.loads(server.get("/").text)["loading"]
        assert not {"DEVSERVER_RUN_MAIN", "RUN_MAIN", "WERKZEUG_RUN_MAIN"} & loading.keys()


NESTING = """
import subprocess, sys

def app(environ, start_response):
    options = ["--reload", "--port=0", "--events=inner.events"]
    command = [sys.executable, "-m", "devserver", "inner:app", *options]
    process = subprocess.Popen(command, cwd="inner")
    start_response("200 OK", [])
    return [str(process.pid).encode()]
"""


def test_devserver_that_the_application_starts_is_a_supervisor_of_its_own(tmp_path: Path) -> None:
    """It inherits our flags, but no control channel."""
    (tmp_path / "app.py").write_text(NESTING)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "inner.py").write_text(REPORT)
    os.mkfifo(inner / "inner.events")
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        with Reader(inner / "inner.events") as events:
            supervisor = int(server.get("/").text)
            assert events.wait("listening")["pid"] == supervisor
            child = events.wait("serving")["pid"]
            assert child in descendants(supervisor)
            save(inner / "inner.py", f"{REPORT}\nNUMBER = 1\n")
            assert events.wait("restart")["reason"] == "inner.py changed"
            assert events.wait("serving")["pid"] in descendants(supervisor)
            assert not server.events("restart")
            assert server.stop() == 0
            gone(supervisor)


class Reader:
    """Events from a named pipe."""

    def __init__(self, path: Path) -> None:
        # For writing too, so that opening waits for nobody and there is no end of file.
        self._fd = os.open(path, os.O_RDWR)
        self._buffer = b""

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def wait(self, name: str) -> dict[str, Any]:
        """The next event of this name."""
        deadline = time.monotonic() + DEADLINE
        while True:
            line, end, rest = self._buffer.partition(b"\n")
            if not end:
                ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
                assert ready, f"no event {name!r} came"
                self._buffer += os.read(self._fd, 65536)
                continue
            self._buffer = rest
            event: dict[str, Any] = json.loads(line)
            if event["event"] == name:
                return event


# Addresses


def keeps_its_address(server: DevServer, path: Path) -> None:
    """Three restarts, each answering where the first one did."""
    for text in ("two", "three", "four"):
        save(path, answer(text))
        server.restarted()
        assert server.get("/").text == text
    assert len(server.events("listening")) == 1
    assert server.stop() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0"])
def test_address_is_kept(host: str, tmp_path: Path) -> None:
    path = PROJECTS["asgi"].make(tmp_path)
    with DevServer("app:app", "--reload", "--host", host, "--port", "0", cwd=tmp_path) as server:
        server.serving()
        assert server.port
        keeps_its_address(server, path)


def test_a_misspelt_variable_is_spoken_of(tmp_path: Path) -> None:
    PROJECTS["wsgi"].make(tmp_path)
    with DevServer("app:application", cwd=tmp_path, env={"DEVSERVER_PROT": "1"}) as server:
        server.serving()
        assert "warning: DEVSERVER_PROT is no option; did you mean DEVSERVER_PORT?" in server.log


def test_localhost_is_both_loopbacks(tmp_path: Path) -> None:
    PROJECTS["wsgi"].make(tmp_path)
    with DevServer("app:application", "--reload", cwd=tmp_path) as server:
        server.serving()
        for server.host in ("127.0.0.1", "::1"):
            assert server.get("/").text == "one"


def test_unix_socket_is_kept_and_removed_at_the_end(tmp_path: Path) -> None:
    path = PROJECTS["wsgi"].make(tmp_path)
    place = Path("/tmp", f"devserver-{os.getpid()}.sock")  # a path in tmp_path may be too long for one
    with DevServer("app:application", "--reload", "--uds", str(place), cwd=tmp_path) as server:
        server.serving()
        inode = place.stat().st_ino
        save(path, answer("one and a half"))
        server.restarted()
        assert place.stat().st_ino == inode
        keeps_its_address(server, path)
        assert not place.exists()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_descriptor_is_kept(kind: str, tmp_path: Path) -> None:
    path = PROJECTS["asgi"].make(tmp_path)
    place = Path("/tmp", f"devserver-fd-{os.getpid()}.sock")
    with socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET) as sock:
        sock.bind(str(place) if kind == "unix" else ("127.0.0.1", 0))
        sock.listen()
        try:
            arguments = ("app:app", "--reload", "--fd", str(sock.fileno()))
            with DevServer(*arguments, cwd=tmp_path, pass_fds=[sock.fileno()]) as server:
                server.serving()
                keeps_its_address(server, path)
        finally:
            place.unlink(missing_ok=True)


# What is loaded, and how often


def test_application_is_imported_once_per_generation_and_never_in_the_supervisor(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    count = tmp_path_factory.mktemp("elsewhere") / "count"
    path = PROJECTS["wsgi"].make(tmp_path)
    counting = f"import os\nwith open({str(count)!r}, 'a') as file: print(os.getpid(), file=file)"
    (tmp_path / "app.py").write_text(f"{counting}\n{PROJECTS['wsgi'].source}")
    with DevServer("app:application", "--reload", "--restart", "cold", cwd=tmp_path) as server:
        pids = [server.serving()["pid"]]
        for text in ("two", "three", "four"):
            save(path, answer(text))
            server.restarted()
            assert server.get("/").text == text
            pids.append(server.child)
        assert server.stop() == 0
        assert [int(line) for line in count.read_text().split()] == pids
        assert server.process.pid not in pids


HEAVY = {"asyncio", "h11", "httptools", "uvloop", "watchfiles", "wsproto", "flask", "app", "answer"} | {
    "_hashlib",  # OpenSSL
    "email",
    "pathlib",
}


def test_supervisor_is_light(tmp_path: Path) -> None:
    """Neither an application nor what only serving needs is imported there."""
    PROJECTS["flask"].make(tmp_path)
    command = [sys.executable, "-X", "importtime", "-m", "devserver", "app:app", "--reload"]
    with DevServer(command=command, cwd=tmp_path) as server:
        server.serving()
        assert server.stop() == 0
        # The supervisor's lines come first, those of its child after the banner.
        imported = server.log.partition("listening on")[0]
        names = {line.rpartition("|")[2].strip() for line in imported.splitlines()}
        assert "devserver.config" in names
        assert not HEAVY & names


# Variables and options


def environment(server: DevServer) -> dict[str, str]:
    found: dict[str, str] = json.loads(server.get("/").text)["loading"]
    return found


def test_env_file_is_read_again_at_each_restart(project: Path) -> None:
    file = project / ".env"
    file.write_text("KEPT=file\nREMOVED=here\nREAL=file\n")
    with DevServer("app:app", "--reload", "--env-file", ".env", cwd=project, env={"REAL": "real"}) as server:
        server.serving()
        variables = environment(server)
        assert (variables["KEPT"], variables["REMOVED"], variables["REAL"]) == ("file", "here", "real")
        save(file, "KEPT=changed\nREAL=file\nADDED='x y'\n")
        assert server.restarted()["reason"] == ".env changed"
        variables = environment(server)
        assert (variables["KEPT"], variables["ADDED"], variables["REAL"]) == ("changed", "x y", "real")
        assert "REMOVED" not in variables
        # A restart for another reason reads it, too, and nothing is left of the first one.
        save(project / "app.py", f"{REPORT}\nNUMBER = 1\n")
        server.restarted()
        assert environment(server)["KEPT"] == "changed"
        assert "REMOVED" not in environment(server)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process cannot tell how it was started")
def test_an_agent_from_sitecustomize_is_in_every_generation(tmp_path: Path) -> None:
    """It takes its folder out of PYTHONPATH, so that what the application starts is not instrumented."""
    agent = tmp_path / "agent"
    agent.mkdir()
    (agent / "sitecustomize.py").write_text(
        "import os, sys\n"
        "sys.instrumented = True\n"
        "os.environ['PYTHONPATH'] = ''\n"
        "os.environ['SEEN'] = os.environ.get('SEEN', '') + 'x'\n"
    )
    path = tmp_path / "app.py"
    text = (
        "import os, sys\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    state = getattr(sys, 'instrumented', False), os.environ['PYTHONPATH'], os.environ['SEEN']\n"
        "    return [repr(state).encode()]\n"
    )
    path.write_text(text)
    with DevServer("app:app", "--reload", cwd=tmp_path, env={"PYTHONPATH": str(agent)}) as server:
        server.serving()
        for _ in range(2):
            assert server.get().text == "(True, '', 'x')"
            save(path, text := text + "\n")
            server.restarted()


def test_options_from_the_file(tmp_path: Path) -> None:
    path = PROJECTS["wsgi"].make(tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.devserver]\ntarget = "app:application"\nreload = true\nheader = ["X-From: the file"]\n'
    )
    with DevServer(cwd=tmp_path) as server:
        server.serving()
        assert server.get("/").headers["x-from"] == "the file"
        save(path, answer("two"))
        server.restarted()
        # An edit of the file is one of the project: the next generation has the new options.
        save(
            tmp_path / "pyproject.toml",
            '[tool.devserver]\ntarget = "app:application"\nreload = true\nheader = ["X-From: an edit"]\n',
        )
        assert server.restarted()["reason"] == "pyproject.toml changed"
        assert server.get("/").headers["x-from"] == "an edit"


def test_options_that_a_script_does_not_give(tmp_path: Path) -> None:
    """`run` takes them from the environment and the file, as the command does."""
    path = PROJECTS["wsgi"].make(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.devserver]\nheader = ["X-From: the file"]\nport = 1\n')
    (tmp_path / "serve.py").write_text(
        "import sys\nfrom pathlib import Path\nimport devserver\nif __name__ == '__main__':\n"
        "    devserver.run('app:application', reload=True, app_dir=Path(), events=sys.argv[-1])\n"
    )
    env = {"DEVSERVER_PORT": "0"}
    with DevServer(command=[sys.executable, "serve.py"], cwd=tmp_path, env=env) as server:
        server.serving()
        assert server.get("/").headers["x-from"] == "the file"
        save(path, answer("two"))
        server.restarted()
        assert server.get("/").text == "two"


@pytest.mark.parametrize(("options", "kind"), [("", "cold"), (", restart='warm'", USUAL)])
def test_what_a_script_reads_before_the_call_is_read_at_each_restart(
    options: str, kind: str, tmp_path: Path
) -> None:
    """Nobody was there to note it; who asks for warm restarts says that it does not change."""
    path = PROJECTS["wsgi"].make(tmp_path)
    (tmp_path / "port.txt").write_text("0")
    (tmp_path / "serve.py").write_text(
        "import sys\nimport devserver\nPORT = int(open('port.txt').read())\nif __name__ == '__main__':\n"
        f"    devserver.run('app:application', reload=True, port=PORT, events=sys.argv[-1]{options})\n"
    )
    with DevServer(command=[sys.executable, "serve.py"], cwd=tmp_path) as server:
        server.serving()
        for text in ("two", "three"):
            save(path, answer(text))
            assert server.restarted()["kind"] == kind
            assert server.get("/").text == text


# Targets

TARGETS = {
    "discovered in app": ({"app.py": "wsgi"}, []),
    "discovered in main": ({"main.py": "asgi"}, []),
    "discovered one package down": ({"shop/__init__.py": "", "shop/asgi.py": "asgi"}, []),
    "file": ({"deep/down/web.py": "wsgi"}, ["deep/down/web.py:application"]),
    "file without attribute": ({"web.py": "asgi"}, ["web.py"]),
    "file in packages": (
        {"shop/__init__.py": "", "shop/web/__init__.py": "", "shop/web/site.py": "wsgi"},
        ["shop/web/site.py"],
    ),
    "dotted attribute": ({"web.py": "holder"}, ["web:Holder.app"]),
    "factory": ({"web.py": "factory"}, ["web:make_app", "--factory"]),
    "app-dir": ({"src/web.py": "asgi"}, ["web", "--app-dir", "src"]),
}

KINDS = {
    "": "",
    "asgi": PROJECTS["asgi"].source,
    "wsgi": PROJECTS["wsgi"].source,
    "holder": PROJECTS["wsgi"].source + "\nclass Holder:\n    app = application\ndel application\n",
    "factory": PROJECTS["asgi"].source.replace("def app(", "def _app(") + "\ndef make_app(): return _app\n",
}


@pytest.mark.parametrize("case", TARGETS)
def test_target(case: str, tmp_path: Path) -> None:
    files, arguments = TARGETS[case]
    for name, kind in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(KINDS[kind])
    path = tmp_path / ("src" if "--app-dir" in arguments else "") / "answer.py"
    path.write_text(answer("one"))
    with DevServer(*arguments, "--reload", cwd=tmp_path) as server:
        server.serving()
        assert server.get("/").text == "one"
        save(path, answer("two"))
        assert server.restarted()["reason"] == f"{path.relative_to(tmp_path)} changed"
        assert server.get("/").text == "two"


def test_a_script_may_change_the_folder_before_it_serves(tmp_path: Path) -> None:
    """Its own name is relative to the folder in which it was started."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run.py").write_text("""
import os, pathlib, sys
import devserver

HERE = pathlib.Path(__file__).parent

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"one"]

if __name__ == "__main__":
    os.chdir("elsewhere")
    devserver.run("run:app", app_dir=str(HERE), reload=True, port=0, events=sys.argv[-1])
""")
    with DevServer(cwd=tmp_path, command=[sys.executable, "run.py"]) as server:
        server.serving()
        assert server.get().text == "one"
        save(tmp_path / "run.py", (tmp_path / "run.py").read_text().replace("one", "two"))
        server.restarted()
        assert server.get().text == "two"
