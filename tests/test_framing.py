"""Heads, bodies and the heads of responses, byte for byte, without any I/O."""

from collections.abc import Callable, Iterator

import pytest

from devserver.errors import ApplicationError
from devserver.http import framing, response
from devserver.http.body import BadBody, Body, ChunkedBody, LengthBody, body
from devserver.http.exchange import Peer
from devserver.http.framing import Refused, end_of_head, read
from devserver.http.repeats import Repeats
from devserver.http.unread import Unread

HOST = b"Host: example.org\r\n"


def head(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = HOST) -> bytes:
    return first + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


# Where a head ends


def test_a_head_ends_after_the_blank_line() -> None:
    whole = head(b"A: b")
    assert end_of_head(whole, 0, 0, 1000) == len(whole)
    assert end_of_head(whole + b"GET / HTTP", 0, 0, 1000) == len(whole)


def test_a_head_that_arrives_byte_by_byte_ends_at_the_same_place() -> None:
    whole = head(b"A: b")
    for arrived in range(len(whole)):
        assert end_of_head(whole[:arrived], 0, max(0, arrived - 1), 1000) == -1
    assert end_of_head(whole, 0, len(whole) - 1, 1000) == len(whole)


def test_the_limit_is_for_the_head_and_not_for_what_follows() -> None:
    whole = head(b"A: b")
    assert end_of_head(whole + b"x" * 1000, 0, 0, len(whole)) == len(whole)
    with pytest.raises(Refused) as refused:
        end_of_head(whole, 0, 0, len(whole) - 1)
    assert refused.value.status == 431
    for sent in (b"GET /" + b"x" * 100, b"GET /" + b"x" * 60 + b" HTTP/1.1\r\n" + HOST * 2 + b"\r\n"):
        with pytest.raises(Refused) as refused:
            end_of_head(sent, 0, 0, 100)
        assert refused.value.status == 414
    for sent in (b"M" * 65, b"M" * 65 + b" / HTTP/1.1\r\n\r\n"):
        with pytest.raises(Refused, match="method") as refused:
            end_of_head(sent, 0, 0, 70)
        assert refused.value.status == 501
    assert end_of_head(b"M" * 64, 0, 0, 70) == -1


@pytest.mark.parametrize(
    ("arrived", "named"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "https"),
        (b"GET / HTTP/1.1\nHost: x\n\n", "bare"),
        (b"GET / HTTP/1.1\r\nHost: x\n\r", "bare"),
        (b"GET / HTTP/1.1\rHost: x", "bare"),
    ],
)
def test_what_may_never_end_is_refused_at_once(arrived: bytes, named: str) -> None:
    with pytest.raises(Refused, match=named) as refused:
        end_of_head(arrived, 0, 0, 1000)
    assert refused.value.status == 400


def test_a_bare_line_end_is_found_where_two_pieces_meet() -> None:
    first = b"GET / HTTP/1.1\r"
    assert end_of_head(first, 0, 0, 1000) == -1
    with pytest.raises(Refused, match="bare"):
        end_of_head(first + b"H", 0, len(first), 1000)


def test_what_is_taken_is_passed_over() -> None:
    """Heads and bodies are found wherever they begin, and what comes later is appended to what is left."""
    first, second = b"GET /1 HTTP/1.1\r\n\r\n", b"GET /2 HTTP/1.1\r\n\r\n"
    unread = Unread(first + b"body\r\n" + second[:15])
    assert unread.head(framing, 100) == unread.head(framing, 100) == first
    unread.drop(len(first))
    assert unread.take(4) == b"body"
    assert unread.head(framing, 100) == b""
    assert unread.all() == second[:15]
    unread.add(second[15:])
    assert unread.head(framing, len(second)) == second
    with pytest.raises(Refused):
        unread.head(framing, len(second) - 1)
    assert len(unread) == len(second)
    assert (unread.take(), len(unread), bool(unread)) == (second, 0, False)


