"""What becomes of a POST on a connection in the moment in which the server closes it for being idle.

Many clients of httpx have one connection each. Each sends a POST, waits, and sends the next within a few
milliseconds of an edge: the time up to which a connection may be reused, and the time at which the server
was seen to close one. Either a client finds its connection closed and opens another, which is well. Or it has
sent its request and gets no answer, which is what is counted: no client may repeat a POST by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import ssl
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from applications import Project, asgi, put
from report import setting, table
from servers import EDGE, EDGE_SECONDS, choose
from subject import Subject, all_stopped, folder_for

SPREAD = 0.005
"""Seconds about the edge in which clients send."""

LATE = 0.5
"""Seconds after its moment in which a POST is still sent."""

LIMIT = 30.0
"""Seconds that an answer, or the end of an idle connection, may take."""


APPLICATION = """
async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"t0000"})
"""


@dataclass
class Sent:
    """What became of the POSTs that were sent at the edge.

    Attributes:
        kept: those that were answered on the connection of the one before.
        renewed: those that were answered on a new one.
        broken: those that were not answered.
        late: those that were not sent, because this machine was so busy that their moment had passed.
    """

    kept: int = 0
    renewed: int = 0
    broken: int = 0
    late: int = 0


def closes_after(port: int) -> float:
    """Seconds from an answer to the end of its connection."""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.recv(1 << 16)
        began = time.perf_counter()
        while sock.recv(1 << 16):
            began = time.perf_counter()
        return time.perf_counter() - began


async def client(
    http: httpx.AsyncClient, url: str, edge: float, last: float, sent: Sent, rounds: int
) -> None:
    """Send POSTs, each at the edge of the one before. Args: last: the most seconds after the edge."""
    await asyncio.sleep(random.uniform(0, edge))  # not all at once
    before, answered = None, 0.0
    while rounds:
        if before is not None and time.perf_counter() - answered > edge + last + LATE:
            sent.late += 1
            before = None
        try:
            response = await http.post(url, content=b"x" * 100)
        except httpx.TransportError:
            sent.broken += before is not None
            rounds -= before is not None
            before = None
        else:
            answered = time.perf_counter()
            connection = response.extensions["network_stream"]
            if before is not None:
                rounds -= 1
                sent.kept += connection is before
                sent.renewed += connection is not before
            before = connection
        await asyncio.sleep(edge + random.uniform(-SPREAD, last))


async def attack(port: int, edge: float, last: float, posts: int, clients: int) -> Sent:
    """Send so many POSTs at an edge."""
    sent = Sent()
    limits = httpx.Limits(max_connections=1, keepalive_expiry=None)
    tls = ssl.create_default_context()  # httpx would take its time to make one for each
    async with contextlib.AsyncExitStack() as stack:
        made = [httpx.AsyncClient(limits=limits, timeout=LIMIT, verify=tls) for _ in range(clients)]
        for http in made:
            await stack.enter_async_context(http)
        url = f"http://127.0.0.1:{port}/"
        await asyncio.gather(*(client(http, url, edge, last, sent, posts // clients) for http in made))
    return sent


def prepare(folder: Path) -> Project:
    project = asgi(folder)
    put(folder, {"main.py": APPLICATION})
    return project


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Reuse connections in the moment in which they are closed.")
    names = ",".join(command.name for command in EDGE)
    parser.add_argument("--servers", default="", help=f"default: {names}")
    parser.add_argument("--posts", type=int, default=10_000, help="at each edge; default: %(default)s")
    parser.add_argument("--clients", type=int, default=100, help="default: %(default)s")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(setting())
    subjects: list[Subject] = []
    rows = []
    with tempfile.TemporaryDirectory(prefix="devserver-benchmark-") as work, all_stopped(subjects):
        sample = prepare(folder_for(Path(work), "sample"))
        for command in choose(EDGE, sample, options.servers):
            subjects.append(subject := Subject(command, prepare(folder_for(Path(work), command.name))))
            subject.await_start()
            closes = closes_after(subject.port)
            for name, edge, last in (("allowed", EDGE_SECONDS, 0.0), ("closed", closes, SPREAD)):
                sent = asyncio.run(attack(subject.port, edge, last, options.posts, options.clients))
                counts = [f"{count:,}" for count in (sent.kept, sent.renewed, sent.late, sent.broken)]
                rows.append([command.name, name, f"{edge:.3f}", *counts])
            subject.stop()
    print(f"--timeout-keep-alive {EDGE_SECONDS:g}, {options.clients} clients\n")
    print(
        table(("server", "edge", "s", "on the same connection", "on a new one", "too late", "broken"), rows)
    )


if __name__ == "__main__":
    main()
