"""The sample applications, each in process: what they promise without any server of ours.

Served and restarted they are in tests/live.
"""

import asyncio
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Self
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest

from tests.patience import DEADLINE

SAMPLES = Path(__file__).parent.parent / "sample_apps"

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Import a sample by its path, afresh for each test and under a name that is in nobody's way."""

    def load(path: str) -> ModuleType:
        name = "sample_" + path.removesuffix(".py").replace("/", "_")
        spec = importlib.util.spec_from_file_location(name, SAMPLES / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)  # Flask looks there for its templates' folder
        spec.loader.exec_module(module)
        return module

    return load


class Conversation:
    """One call of an ASGI application, held message by message. Leaving it awaits the application."""

    def __init__(self, app: Any, **scope: Any) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.broken = False  # True: sending raises, as on a connection that was lost
        scope = {"asgi": {"version": "3.0"}, "headers": [], "query_string": b"", "root_path": ""} | scope
        self.call = app(scope, self.inbox.get, self.send)

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.call)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.task.cancel()
            return
        await asyncio.wait_for(self.task, DEADLINE)

    async def send(self, message: dict[str, Any]) -> None:
        if self.broken:
            raise OSError("connection lost")
        self.outbox.put_nowait(message)

    def say(self, kind: str, **message: Any) -> None:
        self.inbox.put_nowait({"type": kind} | message)

    async def hear(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.outbox.get(), DEADLINE)


def socket(app: Any, path: str, query: bytes = b"") -> Conversation:
    talk = Conversation(app, type="websocket", path=path, query_string=query, subprotocols=[])
    talk.say("websocket.connect")
    return talk


def ask(app: Any, method: str, path: str, **request: Any) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **request)

    return asyncio.run(main())


# --- wsgi_app.py


class Answer:
    """What a WSGI application answered; wsgiref.validate watches both sides."""

    def __init__(self, app: Any, method: str, path: str, query: str = "", **environ: Any) -> None:
        environ |= {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "SCRIPT_NAME": ""}
        setup_testing_defaults(environ)
        self.status = ""
        self.headers: dict[str, str] = {}
        self.body: Any = validator(app)(environ, self.start)
        self.blocks = iter(self.body)

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], None]:
        self.status, self.headers = status, dict(headers)
        return lambda data: None

    def read(self) -> bytes:
        data = b"".join(self.blocks)
        self.body.close()
        return data


def posted(body: bytes, **environ: Any) -> dict[str, Any]:
    return {"wsgi.input": io.BytesIO(body)} | environ


def test_wsgi_form_echoes_what_was_posted(load: Load) -> None:
    app = load("wsgi_app.py").application
    assert b"<form" in Answer(app, "GET", "/").read()
    body = "text=<b>ä&empty=".encode()
    answer = Answer(app, "POST", "/", **posted(body + b"&next=request", CONTENT_LENGTH=str(len(body))))
    page = answer.read()
    assert answer.status == "200 OK"
    assert answer.headers["Content-Length"] == str(len(page))
    assert "<dl><dt>text</dt><dd>&lt;b&gt;ä</dd><dt>empty</dt><dd></dd></dl>" in page.decode()


def test_wsgi_body_without_a_length_is_read_only_where_it_has_an_end(load: Load) -> None:
    app = load("wsgi_app.py").application
    chunked = posted(b"text=chunked", **{"wsgi.input_terminated": True})
    assert b"<dd>chunked</dd>" in Answer(app, "POST", "/", **chunked).read()
    endless = posted(b"text=another+request")
    assert b"Nothing was posted" in Answer(app, "POST", "/", **endless).read()