@pytest.mark.parametrize("size", range(1, 30))
def test_a_head_behind_others_is_found_however_it_arrives(size: int) -> None:
    heads = [b"GET /%d HTTP/1.1\r\nA: \r\n\r\n" % number for number in range(5)]
    sent = b"\r\n\r\n".join(heads)
    unread, found = Unread(b""), []
    for at in range(0, len(sent), size):
        unread.add(sent[at : at + size])
        while head := unread.head(framing, 100):
            found.append(head)
            unread.drop(len(head))
    assert found == heads


def test_blank_lines_before_a_request_are_counted() -> None:
    assert framing.blank_lines(b"GET") == 0
    assert framing.blank_lines(b"\r\n\r\nGET") == 4
    assert framing.blank_lines(b"\r\n\nGET") == 2


# What a head may look like


@pytest.mark.parametrize(
    "good",
    [
        head(),
        head(first=b"OPTIONS * HTTP/1.1"),
        head(first=b"MKCALENDAR /a?b=%20 HTTP/1.1"),
        head(first=b"GET / HTTP/1.0", host=b""),
        head(b"Empty:", b"Tab:\ta\tb", b"Obs: \x80\xff", b"!#$%&'*+-.^_`|~: x"),
        head(b"Content-Length:   5  "),
        head(host=b"Host:\r\n", first=b"GET / HTTP/1.0"),
        head(host=b"Host:\r\n", first=b"GET http://example.org/ HTTP/1.1"),
        head(host=b"Host: a_b.%c3%bc-1:\r\n"),
        head(b"Content-Type: a/b", b"Authorization: c"),
        head(b"X-Content_Length: 5", b"Content_Type: a/b"),
        head(first=b"M" * 64 + b" / HTTP/1.1"),
        head(first=b"GET /%00%0D%0A HTTP/1.1"),
        head(host=b"host: [::1]:8000\r\n"),
        head(first=b"GET http://example.org HTTP/1.1"),
    ],
)
def test_heads_that_are_good(good: bytes) -> None:
    read(good)


