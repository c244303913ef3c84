"""The WSGI gateway against PEP 3333, on a real event loop and with real threads.

The HTTP side is `MemoryExchange`: the seam of `devserver.http.exchange`, kept to the letter and in
memory. It refuses to be called outside the loop's thread. What the tests wait for are events and
conditions with a deadline; where they must show that something does not happen, they let a
second request go all the way round first.
"""

import asyncio
import contextvars
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVarTuple
from wsgiref.validate import validator

import pytest

from devserver.errors import ApplicationError
from devserver.gateway.environ import BLOCK, ClientDisconnected, constant_environ, request_environ
from devserver.gateway.threads import Threads
from devserver.gateway.wsgi import WsgiGateway
from devserver.http.exchange import Handler, Headers, Peer, Request
from tests.patience import DEADLINE

Ts = TypeVarTuple("Ts")

PLAIN = [("Content-Type", "text/plain")]
PEER = Peer(("127.0.0.1", 50000), ("127.0.0.1", 8000))


# The HTTP side


class MemoryExchange:
    """An `Exchange` that keeps the response; `arriving` is the body, fed as it is asked for."""

    def __init__(
        self,
        method: str = "GET",
        target: bytes = b"/",
        headers: Headers | None = None,
        body: bytes = b"",
        arriving: list[bytes] | None = None,
        pausing: bool = False,
    ) -> None:
        path, _, query = target.partition(b"?")
        lines = [(b"host", b"localhost:8000"), *(headers or [])]
        self.request = Request(method, target, path, query, "1.1", lines, PEER)
        self.handler: Handler | None = None
        self.complete = arriving is None
        self.disconnected = self.half_closed = self.paused = self.started = self.finished = False
        self.aborted = self.takes_trailers = False
        self.status = self.files = 0
        self.headers: Headers = []
        self.writes: list[tuple[bytes, bool]] = []
        self.written = 0
        self.reads = 0
        self.ended = asyncio.Event()
        self.wrote = asyncio.Event()
        self._buffer = body
        self._arriving = list(arriving or [])
        self._pausing = pausing
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def body(self) -> bytes:
        return b"".join(data for data, _ in self.writes)

    def header(self, name: bytes) -> bytes | None:
        return next((value for given, value in self.headers if given.lower() == name), None)

    def _enter(self) -> None:
        assert threading.get_ident() == self._thread, "called outside the loop's thread"

    def read(self) -> bytes:
        self._enter()
        self.reads += 1
        data, self._buffer = self._buffer, b""
        if not data and not self.complete and self._arriving:
            self._loop.call_soon(self.feed, self._arriving.pop(0))
        return data

    def start(self, status: int, headers: Headers) -> None:
        self._enter()
        if self.started:
            raise ApplicationError("started twice")
        for name, value in headers:
            if any(byte < 32 for byte in name + value):
                raise ApplicationError(f"header {name!r} has a control character")
        self.started, self.status, self.headers = True, status, headers

    def withdraw(self) -> bool:
        self._enter()
        if self.writes:
            return False
        self.started = False
        return True

    def write(self, data: bytes, more: bool) -> None:
        self._enter()
        if self.disconnected:
            return
        if not self.started or self.finished:
            raise ApplicationError("write before the start or after the end")
        self._count(len(data), more)
        self.writes.append((data, more))
        self.paused = self._pausing
        self.wrote.set()
        if not more:
            self.finished = True
            self.ended.set()

    def _count(self, size: int, more: bool) -> None:
        self.written += size
        announced = self.header(b"content-length")
        if announced is None:
            return
        if self.written > int(announced):
            raise ApplicationError("longer than its content-length")
        if not more and self.written < int(announced) and self.request.method != "HEAD":
            raise ApplicationError("shorter than its content-length")

    def send_file(self, file: int, offset: int, count: int, more: bool) -> None:
        self.files += 1
        self.write(os.pread(file, count, offset), more)

    def hint(self, headers: Headers) -> None:
        raise AssertionError("WSGI has no early hints")

    def trail(self, headers: Headers) -> None:
        raise AssertionError("WSGI has no trailers")

    def abort(self) -> None:
        self._enter()
        self.aborted = self.finished = True
        self.ended.set()

    # What the client does.

    def feed(self, data: bytes) -> None:
        self._buffer += data
        self.complete = not self._arriving
        self.wake()

    def disconnect(self) -> None:
        self.disconnected = True
        self.ended.set()
        self.wake()

    def pause(self, paused: bool) -> None:
        self.paused = paused
        self.wake()

    def wake(self) -> None:
        assert self.handler is not None
        self.handler.wake()


class CountingLoop(asyncio.SelectorEventLoop):
    """A real loop that counts how often another thread crosses over to it."""

    hops = 0

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        self.hops += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


def answer_error(request: Request, error: BaseException) -> tuple[int, Headers, bytes]:
    return 500, [(b"content-type", b"text/plain")], f"{type(error).__name__}: {error}".encode()


