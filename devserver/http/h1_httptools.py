"""HTTP/1.1 heads by httptools (llhttp). Optional; importing this fails where it is not installed."""

import httptools

from devserver.http.codes import BAD_REQUEST
from devserver.http.exchange import Headers
from devserver.http.framing import Refused


class _Lines:
    """Receives the parser's callbacks."""

    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: Headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))


def parse(head: bytes) -> Headers:
    """See `framing.Parser`."""
    try:
        return _parse(head)
    except httptools.HttpParserError as error:
        # llhttp has a list of methods and special rules for some; every other method goes as well
        # (RFC 9110 section 9.1), so it may only find fault with the rest.
        try:
            return _parse(b"GET " + head.partition(b" ")[2])
        except httptools.HttpParserError:
            raise Refused(BAD_REQUEST, str(error) or "malformed head") from None


def _parse(head: bytes) -> Headers:
    lines = _Lines()
    parser = httptools.HttpRequestParser(lines)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # said of every head with an Upgrade header; the connection decides what comes of it
    return lines.headers
