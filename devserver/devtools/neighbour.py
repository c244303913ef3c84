"""The process at the other end of a connection within this machine: does it ask for others?

A proxy or a tunnel that says nothing in its requests looks like a browser on this machine. The system knows
more. A process is taken for a proxy or a tunnel

    if it runs as a daemon's user, and not as the one who runs this server,
    if others can reach it: it listens on an address that is not a loopback address,
    or by its name, if it is a tunnel's, which listens far away.

A proxy that only this machine can reach asks for this machine. What the system does not tell, because another
user's processes are not to be looked into or because it is not Linux, is no reason to refuse.

The kernel is asked for the one socket (sock_diag(7)): its table of sockets would have to be read in whole.
Refuses to know requests.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from devserver import procfs
from devserver.http.exchange import Address

# An application may replace these.
_getuid = getattr(os, "getuid", lambda: 0)
_socket = socket.socket

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_AF_NETLINK, _NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 16, 4, 20
_REQUEST, _DUMP, _DONE, _ERROR = 0x1, 0x300, 3, 2
_HEADER = struct.Struct("=IHHII")
_ASKED = struct.Struct("=BBBxI")  # and the ends
_ENDS = struct.Struct("!HH16s16s12s")
_TOLD = struct.Struct("=BBBB48sIIIII")
_NO_COOKIE = b"\0\0\0\0" + b"\xff" * 8
_LISTEN = 10
_ANY_STATE = 0xFFFFFFFF

_FIRST_PERSON, _NOBODY = 1000, 65534
"""The users' numbers from the first to the one before the last are people's (login.defs: UID_MIN)."""

TUNNELS = frozenset(
    ("ssh", "autossh", "bore", "chisel", "cloudflared", "frpc", "gost", "ngrok", "pagekite", "rathole",
     "socat", "tailscaled", "zrok")
)  # fmt: skip
"""Programs that bring others here. `sshd` is missing: it brings whoever has logged in, as with `ssh -L`."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """
    Attributes:
        uid: the user that it runs as.
        name: of the program; "" if that is not told.
        is_reachable: it listens for other machines.
    """

    uid: int
    name: str = ""
    is_reachable: bool = False


def asks_for_others(client: Address, server: Address | None) -> bool:
    """Whether what is known of the process at a client's address says that it is a proxy or a tunnel.

    Args:
        client, server: the two ends of a connection of TCP.
    """
    found = look(client, server) if server is not None else None
    return found is not None and judged(found, _getuid())


def judged(neighbour: Neighbour, own: int) -> bool:
    """The decision. Args: own: the user that this process runs as."""
    is_daemon = 0 < neighbour.uid < _FIRST_PERSON or neighbour.uid >= _NOBODY
    return (is_daemon and neighbour.uid != own) or neighbour.is_reachable or neighbour.name in TUNNELS


def look(client: Address, server: Address) -> Neighbour | None:
    """The owner of the other end of a connection; None if it is not on this machine, or not to be seen."""
    try:
        found = next(_sockets(*_ends(client, server)), None)
        if found is None or found.state == _LISTEN:
            return None
        name, inodes = _holder(found.inode)
        listeners = [
            each.inode
            for family in ((socket.AF_INET, socket.AF_INET6) if inodes else ())
            for each in _sockets(family, None)
            if not _plain(each.host).is_loopback
        ]
    except (OSError, ValueError):
        return None
    return Neighbour(found.uid, name, not inodes.isdisjoint(listeners))


@dataclass(frozen=True, slots=True)
class _Told:
    """What the kernel says of a socket. Attributes: host: packed, where it is bound."""

    state: int
    host: bytes
    uid: int
    inode: int


def _plain(packed: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address


def _ends(client: Address, server: Address) -> tuple[int, bytes]:
    """The family of a connection, and both ends as the kernel wants them."""
    hosts = [
        _plain(ipaddress.ip_address(host.partition("%")[0]).packed).packed for host, _ in (client, server)
    ]
    family = socket.AF_INET if len(hosts[0]) == 4 else socket.AF_INET6
    return family, _ENDS.pack(client[1] or 0, server[1] or 0, *hosts, _NO_COOKIE)


def _sockets(family: int, ends: bytes | None) -> Iterator[_Told]:
    """The socket with these ends, of TCP, or all that listen.

    Raises:
        OSError: the kernel does not tell.
    """
    states, flags = (1 << _LISTEN, _REQUEST | _DUMP) if ends is None else (_ANY_STATE, _REQUEST)
    asked = _ASKED.pack(family, socket.IPPROTO_TCP, 0, states) + (ends or bytes(_ENDS.size))
    header = _HEADER.pack(_HEADER.size + len(asked), _SOCK_DIAG_BY_FAMILY, flags, 1, 0)
    with _socket(_AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(1)
        kernel.send(header + asked)
        while True:
            data = kernel.recv(1 << 16)
            while data:
                size, kind, *_ = _HEADER.unpack_from(data)
                if kind in (_DONE, _ERROR):
                    return
                _, state, _, _, told, _, _, _, uid, inode = _TOLD.unpack_from(data, _HEADER.size)
                host = told[4:8] if data[_HEADER.size] == socket.AF_INET else told[4:20]
                yield _Told(state, host, uid, inode)
                data = data[(size + 3) & ~3 :]
            if ends is not None:
                return


_recent: list[int] = []
"""The process that was found last: a browser asks again."""


def _holder(inode: int) -> tuple[str, set[int]]:
    """A program other than this one that holds a socket: its name, and the inodes of all of its sockets."""
    for pid in [*_recent, *procfs.pids()]:
        if pid != os.getpid() and inode in (inodes := procfs.sockets(pid)):
            _recent[:] = [pid]
            return procfs.name(pid), inodes
    return "", set()
