"""WebSockets: handshake, frames, limits, back pressure, the close, and the ASGI side.

`Wire` is a transport without a network: it keeps what was written and hands over what a test feeds.
Behind it stand the real connection, the real response and the real gateway. What needs a real
network (other people's client, a reset, a slow reader) has one: `Site`.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import functools
import os
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from wsproto.connection import Connection as WsprotoConnection
from wsproto.connection import ConnectionType
from wsproto.events import CloseConnection

from devserver.errors import ApplicationError
from devserver.gateway.asgi_words import ClientDisconnected
from devserver.gateway.websocket import AsgiSession
from devserver.http import deflate, handshake, websocket
from devserver.http.connection import Connection
from devserver.http.exchange import Request
from devserver.http.inbox import Inbox, TooBig
from devserver.http.response import Defaults
from devserver.http.upgrade import Upgrade
from devserver.http.websocket import WebSocketConnection
from devserver.websockets import WebSocket
from tests.raw import Raw, serving
from tests.wire import DEFLATE, KEY, Application, Receive, Send, Wire, head, service_for, split_frames

ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
SECONDS = 20.0


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, SECONDS))


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def plain(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    return plain


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so; `run` has the deadline."""
    while not condition():  # noqa: ASYNC110 # nothing in a server tells a test that it has paused
        await asyncio.sleep(0)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    first = fin << 7 | rsv << 4 | opcode
    size = len(payload)
    if size < 126:
        length = bytes([size])
    else:
        length = struct.pack("!BH", 126, size) if size < 65536 else struct.pack("!BQ", 127, size)
    if not mask:
        return bytes([first]) + length + payload
    key = os.urandom(4)
    masked = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    return bytes([first, length[0] | 0x80]) + length[1:] + key + masked


def closing(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


# Applications


async def echo(scope: Any, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Scripted:
    """An application that does what a test tells it, step by step, and reports what came of it."""

    def __init__(self) -> None:
        self.scope: Any = None
        self.received: list[Any] = []
        self.errors: list[BaseException] = []
        self.script: list[Any] = []
        self.ended = False

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.scope = scope
        try:
            for step in self.script:
                await self._take(step, receive, send)
        finally:
            self.ended = True

    async def _take(self, step: Any, receive: Receive, send: Send) -> None:
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, asyncio.Event):
            await step.wait()
        elif step == "receive":
            self.received.append(await receive())
        elif isinstance(step, tuple):  # a message whose error is kept
            try:
                await send(step[0])
            except Exception as error:
                self.errors.append(error)
        else:
            await send(step)


ACCEPT_IT = {"type": "websocket.accept"}
CLOSE_IT = {"type": "websocket.close"}
HELLO = {"type": "websocket.send", "text": "hello"}
RESPOND = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"no ticket")]}


# With one


class Site:
    """A server on a free port of this machine, in this loop."""

    def __init__(self, application: Application, **settings: Any) -> None:
        self.access: list[Any] = []
        self.service = service_for(application, self.access, **settings)

    async def __aenter__(self) -> Site:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self.service), "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.server.close()
        for connection in list(self.service.connections):
            connection.disconnect()
        await until(lambda: not self.service.connections and not self.service.gateway.running)

    async def dial(self, *extra: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that speaks bytes; the handshake is done."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(head(*extra))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        return reader, writer


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, size = await reader.readexactly(2)
    if size > 125:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return first & 15, await reader.readexactly(size)


# The handshake


def request(*changes: tuple[bytes, bytes | None], method: str = "GET", version: str = "1.1") -> Request:
    """A good handshake's head with headers replaced, added or (None) left out."""
    headers = {
        b"host": b"localhost",
        b"connection": b"Upgrade",
        b"upgrade": b"websocket",
        b"sec-websocket-version": b"13",
        b"sec-websocket-key": KEY,
    }
    kept = [(name, value) for name, value in headers.items() if name not in dict(changes)]
    added = [(name, value) for name, value in changes if value is not None]
    return Request(method, b"/", b"/", b"", version, kept + added)


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (request((b"sec-websocket-key", None)), 400),
        (request((b"sec-websocket-key", b"")), 400),
        (request((b"sec-websocket-key", b"not base64 at all!")), 400),
        (request((b"sec-websocket-key", base64.b64encode(bytes(15)))), 400),
        (request((b"sec-websocket-key", base64.b64encode(bytes(17)))), 400),
        (request((b"sec-websocket-key", KEY), (b"sec-websocket-key", KEY)), 400),
        (request((b"sec-websocket-version", None)), 426),
        (request((b"sec-websocket-version", b"8")), 426),
        (request((b"sec-websocket-version", b"13, 8")), 426),
        (request((b"connection", b"keep-alive")), 400),
        (request((b"upgrade", b"h2c")), 400),
        (request((b"upgrade", None)), 400),
        (request((b"content-length", b"5")), 400),
        (request((b"transfer-encoding", b"chunked")), 400),
        (request(method="POST"), 400),
        (request(version="1.0"), 400),
    ],
)
def test_bad_handshake(bad: Request, status: int) -> None:
    with pytest.raises(handshake.BadHandshake) as raised:
        handshake.read(bad)
    assert raised.value.status == status


@pytest.mark.parametrize(
    "good",
    [
        request(),
        request((b"connection", b"keep-alive, UPGRADE")),
        request((b"upgrade", b"WebSocket")),
        request((b"content-length", b"0")),
    ],
)
def test_good_handshake(good: Request) -> None:
    assert handshake.read(good).key == KEY


def test_lists_of_a_handshake_go_over_lines() -> None:
    opening = handshake.read(
        request((b"sec-websocket-protocol", b"chat.v2 ,,chat"), (b"sec-websocket-protocol", b"plain"))
    )
    assert opening.subprotocols == ["chat.v2", "chat", "plain"]


def test_answer() -> None:
    opening = handshake.Opening(KEY, ["a", "b"], [])
    answer = handshake.answer(
        opening, "b", "permessage-deflate", [(b"x-own", b"1"), (b"connection", b"close")], Defaults([])
    )
    assert answer.split(b"\r\n") == [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + ACCEPT,
        b"Sec-WebSocket-Protocol: b",
        b"Sec-WebSocket-Extensions: permessage-deflate",
        b"x-own: 1",
        b"",
        b"",
    ]


def test_an_answer_is_not_spoilt_by_what_the_server_adds() -> None:
    opening = handshake.Opening(KEY, ["a"], [])
    added = [(b"x-added", b"a"), (b"x-own", b"yours"), (b"upgrade", b"h2c"), (b"content-length", b"1")]
    added += [(b"sec-websocket-accept", b"x"), (b"sec-websocket-protocol", b"a")]
    answer = handshake.answer(opening, None, "", [(b"x-own", b"mine")], Defaults(added))
    assert answer.split(b"\r\n")[1:] == [
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + ACCEPT,
        b"x-own: mine",
        b"x-added: a",
        b"",
        b"",
    ]


