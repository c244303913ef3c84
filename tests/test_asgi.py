"""The ASGI gateway over real sockets: scopes, disconnects, and applications that break the protocol."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from pathlib import Path
from typing import Any

import pytest

import devserver
from devserver.gateway.asgi_words import ClientDisconnected
from devserver.http import line
from tests.raw import Raw, Signal, request, serving

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"body"}
PART = {**BODY, "more_body": True}


class Script:
    """Sends messages; one that is in a tuple is sent with its error swallowed."""

    def __init__(self, *messages: Any) -> None:
        self.messages = messages
        self.errors: list[BaseException] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for message in self.messages:
            if isinstance(message, tuple):
                try:
                    await send(message[0])
                except devserver.errors.ApplicationError as error:
                    self.errors.append(error)
            elif isinstance(message, BaseException):
                raise message
            else:
                await send(message)


class Scopes:
    """Keeps the scopes it gets."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await send(START)
        await send(BODY)


# Scopes


def test_a_scope() -> None:
    app = Scopes()
    with serving(app) as server, Raw(server) as raw:
        raw.send(
            b"get /a%20b%2Fc%C3%A9%ff?q=%20&r HTTP/1.1\r\n"
            b"Host: x\r\nX-Twice: a \r\nx-twice:\tb\r\nCookie: \xe9\r\n\r\n"
        )
        raw.answer()
        client, address = raw.sock.getsockname(), raw.sock.getpeername()
    (scope,) = app.scopes
    headers = [(b"host", b"x"), (b"x-twice", b"a"), (b"x-twice", b"b"), (b"cookie", b"\xe9")]
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b/cé\ufffd",
        "raw_path": b"/a%20b%2Fc%C3%A9%ff",
        "query_string": b"q=%20&r",
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": address,
        "state": {},
        "extensions": {
            "http.response.early_hint": {},
            "http.response.pathsend": {},
            "http.response.zerocopysend": {},
        },
    }
    assert all(type(part) is bytes for header in scope["headers"] for part in header)
    assert {name: type(scope[name]) for name in ("raw_path", "query_string", "path", "client", "state")} == {
        "raw_path": bytes,
        "query_string": bytes,
        "path": str,
        "client": tuple,
        "state": dict,
    }


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("http://other:1/a?b", "/a", b"/a", b"b"),
        ("http://other?b", "/", b"/", b"b"),
        ("//a?", "//a", b"//a", b""),
        ("/%25?a?b", "/%", b"/%25", b"a?b"),
    ],
)
def test_targets(target: str, path: str, raw_path: bytes, query: bytes) -> None:
    app = Scopes()
    with serving(app) as server, Raw(server) as raw:
        raw.get(target)
        raw.answer()
    (scope,) = app.scopes
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)


def test_a_root_path() -> None:
    """The path has it, as the spec wants; the raw path is what was received."""
    app = Scopes()
    with serving(app, root_path="/api") as server, Raw(server) as raw:
        raw.get("/x")
        raw.answer()
    (scope,) = app.scopes
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "/api/x", b"/x")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_the_scope_of_a_unix_socket(tmp_path: Path) -> None:
    app = Scopes()
    with serving(app, uds=str(tmp_path / "s")) as server, Raw(server) as raw:
        raw.get()
        raw.answer()
    (scope,) = app.scopes
    assert (scope["client"], scope["server"]) == (None, (str(tmp_path / "s"), None))


def test_an_application_of_asgi_2() -> None:
    scopes = []

    def app(scope: Any) -> Any:
        scopes.append(scope)

        async def instance(receive: Any, send: Any) -> None:
            await send(START)
            await send(BODY)

        return instance

    with serving(app) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().body == b"body"
    assert scopes[0]["asgi"]["version"] == "2.0"


