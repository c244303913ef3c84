"""The error page, asked for as different clients do: form, status, and who may see source."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devserver.console import lan_urls
from tests.live.process import DevServer
from tests.live.projects import PROJECTS, answer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

LINE = "raise RuntimeError('out of <cheese>')  # a secret"
ERROR = "RuntimeError: out of <cheese>"
SECRET = "# a secret"
"""Stands in the source alone, and so shows where lines of source are told."""

BROKEN = {"load": LINE, "request": answer("one", ask=LINE)}


@pytest.fixture(scope="module", params=["load", "request"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    """An application that fails while it loads, or whenever it is asked."""
    folder = tmp_path_factory.mktemp(request.param)
    PROJECTS["asgi"].make(folder).write_text(BROKEN[request.param])
    with DevServer("app:app", "--reload", "--host", "0.0.0.0", "--port", "0", cwd=folder) as server:
        server.failed() if request.param == "load" else server.serving()
        server.host = "127.0.0.1"
        yield server


def test_html_for_a_browser(server: DevServer) -> None:
    page = server.get(Accept="text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
    assert page.status == 500
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    assert page.text.startswith("<!doctype html>")
    assert "out of &lt;cheese&gt;" in page.text
    assert "<cheese>" not in page.text
    assert "answer.py" in page.text
    assert SECRET in page.text


def test_json_for_a_program(server: DevServer) -> None:
    page = server.get(Accept="application/json")
    assert page.status == 500
    assert page.headers["content-type"] == "application/json"
    fields = json.loads(page.text)
    assert fields["error"] == ERROR
    assert any("answer.py" in line for line in fields["traceback"])
    assert any(SECRET in line for line in fields["traceback"])


def test_text_for_a_terminal(server: DevServer) -> None:
    page = server.get()
    assert page.status == 500
    assert page.headers["content-type"] == "text/plain; charset=utf-8"
    assert page.text.startswith(ERROR)
    assert SECRET in page.text


def test_traceback_begins_with_the_users_code_and_has_none_of_ours(server: DevServer) -> None:
    page = server.get(Accept="text/plain")
    frames = [line.split('"')[1] for line in page.text.splitlines() if line.lstrip().startswith('File "')]
    assert Path(frames[0]).name == "app.py"
    assert Path(frames[-1]).name == "answer.py"
    assert not [frame for frame in frames if "devserver" in Path(frame).parts]


def test_no_source_for_a_name_that_others_control(server: DevServer) -> None:
    """Which names these are is a table in tests/test_error_page.py."""
    assert SECRET in server.get(Host="shop.localhost").text
    page = server.get(Host="evil.example")
    assert page.status == 500
    assert "RuntimeError" in page.text
    assert SECRET not in page.text


def test_no_source_for_another_machine(server: DevServer) -> None:
    urls = lan_urls("0.0.0.0", server.port)
    if not urls:
        pytest.skip("this machine has no address but loopback")
    server.host = urls[0].removeprefix("http://").rpartition(":")[0]
    try:
        page = server.get()  # from that address, too, which is not loopback
    finally:
        server.host = "127.0.0.1"
    assert page.status == 500
    assert "RuntimeError" in page.text
    assert SECRET not in page.text


def test_no_source_over_a_unix_socket(tmp_path: Path) -> None:
    """No browser connects to one: who comes that way comes through a proxy."""
    PROJECTS["asgi"].make(tmp_path).write_text(LINE)
    place = Path("/tmp", f"devserver-page-{os.getpid()}.sock")
    with DevServer("app:app", "--reload", "--uds", str(place), cwd=tmp_path) as server:
        server.failed()
        page = server.get()
        assert ERROR in page.text
        assert SECRET not in page.text


@pytest.mark.parametrize("where", BROKEN)
def test_short_page_shows_no_source(where: str, tmp_path: Path) -> None:
    PROJECTS["asgi"].make(tmp_path).write_text(BROKEN[where])
    with DevServer("app:app", "--reload", "--error-page", "short", cwd=tmp_path) as server:
        server.failed() if where == "load" else server.serving()
        page = server.get()
        assert page.status == 500
        assert ERROR in page.text
        assert SECRET not in page.text
        assert server.stop() == 0
        assert SECRET in server.log  # the terminal is the user's own


@pytest.mark.parametrize("name", ["asgi", "wsgi"])
def test_no_page_without_reload(name: str, tmp_path: Path) -> None:
    project = PROJECTS[name]
    project.make(tmp_path).write_text(BROKEN["request"])
    with DevServer(project.target, cwd=tmp_path) as server:
        server.serving()
        for accept in ("text/html", "application/json", "text/plain"):
            page = server.get(Accept=accept)
            assert page.status == 500
            assert page.text == "Internal Server Error"
        assert server.stop() == 0
        assert SECRET in server.log


MISSING = "there is no module 'missing' in "
GUESSED = "app has neither `application` nor `app` "


@pytest.mark.parametrize(("target", "message"), [("missing", MISSING), ("app", GUESSED)])
def test_what_we_say_ourselves_is_said_once(target: str, message: str, tmp_path: Path) -> None:
    """There is no line of the user's code to point at; suggestions belong to it."""
    (tmp_path / "app.py").write_text("def create_app():\n    return None\n")
    with DevServer(target, "--reload", cwd=tmp_path) as server:
        failed = server.failed()
        assert failed["error"].startswith(message)
        assert failed["traceback"] == ""
        page = server.get()
        assert page.text.startswith(failed["error"] + "\n\n")
        assert page.text.count(message) == 1
        assert server.stop() == 0
        end = "devserver: error: the start failed; waiting for a change\n"
        assert f"devserver: error: {failed['error']}\n{end}" in server.log
        assert server.log.count(message) == 1
        assert "TargetError" not in server.log


