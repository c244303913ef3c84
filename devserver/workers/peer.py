"""Another arbiter on the same sockets: the one that succeeds this one, or that this one succeeds.

SIGUSR2 has an arbiter start the program anew, as nginx and gunicorn do: by then its files may be those of a
newer version. The successor is given the listening sockets, and both serve. Then SIGWINCH has the workers of
the first one leave, and SIGQUIT or SIGTERM ends it; or SIGTERM ends the successor, and SIGHUP brings the
workers back. Connections that workers leave when nobody of their own arbiter serves go to the other one.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from devserver.events import Events
from devserver.managers.systemd import Notifier
from devserver.origin import environ_for_another, folder_at_start
from devserver.process.control import Channel, Closed, QueueingChannel, unpack
from devserver.process.reactor import Reactor
from devserver.reload.protocol import Connections
from devserver.reload.transit import Transit
from devserver.workers import words

logger = logging.getLogger("devserver")

_SUCCEEDS = "DEVSERVER_SUCCEEDS"
"""Where a successor finds its channel: a descriptor and its inode."""

_NOT_FOR_IT = ("DEVSERVER_TREE", "DEVSERVER_WORKER", "WATCHDOG_PID")
"""Variables that are about one arbiter only."""


@dataclass(slots=True, eq=False)
class Peer:
    """See the module.

    Attributes:
        channel: to it.
        is_successor: else it is the predecessor.
        serves: it takes connections.
    """

    pid: int
    channel: QueueingChannel
    is_successor: bool
    serves: bool = False

    def say(self, word: str) -> None:
        """Say a word to it; one that is gone is noticed elsewhere."""
        with suppress(Closed):
            self.channel.send({"word": word})

    def tell(self, word: Connections, fds: Sequence[int] = ()) -> None:
        """See `devserver.reload.transit.Receiver`."""
        with suppress(Closed):
            self.channel.send({"word": words.CONNECTIONS, "sizes": word.sizes, "data": word.data}, fds)


@dataclass(frozen=True, slots=True)
class Succeeding:
    """How an arbiter is succeeded.

    Attributes:
        begin: starts a successor; raises OSError.
        done: is called when the predecessor has ended.
        predecessor: that of this process, if it has one.
    """

    begin: Callable[[], Peer]
    done: Callable[[], None]
    predecessor: Peer | None = None


class Succession:
    """The other arbiter, as long as there is one.

    Attributes:
        peer: the other arbiter.
    """

    def __init__(
        self,
        reactor: Reactor,
        transit: Transit,
        events: Events,
        notifier: Notifier | None,
        succeeding: Succeeding,
    ) -> None:
        """Args: transit: connections that nobody of this arbiter serves."""
        self.peer: Peer | None = None
        self._reactor = reactor
        self._transit = transit
        self._events = events
        self._notifier = notifier
        self._succeeding = succeeding
        if succeeding.predecessor is not None:
            self._attend(succeeding.predecessor)

    @property
    def is_served(self) -> bool:
        """Whether the other arbiter takes connections."""
        return self.peer is not None and self.peer.serves

    def pids(self) -> set[int]:
        """The process of the other arbiter."""
        return set() if self.peer is None else {self.peer.pid}

    def begin(self) -> None:
        """Have another arbiter begin, to succeed this one."""
        if self.peer is not None:
            logger.warning("process %d is the other arbiter: there are two at most", self.peer.pid)
            return
        try:
            peer = self._succeeding.begin()
        except OSError as error:
            logger.error("no successor can be started: %s", error)
            return
        self._attend(peer)
        logger.info("process %d begins, to succeed this one (SIGUSR2)", peer.pid)
        self._events.emit("successor_started", pid=peer.pid)

    def _attend(self, peer: Peer) -> None:
        self.peer = peer
        self._reactor.add(peer.channel, lambda: self._hear(peer), peer.channel)

    def _hear(self, peer: Peer) -> None:
        try:
            for message, fds in peer.channel.receive():
                if message["word"] == words.SERVING:
                    peer.serves = True
                    logger.info("process %d serves, too: SIGWINCH, and then SIGTERM, end this one", peer.pid)
                    self._events.emit("successor_serving", pid=peer.pid)
                elif message["word"] == words.CONNECTIONS:
                    self._transit.take(unpack(message["sizes"], message.get("data", b""), fds))
                    peer.say(words.RECEIVED)
                elif message["word"] == words.RECEIVED:
                    self._transit.received(peer)
        except Closed:
            self._lose(peer)

    def _lose(self, peer: Peer) -> None:
        self.peer = None
        self._reactor.remove(peer.channel)
        peer.channel.close()
        self._transit.lost(peer)
        if peer.is_successor:
            logger.error("process %d, which was to succeed this one, has ended", peer.pid)
            self._events.emit("successor_exited", pid=peer.pid)
        else:
            logger.info("process %d has ended, and this one succeeds it", peer.pid)
            self._succeeding.done()

    def serves(self) -> None:
        """Say that this arbiter's workers serve."""
        if self.peer is not None:
            self.peer.say(words.SERVING)

    def give(self) -> None:
        """Have the other arbiter's workers serve the connections that nobody here does."""
        if self.peer is not None and self.peer.serves:
            self._transit.pass_on(self.peer)

    def hand_service_over(self) -> None:
        """Have a manager of services know the other arbiter: this process ends."""
        if self._notifier is not None and self.peer is not None and self.peer.serves:
            self._notifier.hand_to(self.peer.pid)

    def let_go(self) -> None:
        """In a copy of this process: close what is its parent's."""
        if self.peer is not None:
            self.peer.channel.close()


def begin_successor(
    sockets: Sequence[socket.socket], more: Mapping[str, str], pass_fds: Sequence[int]
) -> Peer:
    """Start this program anew, with the listening sockets.

    Args:
        more: variables of its environment that this process has taken out of its own.
        pass_fds: descriptors that the command line names.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    try:
        environ = {**environ_for_another(os.environ), **more}
        for name in _NOT_FOR_IT:
            environ.pop(name, None)
        environ[_SUCCEEDS] = f"{theirs.fileno()}:{os.fstat(theirs.fileno()).st_ino}"
        argv = [sys.executable, *sys.orig_argv[1:]]
        process = subprocess.Popen(
            argv, cwd=folder_at_start(), env=environ, pass_fds=(theirs.fileno(), *pass_fds)
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    process.returncode = 0  # the arbiter waits for it itself, with all others
    channel = QueueingChannel(ours)
    channel.send({"word": words.SUCCEED, "pid": os.getpid()}, [sock.fileno() for sock in sockets])
    return Peer(process.pid, channel, is_successor=True)


def predecessor(environ: MutableMapping[str, str]) -> tuple[Peer, list[socket.socket]] | None:
    """The arbiter that has started this program to succeed it, and the sockets; None if none has.

    What is inherited proves nothing: the descriptor must be the very socket that the variable names.
    """
    try:
        fd, inode = map(int, environ.pop(_SUCCEEDS, "").split(":"))
        status = os.fstat(fd)
    except (ValueError, OSError):
        return None
    if not stat.S_ISSOCK(status.st_mode) or status.st_ino != inode:
        return None
    os.set_inheritable(fd, False)
    channel = Channel(socket.socket(fileno=fd))
    try:
        message, fds = channel.receive_one()  # nothing follows it before something is answered
    except Closed:
        return None
    sockets = [socket.socket(fileno=each) for each in fds]
    for sock in sockets:
        sock.setblocking(False)
    again = QueueingChannel(socket.socket(fileno=channel.socket.detach()))
    return Peer(message["pid"], again, is_successor=False, serves=True), sockets
