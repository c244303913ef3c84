"""Who has asked for a variable of the environment."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from devserver.loading.variable import Variable

NAME = "DEVSERVER_WORKER"

ASKS: dict[str, Callable[[], object]] = {
    "item": lambda: os.environ[NAME],
    "get": lambda: os.environ.get(NAME),
    "getenv": lambda: os.getenv(NAME),
    "in": lambda: NAME in os.environ,
    "bytes": lambda: os.environb[NAME.encode()],
    "all of them": lambda: dict(os.environ),
    "a copy": lambda: os.environ.copy(),
    "pop": lambda: os.environ.pop(NAME),
}

ASKS_NOT: dict[str, Callable[[], object]] = {
    "another": lambda: os.environ.get("HOME"),
    "its name": lambda: list(os.environ),
    "a change of another": lambda: os.environ.update(OTHER="x"),
    "a program": lambda: subprocess.run([sys.executable, "-S", "-c", ""], check=True),
}


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> Variable:
    monkeypatch.setenv(NAME, "1")
    monkeypatch.setenv("OTHER", "")
    return Variable(NAME)


@pytest.mark.parametrize("how", [*ASKS, *ASKS_NOT])
def test_it_is_noted(variable: Variable, how: str) -> None:
    kind = type(os.environ)
    variable.start()
    try:
        {**ASKS, **ASKS_NOT}[how]()
    finally:
        variable.stop()
    assert variable.asked == (how in ASKS)
    assert type(os.environ) is kind


def test_nothing_else_is_another(variable: Variable) -> None:
    """The mapping is the same object, and what is set reaches programs."""
    same = os.environ
    variable.start()
    try:
        variable.set("2")
        program = [sys.executable, "-S", "-c", f"import os; print(os.environ[{NAME!r}])"]
        assert subprocess.run(program, stdout=subprocess.PIPE, check=True).stdout.split() == [b"2"]
        assert not variable.asked
        assert os.environ is same
        assert isinstance(os.environ, os._Environ)
        assert type(os.environ).__name__ == "_Environ"
        assert copy.copy(os.environ)[NAME] == "2"
    finally:
        variable.stop()
