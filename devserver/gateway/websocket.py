"""A WebSocket to an ASGI application (ASGI HTTP & WebSocket spec 2.5) and back.

One task per WebSocket. What the application may send stands in a table, by the state that its own
messages have led to. Whether the client is still there is another matter, and the session's: its
`close_code` tells.

An application that breaks the protocol gets an `ApplicationError` out of `send`. Usually that ends
it, and the client gets a 500 or a close with 1011. If the application swallows the error the client
gets its answer all the same, at the next turn of the loop.

Refuses to know sockets, frames and the opening handshake's headers.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from enum import Enum
from typing import NoReturn

from devserver.errors import ApplicationError
from devserver.gateway.asgi_extensions import pairs
from devserver.gateway.asgi_words import ClientDisconnected, Gateway, Message, Scope
from devserver.gateway.tls import extension
from devserver.http.codes import CLOSE_BROKEN, CLOSE_INTERNAL_ERROR, CLOSE_NORMAL, CLOSES, FORBIDDEN
from devserver.http.exchange import Exchange, Headers, Session

logger = logging.getLogger("devserver")


class State(Enum):
    """Where the application has brought a WebSocket, as an error message says it."""

    CONNECTING = "that was neither accepted nor refused"
    OPEN = "that was accepted"
    RESPONDING = "that is being refused by a response"
    CLOSED = "that was closed or refused"


# What the application may send, by state: the state that follows.
_SENDS = {
    (State.CONNECTING, "websocket.accept"): State.OPEN,
    (State.CONNECTING, "websocket.close"): State.CLOSED,
    (State.CONNECTING, "websocket.http.response.start"): State.RESPONDING,
    (State.OPEN, "websocket.send"): State.OPEN,
    (State.OPEN, "websocket.close"): State.CLOSED,
    (State.RESPONDING, "websocket.http.response.body"): State.RESPONDING,  # CLOSED after the last
}


class AsgiSession:
    """The application at work on one WebSocket: a `Handler`, and its `receive` and `send`."""

    __slots__ = (
        "_breach",
        "_cancelled",
        "_connected",
        "_response",
        "_state",
        "_task",
        "_waiter",
        "gateway",
        "session",
    )

    def __init__(self, gateway: Gateway, session: Session) -> None:
        self.gateway = gateway
        self.session = session
        self._state = State.CONNECTING
        self._connected = False  # the application has received websocket.connect
        self._cancelled = False  # by the server, not by the application itself
        self._response: Exchange | None = None  # the refusal
        self._breach: ApplicationError | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __str__(self) -> str:
        return f"WebSocket {self.session.request.target.decode('latin-1')}"

    def start(self, context: contextvars.Context) -> None:
        """Call the application. The gateway has put this among its `running`; it takes itself out.

        Args:
            context: the context variables that the application sees and may change.
        """
        self._task = asyncio.get_running_loop().create_task(self.run(), context=context)
        self._task.add_done_callback(self._done)

    def wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def cancel(self) -> None:
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    def scope(self) -> Scope:
        """The connection scope (ASGI WebSocket spec, "Websocket Connection Scope")."""
        gateway, request = self.gateway, self.session.request
        peer = request.peer
        root_path, path = gateway.place(request)
        return {
            "type": "websocket",
            "asgi": gateway.version.copy(),
            "http_version": request.version,
            "scheme": "wss" if peer.scheme == "https" else "ws",
            "path": path,
            "raw_path": request.path,
            "query_string": request.query,
            "root_path": root_path,
            "headers": request.headers,
            "client": peer.client,
            "server": peer.server,
            "subprotocols": list(self.session.subprotocols),
            "state": gateway.state.copy(),
            "extensions": {
                "websocket.http.response": {},
                **({} if peer.tls is None else {"tls": extension(peer.tls)}),
            },
        }

    async def run(self) -> None:
        try:
            await self.gateway.application(self.scope(), self.receive, self.send)
            self._returned()
        except ClientDisconnected as error:
            # The application let it pass, as it may; but it can come from another WebSocket's send.
            if self._state is not State.CLOSED and self._wanted():
                self._failed(error)
        except asyncio.CancelledError as error:
            if self._cancelled:
                self._end(error)
            else:
                self._failed(error)
        except GeneratorExit:
            raise  # the loop has been closed around it; there is nobody to answer
        except BaseException as error:  # whatever user code raises, SystemExit too, ends one WebSocket only
            self._failed(error)

    # how the application ends

    def _done(self, task: asyncio.Task[None]) -> None:
        self.gateway.running.discard(self)
        if task.cancelled():  # before its first step, when `run` could not see to it
            self._end(asyncio.CancelledError())

    def _returned(self) -> None:
        if self._breach is not None:
            self._failed(self._breach)
        elif self._state is State.OPEN:
            # The spec only says that the socket is closed. Returning is how an ASGI call ends well,
            # so the code says so too: after an error code client libraries connect again.
            self.session.close(CLOSE_NORMAL, "")
        elif self._state is not State.CLOSED and self._wanted():
            self._failed(ApplicationError(f"the application returned from a WebSocket {self._state.value}"))

    def _failed(self, error: BaseException) -> None:
        logger.error("%s failed", self, exc_info=error)
        self._end(error)

    def _end(self, error: BaseException) -> None:
        """Give the client its answer, if it still waits for one."""
        state, self._state = self._state, State.CLOSED
        if state is State.OPEN:
            self.session.close(CLOSE_INTERNAL_ERROR, "")
        elif state is not State.CLOSED and self._wanted():
            response = self._response
            if response is not None and response.started and not response.withdraw():
                response.abort()
            else:
                self._refuse(*self.gateway.on_error(self.session.request, error))
        self.wake()

    def _refuse(self, status: int, headers: Headers, body: bytes) -> None:
        if self._response is None:
            self._response = self.session.refuse()
        self._response.start(status, headers)
        self._response.write(body, False)

    def _wanted(self) -> bool:
        """Somebody waits for what the application does."""
        gone = self._response is not None and self._response.disconnected
        return self.session.close_code is None and not gone

    # receive

    async def receive(self) -> Message:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        session = self.session
        while True:
            message = session.receive()  # what came before a close comes out before it
            if isinstance(message, str):
                return {"type": "websocket.receive", "text": message}
            if message is not None:
                return {"type": "websocket.receive", "bytes": message}
            code, response = session.close_code, self._response
            if code is not None:
                return {"type": "websocket.disconnect", "code": code, "reason": session.close_reason}
            if response is not None and (response.finished or response.disconnected):
                return {"type": "websocket.disconnect", "code": CLOSE_BROKEN, "reason": ""}
            await self._wait()

    async def _wait(self) -> None:
        # More than one task of the application may wait; the first to come makes the future.
        if self._waiter is None:
            self._waiter = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._waiter)

    # send

    async def send(self, message: Message) -> None:
        if self._breach is not None:
            raise self._breach
        kind = message["type"]
        following = _SENDS.get((self._state, kind))
        if following is None:
            self._break(ApplicationError(f"the application sent {kind!r} on a WebSocket {self._state.value}"))
        if self.session.close_code is not None:
            if kind != "websocket.close":
                raise ClientDisconnected(f"the WebSocket was closed with {self.session.close_code}")
            # Who closes what has just been closed has what it wants. An error here is what users of
            # other servers meet when client and application hang up at the same time.
            self._state = following
            return
        try:
            _ACTIONS[kind](self, message)
        except ApplicationError as error:
            self._break(error)
        response = self._response
        self._state = following if response is None or not response.finished else State.CLOSED
        if self._state is State.CLOSED:
            self.wake()  # a task of the application that waits for the disconnect
        await self._drain()

    async def _drain(self) -> None:
        """Wait until the client has taken enough of what was sent."""
        session, response = self.session, self._response
        if response is None:
            while session.paused and session.close_code is None:
                await self._wait()
            return
        while response.paused and not response.finished and not response.disconnected:
            await self._wait()
        if response.disconnected and not response.finished:
            raise ClientDisconnected("the client has closed the connection")

    def _break(self, error: ApplicationError) -> NoReturn:
        self._breach = error
        asyncio.get_running_loop().call_soon(self._end, error)
        raise error

    def _accept(self, message: Message) -> None:
        self.session.accept(message.get("subprotocol"), pairs(message.get("headers") or ()))

    def _send(self, message: Message) -> None:
        text, data = message.get("text"), message.get("bytes")
        if isinstance(text, str) and data is None:
            try:
                self.session.send(text)
            except UnicodeEncodeError:
                raise ApplicationError("'websocket.send' has text that UTF-8 cannot express") from None
        elif isinstance(data, bytes | bytearray | memoryview) and text is None:
            self.session.send(bytes(data))
        else:
            raise ApplicationError("'websocket.send' needs either 'text', a str, or 'bytes', a byte string")

    def _close(self, message: Message) -> None:
        if self._state is State.CONNECTING:
            body = b"The application did not accept the WebSocket.\n"
            self._refuse(FORBIDDEN, [(b"Content-Type", b"text/plain; charset=utf-8")], body)
            return
        code, reason = message.get("code"), message.get("reason")
        if code is None:
            code = CLOSE_NORMAL
        if not isinstance(code, int) or not (code in CLOSES or 3000 <= code <= 4999):
            raise ApplicationError(f"'websocket.close' has code {code!r}: use 1000 or 3000 to 4999")
        self.session.close(code, str(reason or ""))

    def _start_response(self, message: Message) -> None:
        status, headers = message.get("status"), pairs(message.get("headers") or ())
        if not isinstance(status, int):
            raise ApplicationError(f"'websocket.http.response.start' has status {status!r}: use a number")
        self._response = self.session.refuse()
        self._response.start(status, headers)

    def _continue_response(self, message: Message) -> None:
        body = message.get("body", b"")
        if not isinstance(body, bytes | bytearray | memoryview):
            raise ApplicationError(f"'websocket.http.response.body' has body {body!r:.40}: use bytes")
        assert self._response is not None
        self._response.write(bytes(body), bool(message.get("more_body", False)))


_ACTIONS: dict[str, Callable[[AsgiSession, Message], None]] = {
    "websocket.accept": AsgiSession._accept,
    "websocket.send": AsgiSession._send,
    "websocket.close": AsgiSession._close,
    "websocket.http.response.start": AsgiSession._start_response,
    "websocket.http.response.body": AsgiSession._continue_response,
}
