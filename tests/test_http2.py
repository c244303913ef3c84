"""HTTP/2, byte for byte: every MUST of RFC 9113 for a server as a row, windows, floods, and the end."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import tracemalloc
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import wsproto.events
from hpack import Encoder
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from devserver.config import Http
from devserver.front.proxies import Proxies
from devserver.gateway.environ import constant_environ, request_environ
from devserver.http import service
from devserver.http.connection import Connection
from devserver.http.exchange import Request
from devserver.http.framing import Framing
from devserver.http.h2 import is_spoken, wire
from devserver.http.h2.calm import Allowance, Calm
from devserver.http.h2.events import Arrived, Event, Piece
from devserver.http.h2.frames import Code, Kind
from devserver.http.h2.handover import pack, unpack
from devserver.http.h2.intake import Intake
from devserver.http.h2.wire import CONNECTION_WINDOW, MAX_STREAMS, STREAM_WINDOW, Wire
from devserver.http.line import Line
from devserver.proxy import Proxy
from tests.certificates import Certificates
from tests.http2 import (
    GET,
    POST,
    PREFACE,
    SETTINGS,
    Answers,
    Client,
    Fields,
    data,
    head,
    in_loop,
    more,
    raw,
)
from tests.raw import Raw, serving
from tests.wire import Receive, Send


async def echo(scope: Any, receive: Receive, send: Send) -> None:
    """Answers with the body."""
    body, has_more = b"", True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, has_more = body + message["body"], message["more_body"]
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"X-Version", scope["http_version"].encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def wait(scope: Any, receive: Receive, send: Send) -> None:
    """Answers nothing, until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


# What has to come of it: a status, a stream error, or a connection error


class Row(NamedTuple):
    """Attributes: section: of RFC 9113; sent: behind SETTINGS; then: what comes of stream 1."""

    section: str
    says: str
    sent: bytes
    then: int | Code | tuple[Code]


def without(name: bytes, fields: Fields = GET) -> Fields:
    return [field for field in fields if field[0] != name]


def replaced(name: bytes, value: bytes, fields: Fields = GET) -> Fields:
    return [(name, value if name == each else old) if each == name else (each, old) for each, old in fields]


def fatal(section: str, says: str, sent: bytes, code: Code = Code.PROTOCOL_ERROR) -> Row:
    """A connection error."""
    return Row(section, says, sent, (code,))


def malformed(section: str, says: str, fields: Fields, body: bytes | None = None) -> Row:
    """A stream error; the stream behind it is served."""
    sent = head(1, fields, body is None) + (b"" if body is None else data(1, body))
    return Row(section, says, sent, Code.PROTOCOL_ERROR)


def answered(section: str, says: str, fields: Fields, status: int = 200, body: bytes | None = None) -> Row:
    sent = head(1, fields, body is None) + (b"" if body is None else data(1, body))
    return Row(section, says, sent, status)


EXTRA = [(b"x-a", b"b")]
BLOCK = Encoder().encode(GET)
END = 0x1 | 0x4  # END_STREAM, END_HEADERS

