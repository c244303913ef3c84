"""Small projects for the live tests, one for each kind of application.

Each imports `answer`, and says at / what its TEXT is. So one save, and one way to break it, is the
same for all of them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.once import once
from tests.patience import DEADLINE

SAMPLES = Path(__file__).parents[2] / "sample_apps"

ASGI = """
import answer

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        answer.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        answer.ask()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer.TEXT.encode()})
    else:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"{answer.TEXT}: {message['text']}"})
"""

WSGI = """
import answer

def application(environ, start_response):
    answer.ask()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.TEXT.encode()]
"""

FLASK = """
from flask import Flask

import answer

app = Flask(__name__)

@app.get("/")
def index():
    answer.ask()
    return answer.TEXT
"""

FASTAPI = """
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket

import answer

@asynccontextmanager
async def lifespan(app):
    answer.start()
    yield

app = FastAPI(lifespan=lifespan)

@app.get("/")
async def index():
    answer.ask()
    return {"text": answer.TEXT}

@app.websocket("/ws")
async def echo(socket: WebSocket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"{answer.TEXT}: {text}")
"""


INTERRUPTS_ITSELF = (
    "import signal, threading; thread = threading.Timer(0.3, lambda: "
    "signal.pthread_kill(threading.get_ident(), signal.SIGINT)); thread.start()"
)
"""A statement of a request, soon after which the process gets a SIGINT in another thread than the main."""


def answer(text: str, start: str = "pass", ask: str = "pass") -> str:
    """The source of `answer.py`.

    Args:
        text: what the application says.
        start: a statement for the lifespan's startup.
        ask: a statement for each request.
    """
    return f"TEXT = {text!r}\n\ndef start():\n    {start}\n\ndef ask():\n    {ask}\n"


@dataclass(frozen=True)
class Project:
    """A kind of application.

    Attributes:
        target: for the command line.
        module: the file that holds the application.
        source: of that file; "" for Django, which is the sample project.
        lifespan: whether it has one of its own.
    """

    target: str
    module: str
    source: str
    lifespan: bool = False

    def make(self, folder: Path, text: str = "one") -> Path:
        """Write it into a folder. Returns the path of its `answer.py`."""
        if self.source:
            (folder / self.module).write_text(self.source)
        else:
            make_django(folder)
        path = folder / "answer.py"
        path.write_text(answer(text))
        return path


def make_django(folder: Path) -> None:
    """The sample project, migrated; its heading is the answer, and its model imports `answer`."""
    ignored = shutil.ignore_patterns("__pycache__", "db.sqlite3")
    shutil.copytree(SAMPLES / "django_site", folder, dirs_exist_ok=True, ignore=ignored)
    (folder / "db.sqlite3").write_bytes(migrated())
    for name, old, new in (
        ("guestbook/models.py", "from django", "import answer\nfrom django"),
        ("guestbook/views.py", "from guestbook", "import answer\nfrom guestbook"),
        ("guestbook/views.py", '"form": form,', '"form": form, "answer": (answer.ask(), answer.TEXT)[1],'),
        ("guestbook/templates/guestbook/index.html", "<h1>Guest book</h1>", "<h1>{{ answer }}</h1>"),
    ):
        path = folder / name
        text = path.read_text()
        assert old in text, f"{name} of the sample has changed: {old!r} is not there"
        path.write_text(text.replace(old, new, 1))


def migrated() -> bytes:
    """The sample's database as `manage.py migrate` makes it."""
    return (once("migrated", _migrate) / "db.sqlite3").read_bytes()


def _migrate(folder: Path) -> None:
    shutil.copytree(SAMPLES / "django_site", folder, dirs_exist_ok=True)
    (folder / "db.sqlite3").unlink(missing_ok=True)
    command = [sys.executable, "manage.py", "migrate", "-v0"]
    subprocess.run(command, cwd=folder, check=True, timeout=DEADLINE, stdin=subprocess.DEVNULL)


PROJECTS = {
    "asgi": Project("app:app", "app.py", ASGI, lifespan=True),
    "wsgi": Project("app:application", "app.py", WSGI),
    "flask": Project("app:app", "app.py", FLASK),
    "fastapi": Project("app:app", "app.py", FASTAPI, lifespan=True),
    "django": Project("mysite.wsgi", "mysite/wsgi.py", ""),
    "django-asgi": Project("mysite.asgi", "mysite/asgi.py", ""),
}
