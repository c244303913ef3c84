"""Several processes that serve: started, told, replaced, ended."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.clients import Clients
from tests.live.process import DevServer, gone
from tests.live.terminal import OnTerminal
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

APP = """
import os, sys, time

VERSION = 1
if os.environ.get("DEVSERVER_WORKER") == os.environ.get("FAILS"):
    raise RuntimeError("cannot load")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        log = open("ended", "a")  # not closed: what it holds must be written all the same
        log.write(os.environ["DEVSERVER_WORKER"])
        await send({"type": "lifespan.shutdown.complete"})
        app.log = log
        return
    if scope["path"] == "/hang":
        time.sleep(3600)
    if scope["path"] == "/die":
        os._exit(7)
    if scope["path"] == "/grow":
        app.held = bytearray(os.urandom(1 << 20) * 200)
    text = f"{VERSION} {os.environ['DEVSERVER_WORKER']} {os.getpid()}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})

async def held(scope, receive, send):
    if scope["type"] == "lifespan":
        return await app(scope, receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass

def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        time.sleep(3600)
    start_response("200 OK", [])
    return [os.environ["DEVSERVER_WORKER"].encode()]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


@contextlib.contextmanager
def serves(*arguments: str, cwd: Path) -> Iterator[DevServer]:
    with DevServer(*arguments, cwd=cwd) as server:
        server.serving()
        yield server


def pids(server: DevServer) -> set[int]:
    """The workers that live, by the events so far."""
    started = {event["pid"] for event in server.events("worker_started")}
    return started - {event["pid"] for event in server.events("worker_exited")}


def answer(server: DevServer) -> tuple[str, str, int]:
    version, place, pid = server.get().text.split()
    return version, place, int(pid)


def test_all_serve_and_all_end(folder: Path) -> None:
    (folder / "pid").write_text("999999999\n")  # of a process that ended long ago
    with DevServer("main:app", "--workers", "3", "--pidfile", "pid", cwd=folder) as server:
        server.serving()
        assert (folder / "pid").read_text() == f"{server.supervisor}\n"
        workers = pids(server)
        assert len(workers) == 3
        with Clients(server, 3):
            seen = set[int]()
            while seen != workers:
                seen.add(answer(server)[2])
        assert "devserver: 3 workers ready in" in server.log
        server.process.send_signal(signal.SIGTERM)
        server.wait("stopping")
        server.wait("stopped")
        assert server.process.wait(DEADLINE) == 0
    assert sorted((folder / "ended").read_text()) == ["1", "2", "3"]  # by the lifespan of each
    assert not (folder / "pid").exists()
    for pid in workers:
        gone(pid)


def test_the_log_says_which_worker(folder: Path) -> None:
    with DevServer("main:app", "--workers", "2", cwd=folder) as server:
        server.serving()
        _, place, _ = answer(server)
        server.wait_log(f"[{place}] 127.0.0.1:")


def test_a_second_server_with_the_same_pidfile_is_refused(folder: Path) -> None:
    (folder / "pid").write_text(f"{os.getpid()}\n")
    with DevServer("main:app", "--pidfile", "pid", cwd=folder) as server:
        assert server.process.wait(DEADLINE) == 2
        assert "runs, whose file that is" in server.log
    assert (folder / "pid").read_text() == f"{os.getpid()}\n"


def test_who_reads_the_pidfile_may_send_signals(folder: Path) -> None:
    """However early: a script waits for the file, and then has all workers replaced."""
    with DevServer("main:app", "--workers", "2", "--pidfile", "pid", cwd=folder) as server:
        text = ""
        while not text.endswith("\n") and server.process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                text = (folder / "pid").read_text()
        os.kill(int(text), signal.SIGHUP)
        server.serving()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("kills", [signal.SIGKILL, signal.SIGTERM])
def test_who_dies_is_replaced_and_nobody_else_notices(folder: Path, kills: int) -> None:
    with DevServer("main:app", "--workers", "2", cwd=folder) as server:
        server.serving()
        _, place, pid = answer(server)
        os.kill(pid, kills)
        # Who leaves by itself may do so after its successor serves.
        heard = {server.wait("worker_exited", "worker_serving")["event"] for _ in range(2)}
        assert heard == {"worker_exited", "worker_serving"}
        [ended] = server.events("worker_exited")
        assert (ended["pid"], ended["worker"], ended["wanted"]) == (pid, int(place), kills == signal.SIGTERM)
        assert answer(server)[0] == "1"
        assert ("ended (SIGKILL), and is started again now" in server.log) == (kills == signal.SIGKILL)


def test_signals_change_the_workers_and_no_request_is_lost(folder: Path) -> None:
    """TTIN, HUP with new code, HUP with code that cannot load, TTOU; and the end.

    Each version has a size of its own, by which Python knows it from one of the same second.
    """
    main = folder / "main.py"
    with serves("main:app", "--workers", "2", cwd=folder) as server, Clients(server) as clients:
        server.process.send_signal(signal.SIGTTIN)
        server.wait("worker_serving", worker=3)

        before = pids(server)
        main.write_text(APP.replace("VERSION = 1", "VERSION = 2  # new"))
        server.process.send_signal(signal.SIGHUP)
        while before & pids(server):
            server.wait("worker_exited", wanted=True)
        assert answer(server)[0] == "2"
        answered = clients.answers["200 1"]

        before = pids(server)
        main.write_text("syntax error")
        server.process.send_signal(signal.SIGHUP)
        assert "syntax" in server.wait("failed")["error"]
        server.wait("worker_exited", wanted=False)
        assert before <= pids(server)
        assert answer(server)[0] == "2"
        assert clients.answers["200 1"] <= answered + clients.count  # each may not have counted one yet

        main.write_text(APP.replace("VERSION = 1", "VERSION = 3  # newest"))
        server.process.send_signal(signal.SIGHUP)
        while before & pids(server):
            server.wait("worker_exited", wanted=True)
        server.process.send_signal(signal.SIGTTOU)
        server.wait("worker_exited", worker=3, wanted=True)
        assert answer(server)[0] == "3"
    assert not clients.failures
    assert set(clients.answers) == {"200 1", "200 2", "200 3"}


@pytest.mark.parametrize("target", ["main:app", "main:wsgi"])
def test_who_stands_still_is_replaced(folder: Path, target: str) -> None:
    """A loop that is blocked; and threads that are all at work and never come to an end."""
    options = ("--timeout-worker-healthcheck", "1", "--wsgi-threads", "2")
    with DevServer(target, "--workers", "1", "--limit-max-requests", "999", *options, cwd=folder) as server:
        server.serving()
        [pid] = pids(server)
        connections = [http.client.HTTPConnection(server.host, server.port) for _ in range(2)]
        for connection in connections:
            connection.request("GET", "/hang")
        ended = server.wait("worker_exited", pid=pid)
        assert ended["code"] in (-signal.SIGABRT, -signal.SIGKILL)
        server.wait_log("has stood still for 1 s (--timeout-worker-healthcheck)")
        if ended["code"] == -signal.SIGABRT:
            server.wait_log('main.py", line')  # where it stood
        assert server.get().status == 200  # its successor may serve since before that
        for connection in connections:
            connection.close()


def test_who_was_stopped_with_all_others_has_not_stood_still(folder: Path) -> None:
    """Ctrl-Z, and fg after a while."""
    options = ("--workers", "2", "--timeout-worker-healthcheck", "5")
    with DevServer("main:app", *options, cwd=folder, new_session=True) as server:
        server.serving()
        os.killpg(server.supervisor, signal.SIGSTOP)
        server.idle(7)  # longer than the timeout
        os.killpg(server.supervisor, signal.SIGCONT)
        server.process.send_signal(signal.SIGTTIN)
        server.wait("worker_serving", worker=3)
        assert not server.events("worker_exited")
        assert "has stood still" not in server.log


def test_a_connection_that_waits_for_a_worker_is_nobody_elses(folder: Path) -> None:
    """One that is forked meanwhile has no copy of it, and its client sees its end."""
    (folder / "main.py").write_text("import os, time\nwhile os.path.exists('waits'): time.sleep(.01)\n" + APP)
    with (
        serves("main:app", "--limit-max-requests", "999", cwd=folder) as server,
        server.connect() as connection,
    ):
        connection.request("GET", "/")
        _, _, pid = connection.getresponse().read().split()
        (folder / "waits").touch()
        os.kill(int(pid), signal.SIGTERM)
        server.wait("worker_exited", pid=int(pid))
        server.process.send_signal(signal.SIGTTIN)
        server.wait("worker_started", worker=2)
        (folder / "waits").unlink()
        assert connection.sock is not None
        connection.sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := connection.sock.recv(1 << 16):
            answer += data
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_who_has_served_enough_is_replaced_and_no_request_is_lost(folder: Path) -> None:
    options = ("--limit-max-requests", "20", "--limit-max-requests-jitter", "10")
    with (
        serves("main:app", "--workers", "2", *options, cwd=folder) as server,
        Clients(server, 4) as clients,
    ):
        for _ in range(6):
            assert server.wait("worker_exited")["wanted"]
    assert not clients.failures
    assert set(clients.answers) == {"200 1"}


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not say")
def test_who_holds_too_much_memory_is_replaced(folder: Path) -> None:
    with DevServer("main:app", "--limit-max-memory", "150", cwd=folder) as server:
        server.serving()
        [pid] = pids(server)
        server.get("/grow")
        assert server.wait("worker_exited")["pid"] == pid
        server.wait_log("MiB (--limit-max-memory 150)")
        assert answer(server)[2] != pid


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not say")
def test_who_needs_more_memory_than_it_may_have_is_not_replaced_for_ever(folder: Path) -> None:
    """It would be, once in a second, by one that needs as much."""
    (folder / "main.py").write_text("import os\nHELD = os.urandom(1 << 20) * 150\n" + APP)
    options = ("--limit-max-memory", "100", "--workers", "2")
    with DevServer("main:app", *options, cwd=folder) as server:
        server.serving()
        server.process.send_signal(signal.SIGTTIN)
        server.wait("worker_serving", worker=3)
        server.get("/grow")
        server.wait_log("--limit-max-memory 100 has no effect on it")
        server.get()
        assert not server.events("worker_exited")
        assert server.log.count("--limit-max-memory 100 has no effect on it") == 1


@pytest.mark.parametrize("fails", ["1", "2"])
def test_what_cannot_start_ends_it_with_its_reason(folder: Path, fails: str) -> None:
    with DevServer("main:app", "--workers", "2", cwd=folder, env={"FAILS": fails}) as server:
        # One of two that fails after the other has served is begun again, less and less often.
        if server.wait("stopped", "serving", "worker_serving")["event"] == "stopped":
            assert server.process.wait(DEADLINE) == 1
        server.wait_log("RuntimeError: cannot load")


@pytest.mark.parametrize(
    ("main", "told"),
    [("import os; os._exit(7)", "(exit code 7)"), ("import sys; sys.exit('set SHOP_KEY')", "set SHOP_KEY")],
)
def test_who_ends_without_a_word_is_not_the_end_without_a_word(folder: Path, main: str, told: str) -> None:
    (folder / "main.py").write_text(main)
    with DevServer("main:app", "--workers", "2", cwd=folder) as server:
        assert server.process.wait(DEADLINE) == (7 if "_exit" in main else 1)
        assert told in server.log
        assert server.log.count("before any served: that ends the server") == 1


def test_nohup_outlives_the_terminal(folder: Path) -> None:
    """Its end is told by SIGHUP, which after that is what it is without a terminal."""
    program = ("/usr/bin/env", "nohup", sys.executable, "-m", "devserver")
    with OnTerminal("main:app", "--workers", "2", cwd=folder, program=program) as server:
        server.serving()
        workers = pids(server)
        server.hangs_up()
        os.kill(server.supervisor, signal.SIGTTIN)
        server.wait("worker_serving", worker=3)
        assert pids(server) > workers
        os.kill(server.supervisor, signal.SIGHUP)
        while workers & pids(server):
            server.wait("worker_exited", wanted=True)
        assert not server.events("stopping")
        assert server.stop(signal.SIGTERM) == 0


def test_nothing_is_left_when_the_arbiter_is_killed(folder: Path) -> None:
    with DevServer("main:app", "--workers", "2", cwd=folder) as server:
        server.serving()
        workers = pids(server)
        server.process.kill()
        server.process.wait()
        for pid in workers:
            gone(pid)


def test_nor_is_what_workers_have_forked(folder: Path) -> None:
    """It has no program of its own, and so no environment by which the guardian could know it."""
    forks = """
import os, time
if not (pid := os.fork()):
    time.sleep(9999)
open("pids", "a").write(f"{pid} ")
"""
    (folder / "main.py").write_text(forks + APP)
    with DevServer("main:app", "--workers", "2", cwd=folder) as server:
        server.serving()
        server.process.kill()
        server.process.wait()
        for pid in (folder / "pids").read_text().split():
            gone(int(pid))


@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGINT])
def test_the_end_does_not_wait_for_who_hangs(folder: Path, signum: int) -> None:
    """SIGQUIT ends it at once, a first SIGINT after the grace."""
    grace = ("--timeout-graceful-shutdown", "0.2" if signum == signal.SIGINT else "3600")
    with DevServer("main:app", "--workers", "2", *grace, cwd=folder) as server:
        server.serving()
        with server.connect() as connection:
            connection.request("GET", "/hang")
            server.process.send_signal(signum)
            assert server.process.wait(DEADLINE) == 0
        for pid in pids(server):
            gone(pid)


