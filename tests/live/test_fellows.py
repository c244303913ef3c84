"""Several workers that are restarted together: with `--reload` and `--workers`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.live.clients import Clients
from tests.live.process import USUAL, DevServer, gone, save
from tests.patience import DEADLINE

pytestmark = [pytest.mark.live, pytest.mark.interpreter]

APP = """
import os

VERSION = 1

async def app(scope, receive, send):
    place = os.environ["DEVSERVER_WORKER"]
    if scope["type"] == "lifespan":
        await receive()
        if place == os.environ.get("FAILS"):
            raise RuntimeError("cannot start up")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        with open("ended", "a") as log:
            log.write(place)
        await send({"type": "lifespan.shutdown.complete"})
        return
    text = f"{VERSION} {place} {os.getpid()}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})
"""

ASKS = "import os\nwith open(f'asked-{os.environ[\"DEVSERVER_WORKER\"]}', 'a') as log:\n    log.write('x')\n"
"""What a module does that must know its worker while it is loaded."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


def workers(server: DevServer, count: int = 3) -> dict[int, int]:
    """Wait until all workers of a generation serve, after it has been waited for. Places and process ids."""
    found: dict[int, int] = {}
    while len(found) < count:
        event = server.wait("worker_serving")
        found[event["worker"]] = event["pid"]
    assert sorted(found) == list(range(1, count + 1))
    return found


def seen(server: DevServer, wanted: dict[int, int], version: int) -> None:
    """Ask until all workers have answered; each with its own place, and the newest code."""
    left = set(wanted.values())
    with Clients(server, 3):  # whoever is busy leaves the next connection to another
        while left:
            text = server.get().text.split()
            assert text[0] == str(version)
            assert wanted[int(text[1])] == int(text[2])
            left.discard(int(text[2]))


def test_all_serve_the_newest_code_and_no_request_is_lost(folder: Path) -> None:
    main = folder / "main.py"
    with DevServer("main:app", "--reload", "--workers", "3", cwd=folder) as server:
        server.serving()
        known = workers(server)
        seen(server, known, 1)
        with Clients(server) as clients:
            for version in (2, 3, 4):
                before = set(known.values())
                save(main, APP.replace("VERSION = 1", f"VERSION = {version}"))
                assert server.get().text.startswith(f"{version} ")
                assert server.restarted()["kind"] == USUAL
                known = workers(server)
                assert not before & set(known.values())
        seen(server, known, 4)
        assert not clients.failures
        assert set(clients.answers) == {"200 1", "200 2", "200 3", "200 4"}
        assert sorted((folder / "ended").read_text()) == sorted("123" * 3)
        assert server.stop() == 0
    assert sorted((folder / "ended").read_text()) == sorted("123" * 4)  # the lifespan of each
    for pid in known.values():
        gone(pid)


@pytest.mark.parametrize("restart", ["auto", "cold"])
def test_a_module_may_ask_which_worker_loads_it(folder: Path, restart: str) -> None:
    """Each executes what has asked; from there on, or from nothing."""
    (folder / "asks.py").write_text(ASKS)
    (folder / "main.py").write_text(f"import asks\n{APP}")
    options = ("--reload", "--workers", "3", "--restart", restart)
    with DevServer("main:app", *options, cwd=folder) as server:
        server.serving()
        seen(server, workers(server), 1)
        save(folder / "main.py", f"import asks\n{APP}".replace("VERSION = 1", "VERSION = 2"))
        server.restarted()
        seen(server, workers(server), 2)
        assert [(folder / f"asked-{place}").read_text() for place in (1, 2, 3)] == ["xx", "xx", "xx"]
        if restart == "auto" and USUAL == "warm":
            server.wait_log("asks.py, line 2: reading DEVSERVER_WORKER, which is another one in each worker,")


