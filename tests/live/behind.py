"""What stands behind a real nginx in tests, and who asks through it: the same for HTTP and for uwsgi."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.live.nginx import CLIENT, NAME, Nginx
from tests.live.polls import make, replace
from tests.live.process import Answer, DevServer, save
from tests.patience import DEADLINE

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
    elif path == "/same":
        status, more = 304, [(b"etag", b'"1"')]
    elif path == "/told":
        told = scope["extensions"].get("uwsgi", {})
        text = repr({name: told[name] for name in ("REMOTE_USER", "CUSTOM", "HTTPS") if name in told})
    elif path == "/half":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("in the middle")
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
    elif path == "/same":
        status, more = "304 Not Modified", [("ETag", '"1"')]
    elif path == "/told":
        text = repr({name: environ[name] for name in ("REMOTE_USER", "CUSTOM", "HTTPS") if name in environ})
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


@contextlib.contextmanager
def through(nginx: Nginx) -> Iterator[http.client.HTTPConnection]:
    """A connection to nginx."""
    with contextlib.closing(http.client.HTTPConnection(NAME, timeout=DEADLINE)) as connection:
        connection.sock = nginx.connect()
        yield connection


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


BLOCK = bytes(range(250)) * 4000
COUNT = 200
"""Blocks of 1 MB in an upload."""


def digest(blocks: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for block in blocks:
        whole.update(block)
    return whole.hexdigest()


def uploaded(count: int = COUNT) -> str:
    """What an application says of so many blocks."""
    return f"{count * len(BLOCK)} {digest(BLOCK for _ in range(count))}"


def upload(nginx: Nginx, path: str, count: int = COUNT, half: Callable[[], None] = lambda: None) -> str:
    """Send blocks, and return the answer. Args: half: called in the middle."""
    with through(nginx) as connection:
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(count * len(BLOCK)))
        connection.endheaders()
        for number in range(count):
            if number == count // 2:
                half()
            connection.send(BLOCK)
        return Answer(connection.getresponse()).text


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

    def over_saves(self, app: Path, server: DevServer) -> None:
        """Save again and again while clients ask; no request may be lost, or answered by old code."""
        clients = [threading.Thread(target=self.client, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            for version in range(1, SAVES + 1):
                self.wait(CLIENTS)
                save(app, SAVED.format(version))
                self.version = version
                server.restarted()
            self.wait(5 * CLIENTS)
        finally:
            self.is_over = True
            for client in clients:
                client.join(DEADLINE)
        assert not self.mistakes


WHERE = """
def where(request):
    secure, uri, link = request.is_secure(), request.build_absolute_uri(), reverse("polls:word")
    return HttpResponse(f"{secure} {uri} {request.META['REMOTE_ADDR']} {link}")
"""


def project(folder: Path) -> Path:
    """A project of Django with a view that says where it is. Nothing but ALLOWED_HOSTS is set for a proxy."""
    made = make(folder)
    views, settings = made / "polls/views.py", made / "mysite/settings.py"
    views.write_text(views.read_text() + WHERE)
    replace(made / "polls/urls.py", "urlpatterns = [", "urlpatterns = [path('where/', views.where), ")
    more = f"ALLOWED_HOSTS = [{NAME!r}]\nASGI_APPLICATION = 'mysite.asgi.application'\n"
    settings.write_text(f"{settings.read_text()}\n{more}")
    return made


def check_project(nginx: Nginx) -> None:
    """Its view says what the client asked."""
    for prefix in ("", "/beta"):
        with through(nginx) as connection:
            connection.request("GET", f"{prefix}/polls/where/?a=1")
            secure, uri, client, link = Answer(connection.getresponse()).text.split()
        assert (secure, client) == ("True", CLIENT)
        assert uri == f"https://{NAME}{prefix}/polls/where/?a=1"
        assert link.startswith(f"{prefix}/polls/")
