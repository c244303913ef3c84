"""What a request's head may look like and what it says (RFC 9112 sections 2 to 6), and refusals.

Pure: bytes in, decisions out. The rules that protect stand here once and hold for every parser.
A head is held against a grammar stricter than any of the parsers, and how its body is framed is
read from its bytes, before a parser sees it: what one parser lets pass and the next reads
differently is how requests are smuggled. (h11 makes one length of `5, 5`; httptools knows no 501.)
The parser's part is to make header lines of what is known to be good.

Knows no sockets, no timeouts and no parser.
"""

import re
from dataclasses import dataclass
from typing import Protocol

from devserver.http.exchange import Headers

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# One pass, no branch that can match the same byte twice: linear in the length of the head.
_HEAD = re.compile(
    rb"(" + TOKEN + rb") ([\x21\x22\x24-\x7e]+) HTTP/(1\.[01])\r\n"
    rb"(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
)
# For a head in lower case, since none of these values depends on case: cheaper than to ignore it here.
_FRAMING_LINES = re.compile(
    rb"\r\n(host|content-length|transfer-encoding|connection|expect|upgrade):[ \t]*([^\r]*)"
)
_SLASH = ord("/")
_ONCE = {b"host": "Host", b"content-length": "Content-Length"}
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_BLANK_LINES = re.compile(rb"(?:\r\n)*")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_REQUEST_LINE = re.compile(TOKEN + rb" [^ \r\n]+ HTTP/(\d)\.(\d)\r?\n")
_HOST = re.compile(rb"[^\x00-\x20/?#@\\,<>\"]*")
_DIGITS = re.compile(rb"[0-9]{1,18}")


class Refused(Exception):
    """A request that is not served: status and a line for the client and the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Parser(Protocol):
    """What a parser makes of a checked head."""

    def __call__(self, head: bytes) -> Headers:
        """The header lines, names in lower case.

        Raises:
            Refused: the parser finds fault with it.
        """
        ...


def blank_lines(buffer: bytes) -> int:
    """How many bytes of empty lines there are before a request line (RFC 9112 section 2.2)."""
    match = _BLANK_LINES.match(buffer)
    assert match is not None  # it matches nothing, too
    return match.end()


def end_of_head(buffer: bytes, searched: int, limit: int) -> int:
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
            raise Refused(400, "TLS on a plain HTTP port: ask with http://, or serve HTTPS by --https")
        if len(buffer) > limit:
            raise Refused(431, _too_large(buffer, limit))
        # Such a head may never end: said at once, the client need not wait for a timeout.
        if _BARE.search(buffer, max(0, searched - 1)):
            raise Refused(400, "bare CR or LF in the head")
        return -1
    if end + 4 > limit:
        raise Refused(431, _too_large(buffer[:end], limit))
    return end + 4


def _too_large(head: bytes, limit: int) -> str:
    """Why a head is refused, what of it is largest, and what can be done."""
    first, *lines = head.split(b"\r\n")
    largest = max(lines, key=len, default=b"")
    text = f"the request's head is larger than {limit} bytes (--h11-max-incomplete-event-size allows more)"
    name, colon, _ = largest.partition(b":")
    if not colon or len(first) > len(largest) or not _NAME.fullmatch(name):
        return text
    text = f"{text}; its largest field is {name.decode('ascii')}, with {len(largest)} bytes"
    if name.lower() == b"cookie":
        text += ": every application on this host sees the cookies of all; delete them in the browser"
    return text


@dataclass(slots=True)
class Framing:
    """What a head says: its request line, and about its body and its connection.

    Attributes:
        method, target: as sent.
        path, query: of the target, as sent.
        version: "1.0" or "1.1".
        length: bytes of the body; 0 for none; -1 for chunked.
        keep_alive: the connection may carry another request.
        expects: the client waits for `100 Continue` before it sends the body.
        upgrade: the protocol that the client wants to change to, lower case, or b"".
        forwarded: a proxy may have said for whom it asks (`front`).
    """

    method: str = "GET"
    target: bytes = b""
    path: bytes = b""
    query: bytes = b""
    version: str = "1.1"
    length: int = 0
    keep_alive: bool = True
    expects: bool = False
    upgrade: bytes = b""
    forwarded: bool = False


def read(head: bytes) -> Framing:
    """Hold a whole head against the rules, and decide how the message is framed.

    Sources: RFC 9112 sections 3, 5, 6.3 and 9.3, RFC 9110 sections 7.2 and 10.1.1.

    Raises:
        Refused: 400 for what breaks the grammar or contradicts itself, 505 for a version that is
            not 1.0 or 1.1, 501 for CONNECT and for a transfer coding other than chunked, 417 for
            an expectation that is not 100-continue.
    """
    match = _HEAD.fullmatch(head)
    if match is None:
        raise _fault(head)
    method, target, version = match.groups()
    if method == b"CONNECT":
        raise Refused(501, "CONNECT is for proxies")
    old = version == b"1.0"
    lower = head.lower()
    fields = _fields(lower)
    host = fields.pop(b"host", None)
    if host is None:
        if not old:
            raise Refused(400, "no Host header")
    elif _HOST.fullmatch(host) is None:
        raise Refused(400, "malformed Host header")
    path, _, query = (target if target[0] == _SLASH else _origin_form(method, target)).partition(b"?")
    result = Framing(method.decode("ascii"), target, path, query, "1.0" if old else "1.1", 0, not old)
    if fields:
        result.length = _length(fields, old)
        _connection(fields, old, result)
    result.forwarded = lower.find(b"forwarded") >= 0  # half the time of `in`
    return result


def _fields(lower: bytes) -> dict[bytes, bytes]:
    """The lines of a head in lower case that framing depends on; a repeated one's values by commas."""
    fields: dict[bytes, bytes] = {}
    for name, value in _FRAMING_LINES.findall(lower):
        value = value.rstrip(b" \t")
        if name in fields:
            # RFC 9110 section 8.6 allows to take equal lengths for one; nobody sends them in good faith.
            if name in _ONCE:
                raise Refused(400, f"more than one {_ONCE[name]} header")
            value = fields[name] + b"," + value
        fields[name] = value
    return fields


