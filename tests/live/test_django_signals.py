"""Django's reload interface for third parties: `autoreload_started`, `file_changed`, `trigger_reload`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.polls import make, manage, replace, runserver
from tests.live.process import USUAL, DevServer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

RECEIVERS = """

import threading

from django.utils import autoreload

SAW = []

def started(sender, **more):
    print("STARTED", isinstance(sender, autoreload.BaseReloader), sender.extra_files,
          any("polls/templates" in str(path) for path in sender.directory_globs), flush=True)
    sender.watch_dir("data", "**/*.txt")
    sender.extra_files.add("single.cfg")

def changed(sender, file_path, **more):
    print("CHANGED", file_path.name, threading.current_thread() is threading.main_thread(), flush=True)
    return file_path.suffix in (".txt", ".cfg") or file_path.name == "handled.py"

autoreload.autoreload_started.connect(started)
autoreload.file_changed.connect(changed)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with receivers, and files to be watched."""
    make(tmp_path)
    with (tmp_path / "polls/apps.py").open("a") as file:
        file.write(RECEIVERS)
    (tmp_path / "data/deep").mkdir(parents=True)
    (tmp_path / "data/deep/a.txt").write_text("a")
    (tmp_path / "single.cfg").write_text("a")
    (tmp_path / "polls/handled.py").write_text("A = 1\n")
    replace(tmp_path / "polls/views.py", "WORD =", "from . import handled\nWORD =")
    return tmp_path


def said(server: DevServer, text: str, times: int = 1) -> None:
    """Wait until the log has a text so many times."""
    while server.log.count(text) < times:
        server.idle(0.05)
        assert server.process.poll() is None, server.log


@pytest.mark.django
def test_started_is_sent_once_with_a_reloader(site: Path) -> None:
    with runserver(site) as server:
        server.serving()
        said(server, "Quit the server")
        assert server.log.count("STARTED") == 1
        assert "STARTED True set() True" in server.log


@pytest.mark.django
def test_what_is_handled_does_not_restart(site: Path) -> None:
    """Nobody asks meanwhile: it is sent without a request, and once for each change."""
    paths = [site / name for name in ("data/deep/a.txt", "single.cfg", "polls/handled.py")]
    with runserver(site) as server:
        server.serving()
        said(server, "Quit the server")
        for path in paths:
            for number in range(3):
                path.write_text(f"NUMBER = {number}\n")
                said(server, f"CHANGED {path.name}", number + 1)
        assert server.get("/polls/word/").text == "one"
        replace(site / "polls/views.py", "one", "two")
        restart = server.restarted()
        assert restart["reason"] == "polls/views.py changed"
        # What was never read and has been dealt with is no reason to begin from nothing.
        assert restart["kind"] == USUAL, server.log
        assert all(server.log.count(f"CHANGED {path.name}") == 3 for path in paths)
        assert len(server.events("restart")) == 1


def test_a_new_file_of_a_watched_folder(site: Path) -> None:
    with runserver(site) as server:
        server.serving()
        said(server, "Quit the server")
        (site / "data/deep/new.txt").write_text("new")
        said(server, "CHANGED new.txt")
        (site / "data/deep/new.html").write_text("not asked for")
        replace(site / "polls/views.py", "one", "two")
        server.restarted()
        assert "CHANGED new.html" not in server.log
        assert len(server.events("restart")) == 1


@pytest.mark.django
def test_what_is_not_handled_restarts(site: Path) -> None:
    """Modules are sent, too, before the restart; in the first request as well as without one."""
    with runserver(site) as server:
        server.serving()
        said(server, "Quit the server")
        replace(site / "polls/views.py", "one", "two")
        assert server.get("/polls/word/").text == "two"
        assert "CHANGED views.py" in server.log


def test_a_receiver_that_fails_is_reported(site: Path) -> None:
    replace(site / "polls/apps.py", "    return file_path.suffix", "    1/0\n    return file_path.suffix")
    with runserver(site) as server:
        server.serving()
        replace(site / "polls/views.py", "one", "two")
        assert server.get("/polls/word/").text == "two"
        assert "ZeroDivisionError" in server.log


def test_a_receiver_that_hangs_delays_a_restart_and_no_more(site: Path) -> None:
    hang = "    if file_path.name == 'views.py': threading.Event().wait()\n    return file_path.suffix"
    replace(site / "polls/apps.py", "    return file_path.suffix", hang)
    with runserver(site) as server:
        server.serving()
        said(server, "Quit the server")
        replace(site / "polls/views.py", "one", "two")
        server.restarted()
        assert server.get("/polls/word/").text == "two"


@pytest.mark.django
def test_translations_are_fresh(tmp_path: Path) -> None:
    make(tmp_path)
    catalogue = tmp_path / "polls/locale/de/LC_MESSAGES/django.po"
    catalogue.parent.mkdir(parents=True)

    def compile_to(text: str) -> None:
        head = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
        catalogue.write_text(f'{head}msgid "word"\nmsgstr "{text}"\n')
        try:
            manage(tmp_path, "compilemessages", "-v0")
        except subprocess.CalledProcessError:
            pytest.skip("msgfmt is not installed")

    compile_to("eins")
    replace(tmp_path / "polls/views.py", "HttpResponse(WORD)", "HttpResponse(gettext('word'))")
    replace(
        tmp_path / "polls/views.py", "import os", "import os\nfrom django.utils.translation import gettext"
    )
    replace(tmp_path / "mysite/settings.py", "LANGUAGE_CODE = 'en-us'", "LANGUAGE_CODE = 'de'")
    with runserver(tmp_path) as server:
        server.serving()
        process = server.get("/polls/process/").text
        assert server.get("/polls/word/").text == "eins"
        compile_to("zwei")
        assert server.get("/polls/word/").text == "zwei"
        assert server.get("/polls/process/").text == process


@pytest.mark.parametrize("watchman", [pytest.param("", marks=pytest.mark.django), "5"])
def test_trigger_reload_and_other_functions(tmp_path: Path, watchman: str) -> None:
    make(tmp_path)
    view = (
        "def word(request):\n"
        "    from django.utils import autoreload\n"
        "    if request.GET:\n"
        "        autoreload.trigger_reload('by hand')\n"
        "    return HttpResponse(autoreload.is_django_module(os) is False and WORD)\n"
    )
    replace(tmp_path / "polls/views.py", "def word(request):\n    return HttpResponse(WORD)\n", view)
    with runserver(tmp_path, env={"DJANGO_WATCHMAN_TIMEOUT": watchman} if watchman else None) as server:
        server.serving()
        assert server.get("/polls/word/").text == "one"
        first = server.child
        assert server.get("/polls/word/?now=1").status == 200
        assert server.restarted()["reason"] == "by hand changed"
        assert server.child != first


@pytest.mark.django
def test_live_server_test_case_is_unaffected(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "polls/tests.py").write_text(
        "import urllib.request\n"
        "from django.contrib.staticfiles.testing import StaticLiveServerTestCase\n"
        "class Test(StaticLiveServerTestCase):\n"
        "    def test(self):\n"
        "        with urllib.request.urlopen(self.live_server_url + '/polls/word/') as answer:\n"
        "            assert answer.read() == b'one'\n"
        "            assert 'WSGIServer' in answer.headers['server']\n"
    )
    done = subprocess.run(
        [sys.executable, "manage.py", "test"], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stderr
