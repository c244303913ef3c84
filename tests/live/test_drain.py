"""Nothing holds up the new code: not a stream, not a thread, not a loop that never ends.

That the answer does not wait for the grace is shown by a grace of an hour. How soon it comes is told by
the tests marked `alone`. Their bounds are those of the promise: the time of the load as the events tell it,
or the grace with the lifespan's shutdown, whichever is longer, and a fixed allowance. A machine that has
other things to do is measured too: restarts with nothing in flight come first, and if they are slow the
bound is wider.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.live.process import Answer, DevServer, begin, gone, save, tell
from tests.patience import DEADLINE, SLOWNESS

pytestmark = pytest.mark.live

GRACE = 0.5
"""Seconds that what is in flight is given, in the tests in which it uses them up."""

HOUR = "3600"
"""A grace that no test outlasts: what answers has not waited for it."""

LATE = 0.3
SOON = 0.1
"""Seconds that a calm machine is allowed beyond the load: with something in flight, and without."""

CALM = 0.2
"""Seconds that a restart takes with nothing in flight when the machine has nothing else to do."""

NOISE = 2
"""What such a restart takes beyond that is allowed so many times, because the machine is busy."""

COMMON = """
import os, subprocess, sys, threading, time
from number import NUMBER

KIN = []

def start_programs():
    # A program, a program of a program (its "up" goes to DEVNULL: the line is its number), and one that
    # wants to outlive us.
    sleeps = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
    nested = [sys.executable, "-c", "import subprocess; "
              f"p = subprocess.Popen({sleeps!r}, stdout=subprocess.DEVNULL); "
              "print(p.pid, flush=True); p.wait()"]
    pipe = dict(stdout=subprocess.PIPE, text=True)
    plain, nesting = subprocess.Popen(sleeps, **pipe), subprocess.Popen(nested, **pipe)
    apart = subprocess.Popen(sleeps, start_new_session=True, **pipe)
    KIN.extend((plain, nesting, apart))
    lines = [program.stdout.readline() for program in KIN]
    return f"{plain.pid} {nesting.pid} {lines[1].strip()} {apart.pid}"

def start_thread():
    started = threading.Event()
    def work():
        started.set()
        threading.Event().wait()
    threading.Thread(target=work, name="busy-bee", daemon=False).start()
    started.wait()
    return "started"
"""

ASGI = (
    COMMON
    + """
import asyncio

TASKS = []

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "begun"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    assert scope["type"] == "http"
    path = scope["path"]
    async def answer(text, more=False):
        await send({"type": "http.response.body", "body": text.encode(), "more_body": more})
    kind = b"text/event-stream" if path == "/events" else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if path == "/":
        await answer(str(NUMBER))
    elif path == "/events":
        await answer("data: begun\\n\\n", more=True)
        await asyncio.Event().wait()
    elif path == "/long":
        await answer("begun", more=True)
        await asyncio.sleep(30)
    elif path == "/loop":
        await answer("begun", more=True)
        while True:
            pass
    elif path == "/after":
        await answer("begun")
        await asyncio.sleep(30)
    elif path == "/task":
        TASKS.append(asyncio.create_task(asyncio.sleep(30)))
        await answer("begun")
    elif path == "/thread":
        await answer(start_thread())
    elif path == "/programs":
        await answer(start_programs())
    elif path == "/slow":
        await answer("begun ", more=True)
        await asyncio.sleep(0.5)
        await answer(f"ended by {NUMBER}")
    elif path == "/download":
        await answer("begun ", more=True)
        for _ in range(50):
            await asyncio.sleep(0.01)
            await answer("x" * 10_000, more=True)
        await answer(f"ended by {NUMBER}")
"""
)

WSGI = (
    COMMON
    + """