class Rig:
    """A gateway at work in a running loop."""

    def __init__(self, application: Any, root_path: str = "", threads: int = 40) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        self.loop = loop
        self.gateway = WsgiGateway(
            application, root_path=root_path, on_error=answer_error, loop=loop, threads=threads
        )

    def begin(self, exchange: MemoryExchange) -> Handler:
        exchange.handler = self.gateway.exchange(exchange)
        return exchange.handler

    async def finish(self, exchange: MemoryExchange) -> None:
        await exchange.ended.wait()
        await self.idle()

    async def idle(self) -> None:
        await until(lambda: not self.gateway.running)

    async def answer(self, exchange: MemoryExchange) -> MemoryExchange:
        self.begin(exchange)
        await self.finish(exchange)
        return exchange


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test in a counting loop; a failing callback of the loop fails the test."""
    failures: list[dict[str, Any]] = []

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        await asyncio.wait_for(test(), DEADLINE)

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(bounded())
    assert not failures


def ask(application: Any, root_path: str = "", **request: Any) -> MemoryExchange:
    """Answer one request and return the exchange."""
    answered: list[MemoryExchange] = []

    async def one() -> None:
        rig = Rig(application, root_path)
        answered.append(await rig.answer(MemoryExchange(**request)))
        rig.gateway.close()

    run(one)
    return answered[0]


async def until(condition: Callable[[], object]) -> None:
    # Another thread brings the condition about, so there is no asyncio.Event to wait for.
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


def hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", PLAIN.copy())
    return [b"hello"]


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


# Many shapes of request, each through wsgiref's validator


def echo_read(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", PLAIN.copy())
    return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]


def echo_blocks(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", PLAIN.copy())
    while block := environ["wsgi.input"].read(3):
        yield block


def echo_lines(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", PLAIN.copy())
    stream = environ["wsgi.input"]
    return [stream.readline(), *stream.readlines(), stream.read(1)]


def echo_iterated(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", PLAIN.copy())
    return list(environ["wsgi.input"])


def generator(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", PLAIN.copy())
    yield b""
    yield b"one "
    yield b""
    yield b"two"


def writer(environ: Any, start_response: Any) -> list[bytes]:
    write = start_response("200 OK", PLAIN.copy())
    write(b"written ")
    write(b"")
    return [b"and ", b"returned"]


def wrapped_file(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", PLAIN.copy())
    return environ["wsgi.file_wrapper"](io.BytesIO(b"f" * 150_000))


def nothing(environ: Any, start_response: Any) -> list[bytes]:
    start_response("204 No Content", [])
    return []


LENGTH = [(b"content-length", b"11")]
CHUNKED = [(b"transfer-encoding", b"chunked")]
PIECES = [b"fi", b"rst\nse", b"cond\n", b""]


@pytest.mark.parametrize(
    ("application", "request_", "body"),
    [
        pytest.param(hello, {}, b"hello", id="get"),
        pytest.param(hello, {"method": "HEAD"}, b"hello", id="head"),
        pytest.param(hello, {"method": "OPTIONS", "target": b"*"}, b"hello", id="options-star"),
        pytest.param(hello, {"target": b"/caf%C3%A9?q=%20&q=1"}, b"hello", id="escapes"),
        pytest.param(nothing, {"method": "DELETE"}, b"", id="no-content"),
        pytest.param(generator, {}, b"one two", id="generator"),
        pytest.param(writer, {}, b"written and returned", id="write"),
        pytest.param(wrapped_file, {}, b"f" * 150_000, id="file"),
        pytest.param(
            echo_read,
            {"method": "POST", "headers": LENGTH, "body": b"hello world"},
            b"hello world",
            id="post-complete",
        ),
        *[
            pytest.param(
                application,
                {"method": "POST", "headers": headers, "arriving": PIECES},
                b"first\nsecond\n",
                id=f"{application.__name__}-{name}",
            )
            for application in (echo_blocks, echo_lines, echo_iterated)
            for headers, name in (([(b"content-length", b"13")], "length"), (CHUNKED, "chunked"))
        ],
        pytest.param(
            echo_read,
            {"method": "PUT", "headers": LENGTH, "arriving": [b"hello ", b"world"]},
            b"hello world",
            id="put-arriving",
        ),
    ],
)
def test_a_valid_application_is_served(
    application: Any, request_: dict[str, Any], body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = ask(validator(application), **request_)
    assert exchange.body == body
    assert exchange.status == (204 if application is nothing else 200)
    assert not exchange.aborted
    assert not errors(caplog)


# The environ


def environ_of(
    headers: Headers | None = None,
    method: str = "GET",
    path: bytes = b"/",
    root_path: str = "",
    peer: Peer = PEER,
) -> dict[str, Any]:
    request = Request(method, path + b"?a=b", path, b"a=b", "1.1", headers or [], peer)
    return request_environ(constant_environ(root_path), request)


def test_the_environ_is_what_pep_3333_names() -> None:
    environ = environ_of([(b"host", b"example:1"), (b"content-type", b"a/b"), (b"content-length", b"3")])
    stderr = environ.pop("wsgi.errors")
    del environ["wsgi.file_wrapper"]
    assert stderr is sys.stderr
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "a=b",
        "REQUEST_URI": "/?a=b",
        "RAW_URI": "/?a=b",
        "CONTENT_TYPE": "a/b",
        "CONTENT_LENGTH": "3",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "devserver",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "example:1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input_terminated": True,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


@pytest.mark.parametrize(
    ("path", "info"),
    [
        (b"/", "/"),
        (b"*", ""),
        (b"/a%20b%2Fc", "/a b/c"),
        (b"/%C3%A9", "/\xc3\xa9"),
        (b"/\xc3\xa9", "/\xc3\xa9"),
        (b"//twice", "//twice"),
        (b"/100%", "/100%"),
    ],
)
def test_path_info_is_decoded_to_bytes_in_disguise(path: bytes, info: str) -> None:
    assert environ_of(path=path)["PATH_INFO"] == info


def test_root_path_becomes_script_name() -> None:
    environ = environ_of(path=b"/here", root_path="/café/")
    assert environ["SCRIPT_NAME"] == "/caf\xc3\xa9"
    assert environ["PATH_INFO"] == "/here"
    assert environ_of(root_path="/")["SCRIPT_NAME"] == ""


def test_repeated_headers_are_joined() -> None:
    environ = environ_of(
        [
            (b"accept", b"a"),
            (b"cookie", b"x=1"),
            (b"accept", b"b"),
            (b"cookie", b"y=2"),
            (b"content-length", b"5"),
            (b"content-length", b"5"),
        ]
    )
    assert environ["HTTP_ACCEPT"] == "a,b"
    assert environ["HTTP_COOKIE"] == "x=1; y=2"
    assert environ["CONTENT_LENGTH"] == "5"


def test_headers_cannot_pose_as_others() -> None:
    environ = environ_of(
        [
            (b"x-user", b"real"),
            (b"x_user", b"spoofed"),
            (b"content_length", b"9"),
            (b"proxy", b"http://evil"),
            (b"script-name", b"/evil"),
        ]
    )
    assert environ["HTTP_X_USER"] == "real"
    assert environ["SCRIPT_NAME"] == ""
    assert not {"HTTP_PROXY", "CONTENT_LENGTH", "HTTP_CONTENT_LENGTH"} & environ.keys()


@pytest.mark.parametrize(
    ("peer", "host", "name", "port"),
    [
        (Peer(None, ("/tmp/s", None)), b"example.org:81", "example.org", "81"),
        (Peer(None, ("/tmp/s", None)), b"example.org", "example.org", "80"),
        (Peer(None, ("/tmp/s", None), "https"), b"[::1]", "[::1]", "443"),
        (Peer(None, None), b"", "localhost", "80"),
        (Peer(("::1", 1), ("::1", 8000)), b"other:9", "[::1]", "8000"),
    ],
)
def test_the_server_has_a_name_and_a_port(peer: Peer, host: bytes, name: str, port: str) -> None:
    environ = environ_of([(b"host", host)], peer=peer)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)
    assert environ["REMOTE_ADDR"] == ("::1" if peer.client else "")
    assert ("REMOTE_PORT" in environ) == (peer.client is not None)
    assert environ["wsgi.url_scheme"] == peer.scheme


def test_the_file_wrapper_closes_only_what_can_be_closed() -> None:
    class Bare:
        def __init__(self) -> None:
            self.sizes: list[int] = []

        def read(self, size: int) -> bytes:
            self.sizes.append(size)
            return b"x" if len(self.sizes) < 3 else b""

    wrapper, bare, file = environ_of()["wsgi.file_wrapper"], Bare(), io.BytesIO(b"abc")
    assert list(wrapper(bare)) == [b"x", b"x"]
    assert bare.sizes == [BLOCK] * 3
    assert not hasattr(wrapper(bare), "close")
    closing = wrapper(file, 2)
    assert list(closing) == [b"ab", b"c"]
    closing.close()
    assert file.closed


# The body of the request


def test_the_body_is_not_read_before_the_application_asks() -> None:
    exchange = ask(hello, method="POST", headers=CHUNKED, arriving=[b"never"])
    assert exchange.reads == 0
    assert exchange.body == b"hello"


def test_no_more_is_read_than_is_asked_for() -> None:
    def first_byte(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN.copy())
        return [environ["wsgi.input"].read(1)]

    exchange = ask(first_byte, method="POST", headers=CHUNKED, arriving=[b"abc", b"def", b""])
    assert exchange.body == b"a"
    assert exchange.reads == 2  # one finds nothing, the next what has arrived


def test_a_large_body_is_read_whole() -> None:
    blocks = [bytes([number]) * 100_000 for number in range(20)]

    def total(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN.copy())
        data = environ["wsgi.input"].read()
        return [b"same" if data == b"".join(blocks) else b"different"]

    assert ask(total, method="POST", headers=CHUNKED, arriving=blocks).body == b"same"


def test_the_end_of_the_body_stays_the_end() -> None:
    def twice(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN.copy())
        stream = environ["wsgi.input"]
        return [stream.read(), b"|", stream.read(), stream.read(5), stream.readline()]

    exchange = ask(twice, method="POST", headers=CHUNKED, arriving=[b"all", b""])
    assert exchange.body == b"all|"
    assert exchange.reads == 4  # nothing, "all", nothing, the end; then nobody asks any more


def test_a_disconnect_in_the_body_is_an_error_in_read(caplog: pytest.LogCaptureFixture) -> None:
    caught: list[BaseException] = []

    def reader(environ: Any, start_response: Any) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            caught.append(error)
            raise
        return []

    async def test() -> None:
        rig, exchange = Rig(reader), MemoryExchange("POST", headers=LENGTH, arriving=[])
        exchange.complete = False
        rig.begin(exchange)
        await until(lambda: exchange.reads)
        exchange.feed(b"half")
        exchange.complete = False
        exchange.disconnect()
        await rig.finish(exchange)
        assert not exchange.started

    run(test)
    assert isinstance(caught[0], ClientDisconnected)
    assert "before the whole request body" in str(caught[0])
    assert not errors(caplog)


def test_a_body_that_arrived_before_the_disconnect_can_be_read() -> None:
    seen: list[bytes] = []

    def reader(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(environ["wsgi.input"].read())
        start_response("200 OK", PLAIN.copy())
        return [b"nobody"]

    async def test() -> None:
        rig, exchange = Rig(reader), MemoryExchange("POST", headers=LENGTH, arriving=[])
        exchange.complete = False
        rig.begin(exchange)
        await until(lambda: exchange.reads)
        exchange.disconnected = True
        exchange.feed(b"hello world")
        await rig.idle()

    run(test)
    assert seen == [b"hello world"]


# The response


def test_a_small_response_crosses_over_once() -> None:
    async def test() -> None:
        rig = Rig(hello)
        before = rig.loop.hops
        exchange = await rig.answer(MemoryExchange("POST", headers=LENGTH, body=b"hello world"))
        assert rig.loop.hops - before == 1
        assert exchange.writes == [(b"hello", False)]
        assert exchange.header(b"content-length") == b"5"
        rig.gateway.close()

    run(test)


class OneBlock:
    """A sequence of one that is no list."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"block"])