@pytest.mark.parametrize(
    ("subprotocol", "headers", "named"),
    [
        ("c", [], "'c'"),
        (None, [(b"sec-websocket-protocol", b"a")], "subprotocol"),
        (None, [(b"sec-websocket-accept", b"a")], "sec-websocket-accept"),
        (None, [(b"sec-websocket-extensions", b"a")], "negotiates"),
        (None, [(b"x-a", b"1\r\nx-b: 2")], "x-a"),
        (None, [(b"x-a", b"\x07")], "x-a"),
        (None, [(b"x a", b"1")], "x a"),
        (None, [(b"", b"1")], "header name"),
    ],
)
def test_answer_that_cannot_be_sent(subprotocol: str | None, headers: Any, named: str) -> None:
    with pytest.raises(ApplicationError, match=named):
        handshake.answer(handshake.Opening(KEY, ["a"], []), subprotocol, "", headers, Defaults([]))


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ((b"Key: " + KEY, b"Key: short"), b"400"),
        ((b"Version: 13", b"Version: 12"), b"426"),
    ],
)
def test_bad_handshake_is_answered_and_the_application_never_called(
    changed: tuple[bytes, bytes], status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        application = Scripted()
        wire = Wire(application)
        answer = await wire.feed(head().replace(*changed))
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"\r\nConnection: close\r\n" in answer
        assert (b"Sec-WebSocket-Version: 13" in answer) == (status == b"426")
        assert wire.closing
        assert application.scope is None
        assert [line[3] for line in wire.access] == [int(status)]
        await wire.leave()

    run(test())
    assert "refused the WebSocket /" in caplog.text


@in_loop
async def test_frames_sent_before_the_answer_are_kept() -> None:
    wire = Wire(echo)
    answer = await wire.feed(head() + frame(TEXT, b"early"), frame(TEXT, b"bird"))
    frames = split_frames(answer.partition(b"\r\n\r\n")[2])
    assert frames == [(0x81, b"early"), (0x81, b"bird")]
    await wire.leave()


@in_loop
async def test_a_client_that_sends_much_before_the_answer_is_held_back() -> None:
    gate, later = asyncio.Event(), asyncio.Event()
    application = Scripted()
    application.script = [gate, ACCEPT_IT, later, "receive", "receive"]
    wire = Wire(application)
    data = frame(BINARY, bytes(100_000))
    await wire.feed(head(), data[:70_000], data[70_000:])
    assert not wire.reading
    assert len(wire.arriving) == 1
    gate.set()
    await wire.settle()
    assert not wire.arriving
    later.set()
    await wire.settle()
    assert application.received[1]["bytes"] == bytes(100_000)
    await wire.leave()


# Compression


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        (["permessage-deflate"], "permessage-deflate"),
        (["permessage-deflate; client_max_window_bits"], "permessage-deflate; client_max_window_bits=15"),
        (["permessage-deflate; server_max_window_bits=10"], "permessage-deflate; server_max_window_bits=10"),
        (
            ["permessage-deflate; server_no_context_takeover; client_no_context_takeover"],
            "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        ),
        (['permessage-deflate; server_max_window_bits="9"'], "permessage-deflate; server_max_window_bits=9"),
        (["x-webkit-deflate-frame", "permessage-deflate"], "permessage-deflate"),
        (["permessage-deflate; server_max_window_bits=8", "permessage-deflate"], "permessage-deflate"),
        (["permessage-deflate; server_max_window_bits"], None),
        (["permessage-deflate; server_max_window_bits=16"], None),
        (["permessage-deflate; server_max_window_bits=x"], None),
        (["permessage-deflate; unknown"], None),
        (["permessage-deflate; client_no_context_takeover; client_no_context_takeover"], None),
        (["something-else"], None),
        ([], None),
    ],
)
def test_negotiation_of_compression(offers: list[str], answer: str | None) -> None:
    agreed = deflate.negotiate(offers, 100)
    assert (agreed and agreed[1]) == answer


def test_a_declined_offer_leaves_nothing_behind() -> None:
    agreed = deflate.negotiate(
        ["permessage-deflate; client_no_context_takeover; server_max_window_bits=8", "permessage-deflate"],
        100,
    )
    assert agreed is not None
    assert not agreed[0].client_no_context_takeover


@in_loop
async def test_compressed_messages_both_ways() -> None:
    wire = Wire(echo)
    assert b"Sec-WebSocket-Extensions: permessage-deflate\r\n" in await wire.open(DEFLATE)
    text = b"round and round and round " * 100
    [(first, payload)] = await wire.frames(frame(TEXT, deflated(text), rsv=4))
    assert first == 0xC1
    assert len(payload) < 200
    assert zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff") == text
    await wire.leave()


@in_loop
async def test_a_ping_between_the_fragments_of_a_compressed_message() -> None:
    application = Scripted()
    application.script = [ACCEPT_IT, "receive", "receive", "receive"]
    wire = Wire(application)
    await wire.open(DEFLATE)
    text = os.urandom(600).hex().encode()
    data = deflated(text)
    frames = await wire.frames(
        frame(TEXT, data[:200], fin=False, rsv=4),
        frame(PING, b"there?"),
        frame(CONTINUATION, data[200:]),
        frame(TEXT, b"plain"),
    )
    assert frames[0] == (0x8A, b"there?")
    assert [message.get("text") for message in application.received] == [None, text.decode(), "plain"]
    await wire.leave()


def test_the_window_of_a_client_goes_over_messages_unless_it_says_otherwise() -> None:
    async def test(extra: bytes, *payloads: bytes) -> None:
        application = Scripted()
        application.script = [ACCEPT_IT, "receive", "receive", "receive"]
        wire = Wire(application)
        await wire.open(DEFLATE + extra)
        await wire.feed(*(frame(BINARY, payload, rsv=4) for payload in payloads))
        assert [message["bytes"] for message in application.received[1:]] == [b"same same " * 9] * 2
        await wire.leave()

    data = b"same same " * 9
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    shared = [(compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2)]
    assert len(shared[1]) < len(shared[0])
    run(test(b"", *shared))
    run(test(b"; client_no_context_takeover", deflated(data), deflated(data)))


@in_loop
async def test_a_final_block_ends_the_window() -> None:
    application = Scripted()
    application.script = [ACCEPT_IT, "receive", "receive", "receive"]
    wire = Wire(application)
    await wire.open(DEFLATE)
    # RFC 7692 section 7.2.3.5: "Hello" in a block with BFINAL, and the empty block after it.
    final = bytes.fromhex("f348cdc9c9070000")
    await wire.feed(frame(TEXT, final, rsv=4), frame(TEXT, final, rsv=4))
    assert [message["text"] for message in application.received[1:]] == ["Hello"] * 2
    await wire.leave()


@in_loop
async def test_compression_can_be_switched_off() -> None:
    wire = Wire(echo, deflate=False)
    assert b"extensions" not in await wire.open(DEFLATE)
    assert await wire.frames(frame(TEXT, b"a" * 1000)) == [(0x81, b"a" * 1000)]
    assert (await wire.frames(frame(TEXT, b"x", rsv=4)))[0][1][:2] == struct.pack("!H", 1002)
    await wire.leave()


@in_loop
async def test_what_is_no_deflate_stream_closes_with_1007() -> None:
    wire = Wire(echo)
    await wire.open(DEFLATE)
    [(first, payload)] = await wire.frames(frame(TEXT, b"\xff\xff\xff\xff", rsv=4))
    assert first == 0x88
    assert payload[:2] == struct.pack("!H", 1007)
    await wire.leave()


# Messages


