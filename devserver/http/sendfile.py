"""A part of a file on its way to a transport, by `sendfile` where the kernel can do it.

asyncio's own `loop.sendfile` is not what is used: uvloop does not have it, and it is a coroutine, which
whoever writes a response here is not.

The socket is used beside its transport, by a duplicate of its descriptor: the loop refuses to watch a
descriptor of which a transport takes care. So nothing may be left in the transport's own buffer before, and
nothing may be written to it until the part has been sent.

Under TLS that the event loop ends, on Windows, and for file systems that cannot do it, the bytes are read
and written to the transport, as fast as the client takes them. In both ways reading the disk holds up the
loop for as long as the disk takes. That is a few milliseconds at most for `PIECE` bytes of a file that is not
in memory, and most files that are served have just been.

Refuses to know how a body is framed.
"""

import asyncio
import contextlib
import errno
import os
import sys
from collections.abc import Callable

from devserver.errors import ApplicationError

PIECE = 1 << 20
"""Bytes that the kernel is given at once. Others are served between two of them."""

COPIED = 1 << 17
"""Bytes that are read at once where they must be copied."""

_CANNOT = frozenset((errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSOCK, errno.EOVERFLOW))
"""What the kernel says of a file or a socket for which there is no `sendfile`."""


class FilePart:
    """See the module.

    Attributes:
        left: the number of bytes that have not been sent yet.
        paused: the transport's buffer is too full. To be set before `begin` if it is so already.
    """

    def __init__(self, transport: asyncio.Transport, file: int, offset: int, count: int) -> None:
        """
        Args:
            file: a descriptor, which is duplicated.
            offset, count: the bytes of it that are sent.

        Raises:
            OSError: there is no descriptor left.
        """
        self.left = count
        self.paused = False
        self._transport = transport
        self._offset = offset
        self._loop = asyncio.get_running_loop()
        self._over: Callable[[Exception | None], None] | None = None
        self._socket = -1  # a duplicate of the socket's, if the kernel sends
        self._scheduled = False
        self._file = os.dup(file)
        is_plain = transport.get_extra_info("sslcontext") is None
        sock = transport.get_extra_info("socket")
        if sys.platform != "win32" and is_plain and sock is not None:
            try:
                self._socket = os.dup(sock.fileno())
            except OSError:
                os.close(self._file)
                raise

    def begin(self, over: Callable[[Exception | None], None]) -> None:
        """Send; what the transport still has comes first.

        Args:
            over: called once, with None when all has been sent, or with what went wrong: an OSError of the
                socket or the file, or an ApplicationError for a file that has become shorter. Not called
                after `close`.
        """
        self._over = over
        if self._socket >= 0:
            # The transport must say when it has nothing left, and not when it has less.
            self._transport.set_write_buffer_limits(0)
            self.paused = self._transport.get_write_buffer_size() > 0
        self._go_on()

    def pause(self, paused: bool) -> None:
        """The transport's buffer has filled up, or has room again."""
        self.paused = paused
        self._go_on()

    def close(self) -> None:
        """Stop, and let go of the descriptors."""
        self._over = None
        self._close_socket()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _go_on(self) -> None:
        """Send a piece, unless what was sent before is still on its way."""
        if self.paused or self._scheduled or self._over is None:
            return
        try:
            if self._socket >= 0:
                self._send()
            else:
                self._copy()
        except OSError as error:
            if self._socket >= 0 and error.errno in _CANNOT:
                self._close_socket()
                self._go_on()
            else:
                self._end(error)

    def _send(self) -> None:
        """Have the kernel send a piece, and go on when the socket has room."""
        if sys.platform == "win32":
            raise AssertionError("Windows has no sendfile")
        with contextlib.suppress(BlockingIOError, InterruptedError):
            self._note(os.sendfile(self._socket, self._file, self._offset, min(self.left, PIECE)))
        if self.left and self._over is not None:
            self._loop.add_writer(self._socket, self._turn)
            self._scheduled = True

    def _copy(self) -> None:
        """Write a piece to the transport, and go on in the next turn of the loop."""
        data = read(self._file, min(self.left, COPIED), self._offset)
        if data:
            self._transport.write(data)
        self._note(len(data))
        if self._over is not None:
            self._loop.call_soon(self._turn)
            self._scheduled = True

    def _turn(self) -> None:
        if self._scheduled and self._socket >= 0:
            self._loop.remove_writer(self._socket)
        self._scheduled = False
        self._go_on()

    def _note(self, size: int) -> None:
        """Count what was sent; it is over if that was all, or if the file has ended before."""
        self._offset += size
        self.left -= size
        if not self.left:
            self._end(None)
        elif not size:
            self._end(ApplicationError(f"the file that is sent ended {self.left} bytes early"))

    def _end(self, fault: Exception | None) -> None:
        over = self._over
        self.close()
        if over is not None:
            over(fault)

    def _close_socket(self) -> None:
        """Let go of the socket; from here on the transport is written to."""
        if self._socket < 0:
            return
        if self._scheduled:
            self._loop.remove_writer(self._socket)
            self._scheduled = False
        os.close(self._socket)
        self._socket = -1
        if not self._transport.is_closing():
            self._transport.set_write_buffer_limits()


def read(file: int, size: int, offset: int) -> bytes:
    """Read up to `size` bytes at `offset`, without a change of the position where that can be.

    Raises:
        OSError: it cannot be read.
    """
    if sys.platform != "win32":
        return os.pread(file, size, offset)
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, size)