@pytest.mark.parametrize(
    ("status", "method", "chunks", "length"),
    [
        ("200 OK", "GET", [b"ab", b"cd"], b"4"),
        ("200 OK", "GET", (b"ab",), b"2"),
        ("200 OK", "GET", OneBlock(), b"5"),
        ("200 OK", "GET", [], b"0"),
        ("200 OK", "GET", [b"x" * 200_000], b"200000"),
        ("200 OK", "GET", iter([b"ab"]), None),
        ("200 OK", "HEAD", [b"abc"], b"3"),
        ("200 OK", "HEAD", [], None),
        ("204 No Content", "GET", [], None),
        ("304 Not Modified", "GET", [], None),
    ],
)
def test_a_known_length_is_announced(status: str, method: str, chunks: Any, length: bytes | None) -> None:
    def application(environ: Any, start_response: Any) -> Any:
        start_response(status, [])
        return chunks

    exchange = ask(application, method=method)
    assert exchange.header(b"content-length") == length
    assert exchange.finished
    assert not exchange.aborted


def test_an_announced_length_is_not_repeated() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ab"]

    assert ask(application).headers == [(b"Content-Length", b"2")]


def test_the_response_ends_with_the_last_byte_announced() -> None:
    """The client need not wait for an application that goes on working."""
    release = threading.Event()

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "4")])
        yield b"ab"
        yield b"cd"
        release.wait(DEADLINE)

    async def test() -> None:
        rig, exchange = Rig(application), MemoryExchange()
        rig.begin(exchange)
        await exchange.ended.wait()
        assert exchange.body == b"abcd"
        assert rig.gateway.running
        release.set()
        await rig.idle()

    run(test)


