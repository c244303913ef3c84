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

from devserver.http.codes import (
    BAD_REQUEST,
    EXPECTATION_FAILED,
    FIELDS_TOO_LARGE,
    MISDIRECTED,
    NOT_IMPLEMENTED,
    URI_TOO_LONG,
    VERSION_NOT_SUPPORTED,
)
from devserver.http.exchange import Headers, Peer

_TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TOKEN = _TCHAR + rb"+"
_LONGEST_METHOD = b"64"
"""In characters. The longest that is registered has 17; the application may know others."""

# One pass, no branch that can match the same byte twice: linear in the length of the head.
_HEAD = re.compile(
    rb"(" + _TCHAR + rb"{1," + _LONGEST_METHOD + rb"}) ([\x21\x22\x24-\x7e]+) HTTP/(1\.[01])\r\n"
    rb"(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
)
_LONG_METHOD = re.compile(_TCHAR + rb"{" + _LONGEST_METHOD + rb"}" + _TCHAR)
# For a head in lower case, since none of these values depends on case: cheaper than to ignore it here.
_FRAMING_LINES = re.compile(
    rb"\r\n(host|content[_-]length|transfer[_-]encoding|connection|expect|upgrade|te):[ \t]*([^\r]*)"
)
_SLASH = ord("/")
_ONCE = {b"host": "Host", b"content-length": "Content-Length"}

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_BLANK_LINES = re.compile(rb"(?:\r\n)*")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_REQUEST_LINE = re.compile(TOKEN + rb" [^ \r\n]+ HTTP/(\d)\.(\d)\r?\n")
_USUAL_HOST = re.compile(rb"[0-9a-z.-]+(?::[0-9]*)?")
# In lower case (RFC 3986 section 3.2.2), without the comma: it is how two hosts become one.
_HOST = re.compile(
    rb"(?:[0-9a-z._~!$&'()*+;=-]*(?:%[0-9a-f]{2}[0-9a-z._~!$&'()*+;=-]*)*|\[[0-9a-fv:.%_~-]+\])(?::[0-9]*)?"
)
_LONGEST_LENGTH = 18  # digits


