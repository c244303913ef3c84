"""devserver behind `uwsgi_pass` of a real nginx, with the configuration of docs/uwsgi.md."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.behind import (
    ASGI,
    SAVED,
    SAVES,
    WSGI,
    Asking,
    Site,
    check_project,
    project,
    through,
    upload,
    uploaded,
)
from tests.live.nginx import CLIENT, NAME, NEEDS_UWSGI, Nginx
from tests.live.polls import runserver
from tests.live.process import DevServer, save, tell
from tests.packet import packet
from tests.patience import DEADLINE

pytestmark = [pytest.mark.live]


@contextlib.contextmanager
def site_of(kind: str, folder: Path) -> Iterator[Site]:
    interface, _, place = kind.partition("-")
    (folder / "app.py").write_text(ASGI if interface == "asgi" else WSGI)
    arguments = ["--uds", str(folder / "s")] if place == "unix" else []
    with DevServer("app:app", "--reload", "--protocol", "uwsgi", *arguments, cwd=folder) as server:
        server.serving()
        upstream = f"unix:{server.path}" if server.path else f"{server.host}:{server.port}"
        with Nginx(folder, upstream, page="uwsgi") as nginx:
            yield Site(kind, server, nginx, folder)


@pytest.fixture(scope="module", params=["asgi-tcp", "wsgi-unix"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_of(request.param, tmp_path_factory.mktemp(request.param)) as site:
        yield site


CLAIMED = {
    "X-Forwarded-For": "8.8.8.8",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=8.8.8.8;host=evil.example",
    "Script-Name": "/evil",
    "Remote-User": "root",
}
"""What a client may say."""


@NEEDS_UWSGI
@pytest.mark.parametrize("headers", [{}, CLAIMED], ids=["plain", "claimed"])
def test_the_client_and_the_path(site: Site, headers: dict[str, str]) -> None:
    for path in ("/a", "/a%20b%C3%A9"):
        decoded = path.replace("%20", " ").replace("%C3%A9", "é" if site.kind == "asgi-tcp" else "\xc3\xa9")
        assert site.ask("GET", path, **headers).text == f"{CLIENT}  {decoded}"
        assert site.ask("GET", f"/beta{path}?b", **headers).text == f"{CLIENT} /beta {decoded}"
    site.server.wait_log('"GET /beta/a?b HTTP/1.1" 200')


@NEEDS_UWSGI
def test_redirects_are_to_https(site: Site) -> None:
    for path, target in (("/old", "/new"), ("/beta/old", "/beta/new")):
        answer = site.ask("GET", path, Host=f"{NAME}:8443")
        assert (answer.status, answer.headers["location"]) == (302, f"https://{NAME}:8443{target}")
        assert site.ask("GET", path).headers["location"] == f"https://{NAME}{target}"


@NEEDS_UWSGI
def test_responses_without_a_body(site: Site) -> None:
    with through(site.nginx) as connection:  # nginx keeps the client's connection over all of them
        for method, path, status in (("HEAD", "/a", 200), ("GET", "/same", 304), ("HEAD", "/same", 304)):
            connection.request(method, path)
            response = connection.getresponse()
            assert (response.status, response.read()) == (status, b"")
        connection.request("GET", "/a")
        assert connection.getresponse().read() == f"{CLIENT}  /a".encode()


@NEEDS_UWSGI
def test_a_file_that_nginx_sends(site: Site) -> None:
    (site.nginx.files / "report.txt").write_text("the report")
    answer = site.ask("GET", "/file")
    assert (answer.status, answer.text) == (200, "the report")
    assert "x-accel-redirect" not in answer.headers


@NEEDS_UWSGI
def test_parameters_of_ones_own(site: Site, tmp_path: Path) -> None:
    """A login by nginx, and what a map or a certificate could have made."""
    passwords = tmp_path / "passwords"
    passwords.write_text("ann:{PLAIN}secret\n")
    here = f'auth_basic "shop"; auth_basic_user_file {passwords};'
    more = "uwsgi_param REMOTE_USER $remote_user; uwsgi_param CUSTOM héllo;"
    changes = {"location / {": f"{more} location / {{ {here}"}
    with Nginx(tmp_path, site.upstream, changes, page="uwsgi") as nginx, through(nginx) as connection:
        for secret, status in (("wrong", 401), ("secret", 200)):
            login = base64.b64encode(f"ann:{secret}".encode()).decode()
            connection.request("GET", "/told", headers={"Authorization": f"Basic {login}"})
            response = connection.getresponse()
            assert response.status == status
            text = response.read().decode()
        custom = "héllo" if site.kind == "asgi-tcp" else "héllo".encode().decode("latin-1")
        assert text == repr({"REMOTE_USER": "ann", "CUSTOM": custom, "HTTPS": "on"})


@NEEDS_UWSGI
def test_server_sent_events(site: Site) -> None:
    if site.kind != "asgi-tcp":
        return
    with site.nginx.connect() as sock:
        sock.sendall(f"GET /events HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        text = b""
        while b"data: first\n\n" not in text:
            data = sock.recv(65536)
            assert data, text
            text += data
    site.server.wait_log("nobody listens")


@NEEDS_UWSGI
def test_half_a_response_is_not_taken_for_the_whole(site: Site) -> None:
    if site.kind != "asgi-tcp":
        return
    with through(site.nginx) as connection:
        connection.request("GET", "/half")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            connection.getresponse().read()


BLOCKS = 8


@NEEDS_UWSGI
@pytest.mark.parametrize("buffered", [True, False])
def test_an_upload(site: Site, buffered: bool, tmp_path: Path) -> None:
    """Without buffering the application has begun when half of it has been sent."""
    off = {} if buffered else {"uwsgi_request_buffering on;": "uwsgi_request_buffering off;"}

    def half() -> None:
        if not buffered:
            site.server.wait_log("upload False has begun")

    with Nginx(tmp_path, site.upstream, off, page="uwsgi") as nginx:
        assert upload(nginx, f"/upload?{buffered}", BLOCKS, half) == uploaded(BLOCKS)
        with through(nginx) as connection:  # in chunks, whose end nobody knows before it
            connection.request("POST", "/upload?chunks", iter([b"a" * 70_000, b"b"]), encode_chunked=True)
            assert connection.getresponse().read().startswith(b"70001 ")
        assert not nginx.faults


@NEEDS_UWSGI
@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_saves_cost_no_request(place: str, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    save(app, SAVED.format(0))
    arguments = ["--uds", str(tmp_path / "s")] if place == "unix" else []
    quiet = ["--reload", "--protocol", "uwsgi", "--no-access-log", *arguments]
    with DevServer("app:app", *quiet, cwd=tmp_path) as server:
        server.serving()
        upstream = f"unix:{server.path}" if server.path else f"{server.host}:{server.port}"
        with Nginx(tmp_path, upstream, page="uwsgi") as nginx:
            asking = Asking(nginx)
            asking.over_saves(app, server)
            tell(f"{place}: {asking.answers} answers over {SAVES} saves")
            assert not nginx.faults


@NEEDS_UWSGI
@pytest.mark.django
@pytest.mark.parametrize("interface", [[], ["--asgi"]], ids=["wsgi", "asgi"])
def test_django(interface: list[str], tmp_path: Path) -> None:
    with runserver(project(tmp_path), "--protocol=uwsgi", *interface) as server:
        server.serving()
        with Nginx(tmp_path, f"{server.host}:{server.port}", page="uwsgi") as nginx:
            check_project(nginx)
        server.wait_log(f"server at uwsgi://{server.host}:{server.port}/")


LOADS = """
import os
with open("gate") as gate:
    gate.read()

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"it serves"})
"""


def test_pages_of_the_server(tmp_path: Path) -> None:
    """Those of a load that takes long, and of one that fails: without source, as behind any proxy."""
    app = tmp_path / "app.py"
    app.write_text(LOADS)
    os.mkfifo(tmp_path / "gate")
    options = ["--reload", "--protocol", "uwsgi", "--load-timeout", "0.1", "--uds", str(tmp_path / "s")]

    def ask(path: str = "/") -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(server.path)
            sock.sendall(packet("GET", path, REMOTE_ADDR="127.0.0.1", HTTP_HOST="localhost"))
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

    with DevServer("app:app", *options, cwd=tmp_path) as server:
        assert server.listening().startswith("unix:")
        answer = ask()
        assert answer.startswith("HTTP/1.1 503 ")
        assert "still loading" in answer
        (tmp_path / "gate").write_text("")
        server.serving()
        assert ask().endswith("it serves")
        save(app, "mistake = 1 / 0  # of mine\n")
        server.failed()
        answer = ask()
        assert answer.startswith("HTTP/1.1 500 ")
        assert "ZeroDivisionError" in answer
        assert "of mine" not in answer
        assert ask("/__devserver__/failure").startswith("HTTP/1.1 403 ")
        save(app, LOADS.replace('open("gate")', "open(os.devnull)"))
        server.serving()
        assert ask().endswith("it serves")