def test_wsgi_count_comes_line_by_line_and_is_closed_early(
    load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    app = load("wsgi_app.py").application
    assert Answer(app, "GET", "/count", "to=3&pause=0").read() == b"1\n2\n3\n"
    capsys.readouterr()
    answer = Answer(app, "GET", "/count", "to=1000000&pause=0")
    assert next(answer.blocks) == b"1\n"
    answer.body.close()
    assert capsys.readouterr().out == "count: closed\n"


@pytest.mark.parametrize(
    ("method", "path", "query", "status"),
    [
        ("HEAD", "/", "", "200 OK"),
        ("GET", "/count", "to=many", "400 Bad Request"),
        ("GET", "/nowhere", "", "404 Not Found"),
        ("PUT", "/", "", "405 Method Not Allowed"),
    ],
)
def test_wsgi_status(load: Load, method: str, path: str, query: str, status: str) -> None:
    answer = Answer(load("wsgi_app.py").application, method, path, query)
    answer.read()
    assert answer.status == status


# --- asgi_app.py


def test_asgi_page_names_its_endpoints(load: Load) -> None:
    app = load("asgi_app.py").application
    page = ask(app, "GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 'new EventSource("events")' in page.text
    assert 'new URL("ws"' in page.text
    assert ask(app, "GET", "/nowhere").status_code == 404


def test_asgi_answers_under_a_prefix(load: Load) -> None:
    async def main() -> None:
        talk = Conversation(load("asgi_app.py").application, type="http", path="/api/", root_path="/api")
        async with talk:
            assert (await talk.hear())["status"] == 200

    asyncio.run(main())


def test_asgi_body_is_echoed_while_it_arrives(load: Load) -> None:
    async def main() -> None:
        async with Conversation(load("asgi_app.py").application, type="http", path="/echo") as talk:
            assert (await talk.hear())["status"] == 200
            talk.say("http.request", body=b"first", more_body=True)
            assert (await talk.hear()) == {"type": "http.response.body", "body": b"first", "more_body": True}
            talk.say("http.request", body=b"last", more_body=False)
            assert (await talk.hear()) == {"type": "http.response.body", "body": b"last", "more_body": False}

    asyncio.run(main())


def test_asgi_echo_ends_with_its_client(load: Load) -> None:
    async def main() -> None:
        async with Conversation(load("asgi_app.py").application, type="http", path="/echo") as talk:
            await talk.hear()
            talk.say("http.disconnect")

    asyncio.run(main())


def test_asgi_events_tick_until_the_client_goes(load: Load) -> None:
    async def main() -> None:
        module = load("asgi_app.py")
        vars(module)["TICK"] = 0.0
        state: dict[str, Any] = {}
        async with Conversation(module.application, type="lifespan", state=state) as life:
            life.say("lifespan.startup")
            assert (await life.hear())["type"] == "lifespan.startup.complete"
            for listener in (1, 2):
                scope = {"type": "http", "path": "/events", "state": state.copy()}
                async with Conversation(module.application, **scope) as talk:
                    talk.say("http.request", body=b"", more_body=False)
                    assert (b"content-type", b"text/event-stream") in (await talk.hear())["headers"]
                    for tick in range(3):
                        data = f"data: tick {tick} for listener {listener}\n\n".encode()
                        assert (await talk.hear())["body"] == data
                    talk.say("http.disconnect")
            life.say("lifespan.shutdown")
            assert (await life.hear())["type"] == "lifespan.shutdown.complete"

    asyncio.run(main())


def test_asgi_websocket_echoes_text_as_text_and_bytes_as_bytes(load: Load) -> None:
    async def main() -> None:
        async with socket(load("asgi_app.py").application, "/ws") as talk:
            assert (await talk.hear())["type"] == "websocket.accept"
            talk.say("websocket.receive", text="")
            assert await talk.hear() == {"type": "websocket.send", "text": ""}
            talk.say("websocket.receive", bytes=b"\0", text=None)
            assert await talk.hear() == {"type": "websocket.send", "bytes": b"\0"}
            talk.say("websocket.disconnect", code=1000)

    asyncio.run(main())


def test_asgi_websocket_elsewhere_is_refused(load: Load) -> None:
    async def main() -> None:
        async with socket(load("asgi_app.py").application, "/nowhere") as talk:
            assert (await talk.hear())["type"] == "websocket.close"

    asyncio.run(main())


# --- flask_site


def test_flask_tasks_are_added_ticked_off_and_kept_in_order(load: Load) -> None:
    client = load("flask_site/app.py").app.test_client()
    assert "Nothing." in client.get("/").text
    assert client.post("/", data={"text": "milk"}).status_code == 303
    page = client.post("/", data={"text": "<eggs>"}, follow_redirects=True).text
    assert page.index("milk") < page.index("&lt;eggs&gt;")
    page = client.post("/1/toggle", follow_redirects=True).text
    assert page.index("☐") < page.index('class="done"') < page.index("☑")
    assert "☑" not in client.post("/1/toggle", follow_redirects=True).text


def test_flask_refuses_what_it_cannot_use(load: Load) -> None:
    client = load("flask_site/app.py").app.test_client()
    assert client.post("/", data={"text": "  "}).status_code == 400
    assert client.post("/7/toggle").status_code == 404


def test_flask_style_sheet_is_where_the_page_says(load: Load) -> None:
    client = load("flask_site/app.py").app.test_client()
    assert 'href="/static/style.css"' in client.get("/").text
    with client.get("/static/style.css") as sheet:
        assert sheet.content_type.startswith("text/css")


# --- fastapi_chat


def test_chat_page_and_list(load: Load) -> None:
    app = load("fastapi_chat/main.py").app
    assert 'new URL("chat"' in ask(app, "GET", "/").text
    assert ask(app, "GET", "/here").json() == []


async def heard(talk: Conversation) -> Any:
    return json.loads((await talk.hear())["text"])


def test_chat_reaches_everybody_and_tells_who_comes_and_goes(load: Load) -> None:
    async def main() -> None:
        app = load("fastapi_chat/main.py").app
        async with socket(app, "/chat", b"name=Ada") as ada:
            assert (await ada.hear())["type"] == "websocket.accept"
            assert await heard(ada) == {"from": None, "text": "Ada came in", "here": ["Ada"]}
            async with socket(app, "/chat", b"name=Ada") as other:
                assert (await other.hear())["type"] == "websocket.accept"
                both = ["Ada", "Ada 2"]
                assert await heard(other) == {"from": None, "text": "Ada 2 came in", "here": both}
                await heard(ada)
                other.say("websocket.receive", text="Hello")
                assert await heard(ada) == {"from": "Ada 2", "text": "Hello", "here": both}
                assert await heard(other) == {"from": "Ada 2", "text": "Hello", "here": both}
                other.say("websocket.disconnect", code=1001)
            assert await heard(ada) == {"from": None, "text": "Ada 2 left", "here": ["Ada"]}
            ada.say("websocket.disconnect", code=1000)

    asyncio.run(main())


def test_chat_survives_a_member_whose_connection_broke(load: Load) -> None:
    async def main() -> None:
        app = load("fastapi_chat/main.py").app
        async with socket(app, "/chat", b"name=Lost") as lost, socket(app, "/chat", b"name=Here") as here:
            for member in (lost, here):
                assert (await member.hear())["type"] == "websocket.accept"
            while (await heard(here))["here"] != ["Here", "Lost"]:
                pass
            lost.broken = True
            here.say("websocket.receive", text="Anybody?")
            while (await heard(here))["text"] != "Anybody?":
                pass
            lost.say("websocket.disconnect", code=1006)
            while (await heard(here))["here"] != ["Here"]:
                pass
            here.say("websocket.disconnect", code=1000)

    asyncio.run(main())


# --- django_site. Django keeps its settings in the process, so each of these has one of its own.


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy, so that no database is made in the checkout."""
    ignore = shutil.ignore_patterns("db.sqlite3", "__pycache__")
    return Path(shutil.copytree(SAMPLES / "django_site", tmp_path / "django_site", ignore=ignore))


def run(site: Path, *arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, cwd=site, env=environ, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_django_own_tests_pass(site: Path) -> None:
    assert "OK" in run(site, "manage.py", "test")


def test_django_migrations_match_the_model(site: Path) -> None:
    assert "No changes detected" in run(site, "manage.py", "makemigrations", "--check", "--dry-run")


ASK_BOTH = """
import asyncio, httpx
from mysite import asgi, wsgi

async def by_asgi(path):
    transport = httpx.ASGITransport(asgi.application)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get(path)

def by_wsgi(path):
    transport = httpx.WSGITransport(wsgi.application)
    with httpx.Client(transport=transport, base_url="http://localhost") as client:
        return client.get(path)

for path in "/", "/static/guestbook/style.css":
    for answer in asyncio.run(by_asgi(path)), by_wsgi(path):
        print(answer.status_code, answer.headers["content-type"])
"""


def test_django_serves_pages_and_static_files_by_asgi_and_wsgi_once_migrated(site: Path) -> None:
    run(site, "manage.py", "migrate")
    assert (site / "db.sqlite3").exists()
    page, sheet = "200 text/html; charset=utf-8", "200 text/css"
    assert run(site, "-c", ASK_BOTH).splitlines() == [page, page, sheet, sheet]
