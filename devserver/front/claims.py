"""What proxies say of a request, and what of it is true: X-Forwarded-*, and Forwarded (RFC 7239).

A proxy appends to `X-Forwarded-For` the address that it was asked from. So the list grows to the right, and
only what trusted proxies appended is true. A client may have made up all that is to the left of it. The list
is walked from the right: the last address that is not a trusted proxy's is the client's.

`X-Forwarded-Proto`, `-Host`, `-Port` and `-Prefix` mostly hold one value. Where one holds more, the value is
taken that stands as far from the right as the client stands in `X-Forwarded-For`: the proxy that saw the
client appended it. What a client made up is never taken, as long as each proxy replaces or appends.

    X-Forwarded-For:   203.0.113.9, 198.51.100.2, 10.0.0.5     asked from 10.0.0.6; 10.0.0.0/8 is trusted
                       made up      the client    a proxy
    X-Forwarded-Proto: http,        https,        http
                       made up      the client's  between the proxies

Where a request has both `X-Forwarded-*` and `Forwarded`, the former count: nearly every proxy sets these, and
passes the latter on as the client wrote it. What is malformed counts as not sent.

Pure. Refuses to know what becomes of a claim.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import unquote

from devserver.front.trusted import Trusted, address
from devserver.http.exchange import Address, Headers

T = TypeVar("T")

FOR, PROTO, HOST, PORT, PREFIX, FORWARDED = NAMES = (
    b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix",
    b"forwarded",
)  # fmt: skip

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
"""A scheme as a proxy says it (Traefik says that of a WebSocket), and as a peer has it."""

_LARGEST_PORT = 65535

# RFC 7239 section 6, and IPv6 without brackets, which most X-Forwarded-For have.
_NODE_PORT = r"(?::(?P<port{}>\d{{1,5}}|_[A-Za-z0-9._-]+))?"
_NODE = re.compile(
    rf"(?P<hidden>unknown|_[A-Za-z0-9._-]+){_NODE_PORT.format(0)}"
    rf"|(?P<v4>[0-9.]+){_NODE_PORT.format(4)}"
    rf"|\[(?P<v6>[^\[\]]+)\]{_NODE_PORT.format(6)}"
    r"|(?P<bare>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+(?:%\w+)?)",
    re.IGNORECASE,
)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]+)(?::(?P<port>\d{1,5}))?")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+;=:@%-]+)*/?")
# Of a decoded prefix. An application that redirects within itself would lead to another site, or out of it.
_UNSAFE = re.compile(r"//|\\|[\x00-\x1f\x7f]|/\.\.?(?:/|$)")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = re.compile(rf'[ \t]*(?:({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?[ \t]*([;,]|$)')


class Malformed(ValueError):
    """A value that is not what its field may hold. Attributes: name, value: of the field."""

    def __init__(self, name: bytes, value: str) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value


@dataclass(slots=True)
class Claim:
    """What proxies say of a request; None for what they do not say.

    Attributes:
        client: the client's address; the port is 0 if they do not say it.
        is_hidden: they do not tell who the client is (RFC 7239 section 6.2, 6.3).
        scheme: "http" or "https".
        host: that the client asked: a name or an address, with or without a port.
        port: that the client asked.
        prefix: the path that they removed from the front of the request's; decoded, no slash at its end.
        ignored: values that are malformed.
    """

    client: Address | None = None
    is_hidden: bool = False
    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    prefix: str | None = None
    ignored: list[Malformed] = field(default_factory=list)


def read(headers: Headers, trusted: Trusted) -> Claim:
    """What is true of what a request's headers say, where a trusted proxy has sent them.

    Args:
        headers: of the request, names in lower case.
        trusted: the proxies that are believed about their clients.
    """
    fields: dict[bytes, str] = {}
    for name, value in headers:
        if name in NAMES:
            text = value.decode("latin-1")
            fields[name] = f"{fields[name]},{text}" if name in fields else text
    standard = fields.pop(FORWARDED, "")
    found = Claim()
    try:
        said = _x_forwarded(fields, trusted, found) if fields else _forwarded(standard, trusted, found)
    except Malformed as fault:
        found.ignored.append(fault)
        return found
    found.scheme = _value(PROTO, _scheme, said, found)
    found.host = _value(HOST, _host, said, found)
    found.port = _value(PORT, _port, said, found)
    found.prefix = _value(PREFIX, _prefix, said, found)
    return found


def _x_forwarded(fields: Mapping[bytes, str], trusted: Trusted, found: Claim) -> dict[bytes, str]:
    """Note the client, and return what the proxy that saw it said beside."""
    lists = {
        name: [item for each in text.split(",") if (item := each.strip())] for name, text in fields.items()
    }
    chain = lists.pop(FOR, [])
    hops = 1
    try:
        hops = max(1, len(chain) - _walk(chain, trusted, found, FOR))
    except Malformed as fault:
        found.ignored.append(fault)
    return {name: items[max(0, len(items) - hops)] for name, items in lists.items() if items}


def _forwarded(text: str, trusted: Trusted, found: Claim) -> dict[bytes, str]:
    """The same by the standard, in which an element has all that one proxy said."""
    elements = _elements(text)
    if not elements:
        return {}
    # What a proxy does not say at all it does not tell either, and no one before it can be believed.
    at = _walk([element.get("for", "unknown") for element in elements], trusted, found, FORWARDED)
    found.is_hidden = found.is_hidden and "for" in elements[at]
    names = {"proto": PROTO, "host": HOST}
    return {name: elements[at][word] for word, name in names.items() if word in elements[at]}


def _walk(chain: list[str], trusted: Trusted, found: Claim, name: bytes) -> int:
    """Note the last of a chain that is not a trusted proxy, or the first; return its index.

    Raises:
        Malformed: an element on the way there.
    """
    node: Address | None = None
    at = len(chain)
    while at > 0:
        at -= 1
        node = _node(chain[at], name)
        if node is None or not trusted.has(node):
            break
    found.client = node
    found.is_hidden = bool(chain) and node is None
    return at


def _node(text: str, name: bytes) -> Address | None:
    """An element of X-Forwarded-For, or a node (RFC 7239 section 6); None for one that is not told."""
    plain = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    match = _NODE.fullmatch(plain)
    if match is None:
        raise Malformed(name, text)
    if match["hidden"] is not None:
        return None
    port = match["port4"] or match["port6"] or ""
    number = int(port) if port.isdecimal() else 0
    try:
        host = str(address(match["v4"] or match["v6"] or match["bare"]))
    except ValueError:
        raise Malformed(name, text) from None
    if number > _LARGEST_PORT:
        raise Malformed(name, text)
    return host, number


def _elements(text: str) -> list[dict[str, str]]:
    """The elements of Forwarded (RFC 7239 section 4), names in lower case.

    Raises:
        Malformed: the grammar is another, or an element has a parameter twice.
    """
    elements: list[dict[str, str]] = [{}]
    at = 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None or (name := (match[1] or "").lower()) in elements[-1]:
            raise Malformed(FORWARDED, text)
        if name:
            elements[-1][name] = match[2] if match[2] is not None else re.sub(r"\\(.)", r"\1", match[3])
        if match[4] == ",":
            elements.append({})
        at = match.end()
    return [element for element in elements if element]


def _value(name: bytes, read: Callable[[str], T], said: Mapping[bytes, str], found: Claim) -> T | None:
    if name not in said:
        return None
    try:
        return read(said[name])
    except ValueError:
        found.ignored.append(Malformed(name, said[name]))
        return None


def _scheme(text: str) -> str:
    try:
        return _SCHEMES[text.lower()]
    except KeyError:
        raise ValueError from None


def _host(text: str) -> str:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError
    if match["port"] is not None:
        _port(match["port"])
    return text


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) <= _LARGEST_PORT:
        raise ValueError
    return int(text)


def _prefix(text: str) -> str:
    if _PREFIX.fullmatch(text) is None:
        raise ValueError
    decoded = unquote(text, errors="strict")
    if _UNSAFE.search(decoded):
        raise ValueError
    return decoded.rstrip("/")
