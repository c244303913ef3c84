"""The header of the PROXY protocol, versions 1 and 2: who is at the other end of a proxy of connections.

Source: "The PROXY protocol", versions 1 and 2, of HAProxy (proxy-protocol.txt). The header comes before
anything else on a connection, TLS included. A receiver must not guess whether there is one: whoever may leave
it out could have a proxy that passes bytes on send one of the client's own.

Pure: bytes in, decisions out. Refuses to know whom to believe.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from devserver.http.exchange import Address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIRST = b"PROXY "
_LONGEST_LINE = 107
_LINE = re.compile(rb"PROXY (TCP[46]) ([0-9A-Fa-f:.]{1,39}) ([0-9A-Fa-f:.]{1,39}) (\d{1,5}) (\d{1,5})\r\n")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")
_HEAD = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21  # version 2, and the command
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_LENGTHS = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}
_TLV = struct.Struct("!BH")
_SSL, _CLIENT_SSL = 0x20, 0x01
_LARGEST_PORT = 65535


class BadHeader(ValueError):
    """What begins a connection is not a PROXY header; the text says why."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What a header says.

    Attributes:
        client, server: the ends of the connection to the proxy; None where it does not say them, because the
            proxy asks for itself, or its client came over something else than TCP.
        tls: the client spoke TLS with the proxy; None if that is not said.
        size: the header's, in bytes.
    """

    client: Address | None
    server: Address | None
    tls: bool | None
    size: int


def read(data: bytes) -> Ends | None:
    """Read the header that a connection begins with. None: not all of it has arrived.

    Raises:
        BadHeader: there is none, or it is malformed.
    """
    if data.startswith(SIGNATURE):
        return _read_binary(data)
    if data.startswith(_FIRST):
        return _read_line(data)
    if SIGNATURE.startswith(data) or _FIRST.startswith(data):
        return None
    raise BadHeader("a connection begins with a PROXY header here (--proxy-protocol)")


def _read_line(data: bytes) -> Ends | None:
    """Version 1: one line of text."""
    end = data.find(b"\r\n", 0, _LONGEST_LINE) + 2
    if end < 2:
        if len(data) >= _LONGEST_LINE:
            raise BadHeader("the line of the PROXY protocol is too long")
        return None
    line = data[:end]
    match = _LINE.fullmatch(line)
    if match is None:
        if _UNKNOWN.fullmatch(line):
            return Ends(None, None, None, end)
        raise BadHeader("malformed line of the PROXY protocol")
    family, *addresses = (each.decode("ascii") for each in match.groups())
    kind = IPv4Address if family == "TCP4" else IPv6Address
    source, destination, *ports = addresses
    try:
        client, server = (str(kind(each)) for each in (source, destination))
    except ValueError:
        raise BadHeader("malformed address in the line of the PROXY protocol") from None
    from_, to = map(int, ports)
    if max(from_, to) > _LARGEST_PORT:
        raise BadHeader("malformed port in the line of the PROXY protocol")
    return Ends((client, from_), (server, to), None, end)


def _read_binary(data: bytes) -> Ends | None:
    """Version 2: a head of 16 bytes, the addresses, and extensions (type, length, value)."""
    if len(data) < _HEAD.size:
        return None
    _, command, family, length = _HEAD.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise BadHeader("unknown version or command of the PROXY protocol")
    size = _HEAD.size + length
    if len(data) < size:
        return None
    if command == _LOCAL:
        return Ends(None, None, None, size)
    if family not in _LENGTHS:
        raise BadHeader("unknown family of addresses in the PROXY protocol")
    block = data[_HEAD.size : size]
    if len(block) < _LENGTHS[family]:
        raise BadHeader("the addresses of the PROXY protocol are cut short")
    client = server = None
    if family in (_TCP4, _TCP6):
        client, server = _addresses(block[: _LENGTHS[family]])
    return Ends(client, server, _tls(block[_LENGTHS[family] :]), size)


def _addresses(block: bytes) -> tuple[Address, Address]:
    ports = struct.unpack("!HH", block[-4:])
    half = (len(block) - 4) // 2
    kind = IPv4Address if half == 4 else IPv6Address
    source, destination = (str(kind(each)) for each in (block[:half], block[half : 2 * half]))
    return (source, ports[0]), (destination, ports[1])


def _tls(extensions: bytes) -> bool | None:
    """Whether the extension PP2_TYPE_SSL has the flag PP2_CLIENT_SSL."""
    while extensions:
        if len(extensions) < _TLV.size:
            raise BadHeader("an extension of the PROXY protocol is cut short")
        kind, length = _TLV.unpack_from(extensions)
        value, rest = extensions[_TLV.size : _TLV.size + length], extensions[_TLV.size + length :]
        if len(value) < length:
            raise BadHeader("an extension of the PROXY protocol is cut short")
        if kind == _SSL:
            return bool(value and value[0] & _CLIENT_SSL)
        extensions = rest
    return None
