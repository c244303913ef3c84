"""The tests themselves: how long they wait, how they are marked, and that each module stands alone."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.patience import CALM, SLOWEST, slowness

TESTS = sorted(Path(__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    ("seconds", "factor"), [(0.0, 1.0), (CALM, 1.0), (3 * CALM, 3.0), (100 * CALM, SLOWEST)]
)
def test_a_slow_machine_is_waited_for_longer(seconds: float, factor: float) -> None:
    assert slowness(seconds) == pytest.approx(factor)


@cache
def nodes(path: Path) -> list[ast.AST]:
    """What a file is made of; several tests look at all of it."""
    return [*ast.walk(ast.parse(path.read_text()))]


def test_one_module_says_how_long_to_wait() -> None:
    found = [
        path.name
        for path in TESTS
        for node in nodes(path)
        if isinstance(node, ast.Name) and node.id == "DEADLINE" and isinstance(node.ctx, ast.Store)
    ]
    assert found == ["patience.py"]


def test_no_module_of_tests_imports_another() -> None:
    found = [
        f"{path.name}: {name}"
        for path in TESTS
        for node in nodes(path)
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


def test_each_module_of_live_tests_is_marked_so() -> None:
    """The others are not looked for there."""
    for path in TESTS:
        if path.parent.name == "live" and path.name.startswith("test_"):
            (marks,) = (
                ast.unparse(node.value)
                for node in ast.parse(path.read_text()).body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
            )
            assert "pytest.mark.live" in marks, path.name


def test_no_sleep_stands_for_an_event() -> None:
    """In the tests themselves; programs that they write may be slow."""
    found = [
        f"{path.name}:{node.lineno}"
        for path in TESTS
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("time.sleep", "asyncio.sleep")
        and ast.unparse(node.args[0]) != "0"
    ]
    assert not found


CLOCKS = ("time.monotonic()", "time.perf_counter()", "time.time()")


def test_only_tests_that_run_alone_hold_a_time_against_a_bound() -> None:
    """A deadline is not such a bound: it ends a wait that would last for ever (tests/patience.py)."""
    found = [
        f"{path.name}:{check.lineno}"
        for path in TESTS
        for function in nodes(path)
        if isinstance(function, ast.FunctionDef) and "alone" not in map(mark, function.decorator_list)
        for check in ast.walk(function)
        if isinstance(check, ast.Assert) and bounds(check.test, elapsed(function))
    ]
    assert not found


def mark(decorator: ast.expr) -> str:
    return ast.unparse(decorator).removeprefix("pytest.mark.")


def elapsed(function: ast.FunctionDef) -> set[str]:
    """The names that a function gives to times that have passed."""
    return {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and any(f"{clock} - " in ast.unparse(node.value) for clock in CLOCKS)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def bounds(test: ast.expr, seconds: set[str]) -> bool:
    """Whether an assertion says that a time that has passed is below something."""
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Lt | ast.LtE):
        return False
    said = ast.unparse(test.left)
    return said in seconds or any(f"{clock} - " in said for clock in CLOCKS)


def test_a_bound_is_found_where_one_is() -> None:
    source = (
        "def f():\n    took = time.monotonic() - began\n"
        "    assert took < 1\n    assert time.time() - began <= 2\n    assert count < 3\n"
    )
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    checks = [node.test for node in ast.walk(function) if isinstance(node, ast.Assert)]
    assert [bounds(check, elapsed(function)) for check in checks] == [True, True, False]
