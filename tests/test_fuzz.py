"""Parsers, bodies, connections and WebSockets against what nobody thought of.

Each example begins with something of `corpus/`, which is then cut, doubled and spoilt. What is found is added
there. An ordinary run takes the same few examples each time; `FUZZ_EXAMPLES=100000` takes so many for each
test, and others each time.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hpack import Encoder
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devserver.front.proxies import Proxies
from devserver.http import body as bodies
from devserver.http import framing, uwsgi
from devserver.http.body import BadBody, ChunkedBody
from devserver.http.framing import Framing, Parser, Refused
from devserver.proxy import Proxy
from tests.http2 import GET, POST, PREFACE, SETTINGS, Answers, Client, raw
from tests.wire import DEFLATE, Wire, split_frames

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "")
FEW = settings(
    max_examples=int(EXAMPLES or 80),
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
CORPUS = Path(__file__).parent / "corpus"
PARSERS = ["h1", "h1_httptools"] if importlib.util.find_spec("httptools") else ["h1"]


def corpus(name: str) -> list[bytes]:
    lines = (CORPUS / f"{name}.txt").read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if not line.startswith("#")]


TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"_", b'"', b"\\", b"=", b"%00", b"\xff",
    b"0", b"5", b"f" * 16, b"\r\n\r\n", b"chunked", b"0\r\n\r\n", b"HTTP/1.0", b"GET / HTTP/1.1\r\n", b"http://a",
    b"Host: a\r\n", b"Connection: close\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n", b"\x88\x80\0\0\0\0", b"\x81\x85", b"\x7f\xff",
]  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One or two of some byte strings, changed in up to four places."""
    data = b"".join(draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 12)))
        new = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4), st.just(data[at:to] * 2)))
        data = data[:at] + new + data[to:]
    return data


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Data as it arrives, cut at some places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 5000), max_size=6)
REQUESTS, BODIES, FRAMES = spoilt(corpus("requests")), spoilt(corpus("bodies")), spoilt(corpus("frames"))
PACKETS = spoilt(corpus("packets"))


def parser(name: str) -> Parser:
    return importlib.import_module(f"devserver.http.{name}").parse  # type: ignore[no-any-return]


def understood(head: bytes) -> Framing | None:
    try:
        return framing.read(head)
    except Refused:
        return None


@FEW
@given(REQUESTS)
def test_a_head_is_refused_or_understood_by_every_parser_alike(data: bytes) -> None:
    """No parser may find fault with what has passed the grammar: one would serve it, and another not."""
    data = data[framing.blank_lines(data) :]
    try:
        end = framing.end_of_head(data, 0, 0, 65536)
    except Refused:
        return
    frame = understood(data[:end]) if end > 0 else None
    if frame is None:
        return
    assert frame.length >= -1
    # Codings have no case, and h11 writes them in lower case.
    made = [
        [
            (name, value.lower() if name == b"transfer-encoding" else value)
            for name, value in parse(data[:end])
        ]
        for parse in map(parser, PARSERS)
    ]
    assert all(headers == made[0] for headers in made)
    names = [name for name, _ in made[0]]
    assert names == [name.lower() for name in names]
    assert frame.version == "1.0" or names.count(b"host") == 1
    assert names.count(b"content-length") <= 1
    assert (frame.length == -1) is (b"transfer-encoding" in names)


@FEW
@given(REQUESTS, CUTS)
def test_a_head_ends_at_the_same_place_however_it_arrives(data: bytes, cuts: list[int]) -> None:
    def end(parts: list[bytes]) -> int:
        buffer, searched = b"", 0
        for part in parts:
            buffer += part
            if (found := framing.end_of_head(buffer, 0, searched, 65536)) >= 0:
                return found
            searched = len(buffer)
        return -1

    try:
        assert end(pieces(data, cuts)) == end([data])
    except Refused:
        # At once it may have ended where in parts what it contains was reason enough to refuse it.
        whole = data.find(b"\r\n\r\n")
        assert whole < 0 or understood(data[: whole + 4]) is None


def chunks(parts: list[bytes]) -> tuple[bytes, bytes | None] | None:
    """The body and what follows it; None for a bad one."""
    reader, body = ChunkedBody(), b""
    for number, part in enumerate(parts):
        try:
            piece, rest = reader.feed(part)
            while reader.behind:
                body += piece
                piece, rest = reader.feed(b"")
        except BadBody:
            return None
        body += piece
        if rest is not None:
            return body, rest + b"".join(parts[number + 1 :])
    return body, None


