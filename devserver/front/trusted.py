"""Which addresses are those of proxies that are believed: the value of `--forwarded-allow-ips`.

Pure. Refuses to know what a proxy may say, and sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from devserver.http.exchange import Address, Peer

IPAddress = IPv4Address | IPv6Address

EVERYBODY, UNIX = "*", "unix"
"""Words among the addresses: whoever connects, and whoever connects to a Unix socket."""


@lru_cache(maxsize=512)  # most requests come through the same few proxies
def address(text: str) -> IPAddress:
    """An address as text, without a zone. An IPv4 address that is written as IPv6 is one of IPv4.

    Raises:
        ValueError: it is not an address.
    """
    found = ip_address(text.partition("%")[0])
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


class Trusted:
    """The proxies that are believed."""

    def __init__(self, items: Sequence[str]) -> None:
        """
        Args:
            items: addresses, networks (CIDR), `*` and `unix`, each alone or several with commas between.

        Raises:
            ValueError: an item is none of these.
        """
        words = {word.strip() for item in items for word in item.split(",")} - {""}
        self._everybody = EVERYBODY in words
        self._unix = self._everybody or UNIX in words
        self._networks = [_network(word) for word in sorted(words - {EVERYBODY, UNIX})]

    def connects(self, peer: Peer) -> bool:
        """Whether the other side of a connection is one of them."""
        if peer.client is not None and peer.client[1] is not None:
            return self.has(peer.client)
        return self._unix and not is_gone(peer)

    def has(self, client: Address) -> bool:
        """Whether an address with a port is one of theirs."""
        if self._everybody:
            return True
        try:
            found = address(client[0])
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def is_gone(peer: Peer) -> bool:
    """Whether a connection of TCP was reset before anybody looked who its client is. It can still be read."""
    told = peer.is_proxied  # then a proxy has a client without an address
    return not told and peer.client is None and peer.server is not None and peer.server[1] is not None


def _network(word: str) -> IPv4Network | IPv6Network:
    network = ip_network(word)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network