@pytest.mark.parametrize(
    ("bad", "status", "named"),
    [
        (head(b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400, "both"),
        (head(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400, "both"),
        (head(b"Content-Length: 5", b"Content-Length: 6"), 400, "Content-Length"),
        (head(b"Content-Length: 5", b"content-length: 5"), 400, "Content-Length"),
        (head(b"Content-Length: 5, 5"), 400, "Content-Length"),
        (head(b"Content-Length: +5"), 400, "Content-Length"),
        (head(b"Content-Length: -5"), 400, "Content-Length"),
        (head(b"Content-Length: 0x5"), 400, "Content-Length"),
        (head(b"Content-Length: 5_0"), 400, "Content-Length"),
        (head(b"Content-Length:"), 400, "Content-Length"),
        (head(b"Content-Length: " + b"9" * 19), 400, "Content-Length"),
        (head(b"Transfer-Encoding: gzip"), 400, "last"),
        (head(b"Transfer-Encoding: gzip, chunked"), 501, "coding"),
        (head(b"Transfer-Encoding: chunked, chunked"), 400, "last"),
        (head(b"Transfer-Encoding: chunked,"), 400, "last"),
        (head(b"Transfer-Encoding: , chunked"), 400, "last"),
        (head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), 400, "last"),
        (head(b"Transfer-Encoding: chunked;a=b"), 400, "last"),
        (head(b"Transfer-Encoding: xchunked"), 400, "last"),
        (head(b"Content_Length: 5"), 400, "with '_'"),
        (head(b"Transfer_Encoding: chunked"), 400, "with '_'"),
        (
            head(b"Content-Length: 1", b"Content-Type: a/b", b"Content-Type: a/b"),
            400,
            "more than one Content-Type",
        ),
        (head(b"Authorization: a", b"authorization: b"), 400, "more than one Authorization"),
        (head(b"Transfer-Encoding: \x0bchunked"), 400, "malformed"),
        (head(b"Transfer-Encoding:"), 400, "last"),
        (head(b"Transfer-Encoding: chunked", first=b"GET / HTTP/1.0"), 400, "1.0"),
        (head(host=b""), 400, "no Host"),
        (head(HOST.rstrip()), 400, "more than one Host"),
        (head(host=b"Host:\r\n"), 400, "empty Host"),
        (head(host=b"Host: \t \r\n", first=b"OPTIONS * HTTP/1.1"), 400, "empty Host"),
        (head(host=b"", first=b"GET http://example.org/ HTTP/1.1"), 400, "no Host"),
        (head(host=b"Host: ::1\r\n"), 400, "Host"),
        (head(host=b"Host: a:b\r\n"), 400, "Host"),
        (head(host=b"Host: a,b\r\n"), 400, "Host"),
        (head(host=b"Host: a%2\r\n"), 400, "Host"),
        (head(host=b"Host: \xc3\xbc\r\n"), 400, "Host"),
        (head(host=b"Host: a b\r\n"), 400, "Host"),
        (head(host=b"Host: a/b\r\n"), 400, "Host"),
        (head(host=b"Host: user@a\r\n"), 400, "Host"),
        (head(b"A : b"), 400, "colon"),
        (head(b"A\t: b"), 400, "colon"),
        (head(b"A: b\rc"), 400, "bare"),
        (head(b"A: b\nC: d"), 400, "bare"),
        (head(b"A: b", b" folded"), 400, "folded"),
        (head(b"A: b", b"\tfolded"), 400, "folded"),
        (head(b"A: b\0c"), 400, "NUL"),
        (head(first=b"GET /\0 HTTP/1.1"), 400, "NUL"),
        (head(b"A: b\x01c"), 400, "malformed"),
        (head(b"A: b\x7fc"), 400, "malformed"),
        (head(b"(A): b"), 400, "malformed"),
        (head(b"no colon"), 400, "malformed"),
        (head(b": no name"), 400, "malformed"),
        (head(first=b"GET /"), 400, "request line"),
        (head(first=b"GET  / HTTP/1.1"), 400, "request line"),
        (head(first=b"GET / HTTP/1.1 "), 400, "request line"),
        (head(first=b"GET / http/1.1"), 400, "request line"),
        (head(first=b"GET /a b HTTP/1.1"), 400, "request line"),
        (head(first=b"G(T / HTTP/1.1"), 400, "malformed"),
        (head(first=b"GET /\xff HTTP/1.1"), 400, "malformed"),
        (head(first=b"GET /#a HTTP/1.1"), 400, "malformed"),
        (head(first=b"GET a HTTP/1.1"), 400, "target"),
        (head(first=b"GET * HTTP/1.1"), 400, "target"),
        (head(first=b"GET http:///a HTTP/1.1"), 400, "target"),
        (head(first=b"GET http://:80/a HTTP/1.1"), 400, "target"),
        (head(first=b"GET http://user@a/ HTTP/1.1"), 400, "target"),
        (head(first=b"M" * 65 + b" / HTTP/1.1"), 501, "method"),
        (head(first=b"GET ftp://a/ HTTP/1.1"), 400, "target"),
        (head(first=b"GET / HTTP/2.0"), 505, "HTTP/1"),
        (head(first=b"GET / HTTP/1.2"), 505, "HTTP/1"),
        (head(first=b"GET / HTTP/0.9"), 505, "HTTP/1"),
        (b"PRI * HTTP/2.0\r\n\r\n", 505, "HTTP/1"),
        (head(first=b"CONNECT a:80 HTTP/1.1"), 501, "CONNECT"),
        (head(b"Expect: a miracle"), 417, "expectation"),
        (head(b"Expect: 100-continue", b"Expect: 100-continue"), 417, "expectation"),
        (head(b"Transfer-Encoding: chunked", first=b"GET / HTTP/1.0", host=b""), 400, "1.0"),
    ],
)
def test_heads_that_are_refused(bad: bytes, status: int, named: str) -> None:
    with pytest.raises(Refused, match=named) as refused:
        read(bad)
    assert refused.value.status == status


# What a head says


def test_what_the_request_line_says() -> None:
    frame = read(head(first=b"GeT /A?B HTTP/1.1"))
    assert (frame.method, frame.target, frame.version) == ("GeT", b"/A?B", "1.1")
    assert read(head(first=b"GET / HTTP/1.0")).version == "1.0"
    assert read(head(first=b"OPTIONS * HTTP/1.1")).path == b"*"


def test_what_is_said_about_the_body() -> None:
    assert read(head()).length == 0
    assert read(head(b"Content-Length: 0012 ")).length == 12
    assert read(head(b"CONTENT-LENGTH:12")).length == 12
    assert read(head(b"Transfer-Encoding: Chunked ")).length == -1
    assert read(head(b"Content-Length: 12", first=b"POST / HTTP/1.0", host=b"")).length == 12
    assert read(head(b"X-Content-Length: 12", b"A: Content-Length: 3")).length == 0


def test_what_is_said_about_the_connection() -> None:
    assert read(head()).keep_alive
    assert not read(head(b"Connection: Keep-Alive, Close")).keep_alive
    assert not read(head(b"Connection: a", b"Connection: close")).keep_alive
    assert not read(head(b"Connection: keep-alive", first=b"GET / HTTP/1.0")).keep_alive
    assert read(head(b"Connection: Upgrade", b"Upgrade: WebSocket")).upgrade == b"websocket"
    assert read(head(b"Upgrade: websocket")).upgrade == b""
    twice = head(b"Connection: a", b"Connection: upgrade", b"Upgrade: h2c", b"Upgrade: websocket")
    assert read(twice).upgrade == b"h2c,websocket"


def test_continue_is_expected_where_there_is_a_body() -> None:
    assert read(head(b"Expect: 100-Continue", b"Content-Length: 1")).expects
    assert not read(head(b"Expect: 100-continue", b"Content-Length: 0")).expects
    assert not read(head(b"Expect: 100-continue", b"Content-Length: 1", first=b"PUT / HTTP/1.0")).expects


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/a%2Fb?c?d=/e", b"/a%2Fb", b"c?d=/e"),
        (b"//a//b", b"//a//b", b""),
        (b"http://example.org", b"/", b""),
        (b"HTTPS://example.org:80/a?b", b"/a", b"b"),
        (b"http://example.org?a/b", b"/", b"a/b"),
    ],
)
def test_targets(target: bytes, path: bytes, query: bytes) -> None:
    frame = read(head(first=b"GET " + target + b" HTTP/1.1"))
    assert (frame.path, frame.query) == (path, query)


