"""The error page: why there is no answer, as HTML, text or JSON.

Shown for a start that failed, a process that died, a load that takes long, and an exception that
the application let through; only while reloading, never in a plain run. A traceback shows source
and file names, so it goes only to who sits at this machine: a loopback address (or, inside a
container, its default gateway, which is how the host's browser comes in), asking for `localhost`
or an address and not for a name, which a foreign page could have pointed here (DNS rebinding).
A proxy or a tunnel on this machine has a loopback address as well, and may rewrite the name. Almost
all of them add a header that says for whom they ask: a request with one of these is a stranger's.
"""

from __future__ import annotations

import html
import ipaddress
import json
import os
import re
import socket
import struct
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from devserver.console import is_library, summarise
from devserver.folding import fold, last_of_users
from devserver.http.exchange import Exchange, Handler, Headers, Request, Session

_open, _exists, _dumps = open, os.path.exists, json.dumps  # an application may replace them

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
         color: #222; background: #fff }}
 h1 {{ font-size: 1.3rem; overflow-wrap: anywhere; white-space: pre-wrap }}
 h2 {{ font-size: 1rem; overflow-wrap: anywhere }} summary {{ color: #666; cursor: pointer }}
 pre {{ font: 13px/1.5 ui-monospace, monospace; background: #f5f5f5; padding: 1rem; overflow: auto }}
 p {{ color: #666 }}
 @media (prefers-color-scheme: dark) {{
   body {{ color: #ddd; background: #1b1b1b }} pre {{ background: #262626 }} p {{ color: #999 }} }}
</style></head>
<body><h1>{title}</h1>{trace}<p>{hint}</p></body></html>
"""

HINTS = {
    "load": "Save a file that mends it, and ask again.",
    "lifespan": "The lifespan's startup failed. Save a file that mends it, and ask again.",
    "crash": "Save a file, or press r and Enter in the terminal, to start it again.",
    "request": "The application raised this while it answered.",
    "loading": "The application is still loading. Ask again in a moment.",
    "starting": "The application is still starting up. Ask again in a moment.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What the page says.

    Attributes:
        status: of the response.
        phase: where it failed, a key of `HINTS`.
        error: one line; one of ours may have suggestions below it.
        traceback: as Python prints it; "" for none.
    """

    status: int
    phase: str
    error: str
    traceback: str


def render(failure: Failure, request: Request, style: str) -> tuple[int, Headers, bytes]:
    """The response that tells of a failure.

    Args:
        style: "full" shows the traceback with source lines to trusted clients, "short" only the error.
    """
    trace = failure.traceback
    if style == "short" or not trusted(request):
        trace = without_source(trace)
    kind = accepted(request)
    hint = HINTS.get(failure.phase, HINTS["load"])
    if kind == "json":
        fields: dict[str, Any] = {
            "error": failure.error,
            "phase": failure.phase,
            "traceback": trace.splitlines(),
        }
        body = _dumps(fields, indent=1) + "\n"
    elif kind == "html":
        shown = _as_html(trace) if trace else ""
        body = PAGE.format(title=html.escape(failure.error), trace=shown, hint=hint)
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
    ]
    if failure.status == 503:
        headers.append((b"Retry-After", b"1"))
    return failure.status, headers, body.encode("utf-8", "backslashreplace")


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


_OF_PROXIES = re.compile(
    rb"forwarded|via|x-forwarded(-.*)?|x-real-ip|x-original-.*|(true-|fly-|x-|x-cluster-)?client-ip|cdn-loop"
    rb"|cf-.*|x-envoy-external-address|x-arr-.*|x-proxyuser-ip"
)
"""Names of headers by which proxies, tunnels and content networks say for whom they ask."""


def trusted(request: Request) -> bool:
    """Whether the client may see source: who it is, and which name it asked for, without anybody between."""
    if any(_OF_PROXIES.fullmatch(name) for name, _ in request.headers):
        return False
    client = request.peer.client
    host = next((value.decode("latin-1") for name, value in request.headers if name == b"host"), "")
    if client is None or client[1] is None:
        return True  # a Unix socket, which has its own permissions
    try:
        address = ipaddress.ip_address(client[0].partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    near = (mapped or address).is_loopback or str(address) == _container_gateway()
    return near and _is_plain_host(host)


def _is_plain_host(host: str) -> bool:
    """`localhost`, below it, or an address; never a name that a foreign DNS can answer for."""
    name = re.sub(r":\d*$", "", host).strip("[]").rstrip(".").lower()
    if not name or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _container_gateway() -> str | None:
    """The default gateway's address inside a container; None elsewhere."""
    if not (_exists("/.dockerenv") or _exists("/run/.containerenv")):
        return None
    try:
        with _open("/proc/net/route") as table:
            for line in table:
                fields = line.split()
                if fields[1] == "00000000" and fields[7] == "00000000":
                    return socket.inet_ntoa(struct.pack("<I", int(fields[2], 16)))
    except (OSError, IndexError, ValueError):
        pass
    return None


def for_exceptions(
    style: str, describe: Callable[[BaseException], str]
) -> Callable[[Request, BaseException], tuple[int, Headers, bytes]]:
    """What a gateway calls for an exception that the application let through.

    Args:
        style: see `render`.
        describe: makes a traceback's text.
    """

    def on_error(request: Request, error: BaseException) -> tuple[int, Headers, bytes]:
        summary, trace = summarise(error), describe(error)
        trace = (
            "" if trace.strip() == summary else trace
        )  # as for an error of ours without a line of the user's
        return render(Failure(500, "request", summary, trace), request, style)

    return on_error


class _Answered:
    """The handler of an exchange that was answered when it began."""

    def wake(self) -> None:
        """Nothing waits."""

    def cancel(self) -> None:
        """Nothing runs."""


class PageGateway:
    """Answers every request with a failure: the only thing that a page child serves.

    Attributes:
        failure: what is shown; may be replaced while serving.
    """

    websockets = False

    def __init__(self, failure: Failure, style: str) -> None:
        """Args: style: see `render`."""
        self.failure = failure
        self.running: set[Handler] = set()
        self._style = style
        self._handler = _Answered()

    def exchange(self, exchange: Exchange) -> Handler:
        status, headers, body = render(self.failure, exchange.request, self._style)
        exchange.start(status, headers)
        exchange.write(body, False)
        return self._handler

    def session(self, session: Session) -> Handler:
        raise AssertionError("upgrades are served as plain requests")

    def close(self) -> None:
        """There is nothing to let go of."""