def test_a_pause_at_the_end_holds_nobody_up() -> None:
    """Once a response is complete its exchange is not woken again."""

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        yield b"ab"

    assert ask(application, pausing=True).body == b"ab"


def test_chunks_leave_as_they_are_made() -> None:
    """The head goes with the first chunk that is not empty, and no chunk waits for the next."""
    steps = [threading.Event() for _ in range(3)]
    started: list[bool] = []

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN.copy())
        yield b""
        steps[0].wait(DEADLINE)
        yield b"one"
        steps[1].wait(DEADLINE)
        yield b""
        yield b"two"
        steps[2].wait(DEADLINE)

    async def test() -> None:
        rig, exchange = Rig(application), MemoryExchange()
        rig.begin(exchange)
        await Rig(hello).answer(MemoryExchange())
        started.append(exchange.started)
        for step, body in zip(steps, [b"one", b"onetwo"], strict=False):
            step.set()
            await exchange.wrote.wait()
            exchange.wrote.clear()
            assert exchange.body == body
        steps[2].set()
        await rig.finish(exchange)
        assert exchange.writes == [(b"one", True), (b"two", True), (b"", False)]

    run(test)
    assert started == [False]


def test_write_sends_the_head_at_once() -> None:
    release = threading.Event()

    def application(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN.copy())
        write(b"")
        release.wait(DEADLINE)
        return [b"end"]

    async def test() -> None:
        rig, exchange = Rig(application), MemoryExchange()
        rig.begin(exchange)
        await exchange.wrote.wait()
        assert exchange.writes == [(b"", True)]
        release.set()
        await rig.finish(exchange)
        assert exchange.body == b"end"
        assert exchange.header(b"content-length") is None

    run(test)


