"""The proxies in front of this server: what they say becomes a request's peer, host and prefix.

Who is believed is decided by `trusted`, what of it by `claims` and `proxy_protocol`. This module applies it,
and tells what it ignores: once for each peer that is not trusted, and once for each field that is malformed.

A peer that a proxy stands in front of stays marked (`Peer.is_proxied`) whatever is believed of it. Refuses to
know sockets, and what an application is told.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from devserver.front import claims, parameters, proxy_protocol
from devserver.front.claims import Claim
from devserver.front.trusted import Trusted, is_gone
from devserver.http.codes import FORBIDDEN
from devserver.http.exchange import Address, Headers, Peer, Request
from devserver.http.framing import Refused
from devserver.http.peer import show
from devserver.proxy import Proxy

logger = logging.getLogger("devserver")

_PORTS = {"http": 80, "https": 443}

_GONE = "the proxy has reset its connection, so it is not known whether it is trusted"
_NO_UWSGI = "only trusted proxies may speak uwsgi; if this one is yours, use --forwarded-allow-ips {}"

_MOST_TOLD = 16
"""The number of untrusted peers that get a line each: strangers must not fill the terminal, nor memory."""


class Proxies:
    """See the module. Implements `service.Front`."""

    def __init__(self, settings: Proxy) -> None:
        """Args: settings: checked, so that each item of `allow` can be read."""
        self._settings = settings
        self._trusted = Trusted(settings.allow)
        self._told: set[str | bytes] = set()

    def believe(self, request: Request) -> Request:
        """A request as it was made to the first of the proxies, as far as those that sent it are believed.

        Raises:
            Refused: it came by the uwsgi protocol, from a peer that is not trusted. Whose request it is
                stands in each packet, so there is nothing that could be ignored instead.
        """
        if request.parameters is not None:
            if not self._trusted.connects(request.peer):
                gone = is_gone(request.peer)
                raise Refused(FORBIDDEN, _GONE if gone else _NO_UWSGI.format(_name(request.peer)))
            request = parameters.applied(request)
        if not self._settings.headers:
            return request
        name = next((name for name, _ in request.headers if name in claims.NAMES), None)
        if name is None:
            return request
        if not self._trusted.connects(request.peer):
            self._tell_untrusted(request.peer, name)
            return request
        claim = claims.read(request.headers, self._trusted)
        for fault in claim.ignored:
            self._tell_malformed(request.peer, fault)
        made = applied(claim, request)
        if request.parameters is not None:
            made.parameters = parameters.without(request.parameters, request, made)
        return made

    def announces(self, peer: Peer) -> bool:
        """Whether a connection begins with a PROXY header."""
        # HAProxy's checks reset their connection after the header. They are no reason for a line.
        return self._settings.protocol and (self._trusted.connects(peer) or is_gone(peer))

    def announced(self, data: bytes, peer: Peer) -> tuple[Peer, int]:
        """The peer of a connection that begins with a PROXY header, and the header's size in bytes.

        Args:
            data: what has arrived. The size is 0 while that is not all of the header.
            peer: the proxy's.

        Raises:
            Refused: there is no header, or it is malformed.
        """
        try:
            ends = proxy_protocol.read(data)
        except proxy_protocol.BadHeader as error:
            raise Refused(400, str(error)) from None
        if ends is None:
            return peer, 0
        if is_gone(peer):
            return replace(peer, is_proxied=True), ends.size
        scheme = peer.scheme if ends.tls is None else "https" if ends.tls else "http"
        client, server = ends.client or peer.client, ends.server or peer.server
        # To whoever serves next the connection begins as it did here.
        letter = peer.letter + data[: ends.size]
        return replace(
            peer, client=client, server=server, scheme=scheme, is_proxied=True, letter=letter
        ), ends.size

    def _tell_untrusted(self, peer: Peer, name: bytes) -> None:
        host = _name(peer)
        if host not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(host)
            logger.warning(
                "ignored %s from %s, which is not trusted; if it is your proxy, use --forwarded-allow-ips %s",
                name.decode("ascii").title(),
                "a Unix socket" if peer.client is None else host,
                host,
            )

    def _tell_malformed(self, peer: Peer, fault: claims.Malformed) -> None:
        if fault.name not in self._told:
            self._told.add(fault.name)
            logger.warning(
                "ignored a malformed %s from %s: %.80a; correct what the proxy sends",
                fault.name.decode("ascii").title(),
                show(peer.client),
                fault.value,
            )


def _name(peer: Peer) -> str:
    """What allows a peer."""
    return peer.client[0] if peer.client is not None and peer.client[1] is not None else "unix"


def applied(claim: Claim, request: Request) -> Request:
    """The request, as a claim says that it was made. Neither is changed."""
    before = request.peer
    client = None if claim.is_hidden else claim.client or before.client
    peer = replace(before, client=client, scheme=claim.scheme or before.scheme, is_proxied=True)
    headers = request.headers
    if claim.host is not None or claim.port is not None:
        headers = _with_host(headers, _host(claim, headers, peer.scheme))
    if claim.scheme is not None or headers is not request.headers:
        peer.server = _server(headers, peer)
    return replace(request, headers=headers, peer=peer, prefix=claim.prefix or request.prefix)


def _host(claim: Claim, headers: Headers, scheme: str) -> str:
    """The host that the client asked, with the port if that is not the scheme's."""
    host = claim.host or next((value.decode("latin-1") for name, value in headers if name == b"host"), "")
    _, port = _split(host)
    if not host or port is not None or claim.port in (None, _PORTS[scheme]):
        return host
    return f"{host}:{claim.port}"


def _with_host(headers: Headers, host: str) -> Headers:
    made = (b"host", host.encode("latin-1"))
    if any(name == b"host" for name, _ in headers):
        return [made if name == b"host" else (name, value) for name, value in headers]
    return [made, *headers] if host else headers


def _server(headers: Headers, peer: Peer) -> Address | None:
    """The address that the client asked."""
    host = next((value.decode("latin-1") for name, value in headers if name == b"host"), "")
    name, port = _split(host)
    return (name.strip("[]"), port or _PORTS[peer.scheme]) if name else peer.server


def _split(host: str) -> tuple[str, int | None]:
    name, colon, port = host.rpartition(":")
    return (name, int(port)) if colon and port.isdecimal() and not name.endswith(":") else (host, None)