MUSTS = [
    # 4: frames and field blocks
    fatal("4.2", "a frame larger than MAX_FRAME_SIZE", raw(0, 0, 1, bytes(16385)), Code.FRAME_SIZE_ERROR),
    fatal(
        "4.3", "fields that cannot be decompressed", raw(1, END, 1, b"\xff\xff\xff"), Code.COMPRESSION_ERROR
    ),
    fatal(
        "4.3",
        "another frame between HEADERS and CONTINUATION",
        raw(1, 1, 1, BLOCK[:3]) + raw(6, 0, 0, bytes(8)),
    ),
    fatal("4.3", "CONTINUATION of another stream", raw(1, 1, 1, BLOCK[:3]) + raw(9, 4, 3, BLOCK[3:])),
    Row(
        "4.3", "a head in pieces", raw(1, 1, 1, BLOCK[:3]) + raw(9, 0, 1, b"") + raw(9, 4, 1, BLOCK[3:]), 200
    ),
    Row("4.1", "frames of unknown types are ignored", raw(0x42, 0xFF, 0, b"any") + head(1, GET), 200),
    Row("4.1", "unknown flags are ignored", raw(1, END | 0xC2, 1, BLOCK), 200),
    # 5: streams
    fatal("5.1", "DATA on an idle stream", data(1, b"a")),
    fatal("5.1", "RST_STREAM on an idle stream", raw(3, 0, 1, bytes(4))),
    fatal("5.1", "WINDOW_UPDATE on an idle stream", more(1, 1)),
    fatal("5.1", "CONTINUATION without HEADERS", raw(9, 4, 1, BLOCK)),
    Row(
        "5.1",
        "DATA after END_STREAM",
        head(1, POST, False) + data(1, b"a") + data(1, b"b"),
        Code.STREAM_CLOSED,
    ),
    Row("5.1", "HEADERS after END_STREAM", head(1, GET) + head(1, GET), Code.STREAM_CLOSED),
    Row("5.1", "PRIORITY on an idle stream", raw(2, 0, 1, bytes(4) + b"\1") + head(1, GET), 200),
    fatal("5.1.1", "an even stream", head(2, GET)),
    fatal("5.1.1", "a lower stream that was never used", head(3, GET) + head(1, GET)),
    # 6: frames
    fatal("6.1", "DATA for stream 0", raw(0, 0, 0, b"a")),
    fatal("6.1", "padding as long as the payload", head(1, POST, False) + raw(0, 0x8, 1, b"\5abcd")),
    Row("6.1", "padding is dropped", head(1, POST, False) + raw(0, 0x9, 1, b"\2ab\0\0"), 200),
    fatal("6.2", "HEADERS for stream 0", raw(1, END, 0, BLOCK)),
    fatal("6.2", "padding as long as a head", raw(1, END | 0x8, 1, b"\xff" + BLOCK)),
    Row(
        "6.2",
        "a head with padding and priority",
        raw(1, END | 0x28, 1, b"\2" + bytes(5) + BLOCK + b"\0\0"),
        200,
    ),
    fatal("6.3", "PRIORITY for stream 0", raw(2, 0, 0, bytes(5))),
    Row(
        "6.3",
        "PRIORITY of another size",
        head(1, POST, False) + raw(2, 0, 1, bytes(4)),
        Code.FRAME_SIZE_ERROR,
    ),
    fatal("6.4", "RST_STREAM for stream 0", raw(3, 0, 0, bytes(4))),
    fatal(
        "6.4",
        "RST_STREAM of another size",
        head(1, POST, False) + raw(3, 0, 1, bytes(3)),
        Code.FRAME_SIZE_ERROR,
    ),
    fatal("6.5", "SETTINGS for a stream", raw(4, 0, 1)),
    fatal("6.5", "SETTINGS of another size", raw(4, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
    fatal("6.5", "an acknowledgement with a payload", raw(4, 1, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
    fatal("6.5.2", "ENABLE_PUSH that is neither 0 nor 1", raw(4, 0, 0, struct.pack(">HL", 2, 2))),
    fatal(
        "6.5.2",
        "a window larger than 2^31-1",
        raw(4, 0, 0, struct.pack(">HL", 4, 2**31)),
        Code.FLOW_CONTROL_ERROR,
    ),
    fatal("6.5.2", "MAX_FRAME_SIZE below 2^14", raw(4, 0, 0, struct.pack(">HL", 5, 16383))),
    fatal("6.5.2", "MAX_FRAME_SIZE of 2^24", raw(4, 0, 0, struct.pack(">HL", 5, 2**24))),
    Row("6.5.2", "unknown settings are ignored", raw(4, 0, 0, struct.pack(">HL", 99, 1)) + head(1, GET), 200),
    fatal("8.4", "PUSH_PROMISE from a client", raw(5, 4, 1, bytes(4) + BLOCK)),
    fatal("6.7", "PING for a stream", raw(6, 0, 1, bytes(8))),
    fatal("6.7", "PING of another size", raw(6, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    fatal("6.8", "GOAWAY for a stream", raw(7, 0, 1, bytes(8))),
    fatal("6.9", "an increment of 0 for the connection", raw(8, 0, 0, bytes(4))),
    Row(
        "6.9",
        "an increment of 0 for a stream",
        head(1, POST, False) + raw(8, 0, 1, bytes(4)),
        Code.PROTOCOL_ERROR,
    ),
    fatal("6.9", "WINDOW_UPDATE of another size", raw(8, 0, 0, bytes(3)), Code.FRAME_SIZE_ERROR),
    fatal("6.9.1", "a window beyond 2^31-1", more(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    Row(
        "6.9.1",
        "a stream's window beyond 2^31-1",
        head(1, POST, False) + more(1, 2**31 - 1),
        Code.FLOW_CONTROL_ERROR,
    ),
    Row(
        "6.9.2",
        "a smaller window for all streams",
        raw(4, 0, 0, struct.pack(">HL", 4, 0)) + head(1, GET),
        200,
    ),
    # 8: requests
    answered("8.1", "a body of the announced length", [*POST, (b"content-length", b"3")], body=b"abc"),
    malformed("8.1.1", "a body that is longer", [*POST, (b"content-length", b"2")], b"abc"),
    malformed("8.1.1", "a body that is shorter", [*POST, (b"content-length", b"4")], b"abc"),
    malformed("8.1.1", "a length and no body", [*POST, (b"content-length", b"4")]),
    malformed("8.1.1", "two lengths", [*POST, (b"content-length", b"3"), (b"content-length", b"3")], b"abc"),
    malformed("8.1.1", "a length that is no number", [*POST, (b"content-length", b"+3")], b"abc"),
    Row("8.1", "trailers end a request", head(1, POST, False) + data(1, b"a", False) + head(1, EXTRA), 200),
    Row(
        "8.1",
        "trailers without END_STREAM",
        head(1, POST, False) + head(1, EXTRA, False),
        Code.PROTOCOL_ERROR,
    ),
    Row(
        "8.1",
        "a pseudo-header field among trailers",
        head(1, POST, False) + head(1, [(b":path", b"/")]),
        Code.PROTOCOL_ERROR,
    ),
    malformed("8.2", "a name in upper case", [*GET, (b"X-A", b"b")]),
    malformed("8.2.1", "a name with a space", [*GET, (b"x a", b"b")]),
    malformed("8.2.1", "a name with a colon", [*GET, (b"x:a", b"b")]),
    malformed("8.2.1", "an empty name", [*GET, (b"", b"b")]),
    malformed("8.2.1", "a value with NUL", [*GET, (b"x", b"a\0b")]),
    malformed("8.2.1", "a value with LF", [*GET, (b"x", b"a\nb:c")]),
    malformed("8.2.1", "a value with CR", [*GET, (b"x", b"a\rb")]),
    malformed("8.2.1", "a value that begins with a space", [*GET, (b"x", b" a")]),
    malformed("8.2.1", "a value that ends with a tab", [*GET, (b"x", b"a\t")]),
    *(
        malformed("8.2.2", name.decode(), [*GET, (name, b"a")])
        for name in (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
    ),
    malformed("8.2.2", "te other than trailers", [*GET, (b"te", b"gzip")]),
    answered("8.2.2", "te: trailers", [*GET, (b"te", b"trailers")]),
    malformed("8.3", "an unknown pseudo-header field", [*GET, (b":status", b"200")]),
    malformed("8.3", "a pseudo-header field behind others", [*GET[:3], *EXTRA, GET[3]]),
    malformed("8.3.1", "no :method", without(b":method")),
    malformed("8.3.1", "no :scheme", without(b":scheme")),
    malformed("8.3.1", "no :path", without(b":path")),
    malformed("8.3.1", "an empty :path", replaced(b":path", b"")),
    malformed("8.3.1", "a :path that does not begin with /", replaced(b":path", b"a")),
    malformed("8.3.1", "a :path with a fragment", replaced(b":path", b"/#a")),
    malformed("8.3.1", "a :path with a space", replaced(b":path", b"/a b")),
    malformed("8.3.1", "* for anything but OPTIONS", replaced(b":path", b"*")),
    answered("8.3.1", "OPTIONS *", replaced(b":path", b"*", replaced(b":method", b"OPTIONS"))),
    *(malformed("8.3.1", f"two of {name.decode()}", [(name, value), *GET]) for name, value in GET),
    malformed("8.3.1", "neither :authority nor Host", without(b":authority")),
    answered("8.3.1", "Host in place of :authority", [*without(b":authority"), (b"host", b"a")]),
    answered("8.3.1", "both, and the same", [*GET, (b"host", b"A")]),
    malformed("8.3.1", "both, and different", [*GET, (b"host", b"b")]),
    malformed("8.3.1", "two of Host", [*without(b":authority"), (b"host", b"a"), (b"host", b"a")]),
    malformed("8.3.1", "user information in :authority", replaced(b":authority", b"u@a")),
    malformed("8.3.1", "an :authority with a path", replaced(b":authority", b"a/b")),
    malformed("8.3.1", "a method with a space", replaced(b":method", b"GET /")),
    malformed("8.3.1", "another scheme", replaced(b":scheme", b"ftp")),
    answered("8.5", "CONNECT is for proxies", [(b":method", b"CONNECT"), (b":authority", b"a:1")], 501),
    malformed("8.5", "CONNECT with a path", replaced(b":method", b"CONNECT")),
    # RFC 8441, and what is as over HTTP/1.1
    malformed("8441 4", ":protocol without CONNECT", [*GET, (b":protocol", b"websocket")]),
    answered("8441 4", "another protocol", [*replaced(b":method", b"CONNECT"), (b":protocol", b"ip")], 501),
    answered("9110 10.1.1", "another expectation", [*POST, (b"expect", b"a")], 417, body=b"a"),
    answered(
        "9110 5.3", "two of Content-Type", [*GET, (b"content-type", b"a"), (b"content-type", b"a")], 400
    ),
    answered(
        "9110 5.3", "two of Authorization", [*GET, (b"authorization", b"a"), (b"authorization", b"a")], 400
    ),
    answered("9110 8.6", "content_length", [*POST, (b"content_length", b"1")], 400, body=b"abc"),
    answered("10.5.1", "more fields than are allowed", [*GET, *[(b"x", b"a" * 3000)] * 25], 431),
]


def outcome(got: Answers) -> int | Code | tuple[Code] | None:
    if got.gone:
        return (Code(got.gone[-1][1]),)
    if got.resets.get(1):
        return Code(got.resets[1])
    return got.status(1)


@pytest.mark.parametrize("row", MUSTS, ids=lambda row: f"{row.section}: {row.says}")
def test_musts(row: Row) -> None:
    @in_loop
    async def test() -> None:
        client = await Client(echo).greet()
        got = await client.send(row.sent)
        if row.then == 200 and not got.status(1):
            got = await client.send(more(1, 65535))  # it may have had no window
        assert outcome(got) == row.then
        ended = isinstance(row.then, tuple)
        assert client.wire.eof is ended
        if not ended:  # and what comes behind it is served
            assert (await client.send(head(5, GET))).status(5) == 200

    test()


@pytest.mark.parametrize(
    "row", [row for row in MUSTS if not isinstance(row.then, tuple)], ids=lambda row: row.says
)
def test_musts_do_not_depend_on_how_bytes_arrive(row: Row) -> None:
    @in_loop
    async def test() -> None:
        client = Client(echo)
        for byte in PREFACE + SETTINGS + row.sent:
            client.wire.arriving.append(bytes((byte,)))
        got = await client.send()
        if row.then == 200 and not got.status(1):
            got = await client.send(more(1, 65535))
        assert outcome(got) == row.then

    test()


@in_loop
async def test_a_preface_that_is_none() -> None:
    for text in (PREFACE[:-1] + b"x", PREFACE + raw(6, 0, 0, bytes(8)), PREFACE + raw(4, 1, 0)):
        client = Client(echo)
        got = await client.send(text)
        assert got.gone == [(0, Code.PROTOCOL_ERROR)]
        assert client.wire.eof


@in_loop
async def test_http1_is_served_where_http2_is_spoken_and_not_the_other_way_round() -> None:
    client = Client(echo)
    text = await client.wire.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert text.startswith(b"HTTP/1.1 200")
    text = await client.wire.feed(PREFACE, SETTINGS)  # a connection is one or the other
    assert text.startswith(b"HTTP/1.1 505")
    client = Client(echo)
    client.wire.service.http2 = False
    assert (await client.wire.feed(PREFACE)).startswith(b"HTTP/1.1 505")


def test_the_option_is_a_wish_or_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from devserver.errors import UsageError

    assert is_spoken(Http())
    assert is_spoken(Http(http2=True))
    assert not is_spoken(Http(http2=False))
    assert not is_spoken(Http(protocol="uwsgi"))
    monkeypatch.setattr("devserver.http.h2.find_spec", lambda name: None)
    assert not is_spoken(Http())
    with pytest.raises(UsageError, match=r"pip install 'devserver\[http2\]'"):
        is_spoken(Http(http2=True))


# Requests and responses


@in_loop
async def test_a_request_as_the_application_sees_it() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    client = await Client(app).greet()
    fields = [*replaced(b":path", b"/a%20b?c=d"), (b"cookie", b"a=1"), (b"x-a", b"b"), (b"cookie", b"c=2")]
    got = await client.send(client.head(1, fields))
    [scope] = scopes
    assert scope["http_version"] == "2"
    assert (scope["path"], scope["query_string"]) == ("/a b", b"c=d")
    assert scope["raw_path"] == b"/a%20b"
    assert scope["headers"] == [(b"host", b"a"), (b"cookie", b"a=1; c=2"), (b"x-a", b"b")]
    assert got.heads[1] == [{b":status": b"200", b"x-version": b"2", b"content-length": b"0"}]
    assert got.ended == {1}
    assert client.wire.access == [("GET", b"/a%20b?c=d", "2", 200)]


@in_loop
async def test_a_response_has_no_field_of_a_connection() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        headers = [
            (b"Connection", b"close"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Upgrade", b"h2c"),
            (b"X-A", b"b "),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    client = await Client(app).greet()
    got = await client.send(client.head(1, GET))
    assert got.heads[1] == [{b":status": b"200", b"x-a": b"b"}]
    assert (got.bodies[1], got.ended, got.gone) == (b"ab", {1}, [])


@in_loop
async def test_hints_trailers_and_100() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        assert "http.response.trailers" in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"a"})
        await send({"type": "http.response.trailers", "headers": [(b"X-Sum", b"1")]})

    client = await Client(app).greet()
    fields = [*POST, (b"expect", b"100-continue"), (b"te", b"trailers")]
    got = await client.send(client.head(1, fields, False))
    assert got.heads[1] == [{b":status": b"100"}]
    got = await client.send(data(1, b"abc"))
    statuses = [each.get(b":status") for each in got.heads[1]]
    assert statuses == [b"100", b"103", b"200", None]
    assert got.heads[1][-1] == {b"x-sum": b"1"}
    assert got.ended == {1}


@in_loop
async def test_a_file_is_sent_as_far_as_there_is_room(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "file").write_bytes(content)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})

    client = await Client(app).greet()
    got = await client.send(client.head(1, GET))
    assert got.bodies[1] == content[:65535]
    assert not client.wire.access
    got = await client.send(more(1, 300_000), more(0, 300_000))
    assert got.bodies[1] == content
    assert got.ended == {1}
    assert client.wire.access


@in_loop
async def test_a_file_that_ends_a_response_without_a_body_ends_its_stream(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        with (tmp_path / "file").open("rb") as file:
            await send({"type": "http.response.zerocopysend", "file": file, "more_body": True})
            await send({"type": "http.response.zerocopysend", "file": file, "offset": 0})

    client = await Client(app).greet()
    got = await client.send(client.head(1, replaced(b":method", b"HEAD")))
    assert (got.heads[1], got.bodies.get(1, b"")) == ([{b":status": b"200", b"content-length": b"6"}], b"")
    assert got.ended == {1}


@in_loop
async def test_a_refusal_of_head_has_no_body() -> None:
    """Clients take one for a fault, and do not show the status."""
    client = await Client(echo).greet()
    got = await client.send(client.head(1, [*replaced(b":method", b"HEAD"), (b"expect", b"a")]))
    assert (got.status(1), got.bodies, got.ended) == (417, {}, {1})


@in_loop
async def test_what_an_application_does_not_finish_is_reset_and_no_other_stream() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/broken":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("out of cheese")
        await echo(scope, receive, send)

    client = await Client(app).greet()
    got = await client.send(client.head(1, replaced(b":path", b"/broken")), client.head(3, GET))
    assert got.resets == {1: Code.INTERNAL_ERROR}
    assert got.status(3) == 200


@in_loop
async def test_a_response_may_come_before_the_body_which_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    client = await Client(app).greet()
    monkeypatch.setattr(wire, "MOST_DROPPED", 3 * STREAM_WINDOW)
    got = await client.send(client.head(1, POST, False), client.head(3, POST, False))
    assert (got.status(1), got.bodies[1], got.ended, got.resets) == (403, b"no", {1, 3}, {})
    await client.send(client.head(5, [*POST, (b"content-length", b"9")], False))
    got = await client.send(data(5, b"abc"))
    assert not got.resets  # curl ends such a body early
    for _ in range(3):
        got = await client.send(data(1, bytes(STREAM_WINDOW), False), data(3, bytes(STREAM_WINDOW), False))
    assert not got.resets
    got = await client.send(data(1, b""), data(3, bytes(STREAM_WINDOW), False))
    assert got.resets == {3: Code.NO_ERROR}  # not for ever
    got = await client.send(data(3, bytes(1000)))  # on its way when it was reset
    assert not got.gone
    assert len(got.resets) == 1


# Windows


@in_loop
async def test_a_body_that_nobody_reads_is_held_back_and_holds_up_no_other() -> None:
    read = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await read.wait()
        await echo(scope, receive, send)

    client = await Client(app).greet()
    await client.send(
        client.head(1, replaced(b":path", b"/slow", POST), False), data(1, bytes(STREAM_WINDOW), False)
    )
    got = await client.send(client.head(3, POST, False), data(3, b"quick"))
    assert got.bodies[3] == b"quick"
    assert not [each for each in got.frames if each.stream_id == 1]  # no more is asked for
    got = await client.send(more(1, STREAM_WINDOW), more(0, STREAM_WINDOW))
    read.set()
    got = await client.settle()
    updates = [each for each in got.frames if each.stream_id == 1 and each.type == Kind.WINDOW_UPDATE]
    assert [each.window_increment for each in updates] == [STREAM_WINDOW]
    got = await client.send(data(1, b"end"))
    assert got.bodies[1] == bytes(STREAM_WINDOW) + b"end"


@in_loop
async def test_a_body_in_small_parts_takes_no_more_memory_than_in_large_ones() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await over.wait()

    for gate in (None, Barred()):
        over = asyncio.Event()
        client = await Client(app).greet()
        client.wire.service.gate = gate
        await client.send(client.head(1, POST, False))
        part = data(1, b"ab", False) * 1000
        tracemalloc.start()
        for _ in range(30):
            client.wire.protocol.data_received(part)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 5 * 60_000
        over.set()
        await client.wire.leave()


@in_loop
async def test_more_than_the_window_ends_the_stream() -> None:
    client = await Client(wait).greet()
    got = await client.send(client.head(1, POST, False), data(1, bytes(STREAM_WINDOW + 1), False))
    assert got.resets == {1: Code.FLOW_CONTROL_ERROR}
    await client.wire.leave()


def test_what_was_sent_on_streams_that_are_over_is_given_back() -> None:
    """Else so many of them would stop a connection."""
    intake = Intake(Wire(), 65536)
    intake.receive(PREFACE + SETTINGS)
    stream = -1
    for _ in range(3 * CONNECTION_WINDOW // STREAM_WINDOW):
        stream += 2
        for event in intake.receive(head(stream, POST, False)):
            assert isinstance(event, Arrived)
        intake.wire.reset(stream, Code.CANCEL)
        assert intake.receive(data(stream, bytes(STREAM_WINDOW), False)) == []
    assert intake.wire.receive > 0


@in_loop
async def test_streams_take_turns() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(200_000)})

    client = await Client(app).greet(raw(4, 0, 0, struct.pack(">HL", 4, 2**20)))
    got = await client.send(more(0, 2**20), client.head(1, GET), client.head(3, GET))
    order = [each.stream_id for each in got.frames if each.type == Kind.DATA]
    assert order[:6] == [1, 3, 1, 3, 1, 3]
    assert {len(body) for body in got.bodies.values()} == {200_000}


# Floods


@in_loop
async def test_floods_end_the_connection() -> None:
    small = {
        "PING": raw(6, 0, 0, bytes(8)),
        "SETTINGS": SETTINGS,
        "PRIORITY": raw(2, 0, 1, bytes(4) + b"\1"),
        "empty DATA": raw(0, 0, 1),
        "WINDOW_UPDATE": more(1, 1),
        "unknown frames": raw(0x42, 0, 0),
    }
    many = raw(4, 0, 0, struct.pack(">HL", 4, 1) * 2500)

    for name, frame in small.items():
        client = await Client(wait).greet()
        await client.send(client.head(1, POST, False))
        got = await client.send(frame * 3000)
        assert not got.gone, name
        got = await client.send(frame * 3000)
        assert got.gone == [(1, Code.ENHANCE_YOUR_CALM)], name
        assert client.wire.eof
        await client.wire.leave()
    client = await Client(wait).greet()
    got = await client.send(many)
    assert not got.gone
    got = await client.send(many * 3)
    assert got.gone == [(0, Code.ENHANCE_YOUR_CALM)]


def test_who_says_what_it_has_read_of_a_long_response_floods_nobody() -> None:
    intake, calm = Intake(Wire(), 65536), Calm()
    intake.receive(PREFACE + SETTINGS + head(1, GET))
    for _ in range(6000):
        intake.wire.data(1, bytes(1000), False)
        intake.receive(more(0, 1000) + more(1, 1000))
        assert calm.spend(intake.wire.idle_frames, intake.resets, 0.0)
        intake.wire.idle_frames = 0


@in_loop
async def test_answers_do_not_pile_up_for_who_does_not_read() -> None:
    client = await Client(echo).greet()
    client.wire.protocol.pause_writing()
    got = await client.send(raw(6, 0, 0, bytes(8)) * 3000)
    assert not got.gone
    got = await client.send(raw(6, 0, 0, bytes(8)) * 1000)
    assert got.gone == [(0, Code.ENHANCE_YOUR_CALM)]


@in_loop
async def test_no_more_requests_are_read_of_who_does_not_take_the_responses() -> None:
    """Those without a body need no window."""
    client = await Client(echo).greet()
    client.wire.protocol.pause_writing()
    client.wire.unsent = 2**20
    first, second = (client.head(each, replaced(b":method", b"HEAD")) for each in (1, 3))
    got = await client.send(first, second)
    assert (got.status(1), got.status(3)) == (200, None)
    client.wire.unsent = 0
    client.wire.protocol.resume_writing()
    got = await client.settle()
    assert got.status(3) == 200


@in_loop
async def test_a_head_that_is_held_back_is_not_late() -> None:
    client = await Client(echo).greet()
    client.wire.protocol.pause_writing()
    client.wire.unsent = 2**20
    fields = client.head(1, GET)[9:]
    await client.send(raw(1, 1, 1, fields[:5]))
    assert not client.wire.reading
    client.wire.protocol._missed()
    client.wire.unsent = 0
    client.wire.protocol.resume_writing()
    got = await client.send(raw(9, 4, 1, fields[5:]))
    assert got.status(1) == 200
    await client.send(raw(1, 1, 3, client.head(3, GET)[9:]))
    client.wire.protocol._missed()
    assert (await client.settle()).gone == [(1, Code.ENHANCE_YOUR_CALM)]


@in_loop
async def test_a_stream_that_is_reset_in_the_same_breath_is_never_begun() -> None:
    """CVE-2023-44487."""
    calls: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])

    client = await Client(app).greet()
    streams = range(1, 2 * 1000, 2)
    got = await client.send(b"".join(client.head(each, GET) + raw(3, 0, each, bytes(4)) for each in streams))
    assert not calls
    assert not got.gone
    streams = range(2001, 2200, 2)
    got = await client.send(b"".join(client.head(each, GET) + raw(3, 0, each, bytes(4)) for each in streams))
    assert [code for _, code in got.gone] == [Code.ENHANCE_YOUR_CALM]


@in_loop
async def test_applications_that_work_for_nobody_are_counted() -> None:
    """A client that begins and resets must not have more of them at work than it may have streams."""
    running = 0
    over = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal running
        running += 1
        await over.wait()

    client = await Client(app).greet()
    for stream in range(1, 2 * MAX_STREAMS + 20, 2):
        got = await client.send(client.head(stream, GET))
        await client.send(raw(3, 0, stream, bytes(4)))
    assert running == MAX_STREAMS
    assert set(got.resets.values()) == {Code.REFUSED_STREAM}
    over.set()
    await client.settle()
    got = await client.send(client.head(999, GET))
    assert running == MAX_STREAMS + 1
    await client.wire.leave()


@in_loop
async def test_streams_beyond_the_limit_are_refused_and_may_be_sent_again() -> None:
    begun: list[int] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        begun.append(1)
        await wait(scope, receive, send)

    client = await Client(app).greet()
    streams = range(1, 2 * MAX_STREAMS + 6, 2)
    got = await client.send(b"".join(client.head(each, GET) for each in streams))
    assert len(begun) == MAX_STREAMS
    assert got.resets == dict.fromkeys(streams[MAX_STREAMS:], Code.REFUSED_STREAM)
    await client.wire.leave()


def test_heads_that_do_not_end_and_bombs() -> None:
    bomb = Encoder().encode([*GET, (b"x", b"a" * 4000)])
    again = b"\xbe"  # the entry that this has put into the table
    rows = {
        "empty CONTINUATION": raw(1, 1, 1, BLOCK[:3]) + raw(9, 0, 1) * 70,
        "large CONTINUATION": raw(1, 1, 1, bytes(16384)) + raw(9, 0, 1, bytes(16384)) * 20,
        "HPACK bomb": raw(1, END, 1, bomb + again * 1000),
    }
    for name, sent in rows.items():
        intake = Intake(Wire(), 65536)
        events = intake.receive(PREFACE + SETTINGS + sent)
        assert [type(each).__name__ for each in events if not isinstance(each, Arrived)][-1] == "Failed", name
        assert intake.wire.out[-1].find(struct.pack(">L", Code.ENHANCE_YOUR_CALM)) > 0, name


def test_what_is_spent_comes_back() -> None:
    allowance = Allowance(10, 2.0)
    assert allowance.spend(10, 100.0)
    assert not allowance.spend(1, 100.0)
    assert allowance.spend(2, 101.5)
    assert not allowance.spend(10, 101.5)
    assert allowance.spend(10, 200.0)


# The end


@in_loop
async def test_an_event_stream_ends_when_the_server_stops_and_so_does_the_connection() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: a\n\n", "more_body": True})
        heard.append((await receive())["type"])

    client = await Client(app).greet()
    await client.send(client.head(1, GET))
    client.wire.service.draining = True
    [connection] = client.wire.service.connections
    assert len(list(connection.endless)) == 1
    connection.shutdown(1001)
    got = await client.settle()
    assert heard == ["http.disconnect"]
    assert got.ended == {1}
    assert got.gone[-1] == (1, Code.NO_ERROR)
    assert client.wire.eof


@in_loop
async def test_after_goaway_what_has_begun_is_answered_and_nothing_is_begun() -> None:
    go = asyncio.Event()
    calls: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])
        await go.wait()
        await echo(scope, receive, send)

    client = await Client(app).greet()
    await client.send(client.head(1, GET))
    client.wire.service.draining = True
    [connection] = client.wire.service.connections
    connection.shutdown(1001)
    got = await client.send(client.head(3, replaced(b":path", b"/late")))
    assert got.gone == [(1, Code.NO_ERROR)]
    go.set()
    got = await client.settle()
    assert (got.status(1), got.status(3), calls) == (200, None, ["/"])
    assert got.gone[-1] == (1, Code.NO_ERROR)
    assert client.wire.eof


@in_loop
async def test_what_takes_too_long_is_told_so() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await wait(scope, receive, send)

    client = await Client(app).greet()
    await client.send(client.head(1, GET), client.head(3, replaced(b":path", b"/begun")))
    client.wire.service.draining = True
    [connection] = client.wire.service.connections
    connection.shutdown(1001)
    connection.disconnect("cut off")
    got = await client.settle()
    assert (got.status(1), got.resets) == (503, {3: Code.INTERNAL_ERROR})
    await client.wire.leave()


@in_loop
async def test_a_client_that_leaves_is_told_to_the_application() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        heard.append((await receive())["type"])

    client = await Client(app).greet()
    await client.send(client.head(1, GET), client.head(3, GET))
    await client.send(raw(3, 0, 1, struct.pack(">L", Code.CANCEL)))
    assert heard == ["http.disconnect"]
    client.wire.close()
    await client.settle()
    assert heard == ["http.disconnect"] * 2
    assert client.wire.access == [("GET", b"/", "2", 499)] * 2


def test_a_connection_is_closed_when_nothing_happens_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ALLOWANCE", 0.01)
    with serving(echo, timeout_keep_alive=0, timeout_header=0.05) as server:
        rows = {
            "nothing asked": (PREFACE + SETTINGS, (0, Code.NO_ERROR)),
            "one request": (PREFACE + SETTINGS + head(1, GET), (1, Code.NO_ERROR)),
            "no SETTINGS": (PREFACE, (0, Code.ENHANCE_YOUR_CALM)),
            "a head without an end": (
                PREFACE + SETTINGS + raw(1, 1, 1, BLOCK[:5]),
                (0, Code.ENHANCE_YOUR_CALM),
            ),
        }
        for name, (sent, gone) in rows.items():
            with Raw(server) as client:
                client.send(sent)
                got = Answers()
                got.add(client.rest())  # to the end, which is no reset
            assert got.gone == [gone], name
            assert got.status(1) == (200 if name == "one request" else None)


def test_alpn(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    for http2, chosen in ((True, "h2"), (False, "http/1.1")):
        with serving(echo, http2=http2, **certificates.options) as server:
            tls = certificates.client()
            tls.set_alpn_protocols(["h2", "http/1.1"])
            client = Raw(server)
            with tls.wrap_socket(client.sock, server_hostname="localhost") as client.sock:
                assert client.sock.selected_alpn_protocol() == chosen
                if http2:
                    client.send(PREFACE + SETTINGS + head(1, GET))
                    got = Answers()
                    while not got.ended:
                        got.add(client.sock.recv(65536))
                    assert got.heads[1][0].keys() >= {b"date", b"server"}


def test_wsgi_is_told_of_it() -> None:
    request = Request("GET", b"/", b"/", b"", "2", [])
    assert request_environ(constant_environ(""), request)["SERVER_PROTOCOL"] == "HTTP/2.0"


# WebSockets (RFC 8441)

CONNECT: Fields = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":path", b"/chat"),
    (b":authority", b"a"),
    (b"sec-websocket-version", b"13"),
]


async def chat(scope: Any, receive: Receive, send: Send) -> None:
    """Accepts, repeats what it hears in upper case, and closes when it hears "bye"."""
    assert (scope["type"], scope["http_version"]) == ("websocket", "2")
    await receive()
    if scope["path"] == "/refused":
        await send({"type": "websocket.close"})
        return
    subprotocol = "b" if "b" in scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": [(b"X-A", b"b")]})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"].upper()})
        if message["text"] == "bye":
            await send({"type": "websocket.close", "code": 4001})


