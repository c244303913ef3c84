"""What stands on the command line of `manage.py runserver`, and what Python's own options are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from devserver.django.command_line import Wanted, read, read_address, split


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8000", (None, "8000")),
        ("0", (None, "0")),
        ("127.0.0.1:8000", ("127.0.0.1", "8000")),
        ("0:8000", ("0.0.0.0", "8000")),
        ("[::1]:8000", ("::1", "8000")),
        ("localhost:80", ("localhost", "80")),
        ("my-host.example:0", ("my-host.example", "0")),
        ("", None),
        ("abc", None),
        ("::1", None),
        ("[::1]", None),
        ("1:2:3", None),
        ("host:port", None),
    ],
)
def test_addresses(text: str, address: tuple[str | None, str] | None) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], Wanted()),
        (["-6"], Wanted(ipv6=True)),
        (["8001", "--nostatic", "--insecure", "--nothreading", "--skip-checks"], Wanted(port="8001")),
        (["--settings", "a.b", "--pythonpath=x", "-v", "3", "--traceback"], Wanted()),
        (["--reload-dir", "a", "--reload-dir=b"], Wanted(options={"reload_dir": ["a", "b"]})),
        (["--no-reload-overlap"], Wanted(options={"reload_overlap": False})),
        (["--no-color"], Wanted(options={"use_colors": False})),
        (["--force-color"], Wanted(options={"use_colors": True})),
        (["--force-color", "--no-use-colors"], Wanted(options={"use_colors": False})),
        (["--noreload"], None),
        (["--help"], None),
        (["--version"], None),
        (["--cheer", "hip"], None),
        (["nonsense"], None),
        (["--reload-grace"], None),
        (["8000", "9000"], None),
    ],
)
def test_what_is_wanted(arguments: Sequence[str], wanted: Wanted | None) -> None:
    assert read(arguments) == wanted


@pytest.mark.parametrize(
    ("arguments", "flags", "program"),
    [
        (["manage.py", "runserver"], [], ["manage.py", "runserver"]),
        (["-X", "dev", "-Werror", "-u", "m.py", "-v"], ["-X", "dev", "-Werror", "-u"], ["m.py", "-v"]),
        (["-W", "manage.py", "manage.py"], ["-W", "manage.py"], ["manage.py"]),
        (["-Xdev", "m.py"], ["-Xdev"], ["m.py"]),
        (["-Ximporttime", "-m", "django"], ["-Ximporttime"], ["-m", "django"]),
        (["-m", "django", "runserver"], [], ["-m", "django", "runserver"]),
        (["-mdjango", "runserver"], [], ["-m", "django", "runserver"]),
        (["-Im", "django"], ["-I"], ["-m", "django"]),
        (["-uBmdjango", "x"], ["-uB"], ["-m", "django", "x"]),
        (["-c", "code", "x"], [], ["-c", "code", "x"]),
        (["--check-hash-based-pycs", "always", "m.py"], ["--check-hash-based-pycs", "always"], ["m.py"]),
        (["-"], [], ["-"]),
        ([], [], []),
    ],
)
def test_pythons_options(arguments: Sequence[str], flags: Sequence[str], program: Sequence[str]) -> None:
    assert split(arguments) == (flags, program)
