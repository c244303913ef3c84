"""A request as a packet of the uwsgi protocol, as nginx's `uwsgi_pass` sends it.

Pure: bytes in, decisions out. Implements `service.Heads` and `framing.Parser`, in place of `framing` and a
parser of HTTP. What they return is the same, so that all behind them knows one kind of request.

A packet is a head of four bytes (modifier1, the size of the data, modifier2) and the data: pairs of a name
and a value, each with its length before it. CONTENT_LENGTH bytes of body follow. The names are those of CGI
(RFC 3875 section 4.1). There is one request on a connection.

    HTTP_X_USER, CONTENT_TYPE, CONTENT_LENGTH    headers of the request
    all others                                   parameters, which reach the application as they are

What the sides expect of each other, as nginx has it (`ngx_http_uwsgi_module`):

- The response begins with the status line of HTTP/1 and ends with its length or the connection. nginx passes
  chunks on as if they were the body, and takes an interim response for the final one. So neither is sent.
- CONTENT_LENGTH says how long the body is, and nothing else does. The client's own Content-Length and
  Transfer-Encoding stand beside it as HTTP_CONTENT_LENGTH and HTTP_TRANSFER_ENCODING: they are not true of a
  body that nginx has collected from chunks, or keeps to itself. So they are passed over.
- A name may stand twice: `include uwsgi_params`, and after it what is to differ. The last one counts, as with
  uWSGI. Only of a header that the client has sent twice are both lines kept.

Where the application is mounted is said in two ways, and both are understood: by SCRIPT_NAME and a PATH_INFO
without it, as CGI has it; or by SCRIPT_NAME and a PATH_INFO that still begins with it, as `uwsgi_params`
makes it, for which uWSGI has `manage-script-name`. REQUEST_URI tells the one from the other.

Refuses to know who may speak it (`front`), and sockets.
"""

import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from posixpath import normpath
from urllib.parse import quote_from_bytes, unquote_to_bytes

from devserver.http.codes import BAD_REQUEST, FIELDS_TOO_LARGE, LENGTH_REQUIRED, NOT_IMPLEMENTED
from devserver.http.exchange import Headers
from devserver.http.framing import TOKEN, Framing, Refused, is_host

_HEAD = struct.Struct("<BHB")
_REMOVES_SCRIPT_NAME = 30
"""The modifier1 by which uWSGI 1 was told to take SCRIPT_NAME off PATH_INFO. Many pages still show it."""

_NAME = re.compile(rb"[!-~]+")
_HEADER = re.compile(TOKEN)
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*")
_QUERY = re.compile(r"[\x21\x22\x24-\x7e]*")
_PROTOCOL = re.compile(r"HTTP/([0-9])(?:\.([0-9]))?")
_LENGTH = re.compile(r"[0-9]{1,18}")
_HTTP = re.compile(rb"[A-Za-z]+ ")

_LINES = re.compile(
    rb"(?:AUTH|CONTENT|HTTP|REMOTE|REQUEST|SERVER|UWSGI)_.*|GATEWAY_INTERFACE|HTTPS|QUERY_STRING"
)
"""Parameters that have a meaning, and of which each is one line. Others may hold what they like, such as a
certificate. So may paths that the proxy has decoded: what the client sent as %0A is a line end here."""

_NO_HEADERS = frozenset((b"HTTP_CONTENT_TYPE", b"HTTP_CONTENT_LENGTH", b"HTTP_TRANSFER_ENCODING"))
"""What the client said of the body, see above."""

_MAY_BE_EMPTY = frozenset((b"content-type", b"content-length"))
"""`uwsgi_params` has them for every request."""

_ONCE = frozenset((b"host", b"authorization", *_MAY_BE_EMPTY))
_SAFE = "/!$&'()*+,;=:@~"  # in a path (RFC 3986 section 3.3)


def blank_lines(buffer: bytes, begin: int = 0) -> int:
    """None: a packet begins with its head."""
    return 0


