"""What a request's fields may be and what they say (RFC 9113 section 8). Pure: fields in, decisions out.

As strict as `framing` is with HTTP/1.1, and for its reasons: an application behind either sees the same, and
no proxy that turns one into the other makes two requests of one. What section 8.1.1 calls malformed ends its
stream (`Malformed`); what is well-formed and not served is answered (`Refused`), as over HTTP/1.1.
"""

from __future__ import annotations

import re

from devserver.http.codes import BAD_REQUEST, EXPECTATION_FAILED, NOT_IMPLEMENTED
from devserver.http.exchange import Headers
from devserver.http.framing import TOKEN, Framing, Refused, is_host, too_large

_NAME = rb":?[!#$%&'*+\-.^_`|~0-9a-z]+"
_VALUE = rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
# All fields at once, each ended by a line feed, which none of them may have in it.
_FIELDS = re.compile(rb"(?:" + _NAME + rb"\0" + _VALUE + rb"\n)*")
_METHOD = re.compile(TOKEN[:-1] + rb"{1,64}")
_PATH = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority", b":protocol"))
_OF_A_CONNECTION = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_ONCE = frozenset((b"authorization", b"content-type"))
_LONGEST_LENGTH = 18  # digits; as over HTTP/1.1
_ENTRY = 32
"""Bytes that a field counts beyond its name and value (section 6.5.2)."""


class Malformed(Exception):
    """A request that is malformed (section 8.1.1): its stream ends."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read(fields: Headers, ended: bool, limit: int) -> tuple[Framing, Headers]:
    """What a request's fields say, and its header lines as over HTTP/1.1, with Host for `:authority`.

    Args:
        ended: nothing follows.
        limit: the most bytes that a head may have, with 32 for each field.

    Raises:
        Malformed: see there.
        Refused: 431 or 414 over the limit, 501 for what is for proxies, 417 for an expectation that is not
            100-continue, 400 for fields of which nobody can say which one counts.
    """
    _check_bytes(fields)
    pseudo, headers = _split(fields)
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if sum(map(len, (part for each in fields for part in each))) + _ENTRY * len(fields) > limit:
        lines = b"\r\n".join(b"%b: %b" % line for line in headers)
        raise too_large(b"%b %b HTTP/2\r\n%b" % (method, path, lines), limit)
    protocol = _check_request(pseudo, method, path)
    result = Framing(method.decode("ascii"), path, version="2", upgrade=protocol)
    result.path, _, result.query = path.partition(b"?")
    result.length = 0 if ended else -1
    headers = _walk(headers, ended, result)
    return result, [(b"host", _authority(pseudo.get(b":authority"), fields)), *headers]


def check_trailers(fields: Headers) -> None:
    """Look at the fields after a body (section 8.1). Nobody gets them.

    Raises:
        Malformed: see there.
    """
    _check_bytes(fields)
    if any(name[:1] == b":" for name, _ in fields):
        raise Malformed("a pseudo-header field after the body")


def _check_bytes(fields: Headers) -> None:
    """Section 8.2.1, and what names and values may have in them over HTTP/1.1."""
    text = b"".join([b"%b\0%b\n" % field for field in fields])
    if _FIELDS.fullmatch(text) is None or text.count(b"\n") != len(fields):
        raise Malformed("a field with characters that it cannot have")


def _split(fields: Headers) -> tuple[dict[bytes, bytes], Headers]:
    """The pseudo-header fields, and the others (section 8.3)."""
    pseudo: dict[bytes, bytes] = {}
    for at, (name, value) in enumerate(fields):
        if name[0] != 0x3A:
            headers = fields[at:]
            break
        if name not in _PSEUDO or name in pseudo:
            raise Malformed(f"the pseudo-header field {name.decode()} is unknown, or there twice")
        pseudo[name] = value
    else:
        headers = []
    if any(name[0] == 0x3A for name, _ in headers):
        raise Malformed("a pseudo-header field behind others")
    return pseudo, headers


def _check_request(pseudo: dict[bytes, bytes], method: bytes, path: bytes) -> bytes:
    """Returns a request's protocol, in lower case, if it has all that it must (sections 8.3.1 and 8.5)."""
    if _METHOD.fullmatch(method) is None:
        raise Malformed("no :method, or one that cannot be")
    connect = method == b"CONNECT"
    if connect and b":protocol" not in pseudo:
        if b":path" in pseudo or b":scheme" in pseudo:
            raise Malformed("CONNECT with :path or :scheme")
        raise Refused(NOT_IMPLEMENTED, "CONNECT is for proxies")
    if not connect and b":protocol" in pseudo:
        raise Malformed(":protocol without CONNECT")
    if pseudo.get(b":scheme") not in (b"http", b"https"):
        raise Malformed("no :scheme, or one that is not http")
    if _PATH.fullmatch(path) is None and (path != b"*" or method != b"OPTIONS"):
        raise Malformed("no :path, or one that cannot be")
    protocol = pseudo.get(b":protocol", b"").lower()
    if connect and protocol != b"websocket":
        raise Refused(NOT_IMPLEMENTED, "the only protocol known here is websocket")
    return protocol


def _authority(authority: bytes | None, fields: Headers) -> bytes:
    """Host and port: of `:authority`, which has to agree with Host (section 8.3.1)."""
    hosts = [value for name, value in fields if name == b"host"]
    if authority is None and not hosts:
        raise Malformed("neither :authority nor Host")
    if len(hosts) > 1:
        raise Malformed("more than one Host")
    host = hosts[0] if authority is None else authority
    if hosts and hosts[0].lower() != host.lower():
        raise Malformed(":authority and Host differ")
    if not host or not is_host(host):
        raise Malformed("an :authority that cannot be")
    return host


def _walk(headers: Headers, ended: bool, result: Framing) -> Headers:
    """Take from fields what they say of the message. Returns the header lines, but for Host."""
    found: Headers = []
    cookies: list[bytes] = []
    seen: set[bytes] = set()
    length = None
    for name, value in headers:
        if name == b"cookie":
            if not cookies:
                found.append((name, value))
            cookies.append(value)
            continue
        if name == b"host":
            continue
        if name in _OF_A_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
            raise Malformed(f"{name.decode()} is for connections of HTTP/1.1")
        if name == b"te":
            result.trailers = True
        elif name == b"content-length":
            if length is not None or not value.isdigit() or len(value) > _LONGEST_LENGTH:
                raise Malformed("malformed content-length, or more than one")
            length = int(value)
        elif name in (b"content_length", b"transfer_encoding"):
            raise Refused(BAD_REQUEST, "Content-Length or Transfer-Encoding with '_' for '-'")
        elif name in _ONCE:
            if name in seen:
                raise Refused(BAD_REQUEST, f"more than one {name.decode().title()} header")
            seen.add(name)
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise Refused(EXPECTATION_FAILED, "the only expectation met here is 100-continue")
            result.expects = not ended
        elif b"forwarded" in name:
            result.forwarded = True
        found.append((name, value))
    if length is not None:
        if ended and length:
            raise Malformed("a content-length, and no body")
        result.length = 0 if ended else length
    if len(cookies) > 1:  # split for the sake of compression (section 8.2.3)
        whole = b"; ".join(cookies)
        found = [(name, whole if name == b"cookie" else value) for name, value in found]
    return found
