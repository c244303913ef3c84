"""HTTP exchanges to an ASGI application (ASGI 3.0, HTTP & WebSocket spec 2.5) and back.

One task per request. The application's `receive` reads the exchange's attributes and waits for
`wake` when there is nothing to say; its `send` writes at once and waits only when the client is
slower. Refuses to know sockets and parsers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from devserver.errors import ApplicationError
from devserver.http.exchange import Exchange, Handler, Headers, Request, Session

logger = logging.getLogger("devserver")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
OnError = Callable[[Request, BaseException], tuple[int, Headers, bytes]]
"""Makes the response for an exception that the application did not answer itself."""

VERSION = {"version": "3.0", "spec_version": "2.5"}


class ClientDisconnected(OSError):
    """Raised by `send` when nobody reads the response any more (ASGI HTTP spec 2.4)."""


def asgi2(application: Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]) -> Application:
    """An ASGI 2 application, called as ASGI 3."""

    async def single(scope: Scope, receive: Receive, send: Send) -> None:
        await application(scope)(receive, send)

    return single


def decode_path(path: bytes) -> str:
    """The decoded path of a scope: percent escapes undone, then UTF-8."""
    if b"%" in path:
        path = unquote_to_bytes(path)
    return path.decode("utf-8", "replace")


class AsgiGateway:
    """An ASGI 3 application as a `Gateway`."""

    websockets = True

    def __init__(
        self, application: Application, *, root_path: str, state: dict[str, Any], on_error: OnError, legacy: bool = False
    ) -> None:
        """
        Args:
            application: the application; wrap an older one by `asgi2`.
            root_path: where it is mounted; put in front of the path.
            state: what the lifespan left; each scope gets a shallow copy.
            on_error: makes the response when the application raised before it began one.
            legacy: the application was ASGI 2, which a scope says.
        """
        self.application = application
        self.root_path = root_path
        self.state = state
        self.on_error = on_error
        self.version = {**VERSION, "version": "2.0"} if legacy else VERSION
        self.running: set[Handler] = set()
        self._create_task = asyncio.get_running_loop().create_task

    def exchange(self, exchange: Exchange) -> Handler:
        handler = HttpCall(self, exchange)
        self.running.add(handler)
        handler.task = self._create_task(handler.run())
        return handler

    def session(self, session: Session) -> Handler:
        from devserver.gateway.websocket import AsgiSession  # only loaded when a WebSocket comes

        handler = AsgiSession(self, session)
        self.running.add(handler)
        handler.start()
        return handler


class HttpCall:
    """The application at work on one exchange: a `Handler`, and its `receive` and `send`."""

    __slots__ = ("_closed", "_waiter", "exchange", "gateway", "task")

    def __init__(self, gateway: AsgiGateway, exchange: Exchange) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False  # receive has said that the body is over

    def wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def scope(self) -> Scope:
        """The connection scope (ASGI HTTP spec, "HTTP Connection Scope")."""
        gateway, request = self.gateway, self.exchange.request
        peer = request.peer
        path = decode_path(request.path)
        return {
            "type": "http",
            "asgi": gateway.version,
            "http_version": request.version,
            "method": request.method,
            "scheme": peer.scheme,
            "path": gateway.root_path + path if gateway.root_path else path,
            "raw_path": gateway.root_path.encode() + request.path if gateway.root_path else request.path,
            "query_string": request.query,
            "root_path": gateway.root_path,
            "headers": request.headers,
            "client": peer.client,
            "server": peer.server,
            "state": gateway.state.copy(),
            "extensions": {},
        }

    async def run(self) -> None:
        exchange = self.exchange
        try:
            await self.gateway.application(self.scope(), self.receive, self.send)
            if not exchange.finished and not exchange.disconnected:
                self._incomplete()
        except ClientDisconnected:
            pass  # the application let it pass, as it may
        except asyncio.CancelledError:
            if not exchange.finished:
                exchange.abort()
        except BaseException as error:  # whatever user code raises, SystemExit too, ends one request only
            self._failed(error)
        finally:
            self.gateway.running.discard(self)

    def _incomplete(self) -> None:
        missing = "ended its response" if self.exchange.started else "started a response"
        self._failed(ApplicationError(f"the application returned before it {missing}"))

    def _failed(self, error: BaseException) -> None:
        exchange = self.exchange
        request = exchange.request
        logger.error("%s %s failed", request.method, request.target.decode("latin-1"), exc_info=error)
        if exchange.disconnected or exchange.finished:
            return
        if exchange.started:
            exchange.abort()
            return
        status, headers, body = self.gateway.on_error(request, error)
        exchange.start(status, headers)
        exchange.write(body, False)

    async def _wait(self) -> None:
        # More than one task of the application may wait; the last to come makes the future.
        if self._waiter is None:
            self._waiter = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._waiter)

    async def receive(self) -> Message:
        exchange = self.exchange
        if not self._closed:
            while True:
                # The order matters: reading asks a client that waits for 100 to go on.
                data = exchange.read()
                if data or exchange.complete:
                    self._closed = exchange.complete
                    return {"type": "http.request", "body": data, "more_body": not exchange.complete}
                if exchange.disconnected:
                    break
                await self._wait()
        while not (exchange.disconnected or exchange.half_closed or exchange.finished):
            await self._wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        exchange = self.exchange
        kind = message["type"]
        if kind == "http.response.body":
            more = message.get("more_body", False)
            exchange.write(message.get("body", b""), more)
            if exchange.disconnected:
                if more:
                    raise ClientDisconnected("the client has closed the connection")
            elif exchange.paused:
                while exchange.paused and not exchange.disconnected:
                    await self._wait()
            if not more:
                self.wake()  # a task of the application that waits for the disconnect
        elif kind == "http.response.start":
            exchange.start(message["status"], _lowered(message.get("headers", ())))
        else:
            state = "ended" if exchange.finished else "begun" if exchange.started else "not begun"
            raise ApplicationError(f"the application sent {kind!r} on an HTTP exchange whose response has {state}")


def _lowered(headers: Any) -> Headers:
    """The headers of a message as the seam has them."""
    try:
        return [(bytes(name).lower(), bytes(value)) for name, value in headers]
    except (TypeError, ValueError):
        raise ApplicationError(
            f"the application sent headers {headers!r}: each must be a pair of byte strings"
        ) from None
