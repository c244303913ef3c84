"""What is read in /proc, of this very process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from devserver import procfs
from tests.patience import DEADLINE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")


def test_descriptors_and_what_they_are_open_on() -> None:
    with open(__file__, "rb") as file:
        assert file.fileno() in procfs.descriptors()
        assert procfs.target(file.fileno()) == os.path.realpath(__file__)
        assert b"flags:" in procfs.details(file.fileno())
        closed = file.fileno()
    with pytest.raises(OSError, match="No such file"):
        procfs.target(closed)


def test_who_listens_where() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        inode, port = os.fstat(server.fileno()).st_ino, server.getsockname()[1]
        assert inode in procfs.sockets(os.getpid())
        assert ("127.0.0.1", port, inode) in set(procfs.listeners())
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert ("::1", server.getsockname()[1]) in {(host, port) for host, port, _ in procfs.listeners()}


def test_threads_and_their_names() -> None:
    go_on = threading.Event()
    before = procfs.thread_count()
    thread = threading.Thread(target=go_on.wait, args=(DEADLINE,))
    thread.start()
    try:
        assert thread.native_id in procfs.thread_ids()
        assert procfs.thread_count() == len(procfs.thread_ids()) == before + 1
        assert set(procfs.thread_names()) == procfs.thread_ids()
    finally:
        go_on.set()
        thread.join()


def test_processes() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()", "a b", ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # it is the program by now
        assert process.pid in procfs.pids()
        assert process.pid in procfs.children()
        assert procfs.words(process.pid, "cmdline")[1:] == command[1:]
        process.communicate(b"\n", timeout=DEADLINE)
    assert procfs.words(process.pid, "cmdline") == []
    assert procfs.sockets(process.pid) == set()
    assert procfs.memory(process.pid) == {}


def test_what_a_process_does() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        until = time.monotonic() + DEADLINE
        while not procfs.activity(process.pid).waits:
            assert time.monotonic() < until
        process.communicate(b"\n", timeout=DEADLINE)
    assert not procfs.activity(os.getpid()).waits
    assert procfs.activity(os.getpid()).seconds > 0


def test_signals_that_are_handled() -> None:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        assert procfs.catches(os.getpid(), signal.SIGUSR1)
        assert not procfs.catches(os.getpid(), signal.SIGKILL)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_memory() -> None:
    assert procfs.memory("self")["Rss"] > 2**20
    assert "[stack]" in procfs.maps()
    with procfs.pagemap("self") as file:
        assert file.readable()


def test_what_is_not_there_is_nothing() -> None:
    assert procfs.text("/proc/nothing") == ""
    assert procfs.text(procfs.MOUNTS).count("\n") > 0
