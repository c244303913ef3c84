"""devserver behind a real nginx, with the configuration of docs/proxies.md."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.live.nginx import CLIENT, NAME, Nginx, needs_nginx
from tests.live.polls import make, replace, runserver
from tests.live.process import Answer, DevServer, save, tell
from tests.patience import DEADLINE

pytestmark = [pytest.mark.live, needs_nginx]

ASGI = """
import hashlib

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": f"{scope['scheme']} {scope['client'][0]}"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    assert scope["type"] == "http"
    host, root = dict(scope["headers"])[b"host"].decode(), scope["root_path"]
    path, status, more, text = scope["path"].removeprefix(root), 200, [], ""
    if path == "/old":
        status, more = 302, [(b"location", f"{scope['scheme']}://{host}{root}/new".encode())]
    elif path == "/file":
        more = [(b"x-accel-redirect", b"/files/report.txt")]
    elif path == "/upload":
        text = await upload(scope["query_string"].decode(), receive)
    elif path == "/events":
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: first\\n\\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        print("nobody listens", flush=True)
        return
    else:
        text = f"{scope['client'][0]} {root} {path}"
    await send({"type": "http.response.start", "status": status, "headers": more})
    await send({"type": "http.response.body", "body": text.encode()})

async def upload(name, receive):
    whole, size, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        if not size:
            print(f"upload {name} has begun", flush=True)
        whole.update(message["body"])
        size, more = size + len(message["body"]), message["more_body"]
    return f"{size} {whole.hexdigest()}"
"""

WSGI = """
import hashlib
from wsgiref.util import application_uri

def app(environ, start_response):
    path, status, more, text = environ["PATH_INFO"], "200 OK", [], ""
    if path == "/old":
        status, more = "302 Found", [("Location", application_uri(environ).rstrip("/") + "/new")]
    elif path == "/file":
        more = [("X-Accel-Redirect", "/files/report.txt")]
    elif path == "/upload":
        whole, size = hashlib.sha256(), 0
        while block := environ["wsgi.input"].read(65536):
            if not size:
                print(f"upload {environ['QUERY_STRING']} has begun", flush=True)
            whole.update(block)
            size += len(block)
        text = f"{size} {whole.hexdigest()}"
    else:
        text = f"{environ['REMOTE_ADDR']} {environ['SCRIPT_NAME']} {path}"
    start_response(status, more)
    return [text.encode()]
"""

HAS_ALL = ("asgi-tcp", "asgi-unix")


@dataclass
class Site:
    """A server, and nginx in front of it."""

    kind: str
    server: DevServer
    nginx: Nginx
    folder: Path

    @property
    def upstream(self) -> str:
        """What nginx calls the server."""
        server = self.server
        return f"unix:{server.path}" if server.path else f"{server.host}:{server.port}"

    def ask(self, method: str, path: str, **headers: str) -> Answer:
        """One request through nginx."""
        with through(self.nginx) as connection:
            connection.request(method, path, headers=headers)
            return Answer(connection.getresponse())


@contextlib.contextmanager
def through(nginx: Nginx) -> Iterator[http.client.HTTPConnection]:
    """A connection to nginx."""
    with contextlib.closing(http.client.HTTPConnection(NAME, timeout=DEADLINE)) as connection:
        connection.sock = nginx.connect()
        yield connection


@pytest.fixture(scope="module", params=[*HAS_ALL, "wsgi-unix"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp(request.param)
    interface, _, place = request.param.partition("-")
    (folder / "app.py").write_text(ASGI if interface == "asgi" else WSGI)
    arguments = ["--uds", str(folder / "s")] if place == "unix" else []
    with DevServer("app:app", "--reload", *arguments, cwd=folder) as server:
        server.serving()
        upstream = f"unix:{server.path}" if server.path else f"{server.host}:{server.port}"
        with Nginx(folder, upstream) as nginx:
            yield Site(request.param, server, nginx, folder)


CLAIMED = {
    "X-Forwarded-For": "8.8.8.8",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "//evil.example",
    "Forwarded": "for=8.8.8.8;host=evil.example",
}
"""What a client may say. nginx replaces it, and appends the client's address to the first."""


