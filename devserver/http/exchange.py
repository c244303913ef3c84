"""The seam between HTTP and the gateways: what both sides speak.

One *exchange* is one request and its response; one *session* is one WebSocket. The HTTP side
implements `Exchange` and `Session`, whatever the parser and the version of HTTP; a gateway
implements `Gateway` and `Handler`. Calls are direct and state is read from attributes: there is
no event object per message. The HTTP side says only *that* something has changed, by
`Handler.wake`; the handler looks at the attributes and takes what it can use.

Everything here belongs to the event loop's thread. A gateway that runs an application in
another thread crosses over by itself.

This module refuses to know parsers, sockets, asyncio, ASGI and WSGI.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

Headers = list[tuple[bytes, bytes]]
"""Header lines in the order sent. A request's names are in lower case, a response's as they were given."""

Address = tuple[str, int | None]
"""Host and port; for a Unix socket its path and None."""


@dataclass(slots=True)
class Tls:
    """What is known of a connection's TLS session. Certificates are PEM.

    Attributes:
        version: as OpenSSL calls it: "TLSv1.3".
        cipher: the cipher suite, as OpenSSL calls it.
        cipher_suite: its number (RFC 8446 appendix B.4); None if it is not known.
        bits: of the cipher's key.
        server_name: the name that the client asked for (SNI, RFC 6066 section 3).
        resumed: whether an earlier session was taken up again.
        server_cert: the certificate that the client was shown.
        client_chain: the client's certificate, and those behind it as far as they are known.
        client: the client's certificate as `ssl.SSLSocket.getpeercert` tells it, {} if there is none.
    """

    version: str
    cipher: str
    cipher_suite: int | None
    bits: int
    server_name: str | None = None
    resumed: bool = False
    server_cert: str | None = None
    client_chain: list[str] = field(default_factory=list)
    client: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Peer:
    """The two ends of a connection: the same for all of its exchanges, unless a proxy says more of one.

    Attributes:
        client: address of the other side; None on a Unix socket, and if a proxy does not tell it. The port is
            0 if a proxy does not tell it.
        server: address that was connected to; None when the socket has none.
        scheme: "http" or "https".
        letter: goes with the connection to whoever serves next, before what was read of it.
        tls: the TLS session of the connection, if it has one here.
        is_proxied: a proxy stands between, and the others are what it has said.
    """

    client: Address | None = None
    server: Address | None = None
    scheme: str = "http"
    letter: bytes = b""
    tls: Tls | None = None
    is_proxied: bool = False


@dataclass(slots=True)
class Request:
    """The head of a request (RFC 9112 section 3, RFC 9113 section 8.3), checked: no bad one gets here.

    Attributes:
        method: as sent, upper case where the standard methods are meant.
        target: the request target as sent.
        path: the target's path, percent-encoded as sent; b"*" for `OPTIONS *`.
        query: what follows the first "?", without it.
        version: "1.0", "1.1" or "2"; also "3", where a proxy tells the client's by the uwsgi protocol.
        headers: all header lines.
        peer: the two ends of the connection.
        prefix: the path under which a proxy serves the application, decoded; "" if it does not say one.
        parameters: what a proxy has said beside the headers, by the uwsgi protocol, in the words of CGI
            (RFC 3875 section 4.1): name to value, a character for each byte. None where HTTP is spoken.
    """

    method: str
    target: bytes
    path: bytes
    query: bytes
    version: str
    headers: Headers
    peer: Peer = field(default_factory=Peer)
    prefix: str = ""
    parameters: dict[str, str] | None = None


class Exchange(Protocol):
    """One request and its response, as the HTTP side offers it to a gateway.

    Attributes:
        request: the head.
        complete: the whole body has been received (some of it may not have been read yet).
        disconnected: nobody waits for the response any more: the client has gone, the body was
            malformed or cut short, or the server is closing. Writes are ignored from here on.
        half_closed: the client has closed its sending side. Either it has gone or it still reads
            the response; only a write can tell, so writes go on.
        paused: the client takes the response more slowly than it is written. A gateway stops
            writing until a `wake` finds this false.
        started: `start` has been called.
        finished: the response has ended: the last `write`, or `trail`, has been called, and the last
            `send_file` is over.
        takes_trailers: trailers reach the client: it has asked for them (`TE: trailers`), and this version of
            HTTP has room for them.
    """

    request: Request
    complete: bool
    disconnected: bool
    half_closed: bool
    paused: bool
    started: bool
    finished: bool
    takes_trailers: bool

    def read(self) -> bytes:
        """Take the part of the body that has arrived; b"" when there is none now.

        The first call sends `100 Continue` to a client that waits for it (RFC 9110 10.1.1).
        Reading is what keeps the connection reading: a body nobody takes is held back at the
        client.
        """
        ...

    def hint(self, headers: Headers) -> None:
        """Send `103 Early Hints` (RFC 8297) with these headers.

        Nothing is sent if the final response's head has left, or if the client would take this for the final
        response.

        Raises:
            ApplicationError: a header cannot be sent.
        """
        ...

    def start(self, status: int, headers: Headers) -> None:
        """Set status and headers. They are sent together with the first `write`.

        The HTTP side decides about framing: `transfer-encoding` and `connection` of the
        application are replaced, a missing `content-length` becomes chunked (1.1) or the end of
        the connection (1.0); `date` and `server` are added unless present. Names may be in any
        case here, and HTTP/1 sends them so.

        Raises:
            ApplicationError: the response was started before, or a header cannot be sent
                (a control character, a negative length).
        """
        ...

    def withdraw(self) -> bool:
        """Take `start` back, so that another response can be started in its place.

        Returns False when that is too late: the head has been sent.
        """
        ...

    def write(self, data: bytes, more: bool) -> None:
        """Send a part of the body. For HEAD, 204 and 304 it is counted and dropped.

        Args:
            data: bytes of the body; may be empty.
            more: False ends the response.

        Raises:
            ApplicationError: before `start`, after the end, or more or less than the
                `content-length` that was announced. Nothing of `data` has been sent then.
        """
        ...

    def send_file(self, file: int, offset: int, count: int, more: bool) -> None:
        """Send a part of a file as a part of the body, as `write` does.

        It returns at once. `paused` is true until the part has been sent, and nothing may be written until
        then. If the file turns out to be shorter, the connection is cut.

        Args:
            file: the descriptor of a regular file. It may be closed when this has returned.
            offset, count: which bytes of it.
            more: False ends the response when they have been sent.

        Raises:
            ApplicationError: as `write`.
        """
        ...

    def trail(self, headers: Headers) -> None:
        """End the response with trailers (RFC 9110 section 6.5), after a `write` that said that more follows.

        Where `takes_trailers` is false, or the response has no body, it ends without them.

        Raises:
            ApplicationError: before `start`, after the end, or a field that cannot be sent there.
        """
        ...

    def abort(self) -> None:
        """Cut the connection: the response has begun and cannot be completed."""
        ...


class Session(Protocol):
    """One WebSocket (RFC 6455), from the handshake to the close, as a gateway sees it.

    Attributes:
        request: the handshake's head.
        subprotocols: what the client offers, in its order of preference.
        accepted: `accept` has been called.
        close_code: None until the close is known, whoever began it; 1005 when the peer gave no
            code, 1006 when the connection broke.
        close_reason: the peer's words, or "".
        paused: the client takes messages more slowly than they are sent.
    """

    request: Request
    subprotocols: list[str]
    accepted: bool
    close_code: int | None
    close_reason: str
    paused: bool

    def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """Complete the handshake with 101.

        Raises:
            ApplicationError: the handshake was answered before, or the subprotocol was not offered.
        """
        ...

    def refuse(self) -> Exchange:
        """Answer the handshake by an ordinary response (ASGI `websocket.http.response`).

        Returns the exchange whose `start` and `write` make that response.
        """
        ...

    def receive(self) -> str | bytes | None:
        """Take the next whole message; None when there is none now."""
        ...

    def send(self, message: str | bytes) -> None:
        """Send one message, text for str and binary for bytes; ignored after the close."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Begin the close with a code (RFC 6455 7.4); ignored after the close."""
        ...


