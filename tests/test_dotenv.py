"""Environment files: the syntax of python-dotenv case by case, and who wins."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from devserver.dotenv import load, parse
from devserver.errors import UsageError
from tests.patience import DEADLINE

ENVIRON = {"HOME": "/home/eve", "EMPTY": "", "MODE": "real"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Nothing
        ("", {}),
        ("\n \n\t\r\n\n", {}),
        ("# A=1\n  # B=2", {}),
        ("\ufeffA=1", {"A": "1"}),
        ("A=1\n\ufeffB=2", {"A": "1", "\ufeffB": "2"}),  # a mark is one at the beginning only
        # Names
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=1\rB=2", {"A": "1", "B": "2"}),
        ("  A=1", {"A": "1"}),
        ("A = 1", {"A": "1"}),
        ("A\t=\t1", {"A": "1"}),
        ("export A=1", {"A": "1"}),
        ("export\t A=1", {"A": "1"}),
        ("export=1", {"export": "1"}),
        ("export = 1\nA=2", {"A": "2"}),  # the prefix of a statement without a name
        ("exportA=1", {"exportA": "1"}),
        ("export # nothing\nA=1", {"A": "1"}),
        ("a.b-c/é=1", {"a.b-c/é": "1"}),
        ("it's=1", {"it's": "1"}),
        ("'a name'=1", {"a name": "1"}),
        ("'a\nname'=1", {"a\nname": "1"}),
        ('"A"=1', {'"A"': "1"}),
        ("A", {}),
        ("export A", {}),
        ("A # comment\nB=1", {"B": "1"}),
        ("A=1\nA", {}),
        ("A=1\nA=2", {"A": "2"}),
        # Values without quotes
        ("A=", {"A": ""}),
        ("A=\nB=1", {"A": "", "B": "1"}),
        ("A=  \nB=1", {"A": "", "B": "1"}),
        ("A=a b  ", {"A": "a b"}),
        ("A=1 # comment", {"A": "1"}),
        ("A=1\t# comment # and more", {"A": "1"}),
        ("A=1# no comment", {"A": "1# no comment"}),
        ("A=#no", {"A": "#no"}),
        ("A= # comment", {"A": ""}),
        ("A=a=b", {"A": "a=b"}),
        ("A=it's", {"A": "it's"}),
        ("A=a'#b' #c'", {"A": "a'#b'"}),
        (r"A=a\nb\\c\#", {"A": r"a\nb\\c\#"}),
        ("A=\u00a01\u00a0#c", {"A": "1"}),  # any blank is one
        ("A=a\x0cb\u2028c", {"A": "a\x0cb\u2028c"}),  # but only CR and LF end a line
        # Single quotes
        ("A='a b # c'", {"A": "a b # c"}),
        ("A='a' # c", {"A": "a"}),
        ("A='a'# c", {"A": "a"}),
        ("A= 'a' ", {"A": "a"}),
        (r"A='it\'s \\ \n \"'", {"A": "it's \\ \\n \\\""}),
        ("A='one\ntwo'\nB=1", {"A": "one\ntwo", "B": "1"}),
        ("A='one\r\ntwo'", {"A": "one\r\ntwo"}),
        (r"A='a\\'", {"A": "a\\"}),
        ("A=''", {"A": ""}),
        # Double quotes
        ('A="a b # c" # d', {"A": "a b # c"}),
        (r'A="\a\b\f\n\r\t\v"', {"A": "\a\b\f\n\r\t\v"}),
        (r'A="\" \' \\ \\n"', {"A": "\" ' \\ \\n"}),
        (r'A="\q \$ \0 \x41 \u0041"', {"A": r"\q \$ \0 \x41 \u0041"}),
        ('A="one\n\n  two"\nB=1', {"A": "one\n\n  two", "B": "1"}),
        ('A="a\\\nb"', {"A": "a\\\nb"}),
        ('A="\\\\"', {"A": "\\"}),
        ('A=""', {"A": ""}),
        # Variables
        ("A=1\nB=${A}2${A}", {"A": "1", "B": "121"}),
        ("A=${HOME}/x", {"A": "/home/eve/x"}),
        ("A='${HOME}'", {"A": "/home/eve"}),
        ('A="${HOME}"', {"A": "/home/eve"}),
        ("A=${NONE}", {"A": ""}),
        ("A=${NONE:-a b}c", {"A": "a bc"}),
        ("A=${NONE:-}", {"A": ""}),
        ("A=${EMPTY:-default}", {"A": ""}),
        ("A=${HOME:-default}", {"A": "/home/eve"}),
        ("B\nA=${B:-default}", {"A": ""}),  # named, if without a value
        ("A=${B}\nB=1", {"A": "", "B": "1"}),
        ("A=1\nA=${A}2", {"A": "12"}),
        ("MODE=file\nA=${MODE}", {"MODE": "file", "A": "real"}),
        ("A=$HOME $ {HOME} ${HOME", {"A": "$HOME $ {HOME} ${HOME"}),
        ("A=${HOME:x} ${HOME-x}", {"A": "${HOME:x} "}),
        ("A=${:-x}", {"A": "x"}),
        ("B=${A}\nA=$\nC=${A}{HOME}", {"B": "", "A": "$", "C": "${HOME}"}),  # once, not again
        (r'A="\${HOME}"', {"A": r"\/home/eve"}),
        ("A=${NONE:-#x}", {"A": "#x"}),
        ("A=${NONE:-a #x}", {"A": "${NONE:-a"}),
    ],
)
def test_what_a_text_defines(text: str, expected: dict[str, str]) -> None:
    found = parse(text, ENVIRON)
    assert found == expected
    assert list(found) == list(expected)


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


def test_a_large_value_is_no_problem() -> None:
    value = "line\\\n" * 200_000
    assert parse(f'A="{value}"\nB="{value}', {}) == {"A": value}


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
