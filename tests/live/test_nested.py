"""Other servers with a reloader of their own, started by the application that is served.

They look at the environment to know whether they are what reloads or what is reloaded. What they
inherit from us must not fool them: each serves, and restarts when its own files change. Our own
server is treated alike in `test_launch`.
"""

from __future__ import annotations

import os
import select
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.process import DevServer, gone, save
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

OUTER = """
import subprocess, sys

def start():
    with open({output!r}, "wb") as output:
        return subprocess.Popen({command!r}, cwd={folder!r}, stdout=output, stderr=output).pid

{at_load}

def app(environ, start_response):
    start_response("200 OK", [])
    return [str(nested or start()).encode()]
"""

WHEN = {"while loading": "nested = start()", "in a request": "nested = 0"}

FLASK = """
from flask import Flask

app = Flask(__name__)

@app.get("/")
def index():
    return {text!r}
"""

DJANGO = """
import os, sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path

def index(request):
    return HttpResponse({text!r})

urlpatterns = [path("", index)]
settings.configure(DEBUG=True, ROOT_URLCONF="__main__", SECRET_KEY="x", ALLOWED_HOSTS=["*"])

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""


@dataclass(frozen=True)
class Nested:
    """A server.

    Attributes:
        file: that it reloads.
        source: of the file, with a place for what it answers.
        arguments: after the interpreter, with a place for the port.
        reloads: what it says when it watches.
    """

    file: str
    source: str
    arguments: str
    reloads: str


SERVERS = {
    "flask": Nested("app.py", FLASK, "-m flask run --debug --port {port}", "Debugger is active!"),
    "django": Nested("manage.py", DJANGO, "manage.py runserver 127.0.0.1:{port}", "Quit the server with"),
}


@pytest.fixture
def port() -> Iterator[int]:
    """One that is ours, on which others may listen, too."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


class Output:
    """What is written into a named pipe."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        # For writing too, so that opening waits for nobody and there is no end of file.
        self._fd = os.open(path, os.O_RDWR)
        self._text = ""

    def reads(self, text: str, deadline: float = DEADLINE) -> bool:
        """Wait until a text was written, after the one waited for before; whether it was."""
        end = time.monotonic() + deadline
        while text not in self._text:
            if not select.select([self._fd], [], [], max(0.0, end - time.monotonic()))[0]:
                return False
            self._text += os.read(self._fd, 65536).decode()
        self._text = self._text.partition(text)[2]
        return True

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    made = Output(tmp_path / "output")
    yield made
    made.close()


def ask(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=DEADLINE) as response:
        return str(response.read().decode())


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("name", SERVERS)
def test_server_that_the_application_starts_is_no_child_of_ours(
    name: str, when: str, port: int, output: Output, tmp_path: Path
) -> None:
    server = SERVERS[name]
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.mkdir()
    outer.mkdir()
    (inner / server.file).write_text(server.source.format(text="one"))
    command = ["python", "-u", *server.arguments.format(port=port).split()]
    places = {"output": str(tmp_path / "output"), "folder": str(inner), "at_load": WHEN[when]}
    source = OUTER.format(command=command, **places).replace("['python',", "[sys.executable,")
    (outer / "app.py").write_text(source)
    with DevServer("app:app", "--reload", cwd=outer) as devserver:
        devserver.serving()
        nested = int(devserver.get("/").text)
        assert output.reads(server.reloads)
        assert ask(port) == "one"
        # A save before their first look at the files is lost on them; so it is made again. Its text has
        # another length: they would run the bytecode of one that has the same size and second.
        for _ in range(10):
            save(inner / server.file, server.source.format(text="three"))
            if output.reads(server.reloads, 2.5):
                break
        assert ask(port) == "three"
        assert not devserver.events("restart")
        assert devserver.stop() == 0
        gone(nested)
