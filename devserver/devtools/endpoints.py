"""What the server itself answers: one table of endpoints, and one gate before all of them.

Everything under `PREFIX` is the server's own while it reloads, and nothing of it ever reaches the
application. In a plain run there is no endpoint, and this module is not imported. The gate answers only
this machine's developer, and no page of another site in the developer's browser (`trust`); it comes before
the table, so that a stranger cannot learn what there is. An endpoint is added to `ENDPOINTS`, and the tests
walk that table: none can be forgotten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devserver.devtools.error_page import WAIT
from devserver.devtools.trust import own, trusted
from devserver.http.codes import FORBIDDEN, METHOD_NOT_ALLOWED, NO_CONTENT, NOT_FOUND
from devserver.http.exchange import Answered, Exchange, Gateway, Handler, Headers, Request, Session

logger = logging.getLogger("devserver")

PREFIX = b"/__devserver__/"

REFUSED = (
    "devserver's own pages are for this machine: ask for localhost, from the browser or program itself\n"
)

_BETWEEN_LINES = 1.0
"""Seconds between two lines about refused requests: whoever sends thousands shall not fill the terminal."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A row of the table.

    Attributes:
        method: the one that is answered (with GET also HEAD); what changes something is a POST.
        begin: answers an exchange that the gate has let through.
    """

    method: str
    begin: Callable[[Endpoints, Exchange], Handler]


def gate(request: Request, endpoints: dict[bytes, Endpoint]) -> tuple[int, str] | None:
    """Why a request below `PREFIX` is not answered: a status and a line; None if it is.

    Args:
        endpoints: the table.
    """
    if not (trusted(request) and own(request)):
        return FORBIDDEN, REFUSED
    endpoint = endpoints.get(request.path)
    if endpoint is None:
        return NOT_FOUND, "devserver has no such page\n"
    if request.method not in _methods(endpoint):
        return METHOD_NOT_ALLOWED, f"only {endpoint.method} is answered here\n"
    return None


def _methods(endpoint: Endpoint) -> tuple[str, ...]:
    return (endpoint.method, "HEAD") if endpoint.method == "GET" else (endpoint.method,)


HEADERS: Headers = [
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Content-Security-Policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"Server", b"devserver"),  # without its version
]
"""Every response has them. None of ours has `Access-Control-Allow-Origin`."""


class _Stream:
    """The handler of a stream of events that lasts until what it waits for is over."""

    def __init__(self, exchange: Exchange, moment: str, streams: set[_Stream]) -> None:
        """Args: moment: what it waits for the end of; streams: all that there are, this one, too."""
        self.moment = moment
        self._exchange = exchange
        self._streams = streams
        exchange.start(200, [*HEADERS, (b"Content-Type", b"text/event-stream")])
        exchange.write(b": until it is over\n\n", True)
        if not exchange.disconnected:
            streams.add(self)
        self.wake()  # the client may have closed its side before this was there to be told

    def wake(self) -> None:
        if self._exchange.disconnected:
            self._streams.discard(self)
        elif self._exchange.half_closed:
            self._end(b"")

    def cancel(self) -> None:
        self._end(b"")

    def over(self) -> None:
        """Say that what it waited for is over."""
        self._end(b"event: over\ndata:\n\n")

    def _end(self, last: bytes) -> None:
        self._streams.discard(self)
        if not (self._exchange.disconnected or self._exchange.finished):
            self._exchange.write(last, False)


class Endpoints:
    """A gateway with the endpoints before another. Implements `service.Own`.

    Attributes:
        running: the application's handlers. Nothing waits for an endpoint's.
    """

    running: set[Handler]
    websockets: bool

    def __init__(self, moments: Sequence[str]) -> None:
        """
        Args:
            moments: words for what can be waited for the end of: failures that are as good as the one that
                is shown, or this process that serves the application. Pages have one of them. What asks for
                another is told that it is over.
        """
        self._moments = frozenset(moments)
        self._streams: set[_Stream] = set()
        self._told = -_BETWEEN_LINES
        self._silent = 0

    @property
    def waiting(self) -> int:
        return len(self._streams)

    def has(self, path: bytes) -> bool:
        return path.startswith(PREFIX)

    def before(self, gateway: Gateway) -> Gateway:
        self._gateway, self.running, self.websockets = gateway, gateway.running, gateway.websockets
        return self

    def exchange(self, exchange: Exchange) -> Handler:
        if self.has(exchange.request.path):
            return self._answer(exchange)
        return self._gateway.exchange(exchange)

    def session(self, session: Session) -> Handler:
        if self.has(session.request.path):  # none of ours is a WebSocket; it is not opened
            return self._answer(session.refuse())
        return self._gateway.session(session)

    def close(self) -> None:
        self._gateway.close()

    def move_on(self, moments: Sequence[str]) -> None:
        """What was waited for is over, unless it is one of these. In the event loop's thread."""
        self._moments = frozenset(moments)
        for stream in list(self._streams):
            if stream.moment not in self._moments:
                stream.over()

    def _answer(self, exchange: Exchange) -> Handler:
        request = exchange.request
        refusal = gate(request, ENDPOINTS)
        if refusal is None:
            return ENDPOINTS[request.path].begin(self, exchange)
        status, line = refusal
        headers = [*HEADERS, (b"Content-Type", b"text/plain; charset=utf-8")]
        if status == FORBIDDEN:
            self._tell(request)
        elif status == METHOD_NOT_ALLOWED:
            headers.append((b"Allow", ", ".join(_methods(ENDPOINTS[request.path])).encode()))
        exchange.start(status, headers)
        exchange.write(line.encode(), False)
        return Answered()

    def _tell(self, request: Request) -> None:
        """One line a second at most; what a stranger wrote is shown escaped."""
        now = time.monotonic()
        if now - self._told < _BETWEEN_LINES:
            self._silent += 1
            return
        more = f" ({self._silent} more since the last line)" if self._silent else ""
        self._told, self._silent = now, 0
        given = {name: value for name, value in request.headers if name in (b"host", b"origin")}
        shown = ", ".join(
            f"{name.decode().title()} {value[:80].decode('latin-1')!a}" for name, value in given.items()
        )
        client = request.peer.client
        logger.warning(
            "refused one of devserver's own pages to %s (%s): they are for this machine alone;"
            " open them as http://localhost%s",
            client[0] if client else "a proxy's client" if request.peer.is_proxied else "a Unix socket",
            shown,
            more,
        )

    def _wait(self, exchange: Exchange) -> Handler:
        """Last until the failure that the query names is over. It may be already: 204, do not come back."""
        request = exchange.request
        moment = request.query.decode("latin-1")
        if moment not in self._moments or request.method == "HEAD":
            exchange.start(NO_CONTENT, HEADERS)
            exchange.write(b"", False)
            return Answered()
        return _Stream(exchange, moment, self._streams)


ENDPOINTS = {
    WAIT: Endpoint("GET", Endpoints._wait),
}
"""Path → endpoint: every path of the server's own."""
