"""Framed messages between a supervisor and its child, with descriptors beside them.

A message is one JSON object behind its length (4 bytes, big-endian). JSON and not pickle: a
channel must not be a way to run code. Descriptors travel by SCM_RIGHTS with the first byte of the
message that belongs to them; the message says how many they are. Knows no vocabulary: what is
said, and when, belongs to `reload`.
"""

import json
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

Message = dict[str, Any]

_LENGTH = struct.Struct("!I")
_MAX_FDS = 64
_BLOCK = 65536


class Closed(Exception):
    """The other side has closed the channel, or its process is gone."""


class Channel:
    """One end of a connection between two processes.

    `send` blocks until the message is written; `receive` takes what has arrived.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._data = bytearray()
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        """For a selector: readable when something has arrived or the other side is gone."""
        return self.socket.fileno()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Write one message; the descriptors are duplicated into the other process.

        Raises:
            Closed: nobody is there to read it.
        """
        if fds:
            message = {**message, "fds": len(fds)}
        body = json.dumps(message, separators=(",", ":")).encode("ascii")
        data = memoryview(_LENGTH.pack(len(body)) + body)
        try:
            if fds:
                data = data[socket.send_fds(self.socket, [data], list(fds)) :]
            self.socket.sendall(data)
        except OSError as error:
            raise Closed(str(error)) from None

    def receive(self) -> list[tuple[Message, list[int]]]:
        """The messages that are there, with their descriptors; waits only when none has arrived.

        Raises:
            Closed: the other side is gone and everything that it said has been taken.
        """
        try:
            data, fds, _, _ = _receive(self.socket)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise Closed(str(error)) from None
        if not data:
            raise Closed("end of stream")
        for fd in fds:
            os.set_inheritable(fd, False)
        self._fds += fds
        self._data += data
        return list(self._messages())

    def _messages(self) -> Iterable[tuple[Message, list[int]]]:
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            end = _LENGTH.size + length
            if len(self._data) < end:
                return
            message = json.loads(self._data[_LENGTH.size : end])
            del self._data[:end]
            yield message, [self._fds.popleft() for _ in range(message.pop("fds", 0))]

    def close(self) -> None:
        """Close this end, and descriptors that nobody has taken."""
        self.socket.close()
        while self._fds:
            os.close(self._fds.popleft())


def _receive(sock: socket.socket) -> tuple[bytes, list[int], int, Any]:
    if hasattr(socket, "recv_fds"):
        return socket.recv_fds(sock, _BLOCK, _MAX_FDS)
    return sock.recv(_BLOCK), [], 0, None  # Windows: sockets are shared within the message
