"""The first start: when Django comes before us, and what a `.env` file may shadow."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.live.polls import Stock, make, make_stock, replace, runserver
from tests.live.process import DevServer, descendants, gone

pytestmark = pytest.mark.live

SETTINGS = "mysite/settings.py"


def supervisors(server: DevServer) -> list[int]:
    """The processes that were started as a supervisor or by one, the highest first."""
    found = []
    for pid in [server.process.pid, *descendants(server.process.pid)]:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"devserver.django" in words:
            found.append(pid)
    return found


def mend(server: DevServer, path: Path, text: str) -> None:
    """Save, and again until Django's reloader sees it: it misses what comes before its first look."""
    path.write_text(text)
    while not server.seen:
        server.idle(0.3)
        os.utime(path)
    server.serving()


@pytest.mark.parametrize("name", ["logging", "app before ours"])
def test_a_project_that_django_cannot_set_up_becomes_ours_when_it_is_mended(
    tmp_path: Path, name: str
) -> None:
    """Django's reloader has taken over and dropped `--nostatic`: the save that mends brings all of it."""
    make(tmp_path)
    if name == "logging":
        path, old = tmp_path / SETTINGS, "DEBUG = True"
        new = "DEBUG = True\nLOGGING = {'version': 1, 'handlers': {'a': {'class': 'no.such'}}}"
    else:
        (tmp_path / "early").mkdir()
        path, old, new = tmp_path / "early/__init__.py", "FINE = 1", "1/0"
        path.write_text(old)
        replace(tmp_path / SETTINGS, "INSTALLED_APPS = [", "INSTALLED_APPS = ['early',")
    good = path.read_text()
    replace(path, old, new)
    with runserver(tmp_path, "--nostatic", "0", "--reload-grace", "0.7") as server:
        server.wait_log("Error")
        first = server.process.pid
        server.wait_log("Watching for file changes")
        mend(server, path, good)
        assert server.get("/polls/word/").text == "one"
        assert server.get("/static/polls/style.css").status == 404, "--nostatic is lost"
        replace(tmp_path / "polls/views.py", "one", "two")
        assert server.get("/polls/word/").text == "two"
        # Django's process, and within it one supervisor with its children.
        assert server.process.pid == first
        ours = supervisors(server)
        assert all(pid in [ours[0], *descendants(ours[0])] for pid in ours)
        assert server.seen[0]["pid"] == ours[0]
        below = descendants(first)
        server.process.send_signal(signal.SIGTERM)
        server.ended()
        for pid in below:
            gone(pid)


def test_ctrl_c_ends_both(tmp_path: Path) -> None:
    make(tmp_path)
    text = (tmp_path / SETTINGS).read_text()
    (tmp_path / SETTINGS).write_text(f"{text}\nLOGGING = {{'version': 7}}\n")
    with runserver(tmp_path, "0", new_session=True) as server:
        server.wait_log("Watching for file changes")
        mend(server, tmp_path / SETTINGS, text)
        below = server.processes()
        server.interrupt()
        server.ended()
        for pid in below:
            gone(pid)


def test_a_variable_of_an_env_file_is_read_anew(tmp_path: Path) -> None:
    """What the settings put into the environment of the first process is not there in the next ones."""
    make(tmp_path)
    (tmp_path / ".env").write_text("WORD=first\n")
    settings = tmp_path / SETTINGS
    settings.write_text(
        "import os, pathlib\n"
        "for line in pathlib.Path(__file__).parents[1].joinpath('.env').read_text().splitlines():\n"
        "    os.environ.setdefault(*line.split('='))\n" + settings.read_text()
    )
    replace(tmp_path / "polls/views.py", 'WORD = "one"', 'WORD = os.environ["WORD"]')
    with runserver(tmp_path) as server:
        server.serving()
        assert server.get("/polls/word/").text == "first"
        (tmp_path / ".env").write_text("WORD=second\n")
        assert server.get("/polls/word/").text == "second"


def test_what_the_first_process_has_and_does_not_have(tmp_path: Path) -> None:
    """It becomes the supervisor before applications are loaded.

    `RUN_MAIN` is true in the child, and in nothing that it starts, nor in the supervisor.
    """
    make(tmp_path)
    models = tmp_path / "polls/models.py"
    models.write_text("import os\nprint('MODELS', os.getpid(), flush=True)\n" + models.read_text())
    replace(
        tmp_path / "polls/views.py",
        "HttpResponse(WORD)",
        "HttpResponse(f\"{os.environ['RUN_MAIN']} {os.popen('echo $RUN_MAIN').read().strip()}.\")",
    )
    with runserver(tmp_path, env={"RUN_MAIN": ""}) as server:
        server.serving()
        assert server.get("/polls/word/").text == "true ."
        environ = Path(f"/proc/{server.process.pid}/environ").read_bytes().split(b"\0")
        assert b"RUN_MAIN=true" not in environ
        assert server.log.count("MODELS") == 1
        assert f"MODELS {server.process.pid}\n" not in server.log


def test_manage_py_may_change_folders(tmp_path: Path) -> None:
    make(tmp_path / "site")
    replace(tmp_path / "site/manage.py", "def main():", "os.chdir('/')\ndef main():")
    command = ["site/manage.py", "runserver", "0"]
    with DevServer(*command, cwd=tmp_path, command=[sys.executable]) as server:
        server.serving()
        replace(tmp_path / "site/polls/views.py", "one", "two")
        assert server.get("/polls/word/").text == "two"


def test_stock_goes_on_being_stock(tmp_path: Path) -> None:
    """To have devserver installed changes nothing for a project that does not name it."""
    with Stock(make_stock(tmp_path), "0") as stock:
        assert "devserver" not in stock.until("Quit the server")
