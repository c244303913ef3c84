"""Where the body of a message ends (RFC 9112 sections 6 and 7): bytes in, body and the rest out.

Bodies are taken apart here, for every parser: of the parsers one cannot even say where in its
input a chunked body ended, and what follows belongs to the next request.

Pure. Knows no heads, no sockets and no limits of time.
"""

import re
from typing import Protocol

from devserver.http.framing import TOKEN

_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
# Space stands before what follows it, and nowhere else (RFC 9112 section 7.1.1).
_CHUNK_SIZE = re.compile(
    rb"([0-9A-Fa-f]{1,15})((?:[ \t]*;[ \t]*"
    + TOKEN
    + rb"(?:[ \t]*=[ \t]*(?:"
    + TOKEN
    + rb"|"
    + _QUOTED
    + rb"))?)*)"
)
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_TRAILER = re.compile(TOKEN + rb":[\t\x20-\x7e\x80-\xff]*")
_MAX_CHUNK_LINE = 4096
_MAX_TRAILERS = 16384
_MAX_EXTENSIONS = 16384
"""Bytes in all of a body (RFC 9112 section 7.1.1): they are no part of what is sent."""

_AT_ONCE = range(256)
"""As many chunks, or steps of reading others, before somebody else is served: about 0.1 ms."""


class BadBody(Exception):
    """A body that is not framed as its head promised."""


class Body(Protocol):
    """Takes a message's body out of the bytes of a connection.

    Attributes:
        behind: not all that was taken has been read, since that takes time. More of it is read by the next
            `feed`, of nothing or of more.
    """

    behind: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take bytes from the connection.

        Returns the part of the body in them, and None, or, when the body has ended, the bytes
        that follow it.

        Raises:
            BadBody: the bytes are no such body.
        """
        ...


class LengthBody:
    """A body of a known length (RFC 9112 section 6.2)."""

    __slots__ = ("_remaining", "behind")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.behind = False

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        if len(data) < self._remaining:
            self._remaining -= len(data)
            return data, None
        body, rest = data[: self._remaining], data[self._remaining :]
        self._remaining = 0
        return body, rest


class ChunkedBody:
    """A body in chunks (RFC 9112 section 7.1). Extensions and trailers are read and dropped.

    Chunks that are there as a whole and have no extensions are taken in one loop: a client may send one byte
    in each. Else `_step` holds the reader for what comes next, which returns False when it wants more bytes.
    While all that is done nobody else is served, so that after some of it the reader stops and is `behind`.
    Nothing is removed from the buffer before all of it has been read: that would cost its size each time.
    """

    __slots__ = (
        "_at", "_buffer", "_ended", "_extensions", "_out", "_remaining", "_step", "_trailers", "behind",
    )  # fmt: skip

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0  # what is before has been read
        self._out: list[bytes] = []
        self._remaining = 0
        self._trailers = 0
        self._extensions = 0
        self._ended = False
        self._step = self._size
        self.behind = False

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        if not self._buffer:
            self._buffer = data
        elif data:
            self._buffer = self._buffer[self._at :] + data
            self._at = 0
        self.behind = False
        for _ in _AT_ONCE:
            if self._ended or not self._step():
                break
        else:
            self.behind = not self._ended
        if not self.behind:
            self._buffer = self._buffer[self._at :]
            self._at = 0
        out = self._out
        body = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return body, self._buffer if self._ended else None

    def _line(self, limit: int) -> bytes | None:
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\n", at, at + limit)
        if end < 0:
            if len(buffer) - at < limit:
                return None
            raise BadBody(f"line longer than {limit} bytes in a chunked body")
        if end == at or buffer[end - 1] != 0x0D:
            raise BadBody("a line of a chunked body does not end with CR LF")
        self._at = end + 1
        return buffer[at : end - 1]

    def _whole(self) -> None:
        """Take the chunks that are all there, up to a number of them."""
        buffer, at = self._buffer, self._at
        out, match = self._out, _PLAIN_SIZE.match
        for _ in _AT_ONCE:
            if not (found := match(buffer, at)):
                break
            begin = found.end()
            end = begin + int(found[1], 16)
            if end == begin or buffer[end : end + 2] != b"\r\n":
                break
            out.append(buffer[begin:end])
            at = end + 2
        else:
            self.behind = True
        self._at = at

    def _size(self) -> bool:
        self._whole()
        if self.behind:
            return False
        line = self._line(_MAX_CHUNK_LINE)
        if line is None:
            return False
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise BadBody("malformed chunk size")
        self._extensions += len(match[2])
        if self._extensions > _MAX_EXTENSIONS:
            raise BadBody(f"more than {_MAX_EXTENSIONS} bytes of chunk extensions")
        self._remaining = int(match[1], 16)
        self._step = self._data if self._remaining else self._trailer
        return True

    def _data(self) -> bool:
        piece = self._buffer[self._at : self._at + self._remaining]
        if not piece:
            return False
        self._at += len(piece)
        self._out.append(piece)
        self._remaining -= len(piece)
        if not self._remaining:
            self._step = self._data_end
        return True

    def _data_end(self) -> bool:
        end = self._buffer[self._at : self._at + 2]
        if len(end) < 2 and b"\r".startswith(end):
            return False
        if end != b"\r\n":
            raise BadBody("chunk longer than its size")
        self._at += 2
        self._step = self._size
        return True

    def _trailer(self) -> bool:
        line = self._line(_MAX_TRAILERS - self._trailers)
        if line is None:
            return False
        self._trailers += len(line) + 2
        if not line:
            self._ended = True
        elif _TRAILER.fullmatch(line) is None:
            raise BadBody("malformed trailer")
        return True


def body(length: int) -> Body | None:
    """The reader for a body of `length` bytes, -1 for chunked; None where there is none."""
    if length == 0:
        return None
    return ChunkedBody() if length < 0 else LengthBody(length)