def end_of_head(buffer: bytes, begin: int, searched: int, limit: int) -> int:
    """Index after a packet; -1 when it has not arrived. See `service.Heads`.

    Args:
        limit: the most bytes that the data may have. By its format a packet has at most 65535.

    Raises:
        Refused: 431 over the limit, 400 for what is no packet, or another kind of one.
    """
    if len(buffer) == begin:
        return -1
    if buffer[begin] != 0:
        raise _another(buffer[begin:])
    if len(buffer) < begin + _HEAD.size:
        return -1
    _, size, modifier2 = _HEAD.unpack_from(buffer, begin)
    if modifier2 != 0:
        raise Refused(BAD_REQUEST, f"uwsgi_modifier2 is {modifier2}: only 0 is spoken here")
    if size > limit:
        raise Refused(
            FIELDS_TOO_LARGE,
            f"the uwsgi packet is larger than {limit} bytes (--h11-max-incomplete-event-size allows more)",
        )
    end = begin + _HEAD.size + size
    return end if len(buffer) >= end else -1


def _another(buffer: bytes) -> Refused:
    """Why what begins otherwise is not served."""
    if _HTTP.match(buffer) or (len(buffer) < 16 and buffer.isalpha()):
        text = "HTTP on a uwsgi port: ask the proxy (nginx with uwsgi_pass), or leave --protocol uwsgi out"
    elif buffer[:1] == b"\x16":
        text = "TLS on a uwsgi port: have the proxy end TLS, and pass the scheme on as HTTPS or UWSGI_SCHEME"
    elif buffer[0] == _REMOVES_SCRIPT_NAME:
        text = "uwsgi_modifier1 is 30: remove that line, SCRIPT_NAME is taken off PATH_INFO without it"
    else:
        text = f"uwsgi_modifier1 is {buffer[0]}: only 0, a request, is served here"
    return Refused(BAD_REQUEST, text)


