"""HTTP/2 as it is met: curl, nghttp, h2load and Chromium, and connections that outlive a restart."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.certificates import Certificates
from tests.live.process import DevServer, save
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

APP = """
import asyncio, json

HEARD = asyncio.Event()
PAGE = b'''<p id=p>nothing</p><script>
const socket = new WebSocket(`wss://${location.host}/socket`)
socket.onmessage = event => {
    p.textContent = event.data + " and " + performance.getEntriesByType("navigation")[0].nextHopProtocol
    socket.send("heard")
}
</script><script src=/heard></script>'''

async def app(scope, receive, send):
    assert scope["type"] != "lifespan"
    path = scope["path"]
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "a WebSocket over " + scope["http_version"]})
        if (await receive())["type"] == "websocket.receive":
            HEARD.set()
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    headers = [(b"content-type", b"text/html")]
    if path == "/events":
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: begun\\n\\n", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        return
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path == "/page":
        answer = PAGE
    elif path == "/heard":
        await HEARD.wait()
        answer = b""
    elif path == "/much":
        answer = bytes(5_000_000)
    else:
        about = {"version": VERSION, "body": len(body), "http": scope["http_version"]}
        answer = json.dumps({**about, "client": scope["client"], "scheme": scope["scheme"]}).encode()
    await send({"type": "http.response.body", "body": answer})
"""


def version(number: int) -> str:
    return f"VERSION = {number}\n{APP}"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    """One with TLS that several tests use, and none restarts."""
    folder = tmp_path_factory.mktemp("project")
    save(folder / "app.py", version(1))
    with DevServer("app:app", "--reload", *certificates.arguments, cwd=folder) as server:
        server.serving()
        yield server


def needs(command: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(command) is None, reason=f"{command} is not installed")


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    return done.stdout + done.stderr


@needs("curl")
def test_curl_gets_what_it_asks_for(server: DevServer, certificates: Certificates, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(bytes(1_000_000))
    curl = ["curl", "-sS", "--cacert", str(certificates.root), "-w", " %{http_version}"]
    url = f"https://localhost:{server.port}/"
    for option, spoken in (
        ((), "2"),
        (("--http1.1",), "1.1"),
        (("--data-binary", f"@{tmp_path / 'body'}"), "2"),
    ):
        text, _, protocol = output(*curl, *option, url).rpartition(" ")
        assert (json.loads(text)["http"], protocol) == (spoken, spoken)
    assert json.loads(text)["body"] == 1_000_000


@needs("nghttp")
def test_nghttp_and_h2load(server: DevServer) -> None:
    url = f"https://localhost:{server.port}"
    text = output("nghttp", "-ans", "--no-verify-peer", f"{url}/", f"{url}/much", f"{url}/1")
    assert len(re.findall(r" 200 .* /", text)) == 3, text
    text = output("h2load", "-n", "200", "-c", "4", "-m", "20", f"{url}/", f"{url}/much")
    assert "200 done, 200 succeeded, 0 failed, 0 errored" in text
    assert "Application protocol: h2" in text


@needs("chromium")
def test_chromium_has_a_page_and_a_websocket(server: DevServer, tmp_path: Path) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--ignore-certificate-errors"]
    url = f"https://localhost:{server.port}/page"
    text = output("chromium", *options, f"--user-data-dir={tmp_path}", url)
    assert "a WebSocket over 2 and h2" in text


def test_a_connection_goes_over_to_the_next_generation(certificates: Certificates, tmp_path: Path) -> None:
    """What has begun is answered by the old code, what comes behind it by the new, and no client notices."""
    save(tmp_path / "app.py", version(1))

    async def ask(url: str) -> list[dict[str, object]]:
        go, begun = asyncio.Event(), asyncio.Event()

        async def upload() -> AsyncIterator[bytes]:
            yield b"a" * 100
            begun.set()
            await go.wait()
            yield b"b" * 100_000  # httpx would wait for itself if it had to wait for room

        tls = certificates.client()
        async with httpx.AsyncClient(http2=True, verify=tls, timeout=DEADLINE, trust_env=False) as client:
            answers = [(await client.get(url)).json()]
            first = asyncio.create_task(client.post(url, content=upload()))
            await begun.wait()
            # The server has its head: both are on one connection, and this is answered.
            answers.append((await client.get(url)).json())
            async with client.stream("GET", f"{url}events") as events:
                save(tmp_path / "app.py", version(2))
                second = asyncio.create_task(client.post(url, content=b"c" * 100_000))
                async for _ in events.aiter_raw():
                    pass  # it ends, and is not cut
            go.set()
            return [*answers, (await first).json(), (await second).json(), (await client.get(url)).json()]

    options = ["--reload", "--reload-grace", "600", *certificates.arguments]
    with DevServer("app:app", *options, cwd=tmp_path) as server:
        server.serving()
        answers = asyncio.run(ask(f"https://localhost:{server.port}/"))
        assert [each["version"] for each in answers] == [1, 1, 1, 2, 2]
        assert [each["body"] for each in answers] == [0, 0, 100_100, 100_000, 0]
        assert {(each["http"], each["scheme"]) for each in answers} == {("2", "https")}
        assert len({str(each["client"]) for each in answers}) == 1  # one connection
