"""Every way to end: Ctrl-C, SIGTERM, twice, kill -9, a terminal that goes."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devserver.cpython import CAN_COPY
from tests.live.process import DevServer, gone, save
from tests.live.projects import INTERRUPTS_ITSELF, PROJECTS, answer
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

APP = """
import asyncio, ctypes, sys, termios, time

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shutdown", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    if path == "/body":
        await send({"type": "http.response.body", "body": b"begun"[:1], "more_body": True})
        body = (await receive())["body"]
        while len(body) < 4:
            body += (await receive())["body"]
        await send({"type": "http.response.body", "body": body})
    elif path == "/endless":
        await send({"type": "http.response.body", "body": b"b", "more_body": True})
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
    elif path == "/gil":
        await send({"type": "http.response.body", "body": b"b", "more_body": True})
        asyncio.get_running_loop().call_later(0.01, ctypes.PyDLL(None).sleep, 3600)
        await asyncio.sleep(3600)
    elif path == "/mute":
        settings = termios.tcgetattr(0)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSANOW, settings)
        await send({"type": "http.response.body", "body": b"muted"})
    else:
        await send({"type": "http.response.body", "body": b"hello"})
"""
"""Answers / at once, /body when the request's four bytes have come, /endless and /gil never."""

RELOAD = pytest.mark.parametrize("reload", [["--reload"], []], ids=["reload", "alone"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the application."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


class Begun:
    """A request whose response has begun, beside an idle connection that shows when a drain begins."""

    def __init__(self, server: DevServer, path: str) -> None:
        self._sockets = [socket.create_connection(("127.0.0.1", server.port), DEADLINE) for _ in range(2)]
        self._request, self._idle = self._sockets
        self._idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self._until(self._idle, b"hello")
        self._request.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n".encode()
        )
        self._until(self._request, b"\r\n\r\nb")

    def __enter__(self) -> Begun:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            sock.close()

    @staticmethod
    def _until(sock: socket.socket, text: bytes) -> None:
        data = b""
        while text not in data:
            more = sock.recv(65536)
            assert more, data
            data += more

    def draining(self) -> None:
        """Wait until the server has begun to end: idle connections are closed first."""
        assert self._idle.recv(1) == b""

    def finish(self) -> bytes:
        """Send the body. Returns the rest of the response."""
        self._request.sendall(b"egun")
        return self._rest()

    def _rest(self) -> bytes:
        data = b""
        while more := self._request.recv(65536):
            data += more
        return data


# Ctrl-C and SIGTERM


def control_c(server: DevServer) -> None:
    """To the whole group, as a terminal sends it."""
    server.interrupt()


def terminate(server: DevServer) -> None:
    """To the first process only, as `docker stop` and IDEs send it."""
    server.process.send_signal(signal.SIGTERM)


SIGNALS = pytest.mark.parametrize("end", [control_c, terminate])
BOTH = pytest.mark.parametrize(("end", "reload"), [(control_c, ["--reload"]), (terminate, [])])
"""Each way to end it, and each way to run it, once."""


@RELOAD
@SIGNALS
def test_request_in_flight_is_finished_and_lifespan_shut_down_once(
    end: Callable[[DevServer], None], reload: list[str], folder: Path
) -> None:
    arguments = ("app:app", *reload, "--timeout-graceful-shutdown", "3600")
    with DevServer(*arguments, cwd=folder, new_session=True) as server:
        server.serving()
        with Begun(server, "/body") as request:
            end(server)
            request.draining()
            assert server.process.poll() is None
            assert request.finish() == b"egun"
        assert server.ended() == 0
        assert server.log.count("shutdown\n") == 1
        assert "Traceback" not in server.log
        assert "error" not in server.log
        assert server.events("stopped") == server.seen[-1:]
        refused(server)


def refused(server: DevServer) -> None:
    """Nobody listens any more, and the port can be had."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", server.port))
        sock.listen()


@BOTH
def test_idle_server_ends_at_once(end: Callable[[DevServer], None], reload: list[str], folder: Path) -> None:
    arguments = ("app:app", *reload, "--timeout-graceful-shutdown", "3600")
    with DevServer(*arguments, cwd=folder, new_session=True) as server:
        server.serving()
        assert server.get("/").text == "hello"
        end(server)
        assert server.ended() == 0
        assert server.log.count("shutdown\n") == 1
        assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("path", "reload"),
    [("/endless", ["--reload"]), ("/endless", []), ("/gil", ["--reload"])],  # alone it would hear no signal
    ids=["endless-reload", "endless-alone", "gil-reload"],
)
def test_what_does_not_end_is_ended_after_the_graceful_timeout(
    path: str, reload: list[str], folder: Path
) -> None:
    with DevServer("app:app", *reload, "--timeout-graceful-shutdown", "0.2", cwd=folder) as server:
        server.serving()
        with Begun(server, path):
            terminate(server)
            assert server.ended() == 0
        gone(server.child, 0)
        refused(server)


TAKES = {
    "signal": "signal.signal(number, lambda *_: print('heard', flush=True))",
    "loop": "asyncio.get_running_loop().add_signal_handler(number, print, 'heard')",
}


@pytest.mark.parametrize(
    ("loop", "how", "started"),
    [
        ("asyncio", "signal", True),
        ("asyncio", "loop", False),
        ("uvloop", "signal", False),
        ("uvloop", "loop", True),
    ],
)
def test_a_lifespan_that_takes_the_signals_does_not_keep_it_up(
    loop: str, how: str, started: bool, tmp_path: Path
) -> None:
    """It wants to know of the end, and is told."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    (tmp_path / "app.py").write_text(
        "import asyncio, os, signal\n"
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'lifespan'\n"
        "    await receive()\n"
        "    for number in (signal.SIGINT, signal.SIGTERM):\n"
        f"        {TAKES[how]}\n"
        "    for _ in range(50):\n"  # until somebody has looked
        "        await asyncio.sleep(0.01)\n"
        "    print('taken', flush=True)\n"
        f"    if not {started}: await asyncio.sleep(3600)\n"
        "    await send({'type': 'lifespan.startup.complete'})\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.shutdown.complete'})\n"
    )
    with DevServer("app:app", "--loop", loop, cwd=tmp_path, new_session=True) as server:
        server.serving() if started else server.wait_log("taken")
        (control_c if started else terminate)(server)
        assert server.ended() == 0
        assert "heard" in server.log
        assert "Traceback" not in server.log


