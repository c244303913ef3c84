"""Connections on their way from one generation to the next.

A child that drains sends the descriptors of connections on which no request has been begun, with the
bytes it has read of them. Here they wait until somebody serves: the successor, or the page. A copy
is kept until the receiver has said that it has the connection: should it die first, the connection
goes to the next one instead of being reset; kept longer, it would swallow the end of the stream.
"""

from __future__ import annotations

import os
from collections import deque

from devserver.reload.launcher import Spawned


class Transit:
    """The connections that belong to nobody at the moment."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._lent: dict[Spawned, deque[tuple[int, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, fd: int, data: bytes) -> None:
        """Keep a connection, with the bytes read of it."""
        self._waiting.append((fd, data))

    def pass_on(self, receiver: Spawned) -> None:
        """Send all that wait to a child that serves."""
        while self._waiting:
            fd, data = self._waiting.popleft()
            self._lent.setdefault(receiver, deque()).append((fd, data))
            if not receiver.tell({"do": "connection", "data": data}, [fd]):
                return  # it is gone: `lost` will bring them back

    def received(self, receiver: Spawned) -> None:
        """The receiver has the connection that was sent to it first."""
        fd, _ = self._lent[receiver].popleft()
        os.close(fd)

    def lost(self, receiver: Spawned) -> None:
        """The receiver is gone; what it did not receive waits again, before what came later."""
        self._waiting.extendleft(reversed(self._lent.pop(receiver, deque())))

    def close(self) -> None:
        """Close everything: nobody will answer any more."""
        for fd, _ in [*self._waiting, *(item for lent in self._lent.values() for item in lent)]:
            os.close(fd)
        self._waiting.clear()
        self._lent.clear()
