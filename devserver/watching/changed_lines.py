"""At which line a module was changed: for the line in the terminal that says so.

Keeps a checksum for each line of the user's modules, taken when there is time, and not their text.
Decides nothing: where it knows nothing, no line is named.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from zlib import crc32

from devserver.watching.answers import Fingerprint, fingerprint_at

MOST = 16 * 2**20
"""Bytes of source that are looked at; in a project that has more, no line is named in the rest."""


class ChangedLines:
    """See the module."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Fingerprint, array[int]]] = {}
        self._left = MOST

    def note(self, paths: Iterable[str]) -> None:
        """Look at modules that are new, or others than they were."""
        for path in paths:
            fingerprint = fingerprint_at(path) if path.endswith(".py") else None
            known = self._known.get(path)
            if fingerprint is None or (known is not None and known[0] == fingerprint):
                continue
            if known is not None or fingerprint[2] <= self._left:
                self._left -= fingerprint[2] if known is None else 0
                self._known[path] = fingerprint, _checksums(path)

    def changed(self, path: str) -> int:
        """The first line that differs from what was noted; 0 if that is not known. Notes the new ones."""
        known = self._known.get(path)
        if known is None:
            return 0
        self.note([path])
        before, now = known[1], self._known[path][1]
        pairs = enumerate(zip(before, now, strict=False), 1)
        same = min(len(before), len(now))
        line = next((number for number, (one, other) in pairs if one != other), same + 1)
        return line if before != now else 0


def _checksums(path: str) -> array[int]:
    try:
        with open(path, "rb") as file:
            return array("L", map(crc32, file.read().splitlines()))
    except OSError:
        return array("L")
