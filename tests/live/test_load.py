"""Clients that never pause, while the application is saved again and again, now and then broken.

Each request has a number of its own, which its answer repeats and which the application counts in a
file. Each save has a number too: a version, which is good or broken. So an answer can be held
against what was asked and when: it must be of a version between the newest that was saved when the
request was sent, and the newest when the answer came.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
import itertools
import random
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.certificates import Certificates
from tests.live.process import DevServer, tell
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

ANSWER = """
import hashlib, os

COUNT = os.open(os.environ["COUNT_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
PAD = bytes(range(256)) * 512

def answer(query, body):
    number, _, size = query.partition("-")
    os.write(COUNT, f"{number}\\n".encode())
    digest = hashlib.sha256(body).hexdigest()
    return f"{number} {VERSION} {digest}\\n".encode() + PAD[:int(size)]
"""

ASGI = """
from answer import answer

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    answered = answer(scope["query_string"].decode(), body)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answered[:100], "more_body": True})
    await send({"type": "http.response.body", "body": answered[100:]})
"""

WSGI = """
from answer import answer

def app(environ, start_response):
    answered = answer(environ["QUERY_STRING"], environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([answered[:100], answered[100:]])
"""

SOURCES = {"asgi": ASGI, "wsgi": WSGI}

BROKEN = ("VERSION = (", "import not_there_at_all", "raise RuntimeError('out of cheese')")

EVERY = 4
"""Each so many-th save is a broken one."""


@dataclass
class Saves:
    """What was saved, by version."""

    path: Path
    version: int = 0
    broken: set[int] = field(default_factory=set)

    def save(self) -> None:
        """Save the next version."""
        self.version += 1
        if self.version % EVERY == 0:
            self.broken.add(self.version)
            how = BROKEN[self.version // EVERY % len(BROKEN)]
            self.path.write_text(f"# {self.version}\n{how}\n")
        else:
            self.path.write_text(f"VERSION = {self.version}\n{ANSWER}")


@dataclass
class Request:
    """One request, and what was true when it was sent."""

    number: int
    size: int
    body: bytes
    version: int = 0

    def head(self) -> bytes:
        method = "POST" if self.body else "GET"
        length = f"Content-Length: {len(self.body)}\r\n" if self.body else ""
        return f"{method} /?{self.number}-{self.size} HTTP/1.1\r\nHost: test\r\n{length}\r\n".encode()


@dataclass
class Crowd:
    """The clients.

    Attributes:
        uploads: whether nearly every request has a body, and a large one.
        mistakes: what must not happen, by name.
    """

    saves: Saves
    open: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
    uploads: bool
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    answered: set[int] = field(default_factory=set)
    pages: int = 0
    mistakes: collections.Counter[str] = field(default_factory=collections.Counter)
    stop: bool = False
    closing: list[asyncio.StreamWriter] = field(default_factory=list)
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, kind: int) -> None:
        """Ask without pause until `stop`. Even kinds keep their connection."""
        choose = random.Random(kind)
        connection = None
        while not self.stop:
            try:
                if connection is None:
                    connection = await self.open()
            except OSError as error:
                self.mistakes[f"refused: {error!r}"] += 1
                continue
            requests = [self.request(choose) for _ in range(2 if kind % 4 == 0 else 1)]
            if not await self.exchange(*connection, requests, kind % 5 == 0) or kind % 2:
                self.close(connection[1])
                connection = None
        if connection is not None:
            self.close(connection[1])

    def close(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        self.closing.append(writer)

    def request(self, choose: random.Random) -> Request:
        sizes, share = ((100_000, 200_000), 0.9) if self.uploads else ((1, 1000, 100_000), 0.3)
        body = choose.randbytes(choose.choice(sizes)) if choose.random() < share else b""
        return Request(next(self.numbers), choose.choice((0, 10, 5000, 131_072)), body)

    async def exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[Request], split: bool
    ) -> bool:
        """Send requests at once, and read their answers. False if the connection is of no more use.

        Args:
            split: let the server see half of a head, or a head without its body, first.
        """
        for request in requests:
            request.version = self.saves.version
        data = b"".join(request.head() + request.body for request in requests)
        try:
            if split:
                cut = len(requests[0].head()) if requests[0].body else 20
                writer.write(data[:cut])
                await asyncio.sleep(0)
                data = data[cut:]
            writer.write(data)
            for request in requests:
                status, keep, text = await read_response(reader)
                self.check(request, status, text)
                if not keep:
                    self.mistakes["not kept alive"] += 1
                    return False
        except asyncio.IncompleteReadError as error:
            self.mistakes["truncated" if error.partial else "closed without an answer"] += 1
            return False
        except OSError as error:
            self.mistakes[f"reset: {error!r}"] += 1
            return False
        return True

    def check(self, request: Request, status: int, text: bytes) -> None:
        """Hold an answer against the request and the versions that it can be of."""
        possible = range(request.version, self.saves.version + 1)
        if status == 500:
            self.pages += 1
            if not self.saves.broken.intersection(possible):
                self.mistakes[f"a page for the good versions {possible}"] += 1
        elif status == 200:
            line, _, pad = text.partition(b"\n")
            number, version, digest = line.decode().split()
            if int(number) != request.number or digest != sha256(request.body):
                self.mistakes["another request's answer"] += 1
            if len(pad) != request.size:
                self.mistakes["truncated"] += 1
            if int(version) not in possible:
                self.mistakes[f"stale: {version} and not of {possible}"] += 1
            if request.number in self.answered:
                self.mistakes["answered twice"] += 1
            self.answered.add(request.number)
        else:
            self.mistakes[f"status {status}: {text[:200]!r}"] += 1
        self.progress.set()

    async def answers(self, count: int) -> None:
        """Wait until so many more answers have come."""
        goal = len(self.answered) + self.pages + count
        while len(self.answered) + self.pages < goal:
            self.progress.clear()
            await asyncio.wait_for(self.progress.wait(), DEADLINE)


@dataclass
class Http2Crowd(Crowd):
    """Clients that speak HTTP/2, and ask several things at once on a connection.

    Attributes:
        url: where.
        tls: what they need for TLS; None in plain text, where they know that HTTP/2 is spoken.
    """

    url: str = ""
    tls: ssl.SSLContext | None = None

    async def client(self, kind: int) -> None:
        choose = random.Random(kind)
        connection = self._connection()
        while not self.stop:
            requests = [self.request(choose) for _ in range(1 + kind % 4)]
            await asyncio.gather(*(self.ask(connection, request) for request in requests))
            if kind % 8 == 7:
                await connection.aclose()
                connection = self._connection()
        await connection.aclose()

    def _connection(self) -> httpx.AsyncClient:
        verify = True if self.tls is None else self.tls
        return httpx.AsyncClient(http1=False, http2=True, verify=verify, timeout=DEADLINE, trust_env=False)

    async def ask(self, connection: httpx.AsyncClient, request: Request) -> None:
        """Send a request, and hold its answer against what was true when it was sent."""
        request.version = self.saves.version
        target = f"{self.url}/?{request.number}-{request.size}"
        try:
            answer = await connection.request("POST" if request.body else "GET", target, content=request.body)
        except httpx.HTTPError as error:
            self.mistakes[f"no answer: {error!r}"] += 1
            return
        if answer.http_version != "HTTP/2":
            self.mistakes[answer.http_version] += 1
        self.check(request, answer.status_code, answer.content)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """A response: its status, whether the connection stays open, and its body."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)).lower()
    status = int(head.split(b" ", 2)[1])
    keep = b"\r\nconnection: close\r\n" not in head
    if b"\r\ntransfer-encoding: chunked\r\n" not in head:
        length = int(head.partition(b"\r\ncontent-length:")[2].split(b"\r\n")[0])
        return status, keep, await asyncio.wait_for(reader.readexactly(length), DEADLINE)
    pieces = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        pieces.append((await asyncio.wait_for(reader.readexactly(size + 2), DEADLINE))[:-2])
    await reader.readexactly(2)
    return status, keep, b"".join(pieces)


async def press(
    server: DevServer, saves: Saves, clients: int, count: int, uploads: bool, http2: bool
) -> Crowd:
    """Let clients ask over `count` saves; with `uploads` each save comes when one request was answered."""

    async def connection() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if server.path:
            return await asyncio.open_unix_connection(server.path)
        return await asyncio.open_connection(server.host, server.port, ssl=server.tls)

    crowd = Crowd(saves, connection, uploads)
    if http2:
        url = f"{server.scheme}://{server.host}:{server.port}"
        crowd = Http2Crowd(saves, connection, uploads, url=url, tls=server.tls)
    tasks = [asyncio.create_task(crowd.client(kind)) for kind in range(clients)]
    choose = random.Random(count)
    try:
        for _ in range(count):
            # Sometimes in the middle of the restart before it, sometimes long after.
            await crowd.answers(1 if uploads else choose.choice((1, clients // 2, 10 * clients)))
            if saves.version in saves.broken and not crowd.pages:
                await crowd.answers(2 * clients)  # it must have been seen once
            saves.save()
            server.events("")  # read, so that the pipe does not fill up
        await crowd.answers(5 * clients)
        crowd.stop = True
        await asyncio.wait_for(asyncio.gather(*tasks), 2 * DEADLINE)
        for writer in crowd.closing:  # with TLS both sides say farewell
            with contextlib.suppress(OSError):
                await asyncio.wait_for(writer.wait_closed(), DEADLINE)
    finally:
        for task in tasks:
            task.cancel()
    return crowd


def check(
    clients: int,
    count: int,
    interface: str,
    arguments: list[str],
    folder: Path,
    *,
    uploads: bool = False,
    tls: ssl.SSLContext | None = None,
    http2: bool = False,
) -> None:
    """Press a server, and count.

    Args:
        tls: what clients need, if it speaks TLS.
        http2: whether they speak HTTP/2.
    """
    project = folder / "project"
    project.mkdir()
    counted = folder / "counted"
    (project / "app.py").write_text(SOURCES[interface])
    saves = Saves(project / "answer.py")
    saves.save()
    quiet = ["--reload", "--no-access-log", "--timeout-keep-alive", "60", *arguments]
    with DevServer("app:app", *quiet, cwd=project, env={"COUNT_FILE": str(counted)}) as server:
        server.serving()
        server.tls = tls
        crowd = asyncio.run(press(server, saves, clients, count, uploads, http2))
        restarts = len(server.events("restart"))
        if crowd.mistakes:
            tell(server.log)
    called = collections.Counter(map(int, counted.read_text().split()))
    twice = [number for number, times in called.items() if times > 1]
    tell(
        f"{interface} {' '.join(arguments)}: {clients} clients, {count} saves ({len(saves.broken)} broken),"
        f" {restarts} restarts: {len(crowd.answered)} answers, {crowd.pages} error pages,"
        f" {len(twice)} called twice, mistakes: {dict(crowd.mistakes) or 'none'}"
    )
    assert not crowd.mistakes, crowd.mistakes
    assert not twice
    assert called.keys() == crowd.answered
    assert crowd.pages


@pytest.mark.parametrize("interface", SOURCES)
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_saves_cost_no_request(transport: str, interface: str, tmp_path: Path) -> None:
    check(20, 6, interface, where(transport, tmp_path), tmp_path)


@pytest.mark.parametrize(("loop", "parser"), [("asyncio", "h11"), ("uvloop", "httptools")])
def test_saves_cost_no_request_with_any_loop_and_parser(loop: str, parser: str, tmp_path: Path) -> None:
    check(8, 5, "asgi", ["--loop", loop, "--http", parser], tmp_path)


def test_saves_cost_no_upload(tmp_path: Path) -> None:
    """What was read of many requests is on its way to a child that is already draining itself."""
    check(50, 20, "asgi", ["--http", "h11"], tmp_path, uploads=True)


@pytest.mark.parametrize("interface", SOURCES)
def test_saves_cost_no_request_over_tls(interface: str, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    check(16, 6, interface, certificates.arguments, tmp_path, tls=certificates.client())


@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_saves_cost_no_request_of_http2(transport: str, tmp_path: Path) -> None:
    if transport == "plain":
        check(12, 6, "asgi", [], tmp_path, http2=True)
    else:
        certificates = Certificates(tmp_path)
        check(12, 6, "wsgi", certificates.arguments, tmp_path, tls=certificates.client(), http2=True)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("interface", SOURCES)
def test_many_saves_cost_no_request_of_http2(interface: str, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    check(50, 20, interface, certificates.arguments, tmp_path, tls=certificates.client(), http2=True)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("uploads", [False, True])
@pytest.mark.parametrize("interface", SOURCES)
def test_many_saves_cost_no_request_over_tls(interface: str, uploads: bool, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    check(50, 20, interface, certificates.arguments, tmp_path, uploads=uploads, tls=certificates.client())


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("parser", ["h11", "httptools"])
@pytest.mark.parametrize("interface", SOURCES)
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_many_saves_cost_no_request(transport: str, interface: str, parser: str, tmp_path: Path) -> None:
    check(50, 20, interface, ["--http", parser, *where(transport, tmp_path)], tmp_path)


def where(transport: str, folder: Path) -> list[str]:
    """The arguments for a transport."""
    return ["--uds", str(folder / "socket")] if transport == "unix" else []
