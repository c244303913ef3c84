"""A connection's transport: when it is read, and how it is closed.

Closing a socket with unread data resets the connection, and then the client may never see the
answer that was sent before. So where a client may still be sending, our side is ended, and what
arrives is dropped until the client's end or silence.

Refuses to know what is sent and received.
"""

import asyncio
import selectors
from collections.abc import Callable

from devserver.http.deadline import Deadline
from devserver.http.service import Service

SILENCE = 2.0
"""Seconds without a byte after which the rest of what nobody wants is not waited for."""

PATIENCE = 30.0
"""Seconds after which it is not waited for even if it still comes."""

HURRY = 0.2
"""Seconds for the same when the server stops."""


class Line:
    """See the module.

    Attributes:
        transport: where to write.
        deadline: until when something must have happened.
        closing: nothing is to be sent any more; what still arrives is dropped.
        half_closes: one side can be ended without the other. With the TLS of an event loop it cannot.
    """

    __slots__ = ("_missed", "_paused", "_service", "closing", "deadline", "half_closes", "transport")

    def __init__(self, transport: asyncio.Transport, service: Service, missed: Callable[[], None]) -> None:
        """Args: missed: called when the deadline has passed before the line is closing."""
        self.transport = transport
        self.deadline = Deadline(asyncio.get_running_loop(), self._look)
        self.closing = False
        self.half_closes = transport.can_write_eof()
        self._service = service
        self._missed = missed
        self._paused = False

    def pause(self) -> None:
        """Stop reading."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def unpause(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def close(self) -> None:
        """Send what is left to send, and close. The client has sent everything."""
        self.closing = True
        self.deadline.clear()
        self.transport.close()
        if not self.half_closes:
            self.drop()  # TLS waits for the client's farewell, which may never come

    def linger(self) -> None:
        """End our side and drop what still arrives, then close. The client may be sending."""
        self.closing = True
        self.unpause()
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
        self.closing = True
        self.deadline.clear()
        self.transport.abort()

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

    def _look(self) -> None:
        if not self.closing:
            self._missed()
        elif self.transport.get_write_buffer_size() or not self._is_writable():
            self.drop()  # the answer has not left yet; no response is cut for being slow
        else:
            self.transport.abort()
