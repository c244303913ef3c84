"""The error page: which form a client gets, who sees source, and what it says. No server is needed."""

from __future__ import annotations

import json

import pytest

from devserver.devtools.error_page import HINTS, Failure, accepted, render, without_source
from devserver.http.exchange import Request
from tests.strangers import request

SECRET = "# a secret"
TRACE = f"""Traceback (most recent call last):
  File "/shop/app.py", line 1, in <module>
    import answer
  File "/shop/answer.py", line 1, in <module>
    raise RuntimeError('out of <cheese>')  {SECRET}
    ~~~~~^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
RuntimeError: out of <cheese>"""
ERROR = "RuntimeError: out of <cheese>"
FAILURE = Failure("load", ERROR, TRACE)


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
    _, _, body = render(FAILURE, request(host=host, accept=accept), style, "m1")
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
    status, headers, _ = render(FAILURE, request(accept=accept), "full", "m1")
    assert status == 500
    given = dict(headers)
    assert (given.pop(b"Content-Security-Policy", None) is not None) is (accept == "text/html")
    assert given == {
        b"Content-Type": media,
        b"Cache-Control": b"no-store",
        b"X-Content-Type-Options": b"nosniff",
    }


def test_html_is_escaped() -> None:
    _, _, body = render(FAILURE, request(accept="text/html"), "full", "m1")
    assert body.startswith(b"<!doctype html>")
    assert b"out of &lt;cheese&gt;" in body
    assert b"<cheese>" not in body


def test_json_has_fields() -> None:
    _, _, body = render(FAILURE, request(accept="application/json"), "full", "m1")
    assert json.loads(body) == {"error": ERROR, "phase": "load", "traceback": TRACE.splitlines()}


@pytest.mark.parametrize("phase", HINTS)
def test_text_ends_with_what_to_do(phase: str) -> None:
    _, _, body = render(Failure(phase, "it failed", ""), request(), "full", "m1")
    assert body.decode() == f"it failed\n\n{HINTS[phase]} Then repeat the request.\n"


def test_while_it_loads_the_client_is_told_to_come_again() -> None:
    status, headers, _ = render(Failure("loading", "still loading", ""), request(), "full", "m1")
    assert status == 503
    assert dict(headers)[b"Retry-After"] == b"1"


def test_what_utf_8_cannot_say_is_escaped() -> None:
    _, _, body = render(Failure("load", "a name \udcff", ""), request(), "full", "m1")
    assert body.startswith(b"a name \\udcff\n")


@pytest.mark.parametrize(
    ("asked", "asks"),
    [
        (request(accept="text/html"), True),
        (request(accept="text/html", method="POST"), False),  # it would be posted again
        (request(accept="text/html", host="evil.example"), False),  # the endpoint would refuse it
        (request(accept="text/html", header="x-forwarded-for"), False),
        (request(accept="application/json"), False),
        (request(), False),
    ],
)
def test_a_page_asks_again_by_itself(asked: Request, asks: bool) -> None:
    _, _, body = render(FAILURE, asked, "full", "m1")
    assert (b'data-wait="/__devserver__/failure?m1"' in body) is asks
    assert (b"EventSource" in body) is asks
    assert (b"reloads by itself" in body) is asks


def test_no_script_of_a_message_runs() -> None:
    """Twice: what is written is escaped, and the page's policy names the only script by a word of its own."""
    failure = Failure("load", "E: </script><script>alert(1)</script>\u2028\u202e", "")
    _, headers, body = render(failure, request(accept="text/html"), "full", "m1")
    assert b"<script>" not in body
    policy = dict(headers)[b"Content-Security-Policy"].decode()
    assert policy.startswith("default-src 'none'; ")
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert len(nonce) >= 16
    assert body.count(f'<script nonce="{nonce}">'.encode()) == body.count(b"<script") == 1
    _, headers, _ = render(failure, request(accept="text/html"), "full", "m1")
    assert nonce not in dict(headers)[b"Content-Security-Policy"].decode()
