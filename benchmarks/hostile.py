"""What slow and hostile clients cost a server: memory, descriptors, and the time of everybody else.

Each attack holds its connections for some seconds, and gives up one that the server closes. Meanwhile others
ask on new connections, one after the other. Memory and descriptors are taken before, at their highest, and
two seconds after the last connection was closed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import tree
from applications import Project, asgi, put
from report import setting, table
from servers import HOSTILE, choose
from subject import Subject, all_stopped, folder_for

APPLICATION = """
async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    path = scope["path"]
    if path == "/read":
        while (await receive()).get("more_body"):
            pass
    if path == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
    size = 100 << 20 if path == "/big" else 1000
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(0, size, 65536):
        await send({"type": "http.response.body", "body": bytes(min(size, 65536)), "more_body": True})
    await send({"type": "http.response.body", "body": b"t0000"})
"""

HOST = b"Host: localhost\r\n"
CHUNK = b"4000\r\n" + bytes(0x4000) + b"\r\n"
PAUSE = 0.02
"""Seconds between two questions of the others, and between two looks at the server."""

Attack = Callable[[socket.socket], Awaitable[None]]


async def send_for_ever(sock: socket.socket, first: bytes, more: bytes, pause: float = 0.0) -> None:
    """Send something, and then something else again and again. Nothing is read."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, first)
    while more:
        await loop.sock_sendall(sock, more)
        await asyncio.sleep(pause)
    await asyncio.Event().wait()


def sends(first: bytes, more: bytes = b"", pause: float = 0.0) -> Attack:
    """An attack that sends without end."""
    return lambda sock: send_for_ever(sock, first, more, pause)


def post(path: bytes, *lines: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\n" % path + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


GET = b"GET / HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked"
ATTACKS: dict[str, tuple[int, Attack]] = {
    "silent": (1000, sends(b"")),
    "a head, a byte a second": (1000, sends(GET, b"a", 1.0)),
    "a body, a byte a second": (1000, sends(post(b"/read", b"Content-Length: 1000"), b"a", 1.0)),
    "100 MB, not read": (200, sends(b"GET /big HTTP/1.1\r\n" + HOST + b"\r\n")),
    "requests, answers not read": (50, sends(b"", (GET + b"\r\n") * 100)),
    "requests in large segments, answers not read": (50, sends(b"", (GET + b"\r\n") * 30_000)),
    "100,000 header lines": (50, sends(GET, b"A: b\r\n" * 100_000)),
    "an endless head line": (50, sends(GET + b"A: ", b"b" * 65536)),
    "an endless body, read": (50, sends(post(b"/read", CHUNKED), CHUNK)),
    "an endless body, not read": (50, sends(post(b"/", CHUNKED), CHUNK)),
    "an endless body, waited for": (50, sends(post(b"/wait", CHUNKED), CHUNK)),
    "chunks of one byte": (50, sends(post(b"/wait", CHUNKED), b"1\r\na\r\n" * 4000)),
    "endless chunk extensions": (50, sends(post(b"/read", CHUNKED), b"1;" + b"a" * 4000 + b"\r\na\r\n")),
    "endless trailers": (50, sends(post(b"/read", CHUNKED) + b"0\r\n", b"A: b\r\n" * 1000)),
}


@dataclass
class Cost:
    """What was seen during an attack.

    Attributes:
        times: seconds that the others' answers took.
        failed: of the others' requests.
        memory, descriptors: before, at the highest, after.
    """

    times: list[float] = field(default_factory=list)
    failed: int = 0
    memory: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)


def descriptors(session: int) -> int:
    """Open descriptors of all processes of a server."""
    return sum(len(os.listdir(process / "fd")) for process, _ in tree.processes(session))


async def hostile(port: int, attack: Attack, ready: asyncio.Semaphore) -> None:
    """One connection, until the server closes it or the time is over."""
    with socket.socket() as sock:
        sock.setblocking(False)
        async with ready:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        with contextlib.suppress(ConnectionError):
            await attack(sock)


async def ask(port: int) -> bool:
    """Whether a request on a new connection is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(GET + b"Connection: close\r\n\r\n")
        return (await reader.read()).startswith(b"HTTP/1.1 200 ")
    except ConnectionError:
        return False
    finally:
        writer.close()


async def others(port: int, cost: Cost, seconds: float) -> None:
    """Ask, one after the other, for so long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        cost.failed += not await ask(port)
        cost.times.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE)


async def watch(session: int, cost: Cost) -> None:
    """Look at the server again and again; the last but one of each list is the highest."""
    while True:
        memory, count = await asyncio.to_thread(lambda: (tree.pss_mib(session), descriptors(session)))
        cost.memory[1:] = [max(memory, *cost.memory)]
        cost.descriptors[1:] = [max(count, *cost.descriptors)]
        await asyncio.sleep(10 * PAUSE)


async def measure(port: int, session: int, name: str, seconds: float) -> Cost:
    """Attack for so long."""
    connections, attack = ATTACKS[name]
    cost = Cost(memory=[tree.pss_mib(session)], descriptors=[descriptors(session)])
    ready = asyncio.Semaphore(100)
    running = [asyncio.create_task(hostile(port, attack, ready)) for _ in range(connections)]
    watching = asyncio.create_task(watch(session, cost))
    await others(port, cost, seconds)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    watching.cancel()
    await asyncio.sleep(2)
    cost.memory.append(tree.pss_mib(session))
    cost.descriptors.append(descriptors(session))
    return cost


def prepare(folder: Path) -> Project:
    project = asgi(folder)
    put(folder, {"main.py": APPLICATION})
    return project


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Attack servers with slow and hostile clients.")
    names = ",".join(command.name for command in HOSTILE)
    parser.add_argument("--servers", default="devserver", help=f"of {names}; default: %(default)s")
    parser.add_argument("--attacks", default="", help=f"separated by semicolons, of: {'; '.join(ATTACKS)}")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each; default: %(default)s")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    print(setting())
    chosen = [name.strip() for name in options.attacks.split(";") if name] or list(ATTACKS)
    subjects: list[Subject] = []
    rows = []
    with tempfile.TemporaryDirectory(prefix="devserver-benchmark-") as work, all_stopped(subjects):
        sample = prepare(folder_for(Path(work), "sample"))
        for command in choose(HOSTILE, sample, options.servers):
            subjects.append(subject := Subject(command, prepare(folder_for(Path(work), command.name))))
            subject.await_start()
            for name in chosen:
                cost = asyncio.run(measure(subject.port, subject.session, name, options.seconds))
                memory = " → ".join(f"{mib:.0f}" for mib in cost.memory)
                counts = " → ".join(map(str, cost.descriptors))
                slowest = f"{1000 * max(cost.times):.0f}"
                answered = f"{len(cost.times) - cost.failed} of {len(cost.times)}"
                rows.append([command.name, name, str(ATTACKS[name][0]), answered, slowest, memory, counts])
            subject.stop()
    head = ("server", "attack", "connections", "others answered", "slowest ms", "PSS MiB", "descriptors")
    print(table(head, rows))


if __name__ == "__main__":
    main()