class Talk:
    """The client's side of a WebSocket on stream 1."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.frames = Frames(ConnectionType.CLIENT)
        self._seen = 0

    async def say(self, event: wsproto.events.Event, ended: bool = False) -> list[Any]:
        got = await self.client.send(data(1, self.frames.send(event), ended))
        said, self._seen = got.bodies[1][self._seen :], len(got.bodies[1])
        if said:
            self.frames.receive_data(said)
        return list(self.frames.events())


@in_loop
async def test_a_websocket() -> None:
    client = await Client(chat, deflate=False).greet()
    settings = client.got.frames[0]
    assert settings.settings[8] == 1
    got = await client.send(client.head(1, [*CONNECT, (b"sec-websocket-protocol", b"a, b")], False))
    assert got.heads[1] == [{b":status": b"200", b"sec-websocket-protocol": b"b", b"x-a": b"b"}]
    talk = Talk(client)
    assert await talk.say(TextMessage("hello")) == [TextMessage("HELLO")]
    await client.send(client.head(3, GET))  # other streams go on
    [said, closed] = await talk.say(TextMessage("bye"))
    assert (said, closed.code) == (TextMessage("BYE"), 4001)
    assert not client.got.ended & {1}
    await talk.say(closed.response(), True)
    assert 1 in client.got.ended
    assert 1 not in client.got.resets
    assert client.wire.access[0] == ("CONNECT", b"/chat", "2", 200)
    assert len(client.wire.service.connections) == 1  # what carries it


@in_loop
async def test_a_websocket_that_the_client_closes_or_cuts() -> None:
    for cut in (False, True):
        client = await Client(chat, deflate=False).greet()
        await client.send(client.head(1, CONNECT, False))
        if cut:
            await client.send(raw(3, 0, 1, struct.pack(">L", Code.CANCEL)))
        else:
            [answer] = await Talk(client).say(CloseConnection(1000), True)
            assert answer == CloseConnection(1000, "")
            assert client.got.ended == {1}
        assert not client.wire.service.gateway.running
        assert len(client.wire.service.connections) == 1


@in_loop
async def test_a_websocket_is_closed_when_the_server_restarts_or_stops() -> None:
    client = await Client(chat, deflate=False).greet()
    await client.send(client.head(1, CONNECT, False))
    client.wire.service.draining = True
    for connection in list(client.wire.service.connections):
        connection.shutdown(1012)
    talk = Talk(client)
    got = await client.settle()
    talk.frames.receive_data(got.bodies[1])
    [closed] = talk.frames.events()
    assert closed == CloseConnection(1012, "restart")
    got = await client.send(data(1, talk.frames.send(closed.response())))
    assert got.ended == {1}
    assert got.gone


@in_loop
async def test_handshakes_that_are_refused() -> None:
    client = await Client(chat).greet()
    got = await client.send(client.head(1, replaced(b":path", b"/refused", CONNECT), False))
    assert got.status(1) == 403
    got = await client.send(client.head(3, replaced(b"sec-websocket-version", b"8", CONNECT), False))
    assert got.heads[3][0][b"sec-websocket-version"] == b"13"
    assert got.status(3) == 426
    client = Client(chat, implementation="none")
    await client.greet()
    assert 8 not in client.got.frames[0].settings
    got = await client.send(client.head(1, CONNECT, False))
    assert got.status(1) == 501


@in_loop
async def test_a_handshake_whose_client_has_ended_its_side_is_reset() -> None:
    """DATA without a head would break the client's connection, and an answer could not be used."""
    heard: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        heard.append((await receive())["type"])
        heard.append((await receive())["type"])

    for later in (False, True):
        client = await Client(app).greet()
        client.wire.service.gate = gate = Barred()
        gate.is_open = not later
        await client.send(client.head(1, CONNECT, later))
        if later:
            gate.open(client.wire.service.held)
            got = await client.settle()
        else:
            got = await client.send(data(1, b""))
        assert (got.resets, got.bodies, got.ended) == ({1: Code.INTERNAL_ERROR}, {}, set())
        assert len(client.wire.service.connections) == 1
        assert heard == ["websocket.connect", "websocket.disconnect"]
        heard.clear()