@pytest.mark.parametrize("headers", [{}, CLAIMED], ids=["plain", "claimed"])
def test_the_client_and_the_path(site: Site, headers: dict[str, str]) -> None:
    assert site.ask("GET", "/a", **headers).text == f"{CLIENT}  /a"
    assert site.ask("GET", "/beta/a", **headers).text == f"{CLIENT} /beta /a"
    site.server.wait_log(f'{CLIENT} "GET /a HTTP/1.1" 200')


@pytest.mark.parametrize("headers", [{}, CLAIMED], ids=["plain", "claimed"])
def test_redirects_are_to_https(site: Site, headers: dict[str, str]) -> None:
    for path, target in (("/old", "/new"), ("/beta/old", "/beta/new")):
        answer = site.ask("GET", path, **headers, Host=f"{NAME}:8443")
        assert (answer.status, answer.headers["location"]) == (302, f"https://{NAME}:8443{target}")
        assert site.ask("GET", path, **headers).headers["location"] == f"https://{NAME}{target}"


def test_a_file_that_nginx_sends(site: Site) -> None:
    (site.nginx.files / "report.txt").write_text("the report")
    answer = site.ask("GET", "/file")
    assert (answer.status, answer.text) == (200, "the report")
    assert "x-accel-redirect" not in answer.headers
    assert site.ask("GET", "/files/report.txt").status == 404  # for nobody but the application


def test_a_websocket(site: Site) -> None:
    if site.kind not in HAS_ALL:
        return
    with connect(f"wss://{NAME}/live", sock=site.nginx.dial(), ssl=site.nginx.context) as opened:
        assert opened.recv(DEADLINE) == f"wss {CLIENT}"
        for text in ("one", "x" * 100_000):
            opened.send(text)
            assert opened.recv(DEADLINE) == text


