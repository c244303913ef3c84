"""What a companion prints, made fit for a terminal that several share."""

from __future__ import annotations

import logging
from io import StringIO
from pathlib import Path

import pytest

from devserver import console
from devserver.companions.lines import MOST, Lines
from devserver.config import Log

pytestmark = pytest.mark.usefixtures("own_logging")

RED, RESET = "\x1b[31m", "\x1b[0m"


def shown(*parts: bytes, colors: bool = True) -> list[str]:
    """The lines that are shown of what is printed in these parts."""
    lines = Lines(colors=colors)
    return [line for part in parts for line in lines.feed(part)] + lines.end()


def test_lines_come_when_they_are_complete() -> None:
    lines = Lines(colors=True)
    assert lines.feed(b"one\ntw") == ["one"]
    assert lines.feed(b"o\n\nthr") == ["two", ""]
    assert lines.end() == ["thr"]
    assert lines.end() == []


def test_a_question_is_shown_before_its_line_is_complete() -> None:
    lines = Lines(colors=True)
    assert lines.feed(b"one\nname? ") == ["one"]
    assert lines.asks
    assert lines.pause() == ["name? "]
    assert not lines.asks
    assert lines.feed(b"\n\xc3") == [""]
    assert not lines.asks
    assert lines.feed(b"\xa9\n") == ["\xe9"]


def test_a_character_may_come_in_two_parts_and_need_not_be_one() -> None:
    assert shown("é".encode()[:1], "é".encode()[1:] + b"\n") == ["é"]
    assert shown(b"a\xff\n\xc3") == ["a\ufffd", "\ufffd"]


def test_a_long_line_is_several() -> None:
    found = shown(b"x" * MOST, b"y" * MOST, b"z\n")
    assert found == ["x" * MOST, "y" * MOST, "z"]
    assert shown(b"x" * (2 * MOST + 1) + b"\n") == ["x" * MOST, "x" * MOST, "x"]


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        (b"a\r\n", "a"),
        (b"10%\r20%\r100%\n", "100%"),
        (b"\x1b[2J\x1b[H\x1b[3Jready\n", "ready"),  # a terminal cleared
        (b"\x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", "link"),
        (b"\x1b]52;c;c3RvbGVu\x07x\n", "x"),  # written to the clipboard
        (b"\x1b(B\x1b=\x1b[?25lx\x1b[1A\x1b[2K\n", "x"),
        (b"a\tb\x00\x07\x08\x7f\n", "a\tb\\x00\\x07\\x08\\x7f"),
        ("\x85\u2028\u202ex\n".encode(), "\\x85\\u2028\\u202ex"),
        ("a\u2066b\u2069\n".encode(), "a\\u2066b\\u2069"),
        (b"cut\x1b[3", "cut3"),
        (b"cut\x1b", "cut"),
    ],
)
def test_what_a_terminal_would_obey_is_left_out(printed: bytes, text: str) -> None:
    for colors in (True, False):
        assert shown(printed, colors=colors) == [text]


def test_a_line_of_nothing_but_such_is_left_out() -> None:
    assert shown(b"\x1b[2J\x1b[H\n\nx\n") == ["", "x"]


def test_of_several_blank_lines_one_is_left() -> None:
    assert shown(b"\x1b[0m\n\n\nready\n \n" + b"\n" * 22 + b"x\n\n") == ["", "ready", "", "x", ""]


def test_colors_stay_and_end_with_the_line() -> None:
    assert shown(f"{RED}no\nyes\n".encode()) == [f"{RED}no{RESET}", "yes"]
    assert shown(f"{RED}no{RESET}\n".encode()) == [f"{RED}no{RESET}"]
    assert shown(f"{RED}no{RESET}\n".encode(), colors=False) == ["no"]


@pytest.mark.parametrize("colors", [True, False])
def test_each_line_has_the_name_in_front(colors: bool) -> None:
    stream = StringIO()
    console.configure(Log(colors=colors, level="error"), stream)
    console.show_companion("vite", 0, "ready")
    console.show_companion("db  ", 1, "up")
    plain = ["vite | ready", "db   | up"]
    colored = [f"\x1b[36mvite |{RESET} ready", f"\x1b[33mdb   |{RESET} up"]
    assert stream.getvalue().splitlines() == (colored if colors else plain)


def test_a_log_configuration_may_send_them_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('{"loggers": {"devserver.companions": {"handlers": []}}}')
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    console.configure(Log(config=str(path)), StringIO())
    logging.getLogger("devserver.companions").addHandler(handler)
    console.show_companion("vite", 0, "ready")
    assert seen == ["vite | ready"]
