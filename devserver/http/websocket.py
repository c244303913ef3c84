"""One WebSocket (RFC 6455): implements `exchange.Session` on a transport.

wsproto turns bytes into frames and back. This module decides what a frame means here: it holds
the client back when the application does not keep up, answers and sends pings, and ends the
connection. Events are pulled from wsproto one by one and only while there is
room for another message, so that 64 KiB of tiny or well compressed frames cannot become any number
of messages in memory.

How a connection ends:

    we close        close frame, then what arrives is dropped until the client's close frame
    the client      its close frame is returned, then the transport is closed
    we must close   (1002, 1007, 1009, 1011 for silence) close frame, end of our side, then what
                    arrives is dropped unread: a close with unread data would reset the connection
                    and the client would never see the code

Each of these is cut when nothing has moved for `CLOSE_TIMEOUT`.

Refuses to know ASGI, and how an ordinary response is written: `Owner` does that.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import Protocol

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from devserver.errors import ApplicationError
from devserver.http import deflate, handshake
from devserver.http.codes import (
    CLOSE_BROKEN,
    CLOSE_INTERNAL_ERROR,
    CLOSE_RESTART,
    CLOSE_TOO_BIG,
    SERVICE_UNAVAILABLE,
)
from devserver.http.exchange import Exchange, Gateway, Handler, Headers, Request
from devserver.http.inbox import WAITING_BYTES, Inbox, TooBig
from devserver.websockets import WebSocket

logger = logging.getLogger("devserver")

CLOSE_TIMEOUT = 1.0
"""Seconds without progress after which a connection that is being closed is cut."""


class Refusal(Exchange, Protocol):
    """An ordinary response to a handshake. Attributes: handler: whom to wake."""

    handler: Handler | None


class Owner(Protocol):
    """Where a WebSocket came from: the HTTP connection, or the stream of one, that it was."""

    def closed(self, connection: WebSocketConnection) -> None:
        """The WebSocket is over, or has become an ordinary response."""
        ...

    def accept(
        self, opening: handshake.Opening, subprotocol: str | None, extension: str, headers: Headers
    ) -> None:
        """Send the answer that completes a handshake; see `handshake.answer`."""
        ...

    def refusal(self, request: Request) -> Refusal:
        """Take the transport back, for an ordinary response after which it is closed."""
        ...


class Phase(Enum):
    """Where a connection stands."""

    OPENING = "opening"  # the application has not answered the handshake
    REFUSED = "refused"  # it is an ordinary response now, and the owner's
    OPEN = "open"
    CLOSING = "closing"  # our close frame is sent, the client's is awaited
    FAILED = "failed"  # our close frame is sent, whatever arrives is dropped
    CLOSED = "closed"


class WebSocketConnection(asyncio.Protocol):
    """See the module, and `exchange.Session` for what a gateway uses.

    Attributes beyond those:
        handler: the gateway's side; None until the handshake has been found good.
        waiting: see `http.connection.Connection`.
    """

    waiting = False

    def __init__(
        self,
        transport: asyncio.Transport,
        request: Request,
        gateway: Gateway,
        settings: WebSocket,
        owner: Owner,
    ) -> None:
        """Args: request: a checked head that asks for a WebSocket; it is held against RFC 6455 here."""
        self.request = request
        self.handler: Handler | None = None
        self.subprotocols: list[str] = []
        self.accepted = False
        self.close_code: int | None = None
        self.close_reason = ""
        self.paused = False
        self._transport = transport
        self._gateway = gateway
        self._settings = settings
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._phase = Phase.OPENING
        self._opening: handshake.Opening | None = None
        self._frames = Connection(ConnectionType.SERVER)
        self._early = b""
        self._inbox = Inbox(settings.max_size)
        self._held = False
        self._timer: asyncio.TimerHandle | None = None
        self._pings = 0
        self._unanswered: Ping | None = None  # there is no room for its answer
        self._refusal: Refusal | None = None

    @property
    def _target(self) -> str:
        return self.request.target.decode("latin-1")

    def begin(self, rest: bytes) -> None:
        """Check the handshake and call the gateway.

        Args:
            rest: bytes that came after the head.
        """
        try:
            self._opening = handshake.read(self.request)
        except handshake.BadHandshake as bad:
            logger.warning("refused the WebSocket %s: %s", self._target, bad)
            self._refuse_with(bad.status, str(bad), bad.headers)
            return
        self.subprotocols = self._opening.subprotocols
        if rest:
            self.data_received(rest)
        self.handler = self._gateway.session(self)
        if self._refusal is not None:  # an application under eager tasks was as fast as that
            self._refusal.handler = self.handler

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.OPENING:
            self._early += data  # a client should wait for the 101; one that does not is held back
            if len(self._early) > WAITING_BYTES:
                self._hold()
        elif self._phase in (Phase.OPEN, Phase.CLOSING):
            self._frames.receive_data(data)
            self._pump()

    def eof_received(self) -> bool:
        return False  # nothing can follow, so the transport closes itself; connection_lost says the rest

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._phase = Phase.CLOSED
        self.paused = False
        self._owner.closed(self)
        self._ended(CLOSE_BROKEN, "")

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._unanswered is not None:
            self._answer(self._unanswered)
        self._wake()

    # exchange.Session

    def accept(self, subprotocol: str | None, headers: Headers) -> None:
        if self.accepted or self._phase is Phase.REFUSED:
            raise ApplicationError("the application answered the handshake of a WebSocket twice")
        if self._phase is not Phase.OPENING:
            return  # the client has gone
        assert self._opening is not None
        agreed = None
        if self._settings.deflate:
            agreed = deflate.negotiate(self._opening.extensions, self._settings.max_size)
        extension = agreed[1] if agreed else ""
        self._owner.accept(self._opening, subprotocol, extension, headers)
        self._frames = Connection(ConnectionType.SERVER, [agreed[0]] if agreed else [])
        self.accepted = True
        self._phase = Phase.OPEN
        self._schedule_ping()
        self._unhold()
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)

    def refuse(self) -> Exchange:
        if self._phase not in (Phase.OPENING, Phase.CLOSED) or self.accepted:
            raise ApplicationError("the application answered the handshake of a WebSocket twice")
        self._phase = Phase.REFUSED
        self._unhold()
        refusal = self._refusal = self._owner.refusal(self.request)
        refusal.handler = self.handler
        self._owner.closed(self)
        return refusal

    def receive(self) -> str | bytes | None:
        message = self._inbox.take()
        if self._held and self._inbox.roomy:
            self._pump()
            if not self._inbox.full:
                self._unhold()
        return message

    def send(self, message: str | bytes) -> None:
        if self._phase is Phase.OPEN:
            event = TextMessage(data=message) if isinstance(message, str) else BytesMessage(data=message)
            self._transport.write(self._frames.send(event))

    def close(self, code: int, reason: str) -> None:
        self._close(code, reason, "")

    def _close(self, code: int, reason: str, told: str) -> None:
        """Begin the close. Args: told: the reason that the application hears."""
        if self._phase is Phase.OPEN:
            self._send_close(Phase.CLOSING, code, reason, told)
            self._pump()  # the client's close frame may be among what was held back

    # the server's wishes

    @property
    def endless(self) -> list[Handler]:
        """A WebSocket never ends by itself."""
        return [] if self.handler is None else [self.handler]

    def abandoned(self) -> None:
        """It cannot be given away."""

    def shutdown(self, code: int = CLOSE_RESTART, reason: str = "") -> None:
        """Close at once, or refuse a handshake that was not answered yet.

        Args:
            code: 1012 for a restart, 1001 for good.
            reason: for both sides; at most 123 bytes of it are sent. "restart" with 1012 if it is "".
        """
        if self._phase is Phase.OPENING:
            self._refuse_with(
                SERVICE_UNAVAILABLE, "the server is restarting or stopping", [(b"Retry-After", b"1")]
            )
            self._ended(CLOSE_BROKEN, "")
        else:
            reason = reason or ("restart" if code == CLOSE_RESTART else "")
            self._close(code, reason, reason)

    def disconnect(self, why: str = "") -> None:
        """The grace is over: cut the connection. Its close has been sent, and can say no more."""
        self._transport.abort()
        self._ended(CLOSE_BROKEN, "")

    # what arrives

    def _pump(self) -> None:
        """Take what has arrived apart, as far as the application keeps up."""
        if self._phase not in (Phase.OPEN, Phase.CLOSING) or (self._phase is Phase.OPEN and self._inbox.full):
            return
        for event in self._frames.events():
            self._take(event)
            if self._phase is Phase.OPEN:
                if self._inbox.full:
                    self._hold()
                    break
            elif self._phase is not Phase.CLOSING:
                break

    def _take(self, event: Event) -> None:
        opened = self._phase is Phase.OPEN
        if isinstance(event, CloseConnection):
            self._take_close(event)
        elif isinstance(event, TextMessage | BytesMessage):
            if opened:
                self._take_message(event)
        elif isinstance(event, Ping):
            self._answer(event)
        elif isinstance(event, Pong) and opened and event.payload == b"%d" % self._pings:
            self._schedule_ping()

    def _answer(self, ping: Ping) -> None:
        """Send the pong. While there is no room, only that to the last ping is owed (RFC 6455 section 5.5.3).

        Else a client that sends pings and reads nothing would fill the memory.
        """
        self._unanswered = ping if self.paused else None
        if self._phase is Phase.OPEN and not self.paused:
            self._transport.write(self._frames.send(ping.response()))

    def _take_message(self, event: TextMessage | BytesMessage) -> None:
        data = event.data if isinstance(event, TextMessage) else bytes(event.data)
        try:
            if self._inbox.add(data, event.message_finished):
                self._wake()
        except TooBig:
            self._fail(CLOSE_TOO_BIG, "")

    def _take_close(self, event: CloseConnection) -> None:
        if self._frames.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
            self._fail(event.code, event.reason or "")  # no frame of the client's: wsproto gave up
            return
        if self._phase is Phase.OPEN:
            self._transport.write(self._frames.send(event.response()))
        self._phase = Phase.CLOSED
        self._transport.close()
        self._await_end()
        self._ended(int(event.code), event.reason or "")

    # the end

    def _fail(self, code: int, reason: str) -> None:
        """The client broke the protocol, a limit, or off (RFC 6455 section 7.1.7)."""
        if self._phase is Phase.OPEN:
            if code == CLOSE_TOO_BIG:
                reason = f"message larger than {self._settings.max_size} bytes (--ws-max-size)"
            logger.warning("closed the WebSocket %s with %d: %s", self._target, code, reason)
            self._send_close(Phase.FAILED, code, reason, "")
        self._phase = Phase.FAILED
        if self._transport.can_write_eof() and not self._transport.is_closing():
            try:
                self._transport.write_eof()
            except (OSError, RuntimeError):  # the latter is uvloop's
                self._transport.abort()  # the other side was faster

    def _send_close(self, phase: Phase, code: int, reason: str, told: str) -> None:
        self._phase = phase
        self._transport.write(self._frames.send(CloseConnection(code=code, reason=reason)))
        self._await_end()
        self._unhold()
        self._ended(code, told)

    def _await_end(self) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(CLOSE_TIMEOUT, self._cut, self._transport.get_write_buffer_size())

    def _cut(self, unsent: int) -> None:
        if self._transport.get_write_buffer_size() < unsent:
            self._await_end()  # slow, but alive
        else:
            self._transport.abort()

    def _ended(self, code: int, reason: str) -> None:
        """The first to say how the connection ended is right."""
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
        self._wake()

    def _refuse_with(self, status: int, reason: str, headers: Headers) -> None:
        refusal = self.refuse()
        refusal.start(status, [(b"Content-Type", b"text/plain; charset=utf-8"), *headers])
        refusal.write(reason.encode() + b"\n", False)

    # pings (RFC 6455 section 5.5.2); one timer, for the next ping or for the answer to the last

    def _schedule_ping(self) -> None:
        self._stop_timer()
        if self._settings.ping_interval:
            self._timer = self._loop.call_later(self._settings.ping_interval, self._ping)

    def _ping(self) -> None:
        self._pings += 1
        self._transport.write(self._frames.send(Ping(payload=b"%d" % self._pings)))
        if self._settings.ping_timeout:
            self._timer = self._loop.call_later(self._settings.ping_timeout, self._miss_pong)
        else:
            self._schedule_ping()

    def _miss_pong(self) -> None:
        if self._held:
            # The pong may wait behind messages that the application has not taken.
            self._timer = self._loop.call_later(self._settings.ping_timeout, self._miss_pong)
        else:
            self._fail(CLOSE_INTERNAL_ERROR, "keepalive ping timeout")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # back pressure

    def _hold(self) -> None:
        if not self._held:
            self._held = True
            self._transport.pause_reading()

    def _unhold(self) -> None:
        if self._held:
            self._held = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _wake(self) -> None:
        if self.handler is not None:
            self.handler.wake()
