"""The uwsgi protocol: the packet as a table, then over real sockets. nginx is in `live/test_uwsgi.py`."""

from __future__ import annotations

import ast
import logging
from pathlib import Path
from typing import Any

import pytest

import devserver
from devserver.config import resolve
from devserver.devtools.endpoints import ENDPOINTS, gate
from devserver.devtools.error_page import WAIT
from devserver.errors import UsageError
from devserver.front import parameters
from devserver.front.proxies import Proxies
from devserver.http import framing, uwsgi
from devserver.http.exchange import Headers, Peer, Request
from devserver.http.framing import Refused
from devserver.proxy import Proxy
from tests.packet import packed, packet, told
from tests.raw import Answer, Raw, request, serving

HOSTS = [b"shop.example", b"shop.example:8443", b"[::1]:80", b"SHOP.example", b""]


def size(pairs: dict[str, str]) -> int:
    return len(packed(pairs))


# Where a packet ends


def test_a_packet_ends_where_its_size_says() -> None:
    whole = packet()
    for cut in range(len(whole)):
        assert uwsgi.end_of_head(whole[:cut], 0, 0, 65536) == -1
    assert uwsgi.end_of_head(whole + b"body", 0, 0, 65536) == len(whole)


def test_the_largest_packet_is_within_the_default_limit() -> None:
    """Nothing but its format bounds it then."""
    fill = 65535 - (size(told()) - 4) - (2 + len("FILL") + 2)
    whole = packet(FILL="x" * fill)
    assert uwsgi.end_of_head(whole, 0, 0, devserver.Config("app").http.max_head) == len(whole) == 65539
    assert (uwsgi.read(whole).parameters or {})["FILL"] == "x" * fill


