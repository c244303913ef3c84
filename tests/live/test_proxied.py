"""Who comes through a proxy or a tunnel is never this machine's developer, however it disguises itself."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from devserver.devtools.error_page import WAIT
from tests.live import tunnel
from tests.live.nginx import NGINX, OPENSSL, Nginx
from tests.live.process import Answer, DevServer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

SOURCE = "# shown to nobody else"
FAILS = f"""
async def app(scope, receive, send):
    assert scope["type"] == "http"
    raise RuntimeError("it fails")  {SOURCE}
"""

Connect = Callable[[], AbstractContextManager[socket.socket]]
"""Makes a connection that leads to the server."""


@contextlib.contextmanager
def documented(server: DevServer, folder: Path) -> Iterator[Connect]:
    with Nginx(folder, f"unix:{server.path}" if server.path else f"127.0.0.1:{server.port}") as nginx:
        yield nginx.connect


@contextlib.contextmanager
def bare(server: DevServer, folder: Path) -> Iterator[Connect]:
    """nginx with nothing but `proxy_pass`: HTTP/1.0, the server's own name as Host, and no header more."""
    place = f"unix:{server.path}:" if server.path else f"127.0.0.1:{server.port}"
    with Nginx(folder, place, text="") as nginx:
        yield nginx.connect


SILENT = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost;'


@contextlib.contextmanager
def silent(server: DevServer, folder: Path) -> Iterator[Connect]:
    """nginx as a browser of this machine would ask."""
    place = f"unix:{server.path}:" if server.path else f"127.0.0.1:{server.port}"
    with Nginx(folder, place, text=SILENT) as nginx:
        yield nginx.connect


@contextlib.contextmanager
def through(far: socket.socket, command: Sequence[str]) -> Iterator[socket.socket]:
    """The far end of one connection of a tunnel."""
    with subprocess.Popen(command) as process:
        sock, _ = far.accept()
        sock.settimeout(DEADLINE)
        with sock:
            yield sock
        process.terminate()


@contextlib.contextmanager
def rewriting(server: DevServer, folder: Path) -> Iterator[Connect]:
    """A tunnel that rewrites Host."""
    with socket.create_server(("127.0.0.1", 0)) as far:
        command = [sys.executable, tunnel.__file__, str(far.getsockname()[1]), str(server.port)]
        yield lambda: through(far, command)


@contextlib.contextmanager
def passing(server: DevServer, folder: Path) -> Iterator[Connect]:
    """A tunnel that passes bytes on, as `ssh -R` does."""
    assert SOCAT is not None
    with socket.create_server(("127.0.0.1", 0)) as far:
        command = [SOCAT, f"TCP:127.0.0.1:{far.getsockname()[1]}", f"TCP:127.0.0.1:{server.port}"]
        yield lambda: through(far, command)


SOCAT = shutil.which("socat")
WAYS = {each.__name__: each for each in (documented, bare, silent, rewriting, passing)}
NEEDED = {
    documented: NGINX and OPENSSL,
    bare: NGINX,
    silent: NGINX,
    passing: SOCAT,
    rewriting: sys.executable,
}
BY_SYSTEM = (silent, passing)
"""What only the system tells from a browser."""


@pytest.fixture(scope="module", params=["believing", "not believing", "unix"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "app.py").write_text(FAILS)
    more = {"not believing": ["--no-proxy-headers"], "unix": ["--uds", str(folder / "s")]}
    with DevServer("app:app", "--reload", *more.get(request.param, []), cwd=folder) as server:
        server.serving()
        yield server


def ask(connect: Connect, path: str, accept: str) -> Answer:
    connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
    with connect() as connection.sock, contextlib.closing(connection):
        connection.request("GET", path, headers={"Accept": accept, "Host": "localhost"})
        return Answer(connection.getresponse())


@pytest.mark.parametrize("way", WAYS)
def test_a_stranger_is_never_the_developer(server: DevServer, way: str, tmp_path: Path) -> None:
    lead = WAYS[way]
    if not NEEDED[lead]:
        pytest.skip("needs a program that is missing")
    if (server.path and lead in (rewriting, passing)) or (lead in BY_SYSTEM and sys.platform != "linux"):
        return  # these tunnels lead to a port; and other systems do not tell
    with lead(server, tmp_path) as connect:
        for accept in ("text/html", "text/plain"):
            page = ask(connect, "/", accept)
            assert page.status == 500
            assert SOURCE not in page.text
        assert ask(connect, WAIT.decode(), "text/event-stream").status == 403
        assert ask(connect, "/__devserver__/nothing", "*/*").status == 403


def test_the_developer_is(server: DevServer) -> None:
    """The same requests, but for the way: they show that it is the way that counts."""
    if not server.path:
        assert SOURCE in server.get("/", Accept="text/html").text
        assert server.get(WAIT.decode()).status == 204
    else:
        assert SOURCE not in server.get("/", Accept="text/html").text  # no browser connects to a Unix socket
