"""What comes in plain text where HTTPS is served: who asks for a page is sent to https, others get a line.

Pure: from the head of a request to the bytes of a response. 307 keeps method and body (RFC 9110 15.4.8);
still only what reads is sent on: of a form that is sent in plain text each time nobody would notice.
"""

from __future__ import annotations

import re

MOST = 16384
"""Bytes of a head that are read."""

HELLO = 0x16
"""The first byte of TLS: a handshake record (RFC 8446 section 5.1)."""

_LINE = re.compile(rb"([A-Z]+) (/[!-~]*|\*) HTTP/1\.[01]")
_HOST = re.compile(rb"(?mi)^host:[ \t]*([\w.\-]+(?::\d+)?|\[[0-9a-f:.]+\](?::\d+)?)[ \t]*\r?$")
_UPGRADE = re.compile(rb"(?mi)^upgrade:")


def is_tls(first: int) -> bool:
    """Whether a connection that begins with this byte speaks TLS."""
    return first == HELLO


def may_be_http(first: int) -> bool:
    """Whether it may speak HTTP."""
    return 0x41 <= first <= 0x5A  # an upper-case letter: the method


def is_whole(head: bytes) -> bool:
    """Whether a head needs no more bytes to be answered."""
    return b"\r\n\r\n" in head or b"\n\n" in head or len(head) >= MOST


def answer(head: bytes) -> bytes:
    """The response to a request in plain text, after which the connection is closed."""
    line, host = _LINE.match(head), _HOST.search(head)
    if line is None or host is None:
        return _response("400 Bad Request", b"this port speaks HTTPS: ask with https://\n", [])
    method, target, name = line[1], line[2], host[1]
    url = b"https://" + name + (target if target != b"*" else b"")
    if method in (b"GET", b"HEAD") and not _UPGRADE.search(head):
        body = b"this port speaks HTTPS: " + url + b"\n"
        return _response("307 Temporary Redirect", b"" if method == b"HEAD" else body, [b"Location: " + url])
    return _response("400 Bad Request", b"this port speaks HTTPS: use " + url + b"\n", [])


def _response(status: str, body: bytes, headers: list[bytes]) -> bytes:
    lines = [
        b"HTTP/1.1 " + status.encode("ascii"),
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        b"Cache-Control: no-store",
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
