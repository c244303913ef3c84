"""The sample applications, served and used by real clients: httpx, websockets, curl."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.live.process import DevServer, save
from tests.live.projects import SAMPLES, migrated
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

Serve = Callable[[str], DevServer]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """A copy of the samples, so that they can be edited."""
    ignored = shutil.ignore_patterns("__pycache__", "db.sqlite3")
    shutil.copytree(SAMPLES, tmp_path, dirs_exist_ok=True, ignore=ignored)
    (tmp_path / "django_site" / "db.sqlite3").write_bytes(migrated())
    return tmp_path


@pytest.fixture
def serve(samples: Path) -> Iterator[Serve]:
    """Serve a sample by the command that its docstring names; its end is a clean one."""
    servers: list[DevServer] = []
    with contextlib.ExitStack() as stack:

        def serve(path: str) -> DevServer:
            text = (samples / path).read_text()
            assert f"devserver sample_apps/{path} --reload" in text  # it says how it is served
            servers.append(stack.enter_context(DevServer(path, "--reload", cwd=samples)))
            servers[-1].serving()
            return servers[-1]

        yield serve
        for server in servers:
            assert server.stop() == 0
            assert "Traceback" not in server.log, server.log


def client(server: DevServer) -> httpx.Client:
    """A browser: it keeps cookies and connections, and follows redirects."""
    # `trust_env` would send requests to a proxy.
    return httpx.Client(base_url=server.url, follow_redirects=True, timeout=DEADLINE, trust_env=False)


def socket(server: DevServer, path: str) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}{path}", open_timeout=DEADLINE, proxy=None)


def test_wsgi(serve: Serve, samples: Path) -> None:
    server = serve("wsgi_app.py")
    with client(server) as browser:
        assert "<form" in browser.get("/").text
        assert "<dd>&lt;b&gt;ä</dd>" in browser.post("/", data={"text": "<b>ä"}).text
        chunked = browser.post("/", content=iter([b"text=", b"in+pieces"]))
        assert "<dd>in pieces</dd>" in chunked.text
        assert browser.head("/").headers["content-length"] == str(len(browser.get("/").content))
        assert browser.delete("/").status_code == 405
        assert browser.get("/elsewhere").status_code == 404
        with browser.stream("GET", "/count?to=3&pause=0.01") as response:
            assert list(response.iter_lines()) == ["1", "2", "3"]
        with browser.stream("GET", "/count?to=1000000&pause=0.01") as response:
            assert next(response.iter_lines()) == "1"
        path = samples / "wsgi_app.py"
        save(path, path.read_text().replace("Say something", "Say it again"))
        assert "Say it again" in browser.get("/").text


def test_asgi(serve: Serve, samples: Path) -> None:
    server = serve("asgi_app.py")
    with client(server) as browser:
        assert "A bare ASGI application" in browser.get("/").text
        body = bytes(range(256)) * 4096
        assert browser.post("/echo", content=body).content == body
        assert browser.post("/echo", content=iter([body] * 8)).content == body * 8
        assert browser.get("/elsewhere").status_code == 404
        with socket(server, "/ws") as talk:
            for message in ("hello", "ä" * 70_000, b"\0\xff", ""):
                talk.send(message)
                assert talk.recv(DEADLINE) == message
        with pytest.raises(InvalidStatus) as refused, socket(server, "/elsewhere"):
            pass
        assert refused.value.response.status_code == 403
        path = samples / "asgi_page.html"
        save(path, path.read_text().replace("A bare ASGI", "A barely edited ASGI"))
        assert "A barely edited ASGI" in browser.get("/").text
    assert server.stop() == 0
    assert server.log.count("lifespan: started\n") == server.log.count("lifespan: stopped\n") == 2


def test_server_sent_events_end_on_a_save_and_go_on_after_it(serve: Serve, samples: Path) -> None:
    """What EventSource does: read line by line, and connect again when the stream ends."""
    server = serve("asgi_app.py")
    path = samples / "asgi_app.py"
    path.write_text(path.read_text().replace("TICK = 1.0", "TICK = 0.01"))
    server.restarted()
    with client(server) as browser:
        for number in range(2):
            with browser.stream("GET", "/events", headers={"Accept": "text/event-stream"}) as stream:
                assert stream.headers["content-type"] == "text/event-stream"
                lines = stream.iter_lines()
                ticks = [next(lines) for _ in range(6)][::2]
                assert ticks == [f"data: tick {tick} for listener 1" for tick in range(3)]
                save(path, f"{path.read_text()}\n# {number}\n")
                rest = list(lines)  # ends, and without an error
                assert all(line == "" or line.startswith("data: ") for line in rest)
            assert server.restarted()["reason"] == "asgi_app.py changed"


def test_flask(serve: Serve, samples: Path) -> None:
    server = serve("flask_site/app.py")
    with client(server) as browser:
        assert "Nothing." in browser.get("/").text
        for text in ("Buy <milk>", "Sell it"):
            page = browser.post("/", data={"text": text})
        assert "Buy &lt;milk&gt;" in page.text
        assert 'class="done"' in browser.post("/1/toggle").text
        assert browser.post("/7/toggle").status_code == 404
        assert browser.post("/", data={"text": " "}).status_code == 400
        sheet = browser.get(found(r'href="([^"]+\.css)"', page.text))
        assert sheet.headers["content-type"].startswith("text/css")
        again = browser.get(sheet.url, headers={"If-None-Match": sheet.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        path = samples / "flask_site" / "templates" / "index.html"
        save(path, path.read_text().replace("Things to do", "Things undone"))
        assert "Things undone" in browser.get("/").text


def test_fastapi(serve: Serve) -> None:
    server = serve("fastapi_chat/main.py")
    with client(server) as browser:
        assert "<html" in browser.get("/").text
        assert browser.get("/here").json() == []
        with socket(server, "/chat?name=Ada") as ada:
            assert heard(ada) == (None, "Ada came in", ["Ada"])
            with socket(server, "/chat?name=Bob") as bob:
                assert heard(ada) == heard(bob) == (None, "Bob came in", ["Ada", "Bob"])
                assert browser.get("/here").json() == ["Ada", "Bob"]
                bob.send("Hello")
                assert heard(ada) == heard(bob) == ("Bob", "Hello", ["Ada", "Bob"])
            assert heard(ada) == (None, "Bob left", ["Ada"])
        assert "/here" in browser.get("/openapi.json").json()["paths"]


def heard(talk: ClientConnection) -> tuple[str | None, str, list[str]]:
    message = json.loads(talk.recv(DEADLINE))
    return message["from"], message["text"], message["here"]


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_django(interface: str, serve: Serve, samples: Path) -> None:
    server = serve(f"django_site/mysite/{interface}.py")
    with client(server) as browser:
        page = browser.get("/")
        assert "Nobody yet" in page.text
        fields = {"name": "Ada", "message": "<script>", "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        page = browser.post("/", data=fields)
        assert page.status_code == 200
        assert "<b>Ada</b>" in page.text
        assert "&lt;script&gt;" in page.text
        assert browser.post("/", data={"name": "Eve"}).status_code == 403
        sheet = browser.get(found(r'href="([^"]+\.css)"', page.text))
        assert sheet.headers["content-type"] == "text/css"
        assert "article" in sheet.text
        # The database is the application's own: to write into it is no change.
        views = samples / "django_site" / "guestbook" / "views.py"
        save(views, views.read_text().replace("[:50]", "[:0]"))
        assert "Nobody yet" in browser.get("/").text
        server.serving()
        assert [event["reason"] for event in server.events("restart")] == [
            "django_site/guestbook/views.py changed"
        ]


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None
    return match[1]


def test_curl(serve: Serve, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl here")
    server = serve("asgi_app.py")
    big = tmp_path / "big"
    big.write_bytes(b"0123456789abcdef" * 500_000)
    copy = tmp_path / "copy"

    def curl(*arguments: str) -> str:
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", str(int(DEADLINE)), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    url = f"http://localhost:{server.port}"
    assert "200" in curl("-I", url).splitlines()[0]
    upload = ["-T", str(big), "-H", "Expect: 100-continue", f"{url}/echo"]
    assert curl(*upload, "-o", str(copy), "-w", "%{http_code}") == "200"
    assert copy.read_bytes() == big.read_bytes()
    assert curl("--http1.0", f"{url}/elsewhere") == "Not Found\n"
    # Two requests on one connection.
    assert curl("-w", "%{num_connects}", "-o", "/dev/null", url, "-o", "/dev/null", url) == "10"


def test_console_script_serves_the_first_sample(samples: Path) -> None:
    """The README's first command, as far as it serves."""
    script = str(Path(sys.executable).with_name("devserver"))
    with DevServer("asgi_app.py", "--reload", command=[script], cwd=samples) as server:
        server.serving()
        assert server.get("/").status == 200
        assert server.stop() == 0
        assert server.log.startswith("devserver: serving asgi_app.py, restarting on save; Ctrl-C stops\n")
        assert f"devserver: listening on http://localhost:{server.port}\n" in server.log
        assert re.search(r"^devserver: ready in \d+\.\d s$", server.log, re.MULTILINE)
        assert server.log.endswith("devserver: stopped\n")