def test_the_host_of_a_target_is_that_of_the_request() -> None:
    """RFC 9112 section 3.2.2; and what belongs to https is not answered over http (RFC 9110 section 7.4)."""
    lines = [(b"a", b"b"), (b"host", b"other")]
    plain, secure = Peer(), Peer(scheme="https")
    frame = read(head(first=b"GET http://Example.org:80/a HTTP/1.1"))
    assert frame.hosted(lines, plain) == [(b"host", b"Example.org:80"), (b"a", b"b")]
    assert frame.hosted(lines, secure) == frame.hosted(lines, plain)
    assert read(head()).authority == b""
    for scheme in (b"HTTPS", b"wss"):
        frame = read(head(first=b"GET " + scheme + b"://a/ HTTP/1.1"))
        assert frame.hosted(lines, secure)[0] == (b"host", b"a")
        with pytest.raises(Refused) as refused:
            frame.hosted(lines, plain)
        assert refused.value.status == 421


# Bodies


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def by_bytes(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[at : at + 1]


Split = Callable[[bytes], Iterator[bytes]]
SPLITS = pytest.mark.parametrize("split", [whole, by_bytes])


def take(reader: Body, pieces: Iterator[bytes]) -> tuple[bytes, bytes | None]:
    """The body, and what follows it; None when it has not ended."""
    taken = b""
    for piece in pieces:
        part, rest = reader.feed(piece)
        taken += part
        while reader.behind:
            part, rest = reader.feed(b"")
            taken += part
        if rest is not None:
            return taken, rest + b"".join(pieces)
    return taken, None


@SPLITS
def test_a_body_of_known_length(split: Split) -> None:
    assert take(LengthBody(5), split(b"helloGET /")) == (b"hello", b"GET /")
    assert take(LengthBody(5), split(b"hello")) == (b"hello", b"")
    assert take(LengthBody(5), split(b"hell")) == (b"hell", None)


@SPLITS
@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
        (b"0\r\n\r\n", b""),
        (b"00a\r\n0123456789\r\n000\r\n\r\n", b"0123456789"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b'2;name="a;b"; other\r\n\r\n\r\n0 ;last\r\n\r\n', b"\r\n"),
        (b'2 \t; a\t=\t"\\"\xfc;" ;b=c;d\r\nhi\r\n0;e=""\r\n\r\n', b"hi"),
        (b"2\r\nhi\r\n0\r\nExpires: never\r\nX:\r\n\r\n", b"hi"),
    ],
)
def test_a_body_in_chunks(sent: bytes, taken: bytes, split: Split) -> None:
    assert take(ChunkedBody(), split(sent + b"GET /")) == (taken, b"GET /")
    assert take(ChunkedBody(), split(sent[:-1])) == (taken, None)