def test_a_scope_belongs_to_its_request() -> None:
    """What one request writes into its scope or its context the next does not see; on one connection."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"].update(shared=[], own="old")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append(
            (variable.get(), scope["state"]["own"], len(scope["state"]["shared"]), scope["asgi"].get("x"))
        )
        variable.set("set")
        scope["asgi"]["x"] = 1
        scope["state"]["own"] = "new"
        scope["state"]["shared"].append(1)
        body = 0
        while (message := await receive())["more_body"]:
            body += len(message["body"])
        await send(START)
        await send(BODY)

    with serving(app, lifespan="on") as server, Raw(server) as raw:
        for _ in range(2):
            raw.send(request() + request() + request(body=bytes(300_000)))  # the body pauses the reading
            for _ in range(3):
                assert raw.answer().body == b"body"
    assert seen == [("unset", "old", number, None) for number in range(6)]


# Messages


@pytest.mark.parametrize(
    ("before", "bad", "named"),
    [
        ([], BODY, "body before it started.*'http.response.body' when the response had not begun"),
        ([START], START, "second time.*'http.response.start' when the response had begun"),
        ([], {"type": "http.response.sart"}, "'http.response.sart'"),
        ([START], {"type": "http.response.trailers"}, "'http.response.trailers'"),
        ([], {"type": "websocket.accept"}, "'websocket.accept'"),
        ([], {"status": 200}, "None, which is not a message"),
        ([], {**START, "status": "200"}, "status '200'"),
        ([], {"type": "http.response.start"}, "status None"),
        ([], {**START, "status": 101}, "status 101"),
        ([], {**START, "headers": [("a", "b")]}, "byte strings"),
        ([], {**START, "headers": {"a": "b"}}, "byte strings"),
        ([], {**START, "headers": [(b"a", None)]}, "byte strings"),
        ([], {**START, "headers": [(b"a", b"b\r\nc: d")]}, "control character"),
        ([], {**START, "headers": [(b"a b", b"c")]}, "header name"),
        ([], {**START, "headers": [(b"content-length", b"-1")]}, "content-length"),
        ([START], {**BODY, "body": "text"}, "body that is str"),
        ([START], {**BODY, "body": None}, "body that is NoneType"),
        ([{**START, "headers": [(b"content-length", b"3")]}], BODY, "longer than its content-length"),
        ([{**START, "headers": [(b"content-length", b"5")]}], BODY, "1 bytes short"),
    ],
)
@pytest.mark.parametrize("swallowed", [False, True])
def test_messages_that_break_the_protocol(
    before: list[Any], bad: Any, named: str, swallowed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as nothing has been sent, the client gets a 500, even if a response was started."""
    app = Script(*before, (bad,) if swallowed else bad)
    with serving(app) as server, Raw(server) as raw:
        raw.get()
        answer = raw.answer()
        assert (answer.status, answer.body) == (500, b"Internal Server Error")
        raw.get()
        assert raw.answer().status == 500
    (record, _) = [record for record in caplog.records if record.name == "devserver"]
    assert record.getMessage() == "GET / failed"
    assert record.exc_info is not None
    with pytest.raises(devserver.errors.ApplicationError, match=named):
        raise record.exc_info[1]  # type: ignore[misc]


def test_a_swallowed_error_does_not_end_a_response() -> None:
    """Such as that of an extension which the application tries without having looked."""
    app = Script(({"type": "http.response.push", "path": "/"},), START, BODY)
    with serving(app) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().body == b"body"
    assert "push" in str(app.errors[0])


