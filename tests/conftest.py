"""What holds for all tests: how long one may take, what is made once, and where nothing is measured."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator

import pytest

from tests import once
from tests.patience import TIMEOUT

pytest_plugins = ["tests.unsteady"]

if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # of nohup's, which all that is started here would inherit

COPIES = "copies of processes need CPython"
"""Why a test is skipped elsewhere, if its mark does not say."""


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout looks at it
def pytest_configure(config: pytest.Config) -> None:
    if config.option.timeout is None:
        config.option.timeout = TIMEOUT
    if not is_worker(config):
        once.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not is_worker(config):
        once.end()


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of pytest-xdist's workers."""
    return hasattr(config, "workerinput")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what CPython alone has, where another interpreter runs."""
    if sys.implementation.name == "cpython":
        return
    for item in items:
        for mark in item.iter_markers("cpython"):
            item.add_marker(pytest.mark.skip(reason=mark.args[0] if mark.args else COPIES))


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Take back what a test does to the loggers, the root's included."""
    names = ("devserver", "devserver.access", "devserver.companions", None)
    loggers = [logging.getLogger(name) for name in names]
    before = [(each, list(each.handlers), each.level, each.propagate) for each in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def _measure_nothing_where_it_would_show(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep coverage out of programs that a test marked `unmeasured` starts: it imports, and opens files."""
    if request.node.get_closest_marker("unmeasured"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