def app(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/event-stream" if path == "/events" else "text/plain")])
    if path == "/":
        yield str(NUMBER).encode()
    elif path == "/events":
        yield b"data: begun\\n\\n"
        time.sleep(30)
    elif path == "/long":
        yield b"begun"
        time.sleep(30)
    elif path == "/loop":
        yield b"begun"
        while True:
            pass
    elif path == "/thread":
        yield start_thread().encode()
    elif path == "/programs":
        yield start_programs().encode()
    elif path == "/slow":
        yield b"begun "
        time.sleep(0.5)
        yield f"ended by {NUMBER}".encode()
    elif path == "/download":
        yield b"begun "
        for _ in range(50):
            time.sleep(0.01)
            yield b"x" * 10_000
        yield f"ended by {NUMBER}".encode()
"""
)

SOURCES = {"asgi": ASGI, "wsgi": WSGI}


class Restarts:
    """A server whose answer at / is the number that was saved last."""

    def __init__(self, server: DevServer, folder: Path) -> None:
        self.server = server
        self._path = folder / "number.py"
        self._number = 1

    def save(self) -> None:
        self._number += 1
        save(self._path, f"NUMBER = {self._number}\n")

    def measure(self) -> tuple[float, float]:
        """Save, and ask. Returns seconds from the save to the end of the load, and to the answer."""
        began, clock = time.time(), time.monotonic()
        self.save()
        assert self.server.get("/").text == str(self._number)
        answered = time.monotonic() - clock
        self.server.wait("restart")
        loaded = self.server.wait("loaded")["time"] - began
        self.server.serving()
        return loaded, answered

    def idle(self) -> float:
        """Seconds that a restart takes with nothing in flight, on this machine now."""
        return statistics.median(self.measure()[1] for _ in range(3))


@contextlib.contextmanager
def serving(interface: str, folder: Path, *arguments: str) -> Iterator[Restarts]:
    (folder / "app.py").write_text(SOURCES[interface])
    (folder / "number.py").write_text("NUMBER = 1\n")
    with DevServer("app:app", "--reload", "--no-access-log", *arguments, cwd=folder) as server:
        server.serving()
        assert server.get("/").text == "1"
        yield Restarts(server, folder)


def rest(sock: socket.socket) -> bytes:
    """What comes until the end of a connection."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def check_bound(what: str, idle: float, measured: tuple[float, float], *, waits: bool) -> None:
    """Hold a restart against its bound, and print both. Args: waits: the grace may be used up."""
    loaded, answered = measured
    allowance = (LATE if waits else SOON) * SLOWNESS + NOISE * max(0.0, idle - CALM)
    bound = (max(loaded, GRACE) if waits else loaded) + allowance
    tell(
        f"{what}: answered after {answered:.3f} s, loaded after {loaded:.3f} s, bound {bound:.3f} s"
        f" (an idle restart takes {idle:.3f} s)"
    )
    assert answered <= bound


CASES = [
    # interface, path, whether the grace may be used up
    ("asgi", "/events", False),
    ("asgi", "/task", False),
    ("asgi", "/long", True),
    ("asgi", "/loop", True),
    ("asgi", "/after", True),
    ("asgi", "/thread", True),
    ("wsgi", "/events", False),
    ("wsgi", "/long", True),
    ("wsgi", "/loop", True),
    ("wsgi", "/thread", True),
]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("interface", SOURCES)
def test_new_code_answers_whatever_runs(interface: str, waits: bool, tmp_path: Path) -> None:
    with serving(interface, tmp_path, "--reload-grace", str(GRACE) if waits else HOUR) as restarts:
        for path in (path for of, path, may in CASES if (of, may) == (interface, waits)):
            old = restarts.server.child
            with begin(restarts.server, path):
                restarts.measure()
                gone(old, 0)
            restarts.measure()  # it was no state of emergency: the next restart is an ordinary one


def test_streams_and_websockets_are_ended_and_not_waited_for(tmp_path: Path) -> None:
    with serving("asgi", tmp_path, "--reload-grace", HOUR) as restarts, contextlib.ExitStack() as stack:
        streams, sockets = many(restarts, stack)
        old = restarts.server.child
        restarts.measure()
        gone(old, 0)
        for websocket in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(DEADLINE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        for stream in streams:
            assert rest(stream) == b"\n\n\r\n0\r\n\r\n", "the stream was not ended but cut"


def many(
    restarts: Restarts, stack: contextlib.ExitStack
) -> tuple[list[socket.socket], list[ClientConnection]]:
    """Five event streams and five WebSockets, each begun."""
    server = restarts.server
    streams = [stack.enter_context(begin(server, "/events")) for _ in range(5)]
    url = f"ws://{server.host}:{server.port}/"
    sockets = [stack.enter_context(connect(url, open_timeout=DEADLINE)) for _ in range(5)]
    for websocket in sockets:
        assert websocket.recv(DEADLINE) == "begun"
    return streams, sockets


@pytest.mark.alone
@pytest.mark.parametrize(("interface", "path", "waits"), CASES)
def test_how_soon_new_code_answers_whatever_runs(
    interface: str, path: str, waits: bool, tmp_path: Path
) -> None:
    with serving(interface, tmp_path, "--reload-grace", str(GRACE)) as restarts:
        idle = restarts.idle()
        with begin(restarts.server, path):
            measured = restarts.measure()
            check_bound(f"{interface} {path}", idle, measured, waits=waits)
        assert restarts.measure()[1] < measured[1] + GRACE * SLOWNESS


@pytest.mark.alone
@pytest.mark.parametrize("interface", SOURCES)
def test_how_soon_new_code_answers_with_nothing_in_flight(interface: str, tmp_path: Path) -> None:
    with serving(interface, tmp_path) as restarts:
        idle = restarts.idle()
        check_bound(f"{interface} idle", idle, restarts.measure(), waits=False)


@pytest.mark.alone
def test_how_soon_new_code_answers_with_many_streams_and_websockets(tmp_path: Path) -> None:
    with serving("asgi", tmp_path) as restarts, contextlib.ExitStack() as stack:
        idle = restarts.idle()
        many(restarts, stack)
        check_bound("asgi streams and WebSockets", idle, restarts.measure(), waits=False)


@pytest.mark.parametrize("path", ["/slow", "/download"])
@pytest.mark.parametrize("interface", SOURCES)
def test_what_ends_within_the_grace_is_answered_in_full(interface: str, path: str, tmp_path: Path) -> None:
    """By the generation that began it, while the next one is loading.

    The grace is a long one, so that half a second is within it on any machine.
    """
    with serving(interface, tmp_path, "--reload-grace", "20") as restarts:
        with begin(restarts.server, path) as sock:
            restarts.save()
            assert restarts.server.wait("change", "restart")
            text = rest(sock)
        assert b"ended by 1" in text
        assert text.endswith(b"0\r\n\r\n")
        assert path == "/slow" or text.count(b"x") == 500_000
        assert restarts.server.get("/").text == "2"


@pytest.mark.parametrize("interface", SOURCES)
def test_programs_of_the_old_generation_end_with_it(interface: str, tmp_path: Path) -> None:
    """With their own programs; but one that made a session of its own is left."""
    with serving(interface, tmp_path) as restarts:
        old = restarts.server.child
        *kin, apart = map(int, restarts.server.get("/programs").text.split())
        try:
            restarts.measure()
            gone(old, 0)
            for pid in kin:
                gone(pid)
            os.kill(apart, 0)
        finally:
            os.kill(apart, signal.SIGKILL)
        # Its end is nobody's business, and leaves no zombie.
        gone(apart)
        restarts.measure()
        assert not Path(f"/proc/{apart}").exists()


def test_programs_of_a_generation_that_is_killed_end_with_it(tmp_path: Path) -> None:
    with serving("asgi", tmp_path) as restarts:
        *kin, apart = map(int, restarts.server.get("/programs").text.split())
        try:
            with begin(restarts.server, "/loop"):
                restarts.measure()
            for pid in kin:
                gone(pid)
            os.kill(apart, 0)
        finally:
            os.kill(apart, signal.SIGKILL)


def test_requests_that_wait_behind_a_loop_are_answered_by_the_new_code(tmp_path: Path) -> None:
    """They were accepted by nobody, or by a loop that does not turn: neither loses them."""
    with (
        serving("asgi", tmp_path) as restarts,
        restarts.server.connect() as kept,
        restarts.server.connect() as posting,
    ):
        for connection in (kept, posting):
            connection.request("GET", "/")
            connection.getresponse().read()
        stuck = begin(restarts.server, "/loop")
        kept.request("GET", "/")
        posting.request("POST", "/", b"x" * 100)
        texts: list[str] = []
        asking = [
            threading.Thread(target=lambda: texts.append(restarts.server.get("/").text)) for _ in range(5)
        ]
        for thread in asking:
            thread.start()
        restarts.measure()
        for thread in asking:
            thread.join(DEADLINE)
        assert texts == ["2"] * 5
        assert [connection.getresponse().read() for connection in (kept, posting)] == [b"2", b"2"]
        stuck.close()


def test_many_connections_are_handed_over_whatever_the_grace(tmp_path: Path) -> None:
    """Who hands over is let finish. Half of them have asked by then, and the new code answers these, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(1500, hard - 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 100), hard))
    path = tmp_path / "number.py"
    path.write_text("NUMBER = 0\n")
    (tmp_path / "app.py").write_text(ASGI)
    arguments = (
        "app:app",
        "--reload",
        "--reload-grace",
        "0",
        "--timeout-keep-alive",
        HOUR,
        "--no-access-log",
    )
    try:
        with DevServer(*arguments, cwd=tmp_path) as server, contextlib.ExitStack() as stack:
            server.serving()
            idle = []
            for _ in range(count):
                connection = stack.enter_context(
                    contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE))
                )
                connection.request("GET", "/")
                assert connection.getresponse().read() == b"0"
                idle.append(connection)
            for number in range(1, 4):
                save(path, f"NUMBER = {number}\n")
                for connection in idle[::2]:
                    connection.request("GET", "/")
                assert server.get("/").text == f"{number}"
                for connection in idle[::2]:
                    assert connection.getresponse().read() == str(number).encode()
                for connection in idle[1::2]:
                    connection.request("GET", "/")
                    assert connection.getresponse().read() == str(number).encode()
                server.restarted()
            assert "was killed" not in server.log
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


SLOW = """
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        if WORD == "begins":
            start_response("200 OK", [])(b"begun")
        environ["wsgi.errors"].write("it waits\\n")
        time.sleep(3600)
    start_response("200 OK", [])
    return [b"good"]

WORD = {word!r}
"""


@pytest.mark.parametrize("word", ["waits", "begins"])
def test_a_request_that_is_cut_off_says_which_option_gives_it_longer(tmp_path: Path, word: str) -> None:
    """A response that has begun cannot: half of it must not look like the whole."""
    app = tmp_path / "app.py"
    save(app, SLOW.format(word=word))
    with DevServer("app", "--reload", "--reload-grace", "0.1", cwd=tmp_path) as server:
        server.serving()
        with server.connect() as connection:
            connection.request("GET", "/slow")
            server.wait_log("it waits")
            save(app, SLOW.format(word="new"))
            why = "cut off: it took longer than 0.1 s (--reload-grace)"
            if word == "waits":
                answer = Answer(connection.getresponse())
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert answer.text == f"this request was {why}\n"
                server.wait_log('"GET /slow HTTP/1.1" 503')
            else:
                with pytest.raises(http.client.IncompleteRead):
                    connection.getresponse().read()
            assert f"GET /slow was {why}" in server.log
        server.restarted()
        assert server.get("/").text == "good"
