"""How an accepted connection becomes one that HTTP can be read from.

    Plain       it is one
    Handshake   this process ends TLS: the handshake comes first; what is not TLS gets an answer of its own
    Handed      another process ends TLS, and hands over what it has accepted, with a letter about each

Refuses to know what is served on a connection: `make` makes the protocol.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Protocol

from devserver.config import Config
from devserver.front import letter, plain
from devserver.http.exchange import Peer
from devserver.http.h2 import is_spoken
from devserver.http.peer import Ends, peer

logger = logging.getLogger("devserver")

Make = Callable[[bytes | None, Ends], asyncio.Protocol]
"""Makes the protocol of a connection, from what was read of it and what says whose its ends are."""


_SHUTDOWN = 3600.0
"""Seconds that a client may take for what is left at the end. Who is gone is noticed sooner (`http.line`)."""


class Contexts(Protocol):
    """What has a TLS context for each connection."""

    def current(self) -> ssl.SSLContext:
        """The context for a connection that begins now."""


class Entrance(Protocol):
    """See the module.

    Attributes:
        accepts: whether connections are accepted here.
        waits: whether what enters may take as long as a client likes.
    """

    accepts: bool
    waits: bool

    async def enter(self, connection: socket.socket, data: bytes | None, make: Make) -> None:
        """Have a connection served; it is closed if that cannot be.

        Args:
            data: what a predecessor has read of it; None if it had none.
            make: makes its protocol.

        Raises:
            OSError: it was gone before it was begun.
        """


def ends_elsewhere(config: Config) -> bool:
    """Whether another process ends TLS: that which restarts could not hand a session to its successor.

    Where no descriptor can be sent, as on Windows, nobody else can.
    """
    return config.tls.enabled and config.reload.enabled and sys.platform != "win32"


def entrance(config: Config) -> Entrance:
    """The entrance of a process that serves.

    Raises:
        devserver.errors.UsageError: a certificate cannot be used.
    """
    if not config.tls.enabled:
        return Plain()
    if ends_elsewhere(config):
        return Handed()
    return Handshake(config)


class Plain:
    """See the module."""

    accepts, waits = True, False

    async def enter(self, connection: socket.socket, data: bytes | None, make: Make) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: make(data, peer), connection)


class Handed:
    """See the module."""

    accepts, waits = False, False

    async def enter(self, connection: socket.socket, data: bytes | None, make: Make) -> None:
        try:
            about, rest = letter.take(data or b"")
        except ValueError:
            logger.error("a connection came without a letter, and was closed")
            connection.close()
            return
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: make(rest, lambda transport: about), connection)


class Handshake:
    """See the module."""

    accepts, waits = True, True

    def __init__(self, config: Config, contexts: Contexts | None = None) -> None:
        """
        Args:
            contexts: gives the TLS contexts, if not those that the options ask for.

        Raises:
            devserver.errors.UsageError: the certificate cannot be used.
        """
        from devserver.front import tls

        self._contexts = contexts or tls.Contexts(config.tls, is_spoken(config.http))
        self._describe = tls.describe
        self._tell_failed = tls.tell_failed
        self._patience = config.http.header_timeout

    async def enter(self, connection: socket.socket, data: bytes | None, make: Make) -> None:
        try:
            async with asyncio.timeout(self._patience):
                first = await self._peek(connection)
                if not plain.is_tls(first):
                    await self._refuse(connection, first)
                    return
        except (TimeoutError, asyncio.CancelledError):
            connection.close()
            return
        loop = asyncio.get_running_loop()
        name = connection.getpeername()
        try:
            await loop.connect_accepted_socket(
                lambda: make(None, self._ends),
                connection,
                ssl=self._contexts.current(),
                ssl_handshake_timeout=self._patience,
                ssl_shutdown_timeout=_SHUTDOWN,
            )
        except (ssl.SSLError, TimeoutError) as error:
            self._tell_failed(name, error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()

    def _ends(self, transport: asyncio.BaseTransport) -> Peer:
        ends = peer(transport)
        ends.scheme, ends.tls = "https", self._describe(transport.get_extra_info("ssl_object"))
        return ends

    async def _peek(self, connection: socket.socket) -> int:
        """The first byte, which stays where it is; 0 for none."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return (connection.recv(1, socket.MSG_PEEK) or b"\0")[0]
            except (BlockingIOError, InterruptedError):
                ready = asyncio.Event()
                loop.add_reader(connection, ready.set)
                try:
                    await ready.wait()
                finally:
                    loop.remove_reader(connection)

    async def _refuse(self, connection: socket.socket, first: int) -> None:
        """Answer what speaks no TLS, and close."""
        with connection:
            if not plain.may_be_http(first):
                return
            loop = asyncio.get_running_loop()
            head = b""
            while not plain.is_whole(head):
                data = await loop.sock_recv(connection, plain.MOST)
                if not data:
                    return
                head += data
            await loop.sock_sendall(connection, plain.answer(head))
            connection.shutdown(socket.SHUT_WR)
            while await loop.sock_recv(connection, plain.MOST):
                pass  # closed with something unread, it would be reset, and the answer with it
