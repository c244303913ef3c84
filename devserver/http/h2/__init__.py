"""HTTP/2 (RFC 9113): frames to exchanges and back, beside HTTP/1.1. The extra `http2`.

The extra is hpack, which decompresses fields. h2, of the same family, was weighed for all the rest, and is
not used. It ends a connection where RFC 9113 asks for the end of one stream: for a malformed request
(section 8.1.1), for a stream too many (5.1.2), for a body that is not as long as announced. It can do
nothing any more when either side has sent GOAWAY, while streams that have begun must finish (6.8). And its
state cannot go to another process, which is how a connection outlives a restart here (`handover`).

    frames        bytes to frames and back; numbers of the protocol
    compression   fields to bytes and back (HPACK, RFC 7541)
    heads         what a request may look like, and what it says
    wire          streams and windows: what either side may still send, and what is sent
    intake        what arrives, held against the wire; events come out
    handover      a connection as bytes, for the next generation
    outbox        what a stream has to send, until there is room for it
    turns         whose turn it is to send
    calm          how much of what costs a client nothing it may send
    held          requests that have not begun
    stream        one exchange
    tunnel        one WebSocket (RFC 8441)
    connection    where they meet: the transport, time, and the server's wishes
"""

from importlib.util import find_spec

from devserver.config import Http
from devserver.errors import UsageError


def is_spoken(settings: Http) -> bool:
    """Whether HTTP/2 is spoken.

    Raises:
        UsageError: it is wanted, and the extra is not installed.
    """
    if settings.http2 is False or settings.protocol == "uwsgi":
        return False
    found = find_spec("hpack") is not None
    if settings.http2 and not found:
        raise UsageError("--http2: hpack is not installed; pip install 'devserver[http2]'")
    return found
