"""HTTP exchanges to a WSGI application (PEP 3333) and back.

An exchange belongs to the event loop's thread, the application runs in a thread of a pool, and a
`_Call` is the bridge between the two. Its methods belong to one side each, and say which.

*Worker to loop:* the worker puts what it has (head, body, failure, the end) into an outbox and
schedules `_flush` unless it is scheduled already. A flush empties the whole outbox, so a small
response crosses over once, and a stream of small chunks seldom once for each. The worker waits
while the outbox holds `BLOCK` bytes or the client is slower than the application.

*Loop to worker:* the loop's side writes down what the worker may wait for (`_gone`, `_paused`,
the part of the body it asked for) under `_lock` and notifies. The worker looks at nothing of
the exchange but its request, and never keeps the lock while it calls the application, so that
the loop does not wait for user code.

A thread cannot be ended from outside. After a disconnect the application is left to itself: its
chunks are dropped, and its iterable is closed when it yields the next one.

This module refuses to know sockets, parsers and what a failure's response looks like.
"""

import asyncio
import contextvars
import io
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from devserver.errors import ApplicationError
from devserver.gateway.conformance import Head, checked_chunk, checked_chunks, checked_head
from devserver.gateway.environ import (
    BLOCK,
    ClientDisconnected,
    Environ,
    FilePart,
    FileWrapper,
    constant_environ,
    file_part,
    input_stream,
    request_environ,
)
from devserver.gateway.refusal import NO_WEBSOCKET, asks_for_websocket, refuse
from devserver.gateway.threads import Threads
from devserver.http.exchange import Exchange, Handler, Headers, Request, Session

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import WSGIApplication

OnError = Callable[[Request, BaseException], tuple[int, Headers, bytes]]
"""Makes the response for an exception that the application did not answer itself."""

NAMED = 5
"""The number of requests that are named when all threads are at work."""

_log = logging.getLogger("devserver")


class WsgiGateway:
    """A WSGI application as a `Gateway`.

    Args:
        application: the application.
        root_path: where it is mounted, for SCRIPT_NAME; request paths come without it.
        on_error: called in the loop's thread when the application failed before its response
            began; returns status, headers and body of the response to send instead.
        loop: the event loop that the exchanges belong to.
        threads: the number of requests that are worked on at the same time, at most; more wait their turn.

    Each call runs in a copy of the context variables that are set here and now.
    """

    websockets = False

    def __init__(
        self,
        application: "WSGIApplication",
        *,
        root_path: str,
        on_error: OnError,
        loop: asyncio.AbstractEventLoop,
        threads: int,
    ) -> None:
        self.application = application
        self.on_error = on_error
        self.loop = loop
        self.running: set[Handler] = set()
        self.constant = constant_environ(root_path)
        self.context = contextvars.copy_context()
        self._threads = Threads(threads, "wsgi")
        self._is_full = False  # and that has been told
        self._has_refused = False

    def exchange(self, exchange: Exchange) -> Handler:
        """Begin the application's work on a request, unless it asks for what WSGI does not have."""
        if asks_for_websocket(exchange.request):
            if not self._has_refused:
                self._has_refused = True
                _log.warning("%s", NO_WEBSOCKET)
            return refuse(exchange)
        call = _Call(self, exchange)
        is_full = not self._threads.submit(call.run)
        if is_full and not self._is_full:
            _log.warning(
                "requests wait: all threads are at work (--wsgi-threads allows more), among others on %s",
                "; ".join(self.busy()[:NAMED]),
            )
        self._is_full = is_full
        self.running.add(call)
        return call

    def session(self, session: Session) -> NoReturn:
        """Refuse: WSGI has no WebSocket, as `websockets` says."""
        raise AssertionError("a WSGI application cannot serve a WebSocket")

    def busy(self) -> list[str]:
        """Name the threads whose application has not returned, each with its request."""
        return sorted(str(call) for call in self.running)

    def close(self) -> None:
        """Let idle threads end; does not wait for the others. No exchange may follow."""
        self._threads.close()


