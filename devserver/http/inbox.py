"""Messages of a WebSocket on their way to the application: put together, counted, kept in order.

Pure: parts of messages in, whole messages out. It says when so much waits that the client should
be held back; holding it back is for the connection.
"""

from __future__ import annotations

from collections import deque
from io import BytesIO, StringIO

WAITING_MESSAGES = 16
WAITING_BYTES = 65536
"""When as many messages or more bytes than this wait for the application, no more should be read."""


class TooBig(Exception):
    """A message is larger than the limit."""


class Inbox:
    """The message that is being put together, and those that wait.

    Sizes are in bytes, of UTF-8 for text. Parts go into one buffer: in a list of them, a message
    that a client sends byte by byte would take fifty times its size.
    """

    def __init__(self, limit: int) -> None:
        """Args: limit: the most bytes that a message may have."""
        self._limit = limit
        self._parts: StringIO | BytesIO | None = None
        self._size = 0
        self._waiting: deque[tuple[str | bytes, int]] = deque()
        self._bytes = 0

    @property
    def full(self) -> bool:
        """So much waits that no more should be read."""
        return len(self._waiting) >= WAITING_MESSAGES or self._bytes > WAITING_BYTES

    @property
    def roomy(self) -> bool:
        """So little waits that reading may go on: less than "not full", or it would flutter."""
        return len(self._waiting) <= WAITING_MESSAGES // 2 and self._bytes <= WAITING_BYTES // 2

    def add(self, data: str | bytes, last: bool) -> bool:
        """Take a part of a message, of the same kind as its first; returns `last`.

        Raises:
            TooBig: the message has more bytes than the limit.
        """
        self._size += len(data.encode()) if isinstance(data, str) and not data.isascii() else len(data)
        if self._size > self._limit:
            self._parts = None
            raise TooBig
        if self._parts is None and not last:
            self._parts = StringIO() if isinstance(data, str) else BytesIO()
        if self._parts is not None:
            self._parts.write(data)  # type: ignore[arg-type] # the kinds agree, which mypy cannot see
        if last:
            self._waiting.append((data if self._parts is None else self._parts.getvalue(), self._size))
            self._bytes += self._size
            self._parts, self._size = None, 0
        return last

    def take(self) -> str | bytes | None:
        """The message that has waited longest; None when none waits."""
        if not self._waiting:
            return None
        message, size = self._waiting.popleft()
        self._bytes -= size
        return message
