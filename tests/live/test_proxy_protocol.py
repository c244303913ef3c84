"""The PROXY protocol over restarts: a connection that was announced stays so, whoever serves it."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from tests.live.process import DevServer, save
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

APP = """
VERSION = {!r}

def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{{VERSION}} {{environ['REMOTE_ADDR']}} {{environ['REMOTE_PORT']}}".encode()]
"""

V1 = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    + socket.inet_aton("203.0.113.8")
    + socket.inet_aton("10.0.0.1")
    + struct.pack("!HH", 4712, 443)
)


def connect(server: DevServer) -> socket.socket:
    return socket.create_connection((server.host, server.port), DEADLINE)


def ask(sock: socket.socket) -> str:
    """One request, and the body of its answer."""
    sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    return rest(sock)


def rest(sock: socket.socket) -> str:
    text = b""
    while b"\r\n\r\n" not in text:
        text += received(sock)
    head, _, body = text.partition(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < size:
        body += received(sock)
    return body.decode()


def received(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    assert data, "the server closed the connection"
    return data


def test_connections_stay_announced(tmp_path: Path) -> None:
    """One that is idle, one with half a header, one with half a request; over a page and restarts."""
    app = tmp_path / "app.py"
    save(app, APP.format("one"))
    with DevServer("app:app", "--reload", "--proxy-protocol", "--load-timeout", "60", cwd=tmp_path) as server:
        server.serving()
        with connect(server) as idle, connect(server) as half, connect(server) as begun:
            idle.sendall(V1)
            assert ask(idle) == "one 203.0.113.7 4711"
            half.sendall(V2[:20])
            begun.sendall(V2 + b"GET / HTTP/1.1\r\n")
            assert ask(idle) == "one 203.0.113.7 4711"
            save(app, "VERSION = (")
            server.failed()
            assert "SyntaxError" in ask(idle)
            for version in ("two", "three"):
                save(app, APP.format(version))
                server.serving()
                assert ask(idle) == f"{version} 203.0.113.7 4711"
            half.sendall(V2[20:])
            assert ask(half) == "three 203.0.113.8 4712"
            begun.sendall(b"Host: test\r\n\r\n")
            assert rest(begun) == "three 203.0.113.8 4712"
        assert '203.0.113.7:4711 "GET / HTTP/1.1" 200' in server.log