@in_loop
async def test_a_websocket_that_nobody_reads_is_held_back() -> None:
    go = asyncio.Event()
    count = 0

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal count
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while (await receive())["type"] == "websocket.receive":
            count += 1

    client = await Client(app, deflate=False).greet()
    await client.send(client.head(1, CONNECT, False))
    frames = Frames(ConnectionType.CLIENT)
    message = frames.send(BytesMessage(bytes(1000)))
    await client.send(data(1, message * 120, False))
    assert client.wire.reading  # the other streams are read
    go.set()
    await client.settle()
    assert count == 120
    await client.wire.leave()


# Requests that are held


class Barred:
    """A gate that lets nobody in, until it is opened."""

    is_open = False

    def lets_in(self) -> bool:
        return self.is_open

    def open(self, held: deque[service.Held]) -> None:
        self.is_open = True
        while held:
            held.popleft().release()


@in_loop
async def test_a_part_of_a_held_body_costs_the_same_however_many_came_before() -> None:
    costs = []
    for count in (1000, 2000):
        client = await Client(echo).greet()
        client.wire.service.gate = Barred()
        await client.send(client.head(1, POST, False))
        calls = 0

        def called(frame: Any, event: str, argument: Any) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(called)
        client.wire.protocol.data_received(data(1, b"a", False) * count)
        sys.setprofile(None)
        costs.append(calls)
        await client.wire.leave()
    assert costs[1] < 2.5 * costs[0]


