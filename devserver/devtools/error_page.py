"""The error page: why there is no answer, as HTML, text or JSON.

Shown for a start that failed, a process that died, a load that takes long, and an exception that
the application let through; only while reloading, never in a plain run. A traceback shows source
and file names, so it goes only to who sits at this machine (`trust`).

In a browser the page comes back by itself: it waits at an endpoint (`endpoints`) until what it shows is
over, and then asks again for what was asked. It waits only while it is seen, since browsers open six
connections to a server at most. A page that was posted to stays, because asking again would post again.
"""

from __future__ import annotations

import html
import json
import os
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from devserver.console import is_library, summarise
from devserver.devtools.trust import trusted
from devserver.folding import fold, last_of_users
from devserver.http.codes import INTERNAL_ERROR, SERVICE_UNAVAILABLE
from devserver.http.exchange import Answered, Exchange, Handler, Headers, Request, Session

_dumps, _urandom = json.dumps, os.urandom  # an application may replace them

PAGE = """<!doctype html>
<html lang="en"{data}><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style nonce="{nonce}">
 body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
         color: #222; background: #fff }}
 h1 {{ font-size: 1.3rem; overflow-wrap: anywhere; white-space: pre-wrap }}
 h2 {{ font-size: 1rem; overflow-wrap: anywhere }} summary {{ color: #666; cursor: pointer }}
 pre {{ font: 13px/1.5 ui-monospace, monospace; background: #f5f5f5; padding: 1rem; overflow: auto }}
 p {{ color: #666 }}
 @media (prefers-color-scheme: dark) {{
   body {{ color: #ddd; background: #1b1b1b }} pre {{ background: #262626 }} p {{ color: #999 }} }}
</style></head>
<body><h1>{title}</h1>{trace}<p>{hint}</p>{script}</body></html>
"""

WAIT = b"/__devserver__/failure"
"""The endpoint that says when what a page shows is over."""

SCRIPT = """<script nonce="{nonce}">
const wait = document.documentElement.dataset.wait;
let source, pause = 0, vain = true;
try {{
  vain = sessionStorage.devserver === wait;
  sessionStorage.removeItem("devserver");
}} catch {{ }}
function again() {{ location.reload(); }}
function refused() {{ sessionStorage.devserver = wait; again(); }}
function listen() {{
  source?.close();
  if (document.hidden || vain) return;
  source = new EventSource(wait);
  source.onopen = () => {{ pause = 0; }};
  source.addEventListener("over", again);
  source.onerror = () => {{
    if (source.readyState === EventSource.CLOSED) setTimeout(refused, Math.max(0, 1000 - performance.now()));
    else {{ source.close(); setTimeout(listen, pause); pause = 1000; }}
  }};
}}
document.addEventListener("visibilitychange", listen);
listen();
</script>"""
"""Waits at `WAIT`. A stream that breaks is begun again, at once and then each second: the process at its
other end may have been replaced, or the server stopped, which leaves the page as it is. An answer that is
no stream says that the failure is over, or that nobody knows of it any more. Then the page is asked for
again, but in its first second not yet. If the same page comes, something between refuses what it waits for, a
proxy or a sandbox, and it waits no more: nothing may go round and round."""

