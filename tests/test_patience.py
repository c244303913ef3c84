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
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and node.id == "DEADLINE" and isinstance(node.ctx, ast.Store)
    ]
    assert found == ["patience.py"]


def test_no_module_of_tests_imports_another() -> None:
    found = [
        f"{path.name}: {name}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imported(node)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    ]
    assert not found


def imported(node: ast.AST) -> list[str]:
    """The dotted names that a statement imports; from a module, each with what is taken of it."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


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
