"""What a contributor runs, each by its name: `nox -s lint`, `nox -s tests-3.12`, `nox -s live -- -k drain`.

    lint      ruff, and whether everything is formatted
    types     mypy on the package for three platforms, and on the tests
    tests     what needs no server process; on the newest Python with branch coverage and its floor
    live      what starts real servers
    pypy      the tests without a server process, and restarts, under PyPy 3.11 where there is one
    projects  Django projects with the packages that real ones have (Wagtail, Channels, …)
    alone     tests that hold a time against a bound: one after the other, and nothing else beside them
    soak      the long counts
    fuzz      parsers, connections and WebSockets against what nobody thought of; `-- N` for N examples
    bench     the benchmark of saves; arguments go to it
    docs      the documentation site, which must build without a warning; its pages against the code

`tests` and `live` have a session for each Python on this machine. The newest runs everything; the others
run what an interpreter can break, which is marked `interpreter`, and one of them has the oldest Django.
Environments are made by uv. `.ci/run` calls these sessions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nox

ROOT = Path(__file__).parent
MINORS = (11, 12, 13, 14)
"""The Pythons that are supported, CPython 3.x each; and PyPy 3.11."""

OLDEST_DJANGO = "3.12", "django~=4.2.0"
"""The Python whose sessions have the oldest Django that is supported, which newer Pythons cannot run."""

UNITS = "tests", "--ignore", "tests/live"
"""Where the tests are that need no server process. Each worker imports all the modules that it collects."""

PYPY_LIVE = "tests/live/test_restart.py", "tests/live/test_workers.py", "tests/live/test_gunicorn.py"
"""What is run under PyPy of the tests that start servers."""

FOR_PYPY = "hypothesis<6.150", "pydantic<2.12"
"""Versions before those whose wheels the PyPy of Debian 13, 7.3.19, cannot load."""

WORKERS = "4"
"""Tests side by side on two cores: most of them wait more than they work."""


def _interpreters() -> list[str]:
    """The Pythons that there are, oldest first. Those of pyenv are put on PATH under their own names."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = []
    for minor in MINORS:
        ours = sorted(versions.glob(f"3.{minor}.*/bin"), key=lambda path: int(path.parent.name.split(".")[2]))
        if ours:
            os.environ["PATH"] = os.pathsep.join([str(ours[-1]), os.environ["PATH"]])
        if ours or shutil.which(f"python3.{minor}"):
            found.append(f"3.{minor}")
    return found or [f"{sys.version_info[0]}.{sys.version_info[1]}"]


def _pypy() -> str:
    """The command of PyPy 3.11; "" if it is not on this machine."""
    for name in ("pypy3.11", "pypy3"):
        if path := shutil.which(name):
            program = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
            done = subprocess.run([path, "-c", program], capture_output=True, text=True, check=False)
            if done.stdout.split() == ["pypy", "3", "11"]:
                return path
    return ""


PYTHONS = _interpreters()
NEWEST = PYTHONS[-1]
PYPY = _pypy()

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", f"tests-{NEWEST}"]
os.environ["UV_PYTHON_DOWNLOADS"] = "never"


@nox.session(python=NEWEST)
def lint(session: nox.Session) -> None:
    """Ruff's rules, and whether everything is formatted."""
    session.install("ruff>=0.6")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=NEWEST)
def types(session: nox.Session) -> None:
    """The package as each platform sees it, and the tests as Linux does."""
    session.install("-e", ".[lint,test,fast]")
    for platform in ("darwin", "win32"):
        session.run("mypy", "--platform", platform, "-p", "devserver")
    session.run("mypy", "--platform", "linux", "-p", "devserver", "-p", "tests")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """What needs no server process: under a minute."""
    _install(session)
    if session.python != NEWEST:
        _pytest(session, "not live and interpreter", *UNITS)
        return
    env = {"COVERAGE_FILE": str(Path(session.virtualenv.location, "coverage"))}
    session.run("coverage", "erase", env=env)
    _pytest(session, "not live", *UNITS, under=["coverage", "run", "-m"], env=env)
    session.run("coverage", "combine", "--quiet", env=env)
    # It fails below the floor. Tests have packages of our name in folders that are gone by then: no error.
    session.run("coverage", "report", "--skip-covered", "--ignore-errors", env=env)


