"""A bare ASGI callable: HTTP, a WebSocket echo, server-sent events and a lifespan with state.

    devserver sample_apps/asgi_app.py --reload

Then open the address it prints, edit this file or asgi_page.html, and save: the server restarts and
the page connects again by itself. No framework, so the whole of the ASGI conversation stands here.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Read while the application loads, so an edit to the page restarts the server as one to this file does.
PAGE = Path(__file__).with_name("asgi_page.html").read_bytes()

TICK = 1.0  # seconds between two server-sent events


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Called once for the lifespan, and once for each request and each WebSocket."""
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    # The path includes the prefix under which a proxy or --root-path has put us.
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    match scope["type"], path:
        case "http", "/":
            await respond(send, 200, b"text/html; charset=utf-8", PAGE)
        case "http", "/echo":
            await echo_body(receive, send)
        case "http", "/events":
            await events(scope, receive, send)
        case "websocket", "/ws":
            await echo_messages(receive, send)
        case "websocket", _:
            await receive()
            await send({"type": "websocket.close"})  # before accept: the client sees 403
        case _:
            await respond(send, 404, b"text/plain", b"Not Found\n")


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Set up before the first request, clean up after the last.

    What is put into `state` here is found in `scope["state"]` of every request. Each request has a
    copy of the dictionary, though not of what is in it: hence a counter and no plain number.
    """
    await receive()  # lifespan.startup
    if "state" in scope:
        scope["state"].update(started=time.time(), listeners=itertools.count(1))
    print("lifespan: started")
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    print("lifespan: stopped")
    await send({"type": "lifespan.shutdown.complete"})


async def respond(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo_body(receive: Receive, send: Send) -> None:
    """Send the body back while it arrives: `curl -T big.iso http://localhost:8000/echo -o copy.iso`.

    At no time is more than one block in memory, since `send` waits for a client that reads slowly and
    nothing is received meanwhile.
    """
    headers = [(b"content-type", b"application/octet-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})


async def events(scope: Scope, receive: Receive, send: Send) -> None:
    """Tick until the client goes away: https://html.spec.whatwg.org/multipage/server-sent-events.html

    A stream without an end has to listen for `http.disconnect`, or it would tick on for nobody. The
    server also sends it when it is about to restart, and a stream that heeds it never delays that.
    """
    listener = next(scope.get("state", {}).get("listeners", itertools.count(1)))
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    gone = asyncio.create_task(disconnected(receive))
    try:
        for tick in itertools.count():
            data = f"data: tick {tick} for listener {listener}\n\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
            done, _ = await asyncio.wait({gone}, timeout=TICK)
            if done:
                return
    finally:
        gone.cancel()


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # the request's body, which is empty


async def echo_messages(receive: Receive, send: Send) -> None:
    """Return each WebSocket message as it came, text as text and bytes as bytes."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
