"""Framed messages between a supervisor and its child, with descriptors beside them.

A message is one JSON object behind a header: its length (4 bytes), that of the bytes behind it (4 bytes)
and the number of descriptors that belong to it (1 byte), all big-endian. JSON and not pickle: a channel
must not be a way to run code. What is bytes, and may be much, is the message's `data`, and travels
as it is. Descriptors travel by SCM_RIGHTS with the first byte of their message: they may arrive before
its last byte, never after it, and in the order of the messages. So a queue of bytes and a queue of
descriptors put them together again, wherever the kernel has cut the stream.

Knows no vocabulary: what is said, and when, belongs to `reload`.
"""

import json
import os
import select
import socket
import struct
import sys
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from devserver.process.limits import raised

_dumps, _loads = json.dumps, json.loads  # an application may replace them

Message = dict[str, Any]

_HEADER = struct.Struct("!IIB")
_BLOCK = 65536

MAX_FDS = 253
"""What Linux lets travel with one message (SCM_MAX_FD)."""

RUN_MAIN = "DEVSERVER_RUN_MAIN"
"""Says to an application that it runs in the child that a supervisor restarts."""

WORKER = "DEVSERVER_WORKER"
"""Says to an application which of several workers it runs in: 1 to their number."""

TAG = "DEVSERVER_TREE"
"""What the guardian knows everything by that a supervisor has started, or what that has started."""

CONTROL = "DEVSERVER_CONTROL"
"""Where a child finds its channel. Taken out of the environment as soon as it was looked at."""

EXIT_RESTART = 3
"""How a child ends that has a successor, for who looks; the supervisor goes by what was said."""


class Closed(Exception):
    """The other side has closed the channel, or its process is gone."""


class Channel:
    """One end of a connection between two processes.

    `send` blocks until the message is written; `receive` takes what has arrived. Not for several
    threads at a time in one direction.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)  # the application may have set another default (`socket.setdefaulttimeout`)
        self.socket = sock
        self._data = bytearray()
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        """For a selector: readable when something has arrived or the other side is gone."""
        return self.socket.fileno()

    def wait(self, seconds: float) -> bool:
        """Wait until something has arrived or the other side is gone; False: not in so many seconds."""
        if sys.platform == "win32":
            return bool(select.select([self.socket], [], [], seconds)[0])
        # Not epoll, which takes a descriptor, and there may be none left; `select` takes none above 1023.
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Write one message; the descriptors are duplicated into the other process.

        Args:
            message: what JSON can hold; lone surrogates, as in file names, survive. The key `data` is for
                bytes; without any it is left out.
            fds: at most MAX_FDS.

        Raises:
            Closed: nobody is there to read it.
            ValueError: too many descriptors.
        """
        data = memoryview(_framed(message, fds))
        try:
            self.socket.sendall(data[self._write(data, fds) :])
        except OSError as error:
            raise Closed(str(error)) from None

    def _write(self, data: memoryview, fds: Sequence[int]) -> int:
        """Write some of the bytes, the first together with the descriptors; how many it were."""
        if fds and sys.platform != "win32":
            return socket.send_fds(self.socket, [data], list(fds))
        return self.socket.send(data)

    def receive(self) -> list[tuple[Message, list[int]]]:
        """The messages that are there, with their descriptors; waits only when nothing has arrived.

        Nothing is returned when what has arrived is no whole message yet. The descriptors belong
        to the caller; programs that it starts do not inherit them.

        Raises:
            Closed: the other side is gone and everything that it said has been taken, or
                descriptors were lost because this process has too many open.
        """
        try:
            with raised():  # not in `receive_one`, which waits
                self._take()
        except (BlockingIOError, InterruptedError):
            return []
        return list(self._messages())

    def receive_one(self) -> tuple[Message, list[int]]:
        """Wait for a message and take no byte of the next one, so that a selector still sees it.

        Raises:
            Closed: as for `receive`.
        """
        while True:
            for message in self._messages():
                return message
            self._take(self._missing())

    def drain(self) -> list[tuple[Message, list[int]]]:
        """Everything that an ended process has said; never waits.

        Not the same as `receive` until it raises: the end of the stream does not come as long as
        a process that was forked from the ended one holds the channel. Of no use for more after.
        """
        try:
            self.socket.setblocking(False)
            while True:
                self._take()
        except (OSError, Closed):
            pass
        return list(self._messages())

    def _take(self, most: int = _BLOCK) -> None:
        """Add what has arrived, at most so many bytes, to what is there."""
        try:
            data, fds, lost = _receive(self.socket, most)
        except (BlockingIOError, InterruptedError):
            raise
        except OSError as error:
            raise Closed(str(error)) from None
        self._fds += fds
        if lost:
            raise Closed("descriptors were lost: this process has too many open")
        if not data:
            raise Closed("end of stream")
        self._data += data

    def _messages(self) -> Iterator[tuple[Message, list[int]]]:
        while self._missing() <= 0:
            length, more, count = _HEADER.unpack_from(self._data)
            middle = _HEADER.size + length
            message = _loads(self._data[_HEADER.size : middle])
            if more:
                message["data"] = bytes(self._data[middle : middle + more])
            del self._data[: middle + more]
            yield message, [self._fds.popleft() for _ in range(count)]

    def _missing(self) -> int:
        """How many bytes to read next, so as not to read beyond the first message; 0 or less: none."""
        if len(self._data) < _HEADER.size:
            return _HEADER.size - len(self._data)
        length, more, _ = _HEADER.unpack_from(self._data)
        return int(_HEADER.size + length + more - len(self._data))

    def close(self) -> None:
        """Close this end, and descriptors that nobody has taken."""
        self.socket.close()
        while self._fds:
            os.close(self._fds.popleft())


