"""What is served, held against Django's own server: the same answers, connections closed in time."""

from __future__ import annotations

import http.client
import re
from pathlib import Path
from typing import Any

import pytest

from tests.live.polls import Stock, make, make_stock, replace, runserver
from tests.live.process import Answer, DevServer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

SETTINGS, VIEWS = "mysite/settings.py", "polls/views.py"

PROBES = """
import threading

from django.core.signals import request_finished
from django.db import connection
from django.http import StreamingHttpResponse

FINISHED = []
request_finished.connect(lambda **more: FINISHED.append(threading.get_ident()), weak=False)

def database(request):
    "Which thread this is, and whether its connection was open before."
    was = connection.connection is not None
    Question.objects.count()
    return HttpResponse(f"{threading.get_ident()} {was}")

def finished(request):
    return HttpResponse(" ".join(map(str, FINISHED)))

def script(request):
    return HttpResponse(f"{reverse('polls:word')} {request.path} {request.META.get('SCRIPT_NAME')}")

def stream(request):
    def parts():
        for _ in range(3):
            Question.objects.count()
            yield "part "
    return StreamingHttpResponse(parts())

def echo(request):
    words = request.method, len(request.body), request.GET.urlencode(), request.headers.get("X-A")
    return HttpResponse(str(words))

def meta(request):
    names = ["REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SERVER_PORT", "SERVER_PROTOCOL", "REMOTE_ADDR",
             "CONTENT_TYPE", "HTTP_HOST", "HTTP_X_A_B", "HTTP_COOKIE", "wsgi.url_scheme"]
    return HttpResponse("\\n".join(f"{name}={request.META.get(name)!r}" for name in names))
"""

ROUTES = "".join(
    f'path("{name}/", views.{name}), '
    for name in ("database", "finished", "script", "stream", "echo", "meta")
)
ASGI = "ASGI_APPLICATION = 'mysite.asgi.application'"


def probed(folder: Path, *settings: str) -> Path:
    """Add the probes to a site, and lines to its settings."""
    path = folder / VIEWS
    path.write_text(path.read_text() + PROBES)
    replace(folder / "polls/urls.py", "urlpatterns = [", f"urlpatterns = [{ROUTES}")
    with (folder / SETTINGS).open("a") as file:
        file.write("\n" + "\n".join(settings) + "\n")
    return folder


def numbers(server: DevServer, path: str) -> list[str]:
    return server.get(path).text.split()


@pytest.mark.parametrize("asgi", [True, False])
@pytest.mark.django
def test_requests_are_served_as_django_serves_them(tmp_path: Path, asgi: bool) -> None:
    """Signals and connections are of the request's thread, the script has its name, DEBUG is off."""
    settings = ["DEBUG = False", "ALLOWED_HOSTS = ['*']", "FORCE_SCRIPT_NAME = '/below'"]
    with runserver(probed(make(tmp_path), *settings, *([ASGI] if asgi else [])), "--asgi") as server:
        server.serving()
        if not asgi:
            check_finished(server)
        for _ in range(4):
            _, was_open = numbers(server, "/polls/database/")
            assert was_open == "False"
        assert numbers(server, "/polls/script/")[0] == "/below/polls/word/"
        assert server.get("/polls/stream/").text == "part part part "
        assert server.get("/static/polls/style.css").status == 404
        if asgi:  # the first text is that of Django 5.2 and later
            server.wait_log("Quit the server")
            assert re.search("Starting (ASGI )?development server", server.log)
            assert "WSGI is served" not in server.log
        else:
            server.wait_log("WSGI is served: for --asgi, set ASGI_APPLICATION in the settings.")


def check_finished(server: DevServer) -> None:
    """`request_finished` comes once for each request, in its thread."""
    thread, _ = numbers(server, "/polls/database/")
    assert server.get("/polls/stream/").text == "part part part "
    asked = 0
    # A request is finished a moment after its answer has come; each of these is one more.
    while len(finished := numbers(server, "/polls/finished/")) < 2 + asked:
        asked += 1
    assert len(finished) == 2 + asked
    assert thread in finished[:2]  # the two may overtake each other


