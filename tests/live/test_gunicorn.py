"""devserver's workers below a real gunicorn: its signals, its heartbeat, its hooks and its log."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gunicorn")

from websockets.sync.client import connect

from tests.certificates import Certificates
from tests.live.managed import Customers, ask, clean, eventually
from tests.live.process import descendants, save
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

HOOKS = """
def post_fork(server, worker):
    worker.log.info("hook: post_fork")

def post_worker_init(worker):
    worker.log.info("hook: post_worker_init")

def worker_int(worker):
    worker.log.info("hook: worker_int")

def worker_abort(worker):
    worker.log.info("hook: worker_abort")

def worker_exit(server, worker):
    worker.log.info("hook: worker_exit")

def ssl_context(config, default_ssl_context_factory):
    config.settings["wsgi_app"]  # it is gunicorn's own configuration
    context = default_ssl_context_factory()
    context.set_alpn_protocols(["hooked"])
    return context
"""

ASGI = """
import asyncio, atexit, os, time
atexit.register(lambda: print("exit handlers", os.getpid(), flush=True))

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        how = "failed" if "FAIL" in os.environ else "complete"
        await send({"type": f"lifespan.startup.{how}"})
        await receive()
        print("shutdown", os.getpid(), flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await receive()
        return
    if scope["path"] == "/hang":
        print("hangs", flush=True)
        time.sleep(3600)
    if scope["path"] == "/held":
        print("held by", os.getpid(), flush=True)
        await asyncio.to_thread(open, "fifo")
    text = f"{os.getpid()} {scope['client'][0]} {scope['scheme']}"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-answer", b"yes")]})
    await send({"type": "http.response.body", "body": text[:3].encode(), "more_body": True})
    await send({"type": "http.response.body", "body": text[3:].encode()})
"""

WSGI = """
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    text = f"{os.getpid()} {environ['wsgi.multithread']} {environ['wsgi.multiprocess']}"
    return [text.encode()]
"""


class Gunicorn:
    """A gunicorn that runs an application of a folder on a socket that is open already.

    Attributes:
        port, place: of the socket: whoever asks early waits.
        process: the arbiter.
    """

    def __init__(self, folder: Path, *arguments: str, worker: str = "Worker", **env: str) -> None:
        self._folder = folder
        self._arguments = arguments
        self._worker = worker
        self._env = {**clean(), "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), **env}
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.place = f"127.0.0.1:{self.port}"
        (folder / "gunicorn.conf.py").write_text(HOOKS)

    def __enter__(self) -> Gunicorn:
        fd = self._socket.fileno()
        self._log = (self._folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "-k", f"devserver.gunicorn.{self._worker}"),
                *("-b", f"fd://{fd}", "--access-logfile", "access", *self._arguments),
            ],
            cwd=self._folder,
            env=self._env,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=[fd],
        )
        self._socket.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if self.process.poll() is None:
                self.process.terminate()
            self.process.wait(DEADLINE)
        finally:
            for pid in [*descendants(self.process.pid), self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._log.close()
            if kind is not None:
                sys.stderr.write(f"--- gunicorn\n{self.log}\n")

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    @property
    def access(self) -> list[str]:
        return (self._folder / "access").read_text().splitlines()

    def until(self, text: str, count: int = 1) -> None:
        eventually(lambda: self.log.count(text) >= count, f"{count} times {text!r}")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gunicorn-") as name:
        Path(name, "asgi.py").write_text(ASGI)
        Path(name, "wsgi.py").write_text(WSGI)
        os.mkfifo(Path(name, "fifo"))
        yield Path(name)


def worker_of(place: str) -> int:
    """The process that answers."""
    status, text = ask(place)
    assert status == 200
    return int(text.split()[0])


@contextlib.contextmanager
def connection_to(gunicorn: Gunicorn, pid: str) -> Iterator[socket.socket]:
    """An idle connection to a worker. Which one accepts, the kernel chooses, so several are tried."""
    with contextlib.ExitStack() as tried:
        answered = ""
        while answered != pid:
            connection = http.client.HTTPConnection(gunicorn.place, timeout=DEADLINE)
            tried.enter_context(contextlib.closing(connection))
            connection.request("GET", "/")
            answered = connection.getresponse().read().decode().split()[0]
        yield connection.sock


@pytest.mark.parametrize("worker", ["Worker", "H11Worker"])
def test_asgi(worker: str, folder: Path) -> None:
    """What a worker does from the first request to the last."""
    with Gunicorn(folder, "asgi:app", "-w", "2", "--keep-alive", "600", worker=worker) as gunicorn:
        assert ask(gunicorn.place)[1].split()[1:] == ["127.0.0.1", "http"]
        gunicorn.until("hook: post_worker_init", 2)
        eventually(lambda: bool(gunicorn.access), "the access line")
        line = r'127\.0\.0\.1 - - \[.*\] "POST / HTTP/1\.1" 200 \d\d "-" "-"'
        assert re.fullmatch(line, gunicorn.access[0])
        # A rotated log is opened again.
        shutil.move(folder / "access", folder / "access.1")
        for pid in (gunicorn.process.pid, *descendants(gunicorn.process.pid)):
            os.kill(pid, signal.SIGUSR1)
        eventually((folder / "access").exists, "the log")
        # New workers come, without a lost request.
        with Customers(gunicorn.place) as customers:
            gunicorn.process.send_signal(signal.SIGHUP)
            gunicorn.until("shutdown", 2)
            gunicorn.until("hook: post_worker_init", 4)
            worker_of(gunicorn.place)
        assert set(customers.answers) == {200}
        with connect(f"ws://127.0.0.1:{gunicorn.port}/chat") as chat:
            assert chat.recv(DEADLINE) == "hello"
        # A request in flight is finished.
        with socket.create_connection(("127.0.0.1", gunicorn.port), DEADLINE) as held:
            held.sendall(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n")
            gunicorn.until("held by")
            [pid] = re.findall(r"held by (\d+)", gunicorn.log)
            with connection_to(gunicorn, pid) as idle:
                gunicorn.process.terminate()
                assert idle.recv(1) == b"", "an idle connection is closed when the end begins"
            (folder / "fifo").write_text("")
            answer = held.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"Connection: close" in answer
        assert gunicorn.process.wait(DEADLINE) == 0
        log = gunicorn.log
        for text in ("hook: post_fork", "hook: worker_exit", "shutdown", "exit handlers"):
            assert log.count(text) == 4, text
        assert "Traceback" not in log
        assert "SIGKILL" not in log
        assert sum('"GET /chat HTTP/1.1" 101' in line for line in gunicorn.access) == 1
        assert sum('"POST / HTTP/1.1" 200' in line for line in gunicorn.access) >= customers.answers[200]


def test_wsgi(folder: Path) -> None:
    """Threads, the number of requests after which a worker is replaced, and connections that are kept."""
    limits = ("--max-requests", "3", "--threads", "4", "--keep-alive", "60")
    with Gunicorn(folder, "wsgi:app", *limits) as gunicorn:
        with socket.create_connection(("127.0.0.1", gunicorn.port), DEADLINE) as sock:
            sock.settimeout(DEADLINE)
            answers = []
            for _ in range(3):
                sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answers.append(sock.recv(65536))
            assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 3
            assert [b"Connection: close" in answer for answer in answers] == [False, False, True]
            assert sock.recv(1) == b""
        first = int(answers[0].rpartition(b"\r\n")[2].split()[0])
        status, text = ask(gunicorn.place)
        assert (status, text.split()[1:]) == (200, ["True", "False"])
        assert int(text.split()[0]) != first
        gunicorn.until("Autorestarting worker after current request.")
        # Ctrl-C does not wait.
        gunicorn.process.send_signal(signal.SIGINT)
        assert gunicorn.process.wait(DEADLINE) == 0
        assert "hook: worker_int" in gunicorn.log
        assert "Traceback" not in gunicorn.log


def test_a_worker_that_hangs_is_replaced(folder: Path) -> None:
    """The heartbeat comes from the loop, and the others live on."""
    with Gunicorn(folder, "asgi:app", "--timeout", "2") as gunicorn:
        first = worker_of(gunicorn.place)
        with socket.create_connection(("127.0.0.1", gunicorn.port), DEADLINE) as sock:
            sock.sendall(b"GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n")
            gunicorn.until("hangs")
            gunicorn.until("WORKER TIMEOUT")
            gunicorn.until("hook: worker_abort")
        # The signal has ended the view, so the loop turns once more, and may answer before it ends.
        eventually(lambda: worker_of(gunicorn.place) != first, "another worker")
        assert gunicorn.log.count("WORKER TIMEOUT") == 1


def test_reload(folder: Path) -> None:
    with Gunicorn(folder, "wsgi:app", "--reload", "--reload-engine", "poll") as gunicorn:
        first = worker_of(gunicorn.place)
        save(folder / "wsgi.py", "def app(")
        gunicorn.until("Worker reloading")
        gunicorn.until("SyntaxError")
        status, text = ask(gunicorn.place)
        assert status == 500
        assert "SyntaxError" in text
        save(folder / "wsgi.py", WSGI)
        gunicorn.until("Worker reloading", 2)
        gunicorn.until("hook: post_worker_init", 3)
        assert worker_of(gunicorn.place) != first


def test_tls(folder: Path) -> None:
    made = Certificates(folder)
    files = ("--certfile", str(made.certfile), "--keyfile", str(made.keyfile))
    with Gunicorn(folder, "asgi:app", *files) as gunicorn:
        context = made.client()
        context.set_alpn_protocols(["hooked"])
        with (
            socket.create_connection(("127.0.0.1", gunicorn.port), DEADLINE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            assert isinstance(sock, ssl.SSLSocket)
            assert sock.selected_alpn_protocol() == "hooked"
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            data = b""
            while more := sock.recv(65536):
                data += more
            assert data.endswith(b" https")


def test_a_lifespan_that_fails_ends_it(folder: Path) -> None:
    with Gunicorn(folder, "asgi:app", FAIL="1") as gunicorn:
        assert gunicorn.process.wait(DEADLINE) == 3
        assert "Worker failed to boot" in gunicorn.log


def test_a_certificate_that_cannot_be_used_ends_it_with_a_line(folder: Path) -> None:
    made = Certificates(folder)
    _, other = made.issue("other")
    with Gunicorn(folder, "asgi:app", "--certfile", str(made.certfile), "--keyfile", str(other)) as gunicorn:
        assert gunicorn.process.wait(DEADLINE) == 3
        assert "does not fit" in gunicorn.log
        assert "Traceback" not in gunicorn.log


def test_the_uwsgi_protocol(folder: Path) -> None:
    pairs = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.7", "HTTPS": "on"}
    texts = [text.encode() for pair in pairs.items() for text in pair]
    parts = b"".join(len(text).to_bytes(2, "little") + text for text in texts)
    with (
        Gunicorn(folder, "asgi:app", "--protocol", "uwsgi") as gunicorn,
        socket.create_connection(("127.0.0.1", gunicorn.port), DEADLINE) as sock,
    ):
        sock.sendall(b"\0" + len(parts).to_bytes(2, "little") + b"\0" + parts)
        data = b""
        while more := sock.recv(65536):
            data += more
        assert data.endswith(b" 192.0.2.7 https")


def test_a_worker_whose_arbiter_is_killed_ends(folder: Path) -> None:
    with Gunicorn(folder, "asgi:app") as gunicorn:
        pid = worker_of(gunicorn.place)
        gunicorn.process.kill()
        gunicorn.process.wait(DEADLINE)
        gunicorn.until(f"exit handlers {pid}")
