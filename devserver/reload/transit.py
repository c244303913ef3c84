"""Connections on their way from one generation to the next.

A child that drains sends the descriptors of connections on which no request has been begun, with the
bytes it has read of them. Here they wait until somebody serves: the successor, or the page. A copy
is kept until the receiver has said that it has the connection: should it die first, the connection
goes to the next one instead of being reset; kept longer, it would swallow the end of the stream.

A receiver is given some at a time, and the next when it has these: between them it accepts connections that
are new. Those of which something was read come first.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from devserver.process.control import MAX_FDS, pack
from devserver.reload import protocol


class Receiver(Protocol):
    """A process that serves."""

    def tell(self, word: protocol.Connections, fds: Sequence[int] = ()) -> object:
        """Send it connections; if it is gone, nothing."""
        ...


class Transit:
    """The connections that belong to nobody at the moment.

    Attributes:
        was_read: says whether among the bytes of a connection there are some that were read of it.
    """

    def __init__(self) -> None:
        self.was_read: Callable[[bytes], bool] = bool
        self._urgent: deque[tuple[int, bytes]] = deque()
        self._idle: deque[tuple[int, bytes]] = deque()
        self._lent: dict[Receiver, list[tuple[int, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._urgent) + len(self._idle)

    @property
    def is_done(self) -> bool:
        """Whether none waits, and whoever was given some has them."""
        return not (len(self) or self._lent)

    def take(self, connections: Iterable[tuple[int, bytes]]) -> None:
        """Keep connections, with the bytes read of each."""
        for fd, data in connections:
            (self._urgent if self.was_read(data) else self._idle).append((fd, data))

    def pass_on(self, receiver: Receiver, most: int = MAX_FDS) -> None:
        """Send some that wait to a child that serves, unless it has not said yet that it has those before.

        Args:
            most: of them, of which no more than a message can have are sent.
        """
        if receiver in self._lent or not len(self):
            return
        some = self._lent[receiver] = []
        while len(self) and len(some) < min(most, MAX_FDS):
            some.append((self._urgent or self._idle).popleft())
        for fds, sizes, data in pack(some):
            # If it is gone, `lost` will bring them back.
            receiver.tell(protocol.Connections(sizes, data), fds)

    def received(self, receiver: Receiver) -> None:
        """The receiver has what was sent to it."""
        for fd, _ in self._lent.pop(receiver, ()):
            os.close(fd)

    def lost(self, receiver: Receiver) -> None:
        """The receiver is gone; what it did not receive waits again, before what came later."""
        for fd, data in reversed(self._lent.pop(receiver, [])):
            (self._urgent if self.was_read(data) else self._idle).appendleft((fd, data))

    def close(self) -> None:
        """Close everything: nobody will answer any more."""
        for fd, _ in [*self._urgent, *self._idle, *(item for lent in self._lent.values() for item in lent)]:
            os.close(fd)
        self._urgent.clear()
        self._idle.clear()
        self._lent.clear()
