"""devserver behind a real nginx, with the configuration of docs/proxies.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.live.behind import (
    ASGI,
    CLIENTS,
    SAVED,
    SAVES,
    WSGI,
    Asking,
    Site,
    check_project,
    project,
    upload,
    uploaded,
)
from tests.live.nginx import CLIENT, NAME, Nginx, needs_nginx
from tests.live.polls import runserver
from tests.live.process import DevServer, save, tell
from tests.patience import DEADLINE

pytestmark = [pytest.mark.live, needs_nginx]

HAS_ALL = ("asgi-tcp", "asgi-unix")


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


@pytest.mark.parametrize("buffered", [True, False])
def test_an_upload(site: Site, buffered: bool, tmp_path: Path) -> None:
    """200 MB. Without buffering the application has begun when half of it has been sent."""
    if site.kind == "asgi-unix":
        return  # each interface and each kind of socket once
    off = {} if buffered else {"proxy_request_buffering on;": "proxy_request_buffering off;"}
    with Nginx(tmp_path, site.upstream, off) as nginx:

        def half() -> None:
            if not buffered:
                site.server.wait_log("upload False has begun")

        assert upload(nginx, f"/upload?{buffered}", half=half) == uploaded()
        assert not nginx.faults


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
            asking.over_saves(app, server)
            kept = f"; {len(asking.ports)} connections of nginx" if place == "tcp" else ""
            tell(f"{place}: {asking.answers} answers over {SAVES} saves{kept}")
            assert not nginx.faults
            assert len(asking.ports) <= CLIENTS


@pytest.mark.django
@pytest.mark.parametrize("interface", [[], ["--asgi"]], ids=["wsgi", "asgi"])
def test_django(interface: list[str], tmp_path: Path) -> None:
    """Nothing but ALLOWED_HOSTS is set for it."""
    folder = project(tmp_path)
    with runserver(folder, *interface) as server:
        server.serving()
        with Nginx(tmp_path, f"{server.host}:{server.port}") as nginx:
            check_project(nginx)
