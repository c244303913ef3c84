"""`manage.py runserver`: a template is fresh in the same process, code in another, failures heal."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from tests.live import polls
from tests.live.clients import Clients
from tests.live.polls import make, replace, runserver
from tests.live.process import save

pytestmark = pytest.mark.live

SETTINGS, VIEWS = "mysite/settings.py", "polls/views.py"
INDEX = "polls/templates/polls/index.html"


def test_what_settings_have_read_restarts_although_it_lies_beside_templates(tmp_path: Path) -> None:
    """DIRS may be the whole project. Of a template there, nothing but requests has read anything."""
    make(tmp_path)
    replace(tmp_path / SETTINGS, "'DIRS': []", "'DIRS': [BASE_DIR]")
    (tmp_path / "config.json").write_text('{"word": "one"}')
    with (tmp_path / SETTINGS).open("a") as file:
        file.write("\nimport json\nWORD = json.loads((BASE_DIR / 'config.json').read_text())['word']\n")
    replace(tmp_path / VIEWS, 'WORD = "one"', "from django.conf import settings\nWORD = settings.WORD")
    with runserver(tmp_path) as server:
        server.serving()
        assert server.get("/polls/word/").text == "one"
        save(tmp_path / "config.json", '{"word": "two"}')
        assert server.restarted()["reason"] == "config.json changed"
        assert server.get("/polls/word/").text == "two"


@pytest.mark.django
def test_an_edited_template_is_served_by_the_same_process_and_a_view_by_another(tmp_path: Path) -> None:
    with runserver(make(tmp_path)) as server:
        server.serving()
        first = server.get("/polls/process/").text
        assert "Polls" in server.get("/polls/").text
        for number in range(5):
            (tmp_path / INDEX).write_text(f"number {number}")
            assert server.get("/polls/").text == f"number {number}"
        assert server.get("/polls/process/").text == first
        replace(tmp_path / VIEWS, 'WORD = "', 'WORD = "two ')  # only this may restart
        assert server.get("/polls/word/").text.startswith("two")
        assert server.restarted()["reason"] == f"{VIEWS} changed"
        assert len(server.events("restart")) == 1
        assert server.get("/polls/process/").text != first
        # What restarts is told although a template changes with it.
        for number in range(3):
            replace(tmp_path / VIEWS, 'WORD = "', f'WORD = "{number}')
            save(tmp_path / INDEX, f"number {number}")
            while not server.wait("restart")["reason"].startswith(f"{VIEWS} changed"):
                pass  # where it is noticed before the application can be asked, the template restarts, too
            assert server.get("/polls/").text == f"number {number}"


def test_several_workers_have_one_text_and_fresh_templates(tmp_path: Path) -> None:
    with runserver(make(tmp_path), env={"WEB_CONCURRENCY": "2"}) as server:
        server.serving()
        workers = {server.wait("worker_serving")["worker"] for _ in range(2)}
        assert workers == {1, 2}
        server.wait_log("Quit the server with")
        with Clients(server, 3, "/polls/word/"):  # so that neither has all that is asked here
            for number in range(3):
                (tmp_path / INDEX).write_text(f"number {number}")
                assert {server.get("/polls/").text for _ in range(20)} == {f"number {number}"}
        assert not server.events("restart")
        replace(tmp_path / VIEWS, 'WORD = "', 'WORD = "two ')
        assert server.get("/polls/word/").text.startswith("two")
        server.restarted()
        for _ in range(2):
            server.wait("worker_serving")
        assert server.log.count("Quit the server with") <= 2


@pytest.mark.django
def test_a_new_template_is_served_by_the_same_process(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / INDEX).rename(tmp_path / "index.html")
    with runserver(tmp_path) as server:
        server.serving()
        first = server.get("/polls/process/").text
        assert server.get("/polls/").status == 500
        (tmp_path / INDEX).write_text("here")
        assert server.get("/polls/").text == "here"
        assert server.get("/polls/process/").text == first


DECIMAL = "DecimalField(max_digits=1, decimal_places=2)"

BREAKS = [
    (SETTINGS, "DEBUG = True", "DEBUG = = True", "SyntaxError"),
    (SETTINGS, "DEBUG = True", "DEBUG = nonsense", "nonsense"),
    (SETTINGS, "INSTALLED_APPS = [", "INSTALLED_APPS = ['no_such_app',", "no_such_app"),
    (SETTINGS, "'mysite.urls'", "'mysite.no_urls'", "no_urls"),
    ("polls/models.py", "models.Model", "models.Modell", "Modell"),
    ("polls/apps.py", "name = 'polls'", "name = 'polls'\n    def ready(self): 1/0", "ZeroDivisionError"),
    ("mysite/urls.py", "polls.urls", "polls.nothing", "polls.nothing"),
    ("polls/models.py", "IntegerField(default=0)", DECIMAL, "E134"),
    ("manage.py", "def main():", "def main()", "was never closed|expected ':'"),
]
"""A file, what is replaced in it, by what, and what is said then."""


def test_what_is_broken_while_it_serves_is_shown_and_heals(tmp_path: Path) -> None:
    """One after the other: what comes after a mended failure is as good as what came before it."""
    make(tmp_path)
    for name, old, *_ in BREAKS:
        path = tmp_path / name
        if old not in path.read_text():  # Django's templates have one kind of quotes or the other
            path.write_text(path.read_text().replace('"', "'"))
    with runserver(tmp_path) as server:
        server.serving()
        for name, old, new, says in BREAKS:
            path = tmp_path / name
            text = path.read_text()
            begun = len(server.log)
            replace(path, old, new)
            server.failed()
            answer = server.get("/polls/word/", Accept="text/html")
            assert answer.status == 500
            assert re.search(says, html.unescape(answer.text))
            assert re.search(says, server.log[begun:])
            path.write_text(text)
            assert server.answered("/polls/word/").text == "one"
            assert server.process.poll() is None


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (
            SETTINGS,
            "INSTALLED_APPS = [\n    'devserver.django',",
            "INSTALLED_APPS = ['devserver.django', 'no_such_app',",
        ),
        ("polls/models.py", "models.Model", "models.Modell"),
        ("polls/apps.py", "class", "1/0\nclass"),
    ],
)
def test_what_is_broken_from_the_start_heals(tmp_path: Path, name: str, old: str, new: str) -> None:
    make(tmp_path)
    text = (tmp_path / name).read_text()
    replace(tmp_path / name, old, new)
    with runserver(tmp_path) as server:
        server.failed()
        assert server.get("/polls/word/").status == 500
        (tmp_path / name).write_text(text)
        assert server.answered("/polls/word/").text == "one"


def test_without_our_application_there_is_a_restart_all_the_same(tmp_path: Path) -> None:
    """The line is taken out of INSTALLED_APPS while the supervisor lives."""
    with runserver(make(tmp_path)) as server:
        server.serving()
        replace(tmp_path / SETTINGS, f"{polls.OURS!r},", "")
        assert server.get("/polls/word/").text == "one"
        replace(tmp_path / VIEWS, "one", "two")
        assert server.get("/polls/word/").text == "two"
