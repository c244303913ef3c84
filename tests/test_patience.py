"""The tests themselves: how long they wait, and that each module of tests stands alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.patience import CALM, SLOWEST, slowness

TESTS = sorted(Path(__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    ("seconds", "factor"), [(0.0, 1.0), (CALM, 1.0), (3 * CALM, 3.0), (100 * CALM, SLOWEST)]
)
def test_a_slow_machine_is_waited_for_longer(seconds: float, factor: float) -> None:
    assert slowness(seconds) == pytest.approx(factor)


def test_one_module_says_how_long_to_wait() -> None:
    found = [
        path.name
        for path in TESTS
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and "DEADLINE" in map(ast.unparse, node.targets)
    ]
    assert found == ["patience.py"]


def test_no_module_of_tests_imports_another() -> None:
    found = [
        f"{path.name}: {node.module}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("tests.")
        and (node.module or "").rpartition(".")[2].startswith("test_")
    ]
    assert not found


def test_no_sleep_stands_for_an_event() -> None:
    """In the tests themselves; programs that they write may be slow."""
    found = [
        f"{path.name}:{node.lineno}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("time.sleep", "asyncio.sleep")
        and ast.unparse(node.args[0]) != "0"
    ]
    assert not found
