"""Requests as the error page and the endpoints get them: the developer's, and those of strangers."""

from __future__ import annotations

from devserver.http.exchange import Address, Peer, Request

LOCAL: Address = ("127.0.0.1", 50000)


def request(
    client: Address | None = LOCAL,
    *,
    path: str = "/",
    method: str = "GET",
    host: str | None = "localhost",
    origin: str | None = None,
    site: str | None = None,
    accept: str | None = None,
    header: str | None = None,
) -> Request:
    """
    Args:
        origin, site, accept: the values of Origin, Sec-Fetch-Site and Accept.
        header: the name of one more header, in lower case as parsers give it.
    """
    given = {"host": host, "origin": origin, "sec-fetch-site": site, "accept": accept}
    headers = [(name.encode(), value.encode("latin-1")) for name, value in given.items() if value is not None]
    headers += [(header.encode(), b"203.0.113.9")] if header is not None else []
    return Request(method, path.encode(), path.encode(), b"", "1.1", headers, Peer(client=client))


STRANGERS: dict[str, dict[str, str]] = {
    "a name that a foreign page has pointed here": {"Host": "evil.example:8000"},
    "a name that begins like ours": {"Host": "localhost.evil.example"},
    "a name that holds an address": {"Host": "127.0.0.1.nip.io"},
    "a short address": {"Host": "127.1"},
    "an address as one number": {"Host": "2130706433"},
    "an address as one hexadecimal number": {"Host": "0x7f000001"},
    "no address": {"Host": "255.255.255.256"},
    "almost ours": {"Host": "localhos"},
    "a proxy or a tunnel": {"X-Forwarded-For": "203.0.113.7"},
    "a proxy by the standard": {"Forwarded": "for=203.0.113.7"},
    "a content network": {"CF-Connecting-IP": "203.0.113.7"},
    "a page of another site": {"Origin": "http://evil.example"},
    "a page without a site": {"Origin": "null"},
    "a page of an address": {"Origin": "http://192.0.2.7"},
    "a page of another port": {"Origin": "http://localhost:3000"},
    "a page with a broken site": {"Origin": "http://["},
    "a script of another site": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a page of a neighbouring site": {"Sec-Fetch-Site": "same-site"},
}
"""Who is answered by no endpoint: headers over those of a request for localhost."""
