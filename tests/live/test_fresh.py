"""Save, then ask at once: no answer may come from old code, and no kept-alive connection is lost.

The requests are written in the moment in which the save has returned; nothing is waited for in
between. Each save has a number, so an answer of the code before it is known by its number. One
connection is kept all the time, another is new for each save, and they take turns in asking first.
"""

from __future__ import annotations

import http.client
import itertools
import os
import py_compile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.process import Answer, DevServer, tell

pytestmark = pytest.mark.live

ASGI = """
import number

with open("number.txt") as file:
    DATA = file.read()

async def app(scope, receive, send):
    assert scope["type"] == "http"
    text = f"{number.NUMBER:06} {DATA}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"13")]})
    await send({"type": "http.response.body", "body": text})
"""

WSGI = """
import number

with open("number.txt") as file:
    DATA = file.read()

def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "13")])
    return [f"{number.NUMBER:06} {DATA}".encode()]
"""

SOURCES = {"asgi": ASGI, "wsgi": WSGI}

BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
"""Let .pyc files be written: they are what the traps below are made of."""


# Ways to save. Each gets the path and the new text, which is as long as the old.


def in_place(path: Path, text: str) -> None:
    """Over the old bytes, as a database or `sponge` writes."""
    with path.open("r+") as file:
        file.write(text)


def rename(path: Path, text: str) -> None:
    """Beside it, then over it, as most editors save."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    beside.replace(path)


def truncate_then_write(path: Path, text: str) -> None:
    """Empty for a moment, and written in two parts."""
    with path.open("w") as file:
        file.flush()
        file.write(text[:5])
        file.flush()
        file.write(text[5:])


def same_second(path: Path, text: str) -> None:
    """What a .pyc knows of its source, the size and the whole second, is as it was."""
    before = path.stat()
    path.write_text(text)
    nanoseconds = path.stat().st_mtime_ns % 10**9
    second = before.st_mtime_ns // 10**9
    os.utime(path, ns=(before.st_atime_ns, second * 10**9 + nanoseconds))


def older_mtime(path: Path, text: str) -> None:
    """The very time stamp that the file had before, as `cp -p` and `rsync -t` restore it."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def twice(path: Path, text: str) -> None:
    """Two saves of one length with no time between them."""
    path.write_text("#" * len(text))
    path.write_text(text)


SAVES: list[tuple[Callable[[Path, str], None], str]] = [
    *((save, "number.py") for save in (older_mtime, same_second, in_place, rename)),
    *((save, "number.py") for save in (truncate_then_write, twice)),
    *((save, "number.txt") for save in (in_place, rename, truncate_then_write, older_mtime)),
]
"""How, and which file: a module, and a data file that is read at import."""


class Numbered:
    """The project: what was saved last, and so what every answer must be."""

    def __init__(self, folder: Path, source: str) -> None:
        (folder / "app.py").write_text(source)
        self._folder = folder
        self._saved = {"number.py": 0, "number.txt": 0}
        for name in self._saved:
            path = folder / name
            path.write_text(self._text(name))
            # From long ago, so that the first start leaves a .pyc behind.
            os.utime(path, (1_000_000_000, 1_000_000_000))

    def _text(self, name: str) -> str:
        number = self._saved[name]
        return f"NUMBER = {number:6}\n" if name == "number.py" else f"{number:06}"

    def save(self, number: int, how: Callable[[Path, str], None], name: str) -> None:
        """Save a number into one of the two files."""
        self._saved[name] = number
        how(self._folder / name, self._text(name))

    @property
    def expected(self) -> str:
        """What the code of now answers."""
        return f"{self._saved['number.py']:06} {self._saved['number.txt']:06}"


def check(count: int, interface: str, arguments: list[str], folder: Path, turn: int = 0) -> None:
    """Save and ask `count` times.

    Args:
        turn: which connection asks first at the first save; they take turns, and each way of saving meets
            both in its first two rounds.
    """
    project = Numbered(folder, SOURCES[interface])
    arguments = ["--reload", "--no-access-log", "--timeout-keep-alive", "60", *arguments]
    with DevServer("app:app", *arguments, cwd=folder, env=BYTECODE) as server, ExitStack() as stack:
        server.serving()
        kept = stack.enter_context(server.connect())
        kept.connect()
        sock, address = kept.sock, kept.sock.getsockname()
        assert ask(kept) == project.expected
        began, slowest = time.monotonic(), 0.0
        for number, (how, name) in zip(range(1, count + 1), itertools.cycle(SAVES), strict=False):
            with server.connect() as fresh:
                fresh.connect()
                project.save(number, how, name)
                asked = time.monotonic()
                round_ = (number - 1) // len(SAVES)
                both = [("kept", kept), ("new", fresh)][:: 1 if (number + round_ + turn) % 2 else -1]
                for _, connection in both:
                    connection.request("GET", "/")
                for which, connection in both:
                    what = f"save {number} of {name} by {how.__name__}, {which} connection"
                    assert read(connection) == project.expected, what
                slowest = max(slowest, time.monotonic() - asked)
            assert kept.sock is sock, "the kept connection was opened again"
            assert kept.sock.getsockname() == address
            server.events("")  # read, so that the pipe does not fill up
        mean = (time.monotonic() - began) / count
        assert len(server.events("restart")) >= count
        assert not server.events("failed")
    tell(
        f"{interface} {' '.join(arguments[4:])}: {count} saves, 0 stale of {2 * count} answers, 0 reconnects;"
        f" save to answer {mean * 1000:.0f} ms on average, {slowest * 1000:.0f} ms at most"
    )