def _pairs(packet: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and values, which fill the packet exactly.

    Raises:
        Refused: they do not.
    """
    at = _HEAD.size
    while at < len(packet):
        name, at = _text(packet, at)
        value, at = _text(packet, at)
        yield name, value


def _text(packet: bytes, at: int) -> tuple[bytes, int]:
    start = at + 2
    end = start + int.from_bytes(packet[at:start], "little")
    if start > len(packet) or end > len(packet):
        raise Refused(BAD_REQUEST, "the lengths in a uwsgi packet do not fill its size")
    return packet[start:end], end


def read(head: bytes) -> Framing:
    """What a whole packet says. Its response is `bare`.

    Raises:
        Refused: 400 for lengths that do not fit, a name or a value that cannot be one, and what is missing or
            malformed; 411 for a body in chunks; 501 for CONNECT.
    """
    parameters: dict[str, str] = {}
    length: str | None = None
    is_chunked = False
    for name, value in _pairs(head):
        _check(name, value)
        if name == b"CONTENT_LENGTH":
            length = value.decode("latin-1").strip(" \t")
        elif name == b"HTTP_TRANSFER_ENCODING":
            is_chunked = bool(value)
        elif name != b"CONTENT_TYPE" and not name.startswith(b"HTTP_"):
            parameters[name.decode("ascii")] = value.decode("latin-1")
    method = parameters.get("REQUEST_METHOD", "")
    if not _METHOD.fullmatch(method):
        raise Refused(BAD_REQUEST, "a uwsgi packet without a REQUEST_METHOD that is one")
    if is_chunked and length is None:
        # nginx always has it, but uWSGI's own proxy passes the chunks on.
        raise Refused(LENGTH_REQUIRED, "a body in chunks by uwsgi: the proxy has to say its CONTENT_LENGTH")
    if method == "CONNECT":
        raise Refused(NOT_IMPLEMENTED, "CONNECT is for proxies")
    target, path, query = _place(parameters)
    frame = Framing(method, target, path, query, _version(parameters.get("SERVER_PROTOCOL") or "HTTP/1.1"))
    frame.length = _length(length or "")
    frame.keep_alive, frame.forwarded, frame.bare = False, True, True
    frame.parameters = parameters
    return frame


def _check(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise Refused(BAD_REQUEST, "a name in a uwsgi packet that is none")
    one_line = _LINES.fullmatch(name) is not None
    if b"\0" in value or (one_line and _VALUE.fullmatch(value) is None):
        shown = name.decode("ascii")
        raise Refused(BAD_REQUEST, f"a control character in {shown:.100} of a uwsgi packet")


def _version(protocol: str) -> str:
    match = _PROTOCOL.fullmatch(protocol)
    if match is None:
        raise Refused(BAD_REQUEST, "malformed SERVER_PROTOCOL in a uwsgi packet")
    return f"{match[1]}.{match[2] or 0}" if match[1] < "2" else match[1]


def _length(text: str) -> int:
    if text and not _LENGTH.fullmatch(text):
        raise Refused(BAD_REQUEST, "malformed CONTENT_LENGTH in a uwsgi packet")
    return int(text or 0)


def _place(parameters: dict[str, str]) -> tuple[bytes, bytes, bytes]:
    """Target, path and query. SCRIPT_NAME and PATH_INFO are made what CGI has them be.

    Raises:
        Refused: they cannot be known.
    """
    uri, told = parameters.get("REQUEST_URI", ""), parameters.get("PATH_INFO", "")
    script = parameters.get("SCRIPT_NAME", "").rstrip("/")
    query = parameters.get("QUERY_STRING") or uri.partition("?")[2]
    for name, text, form in (("REQUEST_URI", uri, _TARGET), ("QUERY_STRING", query, _QUERY)):
        if text and not form.fullmatch(text):
            raise Refused(BAD_REQUEST, f"malformed {name} in a uwsgi packet")
    if (told or script)[:1] not in ("", "/") or script[:1] not in ("", "/"):
        raise Refused(BAD_REQUEST, "malformed PATH_INFO or SCRIPT_NAME in a uwsgi packet")
    if not (uri or told or script):
        raise Refused(BAD_REQUEST, "a uwsgi packet with neither REQUEST_URI nor PATH_INFO")
    raw = uri.partition("?")[0]
    whole = _decoded(raw)
    info = told if told or (script and "PATH_INFO" in parameters) else whole
    if script and f"{info}/".startswith(f"{script}/") and _alike(info, whole):
        info = info[len(script) :]
    if script:
        parameters["SCRIPT_NAME"] = script
    parameters["PATH_INFO"] = info
    rest = raw[len(script) :] if raw.startswith(script) else raw
    path = rest.encode("ascii") if _decoded(rest) == info else _encoded(info)
    target = uri.encode("ascii") or _encoded(script + info) + (b"?" if query else b"") + query.encode("ascii")
    return target, path, query.encode("ascii")


def _decoded(path: str) -> str:
    return unquote_to_bytes(path).decode("latin-1")


def _encoded(path: str) -> bytes:
    return quote_from_bytes(path.encode("latin-1"), safe=_SAFE).encode("ascii")


def _alike(one: str, other: str) -> bool:
    """Whether two paths are one, for a proxy that resolves dots and takes several slashes for one."""
    return one == other or normpath(f"/{one}").lstrip("/") == normpath(f"/{other}").lstrip("/")


@lru_cache(maxsize=512)
def _header(name: bytes) -> bytes | None:
    """The header that a parameter is, in lower case; None for none."""
    if name in (b"CONTENT_TYPE", b"CONTENT_LENGTH"):
        return name.lower().replace(b"_", b"-")
    if not name.startswith(b"HTTP_") or name in _NO_HEADERS:
        return None
    header = name[len(b"HTTP_") :].lower().replace(b"_", b"-")
    if not _HEADER.fullmatch(header):
        raise Refused(BAD_REQUEST, "a name of a header in a uwsgi packet that is none")
    return header


def parse(head: bytes) -> Headers:
    """The headers of a packet that `read` has looked at; see `framing.Parser`."""
    headers: Headers = []
    places: dict[bytes, int] = {}  # of those of which one counts
    for given, value in _pairs(head):
        name = _header(given)
        if name is None:
            continue
        value = value.strip(b" \t")
        if name == b"host" and not is_host(value):
            raise Refused(BAD_REQUEST, "malformed Host header")
        if name == b"authorization" and name in places:
            raise Refused(BAD_REQUEST, "more than one Authorization header")
        if name in places:
            headers[places[name]] = (name, value)
            continue
        if name in _ONCE:
            places[name] = len(headers)
        headers.append((name, value))
    return [line for line in headers if line[1] or line[0] not in _MAY_BE_EMPTY]
