"""The process that ends TLS while generations come and go.

A TLS session cannot be handed from one process to the next, and a child has ended before its successor
serves. So with `--reload` this process accepts, does the handshake, and gives the supervisor one end of a
socket pair for each connection, with a letter about it (`letter`). To a child that is a connection like
any other: it is handed over at a restart, while the client's session stays here.

Without user code, and not with asyncio: two directions, each with an end of its own, are what a transport of
asyncio's with TLS cannot do. It ends when the supervisor's end of the channel is closed; told to finish, it
first sends what is left.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from devserver import console
from devserver.config import Config
from devserver.errors import DevserverError
from devserver.front import letter
from devserver.front.relay import READ, WRITE, Phase, Relay
from devserver.front.tls import Contexts, describe
from devserver.front.words import CONNECTIONS, FINISH, READY, REFUSED
from devserver.http.exchange import Peer
from devserver.http.h2 import is_spoken
from devserver.http.peer import address
from devserver.process import adopt, listeners_from
from devserver.process.control import Channel, Closed, Message, QueueingChannel, pack
from devserver.process.limits import raise_limit
from devserver.process.signals import leave_interrupts

logger = logging.getLogger("devserver")

_BURST = 64
"""Connections that are accepted in a turn, and given together."""

_PAUSE = 0.5
"""Seconds without accepting after the system had no descriptor left."""

_SILENCE, _PATIENCE = 2.0, 30.0
"""Seconds that a client may be silent, and may go on sending, after our side has ended."""

_HURRY = 0.1
"""Seconds of silence that will do at the end."""

_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def main() -> None:
    """Be the terminator of the supervisor that started this process."""
    channel = adopt()
    if channel is None:
        sys.exit("this is a part of devserver, which starts it by itself")
    leave_interrupts()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its supervisor, and not before
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise_limit()
    with suppress(Closed):
        serve(channel)
    # Nothing is left to do, and nothing here has a destructor worth waiting for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def serve(channel: Channel) -> None:
    """Read the first message, which has the configuration and the listeners, and serve.

    Raises:
        Closed: the supervisor is gone.
    """
    message, fds = channel.receive_one()
    config = Config.from_json(message["config"])
    console.configure(config.log)
    try:
        contexts = Contexts(config.tls, is_spoken(config.http))
    except DevserverError as error:
        channel.send({"word": REFUSED, "error": str(error)})
        return
    listeners = listeners_from(message, fds)
    for sock in listeners:
        sock.setblocking(False)
    channel.send({"word": READY})
    Terminator(QueueingChannel(channel.socket), listeners, contexts, config.http.header_timeout).run()


class Terminator:
    """See the module.

    Attributes:
        contexts: of TLS.
    """

    def __init__(
        self, channel: QueueingChannel, listeners: list[socket.socket], contexts: Contexts, patience: float
    ) -> None:
        """Args: patience: seconds that a client may take for its handshake."""
        self.contexts = contexts
        self._channel = channel
        self._listeners = listeners
        self._patience = patience
        self._selector = selectors.DefaultSelector()
        self._relays: dict[
            Relay, tuple[float, float]
        ] = {}  # when each has to have gone on, and at the latest
        self._new: list[tuple[socket.socket, bytes]] = []
        self._sent: deque[socket.socket] = deque()
        self._again: set[Relay] = set()
        self._accept_at = 0.0
        self._end_at: float | None = None
        self._looked = 0.0
        self._selector.register(channel, READ)
        self._accepts(True)

    def run(self) -> None:
        """Serve until the supervisor is gone, or what is left is sent after it said so.

        Raises:
            Closed: the supervisor is gone.
        """
        while self._end_at is None or self._relays:
            now = time.monotonic()
            if self._end_at is not None and now >= self._end_at:
                return
            ready = self._selector.select(0 if self._again else self._timeout(now))
            again, self._again = self._again, set()
            for relay in again:
                if relay.phase is Phase.OPEN:
                    self._guarded(relay, relay.move)
            for key, events in ready:
                if key.fileobj is self._channel:
                    self._hear()
                elif isinstance(key.data, Relay):
                    is_outer = key.data.is_outer(key.fd)
                    self._guarded(key.data, partial(key.data.ready, is_outer, events))
                else:
                    self._accept(key.data)
            self._send()
            self._be_punctual(time.monotonic())

    def _guarded(self, relay: Relay, what: Callable[[], None]) -> None:
        """Do something for a connection. Whatever goes wrong ends it, and no other one."""
        try:
            what()
        except Exception:  # of OpenSSL's, say, about a certificate of a client's that nobody has thought of
            logger.exception("a connection was closed")
            relay.close()

    # connections

    def _accepts(self, yes: bool) -> None:
        for sock in self._listeners:
            if yes:
                self._selector.register(sock, READ, sock)
            else:
                self._selector.unregister(sock)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_BURST):
            try:
                connection, _address = listener.accept()
                connection.setblocking(False)
                if connection.family != getattr(socket, "AF_UNIX", None):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                Relay(self, connection)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF_DESCRIPTORS and not self._accept_at:
                    logger.error(
                        "cannot accept a connection: %s; raise the limit of open files", error.strerror
                    )
                    self._accepts(False)
                    self._accept_at = time.monotonic() + _PAUSE
                    return
                # Otherwise this one is gone already.

    def give(self, relay: Relay, inner: socket.socket) -> None:
        """See `relay.Owner`."""
        ends = Peer(address(relay.client), address(relay.server), "https", tls=describe(relay.session))
        self._new.append((inner, letter.write(ends)))

    def watch(self, relay: Relay, sock: socket.socket, events: int) -> None:
        """See `relay.Owner`."""
        if sock.fileno() < 0:
            return
        known = self._selector.get_map().get(sock.fileno())
        if known is None:
            if events:
                self._selector.register(sock, events, relay)
        elif not events:
            self._selector.unregister(sock)
        elif known.events != events:
            self._selector.modify(sock, events, relay)

    def again(self, relay: Relay) -> None:
        """See `relay.Owner`."""
        self._again.add(relay)

    def moved(self, relay: Relay) -> None:
        """See `relay.Owner`."""
        now = time.monotonic()
        match relay.phase:
            case Phase.CLOSED:
                self._relays.pop(relay, None)
                self._again.discard(relay)
            case Phase.OPEN | Phase.LEAVING:
                self._relays[relay] = float("inf"), float("inf")
            case Phase.LINGERING:
                _, latest = self._relays.get(relay, (0.0, 0.0))
                latest = latest if latest < float("inf") else now + _PATIENCE
                self._relays[relay] = now + (_SILENCE if self._end_at is None else _HURRY), latest
            case _:
                _, latest = self._relays.get(relay, (0.0, now + self._patience))
                self._relays[relay] = latest, latest

    # the supervisor

    def _send(self) -> None:
        new, self._new = self._new, []
        for at in range(0, len(new), _BURST):
            some = new[at : at + _BURST]
            for fds, sizes, data in pack([(sock.fileno(), text) for sock, text in some]):
                self._channel.send({"word": CONNECTIONS, "sizes": sizes, "data": data}, fds)
            self._sent += [sock for sock, _ in some]  # to be open until it is written
        self._channel.flush()
        if not self._channel.pending:
            while self._sent:
                self._sent.popleft().close()
        events = READ | WRITE if self._channel.pending else READ
        if self._selector.get_key(self._channel).events != events:
            self._selector.modify(self._channel, events)

    def _hear(self) -> None:
        for message, _ in self._channel.receive():
            if message["word"] == FINISH:
                self._finish(message)

    def _finish(self, message: Message) -> None:
        """Accept nothing any more, and let go of what has not begun. What is left is sent, within a time."""
        now = time.monotonic()
        self._end_at = now + message["seconds"]
        if not self._accept_at:
            self._accepts(False)
        self._listeners = []
        for relay in list(self._relays):
            if relay.phase is Phase.LINGERING:
                self._relays[relay] = now + _HURRY, now + _HURRY
            elif not relay.is_busy:
                relay.close()

    # time

    @property
    def _grain(self) -> float:
        """Seconds between two looks at who is late."""
        return _PAUSE if self._end_at is None else _HURRY / 4

    def _timeout(self, now: float) -> float | None:
        dues = [self._end_at, self._accept_at or None]
        if any(soon < float("inf") for soon, _ in self._relays.values()):
            dues.append(now + self._grain)
        due = min((each for each in dues if each is not None), default=None)
        return None if due is None else max(0.0, due - now)

    def _be_punctual(self, now: float) -> None:
        if self._accept_at and self._accept_at <= now:
            self._accept_at = 0.0
            self._accepts(True)
        if now - self._looked >= self._grain:
            self._looked = now
            for relay, (soon, latest) in list(self._relays.items()):
                if min(soon, latest) <= now:
                    relay.close()


if __name__ == "__main__":
    main()
