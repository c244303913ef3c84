"""The lifespan of ASGI applications: startup, shutdown, and all that can go wrong with them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

import devserver
from devserver.app import load
from devserver.errors import ApplicationError
from devserver.gateway.lifespan import Lifespan, StartupFailed
from devserver.listeners import bind
from devserver.server import Serving
from tests.patience import DEADLINE
from tests.raw import Raw, Signal, serving

UP = {"type": "lifespan.startup.complete"}
DOWN = {"type": "lifespan.shutdown.complete"}
FAILED = {"type": "lifespan.startup.failed", "message": "no database"}
MODES = pytest.mark.parametrize("mode", ["auto", "on"])


class Script:
    """Takes steps: "receive", messages to send, exceptions to raise; remembers what it received."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps
        self.received: list[Any] = []
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] != "lifespan":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": repr(scope["state"]).encode()})
            return
        for step in self.steps:
            if step == "receive":
                self.received.append(await receive())
            elif isinstance(step, BaseException):
                raise step
            elif callable(step):
                step(scope)
            else:
                await send(step)


def run(app: Any, mode: str) -> Lifespan:
    """Start up and shut down."""

    async def main() -> Lifespan:
        lifespan = Lifespan(app, mode)
        async with asyncio.timeout(DEADLINE):
            await lifespan.startup()
            await lifespan.shutdown()
        return lifespan

    return asyncio.run(main())


