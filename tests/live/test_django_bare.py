"""`devserver` with no target, in a folder with a manage.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.polls import make, make_stock, replace
from tests.live.process import DevServer

pytestmark = pytest.mark.live


@pytest.mark.parametrize(("named", "reload"), [(True, False), (False, True)])
def test_the_project_is_served(tmp_path: Path, named: bool, reload: bool) -> None:
    make(tmp_path) if named else make_stock(tmp_path)
    with DevServer(*(["--reload"] if reload else []), cwd=tmp_path) as server:
        server.serving()
        assert "serving manage.py" in server.log
        assert server.get("/polls/word/").text == "one"
        assert "green" in server.get("/static/polls/style.css").text
        server.wait_log("development server at http://127.0.0.1")
        if reload:
            process = server.get("/polls/process/").text
            (tmp_path / "polls/templates/polls/index.html").write_text("new")
            assert server.get("/polls/").text == "new"
            assert server.get("/polls/process/").text == process
            replace(tmp_path / "polls/views.py", "one", "two")
            assert server.get("/polls/word/").text == "two"
        assert server.stop() == 0


def test_broken_settings_are_shown_from_the_start(tmp_path: Path) -> None:
    settings = make(tmp_path) / "mysite/settings.py"
    good = settings.read_text()
    settings.write_text("DEBUG = = True\n")
    with DevServer("--reload", cwd=tmp_path) as server:
        server.failed()
        assert "DEBUG = = True" in server.get("/", Accept="text/html").text
        settings.write_text(good)
        assert server.answered("/polls/word/").text == "one"


def test_missing_settings_come(tmp_path: Path) -> None:
    settings = make(tmp_path) / "mysite/settings.py"
    settings.rename(tmp_path / "away.py")
    with DevServer("--reload", cwd=tmp_path) as server:
        server.failed()
        assert "mysite.settings" in server.get("/", Accept="text/html").text
        (tmp_path / "away.py").rename(settings)
        assert server.answered("/polls/word/").text == "one"


def test_from_another_folder(tmp_path: Path) -> None:
    make(tmp_path / "site")
    (tmp_path / "other").mkdir()
    with DevServer("--reload", "--app-dir", str(tmp_path / "site"), cwd=tmp_path / "other") as server:
        server.serving()
        assert server.get("/polls/word/").text == "one"


def test_a_target_is_no_project(tmp_path: Path) -> None:
    make(tmp_path)
    with DevServer("mysite.wsgi:application", cwd=tmp_path) as server:
        server.serving()
        assert server.get("/polls/word/").text == "one"
        assert "Performing system checks" not in server.log


def test_another_manage_py_is_none(tmp_path: Path) -> None:
    (tmp_path / "manage.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "app.py").write_text(
        "def app(environ, start):\n    start('200 OK', [])\n    return [b'app']\n"
    )
    with DevServer(cwd=tmp_path) as server:
        server.serving()
        assert server.get("/").text == "app"


def test_a_unix_socket(tmp_path: Path) -> None:
    make(tmp_path)
    with DevServer("--reload", "--uds", str(tmp_path / "socket"), cwd=tmp_path) as server:
        server.serving()
        assert server.get("/polls/word/", Host="localhost").text == "one"
