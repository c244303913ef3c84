"""One connection of the terminator: the client's TLS on the one side, a socket pair on the other.

    GREETING     nothing has come yet: its first byte tells TLS from plain text
    SHAKING      the handshake
    OPEN         bytes go both ways
    ASKING       plain text: the head is awaited that gets an answer of its own
    LEAVING      everything is sent but TLS's farewell
    LINGERING    our side is ended; what the client still sends is dropped until it ends its own
    CLOSED

Each way has one buffer, and nothing is read until it is written: a slow side is felt on the other one,
through the kernel's buffers, and no connection takes more memory than its two. The end of each side is
the end of the other's: TLS's farewell, `close_notify`, becomes the end of the stream in the socket pair,
and the reverse, so that a half-closed connection is one for the application, too (RFC 8446 section 6.1).

Refuses to know what the bytes are, who serves them, and how long anything may take.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
from contextlib import suppress
from enum import Enum, auto
from typing import Protocol

from devserver.front import plain
from devserver.front.tls import Contexts, tell_failed

logger = logging.getLogger("devserver")

BLOCK = 65536
_TURNS = 16
"""Blocks that a connection may move before others have their turn."""

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

_NOTHING = memoryview(b"")


class Phase(Enum):
    """See the module."""

    GREETING = auto()
    SHAKING = auto()
    OPEN = auto()
    ASKING = auto()
    LEAVING = auto()
    LINGERING = auto()
    CLOSED = auto()


class Owner(Protocol):
    """Who has relays.

    Attributes:
        contexts: of TLS.
    """

    contexts: Contexts

    def give(self, relay: Relay, inner: socket.socket) -> None:
        """Hand the other end of a connection's socket pair to whoever serves."""

    def watch(self, relay: Relay, sock: socket.socket, events: int) -> None:
        """Have `ready` called when a socket is so; 0: no more."""

    def again(self, relay: Relay) -> None:
        """Have `move` called soon: there may be more that no event tells of."""

    def moved(self, relay: Relay) -> None:
        """Another phase has begun."""