@FEW
@given(BODIES, CUTS, st.sampled_from([1, 2, 256]))
def test_a_body_ends_at_the_same_place_however_it_arrives(data: bytes, cuts: list[int], once: int) -> None:
    whole = chunks([data])
    with mock.patch.object(bodies, "_AT_ONCE", range(once)):
        assert chunks(pieces(data, cuts)) == whole


EXTENSIONS = st.sampled_from([b"", b";a", b" ; a = b", b';a="\\"; \xff"', b";a;b"])


@FEW
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=40), EXTENSIONS), max_size=5), st.binary(), CUTS)
def test_a_body_in_chunks_is_what_was_sent(
    sent: list[tuple[bytes, bytes]], rest: bytes, cuts: list[int]
) -> None:
    data = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part, extension in sent)
    data += b"0\r\nTrailer: x\r\n\r\n" + rest
    assert chunks(pieces(data, cuts)) == (b"".join(part for part, _ in sent), rest)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        return
    body = scope["path"].encode() + b" "
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def answers(parts: list[bytes], name: str) -> bytes:
    """What a connection answers to bytes that arrive in parts."""

    async def talk() -> bytes:
        wire = Wire(echo)
        wire.service.parse = parser(name)
        written = b"".join([await wire.feed(part) for part in parts])
        wire.protocol.eof_received()
        written += await wire.settle()
        await wire.leave()
        return written

    return asyncio.run(talk())


def statuses(written: bytes) -> list[bytes]:
    """Of final responses: whether a body is asked for is a matter of when it comes."""
    return re.findall(rb"HTTP/1\.1 ([2-5]\d+) ", written)


EXPECTS = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n* HTTP/1.1\r\n\r\n"


@FEW
@given(data=REQUESTS, cuts=CUTS, once=st.sampled_from([1, 256]))
@example(data=b"M" * 65 + b"\nM / HTTP/1.1\r\nHost: a\r\n\r\n", cuts=[65], once=1)
@example(data=EXPECTS, cuts=[69], once=256)
@pytest.mark.parametrize("name", PARSERS)
def test_a_connection_answers_alike_however_requests_arrive(
    name: str, data: bytes, cuts: list[int], once: int
) -> None:
    """Nothing is raised, nothing is left, and it makes no difference where a request was cut."""
    whole = statuses(answers([data], PARSERS[0]))
    with mock.patch.object(bodies, "_AT_ONCE", range(once)):
        assert statuses(answers(pieces(data, cuts), name)) == whole


@FEW
@given(PACKETS)
def test_a_packet_is_refused_or_its_parts_are_what_was_sent(data: bytes) -> None:
    """Nothing else is raised, and nothing gets into a header or a path that could break out of a line."""
    try:
        end = uwsgi.end_of_head(data, 0, 0, 65536)
        if end < 0:
            return
        frame, headers = uwsgi.read(data[:end]), uwsgi.parse(data[:end])
    except Refused:
        return
    assert end == 4 + data[1] + 256 * data[2]
    assert 0 <= frame.length < 10**18
    told = frame.parameters or {}
    assert not set(told) & {"CONTENT_LENGTH", "CONTENT_TYPE"}
    for name, value in headers:
        assert framing.is_host(value) or name != b"host"
        assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]|^[ \t]|[ \t]$", value)
        assert re.fullmatch(framing.TOKEN, name)
        assert name == name.lower()
    assert re.fullmatch(rb"[!-~]*", frame.target + frame.path + frame.query)
    assert "\0" not in "".join([*told, *told.values()])


PACKETED = st.dictionaries(st.text("ABC_xyz-", min_size=1, max_size=20), st.binary(max_size=40), max_size=8)


@FEW
@given(PACKETED)
def test_custom_parameters_are_what_was_sent(more: dict[str, bytes]) -> None:
    sent = {
        "REQUEST_METHOD": b"GET",
        "REQUEST_URI": b"/",
        **{f"my_{name}": value for name, value in more.items()},
    }
    items = [part for name, value in sent.items() for part in (name.encode(), value.replace(b"\0", b""))]
    packed = b"".join(len(item).to_bytes(2, "little") + item for item in items)
    frame = uwsgi.read(b"\0" + len(packed).to_bytes(2, "little") + b"\0" + packed)
    told = {name: value.encode("latin-1") for name, value in (frame.parameters or {}).items()}
    assert told == {**{name: value.replace(b"\0", b"") for name, value in sent.items()}, "PATH_INFO": b"/"}


