"""A transport without a network, with a server's connection behind it, and what a client sends on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from devserver.config import Http
from devserver.gateway.asgi import AsgiGateway
from devserver.http.connection import Connection, Service
from devserver.http.exchange import Request
from devserver.http.h1 import parse
from devserver.http.websocket import WebSocketConnection
from devserver.websockets import WebSocket

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 section 1.3, with the answer that belongs to it


def head(*extra: bytes, target: bytes = b"/", key: bytes = KEY) -> bytes:
    lines = [
        b"GET " + target + b" HTTP/1.1",
        b"Host: localhost",
        b"Connection: keep-alive, Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + key,
        *extra,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate"


def split_frames(data: bytes) -> list[tuple[int, bytes]]:
    """First byte and payload of each frame that a server sent."""
    frames = []
    while data:
        size, at = data[1], 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        frames.append((data[0], data[at : at + size]))
        data = data[at + size :]
    return frames


def service_for(application: Application, access: list[Any], root_path: str = "", **settings: Any) -> Service:
    def on_error(request: Request, error: BaseException) -> Any:
        return 500, [(b"content-type", b"text/plain")], f"error page: {error}".encode()

    gateway = AsgiGateway(application, root_path=root_path, state={"pool": 1}, on_error=on_error)
    return Service(gateway, parse, Http(), WebSocket(**settings), [], lambda *line: access.append(line[1:5]))


class Wire(asyncio.Transport):
    """A transport that writes into memory, connected to a server's connection."""

    def __init__(self, application: Application, **settings: Any) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8000)})
        self.access: list[Any] = []
        self.service = service_for(application, self.access, **settings)
        self.loop = asyncio.get_running_loop()
        self.written = bytearray()
        self.arriving: list[bytes] = []
        self.reading = True
        self.closing = self.lost = self.aborted = self.eof = False
        self.unsent = 0
        self.protocol: Any = Connection(self.service)
        self.protocol.connection_made(self)

    @property
    def socket(self) -> WebSocketConnection:
        assert isinstance(self.protocol, WebSocketConnection)
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol  # type: ignore[no-any-return]

    def write(self, data: Any) -> None:
        assert not self.eof
        self.written += data

    def write_eof(self) -> None:
        self.eof = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        self.loop.call_soon(self._deliver)

    def close(self) -> None:
        self.closing = True
        if not self.unsent:
            self.loop.call_soon(self._lose)

    def abort(self) -> None:
        self.aborted = True
        self.unsent = 0
        self.close()

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(None)

    def _deliver(self) -> None:
        while self.arriving and self.reading and not self.closing:
            self.protocol.data_received(self.arriving.pop(0))

    async def feed(self, *pieces: bytes) -> bytes:
        """Let bytes arrive and the application work; returns what was written meanwhile."""
        self.arriving.extend(pieces)
        self._deliver()
        return await self.settle()

    async def settle(self) -> bytes:
        for _ in range(30):
            await asyncio.sleep(0)
        written = bytes(self.written)
        self.written.clear()
        return written

    async def open(self, *extra: bytes) -> bytes:
        answer = await self.feed(head(*extra))
        assert answer.startswith(b"HTTP/1.1 101 ")
        return answer

    async def frames(self, *pieces: bytes) -> list[tuple[int, bytes]]:
        return split_frames(await self.feed(*pieces))

    async def leave(self) -> None:
        """End the connection; nothing may be left of it."""
        self.abort()
        await self.settle()
        assert not self.service.connections
        assert not self.service.gateway.running