class Handler(Protocol):
    """What a gateway returns for one exchange or session: the application at work.

    As text it names the request, for who must say what still runs.
    """

    def wake(self) -> None:
        """Something changed: body or a message arrived, its end, a disconnect, room to write.

        Called in the event loop's thread. It must not call back into the exchange by itself;
        it lets whoever waits look.
        """
        ...

    def cancel(self) -> None:
        """The grace is over: end the application's work on this, as far as that can be done."""
        ...


class Answered:
    """The handler of an exchange that was answered when it began."""

    def wake(self) -> None:
        """Nothing waits."""

    def cancel(self) -> None:
        """Nothing runs."""


class Gateway(Protocol):
    """An application behind one interface, whatever its kind.

    Attributes:
        running: handlers whose application has not returned yet, also after the response is
            complete (background tasks). A drain waits for this to become empty.
        websockets: whether `session` may be called; otherwise an upgrade is served as plain HTTP.
    """

    running: set[Handler]
    websockets: bool

    def exchange(self, exchange: Exchange) -> Handler:
        """Begin the application's work on a request."""
        ...

    def session(self, session: Session) -> Handler:
        """Begin the application's work on a WebSocket."""
        ...

    def close(self) -> None:
        """Let go of threads and the like; nothing is begun any more, and nothing waited for."""
        ...
