"""HTTP exchanges to an ASGI application (ASGI 3.0, HTTP & WebSocket spec 2.5) and back.

One task per request. The application's `receive` reads the exchange's attributes and waits for
`wake` when there is nothing to say; its `send` writes at once and waits only when the client is
slower. Refuses to know sockets and parsers.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from devserver.errors import ApplicationError
from devserver.gateway.asgi_extensions import Trailers, hint, offered, send_descriptor, send_path
from devserver.gateway.asgi_words import (
    VERSION,
    Application,
    ClientDisconnected,
    Message,
    OnError,
    Receive,
    Scope,
    Send,
)
from devserver.gateway.tls import extension
from devserver.http.exchange import Exchange, Handler, Request, Session

logger = logging.getLogger("devserver")


def asgi2(application: Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]) -> Application:
    """An ASGI 2 application, called as ASGI 3."""

    async def single(scope: Scope, receive: Receive, send: Send) -> None:
        await application(scope)(receive, send)

    return single


class AsgiGateway:
    """An ASGI 3 application as a `Gateway`.

    Attributes:
        context: the context variables that each call of the application gets a copy of. Without it
            a request would see what the one before set: a connection's callbacks run in the
            context of whoever scheduled them.
    """

    websockets = True

    def __init__(
        self,
        application: Application,
        *,
        root_path: str,
        state: dict[str, Any],
        on_error: OnError,
        legacy: bool = False,
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
        self.context = contextvars.copy_context()
        self._create_task = asyncio.get_running_loop().create_task

    def exchange(self, exchange: Exchange) -> Handler:
        handler = HttpCall(self, exchange)
        self.running.add(handler)
        handler.task = self._create_task(handler.run(), context=self.context.copy())
        return handler

    def session(self, session: Session) -> Handler:
        from devserver.gateway.websocket import AsgiSession  # only loaded when a WebSocket comes

        handler = AsgiSession(self, session)
        self.running.add(handler)
        handler.start(self.context.copy())
        return handler

    def place(self, request: Request) -> tuple[str, str]:
        """`root_path` and `path` of a scope: where the application is mounted; that and the path, decoded."""
        raw, root_path = request.path, request.prefix or self.root_path
        if b"%" in raw:
            raw = unquote_to_bytes(raw)
        return root_path, root_path + raw.decode("utf-8", "replace")

    def close(self) -> None:
        """There is nothing to let go of: tasks belong to the loop."""


class HttpCall:
    """The application at work on one exchange: a `Handler`, and its `receive` and `send`."""

    __slots__ = (
        "_begun", "_breach", "_cancelled", "_closed", "_has_body", "_told", "_trailers", "_waiter",
        "exchange", "gateway", "task",
    )  # fmt: skip

    def __init__(self, gateway: AsgiGateway, exchange: Exchange) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._begun = False
        self._has_body = False  # a part of it has been sent
        self._trailers: Trailers | None = None  # those that were announced
        self._closed = False  # receive has said that the body is over
        self._told = False  # receive has said that the client is gone
        self._cancelled = False  # by the server, not by the application itself
        self._breach: ApplicationError | None = None  # an error of `send` that it may have swallowed

    def __str__(self) -> str:
        request = self.exchange.request
        return f"{request.method} {request.target.decode('latin-1')}"

    def wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def cancel(self) -> None:
        self._cancelled = True
        if self.task is not None:
            self.task.cancel()
        if not self._begun:  # then `run` will not see to it
            self.gateway.running.discard(self)
            self.exchange.abort()

    def scope(self) -> Scope:
        """The connection scope (ASGI HTTP spec, "HTTP Connection Scope")."""
        gateway, request = self.gateway, self.exchange.request
        peer = request.peer
        root_path, path = gateway.place(request)
        extensions = offered(self.exchange)
        if peer.tls is not None:
            extensions["tls"] = extension(peer.tls)
        return {
            "type": "http",
            "asgi": gateway.version.copy(),
            "http_version": request.version,
            "method": request.method.upper(),
            "scheme": peer.scheme,
            "path": path,
            "raw_path": request.path if request.parameters is None else request.target.partition(b"?")[0],
            "query_string": request.query,
            "root_path": root_path,
            "headers": request.headers,
            "client": peer.client,
            "server": peer.server,
            "state": gateway.state.copy(),
            "extensions": extensions,
        }

    async def run(self) -> None:
        self._begun = True
        try:
            await self.gateway.application(self.scope(), self.receive, self.send)
            if self._wanted() and self._told:
                self.exchange.abort()
            elif self._wanted():
                self._incomplete()
        except ClientDisconnected as error:
            # The application let it pass, as it may; but it can come from another exchange's send.
            if self._wanted():
                self._failed(error)
        except asyncio.CancelledError as error:
            if not self._cancelled:
                self._failed(error)
            elif self._wanted():
                self.exchange.abort()
        except GeneratorExit:
            raise  # the loop has been closed around it; there is nobody to answer
        except BaseException as error:  # whatever user code raises, SystemExit too, ends one request only
            self._failed(error)
        finally:
            self.gateway.running.discard(self)

    def _wanted(self) -> bool:
        """Somebody waits for what the application has not sent."""
        return not (self.exchange.finished or self.exchange.disconnected)

    def _incomplete(self) -> None:
        missing = "ended its response" if self.exchange.started else "started a response"
        self._failed(self._breach or ApplicationError(f"the application returned before it {missing}"))

    def _failed(self, error: BaseException) -> None:
        exchange = self.exchange
        request = exchange.request
        if exchange.disconnected or self._told:
            # Frameworks raise to leave a response that nobody reads; it is nobody's mistake.
            logger.debug("%s ended: its client has gone: %r", self, error)
            _close_generators(error)
            if self._wanted():
                exchange.abort()
            return
        logger.error("%s %s failed", request.method, request.target.decode("latin-1"), exc_info=error)
        if not self._wanted():
            return
        if exchange.started and not exchange.withdraw():
            exchange.abort()
            return
        status, headers, body = self.gateway.on_error(request, error)
        exchange.start(status, headers)
        exchange.write(body, False)

    async def _wait(self) -> None:
        # More than one task of the application may wait; the first to come makes the future.
        if self._waiter is None:
            self._waiter = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._waiter)

    async def receive(self) -> Message:
        exchange = self.exchange
        while not (self._closed or exchange.finished):
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
        self._told = not exchange.finished
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        exchange = self.exchange
        more = True
        try:
            kind = message.get("type")
            if kind == "http.response.body":
                more = bool(message.get("more_body", False))
                self._has_body = True
                exchange.write(_body(message), more if self._trailers is None else self._trailers.body(more))
            elif kind == "http.response.start":
                self._start(message)
                return
            else:
                more = self._extend(kind, message)
        except ApplicationError as error:
            if self._breach is None:
                self._breach = ApplicationError(f"{error} ({self._state(message)})")
            raise self._breach from None
        while exchange.paused and not exchange.disconnected:
            await self._wait()
        if not more:
            self.wake()  # a task of the application that waits for the disconnect
        elif exchange.disconnected:
            raise ClientDisconnected("the client has closed the connection")

    def _start(self, message: Message) -> None:
        exchange, headers = self.exchange, message.get("headers") or []
        if message.get("trailers", False) and not exchange.started:
            self._trailers = Trailers(exchange)
            self._trailers.start(_status(message), headers)
        else:
            exchange.start(_status(message), headers)

    def _extend(self, kind: Any, message: Message) -> bool:
        """Take a message of an extension; returns whether more of the response follows."""
        exchange, trailers = self.exchange, self._trailers
        if kind == "http.response.early_hint":
            hint(exchange, message)
            return True
        if kind == "http.response.trailers" and trailers is not None:
            return trailers.take(message)
        if kind == "http.response.pathsend":
            if self._has_body:
                raise ApplicationError(f"the application sent {kind!r} after a part of the body")
            send, more = send_path, False
        elif kind == "http.response.zerocopysend":
            send, more = send_descriptor, bool(message.get("more_body", False))
        else:
            raise ApplicationError(
                f"the application sent {kind!r}, which is not a message of an HTTP response"
            )
        self._has_body = True
        send(exchange, message, more if trailers is None else trailers.body(more))
        return more

    def _state(self, message: Message) -> str:
        exchange = self.exchange
        state = "had ended" if exchange.finished else "had begun" if exchange.started else "had not begun"
        return f"{message.get('type')!r} when the response {state}"


def _close_generators(error: BaseException | None) -> None:
    """Let go of what the frames of an exception hold, so that generators they iterate over are closed now.

    Else they would be when the collector finds the exception.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _body(message: Message) -> bytes:
    body = message.get("body", b"")
    if isinstance(body, bytes):
        return body
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    raise ApplicationError(f"the application sent a body that is {type(body).__name__}: it must be bytes")


def _status(message: Message) -> int:
    status = message.get("status")
    if isinstance(status, int):
        return status
    raise ApplicationError(f"the application sent the status {status!r}: it must be a number")