def test_a_blocked_loop_is_ended_after_the_graceful_timeout(tmp_path: Path) -> None:
    """Not later: a shutdown that cannot begin has no time of its own."""
    (tmp_path / "app.py").write_text(
        "import time\n"
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    print('blocked', flush=True)\n"
        "    time.sleep(3600)\n"
    )
    with DevServer("app:app", "--timeout-graceful-shutdown", "0.2", cwd=tmp_path) as server:
        server.serving()
        with server.asking():
            server.wait_log("blocked")
            terminate(server)
            assert server.ended() == 0
        assert "still running at the end of --timeout-graceful-shutdown" in server.log


@BOTH
def test_second_signal_ends_at_once(
    end: Callable[[DevServer], None], reload: list[str], folder: Path
) -> None:
    arguments = ("app:app", *reload, "--timeout-graceful-shutdown", "600")
    with DevServer(*arguments, cwd=folder, new_session=True) as server:
        server.serving()
        with Begun(server, "/endless") as request:
            end(server)
            request.draining()
            end(server)
            server.ended()
        gone(server.child)
        assert "Traceback" not in server.log
        refused(server)


@pytest.mark.parametrize("state", ["failed", "loading"])
def test_ends_in_every_state(state: str, folder: Path) -> None:
    (folder / "app.py").write_text("TEXT = (" if state == "failed" else "import time; time.sleep(3600)")
    with DevServer("app:app", "--reload", cwd=folder) as server:
        if state == "failed":
            server.failed()
        else:
            server.wait("starting")
        assert server.stop(signal.SIGTERM) == 0
        if state == "loading":
            assert "Traceback" not in server.log


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_signal_that_another_thread_gets(loop: str, tmp_path: Path) -> None:
    """The kernel may choose any. The main one, which handles it, waits and is not woken by it."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    PROJECTS["wsgi"].make(tmp_path).write_text(answer("soon", ask=INTERRUPTS_ITSELF))
    with DevServer("app:application", "--loop", loop, cwd=tmp_path) as server:
        server.serving()
        assert server.get("/").text == "soon"
        assert server.ended() == 0


# kill -9


@pytest.mark.parametrize("path", ["/", "/endless", "/gil"])
def test_killed_supervisor_leaves_nothing_behind(path: str, folder: Path) -> None:
    with DevServer("app:app", "--reload", cwd=folder) as server:
        server.serving()
        save(folder / "app.py", f"{APP}\n")
        server.restarted()
        if CAN_COPY:
            server.wait("prepared")  # from now on there is a copy, and none is being made
        with Begun(server, path) if path != "/" else contextlib.nullcontext():
            pids = server.processes()
            assert server.child in pids
            server.process.kill()
            for pid in pids:
                gone(pid)
            refused(server)


@pytest.mark.parametrize("state", ["failed", "loading"])
def test_killed_supervisor_leaves_nothing_behind_while_it_waits(state: str, folder: Path) -> None:
    loading = "import ctypes; print('loading', flush=True); ctypes.PyDLL(None).sleep(3600)"
    (folder / "app.py").write_text("TEXT = (" if state == "failed" else loading)
    with DevServer("app:app", "--reload", cwd=folder) as server:
        if state == "failed":
            server.failed()
            assert server.get("/").status == 500
            if CAN_COPY:
                server.wait("prepared")
        else:
            server.listening()
            server.wait_log("loading")
        pids = server.processes()
        assert pids
        server.process.kill()
        for pid in pids:
            gone(pid)
        refused(server)


def test_nothing_is_left_behind_by_a_clean_end(folder: Path) -> None:
    with DevServer("app:app", "--reload", cwd=folder) as server:
        server.serving()
        save(folder / "app.py", f"{APP}\n")
        server.restarted()
        pids = server.processes()
        assert server.stop() == 0
        for pid in pids:
            gone(pid)


# SIGHUP and terminals


@pytest.mark.parametrize("state", ["serving", "failed"])
def test_hangup_without_a_terminal_restarts(state: str, tmp_path: Path) -> None:
    path = PROJECTS["asgi"].make(tmp_path)
    if state == "failed":
        path.write_text("TEXT = (")
    with DevServer("app:app", "--reload", cwd=tmp_path, new_session=True) as server:
        if state == "serving":
            server.serving()
            server.process.send_signal(signal.SIGHUP)
            assert server.restarted()["reason"] == "SIGHUP"
        else:
            server.failed()
            server.process.send_signal(signal.SIGHUP)
            assert server.wait("restart")["reason"] == "SIGHUP"
        assert server.stop() == 0


def test_nohup_ignores_hangups(tmp_path: Path) -> None:
    """Absence is shown by the save that comes after the signal."""
    path = PROJECTS["asgi"].make(tmp_path)
    command = ["nohup", sys.executable, "-m", "devserver", "app:app", "--reload"]
    with DevServer(command=command, cwd=tmp_path, new_session=True) as server:
        server.serving()
        os.killpg(server.process.pid, signal.SIGHUP)
        save(path, answer("two"))
        assert server.restarted()["reason"] == "answer.py changed"
        assert server.get("/").text == "two"
        assert len(server.events("restart")) == 1
        assert server.stop() == 0


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both sides of a pseudo-terminal: ours, and the program's."""
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        for fd in (ours, theirs):
            with contextlib.suppress(OSError):
                os.close(fd)


