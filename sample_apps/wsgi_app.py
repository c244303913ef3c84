"""A bare WSGI callable (PEP 3333): a form that echoes what is posted, and a streamed response.

    devserver sample_apps/wsgi_app.py --reload

No framework, so every rule that a WSGI application has to keep stands in this file.
"""

import html
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

StartResponse = Callable[[str, list[tuple[str, str]]], Any]

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>A bare WSGI application</title>
<h1>A bare WSGI application</h1>
<form method="post">
  <input name="text" placeholder="Say something" autofocus>
  <button>Send</button>
</form>
{echo}
<p><a href="count">A response that arrives line by line</a></p>
"""


def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Choose the view by method and path, the two things a request line says."""
    match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
        case "GET" | "HEAD", "/" | "":
            return page(start_response, echo="")
        case "POST", "/" | "":
            return page(start_response, echo=echo(read_form(environ)))
        case "GET" | "HEAD", "/count":
            return count(environ, start_response)
        case _, "/" | "" | "/count":
            return plain(start_response, "405 Method Not Allowed")
        case _:
            return plain(start_response, "404 Not Found")


def read_form(environ: dict[str, Any]) -> dict[str, list[str]]:
    """Return the posted fields.

    Never read past CONTENT_LENGTH: PEP 3333 lets a server block there, since the connection stays
    open for the next request. A body sent in chunks has no length, and only a server that marks the
    input as terminated has an end to read to.
    """
    source = environ["wsgi.input"]
    if environ.get("CONTENT_LENGTH"):
        body = source.read(int(environ["CONTENT_LENGTH"]))
    elif environ.get("wsgi.input_terminated"):
        body = source.read(-1)
    else:
        body = b""
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)


def echo(form: dict[str, list[str]]) -> str:
    # What came from outside is escaped before it goes into a page.
    rows = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, values in form.items()
        for value in values
    )
    return f"<dl>{rows}</dl>" if rows else "<p>Nothing was posted.</p>"


def page(start_response: StartResponse, echo: str) -> list[bytes]:
    body = PAGE.format(echo=echo).encode()
    start_response(
        "200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))]
    )
    return [body]


def plain(start_response: StartResponse, status: str) -> list[bytes]:
    body = f"{status}\n".encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def count(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
    """Stream a line every `pause` seconds, `to` lines in all: /count?to=10&pause=0.5

    The length is not known beforehand, so no Content-Length is given and the server frames the body.
    Each yielded block has to be on its way before the next is asked for: watch it with `curl -N`.
    """
    query = parse_qs(environ.get("QUERY_STRING", ""))
    try:
        to, pause = int(query.get("to", ["10"])[0]), float(query.get("pause", ["0.5"])[0])
    except ValueError:
        return iter(plain(start_response, "400 Bad Request"))
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return lines(to, pause)


def lines(to: int, pause: float) -> Iterator[bytes]:
    try:
        for number in range(1, to + 1):
            yield f"{number}\n".encode()
            time.sleep(pause)
    finally:
        # The server calls close() on what we returned, also when the browser has gone away in the
        # middle: for a generator that means the rest is skipped and this line is run.
        print("count: closed")
