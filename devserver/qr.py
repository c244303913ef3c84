"""A URL as a QR code in the terminal, for a phone.

`segno` is used: pure Python and without dependencies, where qrcode wants Pillow for all but text. It
makes the code; the blocks are drawn here, two rows in a line, so that the code is square and stands on a
dark ground whatever colours the terminal has: a camera wants light round it.
"""

from __future__ import annotations

from collections.abc import Sequence

from devserver.errors import UsageError

_QUIET = 2
"""Light modules round the code. ISO/IEC 18004 wants four; cameras are content with two."""

_BLOCKS = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
"""By whether the upper and the lower module is dark: what is light is drawn."""


def code(url: str) -> list[Sequence[int]]:
    """The modules of a URL's code, row by row; dark ones are true.

    Raises:
        UsageError: the library is not installed.
    """
    try:
        import segno
    except ImportError:
        raise UsageError("--qr needs the package segno: pip install 'devserver[qr]'") from None
    return list(segno.make_qr(url, error="l").matrix)


def draw(modules: Sequence[Sequence[int]], colors: bool) -> str:
    """Lines that show a code. Args: colors: whether the terminal takes them."""
    width = len(modules) + 2 * _QUIET
    light = [[False] * width] * _QUIET
    middle = [[False] * _QUIET + [bool(each) for each in row] + [False] * _QUIET for row in modules]
    rows = [*light, *middle, *light]
    rows += [[False] * width] * (len(rows) % 2)
    lines = [
        "".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    ]
    return "\n".join(f"\x1b[40;97m{line}\x1b[0m" if colors else line for line in lines)
