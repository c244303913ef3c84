"""A FastAPI application: a chat room over WebSockets.

    devserver sample_apps/fastapi_chat/main.py --reload

Open it in two windows. A save closes the WebSockets with 1012 (service restart); the page connects
again under the same name.
"""

import itertools
from pathlib import Path

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse

app = FastAPI(title="Chat")


class Room:
    """Who is here, and how something is said to all of them."""

    def __init__(self) -> None:
        self.members: dict[str, WebSocket] = {}

    def enter(self, wish: str, socket: WebSocket) -> str:
        """Take the wished name, or the first free one like it; return it."""
        wish = wish.strip()[:30] or "guest"
        numbered = (f"{wish} {number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([wish], numbered) if name not in self.members)
        self.members[name] = socket
        return name

    def leave(self, name: str) -> None:
        self.members.pop(name, None)

    async def say(self, text: str, sender: str | None = None) -> None:
        """Send to everybody; `sender` is None when the room itself speaks.

        Iterates over a copy: while one send waits, others come and go. A member whose connection has
        just broken raises here, but it is the one who speaks whose code is running; so the room lets
        it pass, and the member's own `chat` notices and leaves.
        """
        for socket in list(self.members.values()):
            try:
                await socket.send_json({"from": sender, "text": text, "here": sorted(self.members)})
            except (WebSocketDisconnect, RuntimeError):
                pass


room = Room()


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("chat.html"))


@app.get("/here")
async def here() -> list[str]:
    """The names of those in the room. See /docs for what FastAPI makes of it."""
    return sorted(room.members)


@app.websocket("/chat")
async def chat(socket: WebSocket, name: str = "guest") -> None:
    await socket.accept()
    name = room.enter(name, socket)
    try:
        await room.say(f"{name} came in")
        async for text in socket.iter_text():  # ends when the client disconnects
            await room.say(text, sender=name)
    finally:
        # Whatever ended it: a name that is not given back would stay in the room for ever.
        room.leave(name)
        await room.say(f"{name} left")