@MODES
def test_a_whole_life(mode: str) -> None:
    app = Script("receive", UP, "receive", DOWN)
    run(app, mode)
    assert app.received == [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    (scope,) = app.scopes
    assert scope == {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}


def test_off() -> None:
    app = Script(RuntimeError("not called"))
    run(app, "off")
    assert app.scopes == []


@pytest.mark.parametrize(
    "steps",
    [
        [RuntimeError("only HTTP here")],
        [AssertionError()],
        [{"type": "http.response.start", "status": 200}],
        ["receive", {"type": "http.response.start", "status": 200}],
        [],
        ["receive"],
    ],
)
def test_an_application_without_lifespan(steps: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """With "auto" it is served all the same; one that takes every scope for a request, too."""
    run(Script(*steps), "auto")
    assert not caplog.records
    with pytest.raises(StartupFailed):
        run(Script(*steps), "on")


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (AssertionError(), False),
        (NotImplementedError(), False),
        (ValueError("Django can only handle ASGI/HTTP connections, not lifespan."), False),
        (ValueError("No application configured for scope type 'lifespan'"), False),
        (KeyError("lifespan"), False),
        (KeyError("path"), True),
        (AttributeError("'NoneType' object has no attribute 'split'"), True),
    ],
)
def test_a_startup_that_an_accident_keeps_from_running_is_told(
    error: Exception, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A middleware that takes every scope for a request, around an application that has a lifespan."""
    run(Script(error), "auto")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == is_told
    for line in told:
        assert f"{type(error).__name__}: " in line
        assert f"in {__file__}, line " in line
        assert "--lifespan on" in line


@MODES
def test_startup_failed(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StartupFailed, match="no database"):
        run(Script("receive", FAILED), mode)
    cause = ValueError("why")
    with pytest.raises(StartupFailed, match="no database") as failure:
        run(Script("receive", FAILED, cause), mode)
    assert failure.value.__cause__ is cause
    assert not caplog.records


@MODES
@pytest.mark.parametrize("error", [ValueError("oh"), SystemExit(3), KeyboardInterrupt()])
def test_an_exception_amid_startup(mode: str, error: BaseException) -> None:
    with pytest.raises(StartupFailed, match="raised before") as failure:
        run(Script("receive", error), mode)
    assert failure.value.__cause__ is error


@MODES
def test_an_answer_that_belongs_elsewhere(mode: str) -> None:
    with pytest.raises(StartupFailed, match=r"'lifespan.shutdown.complete' when .* starting") as failure:
        run(Script("receive", DOWN), mode)
    assert isinstance(failure.value.__cause__, ApplicationError)


def test_shutdown_failed(caplog: pytest.LogCaptureFixture) -> None:
    run(Script("receive", UP, "receive", {"type": "lifespan.shutdown.failed", "message": "still busy"}), "on")
    assert "lifespan shutdown failed: still busy" in caplog.text


def test_an_exception_amid_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    run(Script("receive", UP, "receive", ValueError("oh")), "on")
    assert "ValueError: oh" in caplog.text


def test_an_exception_while_serving(caplog: pytest.LogCaptureFixture) -> None:
    app = Script("receive", UP, ValueError("oh"))
    with serving(app, lifespan="on") as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().body == b"{}"
    assert "failed during its lifespan" in caplog.text


def test_a_second_startup_complete(caplog: pytest.LogCaptureFixture) -> None:
    run(Script("receive", UP, UP), "on")
    assert "'lifespan.startup.complete' when its lifespan was started" in caplog.text


def test_a_lifespan_that_ends_by_itself() -> None:
    app = Script("receive", UP)
    run(app, "on")
    assert app.received == [{"type": "lifespan.startup"}]


def test_what_comes_after_the_last_message_is_waited_for() -> None:
    done = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(UP)
        await receive()
        await send(DOWN)
        for _ in range(100):
            await asyncio.sleep(0)
        done.append(True)

    run(app, "on")
    assert done


def test_the_state_is_seen_by_requests() -> None:
    app = Script("receive", lambda scope: scope["state"].update(pool=1), UP, "receive", DOWN)
    with serving(app, lifespan="auto") as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().body == b"{'pool': 1}"


def test_the_order_of_a_server() -> None:
    """Startup is complete before the first request, and shutdown begins after the last has ended."""
    order: list[str] = []
    go, called = Signal(), Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            order.append("startup")
            await send(UP)
            await receive()
            order.append("shutdown")
            await send(DOWN)
            return
        called.set()
        await go.here()
        order.append("request")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    with serving(app, lifespan="on", timeout_graceful_shutdown=DEADLINE) as server:
        with Raw(server) as raw, Raw(server) as idle:
            raw.get()
            called.wait()
            thread = threading.Thread(target=server.stop)
            thread.start()
            idle.rest()
            go.set()
            assert raw.answer().status == 200
        thread.join(DEADLINE)
    assert order == ["startup", "request", "shutdown"]


def test_a_server_whose_startup_fails_does_not_start() -> None:
    server = devserver.Server(devserver.Config(Script("receive", FAILED), host="127.0.0.1", port=0))
    with pytest.raises(StartupFailed, match="no database"):
        server.start()


def test_a_hanging_startup_is_ended_by_a_stop() -> None:
    hanging, over = Signal(), Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    server = devserver.Server(devserver.Config(app, host="127.0.0.1", port=0))
    thread = threading.Thread(target=server.start)
    thread.start()
    hanging.wait()
    server.stop()
    over.wait()
    thread.join(DEADLINE)
    assert not thread.is_alive()


@pytest.mark.parametrize("turns", range(6))
def test_a_stop_amid_startup(turns: int) -> None:
    """What has said that it is up is shut down, however few turns of the loop lie between."""
    order: list[str] = []
    made: list[Serving] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        made[0].stop(DEADLINE)
        for _ in range(turns):
            await asyncio.sleep(0)
        order.append("startup")
        await send(UP)
        assert await receive() == {"type": "lifespan.shutdown"}
        order.append("shutdown")
        await send(DOWN)

    config = devserver.Config(app, host="127.0.0.1", port=0)
    with contextlib.closing(bind(config.bind)) as listeners:
        made.append(Serving(config, load(config.app), listeners.sockets))
        asyncio.run(made[0].run(lambda: None))
    assert order in ([], ["startup", "shutdown"])


def test_a_hanging_shutdown_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    over = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(UP)
        await receive()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    with serving(app, lifespan="on", timeout_graceful_shutdown=0.1):
        pass
    over.wait()
    assert "--timeout-graceful-shutdown" in caplog.text
