"""Whom to believe about the client: tables without a socket, then requests over real ones."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

import devserver
from devserver.config import resolve
from devserver.errors import UsageError
from devserver.front import claims, proxy_protocol
from devserver.front.claims import Claim
from devserver.front.proxies import Proxies, applied
from devserver.front.proxy_protocol import SIGNATURE, BadHeader, Ends
from devserver.front.trusted import Trusted
from devserver.http.exchange import Headers, Peer, Request
from devserver.proxy import Proxy
from tests.patience import DEADLINE
from tests.raw import Raw, serving

TCP = Peer(("127.0.0.1", 50000), ("127.0.0.1", 8000))
UNIX = Peer(None, ("/run/app.sock", None))
PROXIES = Trusted(["127.0.0.1", "10.0.0.0/8,fd00::/8", "unix"])


def fields(*lines: str) -> Headers:
    pairs = (line.partition(": ") for line in lines)
    return [(name.lower().encode(), value.encode("latin-1")) for name, _, value in pairs]


# Trusted addresses


@pytest.mark.parametrize(
    ("items", "host", "is_trusted"),
    [
        (["127.0.0.1"], "127.0.0.1", True),
        (["127.0.0.1"], "127.0.0.2", False),
        (["127.0.0.1"], "::ffff:127.0.0.1", True),
        (["::ffff:10.0.0.0/104"], "10.1.2.3", True),
        (["10.0.0.0/8"], "10.255.0.1", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["10.0.0.1", "10.0.0.3"], "10.0.0.2", False),
        (["10.0.0.1, 10.0.0.2"], "10.0.0.2", True),
        (["::1"], "::1", True),
        (["::1"], "0:0:0:0:0:0:0:1", True),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["0.0.0.0/0"], "8.8.8.8", True),
        (["0.0.0.0/0"], "::1", False),
        (["*"], "8.8.8.8", True),
        (["unix"], "127.0.0.1", False),
        ([], "127.0.0.1", False),
        (["127.0.0.1"], "nonsense", False),
    ],
)
def test_trusted_addresses(items: list[str], host: str, is_trusted: bool) -> None:
    assert Trusted(items).has((host, 1)) is is_trusted
    assert Trusted(items).connects(Peer((host, 1), ("127.0.0.1", 8000))) is is_trusted


@pytest.mark.parametrize(
    ("items", "peer", "is_trusted"),
    [
        (["unix"], UNIX, True),
        (["unix"], Peer(("/run/other", None), ("/run/app.sock", None)), True),
        (["unix"], Peer(), True),  # one end of a socket pair
        (["*"], UNIX, True),
        (["127.0.0.1"], UNIX, False),
        (["unix"], Peer(None, ("127.0.0.1", 8000)), False),  # TCP, and reset before anybody looked
    ],
)
def test_trusted_unix_sockets(items: list[str], peer: Peer, is_trusted: bool) -> None:
    assert Trusted(items).connects(peer) is is_trusted


# Claims


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["X-Forwarded-For: 203.0.113.7"], ("203.0.113.7", 0)),
        (["X-Forwarded-For: 203.0.113.7:4711"], ("203.0.113.7", 4711)),
        (["X-Forwarded-For: 2001:db8::7"], ("2001:db8::7", 0)),
        (["X-Forwarded-For: [2001:db8::7]"], ("2001:db8::7", 0)),
        (["X-Forwarded-For: [2001:DB8:0::7]:4711"], ("2001:db8::7", 4711)),
        (['X-Forwarded-For: "[2001:db8::7]:4711"'], ("2001:db8::7", 4711)),
        (["X-Forwarded-For: ::ffff:203.0.113.7"], ("203.0.113.7", 0)),
        (["X-Forwarded-For: fe80::7%eth0"], ("fe80::7", 0)),
        (["X-Forwarded-For: 203.0.113.7:_port"], ("203.0.113.7", 0)),
        # The last that is not trusted, whatever a client wrote to the left of it.
        (["X-Forwarded-For: 1.1.1.1, 203.0.113.7"], ("203.0.113.7", 0)),
        (["X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.5,fd00::5"], ("203.0.113.7", 0)),
        (["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 203.0.113.7, 10.0.0.5"], ("203.0.113.7", 0)),
        (["X-Forwarded-For: 1.1.1.1, 203.0.113.7", "X-Forwarded-For: 10.0.0.5"], ("203.0.113.7", 0)),
        (["X-Forwarded-For: <script>, 203.0.113.7"], ("203.0.113.7", 0)),
        (["X-Forwarded-For: 127.0.0.1, 203.0.113.7"], ("203.0.113.7", 0)),
        (["X-Forwarded-For: , 203.0.113.7 ,, 10.0.0.5 ,"], ("203.0.113.7", 0)),
        (["X-Forwarded-For: 10.0.0.9, 10.0.0.5"], ("10.0.0.9", 0)),
        (["X-Real-IP: 203.0.113.7"], None),
        (["X_Forwarded_For: 203.0.113.7"], None),
        (["X-Forwarded-For: "], None),
        (["Forwarded: for=203.0.113.7"], ("203.0.113.7", 0)),
        (["Forwarded: For=203.0.113.7;Proto=https;by=10.0.0.1"], ("203.0.113.7", 0)),
        (['forwarded: for="203.0.113.7:4711"'], ("203.0.113.7", 4711)),
        (['Forwarded: for="[2001:db8::7]:4711"'], ("2001:db8::7", 4711)),
        (['Forwarded: for="\\[2001:db8::7]"'], ("2001:db8::7", 0)),
        (["Forwarded: for=1.1.1.1, for=203.0.113.7, for=10.0.0.5"], ("203.0.113.7", 0)),
        (["Forwarded: for=1.1.1.1", "Forwarded: for=203.0.113.7 , for=10.0.0.5"], ("203.0.113.7", 0)),
        (["Forwarded: proto=https"], None),
        (["Forwarded: for=203.0.113.7, proto=https"], None),
        (["Forwarded: "], None),
        (['Forwarded: by="a,b;c=d";for=203.0.113.7'], ("203.0.113.7", 0)),
        # A client's, passed on by a proxy that knows only the others.
        (["Forwarded: for=1.1.1.1;host=evil.example", "X-Forwarded-For: 203.0.113.7"], ("203.0.113.7", 0)),
    ],
)
def test_the_client(lines: list[str], client: Any) -> None:
    found = claims.read(fields(*lines), PROXIES)
    assert (found.client, found.is_hidden, found.ignored, found.host) == (client, False, [], None)


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-For: unknown",
        "X-Forwarded-For: 1.1.1.1, UNKNOWN, 10.0.0.5",
        "X-Forwarded-For: 1.1.1.1, _hidden:80",
        "Forwarded: for=_hidden",
        'Forwarded: for=1.1.1.1, for="_SEVKISEK:_p", for=10.0.0.5',
        "Forwarded: for=unknown;proto=http",
    ],
)
def test_a_client_that_is_not_told(line: str) -> None:
    found = claims.read(fields(line), PROXIES)
    assert (found.client, found.is_hidden, found.ignored) == (None, True, [])


def test_everybody_is_trusted_with_a_star() -> None:
    found = claims.read(fields("X-Forwarded-For: 1.1.1.1, 203.0.113.7"), Trusted(["*"]))
    assert found.client == ("1.1.1.1", 0)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["Proto: https"], Claim(scheme="https")),
        (["Proto: HTTP"], Claim(scheme="http")),
        (["Proto: wss"], Claim(scheme="https")),
        (["Proto: ws"], Claim(scheme="http")),
        (["Host: shop.example"], Claim(host="shop.example")),
        (["Host: shop.example:8443"], Claim(host="shop.example:8443")),
        (["Host: [2001:db8::7]:8443"], Claim(host="[2001:db8::7]:8443")),
        (["Port: 8443"], Claim(port=8443)),
        (["Prefix: /shop"], Claim(prefix="/shop")),
        (["Prefix: /shop/"], Claim(prefix="/shop")),
        (["Prefix: /a/b%20c"], Claim(prefix="/a/b c")),
        (["Prefix: /caf%C3%A9"], Claim(prefix="/café")),
        (["Prefix: /"], Claim(prefix="")),
        # Of several, the one by the proxy that saw the client.
        (["Proto: http, https"], Claim(scheme="https")),
        (["Proto: http", "Proto: https"], Claim(scheme="https")),
        (["For: 203.0.113.7", "Proto: http, https"], Claim(("203.0.113.7", 0), scheme="https")),
        (["For: 203.0.113.7, 10.0.0.5", "Proto: https, http"], Claim(("203.0.113.7", 0), scheme="https")),
        (
            ["For: 203.0.113.7, fd00::5", "Proto: http, https, ws"],
            Claim(("203.0.113.7", 0), scheme="https"),
        ),
        (["For: 203.0.113.7, 10.0.0.5", "Proto: https"], Claim(("203.0.113.7", 0), scheme="https")),
        (["For: 1.1.1.1, 203.0.113.7", "Host: evil.example, a"], Claim(("203.0.113.7", 0), host="a")),
    ],
)
def test_what_else_is_said(lines: list[str], wanted: Claim) -> None:
    assert claims.read(fields(*(f"X-Forwarded-{line}" for line in lines)), PROXIES) == wanted


def test_an_element_of_the_standard_is_what_one_proxy_said() -> None:
    elements = (
        "for=1.1.1.1;host=evil.example",
        'for=203.0.113.7;proto=https;host="a.example:1"',
        "for=10.0.0.5;proto=http",
    )
    found = claims.read(fields(f"Forwarded: {', '.join(elements)}"), PROXIES)
    assert found == Claim(("203.0.113.7", 0), False, "https", "a.example:1")


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-For: garbage",
        "X-Forwarded-For: 203.0.113.7, garbage",
        "X-Forwarded-For: 1.2.3",
        "X-Forwarded-For: 1.2.3.256",
        "X-Forwarded-For: 127.0.0.01",
        "X-Forwarded-For: 203.0.113.7:",
        "X-Forwarded-For: 203.0.113.7:65536",
        "X-Forwarded-For: 203.0.113.7:x",
        "X-Forwarded-For: [203.0.113.7]x",
        "X-Forwarded-For: [2001:db8::7",
        "X-Forwarded-For: 2001:db8::g",
        "X-Forwarded-For: 203.0.113.7 198.51.100.1",
        "X-Forwarded-For: \xb2.0.0.1",
        "X-Forwarded-For: _",
        "X-Forwarded-Proto: htps",
        "X-Forwarded-Proto: javascript",
        "X-Forwarded-Proto: https://",
        "X-Forwarded-Host: a b",
        "X-Forwarded-Host: user@shop.example",
        "X-Forwarded-Host: shop.example/path",
        "X-Forwarded-Host: shop.example:",
        "X-Forwarded-Host: shop.example:99999",
        "X-Forwarded-Host: shop.example:0",
        "X-Forwarded-Host: https://shop.example",
        "X-Forwarded-Host: <script>",
        "X-Forwarded-Host: shop\xe9.example",
        "X-Forwarded-Port: 0",
        "X-Forwarded-Port: 65536",
        "X-Forwarded-Port: -1",
        "X-Forwarded-Port: 8443x",
        "X-Forwarded-Port: \xb2",
        "X-Forwarded-Prefix: shop",
        "X-Forwarded-Prefix: //evil.example",
        "X-Forwarded-Prefix: /%2Fevil.example",
        "X-Forwarded-Prefix: /\\evil.example",
        "X-Forwarded-Prefix: /%5Cevil.example",
        "X-Forwarded-Prefix: /a/../b",
        "X-Forwarded-Prefix: /a/..",
        "X-Forwarded-Prefix: /%2e%2e/b",
        "X-Forwarded-Prefix: /a?b",
        "X-Forwarded-Prefix: /a#b",
        "X-Forwarded-Prefix: /a%0d%0aSet-Cookie:b",
        "X-Forwarded-Prefix: /a%ff",
        "X-Forwarded-Prefix: https://evil.example",
        "Forwarded: garbage",
        "Forwarded: for=garbage",
        "Forwarded: for=2001:db8::7",
        "Forwarded: for =203.0.113.7",
        "Forwarded: for=203.0.113.7;for=203.0.113.8",
        'Forwarded: for="203.0.113.7',
        "Forwarded: for=203.0.113.7 proto=https",
        "Forwarded: for=203.0.113.7;proto=htps",
        "Forwarded: for=203.0.113.7;host=a/b",
    ],
)
def test_what_is_malformed_counts_as_not_sent(line: str) -> None:
    found = claims.read(fields(line), PROXIES)
    assert [fault.name for fault in found.ignored] in (
        [line.partition(":")[0].lower().encode()], [claims.PROTO], [claims.HOST]
    )  # fmt: skip
    assert (found.is_hidden, found.scheme, found.host, found.port, found.prefix) == (False, *[None] * 4)


def test_what_is_malformed_spoils_nothing_else() -> None:
    lines = "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: htps", "X-Forwarded-Port: 8443"
    found = claims.read(fields(*lines), PROXIES)
    assert (found.client, found.scheme, found.port) == (("203.0.113.7", 0), None, 8443)
    lines = "X-Forwarded-For: nonsense", "X-Forwarded-Proto: http, https", "X-Forwarded-Host: a.example"
    found = claims.read(fields(*lines), PROXIES)
    assert (found.client, found.scheme, found.host) == (None, "https", "a.example")


def test_a_long_header_is_read_in_time() -> None:
    """Linear in its length: 64 KiB of what nearly matches."""
    for text in ('for="' + "\\" * 60_000, "for=a;" * 9_000, "," * 65_000, "a=b " * 15_000, " " * 65_000):
        claims.read(fields(f"Forwarded: {text}"), PROXIES)
    for text in ("1." * 30_000, "[" * 60_000, "1:" * 30_000, "10.0.0.1," * 7_000, "/a" * 30_000):
        for name in ("For", "Host", "Prefix"):
            claims.read(fields(f"X-Forwarded-{name}: {text}"), PROXIES)


# What becomes of a request


def request(*lines: str, peer: Peer = TCP) -> Request:
    return Request("GET", b"/x", b"/x", b"", "1.1", fields(*lines), peer)


@pytest.mark.parametrize(
    ("host", "claim", "wanted_host", "server"),
    [
        ("devserver", Claim(host="shop.example", scheme="https"), "shop.example", ("shop.example", 443)),
        ("devserver", Claim(host="shop.example:81"), "shop.example:81", ("shop.example", 81)),
        ("devserver", Claim(host="shop.example:81", port=82), "shop.example:81", ("shop.example", 81)),
        ("shop.example", Claim(port=8443, scheme="https"), "shop.example:8443", ("shop.example", 8443)),
        ("shop.example", Claim(port=443, scheme="https"), "shop.example", ("shop.example", 443)),
        ("shop.example", Claim(port=80, scheme="https"), "shop.example:80", ("shop.example", 80)),
        ("shop.example:81", Claim(port=80), "shop.example:81", ("shop.example", 81)),
        ("shop.example", Claim(scheme="https"), "shop.example", ("shop.example", 443)),
        ("[2001:db8::7]", Claim(scheme="https"), "[2001:db8::7]", ("2001:db8::7", 443)),
        ("[2001:db8::7]", Claim(port=81), "[2001:db8::7]:81", ("2001:db8::7", 81)),
        ("shop.example", Claim(("203.0.113.7", 0)), "shop.example", TCP.server),
        ("", Claim(port=81), "", TCP.server),
        (None, Claim(host="shop.example"), "shop.example", ("shop.example", 80)),
        (None, Claim(scheme="https", port=81), None, TCP.server),
    ],
)
def test_the_host_that_the_client_asked(
    host: str | None, claim: Claim, wanted_host: str | None, server: Any
) -> None:
    before = request(*([] if host is None else [f"Host: {host}"]), "Accept: */*")
    after = applied(claim, before)
    told = [value.decode() for name, value in after.headers if name == b"host"]
    assert told == ([] if wanted_host is None else [wanted_host])
    assert after.peer.server == server
    assert (b"accept", b"*/*") in after.headers
    assert before == request(*([] if host is None else [f"Host: {host}"]), "Accept: */*")


def test_the_peer_is_marked_whatever_is_believed() -> None:
    for claim in (Claim(), Claim(scheme="https"), Claim(("203.0.113.7", 1)), Claim(is_hidden=True)):
        assert applied(claim, request()).peer.is_proxied
    assert applied(Claim(), request()).peer.client == TCP.client
    assert applied(Claim(is_hidden=True), request()).peer.client is None


@pytest.mark.parametrize(
    ("settings", "peer", "is_believed"),
    [
        (Proxy(), TCP, True),
        (Proxy(), UNIX, True),
        (Proxy(), Peer(("::1", 5), ("::1", 8000)), True),
        (Proxy(), Peer(("192.168.1.5", 5), ("192.168.1.2", 8000)), False),
        (Proxy(allow=("192.168.0.0/16",)), Peer(("192.168.1.5", 5), ("192.168.1.2", 8000)), True),
        (Proxy(allow=("192.168.0.0/16",)), TCP, False),
        (Proxy(allow=("127.0.0.1",)), UNIX, False),
        (Proxy(headers=False), TCP, False),
        (Proxy(headers=False, allow=("*",)), TCP, False),
    ],
)
def test_who_is_believed(settings: Proxy, peer: Peer, is_believed: bool) -> None:
    asked = request("Host: a", "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", peer=peer)
    got = Proxies(settings).believe(asked)
    assert (got.peer.scheme == "https") is is_believed
    assert (got is asked) is not is_believed


def test_what_is_ignored_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    proxies = Proxies(Proxy())
    stranger = Peer(("192.168.1.5", 5), ("192.168.1.2", 8000))
    for _ in range(3):
        proxies.believe(request("X-Forwarded-For: 203.0.113.7", peer=stranger))
        proxies.believe(request("X-Forwarded-Proto: htps\x1b[31m", "X-Forwarded-For: garbage"))
    assert [record.getMessage() for record in caplog.records] == [
        "ignored X-Forwarded-For from 192.168.1.5, which is not trusted; if it is your proxy,"
        " use --forwarded-allow-ips 192.168.1.5",
        "ignored a malformed X-Forwarded-For from 127.0.0.1:50000: 'garbage'; correct what the proxy sends",
        "ignored a malformed X-Forwarded-Proto from 127.0.0.1:50000: 'htps\\x1b[31m'; correct what the proxy"
        " sends",
    ]


def test_strangers_do_not_fill_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    proxies = Proxies(Proxy())
    for number in range(1000):
        peer = Peer((f"192.168.{number // 250}.{number % 250}", 5), ("192.168.1.2", 8000))
        proxies.believe(request("Forwarded: for=203.0.113.7", peer=peer))
    assert len(caplog.records) == 16


# The PROXY protocol

V4, V6 = ("203.0.113.7", 4711), ("2001:db8::7", 4711)


def binary(family: int, block: bytes, command: int = 0x21, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


BLOCK4 = socket.inet_aton("203.0.113.7") + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 4711, 443)
BLOCK6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "fd00::1")
    + struct.pack("!HH", 4711, 443)
)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


HEADERS = {
    b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n": (V4, ("10.0.0.1", 443), None),
    b"PROXY TCP6 2001:db8::7 fd00::1 4711 443\r\n": (V6, ("fd00::1", 443), None),
    b"PROXY UNKNOWN\r\n": (None, None, None),
    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n": (None, None, None),
    binary(0x11, BLOCK4): (V4, ("10.0.0.1", 443), None),
    binary(0x21, BLOCK6): (V6, ("fd00::1", 443), None),
    binary(0x11, BLOCK4 + tlv(4, b"padding")): (V4, ("10.0.0.1", 443), None),
    binary(0x11, BLOCK4 + tlv(1, b"h2") + tlv(0x20, b"\x01\0\0\0\0")): (V4, ("10.0.0.1", 443), True),
    binary(0x11, BLOCK4 + tlv(0x20, b"\x00\0\0\0\0")): (V4, ("10.0.0.1", 443), False),
    binary(0x31, b"\0" * 216): (None, None, None),
    binary(0x00, b""): (None, None, None),
    binary(0x00, b"", command=0x20): (None, None, None),
    binary(0x99, b"whatever", command=0x20): (None, None, None),
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_proxy_header(header: bytes) -> None:
    """Byte by byte, and with what follows: it says the same, and never more or less is taken."""
    for size in range(len(header)):
        assert proxy_protocol.read(header[:size]) is None
    client, server, tls = HEADERS[header]
    for rest in (b"", b"GET / HTTP/1.1\r\n", header, SIGNATURE):
        assert proxy_protocol.read(header + rest) == Ends(client, server, tls, len(header))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"P" + b"OST / HTTP/1.1\r\n",
        b"PROXY\r\n",
        b"proxy TCP4 203.0.113.7 10.0.0.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n",
        b"PROXY TCP4 203.0.113.7  10.0.0.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443 \r\n",
        b"PROXY TCP4 203.0.113.999 10.0.0.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 65536\r\n",
        b"PROXY TCP4 2001:db8::7 fd00::1 4711 443\r\n",
        b"PROXY TCP6 203.0.113.7 10.0.0.1 4711 443\r\n",
        b"PROXY UDP4 203.0.113.7 10.0.0.1 4711 443\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY " + b"x" * 200,
        b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02",
        binary(0x11, BLOCK4, command=0x11),
        binary(0x11, BLOCK4, command=0x22),
        binary(0x12, BLOCK4),
        binary(0x99, BLOCK4),
        binary(0x11, BLOCK4[:-1]),
        binary(0x21, BLOCK4),
        binary(0x11, BLOCK4 + b"\x04"),
        binary(0x11, BLOCK4 + b"\x04\0\5abc"),
    ],
)
def test_what_is_no_proxy_header(data: bytes) -> None:
    with pytest.raises(BadHeader):
        proxy_protocol.read(data)


# Options


@pytest.mark.parametrize(
    ("given", "environ", "wanted"),
    [
        ([], {}, (("127.0.0.1", "::1", "unix"), "default")),
        ([], {"FORWARDED_ALLOW_IPS": "*"}, (("*",), "FORWARDED_ALLOW_IPS")),
        ([], {"FORWARDED_ALLOW_IPS": "10.0.0.1, ::1"}, (("10.0.0.1", "::1"), "FORWARDED_ALLOW_IPS")),
        ([], {"FORWARDED_ALLOW_IPS": ""}, (("127.0.0.1", "::1", "unix"), "default")),
        (
            [],
            {"FORWARDED_ALLOW_IPS": "*", "DEVSERVER_FORWARDED_ALLOW_IPS": "unix"},
            (("unix",), "DEVSERVER_FORWARDED_ALLOW_IPS"),
        ),
        (["10.0.0.0/8, unix"], {"FORWARDED_ALLOW_IPS": "*"}, (("10.0.0.0/8,unix",), "--forwarded-allow-ips")),
    ],
)
def test_where_trusted_addresses_come_from(
    given: list[str], environ: dict[str, str], wanted: Any, tmp_path: Path
) -> None:
    config = resolve({"forwarded_allow_ips": given} if given else {}, environ, tmp_path)
    assert (config.proxy.allow, config.sources["forwarded_allow_ips"]) == wanted
    assert config.reread() == config


@pytest.mark.parametrize(
    "value", ["proxy.example", "10.0.0.1/8", "10.0.0.1:80", "", "10.0.0.1,", "10.0.0.1 ::1", 5]
)
def test_addresses_that_are_none(value: Any) -> None:
    with pytest.raises(UsageError, match="must be an address, a network as in"):
        devserver.Config("a:b", forwarded_allow_ips=value)


# Over real sockets


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    names = (
        "wsgi.url_scheme", "REMOTE_ADDR", "REMOTE_PORT", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT",
        "SCRIPT_NAME", "PATH_INFO",
    )  # fmt: skip
    start_response("200 OK", [])
    return [repr([environ.get(name) for name in names]).encode()]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    host = next(value.decode() for name, value in scope["headers"] if name == b"host")
    told = [scope[name] for name in ("scheme", "client", "server", "root_path", "path")]
    text = repr([*told, host])
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": text})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


NGINX = (
    "X-Forwarded-For: 1.1.1.1, 203.0.113.7", "X-Forwarded-Proto: https",
    "X-Forwarded-Host: shop.example:8443", "X-Forwarded-Prefix: /shop",
)  # fmt: skip


@pytest.mark.parametrize("place", ["tcp", "unix"])
@pytest.mark.parametrize("parser", ["h11", "httptools"])
def test_wsgi(place: str, parser: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if parser == "httptools":
        pytest.importorskip("httptools")
    caplog.set_level(logging.INFO, "devserver.access")
    where = {"uds": str(tmp_path / "s")} if place == "unix" else {}
    with serving(wsgi, http=parser, root_path="/other", **where) as server, Raw(server) as raw:
        raw.get("/a%20b", *NGINX)
        assert raw.answer().body.decode() == repr(
            ["https", "203.0.113.7", None, "shop.example:8443", "shop.example", "8443", "/shop", "/a b"]
        )
        raw.get("/", "X-Forwarded-For: unknown")
        told = raw.answer().body.decode()
        assert told.startswith("['http', '', None, 'test'")
        assert "'/other', '/'" in told
    assert [record.args[0] for record in caplog.records if record.name == "devserver.access"] == [  # type: ignore[index]
        "203.0.113.7", "unknown",
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_asgi(place: str, tmp_path: Path) -> None:
    where = {"uds": str(tmp_path / "s")} if place == "unix" else {}
    with serving(asgi, **where) as server, Raw(server) as raw:
        raw.get("/a%20b", *NGINX)
        assert raw.answer().body.decode() == repr(
            ["https", ("203.0.113.7", 0), ("shop.example", 8443), "/shop", "/shop/a b", "shop.example:8443"]
        )
        raw.get("/")  # the next on the same connection is another's
        scheme = "['http', None" if place == "unix" else "['http', ('127.0.0.1', "
        assert raw.answer().body.decode().startswith(scheme)


def test_websocket() -> None:
    headers = dict(line.split(": ") for line in NGINX)
    with serving(asgi) as server:
        url = server.url.replace("http", "ws") + "/live"
        with connect(url, additional_headers=headers, open_timeout=DEADLINE) as opened:
            assert opened.recv(DEADLINE) == repr(
                [
                    "wss",
                    ("203.0.113.7", 0),
                    ("shop.example", 8443),
                    "/shop",
                    "/shop/live",
                    "shop.example:8443",
                ]
            )


def test_an_untrusted_proxy_is_ignored_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with serving(wsgi, forwarded_allow_ips="10.0.0.1") as server, Raw(server) as raw:
        for _ in range(2):
            raw.get("/", *NGINX)
            assert raw.answer().body.startswith(b"['http', '127.0.0.1', ")
    assert caplog.text.count("use --forwarded-allow-ips 127.0.0.1") == 1


def test_off_is_off() -> None:
    with serving(wsgi, proxy_headers=False) as server, Raw(server) as raw:
        raw.get("/", *NGINX)
        scheme, client, *_, name = raw.answer().body.decode().strip("[]").split(", ")[:4]
        assert (scheme, client, name) == ("'http'", "'127.0.0.1'", "'test'")


@contextlib.contextmanager
def announcing(app: Any = wsgi, **options: Any) -> Iterator[Raw]:
    with serving(app, proxy_protocol=True, **options) as server, Raw(server) as raw:
        yield raw


@pytest.mark.parametrize("header", [next(iter(HEADERS)), binary(0x11, BLOCK4 + tlv(0x20, b"\x01\0\0\0\0"))])
@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_a_connection_that_is_announced(header: bytes, place: str, tmp_path: Path) -> None:
    scheme = "https" if header.startswith(SIGNATURE) else "http"
    with announcing(**({"uds": str(tmp_path / "s")} if place == "unix" else {})) as raw:
        raw.send(header[:3])
        raw.send(header[3:])
        for _ in range(2):  # it holds for the whole connection
            raw.get("/", "X-Forwarded-For: 8.8.8.8")  # of a client that is no trusted proxy
            assert raw.answer().body.decode() == repr(
                [scheme, "203.0.113.7", "4711", "test", "10.0.0.1", "443", "", "/"]
            )


def test_headers_of_a_trusted_proxy_count_behind_one_that_announces_it() -> None:
    with announcing(forwarded_allow_ips="127.0.0.1,203.0.113.7") as raw:
        raw.send(next(iter(HEADERS)))
        raw.get("/", "X-Forwarded-For: 8.8.8.8")
        assert "'8.8.8.8'" in raw.answer().body.decode()


def test_a_proxy_that_asks_for_itself_has_its_own_address() -> None:
    with announcing() as raw:
        raw.send(b"PROXY UNKNOWN\r\n")
        raw.get()
        assert "'127.0.0.1'" in raw.answer().body.decode()


def test_a_connection_that_is_not_announced_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with announcing() as raw:
        raw.get()
        answer = raw.answer()
    assert answer.status == 400
    assert b"PROXY header here (--proxy-protocol)" in answer.body
    assert "PROXY header here (--proxy-protocol)" in caplog.text


def test_who_is_not_trusted_cannot_announce_itself() -> None:
    with announcing(forwarded_allow_ips="10.0.0.1") as raw:
        raw.get()
        assert raw.answer().status == 200
        raw.send(next(iter(HEADERS)))
        raw.get()
        assert raw.answer().status == 400


def test_a_check_that_resets_its_connection_is_read_and_not_believed() -> None:
    """As those of HAProxy do: who has sent the header is not known any more."""
    gone = Peer(None, ("127.0.0.1", 8000))
    proxies = Proxies(Proxy(protocol=True, allow=("*",)))
    assert proxies.announces(gone)
    peer, size = proxies.announced(next(iter(HEADERS)), gone)
    assert (peer.client, peer.is_proxied, size) == (None, True, len(next(iter(HEADERS))))


def test_half_a_header_is_not_waited_for_for_ever() -> None:
    with announcing(timeout_header=0.1) as raw:
        raw.send(b"PROXY TCP4 ")
        assert raw.answer().status == 408
