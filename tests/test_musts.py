"""Every MUST of RFC 9110 and RFC 9112 for an origin server, byte for byte, the same with each parser.

A row is a section, what it asks for, what is sent on a new connection, and what has to come back: the
statuses of the responses, in order, and whether the server then closes. What is said of the application, of
proxies, caches and gateways, and of clients is not here. Heads and bodies that are malformed in other ways
are in `test_framing`, byte by byte, and in `test_http`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import devserver
from tests.raw import Raw, serving

FAST = [name for name in ("httptools", "uvloop") if importlib.util.find_spec(name) is None]
needs_fast = pytest.mark.skipif(bool(FAST), reason=f"not installed: {', '.join(FAST)}")


class Row(NamedTuple):
    """Attributes: section: RFC and section; answers: statuses; then: "open", or "closed"."""

    section: str
    says: str
    sent: bytes
    answers: list[int]
    then: str


H = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + H
POST = b"POST / HTTP/1.1\r\n" + H
END = b"\r\n"
NEXT = GET + END
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def refused(section: str, says: str, head: bytes, status: int = 400) -> Row:
    """Whatever follows a refused head is no request."""
    return Row(section, says, head + NEXT, [status], "closed")


def served(section: str, says: str, sent: bytes) -> Row:
    """It is answered, and so is the request behind it."""
    return Row(section, says, sent + NEXT, [200, 200], "open")


MUSTS = [
    # 2: the message
    served("9112 2.2", "an empty line before a request is ignored", b"\r\n\r\n" + NEXT),
    refused("9112 2.2", "a bare CR is not the end of a line", GET + b"A: b\rB: c\r\n\r\n"),
    refused("9112 2.2", "a bare CR in a request line is refused", b"GET /\r HTTP/1.1\r\n" + H + END),
    refused(
        "9112 2.2", "space between request line and first field", b"GET / HTTP/1.1\r\n A: b\r\n" + H + END
    ),
    refused("9112 2.3", "the version is written in upper case", b"GET / http/1.1\r\n" + H + END),
    refused("9110 2.5", "another major version", b"GET / HTTP/2.0\r\n" + H + END, 505),
    # 3: the request line
    refused("9112 3", "two spaces in the request line", b"GET  / HTTP/1.1\r\n" + H + END),
    refused("9112 3", "a space in the target is not mended", b"GET /a b HTTP/1.1\r\n" + H + END),
    refused(
        "9112 3", "a target that is too long", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + H + END, 414
    ),
    refused("9112 3", "a method longer than any known", b"M" * 100 + b" / HTTP/1.1\r\n" + H + END, 501),
    served("9110 9.1", "methods tell upper case from lower", b"get / HTTP/1.1\r\n" + H + END),
    refused("9112 3.2", "no Host", b"GET / HTTP/1.1\r\n\r\n"),
    refused("9112 3.2", "two Hosts", GET + H + END),
    refused("9112 3.2", "an invalid Host", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    refused("9112 3.2", "an invalid port in Host", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    refused("9112 3.3", "an empty Host leaves http without an authority", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    refused("9110 4.2.1", "an http URI with an empty host", b"GET http:///a HTTP/1.1\r\n" + H + END),
    refused("9110 4.2.4", "user information in an http URI", b"GET http://u@a/ HTTP/1.1\r\n" + H + END),
    served("9112 3.2.2", "the absolute form is taken", b"GET http://b/ HTTP/1.1\r\n" + H + END),
    served(
        "9112 3.2.2", "in it the host counts, and not Host", b"GET http://b/host HTTP/1.1\r\nHost:\r\n\r\n"
    ),
    refused("9110 7.4", "https is not answered over http", b"GET https://a/ HTTP/1.1\r\n" + H + END, 421),
    refused("9110 9.3.6", "CONNECT is for proxies", b"CONNECT a:80 HTTP/1.1\r\n" + H + END, 501),
    served("9112 3.2.4", "the asterisk form, for OPTIONS", b"OPTIONS * HTTP/1.1\r\n" + H + END),
    refused("9112 3.2.4", "and for nothing else", b"GET * HTTP/1.1\r\n" + H + END),
    # 5: fields
    refused("9112 5.1", "space between name and colon", GET + b"A : b\r\n\r\n"),
    refused("9112 5.1", "the same before a length", POST + b"Content-Length : 5\r\n\r\nhello"),
    refused("9112 5.2", "a folded line", GET + b"A: b\r\n c\r\n\r\n"),
    refused("9110 5.5", "NUL in a value", GET + b"A: b\0\r\n\r\n"),
    served("9110 5.5", "space around a value is no part of it", GET + b"A:\t b \t\r\n\r\n"),
    served("9110 5.5", "other bytes in a value are opaque", GET + b"A: \x80\xff\r\n\r\n"),
    refused("9110 5.6.2", "a name that is not a token", GET + b"(A): b\r\n\r\n"),
    refused("9110 5.4", "more fields than are wanted", GET + b"A: b\r\n" * 12_000 + END, 431),
    # 6: the body
    served("9112 6.3", "a body as long as it is said to be", POST + b"Content-Length: 5\r\n\r\nhello"),
    served("9112 6.3", "no body without a length", POST + END),
    served("9110 8.6", "leading zeros, and space around", POST + b"Content-Length: \t005 \r\n\r\nhello"),
    refused("9110 8.6", "a length that would overflow", POST + b"Content-Length: " + b"9" * 40 + END * 2),
    refused("9112 6.3", "an invalid length", POST + b"Content-Length: 5a\r\n\r\nhello"),
    refused("9112 6.3", "a list of lengths", POST + b"Content-Length: 5, 6\r\n\r\nhello"),
    refused("9112 6.3", "two lengths", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    refused(
        "9112 6.3", "both, which smuggles", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
    ),
    refused("9112 6.3", "the last coding is not chunked", POST + b"Transfer-Encoding: gzip\r\n\r\n"),
    refused("9112 6.3", "nor is it here", POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n"),
    refused("9112 6.1", "a coding not known", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    refused("9112 6.1", "chunked twice", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n"),
    refused("9112 6.1", "a coding in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    served("9112 7", "codings have no case", POST + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n"),
    refused("9112 11.2", "a length in disguise", POST + b"Content_Length: 5\r\n\r\nhello"),
    refused("9112 11.2", "a coding in disguise", POST + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused(
        "9110 5.3", "Content-Type twice", POST + b"Content-Length: 0\r\n" + b"Content-Type: a/b\r\n" * 2 + END
    ),
    refused("9110 5.3", "Content-Type twice, and no body", GET + b"Content-Type: a/b\r\n" * 2 + END),
    refused("9110 5.3", "Authorization twice", GET + b"Authorization: a\r\n" * 2 + END),
    # 7: chunks
    served(
        "9112 7.1",
        "chunks, with digits in both cases",
        CHUNKED + b"a\r\n0123456789\r\n0A\r\n0123456789\r\n00\r\n\r\n",
    ),
    served("9112 7.1", "a size with leading zeros", CHUNKED + b"0000000005\r\nhello\r\n0\r\n\r\n"),
    refused("9112 7.1", "a size that would overflow", CHUNKED + b"1" + b"0" * 16 + b"\r\n"),
    refused("9112 7.1", "a size after space", CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n"),
    refused("9112 7.1", "a size before space", CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n"),
    refused("9112 7.1", "a chunk longer than its size", CHUNKED + b"4\r\nhello\r\n0\r\n\r\n"),
    refused("9112 7.1", "a bare LF after a size", CHUNKED + b"5\nhello\r\n0\r\n\r\n"),
    served(
        "9112 7.1.1", "extensions are ignored", CHUNKED + b'5;a;b=c;d="e;\\"f" ; g\r\nhello\r\n0;h\r\n\r\n'
    ),
    refused("9112 7.1.1", "a bare semicolon", CHUNKED + b"5;\r\nhello\r\n0\r\n\r\n"),
    refused("9112 7.1.1", "an extension without a value", CHUNKED + b"5;a=\r\nhello\r\n0\r\n\r\n"),
    refused("9112 7.1.1", "a quotation without an end", CHUNKED + b'5;a="b\r\nhello\r\n0\r\n\r\n'),
    refused("9112 7.1.1", "extensions without end", CHUNKED + (b"1;" + b"a" * 4000 + b"\r\nb\r\n") * 5),
    served(
        "9112 7.1.2",
        "trailers are read, and no fields of the head",
        CHUNKED + b"0\r\nContent-Length: 9\r\n\r\n",
    ),
    refused("9112 7.1.2", "a trailer that is not a field", CHUNKED + b"0\r\na\r\n\r\n"),
    # 9: the connection
    served("9112 9.3", "connections persist", NEXT),
    served("9112 9.3.2", "requests are answered in their order", b"GET /slow HTTP/1.1\r\n" + H + END),
    Row(
        "9112 9.6",
        "close is the client's last word",
        GET + b"Connection: close\r\n\r\n" + NEXT,
        [200],
        "closed",
    ),
    Row(
        "9112 9.6", "in any case, among others", GET + b"Connection: a, CLOSE\r\n\r\n" + NEXT, [200], "closed"
    ),
    Row("9112 9.3", "1.0 does not persist by itself", b"GET / HTTP/1.0\r\n\r\n" + NEXT, [200], "closed"),
    Row(
        "9112 9.6",
        "close is the server's last word",
        b"GET /close HTTP/1.1\r\n" + H + END + NEXT,
        [200],
        "closed",
    ),
    Row(
        "9112 9.3",
        "a body that is not read",
        b"PUT /unread HTTP/1.1\r\n" + H + b"Content-Length: 2\r\n\r\nhi" + NEXT,
        [200, 200],
        "open",
    ),
    # 9110: semantics
    refused(
        "9110 10.1.1", "another expectation", POST + b"Expect: more\r\nContent-Length: 5\r\n\r\nhello", 417
    ),
    served("9110 10.1.1", "none is met in 1.0, nor without a body", GET + b"Expect: 100-continue\r\n\r\n"),
    Row(
        "9110 10.1.1",
        "100 before the body is asked for",
        POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        [100],
        "open",
    ),
    Row(
        "9110 10.1.1",
        "not to 1.0",
        b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
        [200],
        "closed",
    ),
    served(
        "9110 7.8",
        "an upgrade to what is not spoken here is ignored",
        GET + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    ),
    served("9110 9.3.2", "HEAD has no content", b"HEAD / HTTP/1.1\r\n" + H + END),
    Row("9110 15.3.5", "nor 204", b"GET /204 HTTP/1.1\r\n" + H + END + NEXT, [204, 200], "open"),
    Row("9110 15.3.6", "nor 205", b"GET /205 HTTP/1.1\r\n" + H + END + NEXT, [205, 200], "open"),
    Row("9110 15.4.5", "nor 304", b"GET /304 HTTP/1.1\r\n" + H + END + NEXT, [304, 200], "open"),
    Row(
        "9110 15.5.22",
        "426 names what is spoken",
        GET + b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 12\r\n\r\n",
        [426],
        "closed",
    ),
]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        return
    path = scope["path"]
    body = b"content"
    while path != "/unread" and (message := await receive())["more_body"]:
        body += message["body"]
    status = int(path[1:]) if path[1:].isdigit() else 200
    headers = [(b"content-length", b"%d" % len(body))] if status != 200 else []
    if path == "/close":
        headers.append((b"connection", b"close"))
    if path == "/host":
        body = dict(scope["headers"])[b"host"]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(
    scope="module",
    params=[
        pytest.param({"http": "h11", "loop": "asyncio"}, id="h11"),
        pytest.param({"http": "httptools", "loop": "asyncio"}, id="httptools", marks=needs_fast),
    ],
)
def server(request: pytest.FixtureRequest) -> Iterator[devserver.Server]:
    with serving(app, **request.param) as server:
        yield server


def name(row: Row) -> str:
    return f"{row.section} {row.says}"


@pytest.mark.parametrize("row", MUSTS, ids=name)
def test_musts(row: Row, server: devserver.Server) -> None:
    heads = []
    with Raw(server) as raw:
        raw.send(row.sent)
        for status in row.answers:
            head = raw.until(b"\r\n\r\n")
            assert head.split(b" ")[1] == b"%d" % status, head
            assert (b"\r\nDate: " in head) is (status != 100), "9110 6.6.1"
            heads.append(head)
            length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head, re.IGNORECASE)
            without = status in (100, 204, 304) or (row.sent.startswith(b"HEAD") and len(heads) == 1)
            raw.take(0 if without or length is None else int(length[1]))
            assert b"transfer-encoding" not in head.lower() or status not in (204, 304), "9112 6.1"
            assert status != 204 or length is None, "9110 8.6"
            assert status != 205 or (length is not None and length[1] == b"0"), "9110 15.3.6"
            assert status != 426 or b"\r\nUpgrade: websocket\r\n" in head, "9110 15.5.22"
        if row.then == "open":
            if row.answers[-1] != 100:
                raw.send(NEXT)
                assert raw.answer().status == 200
        else:
            assert raw.rest() == b""
            assert b"\r\nConnection: close\r\n" in heads[-1], "9112 9.6"


def test_what_the_target_says_counts(server: devserver.Server) -> None:
    """RFC 9112 section 3.2.2."""
    with Raw(server) as raw:
        raw.send(b"GET http://b:80/host HTTP/1.1\r\nHost: a\r\n\r\n")
        assert raw.answer().body == b"b:80"


def test_a_response_to_1_0_is_not_chunked(server: devserver.Server) -> None:
    """RFC 9112 section 6.1; its end is that of the connection where the length is not known."""
    with Raw(server) as raw:
        raw.send(b"GET / HTTP/1.0\r\n\r\n")
        answer = raw.answer()
        assert b"transfer-encoding" not in answer.headers
        assert raw.rest() == b""


def test_what_is_encoded_in_a_path_is_data(server: devserver.Server) -> None:
    """%00 and %0D%0A reach the application as they are, and cannot break out of a response."""
    with Raw(server) as raw:
        raw.send(b"GET /a%00b%0D%0AX:%20y HTTP/1.1\r\n" + H + END)
        assert raw.answer().body == b"content"
