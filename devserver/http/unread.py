"""What has arrived on a connection and belongs to no request yet.

A client may send many requests ahead. To cut off each that is taken would copy all that come after it, so
what is taken is only passed over, and is let go of when more arrives or nothing is left.

Pure. Refuses to know what a head must look like, and how much may wait.
"""

from __future__ import annotations

from devserver.http.service import Heads


class Unread:
    """See the module. Its length is the number of bytes that wait.

    Attributes:
        data: what waits is at the end of it; b"" if nothing waits. To be set only then.
    """

    __slots__ = ("_at", "_searched", "data")

    def __init__(self, data: bytes) -> None:
        """Args: what has arrived before."""
        self.data = data
        self._at = 0  # what is before has been taken
        self._searched = 0  # up to where a head's end was looked for, in vain

    def __len__(self) -> int:
        return len(self.data) - self._at

    def add(self, data: bytes) -> None:
        """More arrives."""
        self._searched = max(0, self._searched - self._at)
        self.data, self._at = self.all() + data, 0

    def all(self) -> bytes:
        """Everything that waits. It stays."""
        return self.data[self._at :] if self._at else self.data

    def head(self, heads: Heads, limit: int) -> bytes:
        """The next head. It stays, but for what may stand before it; b"" if it has not all arrived.

        Args:
            limit: the most bytes that a head may have.

        Raises:
            framing.Refused: there is none, or it is too large.
        """
        data, at = self.data, self._at
        if data[at : at + 1] == b"\r":
            self.drop(heads.blank_lines(data, at))
            data, at = self.data, self._at
        end = heads.end_of_head(data, at, self._searched, limit)
        if end < 0:
            self._searched = len(data)
            return b""
        return data[at:end]

    def drop(self, size: int) -> None:
        """Pass over so many bytes, which are there."""
        self._at += size
        self._searched = 0
        if self._at == len(self.data):
            self.data, self._at = b"", 0

    def take(self, size: int = -1) -> bytes:
        """The next bytes, up to so many; -1 for all."""
        data, at = self.data, self._at
        if 0 <= size < len(data) - at:
            data = data[at : at + size]
            self._at = at + size
        else:
            data = data[at:]
            self.data, self._at = b"", 0
        self._searched = 0
        return data