@SPLITS
@pytest.mark.parametrize(
    ("sent", "named"),
    [
        (b"x\r\n", "size"),
        (b"\r\n", "size"),
        (b"-1\r\n", "size"),
        (b"+1\r\n", "size"),
        (b"0x1\r\n", "size"),
        (b" 1\r\n", "size"),
        (b"1_0\r\n", "size"),
        (b"1 2\r\n", "size"),
        (b"1 \r\n", "size"),
        (b"1\t\r\n", "size"),
        (b"1;\r\n", "size"),
        (b"1;;a\r\n", "size"),
        (b"1;a;\r\n", "size"),
        (b"1;a \r\n", "size"),
        (b"1;a=\r\n", "size"),
        (b"1;=b\r\n", "size"),
        (b"1;a b\r\n", "size"),
        (b"1;a=b c\r\n", "size"),
        (b'1;a="b\r\n', "size"),
        (b'1;a="b"c\r\n', "size"),
        (b'1;a="b\\"\r\n', "size"),
        (b"1;\0\r\n", "size"),
        (b"1;\r;\r\n", "size"),
        (b"1" * 16 + b"\r\n", "size"),
        (b"1\n", "CR LF"),
        (b"1;" + b"x" * 4096, "longer than 4096"),
        (b"1\r\nhello\r\n", "longer than its size"),
        (b"1\r\nh\n", "longer than its size"),
        (b"5\r\nhello0\r\n\r\n", "longer than its size"),
        (b"0\r\nno colon\r\n\r\n", "trailer"),
        (b"0\r\n folded: x\r\n\r\n", "trailer"),
        (b"0\r\nX: y\n\n", "CR LF"),
        (b"0\r\n" + b"X: yyyyyyyyyyyyyyyyyyy\r\n" * 1000, "longer than"),
        ((b"1;" + b"x" * 1000 + b"\r\nh\r\n") * 17, "extensions"),
    ],
)
def test_bodies_in_bad_chunks(sent: bytes, named: str, split: Split) -> None:
    with pytest.raises(BadBody, match=named):
        take(ChunkedBody(), split(sent))


@pytest.mark.parametrize("one", [b"1\r\na\r\n", b"1;a\r\na\r\n"], ids=["plain", "extended"])
def test_many_chunks_are_not_read_at_once(one: bytes) -> None:
    """What is behind is read by and by, also together with what comes later."""
    reader = ChunkedBody()
    taken, rest = reader.feed(one * 1000)
    assert rest is None
    assert reader.behind
    assert len(taken) < 300
    more, rest = reader.feed(one * 1000 + b"0\r\n\r\nGET")
    taken += more
    turns = 0
    while rest is None:
        assert reader.behind
        more, rest = reader.feed(b"")
        taken += more
        turns += 1
    assert not reader.behind
    assert (taken, rest, turns > 5) == (b"a" * 2000, b"GET", True)


