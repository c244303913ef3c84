"""How a response begins: its head as bytes, checked, with the headers that the server adds.

Pure, but for the clock in the Date header. Refuses to know how a body is framed and sent
(`response_writer` decides that) and which server it belongs to.
"""

from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from time import time
from wsgiref.handlers import format_date_time

from devserver.errors import ApplicationError
from devserver.http.codes import NO_CONTENT, RESET_CONTENT
from devserver.http.exchange import Headers

UNKNOWN = -2
"""The length of a body that the application has not announced."""

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CONTROLS = bytes(sorted({*range(0x20), 0x7F} - {0x09}))
_LONGEST_LENGTH = 18  # digits; as in requests

_WITHOUT_LENGTH = frozenset((NO_CONTENT, RESET_CONTENT))
"""Statuses with which the application's content-length is not sent: there is none with 204 (RFC 9110
section 8.6), and with 205 it is 0 (section 15.3.6)."""

_HOP_BY_HOP = frozenset((b"connection", b"transfer-encoding", b"keep-alive", b"te", b"proxy-connection"))
"""Fields that describe this connection and not the response (RFC 9110 section 7.6.1): they are the
server's to say, and only what they say about closing is taken over. An application has them from a response
of another server that it passes on."""

_USUAL = frozenset((b"close", b"keep-alive"))
"""What an application may say of a connection without being contradicted."""

_NO_TRAILER = _HOP_BY_HOP | frozenset(
    (b"host", b"content-length", b"content-type", b"content-encoding", b"content-range", b"trailer",
     b"upgrade", b"authorization", b"set-cookie", b"location", b"cache-control", b"expires", b"vary",
     b"age", b"date", b"retry-after", b"www-authenticate")
)  # fmt: skip
"""Fields that frame a message, route it, or say how it is to be taken (RFC 9110 section 6.5.1)."""

_LOOKED_AT = _HOP_BY_HOP | {b"content-length", b"content-type"}


_CONFUSED = (b"python-urllib", b"python-requests")
"""How the names of user agents begin that take any 1xx but 100 for the final response: those that are made of
Python's http.client."""


class _StatusLines(dict[int, bytes]):
    """Status lines; a status that has no name in the registry has none here."""

    def __missing__(self, status: int) -> bytes:
        return f"HTTP/1.1 {status} \r\n".encode("ascii")


_STATUS_LINES = _StatusLines(
    {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus}
)


@dataclass(slots=True)
class Head:
    """A final response's status and headers, encoded, as far as they are the application's to say.

    Attributes:
        status: 200 to 999.
        block: status line and header lines.
        names: the headers' names, in lower case.
        length: the body's announced length, or `UNKNOWN`.
        close: the application wants the connection closed.
        dropped: a field of the application's that only the server may send; b"" for none.
        event_stream: these are server-sent events, which never end by themselves.
    """

    status: int
    block: bytes
    names: list[bytes]
    length: int
    close: bool
    event_stream: bool
    dropped: bytes = b""


def encode(status: int, headers: Headers) -> Head:
    """Encode what an application wants to send.

    Raises:
        ApplicationError: the status or a header cannot be sent.
    """
    if not 200 <= status <= 999:
        raise ApplicationError(f"the application sent status {status}: a response has 200 to 999")
    lines = [_STATUS_LINES[status]]
    names: list[bytes] = []
    length, close, event_stream, dropped = UNKNOWN, False, False, b""
    try:
        for given, value in headers:
            name = _name(given)
            if name in _LOOKED_AT:
                if name == b"content-type":
                    event_stream = value.startswith(b"text/event-stream")
                elif name == b"content-length":
                    repeated = length != UNKNOWN
                    length = _length(value, length)
                    if repeated or status in _WITHOUT_LENGTH:
                        continue
                else:
                    options = {option.strip() for option in value.lower().split(b",")}
                    close = close or (name == b"connection" and b"close" in options)
                    if name != b"connection" or options - _USUAL:
                        dropped = dropped or b"%b: %b" % (given, value)
                    continue
            names.append(name)
            lines.append(b"%b: %b\r\n" % (given, value))
        if status == RESET_CONTENT:
            lines.append(b"Content-Length: 0\r\n")
        block = b"".join(lines)
    except (TypeError, ValueError, AttributeError):
        raise ApplicationError(
            f"the application sent the headers {headers!r:.200}: each must be a pair of byte strings"
        ) from None
    if _controls(block) != 2 * len(lines):
        raise _fault(lines)
    return Head(status, block, names, length, close, event_stream, dropped)