@pytest.mark.django
def test_one_thread(tmp_path: Path) -> None:
    with runserver(probed(make(tmp_path)), "--nothreading", "0") as server:
        server.serving()
        assert len({numbers(server, "/polls/database/")[0] for _ in range(5)}) == 1
        assert server.get("/polls/stream/").text == "part part part "


@pytest.mark.parametrize("asgi", [True, False])
@pytest.mark.django
def test_static_files_without_debug_by_an_option(tmp_path: Path, asgi: bool) -> None:
    settings = ["DEBUG = False", "ALLOWED_HOSTS = ['*']", *([ASGI] if asgi else [])]
    with runserver(probed(make(tmp_path), *settings), "--asgi", "--insecure", "0") as server:
        server.serving()
        assert server.get("/static/polls/style.css").status == 200


@pytest.mark.django
def test_without_staticfiles(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / SETTINGS
    path.write_text(re.sub(r".*django.contrib.staticfiles.*\n", "", path.read_text()))
    (tmp_path / "polls/templates/polls/index.html").write_text("plain")
    with runserver(tmp_path) as server:
        server.serving()
        assert server.get("/polls/").text == "plain"
        assert server.get("/static/polls/style.css").status == 404


REQUESTS: list[tuple[str, str, bytes | None, dict[str, str]]] = [
    ("GET", "/polls/", None, {}),
    ("GET", "/polls/word", None, {}),
    ("HEAD", "/polls/word/", None, {}),
    ("GET", "/polls/word/?a=1&b=%20", None, {}),
    ("GET", "/no/such/page/", None, {}),
    ("GET", "/static/polls/style.css", None, {}),
    ("GET", "/static/no/such.css", None, {}),
    ("GET", "/static/../mysite/settings.py", None, {}),
    ("POST", "/polls/1/vote/", b"choice=1", {"Content-Type": "application/x-www-form-urlencoded"}),
    ("GET", "/admin/", None, {}),
    ("GET", "/polls/echo/?q=%C3%A4", None, {"X-A": "b"}),
    ("GET", "/polls/stream/", None, {}),
    ("GET", "/polls/word/", None, {"Host": "not.allowed.example"}),
    ("GET", "/polls/meta/?a=b", None, {"X-A-B": "c", "Cookie": "d=e", "Content-Type": "text/x"}),
]


def outcome(port: int, request: tuple[str, str, bytes | None, dict[str, str]]) -> tuple[Any, ...]:
    """An answer without what differs from server to server, and from one request to the next."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request(*request)
        answer = Answer(connection.getresponse())
    finally:
        connection.close()
    apart = {"server", "date", "connection", "transfer-encoding", "content-length"}
    headers = {name: value for name, value in answer.headers.items() if name not in apart}
    if answer.status == 500:
        return 500, {}, ""  # what Django's handlers let through is our page: a difference that is meant
    text = answer.text if len(answer.text) < 3000 else ""  # debug pages name objects by their address
    return answer.status, headers, re.sub(r'value="\w{64}"|:\d{4,5}|SERVER_PORT=.*', "", text)


@pytest.mark.django
def test_answers_are_those_of_django(tmp_path: Path) -> None:
    ours, theirs = probed(make(tmp_path / "ours")), probed(make_stock(tmp_path / "stock"))
    with runserver(ours) as server, Stock(theirs, "0") as stock:
        server.serving()
        printed = stock.until("development server at")
        port = int(re.findall(r"127\.0\.0\.1:(\d+)/", printed)[-1])
        for request in REQUESTS:
            got, wanted = outcome(server.port, request), outcome(port, request)
            for answer in (got, wanted):
                answer[1].pop("last-modified", None)  # each site has files of its own
                answer[1].pop("expires", None)  # now, to the second
            assert got == wanted, request


def test_a_database_that_is_not_up_heals_by_itself(tmp_path: Path) -> None:
    """No save can mend it: a request tries again."""
    make(tmp_path)
    replace(tmp_path / SETTINGS, "'db.sqlite3'", "'data' / 'db.sqlite3'")
    with runserver(tmp_path) as server:
        server.failed()
        assert "unable to open database file" in server.get("/", Accept="text/html").text
        (tmp_path / "data").mkdir()
        (tmp_path / "db.sqlite3").rename(tmp_path / "data/db.sqlite3")
        while server.get("/polls/").status != 200:
            server.idle(0.3)


def test_a_root_urlconf_that_goes_and_comes(tmp_path: Path) -> None:
    with runserver(make(tmp_path)) as server:
        server.serving()
        (tmp_path / "mysite/urls.py").rename(tmp_path / "away")
        server.failed()
        assert "mysite.urls" in server.get("/polls/word/", Accept="text/html").text
        (tmp_path / "away").rename(tmp_path / "mysite/urls.py")
        assert server.answered("/polls/word/").text == "one"


def test_logging_that_disables_other_loggers(tmp_path: Path) -> None:
    """Django's documentation warns of it; the access log and tracebacks stay."""
    make(tmp_path)
    with (tmp_path / SETTINGS).open("a") as file:
        file.write("\nLOGGING = {'version': 1, 'disable_existing_loggers': True}\n")
    with runserver(tmp_path) as server:
        server.serving()
        assert server.get("/polls/word/?seen").text == "one"
        server.wait_log("/polls/word/?seen")


def test_a_refusal_of_the_command_is_shown(tmp_path: Path) -> None:
    make(tmp_path)
    replace(tmp_path / SETTINGS, "DEBUG = True", "DEBUG = False")
    with runserver(tmp_path) as server:
        server.failed()
        assert "You must set settings.ALLOWED_HOSTS" in server.get("/", Accept="text/html").text
        replace(tmp_path / SETTINGS, "ALLOWED_HOSTS = []", "ALLOWED_HOSTS = ['*']")
        assert server.answered("/polls/word/").text == "one"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ["WSGI is served, as Django does it; --asgi serves ASGI_APPLICATION."]),
        (["--noasgi"], ["Starting WSGI development server", "Starting development server"]),
    ],
)
@pytest.mark.django
def test_it_says_what_is_served_where_a_template_has_set_asgi(
    tmp_path: Path, arguments: list[str], told: list[str]
) -> None:
    with runserver(probed(make(tmp_path), ASGI), *arguments) as server:
        server.serving()
        assert server.get("/polls/stream/").text == "part part part "
        server.wait_log("Quit the server")
        while not any(text in server.log for text in told):
            server.idle(0.05)
        assert ("WSGI is served" in server.log) is (not arguments)


