"""Makes lines of the bytes that a companion prints. Bytes in, lines out; knows nothing of where they go.

A terminal obeys what it is sent, and several programs share this one: what would clear it, move the cursor,
set a title or write to the clipboard is left out. Colours stay, if they are wanted, and end with their line.
Of several blank lines, by which some programs clear the screen, one is left.
"""

from __future__ import annotations

import codecs
import re

MOST = 8192
"""Characters of a line; a longer one is shown as several."""

_RESET = "\x1b[0m"
_COLOR = re.compile(r"\x1b\[[0-9;:]*m")
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI, ECMA-48 section 5.4
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC and other strings, section 5.6
    r"|\x1b[ -/]*[0-~]?"
)
_DIRECTIONS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""What changes the direction of text (UAX #9, sections 2.1 to 2.5): a line could look like another one."""

_ESCAPED = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in ({*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *_DIRECTIONS} - {0x09, 0x1B})
}


class Lines:
    """See the module."""

    def __init__(self, *, colors: bool) -> None:
        """Args: colors: whether they are left in."""
        self._colors = colors
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._was_blank = False

    def feed(self, data: bytes) -> list[str]:
        """Take what was printed. Returns the lines that are complete by now."""
        return self._take(self._decoder.decode(data))

    @property
    def asks(self) -> bool:
        """Whether a line has begun and is not complete."""
        return bool(self._rest)

    def pause(self) -> list[str]:
        """Nothing has come for a while, so that what is not complete may be a question. Returns it."""
        rest, self._rest = self._rest, ""
        return self._shown(rest)

    def end(self) -> list[str]:
        """Nothing comes any more. Returns the line that was not complete."""
        lines = self._take(self._decoder.decode(b"", final=True))
        return lines + self.pause() if self._rest else lines

    def _take(self, text: str) -> list[str]:
        *whole, self._rest = (self._rest + text).split("\n")
        lines = [line for each in whole for line in self._shown(each)]
        while len(self._rest) > MOST:
            lines += self._shown(self._rest[:MOST])
            self._rest = self._rest[MOST:]
        return lines

    def _shown(self, line: str) -> list[str]:
        """What is shown of a line: a list, since it may be nothing, or too long for one."""
        # What a carriage return has overwritten, as progress bars do, was for that moment.
        parts = [part for part in line.split("\r") if part]
        text = _SEQUENCE.sub(self._kept, parts[-1]) if parts else ""
        if not text and parts:
            return []
        text = text.translate(_ESCAPED)
        if not _COLOR.sub("", text).strip():
            was_blank, self._was_blank = self._was_blank, True
            return [] if was_blank else [""]
        self._was_blank = False
        found = [text[at : at + MOST] for at in range(0, len(text), MOST)]
        return [each + _RESET if "\x1b" in each and not each.endswith(_RESET) else each for each in found]

    def _kept(self, match: re.Match[str]) -> str:
        return match[0] if self._colors and _COLOR.fullmatch(match[0]) else ""