def test_the_reader_for_a_framing() -> None:
    assert body(0) is None
    assert isinstance(body(1), LengthBody)
    assert isinstance(body(-1), ChunkedBody)


# Heads of responses


def test_a_head_of_a_response() -> None:
    assert response.response_head(101, [(b"a", b"b"), (b"c", b"")]) == (
        b"HTTP/1.1 101 Switching Protocols\r\na: b\r\nc: \r\n\r\n"
    )
    encoded = response.encode(200, [(b"a", b"b"), (b"content-type", b"text/plain"), (b"a", b"\xe9\t")])
    assert encoded.block == b"HTTP/1.1 200 OK\r\na: b\r\ncontent-type: text/plain\r\na: \xe9\t\r\n"
    assert encoded.names == [b"a", b"content-type", b"a"]
    assert (encoded.length, encoded.close, encoded.event_stream) == (response.UNKNOWN, False, False)


def test_what_the_server_takes_from_a_response() -> None:
    mixed = response.encode(200, [(b"X-Mixed", b"A"), (b"x-mixed", b"B")])
    assert mixed.block == b"HTTP/1.1 200 OK\r\nX-Mixed: A\r\nx-mixed: B\r\n", "names leave as they were given"
    assert mixed.names == [b"x-mixed", b"x-mixed"]
    assert response.encode(299, []).block == b"HTTP/1.1 299 \r\n"
    assert response.encode(200, [(b"content-type", b"text/event-stream; charset=utf-8")]).event_stream
    twice = response.encode(200, [(b"content-length", b"05"), (b"content-length", b"5")])
    assert (twice.length, twice.block) == (5, b"HTTP/1.1 200 OK\r\ncontent-length: 05\r\n")
    ours = [(b"connection", b"x, Close"), (b"transfer-encoding", b"chunked"), (b"keep-alive", b"timeout=5")]
    kept = response.encode(200, ours)
    assert (kept.block, kept.close) == (b"HTTP/1.1 200 OK\r\n", True)
    assert response.encode(204, [(b"content-length", b"0")]).block == b"HTTP/1.1 204 No Content\r\n"
    assert b"content-length: 5" in response.encode(304, [(b"content-length", b"5")]).block
    reset = response.encode(205, [(b"content-length", b"5"), (b"a", b"b")]).block
    assert reset == b"HTTP/1.1 205 Reset Content\r\na: b\r\nContent-Length: 0\r\n"


@pytest.mark.parametrize(
    ("status", "headers", "named"),
    [
        (100, [], "status 100"),
        (101, [], "status 101"),
        (1000, [], "status 1000"),
        (-1, [], "status -1"),
        (200, [(b"a", b"b\r\nc: d")], "control"),
        (200, [(b"a", b"b"), (b"c", b"\r\n")], "b'c: "),
        (200, [(b"a", b"b\n")], "control"),
        (200, [(b"a", b"b\r")], "control"),
        (200, [(b"a", b"b\0")], "control"),
        (200, [(b"a", b"b\x7f")], "control"),
        (200, [(b"a\r\nb", b"c")], "token"),
        (200, [(b"", b"c")], "token"),
        (200, [(b"a b", b"c")], "token"),
        (200, [(b"a:", b"c")], "token"),
        (200, [(b"\xe9", b"c")], "token"),
        (200, [("a", "b")], "byte strings"),
        (200, [(bytearray(b"a"), b"b")], "byte strings"),
        (200, [(b"a", 1)], "byte strings"),
        (200, [(b"a", b"b", b"c")], "byte strings"),
        (200, [1], "byte strings"),
        (200, [(b"content-length", b"-1")], "content-length"),
        (200, [(b"content-length", b"")], "content-length"),
        (200, [(b"content-length", b"9" * 5000)], "content-length"),
        (200, [(b"content-length", b"1"), (b"content-length", b"2")], "content-length"),
        (204, [(b"content-length", b"x")], "content-length"),
    ],
)
def test_responses_that_cannot_be_sent(status: int, headers: list[object], named: str) -> None:
    with pytest.raises(ApplicationError, match=named):
        response.encode(status, headers)  # type: ignore[arg-type]


