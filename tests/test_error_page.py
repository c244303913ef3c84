"""The error page: which form a client gets, who sees source, and what it says. No server is needed."""

from __future__ import annotations

import json

import pytest

from devserver.devtools import error_page
from devserver.devtools.error_page import HINTS, Failure, accepted, render, trusted, without_source
from devserver.http.exchange import Address, Peer, Request

SECRET = "# a secret"
TRACE = f"""Traceback (most recent call last):
  File "/shop/app.py", line 1, in <module>
    import answer
  File "/shop/answer.py", line 1, in <module>
    raise RuntimeError('out of <cheese>')  {SECRET}
    ~~~~~^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
RuntimeError: out of <cheese>"""
ERROR = "RuntimeError: out of <cheese>"
FAILURE = Failure(500, "load", ERROR, TRACE)

LOCAL: Address = ("127.0.0.1", 50000)


def request(
    client: Address | None = LOCAL,
    *,
    host: str | None = "localhost",
    accept: str | None = None,
    header: str | None = None,
) -> Request:
    """Args: header: the name of one more header, in lower case as parsers give it."""
    headers = [(b"host", host.encode())] if host is not None else []
    headers += [(header.encode(), b"203.0.113.9")] if header is not None else []
    headers += [(b"accept", value.encode()) for value in ([accept] if accept is not None else [])]
    return Request("GET", b"/", b"/", b"", "1.1", headers, Peer(client=client))


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html"),
        ("application/xhtml+xml", "html"),
        ("TEXT/HTML", "html"),
        ("application/json", "json"),
        ("application/problem+json", "json"),
        ("application/json, text/html;q=0.9", "json"),
        ("text/html;q=0.5, application/json;q=0.6", "json"),
        ("text/html ; level=1 ; q=0.5, text/plain", "text"),
        ("text/html;q=0", "text"),
        ("text/html;q=often", "text"),
        ("text/plain", "text"),
        ("*/*", "text"),
        ("image/png", "text"),
        (",;,", "text"),
        ("", "text"),
        (None, "text"),
    ],
)
def test_form_follows_what_the_client_accepts(accept: str | None, kind: str) -> None:
    assert accepted(request(accept=accept)) == kind


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST:8000", "localhost.", "shop.localhost", "127.0.0.1:1", "[::1]:8000",
        "10.1.2.3", "", None,
    ],
)  # fmt: skip
def test_this_machine_is_trusted(host: str | None) -> None:
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert trusted(request((address, 50000), host=host))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "a b"]
)
def test_a_name_that_others_control_is_not_trusted(host: str) -> None:
    assert not trusted(request(host=host))


@pytest.mark.parametrize(
    "address", ["192.168.1.2", "10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1", "nonsense"]
)
def test_another_machine_is_not_trusted(address: str) -> None:
    assert not trusted(request((address, 50000)))


@pytest.mark.parametrize("client", [("/run/app.sock", None), None])
def test_a_unix_socket_has_permissions_of_its_own(client: Address | None) -> None:
    assert trusted(request(client, host="evil.example"))


@pytest.mark.parametrize("client", [LOCAL, ("/run/app.sock", None), None])
@pytest.mark.parametrize(
    "header",
    [
        "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix",
        "x-real-ip", "via", "cf-connecting-ip", "cf-ray", "x-original-host", "x-original-url",
        "true-client-ip", "fly-client-ip", "x-client-ip", "cdn-loop",
    ],
)  # fmt: skip
def test_whom_a_proxy_asks_for_is_not_trusted(header: str, client: Address | None) -> None:
    """It has this machine's address, and may have rewritten the host."""
    assert not trusted(request(client, header=header))


@pytest.mark.parametrize("header", ["accept-via", "x-forward", "x-requested-with", "client", "x-viable"])
def test_other_headers_change_nothing(header: str) -> None:
    assert trusted(request(header=header))


def test_the_gateway_of_a_container_is_the_machine_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_page, "_container_gateway", lambda: "172.17.0.1")
    assert trusted(request(("172.17.0.1", 50000)))
    assert not trusted(request(("172.17.0.2", 50000)))
    assert not trusted(request(("172.17.0.1", 50000), host="evil.example"))


def test_frames_and_messages_stay_without_source() -> None:
    assert without_source(TRACE) == "\n".join(
        line for line in TRACE.splitlines() if not line.startswith("    ")
    )
    assert without_source("") == ""


@pytest.mark.parametrize("accept", ["text/html", "application/json", "text/plain"])
@pytest.mark.parametrize(
    ("host", "style", "shown"),
    [("localhost", "full", True), ("localhost", "short", False), ("evil.example", "full", False)],
)
def test_source_is_for_this_machine_in_every_form(accept: str, host: str, style: str, shown: bool) -> None:
    _, _, body = render(FAILURE, request(host=host, accept=accept), style)
    assert (SECRET.encode() in body) is shown
    assert b"RuntimeError" in body
    assert b"answer.py" in body


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("text/html", b"text/html; charset=utf-8"),
        ("application/json", b"application/json"),
        ("text/plain", b"text/plain; charset=utf-8"),
    ],
)
def test_every_form_says_what_it_is_and_is_not_kept(accept: str, media: bytes) -> None:
    status, headers, _ = render(FAILURE, request(accept=accept), "full")
    assert status == 500
    assert dict(headers) == {
        b"Content-Type": media,
        b"Cache-Control": b"no-store",
        b"X-Content-Type-Options": b"nosniff",
    }


def test_html_is_escaped() -> None:
    _, _, body = render(FAILURE, request(accept="text/html"), "full")
    assert body.startswith(b"<!doctype html>")
    assert b"out of &lt;cheese&gt;" in body
    assert b"<cheese>" not in body


def test_json_has_fields() -> None:
    _, _, body = render(FAILURE, request(accept="application/json"), "full")
    assert json.loads(body) == {"error": ERROR, "phase": "load", "traceback": TRACE.splitlines()}


@pytest.mark.parametrize("phase", HINTS)
def test_text_ends_with_what_to_do(phase: str) -> None:
    _, _, body = render(Failure(500, phase, "it failed", ""), request(), "full")
    assert body.decode() == f"it failed\n\n{HINTS[phase]}\n"


def test_while_it_loads_the_client_is_told_to_come_again() -> None:
    status, headers, _ = render(Failure(503, "loading", "still loading", ""), request(), "full")
    assert status == 503
    assert dict(headers)[b"Retry-After"] == b"1"


def test_what_utf_8_cannot_say_is_escaped() -> None:
    _, _, body = render(Failure(500, "load", "a name \udcff", ""), request(), "full")
    assert body.startswith(b"a name \\udcff\n")
