"""Who asks: this machine's developer, or anybody else.

The developer has a loopback address (or, inside a container, its default gateway's, which is how the
host's browser comes in) and asks for `localhost` or an address. Another name could be one that a foreign
page has pointed here (DNS rebinding).

A proxy or a tunnel on this machine has a loopback address as well, and may rewrite the name. Whether it is
believed about its client makes no difference (`front`): who comes through it is a stranger. It shows itself

    by a header that says for whom it asks, which almost all of them add,
    by HTTP/1.0, which nginx speaks unless it is told otherwise, and no browser does,
    by the PROXY protocol or the uwsgi protocol,
    by a Unix socket, to which no browser connects,
    or by what the system knows of its process (`neighbour`).

A page of another site, open in the developer's own browser, asks from the developer's address. A browser
says so, in `Origin` or `Sec-Fetch-Site` (`own`).
"""

from __future__ import annotations

import ipaddress
import os
import re

from devserver import procfs
from devserver.devtools.neighbour import asks_for_others
from devserver.http.exchange import Request

_open, _exists = open, os.path.exists  # an application may replace them

_OF_PROXIES = re.compile(
    rb"forwarded|via|x-forwarded(-.*)?|x-real-ip|x-original-.*|(true-|fly-|x-|x-cluster-)?client-ip|cdn-loop"
    rb"|cf-.*|x-envoy-external-address|x-arr-.*|x-proxyuser-ip"
)
"""Names of headers by which proxies, tunnels and content networks say for whom they ask."""


def trusted(request: Request) -> bool:
    """Whether the client may see source: who it is, and which name it asked for, without anybody between."""
    if any(_OF_PROXIES.fullmatch(name) for name, _ in request.headers):
        return False
    client = request.peer.client
    if request.peer.is_proxied or request.version == "1.0" or client is None or client[1] is None:
        return False
    host = next((value.decode("latin-1") for name, value in request.headers if name == b"host"), "")
    try:
        address = ipaddress.ip_address(client[0].partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    near = (mapped or address).is_loopback or str(address) == _container_gateway()
    return near and _is_plain_host(host) and not asks_for_others(client, request.peer.server)


def _is_plain_host(host: str) -> bool:
    """`localhost`, below it, or an address; never a name that a foreign DNS can answer for."""
    name = re.sub(r":\d*$", "", host).strip("[]").rstrip(".").lower()
    if not name or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _container_gateway() -> str | None:
    """The default gateway's address inside a container; None elsewhere."""
    if not (_exists("/.dockerenv") or _exists("/run/.containerenv")):
        return None
    return procfs.gateway()


def own(request: Request) -> bool:
    """Whether no page of another site is behind a request, as far as the client tells.

    A site is scheme, name and port (RFC 6454): another port of this machine is another site. The names and
    addresses by which a machine calls itself count as one. What is no browser sends neither header.
    """
    if _header(request, b"sec-fetch-site") not in (None, "same-origin", "none"):
        return False
    origin = _header(request, b"origin")
    if origin is None:
        return True
    scheme, _, rest = origin.lower().partition("://")
    return scheme == request.peer.scheme and _site(rest, scheme) == _site(
        (_header(request, b"host") or "").lower(), scheme
    )


def _header(request: Request, wanted: bytes) -> str | None:
    """The values of a header, None if there is none. Several are one that nothing is equal to."""
    values = [value.decode("latin-1") for name, value in request.headers if name == wanted]
    return ", ".join(values) if values else None


def _site(authority: str, scheme: str) -> tuple[str, str]:
    """Name and port of a host; the names of this machine are one."""
    port = re.search(r":(\d*)$", authority)
    name = authority[: port.start()] if port else authority
    name = name.rstrip(".")
    if name in ("localhost", "127.0.0.1", "[::1]"):
        name = "localhost"
    default = "443" if scheme == "https" else "80"
    return name, (port.group(1) if port else "") or default