class _Call:
    """The application at work on one exchange: a `Handler`, and both sides of the bridge."""

    def __init__(self, gateway: WsgiGateway, exchange: Exchange) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._thread = "waiting for a thread"
        # A body that is here already needs no crossing. One that is not must not be read before
        # the application asks: the first read is what sends 100 Continue.
        self._arrived = exchange.read() if exchange.complete else None

        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # Guarded by the lock, written by the loop's side:
        self._gone = exchange.disconnected  # chunks are dropped from here on
        self._paused = exchange.paused
        self._cut = False  # nothing reaches the exchange any more
        self._part: bytes | None = b""  # the answer to `_receive`; None if there can be none
        # Guarded by the lock, the outbox and what is asked, written by both sides:
        self._asking = False
        self._scheduled = False
        self._head_out: Head | None = None
        self._out: list[bytes] = []
        self._file: FilePart | None = None  # the rest of the body
        self._file_left = False  # the exchange has it
        self._out_size = 0
        self._last = False
        self._failures: list[BaseException] = []
        self._over = False

        # The worker's own:
        self._head: Head | None = None
        self._begun = False  # the head has gone into the outbox
        self._ended = False  # the end of the body has
        self._sent = 0

    def __str__(self) -> str:
        request = self._exchange.request
        target = request.target.decode("latin-1")
        return f"{self._thread}: {request.method} {target} HTTP/{request.version}"

    # The loop's side.

    def wake(self) -> None:
        """Let the worker see how the exchange stands."""
        self._look()
        if self._asking:
            self._gateway.loop.call_soon(self._pull)

    def cancel(self) -> None:
        """Cut the worker off from the exchange; the thread itself cannot be ended."""
        with self._lock:
            self._cut = self._gone = True
            self._asking, self._part = False, None
            self._changed.notify_all()

    def _look(self, written: int = 0) -> None:
        exchange = self._exchange
        with self._lock:
            self._out_size -= written
            self._paused = exchange.paused
            self._gone = self._gone or exchange.disconnected
            self._changed.notify_all()

    def _pull(self) -> None:
        """Answer `_receive`, if there is an answer yet."""
        exchange = self._exchange
        if not self._asking:
            return
        part: bytes | None = exchange.read()
        if not part and not exchange.complete:
            if not (exchange.disconnected or exchange.finished):
                return  # the next `wake` comes here again
            part = None
        with self._lock:
            self._asking, self._part = False, part
            self._changed.notify_all()

    def _flush(self) -> None:
        """Empty the outbox into the exchange."""
        with self._lock:
            head, out, last, over = self._head_out, self._out, self._last, self._over
            file = self._file if last else None
            failures = self._failures
            self._head_out, self._out, self._failures = None, [], []
            self._last = self._scheduled = False
        data = b"".join(out)
        try:
            self._transmit(head, data, last, file)
            for error in failures:
                self._fail(error)
        finally:
            if file is not None:
                self._file = None
            if over:
                self._gateway.running.discard(self)
            # Only now is there room: whether the exchange is paused by this is known.
            self._look(len(data))

    def _transmit(self, head: Head | None, data: bytes, last: bool, file: FilePart | None) -> None:
        exchange = self._exchange
        if self._cut or exchange.finished:
            return
        try:
            if head is not None:
                exchange.start(head.status, head.headers)
            if file is not None:
                if data:
                    exchange.write(data, True)
                exchange.send_file(*file, more=False)
                self._file_left = True
            elif head is not None or data or last:
                exchange.write(data, not last)
        except (ApplicationError, OSError) as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Log what went wrong, and answer or cut the connection if nobody has been answered yet."""
        exchange = self._exchange
        request = exchange.request
        cut, self._cut, self._gone = self._cut, True, True
        target = request.target.decode("latin-1")
        if isinstance(error, ClientDisconnected) or exchange.disconnected:
            # Nobody's mistake: it happens with every upload, and every stream, that is broken off.
            _log.debug("%s %s ended: its client has gone: %r", request.method, target, error)
        else:
            _log.error("%s %s failed", request.method, target, exc_info=error)
        if cut or self._file_left or exchange.disconnected or exchange.finished:
            return
        if exchange.started:
            exchange.abort()
            return
        status, headers, body = self._gateway.on_error(request, error)
        exchange.start(status, headers)
        exchange.write(body, False)

    # The worker's side.

    def run(self) -> None:
        """Call the application and see its response through; the job for the pool."""
        self._thread = threading.current_thread().name
        try:
            if not self._cut:
                self._gateway.context.copy().run(self._serve)
        except BaseException as error:
            # Whatever user code raises, SystemExit too, is the failure of one request.
            with self._lock:
                self._failures.append(error)
        self._ship(over=True)

    def _serve(self) -> None:
        result: Any = self._gateway.application(self._environ(), self._start_response)
        try:
            self._respond(result)
        except BaseException as error:
            # The iterable is user code. Its failure is kept here, because `close` comes next
            # and may fail as well: both are logged, the first decides about the response.
            with self._lock:
                self._failures.append(error)
        close = getattr(result, "close", None)
        if close is not None:
            self._ship()  # the client need not wait for what `close` does
            close()

    def _environ(self) -> Environ:
        environ = request_environ(self._gateway.constant, self._exchange.request)
        arrived, self._arrived = self._arrived, None
        environ["wsgi.input"] = input_stream(self._receive) if arrived is None else io.BytesIO(arrived)
        return environ

    def _receive(self) -> bytes:
        """Wait for a part of the request's body; b"" is its end."""
        with self._lock:
            self._asking = not (self._cut or self._over)
            self._part = None
            asking = self._asking
        if asking:
            self._cross(self._pull)
        with self._lock:
            while self._asking:
                self._changed.wait()
            part = self._part
        if part is None:
            raise ClientDisconnected("the client disconnected before the whole request body had arrived")
        return part

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: "OptExcInfo | None" = None, /
    ) -> Callable[[bytes], None]:
        """PEP 3333, "The start_response() Callable"."""
        if exc_info and exc_info[1] is not None:
            try:
                if self._begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333: the traceback refers to this frame
        elif self._head is not None:
            raise ApplicationError(
                f"the application called start_response a second time, with {status!r}; "
                "only a call with exc_info may replace the first"
            )
        self._head = checked_head(status, headers)
        return self._write

    def _write(self, data: bytes, /) -> None:
        """PEP 3333, "The write() Callable"."""
        if self._over:
            raise ApplicationError("the application called write() after the end of its response")
        self._send(checked_chunk(data, "passed write()"))

    def _respond(self, result: Any) -> None:
        """Send what the application returned."""
        part = file_part(result.file) if type(result) is FileWrapper else None
        if part is not None and self._head is not None:
            self._send_file(self._head, *part)
            return
        chunks = checked_chunks(result)
        if isinstance(chunks, list | tuple):
            size = sum([len(checked_chunk(chunk, "yielded")) for chunk in chunks])
            if self._head is not None and not self._begun:
                self._head.announce(size, self._exchange.request.method)
            if size <= BLOCK:
                self._put(b"".join(chunks), last=True)
                return
        for chunk in chunks:
            if checked_chunk(chunk, "yielded"):
                self._send(chunk)
            if self._gone:
                return
        self._put(b"", last=True)

    def _send(self, data: bytes) -> None:
        """Send a chunk in pieces and return when the next may be made."""
        if self._gone:
            return
        if not data and not self._begun:
            self._put(data, last=False)  # the first write() sends the head, even without data
            self._ship()
        length = self._head.length if self._head is not None else None
        for start in range(0, len(data), BLOCK):
            piece = data[start : start + BLOCK]
            # With the last byte that was announced the response is complete: saying so at once
            # saves the client from waiting until the application has noticed too.
            self._put(piece, last=self._sent + len(piece) == length)
            self._ship()
            if not self._may_go_on():
                return

    def _send_file(self, head: Head, file: int, offset: int, count: int) -> None:
        """Have the exchange send a file as the rest of the response, and return when it may be closed.

        PEP 3333: what is beyond the content-length is not sent.
        """
        if not self._begun:
            head.announce(count, self._exchange.request.method)
        if head.length is not None:
            count = min(count, max(0, head.length - self._sent))
        self._sent += count
        if not self._ended:
            self._file = (file, offset, count)
        self._put(b"", last=True)
        self._ship()
        with self._lock:
            while self._file is not None and not self._gone:
                self._changed.wait()

    def _may_go_on(self) -> bool:
        """Wait until there is room for more; False when nobody wants any."""
        with self._lock:
            # After the end nobody says any more that there is room.
            while not (self._ended or self._gone) and (self._paused or self._out_size >= BLOCK):
                self._changed.wait()
            return not self._gone

    def _put(self, data: bytes, last: bool) -> None:
        """Put a part of the response into the outbox, the head before the first."""
        head = self._head
        if head is None:
            raise ApplicationError("the application sent its response without calling start_response")
        if self._ended:
            if data:
                raise ApplicationError(f"the application sent more than its content-length of {head.length}")
            return
        self._sent += len(data)
        if not self._begun:
            head.check_length(self._sent, last, self._exchange.request.method)
        with self._lock:
            if not self._begun:
                self._head_out = head
            self._out.append(data)
            self._out_size += len(data)
            self._last = last
        self._begun = True
        self._ended = last

    def _ship(self, over: bool = False) -> None:
        """Have the outbox emptied. Args: over: nothing will come any more."""
        with self._lock:
            self._over = self._over or over
            if self._scheduled:
                return
            self._scheduled = True
        self._cross(self._flush)

    def _cross(self, callback: Callable[[], None]) -> None:
        try:
            # In the gateway's context: the loop's side is not part of the application's.
            self._gateway.loop.call_soon_threadsafe(callback, context=self._gateway.context)
        except RuntimeError:
            # The loop has been closed: the server ended and left this thread behind.
            self.cancel()