@in_loop
async def test_a_held_request_that_is_reset_does_not_stop_the_connection() -> None:
    client = await Client(echo).greet()
    client.wire.service.gate = gate = Barred()
    await client.send(client.head(1, POST, False))
    await client.send(data(1, bytes(70_000), False) + raw(3, 0, 1, bytes(4)))
    gate.open(client.wire.service.held)
    got = await client.send(client.head(3, GET))
    assert got.status(3) == 200


@in_loop
async def test_a_client_that_has_ended_its_side_is_not_waited_for_when_its_request_begins() -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await receive()
        heard.append((await receive())["type"])

    client = await Client(app).greet()
    client.wire.service.gate = gate = Barred()
    await client.send(client.head(1, GET), client.head(3, POST, False))
    client.wire.protocol.eof_received()
    gate.open(client.wire.service.held)
    got = await client.settle()
    assert heard == ["http.disconnect"] * 2
    assert 3 in got.resets  # its body will never be all there
    await client.wire.leave()


# Hand-over


CONVERSATION = b"".join(
    [
        PREFACE,
        raw(4, 0, 0, struct.pack(">HL", 4, 100_000)),
        more(0, 5),
        more(0, 7),
    ]
)


def test_a_connection_that_is_handed_over_at_any_byte_goes_on_as_if_it_had_not_been() -> None:
    encoder = Encoder()
    first = raw(1, 1, 1, (block := encoder.encode([*GET, (b"x-a", b"b" * 20)]))[:9]) + raw(9, 4, 1, block[9:])
    body = (
        head(3, [*POST, (b"content-length", b"5")], False, encoder=encoder)
        + data(3, b"abc", False)
        + data(3, b"de")
    )
    later = head(5, [*GET, (b"x-a", b"b" * 20)], encoder=encoder)  # refers to the table
    text = CONVERSATION + first + body + more(3, 9) + later
    whole = Intake(Wire(), 65536)
    wanted = requests(whole.receive(text))
    for cut in range(len(text) + 1):
        intake = Intake(Wire(), 65536)
        held: dict[int, list[Arrived | Piece]] = {}
        for event in intake.receive(text[:cut]):
            if isinstance(event, Arrived | Piece):
                held.setdefault(event.stream, []).append(event)
        successor, rest = unpack(pack(intake, held), 65536)
        events = [*successor.receive(rest), *successor.receive(text[cut:])]
        assert requests(events) == wanted, cut
        after = successor.wire
        windows = (
            after.first_window,
            after.send,
            after.receive,
            {each: half.send for each, half in after.streams.items()},
        )
        assert windows == (
            100_000,
            whole.wire.send,
            whole.wire.receive,
            {each: half.send for each, half in whole.wire.streams.items()},
        ), cut
        assert successor.is_amid is False