@in_loop
async def test_fragments_become_one_message() -> None:
    application = Scripted()
    application.script = [ACCEPT_IT, *["receive"] * 4]
    wire = Wire(application)
    await wire.open()
    euro = "5 \N{EURO SIGN}\r\n".encode()
    stream = (
        frame(TEXT, euro[:3], fin=False)  # within a character
        + frame(CONTINUATION, b"", fin=False)
        + frame(CONTINUATION, euro[3:])
        + frame(BINARY, b"a", fin=False)
        + frame(CONTINUATION, b"b")
        + frame(TEXT, b"")
    )
    await wire.feed(*(stream[i : i + 1] for i in range(len(stream))))
    assert application.received == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "5 \N{EURO SIGN}\r\n"},
        {"type": "websocket.receive", "bytes": b"ab"},
        {"type": "websocket.receive", "text": ""},
    ]
    await wire.leave()


def test_inbox_counts_bytes() -> None:
    inbox = Inbox(6)
    assert inbox.add("\N{EURO SIGN}" * 2, True)
    with pytest.raises(TooBig):
        inbox.add("\N{EURO SIGN}" * 2 + "x", True)
    inbox = Inbox(6)
    assert not inbox.add(b"123456", False)
    with pytest.raises(TooBig):
        inbox.add(b"7", False)


def test_inbox_is_full_before_it_is_roomy_again() -> None:
    inbox = Inbox(2**20)
    for n in range(16):
        assert not inbox.full
        inbox.add(b"%d" % n, True)
    assert inbox.full
    assert [inbox.take() for _ in range(7)] == [b"%d" % n for n in range(7)]
    assert not inbox.full
    assert not inbox.roomy
    inbox.take()
    assert inbox.roomy
    inbox.add(bytes(65537), True)
    assert inbox.full


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("how", ["whole", "fragments", "deflated"])
def test_size_limit(opcode: int, how: str) -> None:
    def message(size: int) -> bytes:
        data = b"x" * size
        if how == "whole":
            return frame(opcode, data)
        if how == "deflated":
            return frame(opcode, deflated(data), rsv=4)
        third = size // 3
        return (
            frame(opcode, data[:third], fin=False)
            + frame(CONTINUATION, data[third : 2 * third], fin=False)
            + frame(CONTINUATION, data[2 * third :])
        )

    async def test() -> None:
        application = Scripted()
        application.script = [ACCEPT_IT, *["receive"] * 4]
        wire = Wire(application, max_size=5000)
        await wire.open(*[DEFLATE] * (how == "deflated"))
        assert await wire.frames(message(5000), message(5000)) == []
        [(first, payload)] = await wire.frames(message(5001))
        assert first == 0x88
        assert payload == struct.pack("!H", 1009) + b"message larger than 5000 bytes (--ws-max-size)"
        assert [message["type"] for message in application.received[-2:]] == [
            "websocket.receive",
            "websocket.disconnect",
        ]
        assert application.received[-1]["code"] == 1009
        assert wire.eof
        assert wire.reading
        await wire.leave()

    run(test())


def test_a_bomb_is_not_inflated() -> None:
    agreed = deflate.negotiate(["permessage-deflate"], 10_000)
    assert agreed is not None
    frames = WsprotoConnection(ConnectionType.SERVER, [agreed[0]])
    frames.receive_data(frame(BINARY, deflated(bytes(20_000_000)), rsv=4))
    tracemalloc.start()
    [event] = frames.events()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(event, CloseConnection)
    assert event.code == 1009
    assert peak < 500_000