class Refused(Exception):
    """A request that is not served: status and a line for the client and the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


_UWSGI = "a uwsgi packet on an HTTP port: give --protocol uwsgi, or have nginx use proxy_pass"
_UNKNOWN_METHOD = f"a method of more than {int(_LONGEST_METHOD)} characters is not known here"


class Parser(Protocol):
    """What a parser makes of a checked head."""

    def __call__(self, head: bytes) -> Headers:
        """The header lines, names in lower case.

        Raises:
            Refused: the parser finds fault with it.
        """
        ...


def blank_lines(buffer: bytes, begin: int = 0) -> int:
    """How many bytes of empty lines there are before a request line (RFC 9112 section 2.2).

    Args:
        begin: where to look.
    """
    match = _BLANK_LINES.match(buffer, begin)
    assert match is not None  # it matches nothing, too
    return match.end() - begin


def is_host(text: bytes) -> bool:
    """Whether this may be a Host header (RFC 9110 section 7.2)."""
    lower = text.lower()
    return _USUAL_HOST.fullmatch(lower) is not None or _HOST.fullmatch(lower) is not None


def end_of_head(buffer: bytes, begin: int, searched: int, limit: int) -> int:
    """Index after the blank line that ends a head; -1 when it has not arrived.

    Args:
        buffer: what has arrived.
        begin: where in it the request line begins.
        searched: up to where it was looked at before, in vain.
        limit: the most bytes that a head may have.

    Raises:
        Refused: 431 over the limit, 414 where it is the request line that takes the room, 501 for a
            method that no one knows; 400 for TLS, and for line ends that are not CRLF.
    """
    end = buffer.find(b"\r\n\r\n", searched - 3 if searched > begin + 3 else begin)
    if end < 0:
        _check_part(buffer[begin:], searched - begin, limit)
        return -1
    if end + 4 - begin > limit:
        raise too_large(buffer[begin:end], limit)
    return end + 4


def _check_part(part: bytes, searched: int, limit: int) -> None:
    """Refuse the beginning of a head that can become none. Args: as for `end_of_head`."""
    if part[:2] == b"\x16\x03":
        raise Refused(BAD_REQUEST, "TLS on a plain HTTP port: ask with http://, or serve HTTPS by --https")
    if part[:1] == b"\0":  # also what only a predecessor may begin with (`h2.frames.PACKED`)
        raise Refused(BAD_REQUEST, _UWSGI)
    if _LONG_METHOD.match(part):
        raise Refused(NOT_IMPLEMENTED, _UNKNOWN_METHOD)
    if len(part) > limit:
        raise too_large(part, limit)
    # Such a head may never end: said at once, the client need not wait for a timeout.
    if _BARE.search(part, max(0, searched - 1)):
        raise Refused(BAD_REQUEST, "bare CR or LF in the head")


def too_large(head: bytes, limit: int) -> Refused:
    """Why a head is refused, what of it is largest, and what can be done.

    Args:
        head: its lines, without the end.
    """
    if _LONG_METHOD.match(head):
        return Refused(NOT_IMPLEMENTED, _UNKNOWN_METHOD)
    status = URI_TOO_LONG if head.find(b"\r\n", 0, limit // 2) < 0 else FIELDS_TOO_LARGE
    return Refused(status, _what_is_large(head, limit))


def _what_is_large(head: bytes, limit: int) -> str:
    first, *lines = head.split(b"\r\n")
    largest = max(lines, key=len, default=b"")
    text = f"the request's head is larger than {limit} bytes (--h11-max-incomplete-event-size allows more)"
    name, colon, _ = largest.partition(b":")
    if not colon or len(first) > len(largest) or not _NAME.fullmatch(name):
        return text
    if len(largest) < limit // 16:
        return f"{text}; it has {len(lines)} fields"
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
        version: "1.0", "1.1" or "2".
        length: bytes of the body; 0 for none; -1 for one that ends when its sender says so.
        keep_alive: the connection may carry another request.
        expects: the client waits for `100 Continue` before it sends the body.
        upgrade: the protocol that the client wants to change to, lower case, or b"".
        forwarded: a proxy may have said for whom it asks (`front`).
        keeps: the client says so itself, and may want to know for how long.
        authority: host and port of a target in absolute form, or b"".
        trailers: the client takes trailers with a response (RFC 9110 section 10.1.4).
        bare: the response is a head and a body that ends with its length or the connection: no chunks, no
            trailers, and no interim response before it (`uwsgi`).
        parameters: what arrived beside HTTP's own fields, see `Request`.
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
    keeps: bool = False
    authority: bytes = b""
    trailers: bool = False
    bare: bool = False
    parameters: dict[str, str] | None = None

    def hosted(self, headers: Headers, peer: Peer) -> Headers:
        """Header lines with the target's authority for Host, whatever that says (RFC 9112 section 3.2.2).

        Raises:
            Refused: 421 for a resource of https over a connection that is not (RFC 9110 section 7.4).
        """
        if self.target[:5].lower() in (b"https", b"wss:/") and peer.scheme != "https":
            raise Refused(MISDIRECTED, "a resource of https is not answered over http")
        return [(b"host", self.authority), *(line for line in headers if line[0] != b"host")]


def read(head: bytes) -> Framing:
    """Hold a whole head against the rules, and decide how the message is framed.

    Sources: RFC 9112 sections 3, 5, 6.3 and 9.3, RFC 9110 sections 7.2 and 10.1.1.

    What a path means when it is decoded is not judged here: %00 and %0D%0A in it are data like any
    other (RFC 3986 section 2.1), and reach the application. They cannot break out of a response, where
    control characters are refused, nor out of the access line, which shows the target as sent.

    Raises:
        Refused: 400 for what breaks the grammar or contradicts itself, 505 for a version that is
            not 1.0 or 1.1, 501 for CONNECT, a method that is too long, and a transfer coding before
            chunked, 417 for an expectation that is not 100-continue.
    """
    match = _HEAD.fullmatch(head)
    if match is None:
        raise _fault(head)
    method, target, version = match.groups()
    if method == b"CONNECT":
        raise Refused(NOT_IMPLEMENTED, "CONNECT is for proxies")
    old = version == b"1.0"
    lower = head.lower()
    fields = _fields(lower)
    host = fields.pop(b"host", None)
    form, authority = target, b""
    if target[0] != _SLASH:
        form, authority = _other_form(method, target)
    if not host:
        # Of a target in absolute form the host is known, but a client of 1.1 must still send the field.
        if not old and (host is None or not authority):
            raise Refused(BAD_REQUEST, "no Host header" if host is None else "empty Host header")
    elif _USUAL_HOST.fullmatch(host) is None and _HOST.fullmatch(host) is None:
        raise Refused(BAD_REQUEST, "malformed Host header")
    path, _, query = form.partition(b"?")
    result = Framing(method.decode("ascii"), target, path, query, "1.0" if old else "1.1", 0, not old)
    if authority:
        result.authority = authority
    if fields:
        result.length = _length(fields, old)
        _connection(fields, old, result)
    result.forwarded = lower.find(b"forwarded") >= 0  # half the time of `in`
    return result


def _fields(lower: bytes) -> dict[bytes, bytes]:
    """The lines of a head in lower case that framing depends on; a repeated one's values by commas.

    A second line of some fields changes what a request is, or who sends it: to one reader the first
    counts, to another the last. They are refused. Others that may stand once (RFC 9110 section 5.3) are
    left to the application.
    """
    fields: dict[bytes, bytes] = {}
    for name, value in _FRAMING_LINES.findall(lower):
        value = value.rstrip(b" \t")
        if name in fields:
            # RFC 9110 section 8.6 allows to take equal lengths for one; nobody sends them in good faith.
            if name in _ONCE:
                raise Refused(BAD_REQUEST, f"more than one {_ONCE[name]} header")
            value = fields[name] + b"," + value
        fields[name] = value
    if lower.count(b"\r\nauthorization:") > 1:
        raise Refused(BAD_REQUEST, "more than one Authorization header")
    if lower.count(b"\r\ncontent-type:") > 1:
        raise Refused(BAD_REQUEST, "more than one Content-Type header")
    return fields


def _fault(head: bytes) -> Refused:
    """Name what the grammar refused; only ever called for a bad head, so it may take its time."""
    if head[:1] == b"\0":
        return Refused(BAD_REQUEST, _UWSGI)
    if _LONG_METHOD.match(head):  # first, as where the head is not all there yet
        return Refused(NOT_IMPLEMENTED, _UNKNOWN_METHOD)
    if b"\0" in head:
        return Refused(BAD_REQUEST, "NUL in the head")
    if _BARE.search(head):
        return Refused(BAD_REQUEST, "bare CR or LF in the head")
    line = _REQUEST_LINE.match(head)
    if line is None:
        return Refused(BAD_REQUEST, "malformed request line")
    if line[1] != b"1" or line[2] not in (b"0", b"1"):
        return Refused(VERSION_NOT_SUPPORTED, "the version in a request line must be HTTP/1.0 or HTTP/1.1")
    if re.search(rb"\r\n[ \t]", head):
        return Refused(BAD_REQUEST, "folded header line")
    if re.search(rb"\r\n[^:\r\n]*[ \t]:", head):
        return Refused(BAD_REQUEST, "space before the colon of a header")
    return Refused(BAD_REQUEST, "malformed request line or header line")


def _length(fields: dict[bytes, bytes], old: bool) -> int:
    coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if b"content_length" in fields or b"transfer_encoding" in fields:
        # Whoever makes variables of fields takes these for the others (PEP 3333).
        raise Refused(BAD_REQUEST, "Content-Length or Transfer-Encoding with '_' for '-'")
    if coding is not None:
        if length is not None:
            raise Refused(BAD_REQUEST, "both Transfer-Encoding and Content-Length")
        if old:
            raise Refused(BAD_REQUEST, "Transfer-Encoding in HTTP/1.0")
        if coding != b"chunked":
            raise _unknown_coding(coding)
        return -1
    if length is None:
        return 0
    if not length.isdigit() or len(length) > _LONGEST_LENGTH:
        raise Refused(BAD_REQUEST, "malformed Content-Length")
    return int(length)


def _unknown_coding(codings: bytes) -> Refused:
    """Without chunked at the end of the list nobody can say where a body ends (RFC 9112 section 6.3).

    Empty elements, which a list may have (RFC 9110 section 5.6.1), are refused here: they are how one
    reader is made to see a coding and another none.
    """
    *others, last = (coding.strip(b" \t") for coding in codings.split(b","))
    if last != b"chunked" or b"chunked" in others or b"" in others:
        return Refused(BAD_REQUEST, "the last transfer coding, and only that, has to be chunked")
    return Refused(NOT_IMPLEMENTED, "the only transfer coding known here is chunked")


def _connection(fields: dict[bytes, bytes], old: bool, result: Framing) -> None:
    options = {option.strip() for option in fields.get(b"connection", b"").split(b",")}
    if b"close" in options:
        result.keep_alive = False
    elif b"keep-alive" in options:
        result.keeps = True
    if b"expect" in fields and not old:
        if fields[b"expect"] != b"100-continue":
            raise Refused(EXPECTATION_FAILED, "the only expectation met here is 100-continue")
        result.expects = result.length != 0
    if b"te" in fields and not old:
        result.trailers = b"trailers" in {option.strip() for option in fields[b"te"].split(b",")}
    if b"upgrade" in options:
        result.upgrade = fields.get(b"upgrade", b"")


def _other_form(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Path and query, and the authority, of a target that does not begin with a slash (RFC 9112 section 3.2).

    Raises:
        Refused: 400 for a target that is neither origin, absolute nor (for OPTIONS) asterisk form.
    """
    if target == b"*" and method == b"OPTIONS":
        return target, b""
    scheme, _, rest = target.partition(b"://")
    cut = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    authority, form = rest[:cut], rest[cut:]
    known = scheme.lower() in (b"http", b"https", b"ws", b"wss")
    if not known or authority[:1] in (b"", b":") or _HOST.fullmatch(authority.lower()) is None:
        raise Refused(BAD_REQUEST, "malformed request target")
    return (form if form.startswith(b"/") else b"/" + form), authority
