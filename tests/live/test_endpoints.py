"""The server's own pages, asked for over the network by the developer and by strangers."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devserver.devtools.endpoints import ENDPOINTS
from devserver.devtools.error_page import WAIT
from tests.live.process import DevServer, save
from tests.live.projects import PROJECTS, answer
from tests.patience import DEADLINE
from tests.strangers import STRANGERS

pytestmark = pytest.mark.live

FAILS = "raise RuntimeError('it fails')"
FAILS_WHEN_ASKED = f"def app(environ, start_response):\n    {FAILS}\n"
OVER = (b"event: over\ndata:\n\n", b"")
"""What comes at last: where the same process shows the next failure, or where another process serves."""

GOOD = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'good']\n"
PATHS = [*(path.decode() for path in ENDPOINTS), "/__devserver__/nothing"]


@pytest.fixture(scope="module", params=["load", "request"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    """What serves the page of a failed load, or an application that raises."""
    folder = tmp_path_factory.mktemp(request.param)
    PROJECTS["asgi"].make(folder).write_text(FAILS if request.param == "load" else answer("one", ask=FAILS))
    with DevServer("app:app", "--reload", "--host", "0.0.0.0", "--port", "0", cwd=folder) as server:
        server.failed() if request.param == "load" else server.serving()
        server.host = "127.0.0.1"
        yield server


@pytest.mark.parametrize("path", PATHS)
def test_strangers_are_refused(server: DevServer, path: str) -> None:
    """Each of them, over plain HTTP and before a WebSocket is opened, and with one line for all."""
    for headers in STRANGERS.values():
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        for more in ({}, upgrade):
            refused = server.get(path, **headers, **more)
            assert refused.status == 403
            assert "access-control-allow-origin" not in refused.headers
            assert refused.headers["cross-origin-resource-policy"] == "same-origin"
            assert refused.headers["server"] == "devserver"
            assert "it fails" not in refused.text
    server.wait_log("refused one of devserver's own pages to 127.0.0.1")
    assert server.log.count("refused one of") < len(STRANGERS)
    assert f"GET {path}" not in server.log


def test_the_developer_is_answered(server: DevServer) -> None:
    over = server.get(WAIT.decode() + "?another")
    assert over.status == 204
    assert server.get("/__devserver__/nothing").status == 404
    wrong = server.ask("POST", WAIT.decode())
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD")
    assert server.ask("OPTIONS", WAIT.decode()).status == 405
    assert server.ask("HEAD", WAIT.decode()).status == 204


def waited_for(server: DevServer) -> str:
    """Where the page that is shown waits."""
    page = server.get("/", Accept="text/html").text
    return page.partition('data-wait="')[2].partition('"')[0]


def wait(server: DevServer, where: str, stack: contextlib.ExitStack) -> http.client.HTTPResponse:
    """Begin to wait, as a page does."""
    connection = stack.enter_context(server.connect())
    connection.request("GET", where)
    stream = connection.getresponse()
    assert stream.getheader("Content-Type") == "text/event-stream"
    assert stream.readline() == b": until it is over\n"
    assert stream.readline() == b"\n"
    return stream


def test_a_page_is_told_when_its_failure_is_over(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    save(app, "first")
    with DevServer("app", "--reload", cwd=tmp_path) as server, contextlib.ExitStack() as stack:
        server.failed()
        first = wait(server, waited_for(server), stack)
        save(app, "second")
        assert first.read() in OVER
        server.failed()
        where = waited_for(server)
        second = wait(server, where, stack)
        save(app, GOOD)
        assert second.read() in OVER
        assert server.get(where).status == 204
        assert server.get("/").text == "good"


def test_a_page_waits_on_when_an_attempt_fails_alike(tmp_path: Path) -> None:
    app, other = tmp_path / "app.py", tmp_path / "other.py"
    save(other, "")
    save(app, f"import other\n{FAILS}\n")
    with DevServer("app", "--reload", cwd=tmp_path) as server, contextlib.ExitStack() as stack:
        server.failed()
        where = waited_for(server)
        stream = wait(server, where, stack)
        save(other, "# something else")
        server.wait_log("it failed in the same way")
        assert waited_for(server) == where
        save(app, GOOD)
        assert stream.read() in OVER
        assert server.get("/").text == "good"


def test_an_attempt_that_only_a_request_led_to_ends_no_failure(tmp_path: Path) -> None:
    """Else a page whose text differs each time would reload for ever, and load the application each time."""
    app = tmp_path / "app.py"
    save(app, "import time\nraise RuntimeError(time.time_ns())\n")
    with DevServer("app", "--reload", cwd=tmp_path) as server, contextlib.ExitStack() as stack:
        server.failed()
        first = waited_for(server)  # a request: it is tried again
        again = server.failed()
        wait(server, first, stack)
        page = server.get("/", Accept="text/html").text
        assert again["error"] in page
        assert first not in page
        save(app, FAILS)
        assert server.wait("failed", error="RuntimeError: it fails")
        assert server.get(first).status == 204


def test_waiting_pages_do_not_count_against_the_limit(tmp_path: Path) -> None:
    save(tmp_path / "app.py", FAILS_WHEN_ASKED)
    with (
        DevServer("app", "--reload", "--limit-concurrency", "2", cwd=tmp_path) as server,
        contextlib.ExitStack() as stack,
    ):
        server.serving()
        where = waited_for(server)
        for _ in range(4):
            wait(server, where, stack)
        assert server.get("/").status == 500


def test_a_client_that_has_closed_its_side_before_is_not_kept(tmp_path: Path) -> None:
    save(tmp_path / "app.py", FAILS_WHEN_ASKED)
    with DevServer("app", "--reload", cwd=tmp_path) as server:
        server.serving()
        where = waited_for(server)
        with socket.create_connection((server.host, server.port), timeout=DEADLINE) as sock:
            asked = "".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in ("/", where))
            sock.sendall(asked.encode())
            sock.shutdown(socket.SHUT_WR)
            text = b""
            while data := sock.recv(1 << 16):
                text += data
        assert text.endswith(b"\r\n0\r\n\r\n")


def test_an_application_may_have_modules_that_are_named_like_pythons(tmp_path: Path) -> None:
    for name in ("secrets", "hmac", "hashlib"):
        save(tmp_path / f"{name}.py", "KEY = 1\n")
    save(tmp_path / "app.py", f"import secrets\n{GOOD}    # {FAILS}\n")
    with DevServer("app", "--reload", cwd=tmp_path) as server:
        server.serving()
        assert server.get("/").text == "good"
        save(tmp_path / "app.py", FAILS)
        server.failed()
        assert "it fails" in server.get("/", Accept="text/html").text


def test_hundreds_of_pages_that_wait_hold_nothing_up(tmp_path: Path) -> None:
    """Neither a request, with one thread for all, nor a restart, nor the end."""
    app = tmp_path / "app.py"
    save(app, FAILS_WHEN_ASKED)
    with (
        DevServer("app", "--reload", "--wsgi-threads", "1", cwd=tmp_path) as server,
        contextlib.ExitStack() as stack,
    ):
        server.serving()
        where = waited_for(server)
        streams = [wait(server, where, stack) for _ in range(300)]
        assert server.get("/").status == 500
        save(app, GOOD)
        server.restarted()
        assert server.get("/").text == "good"
        assert {stream.read() for stream in streams} == {b""}
        save(app, FAILS_WHEN_ASKED)
        server.restarted()
        wait(server, waited_for(server), stack)
        assert server.stop() == 0
        assert "still running" not in server.log


def test_a_client_that_leaves_is_forgotten(tmp_path: Path) -> None:
    save(tmp_path / "app.py", FAILS_WHEN_ASKED)
    with DevServer("app", "--reload", cwd=tmp_path) as server, contextlib.ExitStack() as stack:
        server.serving()
        where = waited_for(server)
        with contextlib.ExitStack() as soon:
            wait(server, where, soon).close()
        with socket.create_connection((server.host, server.port), timeout=DEADLINE) as sock:
            sock.sendall(f"GET {where} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            sock.shutdown(socket.SHUT_WR)
            text = b""
            while data := sock.recv(1 << 16):
                text += data
        assert text.endswith(b"\r\n0\r\n\r\n")  # who has closed one side is told that there is no more
        wait(server, where, stack)


def test_a_plain_run_has_none_of_them(tmp_path: Path) -> None:
    """The application gets the path like any other."""
    save(
        tmp_path / "app.py",
        "def app(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [environ['PATH_INFO'].encode()]\n",
    )
    with DevServer("app", cwd=tmp_path) as server:
        server.serving()
        assert server.get(WAIT.decode()).text == WAIT.decode()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("broken", [FAILS, FAILS_WHEN_ASKED], ids=["load", "request"])
def test_a_browser_shows_the_application_as_soon_as_it_is_mended(tmp_path: Path, broken: str) -> None:
    app = tmp_path / "app.py"
    save(app, broken)
    with DevServer("app", "--reload", cwd=tmp_path) as server:
        server.listening()
        server.wait("serving", "failed")
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path.parent / 'profile'}",
        ]
        browser = subprocess.Popen(
            ["chromium", *options, f"http://localhost:{server.port}/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            server.wait_log('"GET / HTTP/1.1" 500')
            save(app, GOOD)
            server.wait_log('"GET / HTTP/1.1" 200')
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