def test_default_headers_are_added_unless_they_are_there() -> None:
    defaults = response.Defaults([(b"server", b"me"), (b"x", b"1"), (b"x", b"2"), (b"empty", b"")])
    assert defaults.lines([b"a"]) == b"server: me\r\nx: 1\r\nx: 2\r\nempty: \r\n"
    assert defaults.lines([b"x", b"a"]) == b"server: me\r\nempty: \r\n"
    assert response.Defaults([]).lines([]) == b""
    with pytest.raises(ApplicationError):
        response.Defaults([(b"a", b"\r\n")])


@pytest.mark.parametrize(
    ("field", "close", "dropped"),
    [
        ((b"Connection", b"close"), True, b""),
        ((b"connection", b"Keep-Alive"), False, b""),
        ((b"Connection", b"upgrade"), False, b"Connection: upgrade"),
        ((b"Keep-Alive", b"timeout=5"), False, b"Keep-Alive: timeout=5"),
        ((b"Transfer-Encoding", b"chunked"), False, b"Transfer-Encoding: chunked"),
        ((b"TE", b"trailers"), False, b"TE: trailers"),
    ],
)
def test_what_only_the_server_may_say_is_dropped(
    field: tuple[bytes, bytes], close: bool, dropped: bytes
) -> None:
    head = response.encode(200, [(b"X-A", b"1"), field])
    assert head.block == b"HTTP/1.1 200 OK\r\nX-A: 1\r\n"
    assert (head.close, head.dropped) == (close, dropped)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"GET /" + b"a" * 200, ""),
        (b"GET http://a:1/" + b"a" * 200 + b" HTTP/1.1\r\nX: " + b"a" * 50, ""),
        (b"GET / HTTP/1.1\r\nX\x1b[1m: " + b"a" * 200, ""),
        (b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 200, "; its largest field is X-Long, with 208 bytes"),
        (
            b"GET / HTTP/1.1\r\ncookie: " + b"a" * 200 + b"\r\n\r\n",
            "; its largest field is cookie, with 208 bytes: ",
        ),
    ],
)
def test_a_head_that_is_too_large_is_told_what_of_it_and_what_to_do(head: bytes, said: str) -> None:
    with pytest.raises(framing.Refused) as refused:
        framing.end_of_head(head, 0, 0, 100)
    text = str(refused.value)
    assert text.startswith(
        "the request's head is larger than 100 bytes (--h11-max-incomplete-event-size allows more)" + said
    )
    assert ("largest" in text) is bool(said)
    assert ("delete them in the browser" in text) is (b"cookie" in head)


def test_the_date_is_added_unless_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "time", lambda: 784111777.9)
    line = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    defaults = response.Defaults([(b"server", b"me")], date=True)
    assert defaults.lines([]) == b"server: me\r\n" + line
    assert defaults.lines([b"server"]) == line
    assert defaults.lines([b"date"]) == b"server: me\r\n"
    monkeypatch.setattr(response, "time", lambda: 784111778.0)
    assert b"08:49:38" in defaults.lines([])
    assert response.Defaults([(b"date", b"today")], date=True).lines([]) == b"date: today\r\n"


def test_what_is_refused_all_the_time_is_counted() -> None:
    refusals = Repeats()
    lines = [refusals.another(408, number / 100) for number in range(1, 1001)]
    assert [(n + 1, line) for n, line in enumerate(lines) if line is not None] == [
        *((n, "") for n in range(1, 10)),
        (10, "; more like it are only counted"),
        (100, "; 100 like it"),
        (1000, "; 1000 like it"),
    ]
    assert refusals.another(400, 10.0) == ""
    assert refusals.another(408, 60.0) is None
    assert refusals.another(408, 120.0) == ""
