"""Tracebacks with the frames of libraries folded."""

from __future__ import annotations

import textwrap
import traceback

import pytest

from devserver.console import is_library
from devserver.folding import fold, last_of_users

PACKAGES = "/env/lib/python3.13/site-packages"


def library(path: str) -> bool:
    return "packages" in path


def trace(*frames: str, error: str = "ValueError: no") -> str:
    lines = ["Traceback (most recent call last):"]
    for frame in frames:
        path = f"{PACKAGES}/{frame}/core.py" if frame.islower() else f"/shop/{frame}.py"
        lines += [f'  File "{path}", line 7, in call', "    call()", "    ~~~~^^"]
    return "\n".join([*lines, error])


def test_frames_of_libraries_between_the_users_become_one_line() -> None:
    folded = fold(trace("VIEWS", "flask", "flask", "werkzeug", "MODELS"), library)
    assert folded == textwrap.dedent("""\
        Traceback (most recent call last):
          File "/shop/VIEWS.py", line 7, in call
            call()
            ~~~~^^
          … 3 frames of flask, werkzeug
          File "/shop/MODELS.py", line 7, in call
            call()
            ~~~~^^
        ValueError: no""")


@pytest.mark.parametrize(
    "frames",
    [
        ("VIEWS", "flask", "flask", "MODELS"),
        ("flask", "VIEWS", "flask"),
        ("flask", "flask", "flask", "flask"),
        ("VIEWS",),
        (),
    ],
    ids=["few", "at the ends", "nothing of the user's", "one", "none"],
)
def test_what_stays_as_it_is(frames: tuple[str, ...]) -> None:
    assert fold(trace(*frames), library) == trace(*frames)


def test_first_and_last_frame_stay() -> None:
    folded = fold(trace("flask", "flask", "flask", "flask", "VIEWS", *["orm"] * 5), library)
    assert folded.count("File ") == 3
    assert "  … 3 frames of flask\n" in folded
    assert "  … 4 frames of orm\n" in folded


def test_chained_and_grouped_exceptions_are_folded_each() -> None:
    one, two = trace("VIEWS", *["orm"] * 4), trace("JOBS", *["queue"] * 5)
    both = f"{one}\n\nDuring handling of the above exception, another exception occurred:\n\n{two}\n"
    assert fold(both, library).count("… 3 frames of orm") == 1
    assert fold(both, library).count("… 4 frames of queue") == 1
    grouped = textwrap.indent(one, "  | ")
    assert "  |   … 3 frames of orm" in fold(grouped, library)


def test_a_recursion_is_one_frame() -> None:
    lines = trace("VIEWS", *["orm"] * 4, "MODELS").split("\n")
    lines.insert(-1, "  [Previous line repeated 975 more times]")
    assert fold("\n".join(lines), library).endswith(
        '  File "/shop/MODELS.py", line 7, in call\n    call()\n    ~~~~^^\n'
        "  [Previous line repeated 975 more times]\nValueError: no"
    )


def test_the_users_last_frame() -> None:
    last = last_of_users(trace("VIEWS", "flask", "MODELS", "orm"), library)
    assert last is not None
    assert (last.path, last.line, last.name, last.lines[1:]) == (
        "/shop/MODELS.py",
        7,
        "call",
        ["    call()", "    ~~~~^^"],
    )
    assert last_of_users(trace("orm"), library) is None


def test_a_syntax_error_is_the_users_last_frame() -> None:
    try:
        compile("x = (", "/shop/views.py", "exec")
    except SyntaxError as error:
        text = "".join(traceback.format_exception(error))
    last = last_of_users(text, lambda path: is_library(path) or path == __file__)
    assert last is not None
    assert (last.path, last.line) == ("/shop/views.py", 1)


def test_what_is_a_library() -> None:
    assert is_library(f"{PACKAGES}/flask/app.py")
    assert is_library(textwrap.__file__)
    assert is_library("<frozen importlib._bootstrap>")
    assert not is_library("/shop/views.py")
    assert not is_library("<string>")