def test_a_file_of_variables_is_no_reason_to_load_again(folder: Path) -> None:
    pytest.importorskip("dotenv")
    (folder / "env").write_text("HOME_OF_IT=${HOME}/x\n")
    with DevServer("main:app", "--reload", "--workers", "2", "--env-file", "env", cwd=folder) as server:
        server.serving()
        seen(server, workers(server, 2), 1)
        save(folder / "main.py", APP.replace("VERSION = 1", "VERSION = 2"))
        assert server.restarted()["kind"] == "warm"
        seen(server, workers(server, 2), 2)
        assert not server.events("barrier")


def test_who_dies_is_replaced_with_all_others_and_not_for_ever(folder: Path) -> None:
    with DevServer("main:app", "--reload", "--workers", "3", cwd=folder) as server:
        server.serving()
        known = workers(server)
        for _ in range(2):
            os.kill(known[2], signal.SIGKILL)
            assert server.wait("worker_exited", pid=known[2])["wanted"] is False
            server.restarted()
            known = workers(server)
            seen(server, known, 1)
        os.kill(known[3], signal.SIGKILL)
        assert "worker 3: the application's process was ended by SIGKILL" in server.failed()["error"]
        for _ in range(2):
            server.wait("worker_exited", wanted=True)
        assert server.get().status == 500
        save(folder / "main.py", APP.replace("VERSION = 1", "VERSION = 2"))
        server.restarted()
        seen(server, workers(server), 2)


def test_a_startup_that_fails_in_one_of_them_is_shown(folder: Path) -> None:
    with DevServer("main:app", "--reload", "--workers", "2", cwd=folder, env={"FAILS": "2"}) as server:
        server.serving()
        error = server.failed()["error"]
        assert error.startswith("worker 2: ")
        assert "cannot start up" in error
        save(folder / "main.py", APP.replace('"FAILS"', '"NOBODY"'))
        server.restarted()
        seen(server, workers(server, 2), 1)


def test_a_load_that_fails_in_one_of_them_is_shown(folder: Path) -> None:
    fails = "import os\nif os.environ['DEVSERVER_WORKER'] == '2':\n    raise RuntimeError('cannot load')\n"
    (folder / "main.py").write_text(f"{fails}{APP}")
    with DevServer("main:app", "--reload", "--workers", "2", cwd=folder) as server:
        assert server.failed()["error"] == "worker 2: RuntimeError: cannot load"
        save(folder / "main.py", APP)
        server.restarted()
        seen(server, workers(server, 2), 1)


def test_what_a_worker_reads_in_a_request_counts(folder: Path) -> None:
    """Whichever that is: a module that is imported late, by one of them only."""
    (folder / "late.py").write_text("WORD = 'old'\n")
    late = APP.replace(
        '    text = f"{VERSION}',
        '    if place == "2":\n        import late\n        place = late.WORD\n    text = f"{VERSION}',
    )
    (folder / "main.py").write_text(late)
    with DevServer("main:app", "--reload", "--workers", "2", cwd=folder) as server:
        server.serving()
        workers(server, 2)
        with Clients(server, 3):
            while "old" not in server.get().text:
                pass
        save(folder / "late.py", "WORD = 'new'\n")
        server.restarted()
        workers(server, 2)
        with Clients(server, 3):
            while "new" not in (text := server.get().text):
                assert "old" not in text


@pytest.mark.parametrize("options", [[], ["--reload"]])
def test_a_single_process_is_the_first_worker(folder: Path, options: list[str]) -> None:
    with DevServer("main:app", *options, cwd=folder) as server:
        server.serving()
        assert server.get().text.split()[1] == "1"
        assert not server.events("worker_started")


def test_workers_end_with_a_supervisor_that_is_killed(folder: Path) -> None:
    with DevServer("main:app", "--reload", cwd=folder, env={"WEB_CONCURRENCY": "2"}) as server:
        server.serving()
        known = workers(server, 2)
        server.process.kill()
        server.process.wait(DEADLINE)
        for pid in known.values():
            gone(pid)
