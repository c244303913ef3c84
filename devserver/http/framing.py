"""Where messages begin and end (RFC 9112 sections 2 to 7), and what is refused.

Pure: bytes in, decisions out. The rules that protect stand here once and hold for every parser.
A head is checked as a whole, against a grammar stricter than any of the parsers, before a parser
sees it: what one parser lets pass and the next reads differently is how requests are smuggled.
For the same reason bodies are taken apart here and not by the parsers, of which one cannot even
say where in its input a chunked body ended.

Knows no sockets, no timeouts and no parser.
"""

import re
import time
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

from devserver.errors import ApplicationError
from devserver.http.exchange import Headers

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# One pass, no branch that can match the same byte twice: linear in the length of the head.
_HEAD = re.compile(
    TOKEN + rb" [\x21\x22\x24-\x7e]+ HTTP/1\.[01]\r\n(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
)
_REQUEST_LINE = re.compile(TOKEN + rb" [^ \r\n]+ HTTP/(\d)\.(\d)\r?\n")
_FIELD_VALUE_BREAKERS = re.compile(rb"[\x00\r\n]")
_HOST = re.compile(rb"[^\x00-\x20/?#@\\,<>\"]*\Z")
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\Z")
_TRAILER = re.compile(TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\Z")
_MAX_CHUNK_LINE = 4096
_MAX_TRAILERS = 16384
_NOT_TOKEN = bytes(set(range(256)) - set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"))


class Refused(Exception):
    """A request that is not served: status and a line for the client and the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Head(Protocol):
    """What a parser makes of a checked head."""

    def __call__(self, head: bytes) -> tuple[str, bytes, str, Headers]:
        """Method, target, version ("1.0" or "1.1") and headers with lower-case names.

        Raises:
            Refused: the parser finds fault with it.
        """
        ...


def end_of_head(buffer: bytes | bytearray, searched: int, limit: int) -> int:
    """Index after the blank line that ends a head; -1 when it has not arrived.

    Args:
        buffer: what has arrived, beginning with the request line.
        searched: how many bytes of it were looked at before, in vain.
        limit: the most bytes that a head may have.

    Raises:
        Refused: 431 over the limit; 400 for TLS, and for line ends that are no CRLF.
    """
    end = buffer.find(b"\r\n\r\n", max(0, searched - 3))
    if end < 0:
        if buffer[:2] == b"\x16\x03":
            raise Refused(400, "TLS on a plain HTTP port: ask with http://, not https://")
        if len(buffer) > limit:
            raise Refused(431, f"request head larger than {limit} bytes")
        if b"\n\n" in buffer:
            raise Refused(400, "lines of the head must end with CR LF")
        return -1
    if end + 4 > limit:
        raise Refused(431, f"request head larger than {limit} bytes")
    return end + 4


def check_head(head: bytes) -> None:
    """Hold a whole head against the grammar of RFC 9112.

    Raises:
        Refused: 400, or 505 for a version that is not 1.0 or 1.1.
    """
    if _HEAD.fullmatch(head) is None:
        raise _fault(head)


def _fault(head: bytes) -> Refused:
    """Name what the grammar refused; only ever called for a bad head, so it may take its time."""
    line = _REQUEST_LINE.match(head)
    if line is None:
        return Refused(400, "malformed request line")
    if line[1] != b"1" or line[2] not in (b"0", b"1"):
        return Refused(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if b"\0" in head:
        return Refused(400, "NUL in the head")
    if re.search(rb"\r(?!\n)|(?<!\r)\n", head):
        return Refused(400, "bare CR or LF in the head")
    if re.search(rb"\r\n[ \t]", head):
        return Refused(400, "folded header line")
    if re.search(rb"\r\n[^:\r\n]*[ \t]:", head):
        return Refused(400, "space before the colon of a header")
    return Refused(400, "malformed header line")


@dataclass(slots=True)
class Framing:
    """What a head says about its body and its connection.

    Attributes:
        length: bytes of the body; 0 for none; -1 for chunked.
        keep_alive: the connection may carry another request.
        expects: the client waits for `100 Continue` before it sends the body.
        upgrade: the protocol that the client wants to change to, lower case, or b"".
    """

    length: int = 0
    keep_alive: bool = True
    expects: bool = False
    upgrade: bytes = b""


_FRAMING_FIELDS = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade")
)


def framing(method: str, version: str, headers: Headers) -> Framing:
    """Decide how the message is framed (RFC 9112 section 6.3, 9.3, RFC 9110 7.2, 10.1.1).

    Raises:
        Refused: 400 for contradictions, 501 for a transfer coding other than chunked or CONNECT,
            417 for an expectation that is not 100-continue.
    """
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _FRAMING_FIELDS:
            found.setdefault(name, []).append(value)
    if method == "CONNECT":
        raise Refused(501, "CONNECT is for proxies")
    _check_host(found.get(b"host", []), version)
    result = Framing(length=_length(found, version), keep_alive=version == "1.1")
    if len(found) > 1:
        _connection(found, version, result)
    return result


def _check_host(hosts: list[bytes], version: str) -> None:
    if len(hosts) > 1:
        raise Refused(400, "more than one Host header")
    if not hosts:
        if version == "1.1":
            raise Refused(400, "no Host header")
    elif _HOST.match(hosts[0]) is None:
        raise Refused(400, "malformed Host header")


def _length(found: dict[bytes, list[bytes]], version: str) -> int:
    codings, lengths = found.get(b"transfer-encoding"), found.get(b"content-length")
    if codings is not None:
        if lengths is not None:
            raise Refused(400, "both Transfer-Encoding and Content-Length")
        if version == "1.0":
            raise Refused(400, "Transfer-Encoding in HTTP/1.0")
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise Refused(501, "the only transfer coding known here is chunked, once")
        return -1
    if lengths is None:
        return 0
    if len(set(lengths)) > 1:
        raise Refused(400, "Content-Length headers that differ")
    if _DIGITS.match(lengths[0]) is None:
        raise Refused(400, "malformed Content-Length")
    return int(lengths[0])


def _connection(found: dict[bytes, list[bytes]], version: str, result: Framing) -> None:
    options = {o.strip().lower() for line in found.get(b"connection", ()) for o in line.split(b",")}
    if b"close" in options:
        result.keep_alive = False
    if b"expect" in found and version == "1.1":
        if [value.lower() for value in found[b"expect"]] != [b"100-continue"]:
            raise Refused(417, "the only expectation met here is 100-continue")
        result.expects = result.length != 0
    if b"upgrade" in options and b"upgrade" in found:
        result.upgrade = found[b"upgrade"][0].strip().lower()


def split_target(method: str, target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target (RFC 9112 section 3.2), both as sent.

    Raises:
        Refused: 400 for a target that is neither origin, absolute nor (for OPTIONS) asterisk form.
    """
    if not target.startswith(b"/"):
        if target == b"*" and method == "OPTIONS":
            return b"*", b""
        scheme, found, rest = target.partition(b"://")
        if not found or scheme.lower() not in (b"http", b"https", b"ws", b"wss"):
            raise Refused(400, "malformed request target")
        cut = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
        target = rest[cut:]
        if not target.startswith(b"/"):
            target = b"/" + target
    path, _, query = target.partition(b"?")
    return path, query


class BadBody(Exception):
    """A body that is not framed as its head promised."""


class Body(Protocol):
    """Takes a message's body out of the bytes of a connection."""

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take bytes from the connection.

        Returns the part of the body in them, and None, or, when the body has ended, the bytes
        that follow it.

        Raises:
            BadBody: the bytes are no such body.
        """
        ...


class LengthBody:
    """A body of a known length (RFC 9112 section 6.2)."""

    __slots__ = ("remaining",)

    def __init__(self, length: int) -> None:
        self.remaining = length

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        if len(data) < self.remaining:
            self.remaining -= len(data)
            return data, None
        body, rest = data[: self.remaining], data[self.remaining :]
        self.remaining = 0
        return body, rest


class ChunkedBody:
    """A body in chunks (RFC 9112 section 7.1). Extensions and trailers are read and dropped.

    `_step` holds the reader for what comes next; a reader returns False when it wants more bytes.
    """

    __slots__ = ("_buffer", "_ended", "_out", "_remaining", "_step", "_trailers")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._remaining = 0
        self._trailers = 0
        self._ended = False
        self._step = self._size

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        self._buffer += data
        while not self._ended and self._step():
            pass
        body = b"".join(self._out)
        self._out.clear()
        return body, bytes(self._buffer) if self._ended else None

    def _line(self, limit: int) -> bytes | None:
        end = self._buffer.find(b"\n")
        if end < 0 and len(self._buffer) <= limit:
            return None
        if end < 1 or end > limit or self._buffer[end - 1] != 0x0D:
            raise BadBody("malformed line in a chunked body")
        line = bytes(self._buffer[: end - 1])
        del self._buffer[: end + 1]
        return line

    def _size(self) -> bool:
        line = self._line(_MAX_CHUNK_LINE)
        if line is None:
            return False
        match = _CHUNK_SIZE.match(line)
        if match is None:
            raise BadBody("malformed chunk size")
        self._remaining = int(match[1], 16)
        self._step = self._data if self._remaining else self._trailer
        return True

    def _data(self) -> bool:
        if not self._buffer:
            return False
        piece = bytes(self._buffer[: self._remaining])
        del self._buffer[: len(piece)]
        self._out.append(piece)
        self._remaining -= len(piece)
        if not self._remaining:
            self._step = self._data_end
        return True

    def _data_end(self) -> bool:
        if len(self._buffer) < 2 and b"\r".startswith(self._buffer):
            return False
        if self._buffer[:2] != b"\r\n":
            raise BadBody("chunk longer than its size")
        del self._buffer[:2]
        self._step = self._size
        return True

    def _trailer(self) -> bool:
        line = self._line(_MAX_TRAILERS)
        if line is None:
            return False
        self._trailers += len(line)
        if not line:
            self._ended = True
        elif self._trailers > _MAX_TRAILERS or _TRAILER.match(line) is None:
            raise BadBody("malformed trailer")
        return True


def body(length: int) -> Body | None:
    """The reader for a body of `length` bytes, -1 for chunked; None where there is none."""
    if length == 0:
        return None
    return ChunkedBody() if length < 0 else LengthBody(length)


STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}


def response_head(status: int, headers: Headers) -> bytes:
    """Status line and header lines as bytes, checked so that no header can end the head.

    Raises:
        ApplicationError: a name or value that cannot be sent.
    """
    line = STATUS_LINES.get(status)
    if line is None:
        if not 200 <= status <= 999:
            raise ApplicationError(f"the application sent status {status}: a response has 200 to 999")
        line = f"HTTP/1.1 {status} \r\n".encode("ascii")
    block = b"".join([b"%b: %b\r\n" % header for header in headers])
    count = len(headers)
    # Three scans in C over the whole block instead of a check of each value.
    if block.count(b"\n") != count or block.count(b"\r") != count or b"\0" in block:
        bad = next(n for n, v in headers if _FIELD_VALUE_BREAKERS.search(n + v))
        raise ApplicationError(f"the application sent header {bad!r} with a line break or NUL in it")
    for name, _ in headers:
        if not name or len(name.translate(None, _NOT_TOKEN)) != len(name):
            raise ApplicationError(f"the application sent the header name {name!r}: not a lower-case token")
    return b"%b%b\r\n" % (line, block)


class _Clock:
    """The Date header, made once a second."""

    second = 0
    value = b""


def date() -> bytes:
    """The value of a Date header for now (RFC 9110 section 5.6.7)."""
    now = int(time.time())
    if now != _Clock.second:
        _Clock.second, _Clock.value = now, formatdate(now, usegmt=True).encode("ascii")
    return _Clock.value
