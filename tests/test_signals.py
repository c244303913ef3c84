"""Which signals are asked for, and when."""

from __future__ import annotations

import io
import signal
import sys

import pytest

from devserver.process.signals import ending, wanted

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_can_end_what_heeds_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert ending() == [signal.SIGINT, signal.SIGTERM]
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert ending() == [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT]
    monkeypatch.setattr(sys, "stdin", None)
    assert signal.SIGQUIT in ending()


def test_what_was_ignored_stays_so_but_for_interrupts() -> None:
    signals = (signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(each, signal.SIG_IGN) for each in signals]
    try:
        assert signal.SIGINT in wanted()
        assert signal.SIGHUP not in wanted()
        assert signal.SIGCHLD in wanted()
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