def response_head(status: int, headers: Headers, added: bytes = b"") -> bytes:
    """A whole head as bytes, for a 101 too, with nothing but these headers in it.

    Args:
        added: header lines that were encoded before; they come last.

    Raises:
        ApplicationError: a name or value that cannot be sent.
    """
    for name, _ in headers:
        _name(name)
    lines = [_STATUS_LINES[status], *[b"%b: %b\r\n" % header for header in headers]]
    block = b"".join(lines)
    if _controls(block) != 2 * len(lines):
        raise _fault(lines)
    return block + added + b"\r\n"


@lru_cache(maxsize=512)
def _name(given: bytes) -> bytes:
    """A header's name in lower case. Few are in use, so each is looked at once.

    It is sent as it was given: names have no case, and clients that are not by the book look for one.
    """
    if not given or given.translate(None, _TOKEN):
        raise ApplicationError(f"the application sent the header name {given!r}: not a token")
    return given.lower()


def _length(value: bytes, before: int) -> int:
    if value.isdigit() and len(value) <= _LONGEST_LENGTH and before in (UNKNOWN, length := int(value)):
        return length
    raise ApplicationError(f"the application sent content-length {value!r}: it must be one number")


def _controls(text: bytes) -> int:
    """How many there are. A value must not end its line or the head: a scan in C of all at once."""
    return len(text) - len(text.translate(None, _CONTROLS))


def _fault(lines: list[bytes]) -> ApplicationError:
    """Name the line that has more control characters than its end."""
    bad = next(line for line in lines if _controls(line) != 2)
    return ApplicationError(f"the application sent the header {bad[:-2]!r}: it has a control character in it")


def takes_for_final(headers: Headers) -> bool:
    """Whether the client that sent these headers would take an informational response for the final one."""
    agent = next((value for name, value in headers if name == b"user-agent"), b"")
    return agent.lower().startswith(_CONFUSED)


def trailer_lines(headers: Headers) -> bytes:
    """Trailers as bytes, without the empty line after them.

    Raises:
        ApplicationError: one that cannot be sent, or that a client must know before the body.
    """
    for name, _ in headers:
        if _name(name) in _NO_TRAILER:
            raise ApplicationError(f"the application sent {name!r} as a trailer: it belongs into the headers")
    return response_head(HTTPStatus.OK, headers)[len(_STATUS_LINES[HTTPStatus.OK]) : -2]


class Defaults:
    """Headers that each response gets unless it has them; encoded beforehand.

    Attributes:
        kept: lines that tell a client for how long its connection is kept.
    """

    def __init__(self, headers: Headers, *, date: bool = False, keep: float = 0.0) -> None:
        """
        Args:
            date: add the Date header (RFC 9110 section 6.6.1), unless `headers` has one.
            keep: seconds for which a connection is kept while nothing happens on it.

        Raises:
            ApplicationError: a header cannot be sent.
        """
        given = response_head(HTTPStatus.OK, headers).splitlines(keepends=True)[1:-1]
        names = [name.lower() for name, _ in headers]
        self._lines = list(zip(names, given, strict=True))
        self._dated = date and b"date" not in names
        self._names = frozenset([*names, *([b"date"] if self._dated else [])])
        self._fixed = b"".join(given)
        # Whole seconds (RFC 2068 section 19.7.1.1), and named in Connection (RFC 9110 section 7.6.1).
        self.kept = b"Connection: keep-alive\r\nKeep-Alive: timeout=%d\r\n" % keep if keep >= 1 else b""
        self._second = 0
        self._date = b""
        self._all = self._fixed

    def lines(self, names: list[bytes]) -> bytes:
        """The header lines for a response that has headers of these names."""
        if self._dated:
            now = int(time())
            if now != self._second:
                self._second = now
                self._date = b"Date: %b\r\n" % format_date_time(now).encode("ascii")
                self._all = self._fixed + self._date
        if self._names.isdisjoint(names):
            return self._all
        lines = [line for name, line in self._lines if name not in names]
        if self._dated and b"date" not in names:
            lines.append(self._date)
        return b"".join(lines)
