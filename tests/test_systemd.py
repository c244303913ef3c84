"""What systemd passes and is told, without systemd; tests/live/test_managers.py has the real programs."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import threading

import pytest

from devserver.config import Bind
from devserver.errors import UsageError
from devserver.managers import given, systemd
from devserver.managers.systemd import Notifier, Passed, Words, take_sockets, watchdog_in
from devserver.origin import environ_for_another
from tests.patience import DEADLINE

OURS = {"LISTEN_PID": "7", "LISTEN_FDS": "2"}
TRACE = """Traceback (most recent call last):
  File "/srv/shop/main.py", line 3, in <module>
    import orders
  File "/srv/shop/orders.py", line 8, in <module>
    json.loads("")
  File "/venv/site-packages/json5/lib.py", line 99, in loads
ValueError: nothing
"""


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({}, ["", ""]),
        ({"LISTEN_FDNAMES": "web:local"}, ["web", "local"]),
        ({"LISTEN_FDNAMES": "web:unknown"}, ["web", ""]),
        ({"LISTEN_FDNAMES": "web"}, ["web", ""]),
        ({"LISTEN_FDNAMES": "web:local:more", "LISTEN_PIDFDID": "3"}, ["web", "local"]),
    ],
)
def test_sockets_have_names(more: dict[str, str], names: list[str]) -> None:
    environ = {**OURS, **more, "HOME": "/"}
    assert take_sockets(environ, 7) == [Passed(3, names[0]), Passed(4, names[1])]
    assert environ == {"HOME": "/"}


def test_sockets_of_another_process_are_left_to_it() -> None:
    environ = dict(OURS)
    assert take_sockets(environ, 8) == []
    assert environ == OURS


def test_a_number_of_sockets_that_is_none() -> None:
    with pytest.raises(UsageError, match="not 'two'; unset LISTEN_PID"):
        take_sockets({**OURS, "LISTEN_FDS": "two"}, 7)


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_of_this_process(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_in(environ, 7) == seconds


def test_words_with_reload() -> None:
    words = Words(lives_on=True)
    failure = {"error": "ValueError: nothing\nREADY=1", "traceback": TRACE}
    failed = "failed: ValueError: nothing READY=1 (/srv/shop/orders.py, line 8)"
    assert words.of("listening", {}, 0.0) == {}
    assert words.of("starting", {"target": "shop:app"}, 0.0) == {"STATUS": "loading shop:app"}
    assert words.of("serving", {}, 0.0) == {"READY": "1", "STATUS": "serving shop:app"}
    assert words.of("restart", {"reason": "orders.py changed"}, 1.5) == {
        "RELOADING": "1",
        "MONOTONIC_USEC": "1500000",
        "STATUS": "loading shop:app: orders.py changed",
    }
    assert words.of("failed", failure, 0.0) == {"READY": "1", "STATUS": failed}
    assert words.of("failed_again", {}, 0.0) == {"READY": "1", "STATUS": failed}
    assert words.of("stopping", {}, 0.0) == {"STOPPING": "1", "STATUS": "finishing requests"}
    assert words.of("stopped", {}, 0.0) == {}


def test_words_of_a_server_that_a_failure_ends() -> None:
    words = Words(lives_on=False)
    assert words.of("starting", {"target": None}, 0.0) == {"STATUS": "loading the application"}
    assert words.of("failed", {"error": "no", "traceback": ""}, 0.0) == {"STATUS": "failed: no"}


def test_whoever_is_not_listened_to_is_not_told() -> None:
    for address in ("", "vsock:2:1234", "relative"):
        environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "HOME": "/"}
        assert Notifier.take(environ, 7, lives_on=True) is None
        assert environ == {"HOME": "/"}


@pytest.mark.skipif(os.name == "nt", reason="there are no Unix sockets in Python on Windows")
def test_a_manager_that_is_gone_stops_nothing() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere/at/all"}
    notifier = Notifier.take(environ, 7, lives_on=True)
    assert notifier is not None
    notifier.happened("serving", {})
    assert notifier.deadlines() == []
    notifier.close()


@pytest.mark.skipif(os.name == "nt", reason="there are no Unix sockets in Python on Windows")
def test_a_manager_that_is_slow_hears_of_every_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket is full of words for the watchdog; they are dropped, and a state waits for room."""
    monkeypatch.setattr(systemd, "_PATIENCE", struct.pack("ll", int(DEADLINE), 0))
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{folder}/notify")
        manager.settimeout(DEADLINE)
        environ = {"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "1000"}
        notifier = Notifier.take(environ, 7, lives_on=True)
        assert notifier is not None
        for _ in range(1000):
            notifier.beat()
        thread = threading.Thread(target=notifier.happened, args=("serving", {}))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive(), "it does not wait for room"
        heard: list[bytes] = []
        while not heard or heard[-1] == b"WATCHDOG=1":
            heard.append(manager.recv(4096))
        thread.join()
        assert heard[-1].startswith(b"READY=1\n")
        assert len(heard) < 1000
        notifier.close()


def test_a_successor_becomes_the_process_of_the_service() -> None:
    """It is told the same variables, and after that its predecessor says nothing: not that it stops."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address := f"{folder}/notify")
        environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}
        notifier = Notifier.take(environ, 7, lives_on=False)
        assert notifier is not None
        assert environ == {}
        assert notifier.variables == {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}
        notifier.hand_to(9)
        notifier.happened("stopping", {})
        notifier.be_punctual(1e9)
        assert notifier.deadlines() == []
        notifier.close()
        manager.setblocking(False)
        assert manager.recv(4096) == b"MAINPID=9"
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


def test_what_was_for_one_process_is_not_given_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devserver.origin.environ_of", lambda process: {**OURS, "HOME": "/", "A": "1"})
    assert environ_for_another({"HOME": "/elsewhere"}) == {"HOME": "/", "A": "1"}


def test_nothing_is_said_where_there_is_no_manager() -> None:
    assert given.lines(Bind(), {}, 7) == []
    assert given.unused(Bind(), {}, 7) == frozenset()


def test_what_a_manager_has_given_is_said() -> None:
    environ = {
        **OURS,
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "3000000",
        "SUPERVISOR_ENABLED": "1",
        "SUPERVISOR_PROCESS_NAME": "web_00",
        "SUPERVISOR_GROUP_NAME": "web",
    }
    before = dict(environ)
    assert given.unused(Bind(), environ, 7) == {"host", "port", "uds"}
    lines = given.lines(Bind(fd=99_999), environ, 7)
    assert environ == before
    assert [line.partition(":")[0] for line in lines] == [
        "--fd",
        "LISTEN_FDS",
        "LISTEN_FDS",
        "supervisor",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
    ]
    assert lines[1].endswith("not used: --fd comes first")
    assert given.lines(Bind(), {}, 1) == [
        "PID 1: the server is a container's first process, and removes zombies"
    ]