@in_loop
async def test_what_a_client_sends_is_never_taken_for_a_predecessors_words() -> None:
    """Not if it waited behind a request while the server restarted, nor if it came in parts."""
    forged = pack(Intake(Wire(), 65536), {})
    go = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await go.wait()
        await echo(scope, receive, send)

    client = Client(app)
    await client.wire.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + forged)
    given: list[tuple[int, bytes]] = []
    client.wire.service.hand_over = given.extend
    client.wire.service.draining = True
    client.wire.protocol.shutdown(1012)
    assert client.wire.protocol.abandoned() is None
    go.set()
    assert (await client.wire.settle()).startswith(b"HTTP/1.1 200")
    assert (given, client.wire.closing) == ([], True)
    for left, rest in ((forged[:2], forged[2:]), (b"\r\n" + forged, b""), (PROXIED, forged)):
        assert (await left_with(left).wire.feed(rest)).startswith(b"HTTP/1.1 400")


@in_loop
async def test_a_connection_through_a_proxy_goes_over_more_than_once() -> None:
    left = PROXIED + pack(Intake(Wire(), 65536), {})
    client = left_with(left)
    await client.send(PREFACE, SETTINGS)
    connection = client.wire.protocol
    for _ in range(2):
        client = left_with(connection._packed())
        await client.settle()
        connection = client.wire.protocol
    got = await client.send(client.head(1, GET))
    assert got.status(1) == 200


