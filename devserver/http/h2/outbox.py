"""What a stream has to send after its head, until there is room for it.

Bytes, and parts of files that are read when it is their turn: a file of any size takes no memory. Refuses to
know frames, windows and whose turn it is.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

from devserver.http.exchange import Headers
from devserver.http.sendfile import read

HIGH = 65536
"""Bytes that wait before whoever writes is asked to stop."""

_LOW = HIGH // 4
"""Bytes at which it may go on."""

_FILE_BLOCK = 65536


class Outbox:
    """See the module.

    Attributes:
        stream: its number.
        size: bytes that wait.
        ends: nothing more will come.
        trailers: fields that end the stream, if any.
        is_full: whoever writes was asked to stop.
        is_listed: it waits for its turn.
    """

    __slots__ = (
        "_files",
        "_full",
        "_parts",
        "_sent",
        "ends",
        "is_full",
        "is_listed",
        "size",
        "stream",
        "trailers",
    )

    def __init__(self, stream: int, full: Callable[[bool], None], sent: Callable[[], None]) -> None:
        """Args: full: told whether to stop, or to go on; sent: called when everything has been taken."""
        self.stream = stream
        self.size = 0
        self.ends = False
        self.trailers: Headers = []
        self.is_full = False
        self.is_listed = False
        self._parts: deque[bytes | memoryview | tuple[int, int, int]] = deque()
        self._files: set[int] = set()
        self._full = full
        self._sent = sent

    def put(self, data: bytes) -> None:
        """Add bytes."""
        if data:
            self._parts.append(data)
            self._grown(len(data))

    def put_file(self, file: int, offset: int, count: int) -> None:
        """Add a part of a file; whoever writes is asked to stop until it was taken.

        Args:
            file: a descriptor, which is closed here.
        """
        self._files.add(file)
        self._parts.append((file, offset, count))
        self.size += count
        self.is_full = True
        self._full(True)

    def _grown(self, size: int) -> None:
        self.size += size
        if self.size > HIGH and not self.is_full:
            self.is_full = True
            self._full(True)

    def take(self, most: int) -> bytes:
        """Take at most so many bytes; b"" when nothing waits.

        Raises:
            OSError: a file cannot be read, or has become shorter.
        """
        taken: list[bytes | memoryview] = []
        piece: bytes | memoryview
        room = min(most, self.size)
        while room > 0:
            part = self._parts[0]
            if isinstance(part, tuple):
                piece = self._read(part, min(room, _FILE_BLOCK))
            elif len(part) <= room:
                piece = part
                self._parts.popleft()
            else:
                view = memoryview(part)
                piece, self._parts[0] = view[:room], view[room:]
            taken.append(piece)
            room -= len(piece)
            self.size -= len(piece)
        return bytes(taken[0]) if len(taken) == 1 else b"".join(taken)

    def _read(self, part: tuple[int, int, int], most: int) -> bytes:
        file, offset, count = part
        data = read(file, min(count, most), offset)
        if not data:
            raise OSError("a file has become shorter while it was sent")
        if len(data) == count:
            self._parts.popleft()
            self._files.discard(file)
            os.close(file)
        else:
            self._parts[0] = file, offset + len(data), count - len(data)
        return data

    def taken(self) -> None:
        """Something was taken: whoever writes may go on."""
        if self.is_full and self.size <= _LOW and not self._files:
            self.is_full = False
            self._full(False)

    def sent(self) -> None:
        """Everything was taken, and its end."""
        self._sent()

    def clear(self) -> None:
        """Forget what waits."""
        self._parts.clear()
        self.size = 0
        for file in self._files:
            os.close(file)
        self._files.clear()