SERVER_LOGGING = """
import logging

class Noticed(logging.Filter):
    def filter(self, record):
        return record.args[1] != "404"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"noticed": {"()": Noticed}},
    "formatters": {"own": {"format": "own %(levelname)s %(status_code)s [%(server_time)s] %(message)s"}},
    "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own", "filters": ["noticed"]}},
    "loggers": {"django.server": {"handlers": ["own"], "level": "INFO", "propagate": False}},
}
"""


@pytest.mark.parametrize("arguments", [[], ["--noreload"]], ids=["reload", "alone"])
@pytest.mark.django
def test_access_lines_go_where_the_project_sends_them(tmp_path: Path, arguments: list[str]) -> None:
    with runserver(probed(make(tmp_path), SERVER_LOGGING), *arguments) as server:
        server.serving()
        server.get("/polls/word/")
        server.get("/nothing/")
        server.get("/polls/word/?last")
        server.wait_log("?last")
        lines = [line for line in server.log.splitlines() if line.startswith("own ")]
        assert len(lines) == 2
        assert re.match(r'own INFO 200 \[[^]]+\] "GET /polls/word/ HTTP/1.1" 200 ', lines[0])
        assert "127.0.0.1:" not in server.log.split("Quit the server")[1]


def test_what_django_says_comes_before_the_first_access_line(tmp_path: Path) -> None:
    slow = (
        "import threading\nfrom django.core.checks import register\nASKED = threading.Event()\n"
        "def word(request):\n    ASKED.set()\n    return HttpResponse(WORD)\n"
        f"@register\ndef check(app_configs, **more):\n    assert ASKED.wait({DEADLINE})\n    return []\n"
    )
    make(tmp_path)
    path = tmp_path / VIEWS
    path.write_text(path.read_text() + slow)
    with runserver(tmp_path) as server:
        server.serving()
        assert server.get("/polls/word/").text == "one"
        server.wait_log("GET /polls/word/")
        assert server.log.index("Quit the server") < server.log.index("GET /polls/word/")
