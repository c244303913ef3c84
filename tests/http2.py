"""A client of HTTP/2 that sends what a test says, frame for frame. It uses nothing of the server's code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from devserver.http.response import Defaults
from tests.patience import DEADLINE
from tests.wire import Application, Wire

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = SettingsFrame(0).serialize()

Fields = list[tuple[bytes, bytes]]
GET: Fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
POST: Fields = [(b":method", b"POST"), *GET[1:]]


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def plain(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), DEADLINE))

    return plain


def head(stream: int, fields: Fields, ended: bool = True, *, encoder: Encoder | None = None) -> bytes:
    """HEADERS as one frame."""
    flags = ["END_HEADERS", *(["END_STREAM"] if ended else [])]
    return HeadersFrame(stream, (encoder or Encoder()).encode(fields), flags=flags).serialize()


def data(stream: int, body: bytes, ended: bool = True) -> bytes:
    """A body in frames."""
    parts = [body[at : at + 16384] for at in range(0, len(body), 16384)] or [b""]
    frames = [
        DataFrame(stream, part, flags=["END_STREAM"] if ended and part is parts[-1] else []) for part in parts
    ]
    return b"".join(frame.serialize() for frame in frames)


def more(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE."""
    return WindowUpdateFrame(stream, increment).serialize()


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of any kind, well-formed or not."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


class Answers:
    """What a server has sent, taken apart.

    Attributes:
        heads: fields of each stream, in order.
        bodies: of each stream.
        ended: streams that were ended.
        resets: error codes of those that were reset.
        gone: last stream and error code of each GOAWAY.
        frames: all of them.
    """

    def __init__(self) -> None:
        self.heads: dict[int, list[dict[bytes, bytes]]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.gone: list[tuple[int, int]] = []
        self.frames: list[Any] = []
        self._decoder = Decoder()
        self._buffer = b""
        self._block = b""

    def add(self, text: bytes) -> None:
        self._buffer += text
        while len(self._buffer) >= 9:
            frame, size = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + size:
                return
            frame.parse_body(memoryview(self._buffer[9 : 9 + size]))
            self._buffer = self._buffer[9 + size :]
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        self.frames.append(frame)
        if isinstance(frame, HeadersFrame | ContinuationFrame):
            self._block += frame.data
            if "END_HEADERS" in frame.flags:
                fields = dict(self._decoder.decode(self._block, raw=True))
                self.heads.setdefault(frame.stream_id, []).append(fields)
                self._block = b""
        elif isinstance(frame, DataFrame):
            self.bodies[frame.stream_id] = self.bodies.get(frame.stream_id, b"") + frame.data
        elif isinstance(frame, RstStreamFrame):
            self.resets[frame.stream_id] = frame.error_code
        elif isinstance(frame, GoAwayFrame):
            self.gone.append((frame.last_stream_id, frame.error_code))
        if "END_STREAM" in frame.flags:
            self.ended.add(frame.stream_id)

    def status(self, stream: int) -> int | None:
        """The status of a final response."""
        heads = self.heads.get(stream, [])
        return next((int(each[b":status"]) for each in heads if each[b":status"] >= b"2"), None)


class Client:
    """A connection to an application, without a network.

    Attributes:
        wire: what is between them.
        got: what the server has sent.
        encoder: of fields.
    """

    def __init__(self, application: Application, **settings: Any) -> None:
        self.wire = Wire(application, **settings)
        self.wire.service.http2 = True
        self.wire.service.defaults = Defaults([])
        self.got = Answers()
        self.encoder = Encoder()

    async def greet(self, *settings: bytes) -> Client:
        await self.send(PREFACE, *(settings or (SETTINGS,)))
        return self

    async def send(self, *pieces: bytes) -> Answers:
        """Send, and let the application work. Returns all that was got so far."""
        self.got.add(await self.wire.feed(*pieces))
        return self.got

    async def settle(self) -> Answers:
        self.got.add(await self.wire.settle())
        return self.got

    def head(self, stream: int, fields: Fields, ended: bool = True) -> bytes:
        return head(stream, fields, ended, encoder=self.encoder)