NO_PACKETS = {
    "HTTP": (b"GET / HTTP/1.1\r\n", "HTTP on a uwsgi port: ask the proxy"),
    "the beginning of HTTP": (b"G", "HTTP on a uwsgi port"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP on a uwsgi port"),
    "TLS": (b"\x16\x03\x01", "TLS on a uwsgi port: have the proxy end TLS"),
    "lines before": (b"\r\n" + packet(), "uwsgi_modifier1 is 13"),
    "PROXY": (b"\r\n\r\n\x00\r\nQUIT\n", "uwsgi_modifier1 is 13"),
    "modifier1 of uWSGI 1": (packed(told(), modifier1=30), "uwsgi_modifier1 is 30: remove that line"),
    "another modifier1": (packed(told(), modifier1=100), "uwsgi_modifier1 is 100: only 0"),
    "modifier2": (packed(told(), modifier2=1), "uwsgi_modifier2 is 1: only 0"),
}


@pytest.mark.parametrize("name", NO_PACKETS)
def test_what_is_no_packet(name: str) -> None:
    data, reason = NO_PACKETS[name]
    with pytest.raises(Refused, match=reason) as refused:
        uwsgi.end_of_head(data, 0, 0, 65536)
    assert refused.value.status == 400


def test_a_packet_over_the_limit_is_refused_before_it_has_come() -> None:
    with pytest.raises(Refused, match="--h11-max-incomplete-event-size allows more") as refused:
        uwsgi.end_of_head(packet()[:4], 0, 0, 100)
    assert refused.value.status == 431


# Sizes within it


def resized(change: int) -> bytes:
    """A packet whose size is off."""
    whole = packet()
    data = whole[4:] + b"\0" * max(0, change)
    return b"\0" + (len(whole) - 4 + change).to_bytes(2, "little") + b"\0" + data[: len(whole) - 4 + change]


WRONG_SIZES = {
    "empty": packed({}),
    "one byte short": resized(-1),
    "one byte over": resized(1),
    "a name without a value": resized(4),
    "two bytes of a length over": resized(2),
    "a length over the end": packet()[:-14] + b"\xff\xff" + packet()[-12:],
    "an empty name": packed([*told().items(), ("", "x")]),
}


@pytest.mark.parametrize("name", WRONG_SIZES)
def test_wrong_sizes_are_refused(name: str) -> None:
    whole = WRONG_SIZES[name]
    assert uwsgi.end_of_head(whole, 0, 0, 65536) == len(whole)
    with pytest.raises(Refused) as refused:
        uwsgi.read(whole)
    assert refused.value.status == 400


# What it says


def understood(pairs: dict[str, str]) -> tuple[framing.Framing, dict[str, str], Headers]:
    head = packed(pairs)
    frame = uwsgi.read(head)
    assert frame.parameters is not None
    assert (frame.keep_alive, frame.expects, frame.upgrade, frame.bare) == (False, False, b"", True)
    return frame, frame.parameters, uwsgi.parse(head)


def test_what_nginx_says() -> None:
    more = {
        "HTTP_X_USER": "a\xe9",
        "HTTP_ACCEPT": " */* ",
        "REMOTE_USER": "ann",
        "CUSTOM": "x\ny",
        "lower": "z",
    }
    frame, parameters, headers = understood(told("POST", "/a%20b?x=1", CONTENT_LENGTH="5", **more))
    assert (frame.method, frame.target, frame.path) == ("POST", b"/a%20b?x=1", b"/a%20b")
    assert (frame.query, frame.version, frame.length) == (b"x=1", "1.1", 5)
    assert headers == [
        (b"content-length", b"5"), (b"host", b"shop.example"), (b"x-user", b"a\xe9"), (b"accept", b"*/*"),
    ]  # fmt: skip
    assert not any(name.startswith(("HTTP_", "CONTENT_")) for name in parameters)
    assert {"REMOTE_USER": "ann", "CUSTOM": "x\ny", "lower": "z", "DOCUMENT_ROOT": "/srv/www"}.items() <= (
        parameters.items()
    )


REFUSED = {
    "no method": ({"REQUEST_METHOD": ""}, 400),
    "a method that is none": ({"REQUEST_METHOD": "GET /"}, 400),
    "a method that is too long": ({"REQUEST_METHOD": "A" * 65}, 400),
    "CONNECT": ({"REQUEST_METHOD": "CONNECT"}, 501),
    "no path": ({"REQUEST_URI": "", "PATH_INFO": ""}, 400),
    "a path without a slash": ({"PATH_INFO": "a"}, 400),
    "a mount without a slash": ({"SCRIPT_NAME": "a"}, 400),
    "an absolute URI": ({"REQUEST_URI": "http://evil.example/"}, 400),
    "a space in the URI": ({"REQUEST_URI": "/a b"}, 400),
    "a line end in the URI": ({"REQUEST_URI": "/a\r\nb"}, 400),
    "a byte over 127 in the URI": ({"REQUEST_URI": "/\xe9"}, 400),
    "a line end in the query": ({"QUERY_STRING": "a\nb"}, 400),
    "a version that is none": ({"SERVER_PROTOCOL": "HTTPS/1"}, 400),
    "a negative length": ({"CONTENT_LENGTH": "-5"}, 400),
    "a plus": ({"CONTENT_LENGTH": "+5"}, 400),
    "a list of lengths": ({"CONTENT_LENGTH": "5, 5"}, 400),
    "digits of another script": ({"CONTENT_LENGTH": "\xb2"}, 400),
    "a huge length": ({"CONTENT_LENGTH": "9" * 19}, 400),
    "a length in words": ({"CONTENT_LENGTH": "five"}, 400),
    "a line end in a header": ({"HTTP_X": "a\r\nSet-Cookie: b"}, 400),
    "NUL in a header": ({"HTTP_X": "a\0b"}, 400),
    "NUL in a custom parameter": ({"CUSTOM": "a\0b"}, 400),
    "NUL in the path": ({"PATH_INFO": "/a\0b"}, 400),
    "a line end in the user": ({"REMOTE_USER": "ann\nroot"}, 400),
    "a line end in the address": ({"REMOTE_ADDR": "127.0.0.1\n"}, 400),
    "a line end in the name": ({"SERVER_NAME": "a\rb"}, 400),
    "a space in a name": ({"A B": "c"}, 400),
    "a line end in a name": ({"A\nB": "c"}, 400),
    "a byte over 127 in a name": ({"\xe9": "c"}, 400),
    "a header that cannot be one": ({"HTTP_X:Y": "c"}, 400),
    "a header without a name": ({"HTTP_": "c"}, 400),
    "a host that is none": ({"HTTP_HOST": "a/b"}, 400),
    "two hosts in one": ({"HTTP_HOST": "a, b"}, 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    change, status = REFUSED[name]
    with pytest.raises(Refused) as refused:
        understood({**told(), **change})
    assert refused.value.status == status
    assert "\n" not in refused.value.reason


@pytest.mark.parametrize("host", HOSTS)
def test_hosts_that_are_taken(host: bytes) -> None:
    assert (b"host", host) in understood(told(HTTP_HOST=host.decode()))[2]


@pytest.mark.parametrize(
    ("protocol", "version"),
    [
        ("HTTP/1.1", "1.1"),
        ("HTTP/1.0", "1.0"),
        ("HTTP/2.0", "2"),
        ("HTTP/3.0", "3"),
        ("HTTP/2", "2"),
        ("", "1.1"),
    ],
)
def test_the_clients_version(protocol: str, version: str) -> None:
    assert understood(told(SERVER_PROTOCOL=protocol))[0].version == version


PLACES = {
    "a plain path": ({"REQUEST_URI": "/a%2Fb", "PATH_INFO": "/a/b"}, b"/a%2Fb", "", "/a/b"),
    "without PATH_INFO": ({"REQUEST_URI": "/a%20b?c", "PATH_INFO": ""}, b"/a%20b", "", "/a b"),
    "without REQUEST_URI": ({"REQUEST_URI": "", "PATH_INFO": "/ \xc3\xa9"}, b"/%20%C3%A9", "", "/ \xc3\xa9"),
    "rewritten": ({"REQUEST_URI": "/old", "PATH_INFO": "/new"}, b"/new", "", "/new"),
    "split, as CGI has it": (
        {"REQUEST_URI": "/app/x%20", "SCRIPT_NAME": "/app", "PATH_INFO": "/x "}, b"/x%20", "/app", "/x "
    ),
    "not split, as uwsgi_params": (
        {"REQUEST_URI": "/app/x%20", "SCRIPT_NAME": "/app", "PATH_INFO": "/app/x "}, b"/x%20", "/app", "/x "
    ),
    "split, and the rest begins alike": (
        {"REQUEST_URI": "/app/app", "SCRIPT_NAME": "/app", "PATH_INFO": "/app"}, b"/app", "/app", "/app"
    ),
    "not split, and cleaned up": (
        {"REQUEST_URI": "//app/./x", "SCRIPT_NAME": "/app", "PATH_INFO": "/app/x"}, b"/x", "/app", "/x"
    ),
    "not split, nothing below": (
        {"REQUEST_URI": "/app", "SCRIPT_NAME": "/app", "PATH_INFO": "/app"}, b"", "/app", ""
    ),
    "split, nothing more": ({"REQUEST_URI": "/app", "SCRIPT_NAME": "/app", "PATH_INFO": ""}, b"", "/app", ""),
    "only the beginning of a name": (
        {"REQUEST_URI": "/apple", "SCRIPT_NAME": "/app", "PATH_INFO": "/apple"}, b"/apple", "/app", "/apple"
    ),
    "a slash at the end": (
        {"REQUEST_URI": "/app/x", "SCRIPT_NAME": "/app/", "PATH_INFO": "/x"}, b"/x", "/app", "/x"
    ),
    "the root": ({"REQUEST_URI": "/x", "SCRIPT_NAME": "/", "PATH_INFO": "/x"}, b"/x", "", "/x"),
    "a line end that was encoded": ({"REQUEST_URI": "/a%0Ab", "PATH_INFO": "/a\nb"}, b"/a%0Ab", "", "/a\nb"),
    "not in UTF-8": ({"REQUEST_URI": "/%E9", "PATH_INFO": "/\xe9"}, b"/%E9", "", "/\xe9"),
}  # fmt: skip
"""Parameters; the path below the mount as sent, SCRIPT_NAME and PATH_INFO."""


@pytest.mark.parametrize("name", PLACES)
def test_where_the_application_is_mounted(name: str) -> None:
    change, path, script, info = PLACES[name]
    frame, parameters, _ = understood({**told(), **change})
    assert frame.path == path
    assert parameters["PATH_INFO"] == info
    assert parameters.get("SCRIPT_NAME", "").rstrip("/") == script


def test_the_query_is_the_proxys() -> None:
    assert understood({**told(target="/?a=1"), "QUERY_STRING": "b=2"})[0].query == b"b=2"
    assert understood({**told(target="/?a=1"), "QUERY_STRING": ""})[0].query == b"a=1"


def test_the_last_of_a_name_counts() -> None:
    """As with `include uwsgi_params`, and after it what is to differ."""
    pairs = [
        *told(CONTENT_LENGTH="5", HTTP_HOST="shop.example").items(),
        ("PATH_INFO", "/other"), ("CONTENT_LENGTH", ""), ("HTTP_HOST", "a:8443"), ("REMOTE_USER", "bob"),
        ("HTTP_X", "1"), ("HTTP_X", "2"),
    ]  # fmt: skip
    head = packed(pairs)
    frame = uwsgi.read(head)
    assert (frame.path, frame.length) == (b"/other", 0)
    assert uwsgi.parse(head) == [(b"host", b"a:8443"), (b"x", b"1"), (b"x", b"2")]


def test_what_the_client_said_of_its_body_is_passed_over() -> None:
    """nginx has collected it from chunks, or keeps it to itself."""
    client = {"HTTP_CONTENT_LENGTH": "7", "HTTP_TRANSFER_ENCODING": "chunked", "HTTP_CONTENT_TYPE": "a/b"}
    frame, parameters, headers = understood(
        told("POST", CONTENT_LENGTH="3", CONTENT_TYPE="text/plain", **client)
    )
    assert frame.length == 3
    assert headers == [
        (b"content-type", b"text/plain"),
        (b"content-length", b"3"),
        (b"host", b"shop.example"),
    ]
    assert not client.keys() & parameters.keys()


def test_chunks_without_a_length_are_refused() -> None:
    """nginx has collected them. Who passes them on does not say where they end."""
    pairs = told("POST", HTTP_TRANSFER_ENCODING="chunked")
    assert understood(pairs)[0].length == 0  # as where nginx keeps the body to itself
    del pairs["CONTENT_LENGTH"]
    with pytest.raises(Refused) as refused:
        understood(pairs)
    assert refused.value.status == 411


def test_two_authorizations_are_refused() -> None:
    with pytest.raises(Refused):
        uwsgi.parse(packed([*told().items(), ("HTTP_AUTHORIZATION", "a"), ("HTTP_AUTHORIZATION", "b")]))


# Whom it comes from


def believed(pairs: dict[str, str], peer: Peer, **settings: Any) -> Request:
    head = packed(pairs)
    frame = uwsgi.read(head)
    asked = Request(
        frame.method, frame.target, frame.path, frame.query, frame.version, uwsgi.parse(head), peer
    )
    asked.parameters = frame.parameters
    return Proxies(Proxy(**settings)).believe(asked)


LOCAL = Peer(("127.0.0.1", 50000), ("127.0.0.1", 3031))
UNIX = Peer(None, ("/run/s", None))
FAR = Peer(("172.18.0.5", 50000), ("172.18.0.2", 3031))


@pytest.mark.parametrize(
    ("peer", "allow", "name"),
    [
        (LOCAL, ("127.0.0.1", "::1", "unix"), None),
        (UNIX, ("127.0.0.1", "::1", "unix"), None),
        (FAR, ("127.0.0.1", "::1", "unix"), "172.18.0.5"),
        (FAR, ("172.18.0.0/16",), None),
        (FAR, ("*",), None),
        (LOCAL, ("172.18.0.0/16",), "127.0.0.1"),
        (UNIX, ("127.0.0.1",), "unix"),
    ],
)
@pytest.mark.parametrize("headers", [True, False])
def test_who_may_speak_it(peer: Peer, allow: tuple[str, ...], name: str | None, headers: bool) -> None:
    """--no-proxy-headers makes no difference: a packet without its parameters would say nothing."""
    if name is None:
        made = believed(told(), peer, allow=allow, headers=headers).peer
        assert made == Peer(("203.0.113.9", 4711), ("shop.example", 80), "http", is_proxied=True)
        return
    with pytest.raises(Refused, match=f"use --forwarded-allow-ips {name}$") as refused:
        believed(told(), peer, allow=allow, headers=headers)
    assert refused.value.status == 403


def test_a_peer_that_is_gone_is_not_believed() -> None:
    with pytest.raises(Refused, match="the proxy has reset its connection"):
        believed(told(), Peer(None, ("127.0.0.1", 3031)), allow=("127.0.0.1", "unix"))


SCHEMES = {
    "none": ({"REQUEST_SCHEME": ""}, "http"),
    "REQUEST_SCHEME": ({"REQUEST_SCHEME": "https"}, "https"),
    "HTTPS": ({"HTTPS": "on", "REQUEST_SCHEME": "http"}, "https"),
    "HTTPS is off": ({"HTTPS": "off"}, "http"),
    "HTTPS is empty": ({"HTTPS": "", "REQUEST_SCHEME": "https"}, "https"),
    "UWSGI_SCHEME": ({"UWSGI_SCHEME": "https", "HTTPS": ""}, "https"),
    "UWSGI_SCHEME over HTTPS": ({"UWSGI_SCHEME": "http", "HTTPS": "on"}, "http"),
    "a scheme that is none": ({"UWSGI_SCHEME": "ftp", "REQUEST_SCHEME": "gopher"}, "http"),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_the_scheme(name: str) -> None:
    change, scheme = SCHEMES[name]
    assert believed({**told(), **change}, LOCAL).peer.scheme == scheme


CLIENTS = {
    "IPv6": ({"REMOTE_ADDR": "2001:db8::1"}, ("2001:db8::1", 4711)),
    "no port": ({"REMOTE_PORT": ""}, ("203.0.113.9", 0)),
    "a port that is none": ({"REMOTE_PORT": "99999"}, ("203.0.113.9", 0)),
    "a Unix socket of nginx": ({"REMOTE_ADDR": "unix:"}, None),
    "no address": ({"REMOTE_ADDR": "a name"}, None),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_the_client(name: str) -> None:
    change, client = CLIENTS[name]
    assert believed({**told(), **change}, LOCAL).peer.client == client


def test_a_client_that_is_not_told_is_the_peer() -> None:
    pairs = told()
    del pairs["REMOTE_ADDR"]
    assert believed(pairs, LOCAL).peer.client == LOCAL.client


@pytest.mark.parametrize(
    ("name", "host", "server"),
    [
        ("shop.example", "other:1", ("shop.example", 8443)),
        ("", "other:1", ("other", 8443)),
        ("_", "[::1]:1", ("::1", 8443)),
        ("", "", ("127.0.0.1", 3031)),
    ],
)
def test_the_server(name: str, host: str, server: tuple[str, int]) -> None:
    made = believed(told(SERVER_NAME=name, SERVER_PORT="8443", HTTP_HOST=host), LOCAL)
    assert made.peer.server == server


FORWARDED = {
    "HTTP_X_FORWARDED_FOR": "8.8.8.8", "HTTP_X_FORWARDED_PROTO": "https",
    "HTTP_X_FORWARDED_HOST": "outer.example", "HTTP_X_FORWARDED_PREFIX": "/outer",
}  # fmt: skip


def test_headers_of_a_trusted_proxy_before_it_count() -> None:
    """nginx in front of nginx: who asked the last one is trusted. What its parameters say is not so then."""
    made = believed(
        told(REMOTE_ADDR="10.0.0.1", HTTPS="", **FORWARDED), LOCAL, allow=("127.0.0.1", "10.0.0.1")
    )
    assert made.peer == Peer(("8.8.8.8", 0), ("outer.example", 443), "https", is_proxied=True)
    assert made.prefix == "/outer"
    false = {"REMOTE_ADDR", "REMOTE_PORT", "HTTPS", "REQUEST_SCHEME", "SERVER_NAME", "SERVER_PORT"}
    assert not false & (made.parameters or {}).keys()
    assert (made.parameters or {})["PATH_INFO"] == "/"


@pytest.mark.parametrize("settings", [{}, {"headers": False, "allow": ("127.0.0.1", "203.0.113.9")}])
def test_those_of_a_client_do_not(settings: dict[str, Any]) -> None:
    made = believed(told(**FORWARDED), LOCAL, **settings)
    assert made.peer.client == ("203.0.113.9", 4711)
    assert made.peer.scheme == "http"
    assert made.parameters == uwsgi.read(packed(told(**FORWARDED))).parameters


def test_a_prefix_is_text() -> None:
    assert believed(told(SCRIPT_NAME="/caf\xc3\xa9"), LOCAL).prefix == "/café"


def test_nobody_is_this_machines_developer() -> None:
    """P9: what an upstream says of its client makes nobody local."""
    local = told(
        "GET", WAIT.decode(), REMOTE_ADDR="127.0.0.1", HTTP_HOST="localhost", SERVER_NAME="localhost"
    )
    for peer in (LOCAL, UNIX):
        refusal = gate(believed(local, peer), ENDPOINTS)
        assert refusal is not None
        assert refusal[0] == 403


def test_parameters_that_still_hold() -> None:
    before = Request("GET", b"/", b"/", b"", "1.1", [], LOCAL)
    assert parameters.without({"HTTPS": "on", "X": "y"}, before, before) == {"HTTPS": "on", "X": "y"}


# Over real sockets


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read()
    texts = {name: value for name, value in environ.items() if isinstance(value, str)}
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr({**texts, "body": body}).encode("latin-1")]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """In two parts, of which nothing but the end of the connection says that they are all."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    assert "http.response.trailers" not in scope["extensions"]
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    kept = (
        "http_version",
        "scheme",
        "path",
        "raw_path",
        "query_string",
        "root_path",
        "headers",
        "client",
        "server",
    )
    seen = {**{name: scope[name] for name in kept}, "uwsgi": scope["extensions"]["uwsgi"], "body": body}
    text = repr(seen).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text[:10], "more_body": True})
    await send({"type": "http.response.body", "body": text[10:]})


def speaking(app: Any, **options: Any) -> Any:
    return serving(app, protocol="uwsgi", **options)


def ask(app: Any, data: bytes, **options: Any) -> Answer:
    """What a server says, up to the end of the connection."""
    with speaking(app, **options) as server, Raw(server) as raw:
        raw.send(data)
        answer = raw.answer()
        assert raw.rest() == b""
        assert answer.headers[b"connection"] == b"close"
        return answer


MORE = {
    "REMOTE_USER": "ann", "SCRIPT_NAME": "/app", "HTTPS": "on", "CUSTOM": "x\xc3\xa9", "SSL_CERT": "a\nb",
    "EMPTY": "", "HTTP_X_USER": "b", "HTTP_PROXY": "http://evil.example", "wsgi.url_scheme": "ftp",
    "wsgi.input": "none", "SERVER_PROTOCOL": "HTTP/2.0", "HTTP_EXPECT": "100-continue",
}  # fmt: skip


@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_every_parameter_reaches_the_environ(place: str, tmp_path: Path) -> None:
    where = {"uds": str(tmp_path / "s")} if place == "unix" else {}
    asked = packet("POST", "/app/x%20y?q=1", b"hello", CONTENT_TYPE="text/plain", **MORE)
    environ = ast.literal_eval(ask(wsgi, asked, root_path="/other", **where).body.decode("latin-1"))
    expected = {
        **told("POST", "/app/x%20y?q=1"), **MORE, "PATH_INFO": "/x y", "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5", "wsgi.url_scheme": "https", "body": b"hello",
    }  # fmt: skip
    del expected["HTTP_PROXY"]  # a setting that clients obey ("httpoxy")
    del expected["wsgi.input"]
    assert environ == {**environ, **expected}
    assert environ.keys() - expected.keys() == {"SERVER_SOFTWARE", "RAW_URI"}


def test_every_parameter_reaches_the_scope() -> None:
    asked = packet("POST", "/app/x%20y?q=1", b"hello", **MORE)
    scope = ast.literal_eval(ask(asgi, asked, root_path="/other").body.decode())
    assert {name: scope[name] for name in ("http_version", "scheme", "path", "raw_path", "root_path")} == {
        "http_version": "2", "scheme": "https", "root_path": "/app", "path": "/app/x y",
        "raw_path": b"/app/x%20y",
    }  # fmt: skip
    assert (scope["client"], scope["server"]) == (("203.0.113.9", 4711), ("shop.example", 80))
    assert (scope["query_string"], scope["body"]) == (b"q=1", b"hello")
    assert scope["headers"] == [
        (b"content-length", b"5"), (b"host", b"shop.example"), (b"x-user", b"b"),
        (b"proxy", b"http://evil.example"), (b"expect", b"100-continue"),
    ]  # fmt: skip
    assert scope["uwsgi"]["CUSTOM"] == "xé"
    assert {"REMOTE_USER", "SSL_CERT", "REMOTE_ADDR", "HTTPS", "EMPTY"} <= scope["uwsgi"].keys()


def test_nothing_is_sent_but_a_head_and_a_body() -> None:
    """No interim response, though the client waits for one and the application sends hints, and no chunks."""
    whole = packet("POST", "/", b"hello", HTTP_EXPECT="100-continue", HTTP_TE="trailers")
    with speaking(asgi) as server, Raw(server) as raw:
        raw.send(whole[:-5])
        raw.send(whole[-5:])
        answer = raw.answer()
    assert answer.status == 200
    assert not {b"transfer-encoding", b"content-length"} & answer.headers.keys()
    assert ast.literal_eval(answer.body.decode())["body"] == b"hello"


def test_what_the_access_line_shows(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "devserver.access")
    ask(wsgi, packet("GET", "/a%22b?c", SERVER_PROTOCOL="HTTP/2.0"))
    line = next(record for record in caplog.records if record.name == "devserver.access")
    assert line.getMessage().startswith('203.0.113.9:4711 "GET /a%22b?c HTTP/2" 200 ')


@pytest.mark.parametrize("cuts", [[1], [2, 3], [4], [5, 30], list(range(1, 300))])
def test_it_makes_no_difference_where_a_packet_is_cut(cuts: list[int]) -> None:
    data = packet("POST", "/", b"x" * 20)
    with speaking(wsgi) as server, Raw(server) as raw:
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            raw.send(data[start:end])
        assert b"'body': b'" + b"x" * 20 in raw.answer().body


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (request("/"), 400, "HTTP on a uwsgi port"),
        (b"\x16\x03\x01\x02\x00\x01", 400, "TLS on a uwsgi port"),
        (WRONG_SIZES["one byte over"], 400, "do not fill its size"),
        (packet(HTTP_HOST="a/b"), 400, "malformed Host header"),
        (packed(told(), modifier1=30), 400, "remove that line"),
        (packet(FILL="x" * 3000), 431, "allows more"),
    ],
)
def test_the_answer_to_what_is_refused(
    data: bytes, status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask(wsgi, data, h11_max_incomplete_event_size=2000)
    assert answer.status == status
    assert reason in answer.body.decode()
    assert reason in caplog.text


def test_a_peer_that_is_not_trusted(caplog: pytest.LogCaptureFixture) -> None:
    assert ask(wsgi, packet(), forwarded_allow_ips="10.0.0.1").status == 403
    assert "refused a request from 127.0.0.1:" in caplog.text
    assert "if this one is yours, use --forwarded-allow-ips 127.0.0.1" in caplog.text


def test_a_packet_on_a_port_of_http(caplog: pytest.LogCaptureFixture) -> None:
    for data in (packet(), packet()[:4], packet(CERTIFICATE="a\r\n\r\nb")):
        with serving(wsgi) as server, Raw(server) as raw:
            raw.send(data)
            answer = raw.answer()
            assert answer.status == 400
            assert b"a uwsgi packet on an HTTP port: give --protocol uwsgi" in answer.body
    assert caplog.text.count("give --protocol uwsgi") == 3


def test_a_packet_that_does_not_come() -> None:
    with speaking(wsgi, timeout_header=0.1) as server, Raw(server) as raw:
        raw.send(packet()[:-1])
        assert raw.answer().status == 408
    with speaking(wsgi) as server, Raw(server) as raw:
        raw.send(packet()[:-1])
        raw.end()
        assert raw.answer().status == 400


def test_a_body_that_is_cut_short() -> None:
    with speaking(asgi) as server, Raw(server) as raw:
        raw.send(packet("POST", "/", b"hello")[:-1])
        raw.end()
        answer = raw.answer()
        assert (answer.status, answer.body) == (400, b"the body ended early\n")


def test_what_follows_a_request_is_no_request() -> None:
    """There is one on a connection."""
    with speaking(wsgi) as server, Raw(server) as raw:
        raw.send(packet() + packet("GET", "/second"))
        assert raw.rest().count(b"HTTP/1.1 ") == 1


def test_to_head_there_is_no_body() -> None:
    with speaking(asgi) as server, Raw(server) as raw:
        raw.send(packet("HEAD"))
        head, _, body = raw.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b""


@pytest.mark.parametrize("app", [wsgi, asgi])
def test_an_upgrade_is_served_as_a_request(app: Any) -> None:
    """Nothing comes after a packet but its body."""
    upgrade = {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "upgrade"}
    answer = ask(app, packed(told("GET", "/", **upgrade)))
    assert answer.status == (501 if app is wsgi else 200)


async def breaks(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError("in the middle")


def test_half_a_response_is_not_taken_for_the_whole() -> None:
    """Its end would be that of the connection. So that is reset."""
    with speaking(breaks) as server, Raw(server) as raw:
        raw.send(packet())
        with pytest.raises(ConnectionResetError):
            raw.rest()


LOGGED_IN = packet(
    "GET", "/app/x?q=1", SCRIPT_NAME="/app", HTTPS="on", SERVER_PORT="443", REMOTE_USER="ann", CUSTOM="here"
)
"""What a framework has to make of these is the same with uWSGI."""


def test_flask() -> None:
    flask = pytest.importorskip("flask")

    def x() -> str:
        asked = flask.request
        link = flask.url_for("x", _external=True)
        custom = asked.environ["CUSTOM"]
        return f"{asked.url} {link} {asked.remote_addr} {asked.remote_user} {custom} {asked.is_secure}"

    app = flask.Flask(__name__)
    app.add_url_rule("/x", view_func=x)
    assert ask(app, LOGGED_IN).body.decode().split() == [
        "https://shop.example/app/x?q=1", "https://shop.example/app/x", "203.0.113.9", "ann", "here", "True",
    ]  # fmt: skip


def test_starlette() -> None:
    starlette = pytest.importorskip("starlette.applications")
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def x(asked: Any) -> Any:
        said = asked.scope["extensions"]["uwsgi"]
        link = asked.url_for("x")
        text = f"{asked.url} {link} {asked.client.host} {said['REMOTE_USER']} {said['CUSTOM']}"
        return PlainTextResponse(text)

    app = starlette.Starlette(routes=[Route("/x", x)])
    assert ask(app, LOGGED_IN).body.decode().split() == [
        "https://shop.example/app/x?q=1", "https://shop.example/app/x", "203.0.113.9", "ann", "here",
    ]  # fmt: skip


# The options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"https": True}, "--protocol uwsgi and HTTPS exclude each other: have the proxy end TLS"),
        ({"http2": True}, "--protocol uwsgi and --http2 exclude each other"),
        ({"ssl_certfile": __file__}, "--protocol uwsgi and HTTPS exclude each other: have the proxy end TLS"),
        ({"proxy_protocol": True}, "so leave --proxy-protocol out"),
        ({"qr": True}, "so open the proxy's URL"),
        ({"protocol": "fastcgi"}, "must be http or uwsgi"),
    ],
)
def test_options_that_contradict_it(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        devserver.Config("app", **{"protocol": "uwsgi", **options})


def test_the_url_names_the_protocol() -> None:
    with speaking(wsgi) as server:
        assert server.url.startswith("uwsgi://127.0.0.1:")


def test_the_protocol_stays_as_it_was_told(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text('[tool.devserver]\nprotocol = "uwsgi"\nlog-level = "debug"\n')
    config = resolve({}, {}, tmp_path)
    assert config.scheme == "uwsgi"
    file.write_text("[tool.devserver]\n")
    again = config.reread()
    assert (again.scheme, again.log.level) == ("uwsgi", "info")
    assert resolve({}, {"DEVSERVER_PROTOCOL": "uwsgi"}, tmp_path).scheme == "uwsgi"
