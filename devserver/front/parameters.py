"""What a uwsgi peer says of its client, in the words of CGI (RFC 3875 section 4.1), becomes a request's peer.

    REMOTE_ADDR, REMOTE_PORT     the client
    SERVER_NAME, SERVER_PORT     the address that it asked
    UWSGI_SCHEME, or HTTPS, or REQUEST_SCHEME     the scheme: the first that says one, as uWSGI takes them
    SCRIPT_NAME                  the prefix

Pure. Refuses to know whether the peer is believed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from devserver.front.trusted import address
from devserver.http.exchange import Address, Peer, Request

_ON = frozenset(("on", "1", "true", "yes", "https"))
_PORTS = {"http": 80, "https": 443}
_LARGEST_PORT = 65535

Parameters = Mapping[str, str]


def applied(request: Request) -> Request:
    """The request with the peer and the prefix that its parameters say. It is not changed."""
    told = request.parameters or {}
    scheme = _scheme(told)
    peer = replace(
        request.peer,
        client=_client(told, request.peer),
        server=_server(told, scheme, request),
        scheme=scheme,
        is_proxied=True,
    )
    prefix = told.get("SCRIPT_NAME", "").encode("latin-1").decode("utf-8", "replace")
    return replace(request, peer=peer, prefix=prefix)


def without(told: Parameters, before: Request, after: Request) -> dict[str, str]:
    """The parameters that still hold of a request of which headers have said something else.

    Args:
        told: the parameters.
        before, after: the request as the parameters have it, and as the headers do.
    """
    false: set[str] = set()
    if after.peer.client != before.peer.client:
        false |= {"REMOTE_ADDR", "REMOTE_PORT"}
    if after.peer.scheme != before.peer.scheme:
        false |= {"HTTPS", "REQUEST_SCHEME", "UWSGI_SCHEME"}
    if after.peer.server != before.peer.server:
        false |= {"SERVER_NAME", "SERVER_PORT"}
    if after.prefix != before.prefix:
        false.add("SCRIPT_NAME")
    return {name: value for name, value in told.items() if name not in false}


def _client(told: Parameters, peer: Peer) -> Address | None:
    """None for a client without an address: nginx says `unix:` of one on a Unix socket."""
    text = told.get("REMOTE_ADDR")
    if text is None:
        return peer.client
    try:
        return str(address(text.strip("[]"))), _port(told.get("REMOTE_PORT", ""))
    except ValueError:
        return None


def _server(told: Parameters, scheme: str, request: Request) -> Address | None:
    """The name is the Host header's where the proxy has none: nginx without `server_name`, or with `_`."""
    name = told.get("SERVER_NAME", "")
    if name in ("", "_"):
        host = next((value.decode("latin-1") for name, value in request.headers if name == b"host"), "")
        name = re.sub(r":\d*$", "", host)
    if not name:
        return request.peer.server
    return name.strip("[]"), _port(told.get("SERVER_PORT", "")) or _PORTS[scheme]


def _port(text: str) -> int:
    """0 for what is none."""
    port = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    return port if port <= _LARGEST_PORT else 0


def _scheme(told: Parameters) -> str:
    said = told.get("UWSGI_SCHEME", "").lower()
    if said not in _PORTS:
        said = "https" if told.get("HTTPS", "").lower() in _ON else told.get("REQUEST_SCHEME", "").lower()
    return "https" if said == "https" else "http"
