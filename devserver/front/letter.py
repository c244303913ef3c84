"""What is told of a connection to a process that sees only one end of a socket pair.

The bytes of a *letter* go before those that were read of a connection, wherever it is handed: from the
terminator to a child, and from a child to its successor. It says who the client is and what TLS has found
out, so that a child serves the connection as if it had accepted it. Letters are only looked for where the
terminator writes them; what a client sends is never taken for one.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict

from devserver.http.exchange import Peer, Tls

_dumps, _loads = json.dumps, json.loads  # an application may replace them

_HEADER = struct.Struct("!4sI")
_MAGIC = b"\0TLS"


def write(peer: Peer) -> bytes:
    """The letter about a connection."""
    tls = None if peer.tls is None else asdict(peer.tls)
    about = {"client": peer.client, "server": peer.server, "scheme": peer.scheme, "tls": tls}
    body = _dumps(about, separators=(",", ":")).encode("ascii")
    return _HEADER.pack(_MAGIC, len(body)) + body


def length(data: bytes) -> int:
    """The number of bytes of the letter that some bytes begin with; 0 if they begin with none."""
    if len(data) < _HEADER.size:
        return 0
    magic, size = _HEADER.unpack_from(data)
    return _HEADER.size + int(size) if magic == _MAGIC else 0


def take(data: bytes) -> tuple[Peer, bytes]:
    """Read the letter at the beginning of some bytes. Returns what it says, and the bytes behind it.

    Raises:
        ValueError: there is none.
    """
    end = length(data)
    if not end or len(data) < end:
        raise ValueError("a connection came without its letter")
    about = _loads(data[_HEADER.size : end])
    client, server = (tuple(each) if each else None for each in (about["client"], about["server"]))
    tls = None if about["tls"] is None else Tls(**about["tls"])
    return Peer(client, server, about["scheme"], bytes(data[:end]), tls), data[end:]