def test_breach_is_named_and_the_users_line_shown(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.body', 'body': b''})  # a secret\n"
    )
    with DevServer("app", "--reload", "--lifespan", "off", cwd=tmp_path) as server:
        server.serving()
        page = json.loads(server.get(Accept="application/json").text)
        assert page["error"].startswith("the application sent a body before it started the response")
        assert any(SECRET in line for line in page["traceback"])


def test_error_is_the_message_and_no_note_to_it(tmp_path: Path) -> None:
    ask = "e = RuntimeError('out of cheese\\nand of wine'); e.add_note('buy some'); raise e"
    PROJECTS["asgi"].make(tmp_path).write_text(answer("one", ask=ask))
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        page = json.loads(server.get(Accept="application/json").text)
        assert page["error"] == "RuntimeError: out of cheese"
        assert page["traceback"][-1] == "buy some"


def test_failure_after_the_response_has_begun_cuts_the_connection(tmp_path: Path) -> None:
    """A page can no longer be sent; that something is missing must be seen all the same."""
    (tmp_path / "app.py").write_text(
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    await send({'type': 'http.response.start', 'status': 200})\n"
        "    await send({'type': 'http.response.body', 'body': b'begun', 'more_body': True})\n"
        "    raise RuntimeError('out of cheese')\n"
    )
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            data = b""
            while more := sock.recv(65536):
                data += more
        assert b"begun" in data
        assert not data.endswith(b"0\r\n\r\n")
        assert b"RuntimeError" not in data
        assert server.stop() == 0
        assert "out of cheese" in server.log


@pytest.mark.skipif(sys.platform != "linux", reason="there are no warm restarts")
def test_the_page_of_a_warm_server_waits_for_no_interpreter(tmp_path: Path) -> None:
    """It is a copy of the process that waits before all user code."""
    path = PROJECTS["asgi"].make(tmp_path)
    with DevServer("app:app", "--reload", cwd=tmp_path) as server:
        server.serving()
        path.write_text("TEXT = (")
        server.failed()
        assert "SyntaxError" in server.get("/").text
        for pid in server.processes():
            with contextlib.suppress(OSError):  # ended meanwhile
                assert "devserver.__main__ import main" not in Path(f"/proc/{pid}/cmdline").read_text()
        path.write_text(answer("mended"))
        assert server.answered().text == "mended"