def _fault(head: bytes) -> Refused:
    """Name what the grammar refused; only ever called for a bad head, so it may take its time."""
    if b"\0" in head:
        return Refused(400, "NUL in the head")
    if _BARE.search(head):
        return Refused(400, "bare CR or LF in the head")
    line = _REQUEST_LINE.match(head)
    if line is None:
        return Refused(400, "malformed request line")
    if line[1] != b"1" or line[2] not in (b"0", b"1"):
        return Refused(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if re.search(rb"\r\n[ \t]", head):
        return Refused(400, "folded header line")
    if re.search(rb"\r\n[^:\r\n]*[ \t]:", head):
        return Refused(400, "space before the colon of a header")
    return Refused(400, "malformed request line or header line")


def _length(fields: dict[bytes, bytes], old: bool) -> int:
    coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise Refused(400, "both Transfer-Encoding and Content-Length")
        if old:
            raise Refused(400, "Transfer-Encoding in HTTP/1.0")
        if coding != b"chunked":
            raise Refused(501, "the only transfer coding known here is chunked, once")
        return -1
    if length is None:
        return 0
    if _DIGITS.fullmatch(length) is None:
        raise Refused(400, "malformed Content-Length")
    return int(length)


def _connection(fields: dict[bytes, bytes], old: bool, result: Framing) -> None:
    options = {option.strip() for option in fields.get(b"connection", b"").split(b",")}
    if b"close" in options:
        result.keep_alive = False
    if b"expect" in fields and not old:
        if fields[b"expect"] != b"100-continue":
            raise Refused(417, "the only expectation met here is 100-continue")
        result.expects = result.length != 0
    if b"upgrade" in options:
        result.upgrade = fields.get(b"upgrade", b"")


def _origin_form(method: bytes, target: bytes) -> bytes:
    """Path and query of a request target that does not begin with a slash (RFC 9112 section 3.2).

    Raises:
        Refused: 400 for a target that is neither origin, absolute nor (for OPTIONS) asterisk form.
    """
    if target == b"*" and method == b"OPTIONS":
        return target
    scheme, _, rest = target.partition(b"://")
    cut = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    if not cut or scheme.lower() not in (b"http", b"https", b"ws", b"wss"):
        raise Refused(400, "malformed request target")
    target = rest[cut:]
    return target if target.startswith(b"/") else b"/" + target
