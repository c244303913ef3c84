"""Environment files: who wins, what is told of a line that cannot be read, and which files will do."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from devserver.dotenv import load
from devserver.errors import UsageError
from tests.patience import DEADLINE

ENVIRON = {"HOME": "/home/eve", "EMPTY": "", "MODE": "real"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `${NAME}` finds: python-dotenv looks into the environment of the process."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("text", "expected", "lines"),
    [
        ("=1\nA=1", {"A": "1"}, [1]),
        ("export =1\nA=1", {"A": "1"}, [1]),
        ("export \nA=1", {"A": "1"}, [1]),
        ("A b=1\nC=1", {"C": "1"}, [1]),
        ("A=1\n\n  what is this\nB=2", {"A": "1", "B": "2"}, [3]),
        ("A=1\r\n\r\n? ?\r\nB=2\r\n? ?", {"A": "1", "B": "2"}, [3, 5]),
        ("A='1\nB=2", {"B": "2"}, [1]),
        ('A="1\nB=2', {"B": "2"}, [1]),
        ("A='a\\'\nB=1", {"B": "1"}, [1]),
        ("A='1' 2\nB=2", {"B": "2"}, [1]),
        ("A='1''2'", {}, [1]),
        ("A='one\ntwo' three\nB=2", {"B": "2"}, [1]),
        ("'A=1\nB=2", {"B": "2"}, [1]),
        ("''=1\nB=2", {"B": "2"}, [1]),
        ("A='one\ntwo'\n? ?", {"A": "one\ntwo"}, [3]),
        # No environment can hold these.
        ("'A=B'=1\nC=1", {"C": "1"}, [1]),
        ("A\0=1\nB=\0\nC=1", {"C": "1"}, [1, 2]),
    ],
)
def test_what_cannot_be_read_is_left_out_with_a_warning(
    text: str, expected: dict[str, str], lines: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "env"
    file.write_text(text, encoding="utf-8", newline="")
    environ: dict[str, str] = {}
    with caplog.at_level(logging.WARNING, "devserver"):
        assert load(str(file), environ) == expected
    assert environ == expected
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}, line {line}: expected NAME=value; line ignored" for line in lines
    ]


def test_what_the_environment_has_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / ".env"
    file.write_text("MODE=file\nEMPTY=file\nNEW=${MODE}\nALONE\n", encoding="utf-8")
    environ = dict(ENVIRON)
    assert load(str(file), environ) == {"NEW": "real"}
    assert environ == ENVIRON | {"NEW": "real"}
    assert not caplog.records


def test_a_file_with_a_mark_and_windows_line_ends(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes('\ufeffA=é\r\nB="one\r\ntwo"\r\n'.encode())
    assert load(str(file), {}) == {"A": "é", "B": "one\ntwo"}


def test_a_pipe_will_do() -> None:
    """As of `--env-file <(decrypt secrets)`."""
    read, write = os.pipe()
    try:
        os.write(write, b"A=1\n")
    finally:
        os.close(write)
    try:
        assert load(f"/dev/fd/{read}", {}) == {"A": "1"}
    finally:
        os.close(read)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "No such file or directory; correct the path or leave the option out"),
        ("folder", "Is a directory; correct the path or leave the option out"),
        ("latin", "the byte at offset 2 is not UTF-8; save the file in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin").write_bytes(b"A=\xe9")
    path = str(tmp_path / name)
    environ: dict[str, str] = {}
    with pytest.raises(UsageError) as caught:
        load(path, environ)
    assert str(caught.value) == f"--env-file {path}: {reason}"
    assert environ == {}


@pytest.mark.cpython("the environment's encoding is always UTF-8")
def test_a_value_that_the_environment_cannot_encode(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\nB=€\nC=${€}", encoding="utf-8")
    program = (
        "import os, sys; from devserver.dotenv import load; from devserver.errors import UsageError\n"
        "try: load(sys.argv[1], os.environ)\n"
        "except UsageError as error: print(error)"
    )
    # The C locale without its coercion to UTF-8 is one that every machine has.
    environ = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    run = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert run.stderr == ""
    assert run.stdout == (
        f"--env-file {file}: B has a character that is not in ascii, "
        "the encoding of this environment: set PYTHONUTF8=1\n"
    )


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\n", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "dotenv.parser", None)  # an import fails then
    with pytest.raises(UsageError, match=r"pip install 'devserver\[dotenv\]'"):
        load(str(file), {})
