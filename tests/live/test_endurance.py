"""Restarts in a row cost nothing that lasts: no memory, no descriptor, no process."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import pytest

from tests.live.process import DevServer, save, tell
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

APP = """
from number import NUMBER

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(NUMBER).encode()})
"""

WARM = 10
"""Restarts before the first measure: by then everything is imported and every pool has its size."""

GROWTH = 1024
"""KiB that the supervisor may have more in the end: what an allocator keeps, not what leaks."""

CHECKPOINTS = 2
"""Checkpoints that the last chain may have more than the first: where they are depends on time. Each is a
process, and three descriptors of the supervisor. What every restart or broken save leaves would be more."""

CALM = 100
"""So many requests, one after the other, without a change of descriptors and processes."""

BROKEN = 5
"""Each so many-th save is a broken one."""


def measure(server: DevServer) -> tuple[int, int, int]:
    """Of the supervisor: resident memory in KiB, descriptors, processes below it."""
    proc = Path(f"/proc/{server.process.pid}")
    resident = re.search(r"^VmRSS:\s+(\d+) kB$", (proc / "status").read_text(), re.MULTILINE)
    assert resident is not None
    return int(resident[1]), len(list((proc / "fd").iterdir())), len(server.processes())


def settled(server: DevServer) -> tuple[int, int, int]:
    """The measures when a restart is over in every respect: the next spare waits, the page is gone."""
    last, since = measure(server), 0
    deadline = time.monotonic() + DEADLINE
    while since < CALM:
        assert time.monotonic() < deadline, f"never calm: {last}"
        server.get("/")
        now = measure(server)
        since = since + 1 if now[1:] == last[1:] else 0
        last = now
    return last


def check(count: int, folder: Path) -> None:
    """Restart `count` times and compare what the supervisor has then with what it had at first."""
    (folder / "app.py").write_text(APP)
    number = folder / "number.py"
    number.write_text("NUMBER = 0\n")
    with DevServer("app:app", "--reload", "--no-access-log", cwd=folder) as server:
        server.serving()
        first, began = (0, 0, 0), 0.0
        for restart in itertools.count(1):
            if restart % BROKEN == 0:
                save(number, f"NUMBER = {restart} +\n")
                assert server.get("/").status == 500
            save(number, f"NUMBER = {restart}\n")
            assert server.get("/").text == str(restart)
            server.serving()
            server.forget()
            if restart == WARM:
                first, began = settled(server), time.monotonic()
            if restart == WARM + count:
                break
        seconds = time.monotonic() - began
        last = settled(server)
        assert server.stop() == 0
    tell(
        f"{count} restarts, {seconds / count:.3f} s each: VmRSS {first[0]} -> {last[0]} KiB,"
        f" descriptors {first[1]} -> {last[1]}, processes {first[2]} -> {last[2]}"
    )
    assert last[0] - first[0] <= GROWTH
    assert last[1] - first[1] <= 3 * CHECKPOINTS
    assert last[2] - first[2] <= CHECKPOINTS


def test_restarts_leave_nothing_behind(tmp_path: Path) -> None:
    check(15, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_thousand_restarts_leave_nothing_behind(tmp_path: Path) -> None:
    check(1000, tmp_path)