@FEW
@given(data=PACKETS, cuts=CUTS)
def test_a_connection_answers_alike_however_packets_arrive(data: bytes, cuts: list[int]) -> None:
    def talk(parts: list[bytes]) -> list[bytes]:
        async def connect() -> bytes:
            wire = Wire(echo)
            wire.service.parse, wire.service.heads = uwsgi.parse, uwsgi
            wire.service.front = Proxies(Proxy())
            written = b"".join([await wire.feed(part) for part in parts])
            wire.protocol.eof_received()
            written += await wire.settle()
            await wire.leave()
            return written

        return statuses(asyncio.run(connect()))

    whole = talk([data])
    assert len(whole) <= 1
    assert talk(pieces(data, cuts)) == whole


@FEW
@given(FRAMES, CUTS, st.booleans())
def test_a_websocket_hears_the_same_however_cut(data: bytes, cuts: list[int], deflate: bool) -> None:
    """The application receives the same messages and the same end, the client the same pongs and codes."""

    def talk(parts: list[bytes]) -> tuple[list[Any], list[tuple[int, bytes]]]:
        received: list[Any] = []

        async def listens(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while not received or received[-1]["type"] == "websocket.receive":
                received.append(await receive())

        async def frames() -> bytes:
            wire = Wire(listens, max_size=10_000)
            await wire.open(*[DEFLATE] * deflate)
            written = b"".join([await wire.feed(part) for part in parts])
            await wire.leave()
            return written

        sent = split_frames(asyncio.run(frames()))
        return received, [(first, payload[:2] if first == 0x88 else payload) for first, payload in sent]

    assert talk(pieces(data, cuts)) == talk([data])


# HTTP/2

FIELDS = [
    *GET,
    *POST,
    (b":protocol", b"websocket"),
    (b":method", b"CONNECT"),
    (b":path", b"*"),
    (b"content-length", b"5"),
    (b"te", b"trailers"),
    (b"connection", b"close"),
    (b"Upper", b"case"),
    (b"x", b"a\r\nb"),
    (b"x", b"y" * 300),
]
BLOCKS = st.one_of(
    st.sampled_from([GET, POST, [*POST, (b"content-length", b"5")]]),
    st.lists(st.sampled_from(FIELDS), max_size=8),
).map(lambda fields: Encoder().encode(fields))
PAYLOADS = st.one_of(
    BLOCKS,
    BLOCKS.map(lambda block: b"\1" + block + b"\0"),
    st.sampled_from([b"", b"hello", *(bytes(size) for size in (4, 5, 6, 8)), b"\xff" * 9]),
    st.binary(max_size=20),
)
FRAME = st.builds(
    raw,
    st.sampled_from([0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]),  # after the client's GOAWAY nobody listens
    st.sampled_from([0, 1, 4, 5, 5, 8, 0x20, 0x2D, 0xFF]),
    st.sampled_from([0, 1, 1, 2, 3, 5]),
    PAYLOADS,
)


def told(got: Answers) -> object:
    """What a client learns: how each stream went, and the connection.

    Where the connection, or a stream, ends by a fault, what had been answered before is a matter of when that
    came.
    """
    streams = set(got.heads) - set(got.resets)
    statuses = {stream: got.status(stream) for stream in streams}
    bodies = {stream: body for stream, body in got.bodies.items() if stream in streams}
    return got.gone or (statuses, bodies, got.ended & streams, got.resets)


@FEW
@given(st.lists(FRAME, max_size=12), CUTS)
@example([raw(1, 5, 1, Encoder().encode(GET)), raw(0, 0, 1, b"late")], [48])
def test_http2_is_answered_alike_however_frames_arrive(frames: list[bytes], cuts: list[int]) -> None:
    """Frames that are mostly well-formed, in any order. Nothing is raised."""
    text = PREFACE + SETTINGS + b"".join(frames)

    async def talk(parts: list[bytes]) -> Answers:
        client = Client(echo)
        for part in parts:
            await client.send(part)
        got = await client.settle()
        await client.wire.leave()
        return got

    assert told(asyncio.run(talk(pieces(text, cuts)))) == told(asyncio.run(talk([text])))