def on_terminal(*arguments: str) -> list[str]:
    """A command whose standard input is its controlling terminal."""
    return ["setsid", "--ctty", sys.executable, "-m", "devserver", *arguments]


def echoes(fd: int) -> bool:
    """Whether a terminal shows what is typed."""
    return bool(termios.tcgetattr(fd)[3] & termios.ECHO)


@pytest.mark.parametrize("how", ["child killed", "restart", "end"])
def test_terminal_echoes_again(how: str, terminal: tuple[int, int], folder: Path) -> None:
    _, theirs = terminal
    with DevServer(command=on_terminal("app:app", "--reload"), cwd=folder, stdin=theirs) as server:
        server.serving()
        assert echoes(theirs)
        assert server.get("/mute").text == "muted"
        assert not echoes(theirs)
        if how == "end":
            assert server.stop() == 0
        elif how == "restart":
            save(folder / "app.py", f"{APP}\n")
            server.restarted()
        else:
            os.kill(server.child, signal.SIGKILL)
            server.restarted()
        assert echoes(theirs)


def test_keys_of_the_terminal(terminal: tuple[int, int], folder: Path) -> None:
    ours, theirs = terminal
    with DevServer(command=on_terminal("app:app", "--reload"), cwd=folder, stdin=theirs) as server:
        server.serving()
        os.write(ours, b"r\n")
        server.restarted()
        assert server.get("/").text == "hello"
        os.write(ours, b"\x03")  # Ctrl-C: the terminal makes it a signal to the group in front
        assert server.ended() == 0
        assert server.log.count("shutdown\n") == 2
        assert "Traceback" not in server.log


def test_terminal_that_goes_ends_it(terminal: tuple[int, int], folder: Path) -> None:
    ours, theirs = terminal
    with DevServer(command=on_terminal("app:app", "--reload"), cwd=folder, stdin=theirs) as server:
        server.serving()
        pids = server.processes()
        os.close(theirs)
        os.close(ours)
        server.ended()
        for pid in pids:
            gone(pid)
        refused(server)


def test_a_signal_that_comes_as_soon_as_it_listens_ends_it_cleanly(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / str(number)
        path.mkdir()
        project = PROJECTS["wsgi"]
        project.make(path)
        with DevServer(project.target, "--reload", cwd=path) as server:
            server.listening()
            assert server.stop() == 0
            assert "Traceback" not in server.log
            assert "KeyboardInterrupt" not in server.log


def test_an_interrupt_before_anything_has_begun_shows_no_traceback(tmp_path: Path) -> None:
    """Somebody has typed the wrong thing, and sees it at once."""
    program = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "devserver.cli":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
sys.meta_path.insert(0, Finder())
from devserver.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "")
