"""HTTP/1.1 heads by httptools (llhttp). Optional; importing this fails where it is not installed."""

import httptools

from devserver.http.exchange import Headers
from devserver.http.framing import Refused


class _Head:
    """Receives the parser's callbacks."""

    __slots__ = ("headers", "target")

    def __init__(self) -> None:
        self.headers: Headers = []
        self.target = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))


def parse(head: bytes) -> tuple[str, bytes, str, Headers]:
    """See `framing.Head`."""
    method, _, rest = head.partition(b" ")
    try:
        result, version = _parse(head)
    except httptools.HttpParserError as error:
        # llhttp has a list of methods and special rules for some; every other method goes as well
        # (RFC 9110 section 9.1), so it may only find fault with the rest.
        try:
            result, version = _parse(b"GET " + rest)
        except httptools.HttpParserError:
            raise Refused(400, str(error) or "malformed head") from None
    return method.decode("ascii"), result.target, version, result.headers


def _parse(head: bytes) -> tuple[_Head, str]:
    result = _Head()
    parser = httptools.HttpRequestParser(result)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # said of every head with an Upgrade header; the connection decides what comes of it
    return result, parser.get_http_version()