# Errors of the client


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(TEXT, b"x", mask=False), 1002, id="unmasked"),
        pytest.param(frame(TEXT, b"x", rsv=4), 1002, id="rsv1"),
        pytest.param(frame(TEXT, b"x", rsv=2), 1002, id="rsv2"),
        pytest.param(frame(TEXT, b"x", rsv=1), 1002, id="rsv3"),
        pytest.param(frame(3), 1002, id="opcode 3"),
        pytest.param(frame(11), 1002, id="opcode 11"),
        pytest.param(frame(PING, bytes(126)), 1002, id="long ping"),
        pytest.param(frame(PING, fin=False), 1002, id="fragmented ping"),
        pytest.param(frame(CONTINUATION, b"x"), 1002, id="continuation of nothing"),
        pytest.param(frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002, id="message in a message"),
        pytest.param(b"\x82\xfe\x00\x05" + bytes(9), 1002, id="length in 2 bytes where 1 does"),
        pytest.param(
            b"\x82\xff" + struct.pack("!Q", 5) + bytes(9), 1002, id="length in 8 bytes where 1 does"
        ),
        pytest.param(b"\x82\xff" + struct.pack("!Q", 2**63) + bytes(9), 1002, id="negative length"),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="close with half a code"),
        pytest.param(closing(1005), 1002, id="close with 1005"),
        pytest.param(closing(1006), 1002, id="close with 1006"),
        pytest.param(closing(999), 1002, id="close with 999"),
        pytest.param(closing(2999), 1002, id="close with 2999"),
        pytest.param(frame(CLOSE, b"\x03\xe8\xff"), 1007, id="close with no UTF-8"),
        pytest.param(frame(TEXT, b"\xff"), 1007, id="no UTF-8"),
        pytest.param(frame(TEXT, b"\xc3"), 1007, id="cut UTF-8"),
        pytest.param(frame(TEXT, b"\xed\xa0\x80"), 1007, id="surrogate"),
        pytest.param(frame(TEXT, b"ok\xff", fin=False), 1007, id="no UTF-8 in a fragment"),
    ],
)
def test_broken_frames(data: bytes, code: int, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        application = Scripted()
        application.script = [ACCEPT_IT, "receive", "receive", (HELLO,)]
        wire = Wire(application)
        await wire.open()
        frames = await wire.frames(data)
        assert [(first, payload[:2]) for first, payload in frames] == [(0x88, struct.pack("!H", code))]
        assert application.received[1] == {"type": "websocket.disconnect", "code": code, "reason": ""}
        assert isinstance(application.errors[0], ClientDisconnected)
        assert wire.eof  # our side has ended; what still comes is dropped, so that the code arrives
        assert not wire.closing
        assert await wire.feed(frame(TEXT, b"more")) == b""
        await wire.leave()

    run(test())
    assert f"closed the WebSocket / with {code}" in caplog.text


@pytest.mark.parametrize(
    "data",
    [frame(PING, b"x", rsv=4), frame(TEXT, b"", fin=False, rsv=4) + frame(CONTINUATION, b"x", rsv=4)],
    ids=["ping", "continuation"],
)
@in_loop
async def test_only_the_first_frame_of_a_message_is_marked_as_compressed(data: bytes) -> None:
    wire = Wire(echo)
    await wire.open(DEFLATE)
    [(first, payload)] = await wire.frames(data)
    assert (first, payload[:2]) == (0x88, struct.pack("!H", 1002))
    await wire.leave()


def test_only_the_first_error_counts(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        wire = Wire(echo, max_size=10)
        await wire.open()
        frames = await wire.frames(frame(TEXT, bytes(11)) + frame(PING) + frame(3) + frame(TEXT, b"x"))
        assert [payload[:2] for _, payload in frames] == [struct.pack("!H", 1009)]
        await wire.leave()

    run(test())
    assert len(caplog.records) == 1


# Pings


@in_loop
async def test_pings_are_answered() -> None:
    wire = Wire(echo)
    await wire.open()
    stream = frame(TEXT, b"a", fin=False) + frame(PING, b"1") + frame(CONTINUATION, b"b") + frame(PING)
    assert await wire.frames(stream) == [(0x8A, b"1"), (0x8A, b""), (0x81, b"ab")]
    await wire.leave()


@in_loop
async def test_of_pings_that_find_no_room_the_last_is_answered() -> None:
    """RFC 6455 section 5.5.3. Else a client that reads nothing would fill the memory."""
    wire = Wire(echo, ping_interval=0.0)
    await wire.open()
    wire.protocol.pause_writing()
    assert await wire.frames(frame(PING, b"1"), frame(PING, b"2")) == []
    wire.protocol.resume_writing()
    assert await wire.frames(frame(PING, b"3")) == [(0x80 | PONG, b"2"), (0x80 | PONG, b"3")]
    await wire.leave()


@in_loop
async def test_pings_go_on_as_long_as_they_are_answered() -> None:
    async with Site(echo, ping_interval=0.02, ping_timeout=10.0) as site:
        reader, writer = await site.dial()
        payloads = []
        for _ in range(3):
            opcode, payload = await read_frame(reader)
            assert opcode == PING
            payloads.append(payload)
            writer.write(frame(PONG, payload))
        assert len(set(payloads)) == 3
        writer.close()


@pytest.mark.parametrize("answers", [b"", frame(PONG, b"unasked")], ids=["nothing", "unasked pong"])
@in_loop
async def test_silence_closes_with_1011(answers: bytes) -> None:
    application = Scripted()
    application.script = [ACCEPT_IT, "receive", "receive"]
    async with Site(application, ping_interval=0.05, ping_timeout=0.05) as site:
        reader, writer = await site.dial()
        assert (await read_frame(reader))[0] == PING
        writer.write(answers)
        assert await read_frame(reader) == (CLOSE, struct.pack("!H", 1011) + b"keepalive ping timeout")
        assert await reader.read() == b""
        writer.close()
    assert application.received[1]["code"] == 1011


class Clock:
    """Takes the place of a loop's `call_later`: timers fire when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timers: list[tuple[float, asyncio.Handle]] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", self.call_later)

    def call_later(
        self, delay: float, callback: Callable[..., None], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, asyncio.get_running_loop(), context)
        self.timers.append((delay, handle))
        return handle

    @property
    def waiting(self) -> list[float]:
        return [delay for delay, handle in self.timers if not handle.cancelled()]

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for _, handle in timers:
            if not handle.cancelled():
                handle._run()


@in_loop
async def test_timers_of_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    wire = Wire(echo, ping_interval=7.0, ping_timeout=3.0)
    await wire.open()
    assert clock.waiting == [7.0]
    clock.fire()
    assert clock.waiting == [3.0]
    [(first, payload)] = await wire.frames()
    assert first == 0x89
    await wire.feed(frame(PONG, payload))
    assert clock.waiting == [7.0]
    await wire.leave()
    assert clock.waiting == []


@in_loop
async def test_pings_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    wire = Wire(echo, ping_interval=0.0)
    await wire.open()
    assert clock.waiting == []
    await wire.leave()
    wire = Wire(echo, ping_interval=7.0, ping_timeout=0.0)
    await wire.open()
    for _ in range(3):
        assert clock.waiting == [7.0]
        clock.fire()
        assert [first for first, _ in await wire.frames()] == [0x89]
    await wire.leave()


@in_loop
async def test_a_pong_behind_messages_that_wait_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    gate = asyncio.Event()
    application = Scripted()
    application.script = [ACCEPT_IT, gate, *["receive"] * 18]
    wire = Wire(application, ping_interval=7.0, ping_timeout=3.0)
    await wire.open()
    clock.fire()
    [(_, payload)] = await wire.frames()
    await wire.feed(*[frame(TEXT, b"x")] * 16, frame(PONG, payload))
    clock.fire()
    assert await wire.settle() == b""
    assert clock.waiting == [3.0]
    gate.set()
    await wire.settle()
    assert clock.waiting == [7.0]
    await wire.leave()


# Back pressure


@in_loop
async def test_reading_stops_while_much_waits_for_the_application() -> None:
    application = Scripted()
    steps = [asyncio.Event() for _ in range(40)]
    application.script = [ACCEPT_IT, "receive"]
    for step in steps:
        application.script += [step, "receive"]
    wire = Wire(application)
    await wire.open()
    # All in one piece: what the application has no room for stays frames, and is not lost.
    await wire.feed(b"".join(frame(TEXT, b"%d" % n) for n in range(40)))
    assert not wire.reading
    for n, step in enumerate(steps):
        step.set()
        await wire.settle()
        assert wire.reading == (n >= 31)  # the last 16 of 40 are taken out when 8 have gone, n is 31
    texts = [message["text"] for message in application.received[1:]]
    assert texts == [str(n) for n in range(40)]
    await wire.leave()


@in_loop
async def test_large_messages_stop_reading_sooner() -> None:
    gate = asyncio.Event()
    application = Scripted()
    application.script = [ACCEPT_IT, gate, *["receive"] * 4]
    wire = Wire(application)
    await wire.open()
    await wire.feed(*[frame(BINARY, bytes(40_000))] * 3)
    assert not wire.reading
    assert len(wire.arriving) == 1
    gate.set()
    await wire.settle()
    assert [len(message["bytes"]) for message in application.received[1:]] == [40_000] * 3
    assert wire.reading
    await wire.leave()


@in_loop
async def test_well_compressed_messages_are_inflated_one_by_one() -> None:
    gate = asyncio.Event()
    application = Scripted()
    application.script = [ACCEPT_IT, gate, *["receive"] * 6]
    wire = Wire(application)
    await wire.open(DEFLATE)
    tracemalloc.start()
    await wire.feed(frame(BINARY, deflated(bytes(1_000_000)), rsv=4) * 5)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 2_000_000
    gate.set()
    await wire.settle()
    assert [len(message["bytes"]) for message in application.received[1:]] == [1_000_000] * 5
    await wire.leave()


def test_send_waits_for_a_slow_client_or_its_end() -> None:
    async def test(ending: str) -> None:
        application = Scripted()
        gate = asyncio.Event()
        application.script = [ACCEPT_IT, gate, HELLO, (HELLO,)]
        wire = Wire(application)
        await wire.open()
        wire.socket.pause_writing()
        gate.set()
        assert len(await wire.frames()) == 1
        assert not application.ended
        if ending == "room":
            wire.socket.resume_writing()
            assert [first for first, _ in await wire.frames()] == [0x81, 0x88]
            assert application.errors == []
        else:
            wire.abort()
            await wire.settle()
            assert not wire.written
            assert isinstance(application.errors[0], ClientDisconnected)
            assert not wire.socket.paused
        assert application.ended
        await wire.leave()

    run(test("room"))
    run(test("end"))


def test_a_real_client_that_does_not_read_stops_the_application() -> None:
    sent = 0

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "websocket.accept"})
        for _ in range(400):
            await send({"type": "websocket.send", "bytes": bytes(65536)})
            sent += 1

    async def test() -> None:
        async with Site(application) as site:
            reader, writer = await site.dial()
            [connection] = site.service.connections
            assert isinstance(connection, WebSocketConnection)
            await until(lambda: connection.paused)
            assert sent < 400
            size = 0
            while (received := await read_frame(reader))[0] == BINARY:
                size += len(received[1])
            assert size == 400 * 65536
            assert received == (CLOSE, struct.pack("!H", 1000))
            writer.close()

    run(test())


@in_loop
async def test_a_real_client_is_held_back_and_loses_nothing() -> None:
    gate = asyncio.Event()
    received: list[Any] = []

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT_IT)
        await gate.wait()
        while (message := await receive())["type"] == "websocket.receive":
            received.append(message["bytes"])
        received.append(message["code"])

    async with Site(application, ping_interval=0.0) as site, connect(site.url, compression=None) as client:
        messages = [bytes([n]) * 100_000 for n in range(200)]

        async def talk() -> None:
            for message in messages:
                await client.send(message)
            await client.close(4000)

        talking = asyncio.create_task(talk())
        [connection] = site.service.connections
        assert isinstance(connection, WebSocketConnection)
        await until(lambda: connection._held)
        assert not talking.done()
        gate.set()
        await talking
        await until(lambda: len(received) == 201)
        assert received == [*messages, 4000]


# The close


@pytest.mark.parametrize(
    ("sent", "code", "reason", "answer"),
    [
        (closing(1000), 1000, "", struct.pack("!H", 1000)),
        (closing(1001, "tab closed"), 1001, "tab closed", struct.pack("!H", 1001) + b"tab closed"),
        (closing(4321, "b\N{LATIN SMALL LETTER Y WITH DIAERESIS}e"), 4321, "b\xffe", None),
        (frame(CLOSE), 1005, "", b""),
    ],
    ids=["1000", "1001", "4321", "none"],
)
@in_loop
async def test_the_client_closes(sent: bytes, code: int, reason: str, answer: bytes | None) -> None:
    application = Scripted()
    application.script = [ACCEPT_IT, *["receive"] * 4, (HELLO,), (CLOSE_IT,)]
    wire = Wire(application)
    await wire.open()
    [(first, payload)] = await wire.frames(frame(TEXT, b"last words"), sent + frame(TEXT, b"too late"))
    assert first == 0x88
    assert payload == answer or answer is None
    assert wire.closing
    assert application.received[1:] == [
        {"type": "websocket.receive", "text": "last words"},
        *[{"type": "websocket.disconnect", "code": code, "reason": reason}] * 2,
    ]
    [error] = application.errors  # of the message; to close what is closed is none
    assert isinstance(error, OSError)
    assert application.ended
    await wire.leave()


@in_loop
async def test_messages_before_a_close_are_received_before_it() -> None:
    gate = asyncio.Event()
    application = Scripted()
    application.script = [ACCEPT_IT, gate, *["receive"] * 32]
    wire = Wire(application)
    await wire.open()
    await wire.feed(*[frame(TEXT, b"x")] * 30, closing(1000))
    gate.set()
    await wire.settle()
    assert [m["type"] for m in application.received] == [
        "websocket.connect",
        *["websocket.receive"] * 30,
        "websocket.disconnect",
    ]
    await wire.leave()


@in_loop
async def test_a_connection_that_breaks_is_1006() -> None:
    application = Scripted()
    application.script = [ACCEPT_IT, "receive", "receive", (HELLO,)]
    wire = Wire(application)
    await wire.open()
    wire.abort()
    await wire.settle()
    assert application.received[1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert isinstance(application.errors[0], ClientDisconnected)
    await wire.leave()


@in_loop
async def test_the_end_of_the_stream_without_a_close_is_1006() -> None:
    application = Scripted()
    application.script = [ACCEPT_IT, "receive", "receive"]
    async with Site(application) as site:
        reader, writer = await site.dial()
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    assert application.received[1]["code"] == 1006


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        ({}, struct.pack("!H", 1000)),
        ({"code": None, "reason": None}, struct.pack("!H", 1000)),
        ({"code": 3456, "reason": "enough"}, struct.pack("!H", 3456) + b"enough"),
        ({"code": 1013}, struct.pack("!H", 1013)),
        (
            {"code": 4999, "reason": "\N{EURO SIGN}" * 100},
            struct.pack("!H", 4999) + ("\N{EURO SIGN}" * 41).encode(),
        ),
    ],
)
@in_loop
async def test_the_application_closes(message: dict[str, Any], payload: bytes) -> None:
    application = Scripted()
    gate = asyncio.Event()
    application.script = [ACCEPT_IT, "receive", {**CLOSE_IT, **message}, "receive", gate, "receive"]
    wire = Wire(application)
    answer = (await wire.feed(head())).partition(b"\r\n\r\n")[2]
    assert split_frames(answer) == [(0x88, payload)]
    code = message.get("code") or 1000
    assert application.received[1] == {"type": "websocket.disconnect", "code": code, "reason": ""}
    assert not wire.closing  # not before the client has answered
    assert await wire.feed(frame(TEXT, b"crossed"), frame(PING), closing(code)) == b""
    assert wire.closing
    assert not wire.aborted
    gate.set()
    await wire.settle()
    assert application.received[2] == application.received[1]
    await wire.leave()


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536, "1000", 1000.0])
@in_loop
async def test_close_codes_that_may_not_be_sent(code: Any) -> None:
    application = Scripted()
    application.script = [ACCEPT_IT, ({**CLOSE_IT, "code": code},), "receive", "receive"]
    wire = Wire(application)
    answer = (await wire.feed(head())).partition(b"\r\n\r\n")[2]
    assert split_frames(answer) == [(0x88, struct.pack("!H", 1011))]
    assert isinstance(application.errors[0], ApplicationError)
    assert repr(code) in str(application.errors[0])
    assert application.received[1]["code"] == 1011
    await wire.leave()


@in_loop
async def test_a_client_that_never_answers_the_close_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT", 0.05)
    application = Scripted()
    application.script = [ACCEPT_IT, CLOSE_IT]
    async with Site(application) as site:
        reader, writer = await site.dial()
        assert (await read_frame(reader))[0] == CLOSE
        assert await reader.read() == b""
        writer.close()


@in_loop
async def test_a_close_to_a_slow_client_waits_while_something_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    application = Scripted()
    application.script = [ACCEPT_IT, CLOSE_IT]
    wire = Wire(application, ping_interval=0.0)
    wire.unsent = 5000
    await wire.open()
    for wire.unsent in (3000, 10):
        clock.fire()
        assert clock.waiting == [websocket.CLOSE_TIMEOUT]
        assert not wire.closing
    clock.fire()
    assert wire.aborted
    await wire.leave()


@in_loop
async def test_a_client_that_closes_but_takes_nothing_is_cut() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock(monkeypatch)
        wire = Wire(echo, ping_interval=0.0)
        await wire.open()
        wire.unsent = 5000
        await wire.feed(closing(1000))
        assert wire.closing
        assert not wire.lost
        clock.fire()
        await wire.settle()
        assert wire.lost
        await wire.leave()


@pytest.mark.parametrize("pieces", [1, 2])
@in_loop
async def test_the_close_is_found_behind_messages_that_were_held_back(pieces: int) -> None:
    gate = asyncio.Event()
    application = Scripted()
    application.script = [ACCEPT_IT, gate, CLOSE_IT]
    wire = Wire(application)
    await wire.open()
    stream = [b"".join([frame(TEXT, b"x")] * 100), closing(1000)]
    await wire.feed(*(stream if pieces == 2 else [b"".join(stream)]))
    assert not wire.reading
    gate.set()
    await wire.settle()
    assert wire.closing
    assert not wire.aborted
    await wire.leave()


@in_loop
async def test_a_client_that_goes_on_sending_sees_the_code() -> None:
    async with Site(echo, max_size=1000) as site:
        reader, writer = await site.dial()
        for _ in range(20):
            writer.write(frame(BINARY, bytes(100_000)))
            await writer.drain()
        opcode, payload = await read_frame(reader)
        assert (opcode, payload[:2]) == (CLOSE, struct.pack("!H", 1009))
        assert await reader.read() == b""  # an end, not a reset
        writer.close()


def test_final_messages_arrive_before_the_close() -> None:
    async def application(scope: Any, receive: Receive, send: Send) -> None:
        await send(ACCEPT_IT)
        await send({"type": "websocket.send", "bytes": bytes(30_000_000)})
        await send({"type": "websocket.close", "code": 4001})

    async def test() -> None:
        async with Site(application) as site, connect(site.url, compression=None, max_size=None) as client:
            client.transport.pause_reading()
            [connection] = site.service.connections
            assert isinstance(connection, WebSocketConnection)
            await until(lambda: connection.paused)
            client.transport.resume_reading()
            assert await client.recv() == bytes(30_000_000)
            with pytest.raises(ConnectionClosedError) as raised:
                await client.recv()
            assert raised.value.rcvd is not None
            assert raised.value.rcvd.code == 4001

    run(test())


@in_loop
async def test_a_handshake_is_answered_once() -> None:
    gate = asyncio.Event()
    application = Scripted()
    application.script = [gate]
    wire = Wire(application)
    await wire.feed(head())
    session = wire.socket
    session.accept(None, [])
    with pytest.raises(ApplicationError, match="twice"):
        session.accept(None, [])
    with pytest.raises(ApplicationError, match="twice"):
        session.refuse()
    gate.set()
    await wire.settle()
    await wire.leave()
    owner = Upgrade(wire.service, Connection(wire.service)._take_back)
    session = WebSocketConnection(wire, request(), wire.service.gateway, WebSocket(), owner)
    session.connection_lost(None)
    session.accept(None, [])
    assert not session.accepted


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks are new in Python 3.12")
@in_loop
async def test_an_application_that_refuses_within_the_call_of_the_gateway() -> None:
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
    gate = asyncio.Event()
    application = Scripted()
    application.script = [RESPOND, gate, {**BODY, "more_body": True}, BODY]
    wire = Wire(application)
    await wire.feed(head())
    wire.protocol.pause_writing()
    gate.set()
    await wire.settle()
    assert not application.ended
    wire.protocol.resume_writing()
    await wire.settle()
    assert application.ended
    await wire.leave()


# The server's wishes


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [((), 1012, "restart"), ((1001,), 1001, ""), ((1001, "bye"), 1001, "bye")],
)
@in_loop
async def test_shutdown_closes_at_once(arguments: Any, code: int, reason: str) -> None:
    application = Scripted()
    application.script = [ACCEPT_IT, "receive", "receive", (HELLO,)]
    wire = Wire(application)
    await wire.open()
    wire.socket.shutdown(*arguments)
    [(first, payload)] = await wire.frames()
    assert first == 0x88
    assert payload == struct.pack("!H", code) + reason.encode()
    assert application.received[1] == {"type": "websocket.disconnect", "code": code, "reason": reason}
    assert isinstance(application.errors[0], ClientDisconnected)
    await wire.feed(closing(code))
    assert wire.closing
    await wire.leave()


@in_loop
async def test_shutdown_refuses_a_handshake_that_waits() -> None:
    gate = asyncio.Event()
    application = Scripted()
    application.script = [gate, "receive", "receive", (ACCEPT_IT,)]
    wire = Wire(application)
    await wire.feed(head())
    wire.socket.shutdown()
    assert (await wire.settle()).startswith(b"HTTP/1.1 503 ")
    assert wire.closing
    gate.set()
    await wire.settle()
    assert application.received[1]["code"] == 1006
    assert isinstance(application.errors[0], ClientDisconnected)
    await wire.leave()


@in_loop
async def test_disconnect_cuts() -> None:
    application = Scripted()
    application.script = [ACCEPT_IT, "receive", "receive"]
    wire = Wire(application)
    await wire.open()
    wire.socket.disconnect()
    await wire.settle()
    assert wire.aborted
    assert application.received[1]["code"] == 1006
    await wire.leave()


def test_cancel_ends_the_application_and_the_connection() -> None:
    async def test(accepted: bool) -> None:
        application = Scripted()
        application.script = [ACCEPT_IT] * accepted + [asyncio.Event()]
        wire = Wire(application)
        await wire.feed(head())
        [handler] = wire.service.gateway.running
        handler.cancel()
        answer = await wire.settle()
        assert application.ended
        assert not wire.service.gateway.running
        if accepted:
            assert split_frames(answer) == [(0x88, struct.pack("!H", 1011))]
        else:
            assert answer.startswith(b"HTTP/1.1 500 ")
        await wire.leave()

    run(test(True))
    run(test(False))


@in_loop
async def test_cancel_before_the_application_has_begun() -> None:
    application = Scripted()
    wire = Wire(application)
    wire.protocol.data_received(head())
    [handler] = wire.service.gateway.running
    handler.cancel()
    assert (await wire.settle()).startswith(b"HTTP/1.1 500 ")
    assert application.scope is None
    await wire.leave()


# ASGI


@in_loop
async def test_scope() -> None:
    application = Scripted()
    application.script = ["receive", ACCEPT_IT]
    wire = Wire(application, root_path="/mounted")
    await wire.feed(head(b"Sec-WebSocket-Protocol: a, b", target=b"/caf%C3%A9/%ff?q=%20"))
    scope = application.scope
    headers = scope.pop("headers")
    assert (b"host", b"localhost") in headers
    assert (b"sec-websocket-protocol", b"a, b") in headers
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/mounted/caf\xe9/\N{REPLACEMENT CHARACTER}",
        "raw_path": b"/caf%C3%A9/%ff",
        "query_string": b"q=%20",
        "root_path": "/mounted",
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "subprotocols": ["a", "b"],
        "state": {"pool": 1},
        "extensions": {"websocket.http.response": {}},
    }
    gateway: Any = wire.service.gateway
    assert scope["state"] is not gateway.state
    assert scope["asgi"] is not gateway.version
    await wire.leave()


@in_loop
async def test_context_variables_are_the_gateways() -> None:
    """Not those that happen to be set where the bytes arrive; and what is set stays with the WebSocket."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    found = []

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        found.append(variable.get())
        variable.set("the application's")
        await send(ACCEPT_IT)

    variable.set("the server's")
    wire = Wire(application)
    variable.set("a stranger's")
    await wire.open()
    assert found == ["the server's"]
    gateway: Any = wire.service.gateway
    assert gateway.context[variable] == "the server's"
    await wire.leave()


@in_loop
async def test_a_handler_names_its_request() -> None:
    application = Scripted()
    application.script = [asyncio.Event()]
    wire = Wire(application)
    await wire.feed(head(target=b"/chat?room=1"))
    [handler] = wire.service.gateway.running
    assert str(handler) == "WebSocket /chat?room=1"
    handler.cancel()
    await wire.leave()


def test_an_accepted_handshake_has_the_headers_that_the_server_adds() -> None:
    async def application(scope: Any, receive: Receive, send: Send) -> None:
        await send({**ACCEPT_IT, "headers": [(b"x-kept", b"mine")]})

    with serving(application, header=["X-Added: a", "X-Kept: yours"]) as server, Raw(server) as raw:
        raw.send(head())
        status, headers = raw.head()
    assert status == 101
    assert headers.pop(b"date").endswith(b" GMT")
    assert headers.pop(b"server").startswith(b"devserver/")
    assert headers == {
        b"upgrade": b"websocket",
        b"connection": b"Upgrade",
        b"sec-websocket-accept": ACCEPT,
        b"x-added": b"a",
        b"x-kept": b"mine",
    }


def test_too_many_websockets_at_once() -> None:
    with serving(echo, limit_concurrency=1) as server, Raw(server) as first:
        first.send(head())
        assert first.head()[0] == 101
        with Raw(server) as second:
            second.send(head())
            answer = second.answer()
            assert (answer.status, answer.headers[b"retry-after"]) == (503, b"1")
            assert second.rest() == b""
        first.send(frame(TEXT, b"hello"))
        assert first.take(7) == b"\x81\x05hello"


@in_loop
async def test_accept_with_subprotocol_and_headers() -> None:
    application = Scripted()
    application.script = [
        {**ACCEPT_IT, "subprotocol": "b", "headers": [(b"X-Own", b"1"), [b"set-cookie", b"a=b"]]}
    ]
    wire = Wire(application)
    answer = await wire.open(b"Sec-WebSocket-Protocol: a, b")
    for line in (b"Sec-WebSocket-Protocol: b", b"X-Own: 1", b"set-cookie: a=b"):
        assert b"\r\n" + line + b"\r\n" in answer
    assert wire.access == [("GET", b"/", "1.1", 101)]
    await wire.leave()


@in_loop
async def test_close_before_accept_is_403() -> None:
    application = Scripted()
    application.script = ["receive", {**CLOSE_IT, "code": 1006}, "receive"]
    wire = Wire(application)
    answer = await wire.feed(head())
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert application.received[1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert wire.closing
    assert [line[3] for line in wire.access] == [403]
    await wire.leave()


@in_loop
async def test_refusal_by_a_response() -> None:
    application = Scripted()
    body = {"type": "websocket.http.response.body"}
    application.script = [
        RESPOND,
        {**body, "body": b"no ", "more_body": True},
        {**body, "body": b"way"},
        "receive",
    ]
    application.script += ["receive"]
    wire = Wire(application)
    answer = await wire.feed(head())
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\nx-why: no ticket\r\n")
    assert b"3\r\nno \r\n3\r\nway\r\n0\r\n\r\n" in answer
    assert application.received[1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert wire.closing
    assert [line[3] for line in wire.access] == [401]
    await wire.leave()


def test_refusal_waits_for_a_slow_client() -> None:
    async def test(ending: str) -> None:
        gate = asyncio.Event()
        application = Scripted()
        body = {"type": "websocket.http.response.body", "body": b"x", "more_body": True}
        application.script = [RESPOND, gate, (body,), (body,), {**body, "more_body": False}]
        wire = Wire(application)
        await wire.feed(head())
        wire.protocol.pause_writing()
        gate.set()
        assert b"1\r\nx\r\n" in await wire.settle()
        assert not application.ended
        if ending == "room":
            wire.protocol.resume_writing()
            assert await wire.settle() == b"1\r\nx\r\n" * 2 + b"0\r\n\r\n"
            assert application.errors == []
        else:
            wire.abort()
            await wire.settle()
            assert [type(error) for error in application.errors] == [ClientDisconnected] * 2
        assert application.ended
        await wire.leave()

    run(test("room"))
    run(test("end"))


BODY = {"type": "websocket.http.response.body", "body": b""}
PART = {**BODY, "body": b"part", "more_body": True}


@pytest.mark.parametrize(
    ("before", "bad", "named", "status"),
    [
        ([], HELLO, "'websocket.send' on a WebSocket that was neither accepted nor refused", 500),
        ([], BODY, "'websocket.http.response.body' on a WebSocket that was neither", 500),
        ([], {"type": "http.response.start"}, "'http.response.start' on a WebSocket that was neither", 500),
        ([], {**ACCEPT_IT, "subprotocol": "x"}, "subprotocol 'x'", 500),
        ([], {**ACCEPT_IT, "headers": [("x", "y")]}, "byte strings", 500),
        ([], {**ACCEPT_IT, "headers": [(b"sec-websocket-protocol", b"y")]}, "'subprotocol'", 500),
        ([], {**ACCEPT_IT, "headers": [(b"x", b"\n")]}, "line break|control", 500),
        ([], {**RESPOND, "status": "401"}, "status '401'", 500),
        ([], {**RESPOND, "headers": [(b"x", b"\r\n")]}, "header", 500),
        ([ACCEPT_IT], ACCEPT_IT, "'websocket.accept' on a WebSocket that was accepted", 1011),
        ([ACCEPT_IT], RESPOND, "'websocket.http.response.start' on a WebSocket that was accepted", 1011),
        ([ACCEPT_IT], {"type": "websocket.send"}, "'text'", 1011),
        ([ACCEPT_IT], {"type": "websocket.send", "text": "a", "bytes": b"a"}, "'text'", 1011),
        ([ACCEPT_IT], {"type": "websocket.send", "text": b"a"}, "'text'", 1011),
        ([ACCEPT_IT], {"type": "websocket.send", "bytes": "a"}, "'bytes'", 1011),
        ([ACCEPT_IT], {"type": "websocket.send", "text": "\ud800"}, "UTF-8", 1011),
        ([ACCEPT_IT, CLOSE_IT], HELLO, "'websocket.send' on a WebSocket that was closed", 1000),
        ([ACCEPT_IT, CLOSE_IT], CLOSE_IT, "'websocket.close' on a WebSocket that was closed", 1000),
        ([CLOSE_IT], ACCEPT_IT, "'websocket.accept' on a WebSocket that was closed or refused", 403),
        ([RESPOND], ACCEPT_IT, "'websocket.accept' on a WebSocket that is being refused", 500),
        ([RESPOND], {**BODY, "body": "text"}, "use bytes", 500),
        ([RESPOND, PART], ACCEPT_IT, "'websocket.accept' on a WebSocket that is being refused", 0),
        ([RESPOND, PART], {**BODY, "body": "text"}, "use bytes", 0),
        ([RESPOND, BODY], BODY, "on a WebSocket that was closed or refused", 401),
    ],
)
@pytest.mark.parametrize("swallowed", [False, True])
@in_loop
async def test_messages_that_break_the_protocol(
    before: list[Any], bad: Any, named: str, status: int, swallowed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The application gets an error, the client an answer; also if the application then just waits."""

    application = Scripted()
    application.script = ["receive", *before, (bad,) if swallowed else bad, asyncio.Event()]
    wire = Wire(application)
    answer = await wire.feed(head())
    if status == 0:
        assert wire.aborted
    elif status < 1000:
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert wire.closing
    else:
        frames = split_frames(answer.partition(b"\r\n\r\n")[2])
        assert frames == [(0x88, struct.pack("!H", status))]
    if swallowed:
        [error] = application.errors
        assert isinstance(error, ApplicationError)
        assert re.search(named, str(error))
    else:
        assert application.ended
        assert re.search(named, caplog.text)
    for handler in list(wire.service.gateway.running):
        handler.cancel()
    await wire.leave()


def test_a_swallowed_error_is_logged_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        application = Scripted()
        application.script = [ACCEPT_IT, (ACCEPT_IT,), (HELLO,)]
        wire = Wire(application)
        await wire.feed(head())
        assert application.errors[0] is application.errors[1]
        await wire.leave()

    run(test())
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert isinstance((record.exc_info or (None, None))[1], ApplicationError)


@pytest.mark.parametrize(
    ("script", "answer", "logged"),
    [
        ([], b"HTTP/1.1 500 ", "returned from a WebSocket that was neither accepted nor refused"),
        (["receive"], b"HTTP/1.1 500 ", "returned from a WebSocket that was neither"),
        ([ACCEPT_IT], struct.pack("!BBH", 0x88, 2, 1000), ""),
        ([ACCEPT_IT, CLOSE_IT], struct.pack("!BBH", 0x88, 2, 1000), ""),
        ([CLOSE_IT], b"HTTP/1.1 403 ", ""),
        ([RESPOND], b"HTTP/1.1 500 ", "returned from a WebSocket that is being refused"),
        ([RESPOND, PART], b"", "returned from a WebSocket that is being refused"),
        ([RESPOND, BODY], b"HTTP/1.1 401 ", ""),
        ([ValueError("boom")], b"error page: boom", "ValueError: boom"),
        ([ACCEPT_IT, ValueError("boom")], struct.pack("!BBH", 0x88, 2, 1011), "ValueError: boom"),
        ([ACCEPT_IT, SystemExit(3)], struct.pack("!BBH", 0x88, 2, 1011), "SystemExit: 3"),
        ([RESPOND, ValueError("boom")], b"error page: boom", "ValueError: boom"),
        ([RESPOND, PART, ValueError("boom")], b"", "ValueError: boom"),
        ([asyncio.CancelledError()], b"HTTP/1.1 500 ", "CancelledError"),
        ([ACCEPT_IT, ClientDisconnected("another's")], struct.pack("!BBH", 0x88, 2, 1011), "another's"),
        ([ClientDisconnected("another's")], b"HTTP/1.1 500 ", "another's"),
    ],
)
def test_how_an_application_ends(
    script: list[Any], answer: bytes, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        application = Scripted()
        application.script = script
        wire = Wire(application)
        written = await wire.feed(head())
        assert answer in written
        assert wire.aborted == (answer == b"")
        assert b"no ticket" not in written or not logged or wire.aborted
        assert application.ended
        assert not wire.service.gateway.running
        await wire.leave()

    run(test())
    assert logged in caplog.text
    assert bool(logged) == ("ERROR" in caplog.text)


def test_an_application_whose_loop_was_closed_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        application = Scripted()
        application.script = [asyncio.Event()]
        wire = Wire(application)
        await wire.feed(head())
        gateway: Any = wire.service.gateway
        left = AsgiSession(gateway, wire.socket).run()
        left.send(None)
        left.close()  # as the garbage collector does it
        assert not wire.written
        [handler] = wire.service.gateway.running
        handler.cancel()
        await wire.leave()

    run(test())
    assert "failed" not in caplog.text


@in_loop
async def test_a_client_that_leaves_before_the_answer() -> None:
    gate = asyncio.Event()
    application = Scripted()
    application.script = ["receive", "receive", gate, (ACCEPT_IT,), CLOSE_IT]
    wire = Wire(application)
    await wire.feed(head())
    wire.abort()
    await wire.settle()
    assert application.received[1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    gate.set()
    await wire.settle()
    assert isinstance(application.errors[0], ClientDisconnected)
    assert application.ended
    assert not wire.written
    await wire.leave()


@in_loop
async def test_two_tasks_of_an_application_wait_at_once() -> None:
    received: list[Any] = []

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT_IT)

        async def listen() -> None:
            received.append(await receive())

        await asyncio.gather(listen(), listen())

    wire = Wire(application)
    await wire.open()
    await wire.feed(frame(TEXT, b"one"))
    await wire.feed(frame(TEXT, b"two"))
    assert sorted(message["text"] for message in received) == ["one", "two"]
    await wire.leave()


@in_loop
async def test_a_task_that_waits_sees_that_another_refused() -> None:
    received: list[Any] = []

    async def application(scope: Any, receive: Receive, send: Send) -> None:
        await receive()

        async def listen() -> None:
            received.append(await receive())

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        await send(CLOSE_IT)
        await listening

    wire = Wire(application)
    wire.unsent = 5000  # the connection stays for a while, which would end the wait too
    assert (await wire.feed(head())).startswith(b"HTTP/1.1 403 ")
    assert received == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]
    await wire.leave()


# Other people's client


@pytest.mark.parametrize("compression", [None, "deflate"])
@in_loop
async def test_the_websockets_client(compression: str | None) -> None:
    async with Site(echo) as site, connect(site.url, compression=compression, max_size=None) as client:
        extensions = client.protocol.extensions
        assert len(extensions) == (compression is not None)
        for message in ("", "text \N{SNOWMAN}", b"", bytes(range(256)), "x" * 70_000, os.urandom(2**20)):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["in ", "three ", "parts"])
        assert await client.recv() == "in three parts"
        await (await client.ping())
        await client.close(4002, "done")
    assert [line[3] for line in site.access] == [101]
    assert client.close_code == 4002


@in_loop
async def test_the_websockets_client_and_a_subprotocol() -> None:
    application = Scripted()
    application.script = [
        {**ACCEPT_IT, "subprotocol": "soap"},
        {**CLOSE_IT, "code": 3000, "reason": "enough"},
    ]
    async with Site(application) as site:
        async with connect(
            site.url, subprotocols=[websockets.Subprotocol(p) for p in ("wamp", "soap")]
        ) as client:
            assert client.subprotocol == "soap"
            with pytest.raises(ConnectionClosedError):
                await client.recv()
        assert (client.close_code, client.close_reason) == (3000, "enough")


@in_loop
async def test_the_websockets_client_sees_a_refusal() -> None:
    application = Scripted()
    application.script = [RESPOND, {**BODY, "body": b"no ticket, no ride"}]
    async with Site(application) as site:
        with pytest.raises(InvalidStatus) as raised:
            await connect(site.url)
        response = raised.value.response
        assert response.status_code == 401
        assert response.headers["x-why"] == "no ticket"
        assert response.body == b"no ticket, no ride"


@in_loop
async def test_the_websockets_client_sees_a_shutdown() -> None:
    async with Site(echo) as site, connect(site.url) as client:
        for connection in list(site.service.connections):
            connection.shutdown(1012)
        with pytest.raises(ConnectionClosedError):
            await client.recv()
        assert client.close_code == 1012
