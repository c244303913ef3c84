"""Frames of HTTP/2 as bytes (RFC 9113 sections 4, 6 and 7). Pure. Knows no streams and no fields."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client begins with (section 3.4)."""

PREFACE_HEAD = PREFACE[:18]
"""The part of it that HTTP/1.1 takes for a head, and refuses."""

PACKED = b"\0H2\n"
"""How a connection begins that a predecessor has served (`handover.pack`). No client can begin so."""

HEAD = 9
"""Bytes before a frame's payload."""

MAX_FRAME = 16384
"""The largest payload that everybody has to take, in bytes, and what is taken here (section 4.2)."""

MAX_WINDOW = 2**31 - 1
FIRST_WINDOW = 65535
"""Bytes of a window before anything is said of it (section 6.9.2)."""


class Kind(IntEnum):
    """Frame types (section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class Code(IntEnum):
    """Error codes (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """Identifiers in SETTINGS (section 6.5.2; RFC 8441 section 3)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


class Broken(Exception):
    """A connection error (section 5.4.1): the connection cannot go on."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


_HEAD = struct.Struct(">BHBBL")
_LONG = struct.Struct(">L")
_PAIR = struct.Struct(">LL")
_SETTING = struct.Struct(">HL")


def beginning(left: bytes) -> tuple[bytes, ...]:
    """How a connection of HTTP/2 begins. Args: left: what a predecessor has left of it; b"" for none."""
    return (PACKED,) if left.startswith(PACKED) else (PREFACE_HEAD,)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as bytes."""
    size = len(payload)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def head(data: bytes | bytearray, at: int) -> tuple[int, int, int, int]:
    """The number of bytes of the payload, type, flags and stream of the frame that begins at an index."""
    high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
    return high << 16 | low, kind, flags, stream & MAX_WINDOW


def number(payload: bytes, at: int = 0) -> int:
    """31 bits of a payload."""
    return int(_LONG.unpack_from(payload, at)[0]) & MAX_WINDOW


def code(payload: bytes, at: int = 0) -> int:
    """An error code in a payload; there may be ones that nobody knows."""
    return int(_LONG.unpack_from(payload, at)[0])


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Identifiers and values in a SETTINGS frame."""
    return list(_SETTING.iter_unpack(payload))


def reset(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(Kind.RST_STREAM, 0, stream, _LONG.pack(code))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, _LONG.pack(increment))


def go_away(last: int, code: int, reason: str) -> bytes:
    """A GOAWAY frame. Args: last: the last stream that was begun, or may have been."""
    return frame(Kind.GOAWAY, 0, 0, _PAIR.pack(last, code) + reason.encode())


def unpadded(flags: int, payload: bytes) -> bytes:
    """A payload of DATA or HEADERS without its padding (section 6.1).

    Raises:
        Broken: the padding is not shorter than the payload.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Broken(Code.PROTOCOL_ERROR, "padding as long as its frame")
    return payload[1 : len(payload) - payload[0]]
