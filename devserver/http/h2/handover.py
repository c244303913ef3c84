"""A connection of HTTP/2 as bytes, for the process that serves it next.

A connection on which nothing is being answered leaves no more state than the table that the client's fields
refer to, the windows, and what the client has said of itself. Requests that were held go as the frames that
brought them, but with fields that refer to no table. So who has them next reads them as if they arrived just
now.

Pure.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence

from devserver.http.exchange import Headers
from devserver.http.framing import Refused
from devserver.http.h2 import frames
from devserver.http.h2.compression import encode
from devserver.http.h2.events import Arrived, Piece
from devserver.http.h2.frames import MAX_FRAME, PACKED, Kind
from devserver.http.h2.intake import Intake
from devserver.http.h2.wire import Half, Wire

_dumps, _loads = json.dumps, json.loads  # an application may replace them

_SIZE = struct.Struct("!L")
_START = len(PACKED) + _SIZE.size


def pack(intake: Intake, held: Mapping[int, Sequence[Arrived | Piece]]) -> bytes:
    """A connection as bytes.

    Args:
        held: streams that have not begun, with what has arrived of each. All others are answered.
    """
    wire = intake.wire
    size, table = intake.reader.table()
    # What is sent again is counted again.
    again = sum(len(each.data) for events in held.values() for each in events if isinstance(each, Piece))
    about = {
        "table": [size, [[name.decode("latin-1"), value.decode("latin-1")] for name, value in table]],
        "highest": wire.highest,
        "held": [[stream, wire.streams[stream].send] for stream in held],
        "answered": [
            [stream, each.receive, each.read, each.left, each.dropped]
            for stream, each in wire.streams.items()
            if each.is_answered
        ],
        "frame": wire.max_frame,
        "windows": [wire.first_window, wire.send, wire.receive + again, wire.read],
        "begun": [intake.has_preface, intake.is_greeted],
    }
    packed = _dumps(about, separators=(",", ":")).encode("ascii")
    parts = [PACKED, _SIZE.pack(len(packed)), packed]
    for stream, events in held.items():
        for event in events:
            parts += _frames(stream, event)
    if intake.block is not None:
        stream, flags, blocks = intake.block
        parts += _head(stream, flags & frames.END_STREAM, blocks)
    return b"".join([*parts, intake.buffer])


def _frames(stream: int, event: Arrived | Piece) -> list[bytes]:
    flags = frames.END_STREAM if event.ended else 0
    if isinstance(event, Piece):
        starts = range(0, max(1, len(event.data)), MAX_FRAME)
        cut = [event.data[at : at + MAX_FRAME] for at in starts]
        return [frames.frame(Kind.DATA, flags if part is cut[-1] else 0, stream, part) for part in cut]
    block = encode(_fields(event))
    return _head(
        stream, flags, [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)], ends=True
    )


def _head(stream: int, flags: int, blocks: list[bytes], ends: bool = False) -> list[bytes]:
    """The frames of a head. Args: ends: nothing more of it is to come."""
    kinds = [Kind.HEADERS, *[Kind.CONTINUATION] * (len(blocks) - 1)]
    flagged = [flags, *[0] * (len(blocks) - 1)]
    if ends:
        flagged[-1] |= frames.END_HEADERS
    return [
        frames.frame(kind, flag, stream, block)
        for kind, flag, block in zip(kinds, flagged, blocks, strict=True)
    ]


def _fields(event: Arrived) -> Headers:
    """The fields of a head, as they could have arrived."""
    assert not isinstance(event.said, Refused)  # those are answered at once
    frame, headers = event.said
    fields = [(b":method", frame.method.encode("ascii")), (b":scheme", b"http"), (b":path", frame.target)]
    if frame.upgrade:
        fields.append((b":protocol", frame.upgrade))
    return [*fields, (b":authority", headers[0][1]), *headers[1:]]


def unpack(data: bytes, limit: int) -> tuple[Intake, bytes]:
    """The connection that was packed, and what it is to receive before anything else.

    Args:
        limit: the most bytes that a head may have.
    """
    end = _START + _SIZE.unpack_from(data, len(PACKED))[0]
    about = _loads(data[_START:end])
    wire = Wire()
    wire.highest = wire.dropped = about["highest"]
    wire.expected = dict(about["held"])
    wire.max_frame = about["frame"]
    wire.first_window, wire.send, wire.receive, wire.read = about["windows"]
    for stream, receive, read, left, dropped in about["answered"]:
        half = wire.streams[stream] = Half(wire.first_window)
        half.is_answered = True
        half.receive, half.read, half.left, half.dropped = receive, read, left, dropped
    intake = Intake(wire, limit)
    size, table = about["table"]
    intake.reader.restore(size, [(name.encode("latin-1"), value.encode("latin-1")) for name, value in table])
    intake.has_preface, intake.is_greeted = about["begun"]
    return intake, data[end:]
