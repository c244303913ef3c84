"""What asks a WSGI application for a WebSocket, and how that is answered.

Libraries that serve WebSockets from WSGI (flask-sock, simple-websocket) take the socket away from the server,
in another way for each server, and fail with a traceback where they do not find one.
"""

from __future__ import annotations

from devserver.http.codes import NOT_IMPLEMENTED
from devserver.http.exchange import Answered, Exchange, Handler, Request

NO_WEBSOCKET = (
    "a WSGI application has no WebSockets; serve an ASGI application for them"
    " (with Flask, Quart; with Django, manage.py runserver --asgi)"
)


def asks_for_websocket(request: Request) -> bool:
    """Whether it is the handshake of a WebSocket (RFC 6455 section 4.1)."""
    return request.method == "GET" and any(
        name == b"upgrade" and value.strip().lower() == b"websocket" for name, value in request.headers
    )


def refuse(exchange: Exchange) -> Handler:
    """Answer it: 501, and why."""
    exchange.start(NOT_IMPLEMENTED, [(b"Content-Type", b"text/plain; charset=utf-8")])
    exchange.write(f"{NO_WEBSOCKET}\n".encode(), False)
    return Answered()
