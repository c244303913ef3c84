"""A connection's transport: when it is read, how it is closed, and how it is given away.

Closing a socket with unread data resets the connection, and then the client may never see the
answer that was sent before. So where a client may still be sending, our side is ended, and what
arrives is dropped until the client's end or silence.

Refuses to know what is sent and received.
"""

import asyncio
import os
import select
import selectors
import socket
import struct
import sys
from collections.abc import Callable

from devserver.http.deadline import Deadline
from devserver.http.service import Service
from devserver.http.states import READINGS, Flow, Reading

SILENCE = 2.0
"""Seconds without a byte after which the rest of what nobody wants is not waited for."""

PATIENCE = 30.0
"""Seconds after which it is not waited for even if it still comes."""

HURRY = 0.2
"""Seconds for the same when the server stops."""

_CLOG = 262144
"""Bytes that wait for a client before no more of its requests are read."""

_SOON = 1.0
"""Seconds in which what has arrived is read."""


class Line:
    """See the module.

    Attributes:
        transport: where to write.
        deadline: until when something must have happened.
        reading: what comes from the client.
        choked: the client is slower than what was written to it.
        half_closes: one side can be ended without the other. With the TLS of an event loop it cannot.
    """

    __slots__ = ("_service", "choked", "deadline", "half_closes", "reading", "transport")

    def __init__(self, transport: asyncio.Transport, service: Service, missed: Callable[[], None]) -> None:
        """Args: missed: called when the deadline has passed."""
        self.transport = transport
        self.deadline = Deadline(asyncio.get_running_loop(), missed)
        self.reading = Reading.OPEN
        self.choked = False
        self.half_closes = transport.can_write_eof()
        self._service = service

    def let_go(self) -> None:
        """Somebody else takes the transport, and keeps the time."""
        self.resume()
        self.deadline.cancel()

    def pause(self) -> None:
        """Stop reading."""
        if self.reading is Reading.OPEN:
            self.transport.pause_reading()
        self.reading = READINGS[self.reading, Flow.PAUSE]

    def resume(self) -> None:
        """Read on."""
        if self.reading is Reading.PAUSED:
            self.transport.resume_reading()
            self.reading = READINGS[self.reading, Flow.RESUME]

    @property
    def is_clogged(self) -> bool:
        """Whether the client has to take much of what was written to it, and does not."""
        return self.choked and self.transport.get_write_buffer_size() > _CLOG

    def ended(self) -> None:
        """The client has ended its side."""
        self.reading = READINGS[self.reading, Flow.END]

    def close(self) -> None:
        """Send what is left to send, and close. The client has sent everything."""
        self.deadline.clear()
        self.transport.close()
        if not self.half_closes:
            self.drop()  # TLS waits for the client's farewell, which may never come

    def finish(self) -> None:
        """End our side and drop what still arrives, then close. The client may be sending."""
        if self.reading is Reading.ENDED:
            self.close()
            return
        self.resume()
        try:
            if self.half_closes:
                self.transport.write_eof()
        except (OSError, RuntimeError):  # the latter is uvloop's
            self.cut()  # the other side was faster
        else:
            self.drop()

    def drop(self) -> None:
        """Wait for the end of what is dropped, but not for ever."""
        if self._service.draining:
            self.deadline.set(HURRY)
        else:
            self.deadline.set(SILENCE, PATIENCE)

    def cut(self) -> None:
        """Abort: nobody is to take what has been sent for the whole."""
        self.deadline.clear()
        self.transport.abort()

    def reset(self) -> None:
        """Abort where an end of the connection would be taken for the end of the response: reset it.

        A socket of TCP that is closed with no time to linger sends RST (socket(7), SO_LINGER). A Unix socket
        cannot, and who is at its other end takes the half for the whole.
        """
        fd = self.fileno()
        if fd >= 0 and sys.platform != "win32":
            # A duplicate, as uvloop's sockets take no options. The option is that of both.
            with socket.socket(fileno=os.dup(fd)) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.cut()

    def _is_writable(self) -> bool:
        """Whether everything has left.

        What TLS has written waits in a transport that only the loop knows. As long as anything does, the
        socket has no room.
        """
        fd = self.transport.get_extra_info("socket").fileno()
        if self.half_closes or fd < 0:
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_WRITE)
            return bool(selector.select(0))

    def arrived(self) -> bool:
        """Whether something has arrived that was not read: the loop looks only once in a turn.

        It is read by the turn that follows; the deadline waits for that.
        """
        arrived = self.reading is not Reading.ENDED and self._readable()
        if arrived:
            self.deadline.set(_SOON)
        return arrived

    def _readable(self) -> bool:
        if sys.platform == "win32":
            return bool(select.select([self.fileno()], [], [], 0)[0])
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def fileno(self) -> int:
        """The socket's descriptor."""
        fd: int = self.transport.get_extra_info("socket").fileno()
        return fd

    def give(self, data: bytes) -> bool:
        """Give the connection to whoever serves next.

        Args:
            data: what was read of it and not used.

        Returns False while something is left to be written; `resume_writing` comes when it is.
        """
        self.pause()
        if self.transport.get_write_buffer_size():
            self.transport.set_write_buffer_limits(0)
            return False
        self._service.leave(self.fileno(), data, self.transport.abort)
        return True

    def waited(self) -> None:
        """The deadline for the end of what is dropped has passed."""
        if self.transport.get_write_buffer_size() or not self._is_writable():
            self.drop()  # the answer has not left yet; no response is cut for being slow
        else:
            self.transport.abort()