def test_a_slow_client_stops_the_generator() -> None:
    size = 16_384
    produced = 0
    ahead: list[int] = []

    async def test() -> None:
        exchange = MemoryExchange(pausing=True)

        def application(environ: Any, start_response: Any) -> Iterator[bytes]:
            nonlocal produced
            start_response("200 OK", PLAIN.copy())
            for _ in range(200):
                produced += size
                ahead.append(produced - exchange.written)
                yield b"x" * size

        rig = Rig(application)
        rig.begin(exchange)
        await until(lambda: exchange.paused)
        await Rig(hello).answer(MemoryExchange())
        assert produced - exchange.written <= BLOCK + size
        while not exchange.finished:
            exchange.pause(False)
            exchange.wrote.clear()
            await exchange.wrote.wait()
        await rig.idle()
        assert exchange.written == 200 * size

    run(test)
    assert max(ahead) <= BLOCK + size


def test_a_large_chunk_is_sent_in_pieces() -> None:
    async def test() -> None:
        def application(environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", PLAIN.copy())
            return [b"x" * 1_000_000]

        rig, exchange = Rig(application), MemoryExchange(pausing=True)
        rig.begin(exchange)
        await exchange.wrote.wait()
        await Rig(hello).answer(MemoryExchange())
        assert exchange.written <= 2 * BLOCK
        while not exchange.finished:
            exchange.pause(False)
            exchange.wrote.clear()
            await exchange.wrote.wait()
        await rig.idle()
        assert exchange.written == 1_000_000
        assert max(len(data) for data, _ in exchange.writes) <= 2 * BLOCK

    run(test)


class Closing:
    """An iterable that counts its steps and its closes, and yields until `limit`."""

    def __init__(self, limit: int, error: BaseException | None = None) -> None:
        self.limit = limit
        self.error = error
        self.steps = 0
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.steps == self.limit:
            raise self.error or StopIteration
        self.steps += 1
        return b"x" * 10_000

    def close(self) -> None:
        self.closed += 1


def closing_application(iterable: Any) -> Any:
    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", PLAIN.copy())
        return iterable

    return application


@pytest.mark.parametrize("error", [None, ValueError("midway")])
@pytest.mark.parametrize("limit", [0, 3])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_iterable_is_closed_once(limit: int, error: BaseException | None, method: str) -> None:
    iterable = Closing(limit, error)
    exchange = ask(closing_application(iterable), method=method)
    assert iterable.closed == 1
    assert exchange.aborted == (error is not None and limit > 0)
    assert exchange.status == (500 if error is not None and limit == 0 else 200)


def test_a_disconnect_ends_the_iteration(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        iterable = Closing(-1)  # never ends
        rig, exchange = Rig(closing_application(iterable)), MemoryExchange(pausing=True)
        rig.begin(exchange)
        await exchange.wrote.wait()
        exchange.disconnect()
        await rig.finish(exchange)
        assert iterable.closed == 1
        assert not exchange.finished

    run(test)
    assert not errors(caplog)


def test_writes_after_a_disconnect_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    went_on: list[bool] = []

    async def test() -> None:
        gone = threading.Event()

        def application(environ: Any, start_response: Any) -> list[bytes]:
            write = start_response("200 OK", PLAIN.copy())
            write(b"first")
            gone.wait(DEADLINE)
            for _ in range(100):
                write(b"x" * BLOCK)
            went_on.append(True)
            return []

        rig, exchange = Rig(application), MemoryExchange()
        rig.begin(exchange)
        await exchange.wrote.wait()
        exchange.disconnect()
        gone.set()
        await rig.idle()
        assert exchange.body == b"first"

    run(test)
    assert went_on == [True]
    assert not errors(caplog)


# What goes wrong


def raises(error: BaseException) -> Any:
    def application(environ: Any, start_response: Any) -> Any:
        raise error

    return application


@pytest.mark.parametrize("error", [ValueError("oh"), SystemExit(3), KeyboardInterrupt(), StopIteration()])
def test_an_exception_is_logged_and_answered(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    exchange = ask(raises(error), target=b"/page?x=1")
    assert exchange.status == 500
    assert type(error).__name__.encode() in exchange.body
    (record,) = errors(caplog)
    assert record.getMessage() == "GET /page?x=1 failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_a_thread_survives_system_exit() -> None:
    async def test() -> None:
        rig = Rig(raises(SystemExit()))
        for _ in range(100):  # more than there can be threads
            exchange = await rig.answer(MemoryExchange())
            assert exchange.status == 500
        rig.gateway.close()

    run(test)


def test_a_failing_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Closing):
        def close(self) -> None:
            super().close()
            raise ValueError("in close")

    exchange = ask(closing_application(Failing(2, KeyError("in iteration"))))
    assert exchange.aborted
    assert [str(record.exc_info[1]) for record in errors(caplog) if record.exc_info] == [
        "'in iteration'",
        "in close",
    ]
    caplog.clear()
    exchange = ask(closing_application(Failing(2)))
    assert exchange.body == b"x" * 20_000
    assert not exchange.aborted
    assert len(errors(caplog)) == 1


def test_exc_info_replaces_a_head_that_was_not_sent() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "100"), ("X-Old", "1")])
        try:
            raise ValueError
        except ValueError:
            start_response("503 Sorry", PLAIN.copy(), sys.exc_info())
        return [b"sorry"]

    exchange = ask(application)
    assert exchange.status == 503
    assert exchange.headers == [(b"Content-Type", b"text/plain"), (b"Content-Length", b"5")]


