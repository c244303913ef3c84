"""HTTP/1.1 over real sockets: the same tests for every parser, and one more event loop.

First what is refused, then what must work, then how connections and servers end.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import devserver
from devserver.http import connection, line, response_writer
from devserver.http import service as http_service
from devserver.http.stream import HIGH_WATER
from tests.patience import DEADLINE
from tests.raw import Raw, Signal, request, serving
from tests.wire import Wire

Parser = dict[str, str]

FAST = [name for name in ("httptools", "uvloop") if importlib.util.find_spec(name) is None]
needs_fast = pytest.mark.skipif(bool(FAST), reason=f"not installed: {', '.join(FAST)}")


@pytest.fixture(
    params=[
        pytest.param({"http": "h11", "loop": "asyncio"}, id="h11"),
        pytest.param({"http": "httptools", "loop": "asyncio"}, id="httptools", marks=needs_fast),
        pytest.param({"http": "httptools", "loop": "uvloop"}, id="uvloop", marks=needs_fast),
    ]
)
def parser(request: pytest.FixtureRequest) -> Parser:
    """Options that choose the parser and the loop."""
    return dict(request.param)


async def read_body(receive: Any) -> bytes:
    """The whole body, or up to a disconnect."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    return body


async def respond(send: Any, body: bytes = b"", status: int = 200, **headers: str) -> None:
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


class Echo:
    """Answers with the body it got, or with its path when there is none; remembers each call."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append(scope["path"])
        body = await read_body(receive)
        await respond(send, body or scope["path"].encode())


def service(server: devserver.Server) -> Any:
    return server._serving._service


def settled(server: devserver.Server) -> None:
    """Wait until a server has no connections and nothing to do; requests are the clock."""
    deadline = time.monotonic() + DEADLINE
    with Raw(server) as clock:
        while time.monotonic() < deadline:
            clock.get()
            clock.answer()
            if len(service(server).connections) == 1 and not service(server).gateway.running:
                return
    raise AssertionError(f"left: {service(server).connections}, {service(server).gateway.running}")


# Refused heads


HOST = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST

REFUSED = {
    "both lengths": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    "both lengths, other order": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    "equal lengths": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
    "list of lengths": (POST + b"Content-Length: 5, 6\r\n\r\n", 400),
    "list of equal lengths": (POST + b"Content-Length: 5, 5\r\n\r\n", 400),
    "plus": (POST + b"Content-Length: +5\r\n\r\n", 400),
    "minus": (POST + b"Content-Length: -5\r\n\r\n", 400),
    "hexadecimal": (POST + b"Content-Length: 0x5\r\n\r\n", 400),
    "empty length": (POST + b"Content-Length: \r\n\r\n", 400),
    "huge length": (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    "unknown coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "coding before chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "coding after chunked": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "hidden chunked": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    "chunked in 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "no host": (GET + b"\r\n", 400),
    "two hosts": (GET + HOST + HOST + b"\r\n", 400),
    "bad host": (GET + b"Host: a/b\r\n\r\n", 400),
    "space before the colon": (GET + HOST + b"A : b\r\n\r\n", 400),
    "space before the colon of a length": (POST + b"Content-Length : 5\r\n\r\n", 400),
    "bare CR in a value": (GET + HOST + b"A: b\rC: d\r\n\r\n", 400),
    "bare CR for a line end": (GET + HOST[:-1] + b"A: b\r\n\r\n", 400),
    "bare LF for a line end": (GET + b"Host: a\nA: b\r\n\r\n", 400),
    "bare LFs only": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "folded by a space": (GET + HOST + b"A: b\r\n c\r\n\r\n", 400),
    "folded by a tab": (GET + HOST + b"A: b\r\n\tc\r\n\r\n", 400),
    "folded first line": (GET + b" A: b\r\n" + HOST + b"\r\n", 400),
    "NUL in a value": (GET + HOST + b"A: b\0c\r\n\r\n", 400),
    "NUL in a name": (GET + HOST + b"A\0: b\r\n\r\n", 400),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "control character": (GET + HOST + b"A: b\x01\r\n\r\n", 400),
    "no colon": (GET + HOST + b"A\r\n\r\n", 400),
    "no name": (GET + HOST + b": b\r\n\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "nonsense": (b"hello\r\n\r\n", 400),
    "no target": (b"GET a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "expectation": (POST + b"Expect: more\r\nContent-Length: 5\r\n\r\n", 417),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)), 400),
    "HTTP/2 behind a request": (b"PRI * HTTP/2.0\r\nHost: a\r\n\r\nSM\r\n\r\n" + bytes(9), 505),
    "what a predecessor leaves": (b"\0H2\n\0\0\0\x02{}\r\n\r\n", 400),
    "a part of that": (b"\0H2\n\0\0\0\x02{}", 400),
    "HTTP/3": (b"GET / HTTP/3.0\r\n" + HOST + b"\r\n", 505),
    "long line": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "long line without an end": (b"GET /" + b"a" * 70_000, 414),
    "long method": (b"G" * 70_000, 501),
    "many headers": (GET + HOST + b"A: b\r\n" * 12_000 + b"\r\n", 431),
}


@pytest.fixture
def refuses(parser: Parser) -> Iterator[Callable[[bytes, int], None]]:
    """Sends what is refused, and checks that nothing else comes of it."""
    echo = Echo()
    with serving(echo, **parser) as server:

        def check(sent: bytes, status: int) -> None:
            with Raw(server) as raw:
                raw.send(sent)
                answer = raw.answer()
                assert answer.status == status
                assert answer.headers[b"connection"] == b"close"
                assert answer.body.endswith(b"\n")
                assert raw.rest() == b""
            assert echo.calls == []

        yield check


@pytest.mark.parametrize("case", REFUSED)
def test_refused_heads(case: str, refuses: Callable[[bytes, int], None]) -> None:
    sent, status = REFUSED[case]
    refuses(sent, status)
    refuses(sent + request("/smuggled"), status)


def test_a_refused_head_after_a_good_request(parser: Parser) -> None:
    echo = Echo()
    with serving(echo, **parser) as server, Raw(server) as raw:
        raw.send(request("/good") + POST + b"Content-Length: +5\r\n\r\nhello" + request("/bad"))
        assert raw.answer().body == b"/good"
        assert raw.answer().status == 400
        assert raw.rest() == b""
    assert echo.calls == ["/good"]


@pytest.mark.parametrize("case", ["both lengths", "unknown coding", "many headers", "TLS"])
def test_a_refusal_arrives_while_the_client_sends(case: str, parser: Parser) -> None:
    """A close with unread data would reset the connection, and the answer would be lost."""
    sent, status = REFUSED[case]
    with serving(Echo(), **parser) as server, Raw(server) as raw:
        raw.send(sent)
        for _ in range(64):
            raw.send(bytes(1 << 18))
        assert raw.answer().status == status
        assert raw.rest() == b""


def test_a_refused_client_that_stays_is_cut(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "SILENCE", 0.2)
    with serving(Echo(), **parser) as server, Raw(server) as raw:
        raw.send(b"nonsense\r\n\r\n")
        raw.rest()
        settled(server)


def test_a_dripped_head_over_the_limit(parser: Parser) -> None:
    echo = Echo()
    with serving(echo, h11_max_incomplete_event_size=2000, **parser) as server:
        with Raw(server) as raw:
            raw.send(GET + HOST)
            while not select.select([raw.sock], [], [], 0)[0]:
                raw.send(b"A: b\r\n")
            assert raw.answer().status == 431
            assert raw.rest() == b""
        assert echo.calls == []
        with Raw(server) as raw:
            raw.get("/" + "a" * 1900)
            assert raw.answer().status == 200


def test_a_limit_above_the_default(parser: Parser) -> None:
    with serving(Echo(), h11_max_incomplete_event_size=300_000, **parser) as server, Raw(server) as raw:
        raw.get("/", *[f"A{number}: {'b' * 1000}" for number in range(250)])
        raw.get("/next", *[f"A{number}: {'b' * 1000}" for number in range(250)])
        assert raw.answer().body == b"/"
        assert raw.answer().body == b"/next"


def test_the_log_has_a_hint_for_tls(parser: Parser, caplog: pytest.LogCaptureFixture) -> None:
    with serving(Echo(), **parser) as server, Raw(server) as raw:
        raw.send(REFUSED["TLS"][0])
        raw.rest()
    assert "ask with http://, or serve HTTPS by --https" in caplog.text
    assert "refused a request from 127.0.0.1:" in caplog.text


# Refused bodies


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BAD_CHUNKS = [
    b"x\r\n",
    b"-1\r\n",
    b"0x1\r\n",
    b"1" * 17 + b"\r\n",
    b"3\r\nabcd\r\n",
    b"1\n",
    b"1;" + b"a" * 9000,
]


class Listener:
    """Reads its request to the end, keeps the messages, and answers late."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.called = Signal()
        self.over = Signal()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.called.set()
        while True:
            self.messages.append(message := await receive())
            if message["type"] == "http.disconnect":
                break
        self.over.set()
        await respond(send, b"too late")


