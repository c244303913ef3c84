"""The opening handshake of a WebSocket (RFC 6455 section 4.2, RFC 8441): what is asked and what is answered.

Pure: a checked request head in, a decision or bytes out. The head is read here and not by wsproto,
whose handshake wants to parse the bytes of a head that has already been parsed and checked.

Knows no sockets and no frames.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from devserver.errors import ApplicationError
from devserver.http.codes import BAD_REQUEST, SWITCHING_PROTOCOLS, UPGRADE_REQUIRED
from devserver.http.exchange import Headers, Request
from devserver.http.response import Defaults, response_head

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# A 101 has no body, and how the connection changes is for this module to say.
_DROPPED = frozenset((b"connection", b"upgrade", b"content-length", b"transfer-encoding", b"keep-alive"))
_OURS = {
    b"sec-websocket-protocol": "use the key 'subprotocol'",
    b"sec-websocket-accept": "the server makes it",
    b"sec-websocket-extensions": "the server negotiates them",
}


class BadHandshake(Exception):
    """A request for a WebSocket that cannot become one: the status and headers of the answer."""

    def __init__(self, status: int, reason: str, headers: Headers | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers or []


@dataclass(frozen=True, slots=True)
class Opening:
    """What a client asks for.

    Attributes:
        key: the value of Sec-WebSocket-Key; b"" over HTTP/2, which has none.
        subprotocols: offered, in the client's order of preference.
        extensions: offers, each a name with its parameters.
    """

    key: bytes
    subprotocols: list[str]
    extensions: list[str]


def read(request: Request) -> Opening:
    """Check a client's handshake (RFC 6455 section 4.2.1; over HTTP/2, RFC 8441 section 5).

    Raises:
        BadHandshake: 426 for another version of the protocol, 400 for anything else.
    """
    fields: dict[bytes, list[bytes]] = {}
    for name, value in request.headers:
        fields.setdefault(name, []).append(value)
    is_http2 = request.version == "2"  # then the request has asked for nothing else to come as far as this
    if not is_http2:
        _check_upgrade(request, fields)
    if fields.get(b"sec-websocket-version") != [b"13"]:
        headers = [(b"Sec-WebSocket-Version", b"13")]
        if not is_http2:
            headers.append((b"Upgrade", b"websocket"))
        raise BadHandshake(UPGRADE_REQUIRED, "the only version of WebSocket spoken here is 13", headers)
    keys = fields.get(b"sec-websocket-key", [])
    if not is_http2 and (len(keys) != 1 or not _is_key(keys[0])):
        raise BadHandshake(BAD_REQUEST, "Sec-WebSocket-Key must be there once and hold 16 bytes in base64")
    return Opening(
        b"" if is_http2 else keys[0],
        [element.decode("latin-1") for element in _split(fields, b"sec-websocket-protocol")],
        [element.decode("latin-1") for element in _split(fields, b"sec-websocket-extensions")],
    )


def _check_upgrade(request: Request, fields: dict[bytes, list[bytes]]) -> None:
    """What only HTTP/1.1 has of a handshake."""
    if request.method != "GET" or request.version != "1.1":
        raise BadHandshake(BAD_REQUEST, "a WebSocket begins with GET and HTTP/1.1")
    if not (_lists(fields, b"connection", b"upgrade") and _lists(fields, b"upgrade", b"websocket")):
        raise BadHandshake(BAD_REQUEST, "a WebSocket needs 'Connection: Upgrade' and 'Upgrade: websocket'")
    if b"transfer-encoding" in fields or fields.get(b"content-length", [b"0"]) != [b"0"]:
        raise BadHandshake(BAD_REQUEST, "the request for a WebSocket has no body")


def answer(
    opening: Opening,
    subprotocol: str | None,
    extension: str,
    headers: Headers,
    defaults: Defaults,
) -> bytes:
    """The head of the 101 that completes a handshake (RFC 6455 section 4.2.2).

    Args:
        subprotocol: what the application chose.
        extension: the extension agreed upon, with its parameters, or "".
        headers: the application's own.
        defaults: what the server adds; nothing of it can be said twice or spoil the handshake.

    Raises:
        ApplicationError: a subprotocol that was not offered, or a header that cannot be sent.
    """
    chosen = _chosen(opening, subprotocol, extension)
    digest = hashlib.sha1(opening.key + _GUID, usedforsecurity=False).digest()
    head = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", base64.b64encode(digest)),
    ]
    head += [*chosen, *_allowed(headers)]
    names = [name.lower() for name, _ in head]
    return response_head(SWITCHING_PROTOCOLS, head, defaults.lines([*names, *_DROPPED, *_OURS]))


def accepted(
    opening: Opening, subprotocol: str | None, extension: str, headers: Headers, defaults: Defaults
) -> bytes:
    """The answer that completes a handshake over HTTP/2 (RFC 8441 section 5), as `answer` has it.

    Its status is another one there, 200, and is for whoever sends it.
    """
    head = [*_chosen(opening, subprotocol, extension), *_allowed(headers)]
    names = [name.lower() for name, _ in head]
    return response_head(SWITCHING_PROTOCOLS, head, defaults.lines([*names, *_DROPPED, *_OURS]))


def _chosen(opening: Opening, subprotocol: str | None, extension: str) -> Headers:
    if subprotocol is not None and subprotocol not in opening.subprotocols:
        offers = ", ".join(map(repr, opening.subprotocols)) or "none"
        raise ApplicationError(f"'websocket.accept' chose subprotocol {subprotocol!r}; offered: {offers}")
    head = []
    if subprotocol is not None:
        head.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
    if extension:
        head.append((b"Sec-WebSocket-Extensions", extension.encode("ascii")))
    return head


def _allowed(headers: Headers) -> Headers:
    for name, value in headers:
        if name.lower() in _OURS:
            reason = _OURS[name.lower()]
            raise ApplicationError(f"'websocket.accept' has the header {name.decode()!r}: {reason}")
        if _CONTROLS.search(value):
            raise ApplicationError(f"'websocket.accept' has a control character in the header {name!r}")
    return [header for header in headers if header[0].lower() not in _DROPPED]


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False


def _split(fields: dict[bytes, list[bytes]], name: bytes) -> list[bytes]:
    """The elements of a list, over all the lines of its name (RFC 9110 section 5.6.1)."""
    elements = (element.strip() for value in fields.get(name, ()) for element in value.split(b","))
    return [element for element in elements if element]


def _lists(fields: dict[bytes, list[bytes]], name: bytes, element: bytes) -> bool:
    return any(found.lower() == element for found in _split(fields, name))
