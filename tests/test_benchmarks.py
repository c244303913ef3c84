"""The benchmarks can be started, and what they serve is valid; nothing is timed here."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
PROGRAMS = [
    "applications", "servers", "reload_latency", "position", "price", "throughput", "idle", "detection",
    "projects", "edge", "hostile",
]  # fmt: skip


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules in the benchmarks' folder, which find each other as programs of one folder do."""
    monkeypatch.syspath_prepend(FOLDER)
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    modules = {name: importlib.import_module(name) for name in names}
    for name in names:
        del sys.modules[name]
    return modules


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_says_what_it_does(program: str) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / f"{program}.py", "--help"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage:")


def test_every_application_compiles_and_has_its_leaf(imported: dict[str, ModuleType], tmp_path: Path) -> None:
    for name, make in imported["applications"].APPLICATIONS.items():
        project = make(tmp_path / name)
        for module in project.folder.rglob("*.py"):
            compile(module.read_text(), str(module), "exec")
        project.save("t0001")
        assert project.leaf.read_text() == 'TOKEN = "t0001"\n'


def test_every_project_compiles(imported: dict[str, ModuleType]) -> None:
    for name, framework in imported["projects"].FRAMEWORKS.items():
        for file, text in framework.files.items():
            compile(text, f"{name}: {file}", "exec")


def test_every_command_can_be_filled_in(imported: dict[str, ModuleType], tmp_path: Path) -> None:
    project = imported["applications"].django(tmp_path / "a project")
    for commands in imported["servers"].TABLES.values():
        for command in commands:
            argv = command.argv(project, 8001)
            assert any("8001" in word for word in argv)
            assert any(getattr(project, command.interface) in word for word in argv) or command.needs


def test_servers_are_compared_in_the_order_asked_for(imported: dict[str, ModuleType], tmp_path: Path) -> None:
    servers = imported["servers"]
    project = imported["applications"].wsgi(tmp_path)
    chosen = servers.choose(servers.RELOADING, project, "devserver, gunicorn, uvicorn")
    assert [(command.name, command.interface) for command in chosen] == [
        ("devserver", "wsgi"),
        ("gunicorn", "wsgi"),
    ]


def test_a_ratio_is_taken_within_each_round(imported: dict[str, ModuleType]) -> None:
    ratio = imported["report"].ratio
    assert ratio([2.0, 20.0, None, 6.0], [1.0, 10.0, 1.0, 2.0]) == 2.0
    assert ratio([None], [1.0]) is None


def test_what_wrk_says_is_read(imported: dict[str, ModuleType]) -> None:
    said = """Running 1s test @ http://127.0.0.1:8000/
  23571 requests in 1.00s, 2.99MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 4
Requests/sec:  23471.32
"""
    assert imported["throughput"]._answers(said) == (23571, 23471.32, 7)
