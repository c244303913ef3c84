"""Tests side by side (`pytest -n 2`), except for those that hold a time against a bound.

A test marked `alone` waits until the tests of the other workers are over, and they wait for it. It is
a lock for readers and a writer, made of the locks that the kernel keeps on our two folders: there is
no file to be left behind, and a worker that dies lets go of what it held. Without workers nothing is
locked. This module knows nothing of what is tested.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from tests import once
from tests.patience import TIMEOUT

pytest_plugins = ["tests.unsteady"]

FOLDER = Path(__file__).parent

GATE, ROOM = FOLDER, FOLDER / "live"
"""Who wants in holds the gate until he is in the room, so that one who must be alone is not passed by."""

ROOM_HELD = pytest.StashKey[int | None]()
"""The room, while one who was alone in it is followed by another who must be."""


if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # of nohup's, which all that is started here would inherit


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout looks at it
def pytest_configure(config: pytest.Config) -> None:
    if config.option.timeout is None:
        config.option.timeout = TIMEOUT
    if not is_worker(config):
        once.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not is_worker(config):
        once.end()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let those that must be alone come first, one after the other.

    They are one worker's then, which lets nobody in between them; and nobody waits for tests that have begun.
    """
    if is_worker(config):
        items.sort(key=is_alone, reverse=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: the time spent waiting is not the test's
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Run a test beside others, or alone; and directly after it those of this worker that must be, too."""
    if not is_worker(item.config):
        return (yield)
    room = item.config.stash.setdefault(ROOM_HELD, None)
    if room is None:
        room = enter(alone=is_alone(item))
    stays = is_alone(item) and nextitem is not None and is_alone(nextitem)
    item.config.stash[ROOM_HELD] = room if stays else None
    try:
        return (yield)
    finally:
        if not stays:
            os.close(room)


def enter(alone: bool) -> int:
    """Wait until a test may begin. Returns a descriptor; closing it says that it has ended."""
    import fcntl  # there is none on Windows, where one worker does

    room, gate = os.open(ROOM, os.O_RDONLY), os.open(GATE, os.O_RDONLY)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    finally:
        os.close(gate)
    return room


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of pytest-xdist's workers."""
    return hasattr(config, "workerinput")


def is_alone(item: pytest.Item) -> bool:
    """Whether a test must be alone."""
    return item.get_closest_marker("alone") is not None


@pytest.fixture(autouse=True)
def _measure_nothing_where_it_would_show(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep coverage out of programs that a test marked `unmeasured` starts: it imports, and opens files."""
    if request.node.get_closest_marker("unmeasured"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
