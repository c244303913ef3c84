"""The words of ASGI (3.0, HTTP & WebSocket spec 2.5) that its gateway and its sessions share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from devserver.http.exchange import Handler, Headers, Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
OnError = Callable[[Request, BaseException], tuple[int, Headers, bytes]]
"""Makes the response for an exception that the application did not answer itself."""

VERSION = {"version": "3.0", "spec_version": "2.5"}


class ClientDisconnected(OSError):
    """Raised by `send` when nobody reads the response any more (ASGI HTTP spec 2.4)."""


class Gateway(Protocol):
    """What a session must know of the gateway that has begun it; see `devserver.gateway.asgi.AsgiGateway`."""

    application: Application
    root_path: str
    state: dict[str, Any]
    on_error: OnError
    version: dict[str, str]
    running: set[Handler]

    def place(self, request: Request) -> tuple[str, str]:
        """`root_path` and `path` of a scope."""
        ...