@pytest.mark.parametrize("bad", BAD_CHUNKS)
def test_a_bad_chunk(bad: bytes, parser: Parser) -> None:
    listener = Listener()
    with serving(listener, **parser) as server, Raw(server) as raw:
        raw.send(CHUNKED + b"5\r\nhello\r\n")
        listener.called.wait()
        raw.send(bad)
        answer = raw.answer()
        assert (answer.status, answer.headers[b"connection"]) == (400, b"close")
        assert raw.rest() == b""
        listener.over.wait()
    *parts, last = listener.messages
    assert last == {"type": "http.disconnect"}
    assert all(part["more_body"] for part in parts)


def test_a_bad_chunk_that_comes_with_the_head(parser: Parser) -> None:
    echo = Echo()
    with serving(echo, **parser) as server, Raw(server) as raw:
        raw.send(CHUNKED + b"5\r\nhello\r\nx\r\n" + request("/smuggled"))
        assert raw.answer().status == 400
        assert raw.rest() == b""
    assert echo.calls == []


def test_a_bad_chunk_after_the_response_has_begun(parser: Parser) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        seen.append(await read_body(receive))
        seen.append(await receive())

    with serving(app, **parser) as server, Raw(server) as raw:
        raw.send(CHUNKED + b"5\r\nhello\r\n")
        assert raw.head()[0] == 200
        assert raw.until(b"begun\r\n") == b"5\r\nbegun\r\n"
        raw.send(b"x\r\n")
        with pytest.raises((EOFError, ConnectionResetError)):
            raw.until(b"0\r\n\r\n")
    assert seen == [b"hello", {"type": "http.disconnect"}]