HINTS = {
    "load": "Fix the code and save.",
    "lifespan": "The lifespan's startup failed. Fix the code and save.",
    "crash": "Save a file, or press r and Enter in the terminal, to start it again.",
    "request": "Your application raised this while it handled the request. Fix the code and save.",
    "loading": "The application is still loading. Wait until it is done.",
    "starting": "The application is still starting up. Wait until it is done.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What the page says.

    Attributes:
        phase: where it failed, a key of `HINTS`.
        error: one line; one of ours may have suggestions below it.
        traceback: as Python prints it; "" for none.
        moments: words by which pages wait, see `endpoints.Endpoints`; the last is this one's.
    """

    phase: str
    error: str
    traceback: str
    moments: Sequence[str] = ()

    @property
    def status(self) -> int:
        """Of the response."""
        return SERVICE_UNAVAILABLE if self.phase in ("loading", "starting") else INTERNAL_ERROR


ASKS = "This page then reloads by itself."
ASK = "Then repeat the request."


def render(failure: Failure, request: Request, style: str, moment: str) -> tuple[int, Headers, bytes]:
    """The response that tells of a failure.

    Args:
        moment: what a page waits for the end of, see `endpoints.Endpoints`.
        style: "full" shows the traceback with source lines to trusted clients, "short" only the error.
    """
    trace = failure.traceback
    near = trusted(request)
    if style == "short" or not near:
        trace = without_source(trace)
    kind = accepted(request)
    hint = HINTS.get(failure.phase, HINTS["load"])
    returns = kind == "html" and near and request.method == "GET"  # others may not wait at the endpoint
    hint += f" {ASKS if returns else ASK}"
    policy: Headers = []
    if kind == "json":
        fields: dict[str, Any] = {
            "error": failure.error,
            "phase": failure.phase,
            "traceback": trace.splitlines(),
        }
        body = _dumps(fields, indent=1) + "\n"
    elif kind == "html":
        nonce = _urandom(12).hex()
        policy = [(b"Content-Security-Policy", POLICY.format(nonce=nonce).encode())]
        body = PAGE.format(
            title=html.escape(failure.error),
            trace=_as_html(trace) if trace else "",
            hint=hint,
            nonce=nonce,
            data=f' data-wait="{WAIT.decode()}?{moment}"' if returns else "",
            script=SCRIPT.format(nonce=nonce) if returns else "",
        )
    else:
        shown = fold(trace, is_library).rstrip()
        body = "\n\n".join(part for part in (failure.error, shown, hint) if part) + "\n"
    media = {"json": b"application/json", "html": b"text/html; charset=utf-8"}.get(
        kind, b"text/plain; charset=utf-8"
    )
    headers = [
        (b"Content-Type", media),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),
        *policy,
    ]
    if failure.status == SERVICE_UNAVAILABLE:
        headers.append((b"Retry-After", b"1"))
    return failure.status, headers, body.encode("utf-8", "backslashreplace")


POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""What a page may do (CSP level 3): whatever a message of the application holds, no script of it runs."""


def _as_html(trace: str) -> str:
    """The user's last frame, the traceback with libraries folded, and the whole of it where that is more."""
    last, short = last_of_users(trace, is_library), fold(trace, is_library)
    shown = f"<pre>{html.escape(short)}</pre>"
    if last is not None:
        where = f"{last.path}, line {last.line}" + (f", in {last.name}" if last.name else "")
        source = textwrap.dedent("\n".join(line[len(last.indent) :] for line in last.lines[1:]))
        code = f"<pre>{html.escape(source)}</pre>" if source else ""
        shown = f"<h2>{html.escape(where)}</h2>{code}{shown}"
    if short != trace:
        shown += f"<details><summary>all frames</summary><pre>{html.escape(trace)}</pre></details>"
    return shown


_FRAME = re.compile(r'^ *[|+ -]*File "')


def without_source(trace: str) -> str:
    """A traceback's frames and messages, without the lines of source."""
    kept, in_frame = [], False
    for line in trace.splitlines():
        if _FRAME.match(line):
            in_frame = True
            kept.append(line)
        elif not (in_frame and line.startswith("    ")):
            in_frame = False
            kept.append(line)
    return "\n".join(kept)


def accepted(request: Request) -> str:
    """Which of "html", "json" and "text" the client would rather have (RFC 9110 section 12.5.1)."""
    accept = ",".join(value.decode("latin-1") for name, value in request.headers if name == b"accept")
    best, kind = 0.0, "text"
    for item in accept.lower().split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        quality = next((_quality(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        found = {"text/html": "html", "application/xhtml+xml": "html", "text/plain": "text"}.get(media)
        if media == "application/json" or media.endswith("+json"):
            found = "json"
        if found is not None and quality > best:
            best, kind = quality, found
    return kind


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def for_exceptions(
    style: str, moment: str, describe: Callable[[BaseException], str]
) -> Callable[[Request, BaseException], tuple[int, Headers, bytes]]:
    """What a gateway calls for an exception that the application let through.

    Args:
        style, moment: see `render`.
        describe: makes a traceback's text.
    """

    def on_error(request: Request, error: BaseException) -> tuple[int, Headers, bytes]:
        summary, trace = summarise(error), describe(error)
        trace = (
            "" if trace.strip() == summary else trace
        )  # as for an error of ours without a line of the user's
        return render(Failure("request", summary, trace), request, style, moment)

    return on_error


class PageGateway:
    """Answers every request with a failure: the only thing that a page child serves, but for endpoints.

    Attributes:
        failure: what is shown; may be replaced while serving.
    """

    websockets = False

    def __init__(self, failure: Failure, style: str) -> None:
        """Args: style: see `render`."""
        self.failure = failure
        self.running: set[Handler] = set()
        self._style = style
        self._handler = Answered()

    def exchange(self, exchange: Exchange) -> Handler:
        failure = self.failure
        status, headers, body = render(failure, exchange.request, self._style, failure.moments[-1])
        exchange.start(status, headers)
        exchange.write(body, False)
        return self._handler

    def session(self, session: Session) -> Handler:
        raise AssertionError("upgrades are served as plain requests")

    def close(self) -> None:
        """There is nothing to let go of."""
