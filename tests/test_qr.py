"""QR codes: what is drawn is what the code says, on a ground that cameras want."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from devserver.errors import UsageError
from devserver.qr import _BLOCKS, code, draw

URL = "https://192.168.1.7:8000"


def read(text: str) -> list[list[bool]]:
    """What is drawn, as modules again."""
    pairs = {block: pair for pair, block in _BLOCKS.items()}
    rows: list[list[bool]] = []
    for line in text.splitlines():
        rows += [[pairs[each][half] for each in line] for half in (0, 1)]
    return rows


def within(rows: list[list[bool]], size: int) -> Sequence[Sequence[bool]]:
    return [row[2 : 2 + size] for row in rows[2 : 2 + size]]


def test_what_is_drawn_is_the_code_with_light_round_it() -> None:
    modules = code(URL)
    size = len(modules)
    rows = read(draw(modules, colors=False))
    assert within(rows, size) == [[bool(each) for each in row] for row in modules]
    assert {len(row) for row in rows} == {size + 4}
    border = [*rows[:2], *rows[2 + size :], *([*row[:2], *row[-2:]] for row in rows)]
    assert not any(any(row) for row in border)
    assert len(rows) >= size + 4


def test_its_corners_are_those_of_a_qr_code() -> None:
    modules = code(URL)
    for row, column in ((0, 0), (0, len(modules) - 7), (len(modules) - 7, 0)):
        assert all(modules[row][column : column + 7])
        assert modules[row + 1][column + 1] == 0
        assert all(modules[row + 3][column + 2 : column + 5])


def test_with_colors_the_ground_is_dark_whatever_the_terminal_has() -> None:
    for line in draw(code(URL), colors=True).splitlines():
        assert line.startswith("\x1b[40;97m")
        assert line.endswith("\x1b[0m")


def test_without_its_library_the_option_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(UsageError, match=r"pip install 'devserver\[qr\]'"):
        code(URL)