@nox.session(python=PYTHONS)
def live(session: nox.Session) -> None:
    """What starts real servers."""
    _install(session)
    marks = "live and not soak and not alone"
    if session.python != NEWEST:
        others = "interpreter or django" if session.python == OLDEST_DJANGO[0] else "interpreter"
        marks += f" and ({others})"
    _pytest(session, marks, "tests/live")


@nox.session(python=PYPY or False)
def pypy(session: nox.Session) -> None:
    """What holds where CPython does not run: each restart is cold there."""
    if not PYPY:
        session.skip("PyPy 3.11 is not on this machine")
    session.install("-e", ".[test,fast]", *FOR_PYPY)
    # What generates examples takes minutes until it is compiled.
    _pytest(session, "not live", *UNITS, "--ignore", "tests/test_fuzz.py")
    _pytest(session, "live and not soak and not alone", *PYPY_LIVE)


@nox.session(python=NEWEST)
def projects(session: nox.Session) -> None:
    """Django projects with the packages that real ones have."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    session.install("-e", ".[test,fast]", *groups["projects"])
    _pytest(session, "not soak", "tests/live/test_django_projects.py")


@nox.session(python=NEWEST)
def alone(session: nox.Session) -> None:
    """Tests that hold a time against a bound. A busy machine can fail them, so CI runs none of them."""
    _install(session)
    _pytest(session, "alone", "tests", workers="0")


@nox.session(python=NEWEST)
def soak(session: nox.Session) -> None:
    """The long counts: hours."""
    _install(session)
    _pytest(session, "soak", "tests")


@nox.session(python=NEWEST)
def fuzz(session: nox.Session) -> None:
    """Parsers, connections and WebSockets against what nobody thought of, for a minute or two."""
    _install(session)
    session.env["FUZZ_EXAMPLES"] = session.posargs[0] if session.posargs else "2000"
    session.run("python", "-m", "pytest", "tests/test_fuzz.py")


@nox.session(python=NEWEST)
def bench(session: nox.Session) -> None:
    """From a save to the answer by new code, beside other servers; see benchmarks/README.md."""
    session.install("-e", ".[fast]", "-r", "benchmarks/requirements.txt")
    session.run("python", "benchmarks/reload_latency.py", *session.posargs)


@nox.session(python=NEWEST)
def docs(session: nox.Session) -> None:
    """The documentation site; and whether what it says of options, events and links is so."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    session.install("-e", ".", "pytest", "pytest-timeout", "pytest-xdist", *groups["docs"])
    session.run(
        "python",
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "docs",
        session.posargs[0] if session.posargs else "site",
    )
    session.run("python", "-m", "pytest", "-q", "tests/test_readme.py")


def _install(session: nox.Session) -> None:
    django = [OLDEST_DJANGO[1]] if session.python == OLDEST_DJANGO[0] else []
    session.install("-e", ".[test,fast]", *django)


def _pytest(
    session: nox.Session,
    marks: str,
    *paths: str,
    workers: str | None = None,
    under: list[str] | None = None,
    env: dict[str, str] | None = None,
) -> None:
    """Run the tests that a mark expression selects; arguments of the session follow.

    Args:
        paths: where they are, if the arguments name no file.
        workers: how many tests run side by side, over what the environment says.
        under: what runs pytest; the interpreter if it is not given.
    """
    spread = ["-n", workers or os.environ.get("WORKERS", WORKERS), "--dist", "worksteal"]
    again = ["--again", os.environ["UNSTEADY"]] if "UNSTEADY" in os.environ else []
    given = session.posargs
    if any(Path(each.partition("::")[0]).exists() for each in given):
        paths = ()
    command = [*(under or ["python", "-m"]), "pytest", "-q", *spread, *again, "-m", marks]
    session.run(*command, *paths, *given, env=env)
