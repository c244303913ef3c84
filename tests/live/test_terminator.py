"""HTTPS with --reload: the process that ends TLS, while generations come and go."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import websockets.sync.client

from tests.certificates import Certificates
from tests.live.process import Answer, DevServer, gone, save, tell
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

APP = """
import asyncio, json

async def app(scope, receive, send):
    assert scope["type"] != "lifespan"
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["scheme"]})
        await receive()
        return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    kind = [(b"content-type", b"text/event-stream")] if scope["path"] == "/events" else []
    await send({"type": "http.response.start", "status": 200, "headers": kind})
    if scope["path"] == "/events":
        await send({"type": "http.response.body", "body": b"data: begun\\n\\n", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        return
    if scope["path"].startswith("/much/"):
        for _ in range(int(scope["path"][6:])):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    about = {"size": size, "version": VERSION, "client": scope["client"], "scheme": scope["scheme"]}
    about["tls"] = scope["extensions"].get("tls", {})
    await send({"type": "http.response.body", "body": json.dumps(about).encode()})
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def version(number: int) -> str:
    return f"VERSION = {number}\n{APP}"


@contextlib.contextmanager
def serving(folder: Path, certificates: Certificates, *arguments: str) -> Iterator[DevServer]:
    """A server with --reload and TLS."""
    save(folder / "app.py", version(1))
    options = ["--reload", *certificates.arguments, *arguments]
    with DevServer("app:app", *options, cwd=folder) as server:
        server.tls = certificates.client()
        server.serving()
        yield server


@pytest.fixture(scope="module")
def server(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    """One that several tests use, and none restarts."""
    with serving(tmp_path_factory.mktemp("project"), certificates, "--timeout-header", "600") as server:
        yield server


def connect(server: DevServer) -> socket.socket:
    return socket.create_connection((server.host, server.port), DEADLINE)


def session(server: DevServer) -> ssl.SSLSocket:
    """A connection with TLS."""
    assert server.tls is not None
    return server.tls.wrap_socket(connect(server), server_hostname="localhost")


def terminator(server: DevServer) -> int:
    """The process that ends TLS."""
    [pid] = [pid for pid in server.processes() if b"terminator" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_connection_lives_on_over_saves(certificates: Certificates, tmp_path: Path) -> None:
    with serving(tmp_path, certificates) as server, server.connect() as connection:
        before = None
        for number in range(1, 4):
            if number > 1:
                save(tmp_path / "app.py", version(number))
            connection.request("GET", "/")
            about = json.loads(Answer(connection.getresponse()).text)
            assert about["version"] == number
            assert about["scheme"] == "https"
            assert about["tls"]["server_cert"]
            assert before in (None, about["client"])  # the same connection
            before = about["client"]
        assert before is not None
        assert before[0] == "127.0.0.1"
        assert server.events("restart")


def test_a_websocket_is_closed_at_a_save(certificates: Certificates, tmp_path: Path) -> None:
    with serving(tmp_path, certificates) as server:
        url = f"wss://localhost:{server.port}/"
        with websockets.sync.client.connect(url, ssl=certificates.client(), proxy=None) as socket_:
            assert socket_.recv(DEADLINE) == "wss"
            save(tmp_path / "app.py", version(2))
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                socket_.recv(DEADLINE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012


def test_a_stream_of_events_ends_at_a_save(certificates: Certificates, tmp_path: Path) -> None:
    with serving(tmp_path, certificates) as server, session(server) as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
        text = b""
        while not text.endswith(b"data: begun\n\n\r\n"):
            text += sock.recv(65536)
        save(tmp_path / "app.py", version(2))
        while data := sock.recv(65536):
            text += data
        assert text.endswith(b"0\r\n\r\n")  # the end, and not a cut
        assert json.loads(server.get("/").text)["version"] == 2


def test_a_session_is_resumed(server: DevServer) -> None:
    assert server.tls is not None
    with session(server) as first:
        first.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        first.recv(65536)
        known = first.session
    with server.tls.wrap_socket(connect(server), server_hostname="localhost", session=known) as second:
        assert second.session_reused


def test_the_terminator_dies_and_nothing_else_falls(certificates: Certificates, tmp_path: Path) -> None:
    with serving(tmp_path, certificates) as server:
        child, first = server.child, terminator(server)
        assert json.loads(server.get("/").text)["version"] == 1
        os.kill(first, signal.SIGKILL)
        assert json.loads(server.get("/").text)["version"] == 1
        assert terminator(server) != first
        assert "the process that ends TLS died" in server.log
        save(tmp_path / "app.py", version(2))
        assert json.loads(server.get("/").text)["version"] == 2
        assert server.events("serving")[0]["pid"] == child


def kill(server: DevServer) -> None:
    os.kill(server.supervisor, signal.SIGKILL)


def hang_and_kill(server: DevServer) -> None:
    os.kill(terminator(server), signal.SIGSTOP)
    kill(server)


ENDS: dict[str, Callable[[DevServer], object]] = {
    "stopped": lambda server: server.stop(),
    "killed": kill,
    "killed while the terminator hangs": hang_and_kill,
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left(end: str, certificates: Certificates, tmp_path: Path) -> None:
    with serving(tmp_path, certificates) as server, session(server):
        pids = server.processes()
        assert terminator(server) in pids
        ENDS[end](server)
        for pid in pids:
            gone(pid)


def test_what_is_wrong_with_a_certificate_ends_it_at_once(certificates: Certificates, tmp_path: Path) -> None:
    save(tmp_path / "app.py", version(1))
    with DevServer(
        "app:app", "--reload", "--ssl-certfile", str(certificates.certfile), cwd=tmp_path
    ) as server:
        assert server.ended() == 2
        assert f"error: {certificates.certfile} holds no private key" in server.log
        assert "listening" not in server.log


def test_a_renewed_certificate_is_taken_without_a_restart(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with serving(tmp_path, certificates) as server:
        before = json.loads(server.get("/").text)["tls"]["server_cert"]
        certificates.issue("server")
        assert json.loads(server.get("/").text)["tls"]["server_cert"] != before
        assert len(server.events("serving")) == 1


def test_the_end_waits_for_what_is_on_its_way(certificates: Certificates, tmp_path: Path) -> None:
    """A client that reads late gets everything, although all is told to stop meanwhile."""
    with serving(tmp_path, certificates) as server, session(server) as sock:
        sock.sendall(b"GET /much/2 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        server.wait_log("GET /much/2")
        server.process.send_signal(signal.SIGINT)
        whole = b""
        while data := sock.recv(65536):
            whole += data
        assert len(whole) > 2 * 65536
        assert whole.endswith(b"0\r\n\r\n")
        assert server.ended() == 0


# who is not as one wishes


def test_a_client_that_half_closes_gets_its_answer(server: DevServer) -> None:
    assert server.tls is not None
    arrived, leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = server.tls.wrap_bio(arrived, leaves, server_hostname="localhost")
    with connect(server) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(leaves.read())
                arrived.write(sock.recv(65536))
        tls.write(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()  # says farewell; the answer, which it would not expect, is not there yet
        sock.sendall(leaves.read())
        while data := sock.recv(65536):
            arrived.write(data)
        text = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):  # the end, after an end of one's own
            while data := tls.read(65536):
                text += data
        assert b'"size": 5' in text


@pytest.mark.parametrize(
    "size", [pytest.param(2**25, id="some"), pytest.param(2**30, id="1 GiB", marks=pytest.mark.soak)]
)
def test_much_goes_both_ways(size: int, server: DevServer) -> None:
    pid = terminator(server)
    with session(server) as sock:
        head = f"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n"
        sock.sendall(head.encode())
        block = bytes(65536)
        for _ in range(size // len(block)):
            sock.sendall(block)
        text = b""
        while not text.endswith(b"}}"):  # that of JSON
            text += sock.recv(65536)
        assert f'"size": {size}'.encode() in text
        before = memory(pid)
        sock.sendall(
            f"GET /much/{size // 65536} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()
        )
        got = 0
        while data := sock.recv(65536):
            got += len(data)
        assert got > size
    tell(f"{size} bytes each way; the terminator grew by {(memory(pid) - before) // 1024} KiB")


def test_slow_peers_take_little_memory_and_others_are_served(server: DevServer) -> None:
    pid = terminator(server)
    with contextlib.ExitStack() as stack:
        before = memory(pid)
        count = 20
        for _ in range(count):
            reader = stack.enter_context(session(server))  # wants much, and reads nothing of it
            reader.sendall(b"GET /much/1000 HTTP/1.1\r\nHost: test\r\n\r\n")
        for _ in range(3):
            assert json.loads(server.get("/").text)["version"] == 1
        grown = memory(pid) - before
        assert grown < count * 2**20, f"{grown} bytes for {count} slow readers"


def half_open(server: DevServer, stack: contextlib.ExitStack, count: int) -> None:
    """Connections that say nothing, or part of a handshake, or nonsense that looks like one."""
    starts = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"GET / HT"]
    for n in range(count):
        sock = stack.enter_context(connect(server))
        sock.sendall(starts[n % len(starts)])


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_half_open_connections_hold_nobody_up(count: int, server: DevServer) -> None:
    pid = terminator(server)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    before = memory(pid)
    with contextlib.ExitStack() as stack:
        half_open(server, stack, count)
        for _ in range(3):
            assert json.loads(server.get("/").text)["version"] == 1
        tell(f"{count} half-open: the terminator grew by {(memory(pid) - before) // 1024} KiB")
        assert memory(pid) - before < count * 200_000


def test_handshakes_that_never_end_are_ended(certificates: Certificates, tmp_path: Path) -> None:
    with (
        serving(tmp_path, certificates, "--timeout-header", "0.5") as server,
        contextlib.ExitStack() as stack,
    ):
        for start in (b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HT"):
            sock = stack.enter_context(connect(server))
            sock.sendall(start)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""


GARBAGE = {
    "no protocol": b"\x00\xff" * 100,
    "a record that is none": b"\x16\x03\x01\xff\xff" + b"\xff" * 1000,
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "lower case": b"get / http/1.1\r\n\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_ends_its_connection_and_no_other(garbage: str, server: DevServer) -> None:
    with session(server) as other:
        with connect(server) as sock, contextlib.suppress(OSError):  # it may be reset at once
            sock.sendall(GARBAGE[garbage])
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
        other.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        assert other.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_client_that_resets_is_gone_for_the_application(server: DevServer) -> None:
    """What the application goes on writing goes nowhere, and its connection is closed."""
    with session(server) as sock:
        sock.sendall(b"GET /much/100000 HTTP/1.1\r\nHost: test\r\n\r\n")
        assert sock.recv(4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.wait_log("GET /much/100000")


def test_plain_http_is_sent_to_https(server: DevServer) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET /a?b HTTP/1.1\r\nHost: localhost\r\n\r\n")
        text = b""
        while data := sock.recv(4096):
            text += data
    assert text.startswith(b"HTTP/1.1 307 ")
    assert b"\r\nLocation: https://localhost/a?b\r\n" in text


def test_many_clients_at_once(server: DevServer) -> None:
    """More than the supervisor gives away in one go."""
    answers: list[int] = []

    def ask() -> None:
        answers.extend(server.get("/").status for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert answers == [200] * 200