@pytest.mark.parametrize(
    "after",
    [
        BODY,
        START,
        RuntimeError("after the start"),
        SystemExit(3),
        {**BODY, "body": "text"},
        {"type": "nonsense"},
        None,
    ],
)
def test_a_response_that_has_left_cannot_be_taken_back(after: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What was announced cannot be kept, so the connection is cut."""
    length = {**START, "headers": [(b"content-length", b"7")]}
    app = Script(length, PART, *([] if after is None else [after]))
    with serving(app) as server, Raw(server) as raw:
        raw.get()
        assert raw.head()[0] == 200
        with pytest.raises((EOFError, ConnectionResetError)):
            raw.take(8)
    assert "GET / failed" in caplog.text


def test_sending_after_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Script(START, BODY, BODY)) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().body == b"body"
        raw.get()
        assert raw.answer().body == b"body"
    assert (
        "more after the end of its response ('http.response.body' when the response had ended)" in caplog.text
    )


@pytest.mark.parametrize("before", [[], [START]])
@pytest.mark.parametrize(
    "error", [RuntimeError("oh"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]
)
def test_exceptions_before_anything_was_sent(
    before: list[Any], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(Script(*before, error)) as server, Raw(server) as raw:
        for _ in range(2):
            raw.get()
            assert raw.answer().status == 500
    assert len([record for record in caplog.records if record.exc_info and record.exc_info[1] is error]) == 2


@pytest.mark.parametrize(
    ("before", "named"), [([], "before it started a response"), ([START], "before it ended its response")]
)
def test_returning_too_early(before: list[Any], named: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving(Script(*before)) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().status == 500
    assert named in caplog.text


def test_an_exception_after_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Script(START, BODY, RuntimeError("background"))) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().body == b"body"
        raw.get()
        assert raw.answer().body == b"body"
    assert "RuntimeError: background" in caplog.text


def test_byte_like_bodies_and_upper_case_names() -> None:
    headers = [(b"X-Upper", b"Value"), [b"Content-Length", b"6"]]
    parts = [{**PART, "body": bytearray(b"ab")}, {**PART, "body": memoryview(b"cd")}, {**BODY, "body": b"ef"}]
    with serving(Script({**START, "headers": headers}, *parts)) as server, Raw(server) as raw:
        raw.get()
        answer = raw.answer()
        assert (answer.body, answer.headers[b"x-upper"]) == (b"abcdef", b"Value")


# Disconnects


def test_receive_says_that_the_client_has_gone() -> None:
    called, seen = Signal(), Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        called.set()
        seen.set([await receive(), await receive()])

    with serving(app) as server:
        with Raw(server) as raw:
            raw.get()
            called.wait()
        assert seen.wait() == [{"type": "http.disconnect"}] * 2


def test_receive_says_that_the_client_has_gone_amid_its_body(caplog: pytest.LogCaptureFixture) -> None:
    called, seen = Signal(), Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        first = await receive()
        called.set()
        seen.set([first, await receive()])
        await send(START)
        await send(BODY)

    with serving(app) as server:
        with Raw(server) as raw:
            raw.send(request("/", "Content-Length: 10") + b"hello")
            called.wait()
        first, last = seen.wait()
    assert first == {"type": "http.request", "body": b"hello", "more_body": True}
    assert last == {"type": "http.disconnect"}
    assert "failed" not in caplog.text


def test_receive_after_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "SILENCE", 1000.0)
    seen = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waiting = asyncio.create_task(read(receive))
        await send(START)
        await send(BODY)
        seen.set([await waiting, await receive()])

    async def read(receive: Any) -> Any:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        return message

    with serving(app) as server, Raw(server) as raw:
        raw.send(request("/", "Content-Length: 10") + b"hello")
        assert raw.answer().body == b"body"
        assert seen.wait() == [{"type": "http.disconnect"}] * 2


@pytest.mark.parametrize("waits", [True, False])
def test_send_raises_when_the_client_has_gone(waits: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Also to an application that never lets the loop run."""
    seen = [Signal(), Signal()]
    left = iter(seen)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            while True:
                await send(PART)
                if waits:
                    await asyncio.sleep(0)
        except OSError as error:
            next(left).set(error)
            raise

    with serving(app) as server:
        for signal in seen:
            with Raw(server) as raw:
                raw.get()
                raw.until(b"body\r\n")
            assert isinstance(signal.wait(), ClientDisconnected)
    assert "failed" not in caplog.text


def test_a_response_to_nobody_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    called, go, done = Signal(), Signal(), Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        await go.here()
        await send(START)
        await send(BODY)
        done.set()

    with serving(app) as server:
        with Raw(server) as raw:
            raw.get()
            called.wait()
        go.set()
        done.wait()
    assert "failed" not in caplog.text


def test_a_response_larger_than_the_buffers_ends_its_call() -> None:
    """The call of the application is over when its last message is, even if the client reads later."""
    done = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({**BODY, "body": bytes(30 << 20)})
        done.set()

    with serving(app) as server, Raw(server) as raw:
        raw.get()
        done.wait()
        assert len(raw.answer().body) == 30 << 20


def test_somebody_elses_disconnect_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Script(ClientDisconnected("of another connection"))) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().status == 500


def test_two_tasks_may_wait_at_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        first, second = asyncio.create_task(receive()), asyncio.create_task(receive())
        await asyncio.sleep(0)
        second.cancel()
        assert (await first)["body"] == b"hello"
        await send(START)
        await send(BODY)

    with serving(app) as server, Raw(server) as raw:
        raw.send(request("/", "Content-Length: 5", "Expect: 100-continue"))
        raw.until(b"100 Continue\r\n\r\n")
        raw.send(b"hello")
        assert raw.answer().body == b"body"