def test_exc_info_is_raised_after_the_head_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN.copy())
        yield b"begun"
        try:
            raise ValueError("late")
        except ValueError:
            start_response("500 Sorry", PLAIN.copy(), sys.exc_info())
        yield b"never"

    exchange = ask(application)
    assert exchange.aborted
    assert exchange.body == b"begun"
    (record,) = errors(caplog)
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "late"


def starts(*heads: tuple[Any, Any], result: Any = (b"ok",)) -> Any:
    def application(environ: Any, start_response: Any) -> Any:
        for head in heads:
            start_response(*head)
        return result

    return application


async def no_wsgi(environ: Any, start_response: Any) -> None:
    """An application for another interface."""


@pytest.mark.parametrize(
    ("application", "words"),
    [
        (starts(("200 OK", []), ("200 OK", [])), "start_response a second time"),
        (starts(), "without calling start_response"),
        (starts(result=iter([])), "without calling start_response"),
        (starts((200, [])), "the status 200; it must be a str such as '200 OK'"),
        (starts(("200", [])), "the status '200'"),
        (starts(("101 Switching Protocols", [])), "the status '101 Switching Protocols'"),
        (starts((b"200 OK", [])), "the status b'200 OK'"),
        (starts(("200 OK", {"a": "b"})), "the headers {'a': 'b'}; they must be a list"),
        (starts(("200 OK", [["a", "b"]])), "the header ['a', 'b']; it must be a tuple"),
        (starts(("200 OK", [("a", 1)])), "the header ('a', 1)"),
        (starts(("200 OK", [(b"a", "b")])), "the header (b'a', 'b')"),
        (starts(("200 OK", [("a", "b", "c")])), "the header ('a', 'b', 'c')"),
        (starts(("200 OK", [("a", "€")])), "the header ('a', '€')"),
        (starts(("200 OK", [("Content-Length", "-1")])), "the content-length b'-1'"),
        (starts(("200 OK", [("Content-Length", "2")] * 2)), "the content-length b'2'"),
        (starts(("200 OK", [("Content-Length", "3")])), "content-length of 3 and sent 2 bytes"),
        (starts(("200 OK", [("Content-Length", "1")])), "content-length of 1 and sent 2 bytes"),
        (starts(("200 OK", [("Content-Length", "1")]), result=iter([b"ok"])), "of 1 and sent 2 bytes"),
        (starts(("200 OK", [("Content-Length", "1")]), result=iter([])), "of 1 and sent 0 bytes"),
        (starts(("200 OK", [("a", "b\r\nc: d")])), "control character"),
        (starts(("200 OK", []), result=None), "returned None; it must return an iterable of bytes"),
        (starts(("200 OK", []), result=5), "returned 5"),
        (starts(("200 OK", []), result="text"), "returned a str; it must return an iterable such as [body]"),
        (starts(("200 OK", []), result=b"bytes"), "returned a bytes"),
        (starts(("200 OK", []), result=["text"]), "yielded 'text'; it must be bytes"),
        (starts(("200 OK", []), result=iter([1])), "yielded 1; it must be bytes"),
        (no_wsgi, "returned <coroutine object no_wsgi"),
    ],
)
def test_a_broken_application_is_told_how(
    application: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = ask(application)
    assert exchange.status == 500
    assert words in exchange.body.decode()
    assert exchange.body.startswith(b"ApplicationError: ")
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize(
    ("chunks", "body", "aborted"),
    [
        ([b"a", "text"], b"a", True),
        ([b"a", b"b"], b"ab", True),  # too short
        ([b"a", b"bcd"], b"a", True),  # too long, and the announced length never met
        ([b"ab", b"c", b"d"], b"abc", False),  # the client has all that it was promised
    ],
)
def test_a_response_that_goes_wrong_is_cut(
    chunks: list[Any], body: bytes, aborted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        exchange = MemoryExchange()
        delivered = threading.Event()

        def application(environ: Any, start_response: Any) -> Iterator[Any]:
            start_response("200 OK", [("Content-Length", "3")])
            for chunk in chunks:
                yield chunk
                delivered.wait(DEADLINE)  # so that the first is written by itself

        rig = Rig(application)
        rig.begin(exchange)
        await exchange.wrote.wait()
        delivered.set()
        await rig.finish(exchange)
        assert exchange.body.startswith(body[:1])
        assert body.startswith(exchange.body)
        assert exchange.aborted == aborted

    run(test)
    assert len(errors(caplog)) == 1


def test_write_refuses_text_and_a_late_call(caplog: pytest.LogCaptureFixture) -> None:
    kept: list[Any] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        kept.append(start_response("200 OK", PLAIN.copy()))
        with pytest.raises(ApplicationError, match=r"passed write\(\) 'text'"):
            kept[0]("text")
        return [b"fine"]

    assert ask(application).body == b"fine"
    with pytest.raises(ApplicationError, match="after the end"):
        kept[0](b"late")


def test_the_loops_side_may_refuse_a_head_while_the_application_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    iterable = Closing(-1)

    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("X", "a\nb")])
        return iterable

    exchange = ask(application)
    assert exchange.status == 500
    assert b"control character" in exchange.body
    assert iterable.closed == 1
    assert len(errors(caplog)) == 1


