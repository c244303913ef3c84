"""A net for tests that fail on a busy machine and pass on a calm one.

With `--again FILE` the tests that failed run a second time when all others are over, each by itself and
in a process of its own. One that then passes is *unsteady*: the run does not fail for it, and a line in
FILE says which it was and what it said the first time. One that fails twice has failed. Where more than
`MOST` tests failed, none runs again: then the machine is not the cause.

An unsteady test is a bug to find. The net keeps one such test from costing everything else; it is no
reason to leave the test as it is.

pytest-rerunfailures was weighed: it repeats a failed test at once, beside the others and amid the load
that it failed under, and it keeps no list that outlives the run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

MOST = 10
"""The number of tests that may fail and run again."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--again",
        metavar="FILE",
        help="run failed tests once more at the end, one at a time, and append unsteady ones to FILE",
    )


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("again")
    if file and not hasattr(config, "workerinput"):  # the process that pytest-xdist's workers report to
        config.pluginmanager.register(Net(config, Path(file).absolute()), "unsteady")


class Net:
    """Collects failures, and runs the failed tests again."""

    def __init__(self, config: pytest.Config, file: Path) -> None:
        """Args: file: gets a line for each unsteady test."""
        self._config = config
        self._file = file
        self._said: dict[str, str] = {}
        self._is_whole = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._said.setdefault(report.nodeid, _reason(report.longreprtext))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._is_whole = self._is_whole and not report.failed

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: the workers are gone by then
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        yield
        if session.exitstatus != pytest.ExitCode.TESTS_FAILED or not self._said or not self._is_whole:
            return
        if len(self._said) > MOST:
            self._tell(f"{len(self._said)} tests failed: more than {MOST} do not run again")
            return
        failed = [test for test in self._said if not self._passes(test)]
        if not failed:
            session.exitstatus = pytest.ExitCode.OK

    def _passes(self, test: str) -> bool:
        """Run a test by itself. Says how it ended, and notes it if it is unsteady."""
        self._tell(f"once more: {test}")
        marks = self._config.getoption("markexpr")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks, test]
        ended = subprocess.run(
            command, cwd=self._config.rootpath, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if ended.returncode:
            self._tell(f"{ended.stdout}{ended.stderr}\nfailed twice: {test}")
            return False
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{test}: {self._said[test]}\n")
        self._tell(f"unsteady: {test}")
        return True

    def _tell(self, line: str) -> None:
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        reporter.write_line(line)


def _reason(text: str) -> str:
    """The first line of what an assertion said, else the last line of all."""
    lines = text.splitlines() or [""]
    return next((line[1:].strip() for line in lines if line.startswith("E  ")), lines[-1].strip())[:300]