def test_a_script_with_threads_is_told_who_wanted_workers(folder: Path) -> None:
    """It may not have asked for any: the environment has."""
    (folder / "script.py").write_text("""
import devserver, threading, time
threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
devserver.run("main:app", port=0)
""")
    command = [sys.executable, "script.py"]
    ended = subprocess.run(
        command, cwd=folder, env={**os.environ, "WEB_CONCURRENCY": "2"}, stderr=subprocess.PIPE, check=False
    )
    assert ended.returncode == 1
    assert b"WEB_CONCURRENCY" in ended.stderr


@pytest.mark.parametrize("options", [[], ["--preload"]])
def test_a_limit_of_requests_is_one_of_all_workers(folder: Path, options: list[str]) -> None:
    limits = ("--limit-concurrency", "3", "--timeout-graceful-shutdown", "0.1")
    with DevServer(
        "main:held", "--workers", "2", *limits, *options, cwd=folder, env={"FAILS": "-"}
    ) as server:
        server.serving()
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(server.connect()) for _ in range(3)]
            for connection in held:
                connection.request("GET", "/")
                connection.getresponse()  # its head, at once; the body goes on
            assert server.get().status == 503
            assert "--limit-concurrency" in server.get().text
            before = pids(server)
            os.kill(min(before), signal.SIGKILL)  # with whatever it had
            server.wait("worker_exited", wanted=False)
            server.wait("worker_serving")
            os.kill(max(before), signal.SIGKILL)
            server.wait("worker_exited", wanted=False)
            server.wait("worker_serving")
            connection = stack.enter_context(server.connect())
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
