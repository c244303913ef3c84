"""The two ends of a connection, read off its transport and shown to people."""

import asyncio
from collections.abc import Callable

from devserver.http.exchange import Address, Peer

Ends = Callable[[asyncio.BaseTransport], Peer]


def peer(transport: asyncio.BaseTransport) -> Peer:
    """The two ends of a transport."""
    return Peer(
        address(transport.get_extra_info("peername")),
        address(transport.get_extra_info("sockname")),
    )


def address(name: object) -> Address | None:
    """An address of a socket as the gateways show it: (host, port), or (path, None) on Unix."""
    if isinstance(name, tuple) and len(name) >= 2:
        return str(name[0]), int(name[1])
    if isinstance(name, str | bytes) and name:
        return (name if isinstance(name, str) else name.decode(errors="replace")), None
    return None


def show(address: Address | None) -> str:
    """An address for the log."""
    if address is None:
        return "a Unix socket"
    host, port = address
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