class Relay:
    """See the module.

    Attributes:
        phase: where it stands.
        client, server: names of the two ends of the client's connection.
    """

    __slots__ = (
        "_inner",
        "_inward",
        "_is_clean",
        "_outer",
        "_outward",
        "_owner",
        "_said",
        "_wants_read",
        "_wants_write",
        "client",
        "phase",
        "server",
    )  # fmt: skip

    def __init__(self, owner: Owner, sock: socket.socket) -> None:
        """Args: sock: accepted, not blocking."""
        self._owner = owner
        self._outer = sock
        self._inner: socket.socket | None = None
        self._inward = self._outward = _NOTHING  # read, and not written yet
        self._said = False  # the client has said all
        self._is_clean = True  # whoever serves has ended its side, and not broken off
        self._wants_read = self._wants_write = False  # TLS does, to write and to read
        self.client, self.server = sock.getpeername(), sock.getsockname()
        self._enter(Phase.GREETING)
        owner.watch(self, sock, READ)

    @property
    def session(self) -> ssl.SSLSocket:
        """The TLS session."""
        assert isinstance(self._outer, ssl.SSLSocket)
        return self._outer

    @property
    def is_busy(self) -> bool:
        """Whether it is served, or was and something of that is left to be sent."""
        return self.phase in (Phase.OPEN, Phase.LEAVING)

    def ready(self, is_outer: bool, events: int) -> None:
        """A socket is ready. Args: is_outer: it is the client's."""
        match self.phase:
            case Phase.OPEN:
                either = self._wants_read or self._wants_write
                self.move(
                    inward=bool(events & READ) if is_outer else bool(events & WRITE) or either,
                    outward=bool(events & WRITE) or either if is_outer else bool(events & READ),
                )
            case Phase.GREETING:
                self._greet()
            case Phase.SHAKING:
                self._shake()
            case Phase.ASKING:
                self._ask()
            case Phase.LEAVING:
                self._leave()
            case Phase.LINGERING:
                self._drop()

    def is_outer(self, fd: int) -> bool:
        """Whether a descriptor is the client's."""
        return self._outer.fileno() == fd

    # before anything is served

    def _greet(self) -> None:
        try:
            data = self._outer.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        elif plain.is_tls(data[0]):
            self._begin_tls()
        elif plain.may_be_http(data[0]):
            self._enter(Phase.ASKING)
            self._ask()
        else:
            self.close()

    def _begin_tls(self) -> None:
        self._owner.watch(self, self._outer, 0)
        context = self._owner.contexts.current()
        try:
            self._outer = context.wrap_socket(self._outer, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):  # gone meanwhile
            self.close()
            return
        self._enter(Phase.SHAKING)
        self._shake()

    def _shake(self) -> None:
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            self._owner.watch(self, self._outer, READ)
        except ssl.SSLWantWriteError:
            self._owner.watch(self, self._outer, WRITE)
        except (OSError, ValueError) as error:
            tell_failed(self.client, error)
            self.close()
        else:
            self._open()

    def _open(self) -> None:
        """The handshake is over: give one end of a pair to whoever serves."""
        try:
            self._inner, theirs = socket.socketpair()
        except OSError as error:
            logger.error("a connection was closed: %s; raise the limit of open files", error.strerror)
            self.close()
            return
        self._inner.setblocking(False)
        self._enter(Phase.OPEN)
        self._owner.give(self, theirs)
        self.move()

    def _ask(self) -> None:
        try:
            data = self._outer.recv(plain.MOST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._inward = memoryview(bytes(self._inward) + data)
        if not data:
            self.close()
        elif plain.is_whole(bytes(self._inward)):
            try:
                self._outer.send(plain.answer(bytes(self._inward)))  # a new connection has room for it
            except OSError:
                self.close()
            else:
                self._end()

    # while it is served

    def move(self, inward: bool = True, outward: bool = True) -> None:
        """Move what can be moved now, one way or both."""
        more = (inward and self._move_in()) | (outward and self.phase is Phase.OPEN and self._move_out())
        if self.phase is Phase.OPEN:
            self._arm()
            if more:
                self._owner.again(self)

    def _arm(self) -> None:
        assert self._inner is not None
        reads = not self._inward and not self._said
        outer = READ if self._wants_read or (reads and not self._wants_write) else 0
        if self._wants_write or (self._outward and not self._wants_read):
            outer |= WRITE
        self._owner.watch(self, self._outer, outer)
        inner = WRITE if self._inward else 0
        self._owner.watch(self, self._inner, inner if self._outward else inner | READ)

    def _move_in(self) -> bool:
        """From the client to whoever serves. Returns whether there may be more at once."""
        assert self._inner is not None
        for _ in range(_TURNS):
            if self._inward:
                try:
                    self._inward = self._inward[self._inner.send(self._inward) :]
                except (BlockingIOError, InterruptedError):
                    return False
                except OSError:  # nobody reads it any more; what was answered is still to be moved out
                    self._inward, self._said = _NOTHING, True
                    return False
                if self._inward:
                    continue
            if self._said:
                return False
            try:
                self._wants_write = False
                data = self._outer.recv(BLOCK)
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLWantWriteError:
                self._wants_write = True
                return False
            except OSError:
                self.close()  # the client is gone, and whoever serves sees an end
                return False
            if not data:
                self._said = True
                with suppress(OSError):  # nobody is there any more
                    self._inner.shutdown(socket.SHUT_WR)
                return False
            self._inward = memoryview(data)
        return True

    def _move_out(self) -> bool:
        """From whoever serves to the client. Returns whether there may be more at once."""
        assert self._inner is not None
        for _ in range(_TURNS):
            if self._outward:
                try:
                    self._wants_read = False
                    self._outward = self._outward[self._outer.send(self._outward) :]
                except ssl.SSLWantWriteError:
                    return False
                except ssl.SSLWantReadError:
                    self._wants_read = True
                    return False
                except OSError:
                    self.close()
                    return False
                continue
            try:
                data = self._inner.recv(BLOCK)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:  # broken off, with something unread
                data, self._is_clean = b"", False
            if not data:
                self._owner.watch(self, self._inner, 0)
                self._inner.close()
                self._inner, self._inward = None, _NOTHING
                self._enter(Phase.LEAVING)
                self._leave()
                return False
            self._outward = memoryview(data)
        return True

    # after it was served

    def _leave(self) -> None:
        """Say farewell, unless whoever served broke off: nobody is to take half for the whole."""
        if self._is_clean:
            try:
                self.session.unwrap()
            except ssl.SSLWantWriteError:
                self._owner.watch(self, self._outer, WRITE)
                return
            except (OSError, ValueError):
                pass  # it is said; the client's own is not waited for, or has come and was followed by more
        if self._said:
            self.close()
        else:
            self._end()

    def _end(self) -> None:
        """End our side. Closed with something unread, the connection would be reset, and the answer lost."""
        try:
            socket.socket.shutdown(self._outer, socket.SHUT_WR)
        except OSError:
            self.close()
        else:
            self._owner.watch(self, self._outer, READ)
            self._enter(Phase.LINGERING)

    def _drop(self) -> None:
        try:
            data = socket.socket.recv(self._outer, BLOCK)  # as it comes: nobody reads it
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        else:
            self._owner.moved(self)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._owner.moved(self)

    def close(self) -> None:
        """Let go of both sides, whatever is left."""
        if self.phase is not Phase.CLOSED:
            for sock in (self._outer, self._inner):
                if sock is not None:
                    self._owner.watch(self, sock, 0)
                    sock.close()
            self._inner, self._inward, self._outward = None, _NOTHING, _NOTHING
            self._enter(Phase.CLOSED)