def test_server_sent_events(site: Site) -> None:
    if site.kind not in HAS_ALL:
        return
    with site.nginx.connect() as sock:
        sock.sendall(f"GET /events HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        text = b""
        while b"data: first\n\n" not in text:
            data = sock.recv(65536)
            assert data, text
            text += data
    site.server.wait_log("nobody listens")


BLOCK = bytes(range(250)) * 4000
COUNT = 200
"""Blocks of 1 MB in an upload."""


def digest(blocks: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for block in blocks:
        whole.update(block)
    return whole.hexdigest()


UPLOADED = f"{COUNT * len(BLOCK)} {digest(BLOCK for _ in range(COUNT))}"


@pytest.mark.parametrize("buffered", [True, False])
def test_an_upload(site: Site, buffered: bool, tmp_path: Path) -> None:
    """200 MB. Without buffering the application has begun when half of it has been sent."""
    if site.kind == "asgi-unix":
        return  # each interface and each kind of socket once
    off = {} if buffered else {"proxy_request_buffering on;": "proxy_request_buffering off;"}
    with Nginx(tmp_path, site.upstream, off) as nginx, through(nginx) as connection:
        connection.putrequest("POST", f"/upload?{buffered}")
        connection.putheader("Content-Length", str(COUNT * len(BLOCK)))
        connection.endheaders()
        for number in range(COUNT):
            if number == COUNT // 2 and not buffered:
                site.server.wait_log("upload False has begun")
            connection.send(BLOCK)
        assert Answer(connection.getresponse()).text == UPLOADED
        assert not nginx.faults


SAVED = """
VERSION = {}

async def app(scope, receive, send):
    assert scope["type"] == "http"
    while (await receive())["more_body"]:
        pass
    text = f"{{VERSION}} {{(scope['client'] or [0, 0])[1]}}"
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": text.encode()}})
"""

CLIENTS, SAVES = 8, 20


@dataclass
class Asking:
    """Clients of nginx that never pause, each on a connection of its own that is kept.

    Attributes:
        version: the newest that was saved.
        answers: the number of those that came.
        ports: of nginx's connections to the server.
        mistakes: what must not happen, by name.
    """

    nginx: Nginx
    version: int = 0
    answers: int = 0
    is_over: bool = False
    ports: set[str] = field(default_factory=set)
    mistakes: Counter[str] = field(default_factory=Counter)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def client(self, number: int) -> None:
        """Ask until it is over; odd ones send something, which nobody sends a second time."""
        method, body = ("POST", b"x" * 5000) if number % 2 else ("GET", None)
        try:
            with through(self.nginx) as connection:
                while not self.is_over:
                    before = self.version
                    connection.request(method, "/", body)
                    self.note(Answer(connection.getresponse()), before)
        except (OSError, http.client.HTTPException) as error:
            self.note(None, 0, repr(error))

    def note(self, answer: Answer | None, before: int, mistake: str = "") -> None:
        """Count an answer to what was asked when a version had been saved."""
        with self.changed:
            if answer is not None and answer.status == 200:
                version, port = answer.text.split()
                self.ports.add(port)
                mistake = "" if int(version) >= before else "an answer of the old code"
            elif answer is not None:
                mistake = f"status {answer.status}"
            self.mistakes.update([mistake] if mistake else [])
            self.answers += 1
            self.changed.notify_all()

    def wait(self, count: int) -> None:
        """Wait until so many more answers have come."""
        with self.changed:
            goal = self.answers + count
            assert self.changed.wait_for(lambda: self.answers >= goal or self.mistakes, DEADLINE)


@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_saves_cost_no_request(place: str, tmp_path: Path) -> None:
    """nginx's own connections to the server live on, from one generation to the next."""
    app = tmp_path / "app.py"
    save(app, SAVED.format(0))
    arguments = ["--uds", str(tmp_path / "s")] if place == "unix" else []
    quiet = ["--reload", "--no-access-log", "--no-proxy-headers", *arguments]
    with DevServer("app:app", *quiet, cwd=tmp_path) as server:
        server.serving()
        upstream = f"unix:{server.path}" if server.path else f"{server.host}:{server.port}"
        with Nginx(tmp_path, upstream) as nginx:
            asking = Asking(nginx)
            clients = [threading.Thread(target=asking.client, args=(number,)) for number in range(CLIENTS)]
            for client in clients:
                client.start()
            try:
                for version in range(1, SAVES + 1):
                    asking.wait(CLIENTS)
                    save(app, SAVED.format(version))
                    asking.version = version
                    server.restarted()
                asking.wait(5 * CLIENTS)
            finally:
                asking.is_over = True
                for client in clients:
                    client.join(DEADLINE)
            kept = f"; {len(asking.ports)} connections of nginx" if place == "tcp" else ""
            tell(f"{place}: {asking.answers} answers over {SAVES} saves{kept}")
            assert not asking.mistakes
            assert not nginx.faults
            assert len(asking.ports) <= CLIENTS


WHERE = """
def where(request):
    secure, uri, link = request.is_secure(), request.build_absolute_uri(), reverse("polls:word")
    return HttpResponse(f"{secure} {uri} {request.META['REMOTE_ADDR']} {link}")
"""


@pytest.mark.django
@pytest.mark.parametrize("interface", [[], ["--asgi"]], ids=["wsgi", "asgi"])
def test_django(interface: list[str], tmp_path: Path) -> None:
    """Nothing but ALLOWED_HOSTS is set for it."""
    folder = make(tmp_path)
    views, settings = folder / "polls/views.py", folder / "mysite/settings.py"
    views.write_text(views.read_text() + WHERE)
    replace(folder / "polls/urls.py", "urlpatterns = [", "urlpatterns = [path('where/', views.where), ")
    settings.write_text(f"{settings.read_text()}\nALLOWED_HOSTS = [{NAME!r}]\n")
    if interface:
        settings.write_text(f"{settings.read_text()}\nASGI_APPLICATION = 'mysite.asgi.application'\n")
    with runserver(folder, *interface) as server:
        server.serving()
        with Nginx(tmp_path, f"{server.host}:{server.port}") as nginx:
            for prefix in ("", "/beta"):
                with through(nginx) as connection:
                    connection.request("GET", f"{prefix}/polls/where/?a=1")
                    secure, uri, client, link = Answer(connection.getresponse()).text.split()
                assert (secure, client) == ("True", CLIENT)
                assert uri == f"https://{NAME}{prefix}/polls/where/?a=1"
                assert link.startswith(f"{prefix}/polls/")