def test_nothing_follows_the_answer_to_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        answered = threading.Event()

        def application(environ: Any, start_response: Any) -> list[bytes]:
            write = start_response("200 OK", [("X", "a\nb")])
            write(b"first")
            answered.wait(DEADLINE)
            write(b"second")
            return [b"third"]

        rig, exchange = Rig(application), MemoryExchange()
        rig.begin(exchange)
        await exchange.ended.wait()
        answered.set()
        await rig.idle()
        assert exchange.status == 500
        assert len(exchange.writes) == 1

    run(test)
    assert len(errors(caplog)) == 1


# Threads, cancellation, context


def test_two_hundred_slow_requests_share_forty_threads() -> None:
    meeting = threading.Barrier(40)  # passes only when forty views run at the same time
    names: set[str] = set()

    def slow(environ: Any, start_response: Any) -> list[bytes]:
        meeting.wait(DEADLINE)
        names.add(threading.current_thread().name)
        start_response("200 OK", PLAIN.copy())
        return [environ["QUERY_STRING"].encode()]

    async def test() -> None:
        rig = Rig(slow)
        exchanges = [MemoryExchange(target=b"/?%d" % number) for number in range(200)]
        for exchange in exchanges:
            rig.begin(exchange)
        assert len(rig.gateway.running) == 200
        for exchange in exchanges:
            await exchange.ended.wait()
        await rig.idle()
        assert [exchange.body for exchange in exchanges] == [b"%d" % number for number in range(200)]
        rig.gateway.close()

    run(test)
    assert len(names) == 40


def test_busy_names_what_still_runs() -> None:
    entered, release = threading.Event(), threading.Event()

    def stuck(environ: Any, start_response: Any) -> list[bytes]:
        entered.set()
        release.wait(DEADLINE)
        return hello(environ, start_response)

    async def test() -> None:
        rig, exchange = Rig(stuck), MemoryExchange("POST", b"/stuck?a=1")
        assert rig.gateway.busy() == []
        rig.begin(exchange)
        await until(entered.is_set)
        assert rig.gateway.busy() == ["wsgi-1: POST /stuck?a=1 HTTP/1.1"]
        release.set()
        await rig.finish(exchange)
        assert rig.gateway.busy() == []

    run(test)


def test_cancel_cuts_the_application_off(caplog: pytest.LogCaptureFixture) -> None:
    """One waits for its body, one for room; both are let go and write to nobody."""
    iterable = Closing(-1)

    def application(environ: Any, start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] == "POST":
            environ["wsgi.input"].read()
        start_response("200 OK", PLAIN.copy())
        return iterable

    async def test() -> None:
        rig = Rig(application)
        reading = MemoryExchange("POST", headers=LENGTH, arriving=[])
        reading.complete = False
        writing = MemoryExchange(pausing=True)
        handlers = [rig.begin(reading), rig.begin(writing)]
        await writing.wrote.wait()
        await until(lambda: reading.reads)
        written = writing.written
        for handler in handlers:
            handler.cancel()
        await rig.idle()
        assert writing.written == written
        assert not reading.started
        assert iterable.closed == 1

    run(test)
    assert not errors(caplog)


def test_who_holds_all_threads_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    entered = threading.Semaphore(0)

    def slow(environ: Any, start_response: Any) -> list[bytes]:
        entered.release()
        release.wait(DEADLINE)
        return hello(environ, start_response)

    async def test() -> None:
        rig = Rig(slow, threads=2)
        for _ in range(2):  # the second time it is news again
            caplog.clear()
            release.clear()
            for path in (b"/one", b"/two"):
                rig.begin(MemoryExchange(target=path))
                await asyncio.to_thread(entered.acquire)
            assert caplog.messages == []
            for _ in range(3):
                rig.begin(MemoryExchange(target=b"/late"))
            [line] = caplog.messages
            said, _, named = line.partition(", among others on ")
            assert said == "requests wait: all threads are at work (--wsgi-threads allows more)"
            paths = {each.split()[2] for each in named.split("; ")}
            assert paths == {"/one", "/two"}
            release.set()
            await rig.idle()
            await until(lambda: not rig.gateway._threads._unfinished)
            while entered.acquire(blocking=False):
                pass
        rig.gateway.close()

    run(test)