@pytest.mark.parametrize("sent", [POST + b"Content-Length: 9\r\n\r\nhello", CHUNKED + b"9\r\nhello"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_body_that_ends_early(sent: bytes, at_once: bool, parser: Parser) -> None:
    listener = Listener()
    with serving(listener, **parser) as server, Raw(server) as raw:
        raw.send(sent)
        if not at_once:
            listener.called.wait()
        raw.end()
        assert raw.answer().status == 400
        assert raw.rest() == b""
    if listener.messages:
        assert listener.messages[-1] == {"type": "http.disconnect"}
        assert b"".join(m.get("body", b"") for m in listener.messages) in (b"", b"hello")


def test_an_early_end_behind_a_pipelined_request(parser: Parser) -> None:
    """The end has arrived before the request that it cuts short is begun."""
    go = Signal()
    calls = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        await go.here()
        await respond(send, b"one")

    with serving(app, **parser) as server, Raw(server) as raw:
        raw.send(request("/one") + POST + b"Content-Length: 9\r\n\r\nhello")
        raw.end()
        go.set()
        assert raw.answer().body == b"one"
        assert raw.answer().status == 400
        assert raw.rest() == b""
    assert calls == ["/one"]


# Time


def test_a_partial_head_is_not_waited_for(parser: Parser) -> None:
    echo = Echo()
    with serving(echo, timeout_header=0.2, **parser) as server, Raw(server) as raw:
        raw.send(GET)
        assert raw.answer().status == 408
        assert raw.rest() == b""
    assert echo.calls == []


def test_a_dripped_head_has_no_more_time(parser: Parser) -> None:
    with serving(Echo(), timeout_header=0.3, **parser) as server, Raw(server) as raw:
        raw.send(GET)
        for _ in range(300):
            if select.select([raw.sock], [], [], 0.02)[0]:
                break
            raw.send(b"A")
        assert raw.answer().status == 408


def test_the_head_of_a_later_request_has_a_time_of_its_own(parser: Parser) -> None:
    options = {"timeout_header": 0.2, "timeout_keep_alive": 60}
    with serving(Echo(), **options, **parser) as server, Raw(server) as raw:
        raw.get("/one")
        assert raw.answer().body == b"/one"
        raw.send(b"\r\n" + GET)
        assert raw.answer().status == 408


def test_a_silent_connection_is_closed(parser: Parser) -> None:
    with serving(Echo(), timeout_header=0.2, **parser) as server, Raw(server) as raw:
        assert raw.rest() == b""


def test_an_idle_connection_is_closed(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_service, "ALLOWANCE", 0.0)
    with serving(Echo(), timeout_keep_alive=0.2, **parser) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().headers.get(b"connection") is None
        assert raw.rest() == b""
        with Raw(server) as other:
            other.get()
            other.answer()


def in_the_loop(server: devserver.Server, call: Callable[[], None]) -> None:
    """Call something there, and wait until it has returned."""
    done = Signal()
    server._serving.soon(call)
    server._serving.soon(done.set)
    done.wait()


def test_a_request_that_meets_the_end_of_an_idle_connection_is_answered(parser: Parser) -> None:
    """It arrives after the loop has looked what has arrived, and before it closes what is idle."""
    with serving(Echo(), **parser) as server, Raw(server) as raw:
        raw.get("/one")
        assert raw.answer().body == b"/one"
        [idle] = service(server).connections

        def meet() -> None:
            raw.send(request("/two", method="POST", body=b"hello"))
            idle._missed()

        in_the_loop(server, meet)
        assert raw.answer().body == b"hello"
        in_the_loop(server, idle._missed)
        assert raw.rest() == b""


def test_an_idle_connection_ends_without_a_reset(parser: Parser) -> None:
    """What comes too late is dropped, and its client sees an end and nothing that could be half an answer."""
    echo = Echo()
    with serving(echo, **parser) as server, Raw(server) as raw:
        raw.get("/one")
        raw.answer()
        [idle] = service(server).connections
        in_the_loop(server, idle._missed)
        for _ in range(10):
            raw.send(request("/two", method="POST", body=b"hello"))
            in_the_loop(server, lambda: None)
        assert raw.rest() == b""
    assert echo.calls == ["/one"]


def test_how_long_a_connection_is_kept_is_said_to_who_asks(parser: Parser) -> None:
    with serving(Echo(), timeout_keep_alive=7.9, **parser) as server, Raw(server) as raw:
        raw.get("/", "Connection: keep-alive")
        headers = raw.answer().headers
        assert (headers[b"connection"], headers[b"keep-alive"]) == (b"keep-alive", b"timeout=7")
        raw.get()
        assert not {b"connection", b"keep-alive"} & set(raw.answer().headers)
        raw.get("/", "Connection: keep-alive, close")
        headers = raw.answer().headers
        assert (headers[b"connection"], b"keep-alive" in headers) == (b"close", False)
    with serving(Echo(), timeout_keep_alive=0.9, **parser) as server, Raw(server) as raw:
        raw.get("/", "Connection: keep-alive")
        assert b"keep-alive" not in raw.answer().headers, "it would say 0"


def test_a_connection_is_kept_longer_than_is_said(parser: Parser) -> None:
    with serving(Echo(), timeout_keep_alive=1, **parser) as server, Raw(server) as raw:
        raw.get("/", "Connection: keep-alive")
        assert raw.answer().headers[b"keep-alive"] == b"timeout=1"
        [idle] = service(server).connections
        in_the_loop(server, lambda: None)  # the response may arrive before the connection is idle
        assert idle._line.deadline._seconds == 1 + http_service.ALLOWANCE > 1


@pytest.mark.skipif(sys.platform == "win32", reason="no descriptor can be handed over")
def test_a_connection_that_is_handed_over_idle_is_kept_as_idle(parser: Parser) -> None:
    """Its client was told so by the predecessor. The end of a silent one says that a head is late."""
    with serving(Echo(), timeout_header=0.2, **parser) as server:
        ours, theirs = socket.socketpair()
        taken = Signal()
        assert server._serving.adopt([(theirs, b"")], taken.set)
        taken.wait()
        with ours, Raw(server) as silent:
            assert silent.rest() == b""
            ours.settimeout(DEADLINE)
            ours.sendall(request("/late"))
            assert b"/late" in ours.recv(1 << 16)


def test_no_time_for_idle_connections_is_announced(parser: Parser) -> None:
    with serving(Echo(), timeout_keep_alive=0, **parser) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().headers[b"connection"] == b"close"
        assert raw.rest() == b""


def test_an_application_has_all_the_time(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    go = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await go.here()
        await respond(send, b"done")

    monkeypatch.setattr(http_service, "ALLOWANCE", 0.0)
    options = {"timeout_header": 0.1, "timeout_keep_alive": 0.1}
    with serving(app, **options, **parser) as server, Raw(server) as slow:
        slow.get("/slow")
        with Raw(server) as idle:  # its end shows that the time has passed
            assert idle.rest() == b""
        go.set()
        assert slow.answer().body == b"done"


# Requests, one after the other


def test_keep_alive(parser: Parser) -> None:
    echo = Echo()
    with serving(echo, **parser) as server, Raw(server) as raw:
        for number in range(50):
            raw.get(f"/{number}")
            assert raw.answer().body == b"/%d" % number
        raw.get("/last", "Connection: close")
        answer = raw.answer()
        assert (answer.body, answer.headers[b"connection"]) == (b"/last", b"close")
        assert raw.rest() == b""


def test_many_requests_leave_nothing_behind(parser: Parser) -> None:
    with serving(Echo(), **parser) as server:
        with Raw(server) as raw:
            for _ in range(5000):
                raw.get()
                raw.answer()
            assert len(service(server).connections) == 1
        settled(server)


def pipelined(number: int) -> bytes:
    body = b"x" * number
    if number % 3 == 0:
        return request(f"/{number}")
    if number % 3 == 1:
        return request(f"/{number}", body=body)
    chunks = b"%x;ext\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (number, body)
    return request(f"/{number}", "Transfer-Encoding: chunked") + chunks


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("piece", [1 << 20, 1000, 7])
def test_pipelining(half_closed: bool, piece: int, parser: Parser) -> None:
    echo = Echo()
    sent = b"".join(map(pipelined, range(100)))
    with serving(echo, **parser) as server, Raw(server) as raw:
        for at in range(0, len(sent), piece):
            raw.send(sent[at : at + piece])
        if half_closed:
            raw.end()
        for number in range(100):
            assert raw.answer().body == (b"x" * number if number % 3 else b"/%d" % number)
        if half_closed:
            assert raw.rest() == b""
    assert echo.calls == [f"/{number}" for number in range(100)]


def test_a_flood_of_requests_waits_at_the_client(parser: Parser) -> None:
    """While one request is answered, what comes behind it is held back, and all of it is answered."""
    go = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/other":
            await go.here()
        await respond(send, b"x")

    count = 4000
    with serving(app, **parser) as server, Raw(server) as raw, Raw(server) as other:
        raw.get()
        sender = threading.Thread(target=raw.send, args=(request("/" + "a" * 2000) * count,))
        sender.start()
        before, waiting = -1, 0
        while not waiting or waiting != before:
            other.get("/other")
            other.answer()
            before, waiting = waiting, max(len(each._unread) for each in service(server).connections)
        assert waiting < 1 << 20
        go.set()
        for _ in range(count + 1):
            assert raw.answer().body == b"x"
        sender.join(DEADLINE)


def test_pipelined_responses_wait_for_a_client_that_does_not_read(parser: Parser) -> None:
    calls = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        await respond(send, bytes(1 << 20))

    with serving(app, **parser) as server, Raw(server) as raw, Raw(server) as other:
        raw.send(request("/big") * 200)
        before = -1
        while calls.count("/big") != before:
            before = calls.count("/big")
            other.get("/other")
            other.answer()
        assert calls.count("/big") < 50
        for _ in range(200):
            assert len(raw.answer().body) == 1 << 20
    assert calls.count("/big") == 200


def test_a_request_behind_a_response_that_is_not_read_is_not_begun(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for as long as it takes, though the connection has nothing else to do."""
    monkeypatch.setattr(http_service, "ALLOWANCE", 0.0)
    calls = []
    done = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        await respond(send, bytes(30 << 20) if scope["path"] == "/big" else b"small")
        if scope["path"] == "/big":
            done.set()

    options = {"timeout_header": 0.2, "timeout_keep_alive": 0.2}
    with serving(app, **options, **parser) as server, Raw(server) as raw:
        raw.get("/big")
        done.wait()
        raw.get("/small")
        with Raw(server) as idle:  # its end shows that the time has passed
            assert idle.rest() == b""
        assert calls == ["/big"]
        assert len(raw.answer().body) == 30 << 20
        assert raw.answer().body == b"small"


def test_the_last_response_arrives_though_the_client_sends_more(parser: Parser) -> None:
    with serving(Echo(), **parser) as server, Raw(server) as raw:
        raw.send(request("/last", "Connection: close") + bytes(16 << 20))
        assert raw.answer().body == b"/last"
        assert raw.rest() == b""


def test_blank_lines_before_a_request(parser: Parser) -> None:
    with serving(Echo(), **parser) as server, Raw(server) as raw:
        raw.send(b"\r\n\r\n" + request("/a") + b"\r\n" + request("/b") + b"\r")
        assert raw.answer().body == b"/a"
        assert raw.answer().body == b"/b"
        raw.send(b"\n" + request("/c"))
        assert raw.answer().body == b"/c"


def test_any_method_is_served(parser: Parser) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["method"])
        await respond(send)

    methods = ["GET", "QUERY", "PRI", "SOURCE", "X-MINE", "DELETE"]
    with serving(app, **parser) as server, Raw(server) as raw:
        for method in methods:
            raw.get(method=method)
            assert raw.answer().status == 200
    assert seen == methods


def test_http_1_0_is_closed_after_the_response(parser: Parser) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["http_version"] == "1.0"
        await send({"type": "http.response.start", "status": 200})
        for part in (b"a", b"b"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"c"})

    with serving(app, **parser) as server:
        for connection_header in ("close", "keep-alive"):
            with Raw(server) as raw:
                raw.get("/", f"Connection: {connection_header}", version="1.0")
                answer = raw.answer()
                assert (answer.body, answer.headers[b"connection"]) == (b"abc", b"close")
                assert b"transfer-encoding" not in answer.headers


# Bodies


@pytest.mark.parametrize(
    "one",
    [
        request(),
        POST + b"Content-Length: 3\r\n\r\nabc",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["no body", "length", "chunked"],
)
def test_requests_that_are_sent_ahead_are_held_back_at_once(one: bytes) -> None:
    """Also those that arrive between two requests: whoever is answered fast is not read faster."""
    count = 3 * HIGH_WATER // len(one)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"x")

    async def play() -> bytes:
        wire = Wire(app)
        wire.protocol.data_received(one * count)
        most = len(wire.protocol._unread)
        while most > HIGH_WATER:
            assert not wire.reading
            await asyncio.sleep(0)
            most = len(wire.protocol._unread)
        answers = bytearray()
        while wire.protocol.waiting or wire.protocol.stream is not None:
            answers += await wire.settle()
        assert wire.reading
        return bytes(answers)

    assert asyncio.run(play()).count(b"HTTP/1.1 200 OK\r\n") == count


CRUMBS = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 20_000


async def count_or_not(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the size of the body, or without a look at it."""
    size, more = 0, scope["method"] == "POST" and scope["path"] == "/"
    while more:
        message = await receive()
        more = message.get("more_body", False)
        size += len(message.get("body", b""))
    await respond(send, b"%d" % size)


def crumbs(then: Callable[[Wire], Awaitable[bytes]], sent: bytes) -> bytes:
    """What is answered to a segment of many chunks, and to what is done before they have been read."""

    async def play() -> bytes:
        wire = Wire(count_or_not)
        wire.protocol.data_received(sent)
        assert not wire.reading
        async with asyncio.timeout(DEADLINE):
            return await then(wire)

    return asyncio.run(play())


def test_many_chunks_in_a_segment_are_read_in_turns() -> None:
    """Between them others are served, and what follows the body is the next request."""
    turns = 0

    async def wait(wire: Wire) -> bytes:
        nonlocal turns
        while not wire.reading:
            turns += 1
            await asyncio.sleep(0)
        return await wire.settle()

    answered = crumbs(wait, CRUMBS + b"0\r\n\r\n" + request("/next"))
    assert answered.count(b"HTTP/1.1 200 OK") == 2
    assert b"\r\n\r\n20000HTTP" in answered
    assert turns > 20


@pytest.mark.parametrize(
    ("end", "answer"),
    [
        (b"0\r\n\r\n", b"\r\n\r\n20000"),
        (b"0\r\n\r\n" + request("/next"), b"\r\n\r\n0"),
        (b"", b"the body ended early\n"),
        (b"x", b"the body ended early\n"),
        (b"x\r\n", b"malformed chunk size\n"),
    ],
)
def test_the_end_of_a_client_comes_before_its_chunks_are_read(end: bytes, answer: bytes) -> None:
    async def leave(wire: Wire) -> bytes:
        wire.protocol.eof_received()
        answered = await wire.settle()
        assert wire.closing
        return answered

    assert crumbs(leave, CRUMBS + end).endswith(answer)


def test_the_end_of_a_client_comes_before_its_request_of_many_chunks_is_begun() -> None:
    async def leave(wire: Wire) -> bytes:
        wire.protocol.eof_received()
        return await wire.settle()

    answered = crumbs(leave, request("/first") + CRUMBS + b"0\r\n\r\n")
    assert answered.count(b"HTTP/1.1 200 OK") == 2
    assert answered.endswith(b"\r\n\r\n20000")


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "closed"])
def test_many_chunks_that_nobody_wants_are_dropped(kept: bool) -> None:
    """They are read to their end if a request may follow. The client is read on in any case."""
    sent = CRUMBS.replace(b"POST / ", b"POST /not-read ")
    if not kept:
        sent = sent.replace(b"Transfer", b"Connection: close\r\nTransfer")

    async def drop(wire: Wire) -> bytes:
        answered = await wire.settle()
        while not wire.reading:
            answered += await wire.settle()
        return answered + await wire.feed(b"0\r\n\r\n" + request("/next"))

    assert crumbs(drop, sent).count(b"HTTP/1.1 200 OK") == 1 + kept


def test_many_chunks_that_have_not_been_read_are_not_handed_over() -> None:
    """Their request has begun here. What follows the body goes over."""
    given: list[tuple[int, bytes]] = []
    sent = CRUMBS.replace(b"POST / ", b"POST /not-read ") + b"0\r\n\r\n" + request("/next")

    async def restart(wire: Wire) -> bytes:
        with socket.socket() as sock:
            wire._extra["socket"] = sock  # type: ignore[attr-defined]
            wire.service.hand_over = given.extend
            answered = await wire.settle()
            wire.service.draining = True
            wire.protocol.shutdown(1012)
            assert wire.protocol.abandoned() is None
            assert not given
            while not given:
                answered += await wire.settle()
        return answered

    assert crumbs(restart, sent).count(b"HTTP/1.1 200 OK") == 1
    assert [data for _, data in given] == [request("/next")]


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_chunked_request(piece: int, parser: Parser) -> None:
    body = b"".join(b"%x;a=b\r\n%b\r\n" % (size, bytes(size)) for size in (1, 10, 300, 5))
    sent = CHUNKED + body + b"0\r\nDigest: x\r\nOther: y\r\n\r\n" + request("/next")
    with serving(Echo(), **parser) as server, Raw(server) as raw:
        for at in range(0, len(sent), piece):
            raw.send(sent[at : at + piece])
        assert raw.answer().body == bytes(316)
        assert raw.answer().body == b"/next"


def test_chunked_response(parser: Parser) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for part in (b"one", b"", b"three"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    with serving(app, **parser) as server, Raw(server) as raw:
        raw.get()
        assert raw.head()[1][b"transfer-encoding"] == b"chunked"
        assert list(raw.chunks()) == [b"one", b"three"]
        raw.get()
        assert raw.answer().body == b"onethree"


def test_bodiless_responses(parser: Parser) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        status = int(scope["path"][1:])
        headers = [(b"content-length", b"10")] if scope["query_string"] == b"length" else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if scope["query_string"] == b"empty":
            await send({"type": "http.response.body"})
        elif scope["query_string"] == b"stream":
            await send({"type": "http.response.body", "body": b"01234", "more_body": True})
            await send({"type": "http.response.body", "body": b"56789"})
        else:
            await send({"type": "http.response.body", "body": b"0123456789"})

    def framing(method: str, target: str) -> dict[bytes, bytes]:
        raw.get(target, method=method)
        headers = raw.answer(bodiless=True).headers
        return {name: headers[name] for name in (b"content-length", b"transfer-encoding") if name in headers}

    with serving(app, **parser) as server, Raw(server) as raw:
        assert framing("HEAD", "/200") == {b"content-length": b"10"}
        assert framing("HEAD", "/200?length") == {b"content-length": b"10"}
        assert framing("HEAD", "/200?stream") == {b"transfer-encoding": b"chunked"}
        # An application that leaves out the body says nothing of the length that GET's would have.
        assert framing("HEAD", "/200?empty") == {}
        assert framing("GET", "/200?empty") == {b"content-length": b"0"}
        assert framing("GET", "/204") == {}
        assert framing("GET", "/204?length") == {}
        assert framing("GET", "/204?stream") == {}
        assert framing("GET", "/304") == {}
        assert framing("GET", "/304?length") == {b"content-length": b"10"}
        raw.get("/200")
        assert raw.answer().body == b"0123456789"


EXPECT = request("/", "Expect: 100-continue", "Content-Length: 5")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_continue_is_sent_when_the_application_reads(parser: Parser) -> None:
    called, go = Signal(), Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            called.set()
            await go.here()
            await send({"type": "http.response.start", "status": 200})  # stays here until there is a body
        await (respond(send, b"x") if scope["path"] != "/" else echo(receive, send))

    async def echo(receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": await read_body(receive)})

    with serving(app, **parser) as server, Raw(server) as raw, Raw(server) as other:
        raw.send(EXPECT)
        called.wait()
        other.get("/other")
        other.answer()
        assert not select.select([raw.sock], [], [], 0)[0]
        go.set()
        assert raw.take(len(CONTINUE)) == CONTINUE
        raw.send(b"hello" + request("/next"))
        assert raw.answer().body == b"hello"
        assert raw.answer().body == b"x"


def test_continue_is_not_sent_to_who_does_not_wait(parser: Parser) -> None:
    with serving(Echo(), **parser) as server, Raw(server) as raw:
        raw.send(EXPECT + b"hello")
        assert raw.answer().body == b"hello"
        raw.send(request("/", "Expect: 100-continue", "Content-Length: 0"))
        assert raw.answer().body == b"/"


def test_continue_is_not_sent_without_a_read(parser: Parser) -> None:
    """Nobody knows whether the body still comes, so the connection ends."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"no", 401)

    with serving(app, **parser) as server, Raw(server) as raw:
        raw.send(EXPECT)
        answer = raw.answer()
        assert (answer.status, answer.headers[b"connection"]) == (401, b"close")
        assert raw.rest() == b""


@pytest.mark.parametrize("lines", [(), ("Connection: close",)])
def test_an_early_answer_to_a_large_body_arrives(lines: tuple[str, ...], parser: Parser) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await respond(send, b"no", 401)
        else:
            await respond(send, await read_body(receive))

    with serving(app, **parser) as server, Raw(server) as raw:
        body = bytes(32 << 20)
        raw.send(request("/", *lines, body=body))
        assert raw.answer().status == 401
        if lines:
            assert raw.rest() == b""
        else:
            raw.send(request("/next", body=b"hello"))
            assert raw.answer().body == b"hello"


def test_an_unwanted_body_is_not_waited_for(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "SILENCE", 0.1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"no", 401)

    with serving(app, **parser) as server, Raw(server) as raw:
        raw.send(request("/", "Content-Length: 1000") + b"some")
        assert raw.answer().status == 401
        assert raw.rest() == b""


def test_a_slow_client_gets_all_of_an_early_answer(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for what nobody wants begins when the answer has left."""
    monkeypatch.setattr(line, "SILENCE", 0.1)
    size = 20 << 20

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, bytes(size))

    with serving(app, timeout_header=0.5, **parser) as server, Raw(server) as raw:
        raw.send(request("/", "Connection: close", "Content-Length: 1000") + b"some")
        with Raw(server) as idle:  # its end shows that the time has passed
            assert idle.rest() == b""
        assert len(raw.answer().body) == size
        assert raw.rest() == b""


def test_half_a_response_is_not_taken_for_the_whole(parser: Parser) -> None:
    """To a client of HTTP/1.0 the end of the connection is that of the response, so it is reset instead."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("in the middle")

    with serving(app, **parser) as server:
        with Raw(server) as raw:
            raw.get(version="1.0")
            with pytest.raises(ConnectionResetError):
                raw.rest()
        with Raw(server) as raw:
            raw.get()
            assert raw.rest().endswith(b"\r\n4\r\nhalf\r\n")  # without the last chunk


def test_a_half_closed_client_gets_its_whole_response(parser: Parser) -> None:
    go = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(receive)
        assert await receive() == {"type": "http.disconnect"}  # it may be gone; only a write can tell
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await go.here()
        await send({"type": "http.response.body", "body": bytes(4 << 20)})

    with serving(app, **parser) as server, Raw(server) as raw:
        raw.send(request(body=b"hello"))
        raw.end()
        assert raw.head()[0] == 200
        raw.until(b"hello\r\n")
        go.set()
        assert sum(map(len, raw.chunks())) == 4 << 20
        assert raw.rest() == b""


def test_a_head_cut_short_by_the_client(parser: Parser) -> None:
    echo = Echo()
    with serving(echo, **parser) as server, Raw(server) as raw:
        raw.send(request("/one") + GET)
        raw.end()
        assert raw.answer().body == b"/one"
        assert raw.answer().status == 400
        assert raw.rest() == b""
    assert echo.calls == ["/one"]


# Back pressure


PROGRAM = """
import sys
import devserver

sent = 0
chunk = bytes(65536)

async def app(scope, receive, send):
    global sent
    what, _, size = scope["path"][1:].partition("/")
    if what == "download":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(int(size) // len(chunk)):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            sent += len(chunk)
        body = b""
    elif what == "upload":
        import asyncio
        app.go = asyncio.Event()
        await app.go.wait()
        count, more = 0, True
        while more:
            message = await receive()
            more = message["more_body"]
            count += len(message["body"])
        body = b"%d" % count
    elif what == "go":
        app.go.set()
        body = b""
    else:
        body = b"%d" % sent
    if what != "download":
        await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

http, loop = sys.argv[1:]
options = {"http": http, "loop": loop, "lifespan": "off", "access_log": False}
with devserver.Server(devserver.Config(app, host="127.0.0.1", port=0, **options)) as server:
    print(server.url.rpartition(":")[2], flush=True)
    sys.stdin.read()
"""

SIZES = [
    pytest.param(64 << 20, id="64MiB"),
    pytest.param(1 << 30, id="1GiB", marks=[pytest.mark.soak, pytest.mark.timeout(180)]),
]
EXTRA = 60 << 20
"""Bytes of memory that back pressure may cost at most."""


class Process:
    """A server in a process of its own, so that its memory can be seen."""

    def __init__(self, parser: Parser) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, parser["http"], parser["loop"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.ask("warm")
        self._before = self.peak()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE)

    def ask(self, what: str) -> int:
        with self.connect() as sock, sock.makefile("rb") as file:
            sock.sendall(f"GET /{what} HTTP/1.0\r\n\r\n".encode())
            return int(file.read().partition(b"\r\n\r\n")[2] or 0)

    def peak(self) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(DEADLINE)
        if exc[0] is None:
            assert self.extra < EXTRA

    @property
    def extra(self) -> int:
        return self.last - self._before

    last = 0


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


@needs_proc
@pytest.mark.parametrize("size", SIZES)
def test_an_upload_waits_for_the_application(size: int, parser: Parser) -> None:
    with Process(parser) as server, server.connect() as sock:
        sock.sendall(f"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
        sock.setblocking(False)
        chunk, sent = bytes(1 << 18), 0
        while sent < size and select.select([], [sock], [], 0.5)[1]:
            sent += sock.send(chunk[: size - sent])
        assert sent < 40 << 20  # what the kernel takes, and not the server
        server.ask("go")
        sock.settimeout(DEADLINE)
        while sent < size:
            sent += sock.send(chunk[: size - sent])
        with sock.makefile("rb") as file:
            while file.readline() != b"\r\n":
                pass
            assert int(file.read(len(str(size)))) == size
        server.last = server.peak()


@needs_proc
@pytest.mark.parametrize("size", SIZES)
def test_a_download_waits_for_the_client(size: int, parser: Parser) -> None:
    with Process(parser) as server, server.connect() as sock:
        sock.sendall(f"GET /download/{size} HTTP/1.0\r\n\r\n".encode())
        before, sent = -1, 0
        while sent == 0 or sent != before:
            before, sent = sent, server.ask("sent")
        assert sent < 40 << 20
        received = 0
        buffer = bytearray(1 << 18)
        while count := sock.recv_into(buffer):
            received += count
        assert received > size
        server.last = server.peak()


# Limits and what is added


def test_too_many_requests_at_once(parser: Parser) -> None:
    called, go = Signal(), Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.set()
        await go.here()
        await respond(send, b"done")

    with serving(app, limit_concurrency=1, **parser) as server, Raw(server) as first:
        first.get()
        called.wait()
        with Raw(server) as second:
            second.send(request(body=b"hello"))
            answer = second.answer()
            assert (answer.status, answer.headers[b"retry-after"]) == (503, b"1")
            assert second.rest() == b""
        go.set()
        assert first.answer().body == b"done"


def test_headers_that_the_server_adds(parser: Parser) -> None:
    with (
        serving(Echo(), header=["X-Added: a", "X-Added: b", "X-Empty:"], **parser) as server,
        Raw(server) as raw,
    ):
        raw.get()
        head = raw.until(b"\r\n\r\n").lower()
        assert b"x-added: a\r\nx-added: b\r\nx-empty: \r\n" in head
        assert b"\r\nserver: devserver/" in head
        assert b"\r\ndate: " in head
        raw.take(1)
        raw.send(b"bad\r\n\r\n")
        assert b"x-added: a\r\n" in raw.until(b"\r\n\r\n").lower()


def test_fields_of_another_server_that_an_application_passes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names leave as they were given; what only this server may send is dropped, and told once."""
    monkeypatch.setattr(response_writer, "_told", set())

    def app(environ: Any, start_response: Any) -> list[bytes]:
        passed_on = [("Connection", "keep-alive"), ("Transfer-Encoding", "chunked"), ("X-oWn", "1")]
        start_response("200 OK", [("Content-TYPE", "text/plain"), *passed_on])
        return [b"body"]

    with serving(app) as server, Raw(server) as raw:
        for _ in range(2):
            raw.get()
            head = raw.until(b"\r\n\r\n")
            assert raw.take(4) == b"body"
            assert b"\r\nContent-TYPE: text/plain\r\nX-oWn: 1\r\nContent-Length: 4\r\n" in head
            assert b"chunked" not in head
    [told] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == (
        "the application sent the header 'Transfer-Encoding: chunked', which only the server may send:"
        " it is dropped"
    )


def test_headers_that_the_server_leaves_out(parser: Parser) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, date="today", server="mine")

    with serving(Echo(), date_header=False, server_header=False, **parser) as server, Raw(server) as raw:
        raw.get()
        assert set(raw.answer().headers) == {b"content-length"}
    with serving(app, header=["Server: yours"], **parser) as server, Raw(server) as raw:
        raw.get()
        headers = raw.answer().headers
        assert (headers[b"date"], headers[b"server"]) == (b"today", b"mine")


def test_the_connection_is_the_servers_business(parser: Parser) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = {
            "connection": scope["path"][1:],
            "transfer_encoding": "chunked",
            "keep_alive": "timeout=99",
        }
        await respond(send, b"x", **headers)

    with serving(app, **parser) as server, Raw(server) as raw:
        raw.get("/keep-alive")
        answer = raw.answer()
        assert not {b"connection", b"transfer-encoding", b"keep-alive"} & set(answer.headers)
        raw.get("/close")
        assert raw.answer().headers[b"connection"] == b"close"
        assert raw.rest() == b""


async def returns(receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def raises(receive: Any, send: Any) -> None:
    await returns(receive, send)
    raise ValueError("nobody reads it")


async def streams(receive: Any, send: Any) -> None:
    """As Starlette does: the response is left by an exception that `send` raised."""
    async for piece in pieces():
        try:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        except OSError as error:
            raise RuntimeError("the client has gone") from error


async def pieces() -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"x"
            await asyncio.sleep(0)
    finally:
        CLOSED.set()


CLOSED = threading.Event()


@pytest.mark.parametrize("leave", [returns, raises, streams])
@pytest.mark.parametrize("begun", [False, True], ids=["before", "amid"])
def test_a_client_that_leaves_is_an_access_line_and_nothing_more(
    leave: Any, begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the application raises, or leaves out, then. Its generators are closed at once."""
    if leave is streams and not begun:
        return
    caplog.set_level(logging.INFO, "devserver.access")
    CLOSED.clear()
    ended = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/left":
            await respond(send)
            return
        try:
            await receive()
            entered.set()
            if begun:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await leave(receive, send)
        finally:
            ended.set()

    entered = threading.Event()
    with serving(app) as server:
        with Raw(server) as raw:
            raw.get("/left")
            assert entered.wait(DEADLINE)
            if begun:
                raw.until(b"begun")
        assert ended.wait(DEADLINE)
        assert leave is not streams or CLOSED.wait(DEADLINE)
        with Raw(server) as raw:  # by the end of this the line of the other has been written
            raw.get("/next")
            raw.answer()
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == []
    lines = [record.getMessage() for record in caplog.records if record.name == "devserver.access"]
    assert [line.split('"')[1] for line in lines] == ["GET /left HTTP/1.1", "GET /next HTTP/1.1"]
    assert lines[0].split('"')[2].split()[0] == ("200" if begun else "499")


def test_access_lines(parser: Parser, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "devserver.access")
    with serving(Echo(), **parser) as server, Raw(server) as raw:
        raw.get("/a%20b?c=d")
        raw.answer()
        raw.send(b"bad\r\n\r\n")
        raw.rest()
        port = raw.sock.getsockname()[1]
    lines = [record for record in caplog.records if record.name == "devserver.access"]
    assert len(lines) == 1
    assert isinstance(lines[0].args, tuple)
    assert lines[0].args[:5] == (f"127.0.0.1:{port}", "GET", "/a%20b?c=d", "1.1", 200)
    with serving(Echo(), access_log=False, **parser) as server, Raw(server) as raw:
        raw.get()
        raw.answer()
    assert len([record for record in caplog.records if record.name == "devserver.access"]) == 1


# How connections and servers end


def test_many_connections_that_end_at_once(parser: Parser) -> None:
    with serving(Echo(), **parser) as server:
        clients = [Raw(server) for _ in range(200)]
        for number, client in enumerate(clients):
            client.get("/" if number % 2 else "/not/read")
        for client in clients[::2]:
            client.answer()
        for client in clients:
            client.sock.close()
        settled(server)


@contextlib.contextmanager
def stopping(server: devserver.Server) -> Iterator[None]:
    """Within, the server has begun to stop: the end of an idle connection tells. After, it has stopped."""
    thread = threading.Thread(target=server.stop)
    with Raw(server) as idle:
        thread.start()
        assert idle.rest() == b""
    yield
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_a_stop_waits_for_the_response_and_what_comes_after(parser: Parser) -> None:
    called, go, answered, later = Signal(), Signal(), Signal(), Signal()
    done = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.set()
        await go.here()
        await respond(send, b"done")
        answered.set()
        await later.here()
        done.append(True)

    with serving(app, timeout_graceful_shutdown=DEADLINE, **parser) as server, Raw(server) as raw:
        raw.get()
        called.wait()
        with stopping(server):
            go.set()
            answer = raw.answer()
            assert (answer.body, answer.headers[b"connection"]) == (b"done", b"close")
            assert raw.rest() == b""
            answered.wait()
            assert not done
            later.set()
        assert done


def test_a_stop_finishes_a_download(parser: Parser) -> None:
    size = 30 << 20

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, bytes(size))

    with serving(app, timeout_graceful_shutdown=DEADLINE, **parser) as server, Raw(server) as raw:
        raw.get()
        assert raw.head()[0] == 200
        with stopping(server):
            assert len(raw.take(size)) == size
            assert raw.rest() == b""


def test_a_request_that_has_arrived_is_answered_by_a_stop(parser: Parser) -> None:
    """It has been sent, but was not read, or its connection not even accepted, when the server is told."""
    busy, go = Signal(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/busy":
            busy.set()
            go.wait(DEADLINE)  # the loop does nothing else meanwhile
        await respond(send, scope["path"].encode())

    def told() -> bool:
        return server._serving._early is not None

    with (
        serving(app, timeout_graceful_shutdown=DEADLINE, **parser) as server,
        Raw(server) as known,
        Raw(server) as blocker,
    ):
        known.get()
        known.answer()
        blocker.get("/busy")
        busy.wait()
        known.get("/known")
        new = Raw(server)
        new.get("/new")
        thread = threading.Thread(target=server.stop)
        thread.start()
        while not told():
            pass
        go.set()
        assert blocker.answer().body == b"/busy"
        assert known.answer().body == b"/known"
        with new:
            assert new.answer().body == b"/new"
        thread.join(DEADLINE)


def test_the_end_of_the_grace(parser: Parser) -> None:
    """First the application sees a disconnect, then it is cancelled; the client sees a cut."""
    called = Signal()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await receive()
        called.set()
        try:
            seen.append(await receive())
            await Signal().here()
        finally:
            seen.append("cancelled")

    with serving(app, timeout_graceful_shutdown=0.1, **parser) as server, Raw(server) as raw:
        raw.get()
        called.wait()
        server.stop()
        raw.until(b"begun\r\n")
        with pytest.raises((EOFError, ConnectionResetError)):
            raw.until(b"0\r\n\r\n")
    assert seen == [{"type": "http.disconnect"}, "cancelled"]


@pytest.mark.parametrize("way", ["receive", "send", "neither"])
def test_event_streams_are_ended_by_a_stop_at_once(way: str, parser: Parser) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        if way == "neither":
            await Signal().here()
        seen.append(await receive())
        while way == "send":
            await send({"type": "http.response.body", "body": b"data: 2\n\n", "more_body": True})

    with serving(app, timeout_graceful_shutdown=4 * DEADLINE, **parser) as server, Raw(server) as raw:
        raw.get()
        raw.until(b"data: 1\n\n\r\n")
        thread = threading.Thread(target=server.stop)
        thread.start()
        assert raw.rest() == b"0\r\n\r\n"
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert seen == ([] if way == "neither" else [{"type": "http.disconnect"}])


def test_a_stop_does_not_wait_for_who_does_not_leave(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused client that stays, one that owes a body, half a head, and an idle one."""
    monkeypatch.setattr(line, "SILENCE", 1000.0)
    with (
        serving(Echo(), timeout_graceful_shutdown=4 * DEADLINE, **parser) as server,
        Raw(server) as refused,
        Raw(server) as owing,
        Raw(server) as half,
    ):
        refused.send(b"bad\r\n\r\n")
        refused.rest()
        half.send(GET)
        owing.send(EXPECT)
        owing.take(len(CONTINUE))
        with stopping(server):
            owing.send(b"hello")
            assert owing.answer().body == b"hello"
            assert half.answer().status == 408


def test_a_stop_answers_the_first_request_of_a_connection_that_it_has_accepted(parser: Parser) -> None:
    """Its client cannot know that the server ends, and would not ask a second time."""
    with (
        serving(Echo(), timeout_graceful_shutdown=DEADLINE, **parser) as server,
        Raw(server) as idle,
        Raw(server) as fresh,
    ):
        idle.get()
        idle.answer()
        thread = threading.Thread(target=server.stop)
        thread.start()
        assert idle.rest() == b""
        fresh.get("/first")
        answer = fresh.answer()
        assert (answer.body, answer.headers[b"connection"]) == (b"/first", b"close")
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_a_stop_waits_a_moment_for_who_asks_without_pause(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next request may be on its way to a connection that has just been answered."""
    monkeypatch.setattr(connection, "_RECENT", DEADLINE)
    with serving(Echo(), timeout_graceful_shutdown=DEADLINE, **parser) as server, Raw(server) as raw:
        raw.get()
        raw.answer()
        with stopping(server):
            raw.get("/next")
            answer = raw.answer()
            assert (answer.body, answer.headers[b"connection"]) == (b"/next", b"close")


def test_a_stop_waits_a_moment_for_who_was_promised_another_request(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A response was under way when the end came: its head has said nothing of that."""
    monkeypatch.setattr(connection, "_RECENT", DEADLINE)
    going_on = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.to_thread(going_on.wait, DEADLINE)
        await send({"type": "http.response.body", "body": b"b"})

    with serving(app, timeout_graceful_shutdown=DEADLINE, **parser) as server, Raw(server) as raw:
        raw.get()
        head = raw.until(b"\r\n\r\na")
        assert b"connection" not in head.lower()
        with stopping(server):
            going_on.set()
            assert raw.take(1) == b"b"
            raw.get("/next")
            answer = raw.answer()
            assert (answer.body, answer.headers[b"connection"]) == (b"ab", b"close")


# Real clients


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(*arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        ["curl", "-sS", "--max-time", str(DEADLINE), *arguments], input=stdin, capture_output=True, check=True
    )
    return done.stdout


@needs_curl
def test_curl(parser: Parser, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 20_000)
    with serving(Echo(), **parser) as server:
        url = server.url
        assert curl(f"{url}/a%20b") == b"/a b"
        assert curl(f"{url}/a", f"{url}/b") == b"/a/b"
        assert curl("--data-binary", "hello", url) == b"hello"
        assert curl("--data-binary", f"@{big}", "-H", "Expect: 100-continue", url) == big.read_bytes()
        assert curl("-T", "-", url, stdin=big.read_bytes()) == big.read_bytes()
        assert b"Content-Length: 2" in curl("-I", f"{url}/a")
        assert curl("-0", f"{url}/old") == b"/old"
        written = curl("-o", "/dev/null", "-w", "%{http_code} %{num_connects}", "-X", "PURGE", url)
        assert written == b"200 1"


@needs_curl
def test_curl_reads_an_early_answer(parser: Parser, tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"too large", 413)

    big = tmp_path / "big"
    big.write_bytes(bytes(16 << 20))
    with serving(app, **parser) as server:
        for expect in ("Expect:", "Expect: 100-continue"):
            assert curl("-T", str(big), "-H", expect, server.url) == b"too large"


def test_httpx(parser: Parser) -> None:
    with serving(Echo(), **parser) as server, httpx.Client(base_url=server.url, timeout=DEADLINE) as client:
        assert client.get("/a b/ü").text == "/a b/ü"
        assert client.post("/", content=b"x" * 1_000_000).content == b"x" * 1_000_000
        assert client.post("/", content=iter([b"one", b"two"])).content == b"onetwo"
        assert client.head("/abc").headers["content-length"] == "4"
        with client.stream("PUT", "/", content=bytes(5 << 20)) as response:
            assert sum(map(len, response.iter_bytes())) == 5 << 20


def test_many_slow_clients_write_few_lines(parser: Parser, caplog: pytest.LogCaptureFixture) -> None:
    with serving(Echo(), timeout_header=0.1, **parser) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(server)) for _ in range(30)]
        for raw in clients:
            raw.send(b"GET / HTTP/1.1\r\n")
        assert {raw.answer().status for raw in clients} == {408}
    lines = [record.getMessage() for record in caplog.records if "in time" in record.getMessage()]
    assert len(lines) == 10
    assert lines[-1].endswith("in time; more like it are only counted")


def test_workers_are_not_for_a_server_in_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Echo(), workers=2) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().status == 200
    assert "workers and their limits have no effect; use devserver.run()" in caplog.text
