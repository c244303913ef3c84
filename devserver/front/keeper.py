"""The supervisor's side of the terminator: begins it, takes what it gives, and begins it anew when it dies.

A terminator that dies takes its connections with it, and nothing else: the listeners are the supervisor's, so
that new connections wait, and the application is served by others. One that dies at once is begun less often.

Light, since the supervisor imports it: no TLS here.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from devserver.config import Config
from devserver.errors import UsageError
from devserver.front import letter
from devserver.front.words import CONNECTIONS, FINISH, READY, REFUSED
from devserver.process import Process, spawn
from devserver.process.control import Closed, Message, unpack
from devserver.process.reactor import Reactor

logger = logging.getLogger("devserver")

_AGAIN = 1.0
"""Seconds between two beginnings, but for the first after a death."""

_LOOK = 0.01
"""Seconds between two looks whether it has ended."""

Take = Callable[[Iterable[tuple[int, bytes]]], None]
"""Takes connections: descriptors, and the letter of each."""


class Keeper:
    """See the module."""

    def __init__(self, config: Config, sockets: Sequence[socket.socket]) -> None:
        """Args: sockets: the listeners."""
        self._config = config
        self._sockets = sockets
        self._child: Process | None = None
        self._begun = 0.0
        self._begin_at: float | None = None
        self._told = ""
        self._reactor: Reactor | None = None
        self._take: Take = lambda connections: None

    def begin(self) -> None:
        """Start the terminator, and wait until it accepts.

        Raises:
            UsageError: the certificate or another option cannot be used.
        """
        child = self._child = self._start()
        try:
            while not (heard := child.channel.receive()):
                child.channel.wait(_AGAIN)
        except Closed:
            code = child.wait()
            self._let_go(child)
            raise UsageError(f"the process that ends TLS exited with code {code}") from None
        if heard[0][0]["word"] == REFUSED:
            self._let_go(child)
            raise UsageError(heard[0][0]["error"])

    def attend(self, reactor: Reactor, take: Take) -> None:
        """Take connections from now on. Args: take: gets what is to be served."""
        self._reactor, self._take = reactor, take
        if self._child is not None:
            self._listen(self._child)

    @property
    def pids(self) -> set[int]:
        """The terminator's process id."""
        return set() if self._child is None else {self._child.pid}

    def was_read(self, data: bytes) -> bool:
        """Whether among the bytes of a connection there are some that a client has sent."""
        return len(data) > letter.length(data)

    def deadlines(self) -> Iterable[float]:
        """When `be_punctual` has something to do, on `time.monotonic`."""
        return () if self._begin_at is None else (self._begin_at,)

    def be_punctual(self, now: float) -> None:
        """Begin it anew if that is due."""
        if self._begin_at is not None and self._begin_at <= now:
            self._begin_at = None
            try:
                self._child = self._start()
            except OSError as error:
                self._tell(f"cannot start the process that ends TLS: {error.strerror}")
                self._begin_at = now + _AGAIN
            else:
                self._listen(self._child)

    def close(self, seconds: float) -> None:
        """Have it send what is left, within so many seconds, and end."""
        child, self._child, self._begin_at = self._child, None, None
        if child is None:
            return
        try:
            child.channel.send({"word": FINISH, "seconds": seconds})
        except Closed:
            pass
        end = time.monotonic() + seconds + _AGAIN
        while child.exit_code() is None and (left := end - time.monotonic()) > 0:
            child.channel.wait(min(left, _LOOK))
            for message, fds in child.channel.drain():  # connections that nobody will serve
                for fd, _ in unpack(message.get("sizes", ()), message.get("data", b""), fds):
                    os.close(fd)
        self._let_go(child)

    def _start(self) -> Process:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        program = (
            f"import sys; sys.path.append({root!r}); from devserver.front.terminator import main; main()"
        )
        child = spawn([sys.executable, "-P", "-c", program], os.environ)
        self._begun = time.monotonic()
        try:
            child.send_listeners({"config": self._config.to_json()}, self._sockets)
        except Closed:
            pass  # it died at once, which its exit reports
        return child

    def _listen(self, child: Process) -> None:
        assert self._reactor is not None
        self._reactor.add(child.channel, lambda: self._heard(child), child.channel)
        self._reactor.add(child.fileno(), lambda: self._exited(child))

    def _heard(self, child: Process) -> None:
        assert self._reactor is not None
        try:
            for message, fds in child.channel.receive():
                self._said(message, fds)
        except Closed:
            self._reactor.remove(child.channel)  # its exit is reported by its own descriptor

    def _said(self, message: Message, fds: list[int]) -> None:
        word = message["word"]
        if word == CONNECTIONS:
            self._take(unpack(message["sizes"], message["data"], fds))
        elif word == READY:
            self._told = ""
        elif word == REFUSED:
            self._tell(message["error"])

    def _exited(self, child: Process) -> None:
        assert self._reactor is not None
        if child.exit_code() is None:
            return
        self._reactor.remove(child.fileno())
        if self._reactor.remove(child.channel):
            for message, fds in child.channel.drain():
                self._said(message, fds)
        self._let_go(child)
        self._child = None
        if not self._told:
            self._tell("the process that ends TLS died, and its connections with it; starting it again")
        now = time.monotonic()
        self._begin_at = now if now - self._begun > _AGAIN else now + _AGAIN

    def _tell(self, text: str) -> None:
        """Say what is wrong, once."""
        if text != self._told:
            self._told = text
            logger.error("%s", text)

    def _let_go(self, child: Process) -> None:
        if child.exit_code() is None:
            child.kill()
            child.wait()
        child.close()