@in_loop
async def test_a_connection_goes_over_before_it_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "fileno", lambda line: 9)
    left = pack(Intake(Wire(), 65536), {})
    for before in (b"", PROXIED):
        client = left_with(before + left)
        assert client.wire.protocol.abandoned() == (9, before + left)


PROXIED = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n"


def left_with(left: bytes) -> Client:
    """A connection that a predecessor has left."""
    client = Client(echo)
    service = client.wire.service
    if left.startswith(PROXIED):
        service.front = Proxies(Proxy(protocol=True, allow=("*",)))
    client.wire.protocol = Connection(service, left)
    client.wire.protocol.connection_made(client.wire)
    return client


def test_what_is_dropped_of_an_answered_request_is_dropped_by_the_successor() -> None:
    intake = Intake(Wire(), 65536)
    intake.receive(PREFACE + SETTINGS + head(1, POST, False))
    intake.wire.head(1, [(b":status", b"403")], True)
    intake.receive(data(1, b"abc", False))
    successor, rest = unpack(pack(intake, {}), 65536)
    assert successor.receive(rest) == []
    assert successor.receive(data(1, b"def")) == [Piece(1, b"def", True)]
    assert not successor.wire.streams
    assert not successor.wire.out


def requests(events: list[Event]) -> dict[int, tuple[Any, bytes, bool]]:
    """Head, body and end of each stream."""
    found: dict[int, tuple[Any, bytes, bool]] = {}
    for event in events:
        if isinstance(event, Arrived):
            assert isinstance(event.said, tuple)
            frame, headers = event.said
            assert isinstance(frame, Framing)
            found[event.stream] = ((frame.method, frame.target, headers), b"", event.ended)
        elif isinstance(event, Piece):
            said, body, _ = found[event.stream]
            found[event.stream] = (said, body + event.data, event.ended)
    return found
