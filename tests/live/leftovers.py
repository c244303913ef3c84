"""What a server has left behind when it is gone: processes, which carry a mark, and listeners."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from tests.live.process import DevServer, gone
from tests.patience import DEADLINE

MARK = "DEVSERVER_TEST_TREE"
"""What the test started, and all that this starts, has it in its environment."""


def tree(mark: str) -> set[int]:
    """Every process that carries a mark."""
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return found


@contextlib.contextmanager
def nothing_is_left(server: DevServer, mark: str) -> Iterator[set[int]]:
    """Everything that lives now, and whatever comes of it, is gone soon after what is done inside."""
    shell = {server.process.pid} - {server.supervisor}
    before = tree(mark) - shell
    assert server.supervisor in before
    yield before
    end = time.monotonic() + DEADLINE
    server.ended()
    for pid in before:
        gone(pid, max(0.0, end - time.monotonic()))
    while left := tree(mark) - shell:  # what was being started meanwhile
        assert time.monotonic() < end, left
    for host in ("127.0.0.1", "::1"):
        while not is_free(host, server.port):  # a process that ends loses its mark before its sockets
            assert time.monotonic() < end, host


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens, and a server could."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
        return True