def test_cancel_keeps_a_waiting_request_from_beginning() -> None:
    release = threading.Event()
    called: list[str] = []

    def slow(environ: Any, start_response: Any) -> list[bytes]:
        called.append(environ["PATH_INFO"])
        release.wait(DEADLINE)
        return hello(environ, start_response)

    async def test() -> None:
        rig = Rig(slow)
        for _ in range(40):
            rig.begin(MemoryExchange())
        late = rig.begin(MemoryExchange(target=b"/late"))
        assert any(line.startswith("waiting for a thread: GET /late") for line in rig.gateway.busy())
        late.cancel()
        release.set()
        await rig.idle()

    run(test)
    assert called == ["/"] * 40


def test_a_closed_loop_lets_the_thread_go(caplog: pytest.LogCaptureFixture) -> None:
    entered, release = threading.Event(), threading.Event()
    ended: list[threading.Thread] = []

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        ended.append(threading.current_thread())
        start_response("200 OK", PLAIN.copy())
        entered.set()
        release.wait(DEADLINE)
        while True:
            yield b"x" * BLOCK

    async def test() -> None:
        rig = Rig(application)
        rig.begin(MemoryExchange())
        rig.gateway.close()
        await until(entered.is_set)

    run(test)
    release.set()
    ended[0].join(DEADLINE)
    assert not ended[0].is_alive()
    assert not errors(caplog)


def test_calls_run_in_copies_of_the_context() -> None:
    setting: contextvars.ContextVar[str] = contextvars.ContextVar("setting")
    seen: list[str] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(setting.get("unset"))
        setting.set("changed by a request")
        return hello(environ, start_response)

    async def test() -> None:
        setting.set("at the start")
        rig = Rig(application)
        setting.set("later")
        await rig.answer(MemoryExchange())
        await rig.answer(MemoryExchange())
        rig.gateway.close()

    run(test)
    assert seen == ["at the start", "at the start"]


def test_there_are_no_websockets() -> None:
    async def test() -> None:
        rig = Rig(hello)
        assert rig.gateway.websockets is False
        session: Any = None
        with pytest.raises(AssertionError, match="cannot serve a WebSocket"):
            rig.gateway.session(session)

    run(test)


def test_a_websocket_is_answered_with_what_has_one(caplog: pytest.LogCaptureFixture) -> None:
    """The application is not called: it would fail in a library that looks for a socket."""

    def application(environ: Any, start_response: Any) -> Any:
        raise AssertionError("called")

    async def test() -> None:
        rig = Rig(application)
        for _ in range(2):
            headers = [(b"connection", b"Upgrade"), (b"upgrade", b"WebSocket")]
            answer = await rig.answer(MemoryExchange(headers=headers))
            assert answer.status == 501
            assert b"serve an ASGI application" in answer.body

    run(test)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert ask(hello, headers=[(b"upgrade", b"h2c")]).status == 200


def test_a_job_that_raises_does_not_end_its_thread(caplog: pytest.LogCaptureFixture) -> None:
    threads = Threads(1, "pool")
    done = threading.Event()
    threads.submit(sys.exit)
    threads.submit(done.set)
    assert done.wait(DEADLINE)
    assert "A job failed in pool-1" in caplog.text


def test_idle_threads_are_used_again() -> None:
    threads = Threads(40, "pool")
    names: set[str] = set()
    for _ in range(200):
        done = threading.Event()

        def job(done: threading.Event = done) -> None:
            names.add(threading.current_thread().name)
            done.set()

        threads.submit(job)
        assert done.wait(DEADLINE)
    threads.close()
    # A thread is idle a moment after its job is done, so there may be a few.
    assert len(names) < 10


def test_closed_threads_end() -> None:
    threads = Threads(3, "pool")
    found: list[threading.Thread] = []
    meeting = threading.Barrier(4)

    def job() -> None:
        found.append(threading.current_thread())
        meeting.wait(DEADLINE)

    for _ in range(3):
        threads.submit(job)
    meeting.wait(DEADLINE)
    threads.close()
    for thread in found:
        thread.join(DEADLINE)
        assert not thread.is_alive()


@pytest.mark.live
def test_an_endless_view_does_not_keep_the_process() -> None:
    program = (
        "import threading\n"
        "from devserver.gateway.threads import Threads\n"
        "begun = threading.Event()\n"
        "def job():\n"
        "    begun.set()\n"
        "    while True: pass\n"
        "Threads(1, 'pool').submit(job)\n"
        "assert begun.wait(600)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=DEADLINE, check=False).returncode == 0