class QueueingChannel(Channel):
    """An end that never waits: what cannot be written at once is queued, in order.

    For a supervisor: a child that hangs, or that is itself waiting for its words to be taken, must not
    hold it up. Whoever has one calls `flush` when the socket is writable, as long as `pending`.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setblocking(False)
        self._queue: deque[tuple[memoryview, Sequence[int]]] = deque()

    @property
    def pending(self) -> bool:
        """Whether something is left to be written."""
        return bool(self._queue)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Write one message, or queue it; the descriptors must stay open until it is written.

        Raises:
            Closed: nobody is there to read it.
            ValueError: too many descriptors.
        """
        self._queue.append((memoryview(_framed(message, fds)), fds))
        self.flush()

    def flush(self) -> None:
        """Write as much as can be written now.

        Raises:
            Closed: nobody is there to read it; the rest is dropped.
        """
        try:
            while self._queue:
                data, fds = self._queue[0]
                written = self._write(data, fds)
                self._queue[0] = data[written:], ()
                if written == len(data):
                    self._queue.popleft()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._queue.clear()
            raise Closed(str(error)) from None


def pack(connections: Sequence[tuple[int, bytes]]) -> Iterator[tuple[list[int], list[int], bytes]]:
    """Descriptors, with bytes that belong to each, as the parts of as few messages as will do.

    Gives the descriptors of a message, the number of bytes that belong to each, and all these bytes.
    """
    for at in range(0, len(connections), MAX_FDS):
        some = connections[at : at + MAX_FDS]
        data = [data for _, data in some]
        yield [fd for fd, _ in some], [len(each) for each in data], b"".join(data)


def unpack(sizes: Sequence[int], data: bytes, fds: Sequence[int]) -> list[tuple[int, bytes]]:
    """The inverse of `pack`."""
    at, found = 0, []
    for fd, size in zip(fds, sizes, strict=True):
        found.append((fd, data[at : at + size]))
        at += size
    return found


def _framed(message: Message, fds: Sequence[int]) -> bytes:
    if len(fds) > MAX_FDS:
        raise ValueError(f"{len(fds)} descriptors in one message; the kernel takes {MAX_FDS}")
    data: bytes = message.get("data", b"")
    rest = {key: value for key, value in message.items() if key != "data"}
    body = _dumps(rest, separators=(",", ":")).encode("ascii")
    return b"".join((_HEADER.pack(len(body), len(data), len(fds)), body, data))


def _receive(sock: socket.socket, most: int) -> tuple[bytes, list[int], bool]:
    """Bytes, descriptors, and whether the kernel had to leave descriptors out."""
    if sys.platform == "win32":
        return sock.recv(most), [], False  # sockets are shared within the message
    fds = array("i")
    # CLOEXEC from the start where it can be had: another thread may be starting a program just now.
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, flags, _ = sock.recvmsg(most, socket.CMSG_LEN(MAX_FDS * fds.itemsize), flags)
    for level, kind, rights in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    for fd in fds:
        os.set_inheritable(fd, False)
    return data, list(fds), bool(flags & socket.MSG_CTRUNC)