def ask(connection: http.client.HTTPConnection) -> str:
    """What is answered on a connection that stays open."""
    connection.request("GET", "/")
    return read(connection)


def read(connection: http.client.HTTPConnection) -> str:
    response = connection.getresponse()
    text = response.read().decode()
    assert response.status == 200, text
    return text


@pytest.mark.parametrize("parser", ["h11", "httptools"])
@pytest.mark.parametrize("interface", SOURCES)
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_no_answer_is_of_old_code(transport: str, interface: str, parser: str, tmp_path: Path) -> None:
    """Each way to save once; over the two parsers, with either connection asking first."""
    turn = int(parser == "h11")
    check(len(SAVES), interface, ["--http", parser, *where(transport, tmp_path)], tmp_path, turn)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("parser", ["h11", "httptools"])
@pytest.mark.parametrize("interface", SOURCES)
@pytest.mark.parametrize(("transport", "count"), [("tcp", 1000), ("unix", 250)])
def test_no_answer_of_many_is_of_old_code(
    transport: str, count: int, interface: str, parser: str, tmp_path: Path
) -> None:
    check(count, interface, ["--http", parser, *where(transport, tmp_path)], tmp_path)


def where(transport: str, folder: Path) -> list[str]:
    """The arguments for a transport."""
    return ["--uds", str(folder / "socket")] if transport == "unix" else []


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_answer_is_of_old_code_on_either_loop(loop: str, tmp_path: Path) -> None:
    check(10, "asgi", ["--loop", loop], tmp_path)


def test_no_answer_is_an_old_page(tmp_path: Path) -> None:
    """A page is held against the newest save as an application is, also while others ask without pause."""
    project = Numbered(tmp_path, ASGI)
    with DevServer("app:app", "--reload", "--no-access-log", cwd=tmp_path) as server:
        server.serving()
        over = threading.Event()
        crowd = [threading.Thread(target=ask_until, args=(over, server)) for _ in range(2)]
        for thread in crowd:
            thread.start()
        try:
            for number in range(1, 6):
                with server.connect() as broken, server.connect() as mended:
                    broken.connect()
                    mended.connect()
                    (tmp_path / "number.py").write_text(f"raise RuntimeError('number {number}')")
                    broken.request("GET", "/")
                    page = Answer(broken.getresponse())
                    assert page.status == 500
                    assert f"RuntimeError: number {number}\n" in page.text
                    project.save(number, rename, "number.py")
                    mended.request("GET", "/")
                    assert read(mended) == project.expected
        finally:
            over.set()
            for thread in crowd:
                thread.join()


def ask_until(over: threading.Event, server: DevServer) -> None:
    """Ask on one connection."""
    with server.connect() as connection:
        while not over.is_set():
            connection.request("GET", "/")
            connection.getresponse().read()


def test_bytecode_of_a_text_with_the_same_stamps_never_runs(tmp_path: Path) -> None:
    """A .pyc knows its source by size and second. It must not come back when the save is long ago, either.

    Another module is saved, and so restarts the application, until the source is not racy any more.
    What is waited for is the clock itself: it is what the stamps are made of.
    """
    number, other = tmp_path / "number.py", tmp_path / "other.py"
    (tmp_path / "app.py").write_text("import other\n" + WSGI)
    (tmp_path / "number.txt").write_text("000000")
    number.write_text("NUMBER = 1\n")
    other.write_text("pass\n")
    os.utime(number, (1_000_000_000, 1_000_000_000))
    py_compile.compile(str(number), doraise=True)
    with DevServer("app:app", "--reload", cwd=tmp_path, env=BYTECODE) as server:
        server.serving()
        assert server.get("/").text == "000001 000000"
        older_mtime(number, "NUMBER = 2\n")
        end = time.monotonic() + 2.5
        for count in itertools.count():
            assert server.get("/").text == "000002 000000", f"after {count} restarts"
            if time.monotonic() > end:
                break
            server.idle(0.2)
            other.write_text(f"VALUE = {count}\n")
