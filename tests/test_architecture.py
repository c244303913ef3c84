"""The rooms of the code and who may import whom, held against the imports as they are."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

import pytest

from devserver.http import codes

PACKAGE = Path(__file__).parents[1] / "devserver"

# From the bottom up. A module imports from its own floor and from those below; within a floor
# `ALLOWED` says what is more, and what less.
FLOORS = [
    {
        "devserver",
        "procfs",
        "errors",
        "extras",
        "option_types",
        "options",
        "processes",
        "proxy",
        "https",
        "websockets",
        "run_table",
        "config",
        "origin",
        "folding",
        "cpython",
        "arguments",
    },
    {
        "events",
        "console",
        "dotenv",
        "process",
        "http",
        "discovery",
        "interface",
        "app",
        "listeners",
        "managers",
        "qr",
    },
    {"front"},
    {"watching"},
    {"loading"},
    {"gateway", "reload"},
    {"cold", "warm", "companions"},
    {"devtools"},
    {"server"},
    {"alone", "serve_context", "target"},
    {"child", "workers"},
    {"embedded", "gunicorn", "launch"},
    {"cli", "django", "__main__"},
]
SEPARATE = [
    ("gateway", "reload"),
    ("gateway", "loading"),
    ("gateway", "watching"),
    ("gateway", "front"),
    ("companions", "http"),
    ("companions", "loading"),
    ("companions", "gateway"),
    ("companions", "front"),
    ("companions", "warm"),
    ("companions", "cold"),
    ("reload", "front"),
    ("reload", "gateway"),
    ("reload", "http"),
    ("loading", "http"),
    ("watching", "http"),
    ("http", "process"),
    ("process", "http"),
]
HTTP_FOR_GATEWAYS = {"devserver.http.exchange", "devserver.http.codes"}
HEAVY = ("asyncio", "h11", "wsproto", "httptools", "uvloop", "watchfiles", "ssl", "http.client")


def room(module: str) -> str:
    """The room that a module of the package is in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def floor(module: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room(module) in rooms)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Modules of the package that a file imports, and whether it does so when it is imported itself."""
    tree = ast.parse(path.read_text())
    later = {
        id(n)
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
        for n in ast.walk(f)
    }
    typing = {
        id(n)
        for f in ast.walk(tree)
        if isinstance(f, ast.If) and isinstance(f.test, ast.Name) and f.test.id == "TYPE_CHECKING"
        for n in ast.walk(f)
    }
    found = []
    for node in ast.walk(tree):
        now = id(node) not in later and id(node) not in typing
        if isinstance(node, ast.Import):
            found += [(alias.name, now) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                path_of = PACKAGE.parent / Path(*node.module.split("."), alias.name)
                whole = path_of.with_suffix(".py").exists() or path_of.is_dir()
                found.append((f"{node.module}.{alias.name}" if whole else node.module, now))
    return [(name, now) for name, now in found if room(name) and name.split(".")[0] == "devserver"]


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def test_imports_go_down() -> None:
    for module, imported in (
        (module, imported)
        for module, path in MODULES.items()
        if module != "devserver"  # its public names are made on demand
        for imported, _ in imports_of(path)
    ):
        assert floor(imported) <= floor(module), f"{module} imports {imported}, which is above it"
        pair = room(module), room(imported)
        assert pair not in SEPARATE, f"{module} imports {imported}: these rooms know nothing of each other"
        if pair == ("gateway", "http"):
            assert imported in HTTP_FOR_GATEWAYS, f"{module} imports {imported}: gateways know only the seam"


def test_no_module_imports_itself_in_a_circle() -> None:
    """Imports within functions and for annotations count, too."""
    now = {name: {i for i, _ in imports_of(path) if i != name} for name, path in MODULES.items()}
    for start in now:
        seen, ahead = set(), list(now[start])
        while ahead:
            name = ahead.pop()
            assert name != start or start == "devserver", f"{start} imports itself in a circle"
            if name not in seen and name != "devserver":
                seen.add(name)
                ahead += now.get(name, ())


def test_proc_is_read_in_one_module() -> None:
    readers = set()
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                texts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
                if any(isinstance(each, str) and each.startswith("/proc") for each in texts):
                    readers.add(name)
    assert readers == {"devserver.procfs"}


def test_the_supervisor_is_light() -> None:
    """What a supervisor imports holds no event loop, no parser and no gateway."""
    program = (
        "import sys, devserver.cli, devserver.launch, devserver.listeners, devserver.reload.supervisor;"
        "from devserver.watching import watch; watch.make(False).close();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


MOST = 300
"""Lines of code in a module: a longer one holds two nouns. What explains is never counted."""


def test_modules_keep_their_size() -> None:
    for name, path in MODULES.items():
        assert lines_of_code(path.read_text()) <= MOST, f"{name} has more than {MOST} lines of code"


def lines_of_code(source: str) -> int:
    """The number of lines that are neither blank nor comments, docstrings or imports."""
    explaining: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            assert isinstance(node, ast.stmt)
            assert node.end_lineno is not None
            explaining |= {*range(node.lineno, node.end_lineno + 1)}
    said = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.DEDENT)
        for line in range(token.start[0], token.end[0] + 1)
        if token.string.strip()
    }
    return len(said - explaining)


def test_what_explains_is_not_counted() -> None:
    source = (
        '"""Text.\n\nMore."""\n\nimport os\n\n# why\nX = (\n    1,\n)  # one\n\n\n'
        'def f():\n    """Says."""\n    return X\n'
    )
    assert lines_of_code(source) == 5


def test_functions_keep_their_size() -> None:
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.body[0].lineno + 1
                assert lines <= 60, f"{name}.{node.name} has {lines} lines"


def test_codes_are_spelt_as_numbers_in_one_place() -> None:
    """Statuses of HTTP and close codes of WebSockets, in the rooms that answer."""
    numbers = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, int)}
    assert len(numbers) > 20
    for name, path in MODULES.items():
        if room(name) not in {"http", "gateway", "devtools", "server"}:
            continue  # their numbers count something
        if name in {"devserver.http.codes", "devserver.devtools.neighbour"}:
            continue  # the latter has numbers of users
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and type(node.value) is int and node.value in numbers:
                raise AssertionError(f"{name}:{node.lineno} has {node.value}")


def test_no_statement_is_a_conditional_expression() -> None:
    """PyPy 7.3.19 evaluates both of its halves where it ends a function's last `if`."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            is_one = isinstance(node, ast.Expr) and isinstance(node.value, ast.IfExp)
            assert not is_one, f"{name}:{node.lineno} chooses between two calls: write if and else"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name",
    [
        "reload/machine.py",
        "child/machine.py",
        "companions/roster.py",
        "companions/lines.py",
        "process/pauses.py",
        "warm/policy.py",
        "http/states.py",
    ],
)
def test_what_decides_knows_neither_clock_nor_system(name: str) -> None:
    tree = ast.parse((PACKAGE / name).read_text())
    found = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not found & {"asyncio", "os", "select", "signal", "socket", "threading", "time"}
