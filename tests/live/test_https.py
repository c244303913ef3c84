"""--https as a user meets it: Chromium, with the authority in a store that it reads."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devserver.front.authority import ROOT, own
from devserver.front.stores import Nss, Root
from tests.live.process import DevServer, save
from tests.patience import DEADLINE

pytestmark = pytest.mark.live

PAGE = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        text = f"<p>{scope['scheme']}, {dict(scope['headers'])[b'host'].decode()}</p>".encode()
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without anything, as a folder beside the project's."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "CAROOT"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def server(home: Path, tmp_path: Path) -> Iterator[DevServer]:
    project = tmp_path / "project"
    project.mkdir()
    save(project / "app.py", PAGE)
    with DevServer("app:app", "--reload", "--https", cwd=project) as server:
        server.serving()
        yield server


def shown(url: str, home: Path) -> str:
    """What Chromium has on its page, with a new profile."""
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={home / 'profile'}",
        "--dump-dom",
    ]
    done = subprocess.run(
        ["chromium", *options, url], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    return done.stdout


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.skipif(shutil.which("certutil") is None, reason="certutil of NSS is not installed")
def test_chromium_warns_of_nothing_once_it_trusts(server: DevServer, home: Path) -> None:
    assert "browsers will warn of the certificate until you run: devserver trust" in server.log
    own(datetime.now(UTC))
    root = Path(home, ".local/share/devserver", ROOT)
    Nss(str(home / ".pki/nssdb"), "Chromium").install(Root(str(root), "devserver"))
    for name in ("localhost", "shop.localhost"):
        assert f"https, {name}:{server.port}" in shown(f"https://{name}:{server.port}/", home)
    # Plain HTTP on the same port leads there.
    assert f"https, localhost:{server.port}" in shown(f"http://localhost:{server.port}/", home)
    assert "ERR_CERT" not in server.log


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_the_url_for_other_devices_is_a_qr_code(host: str, home: Path, tmp_path: Path) -> None:
    save(tmp_path / "app.py", PAGE)
    with DevServer("app:app", "--host", host, "--port", "0", "--https", "--qr", cwd=tmp_path) as server:
        server.serving()
        if host == "127.0.0.1":
            assert "warning: --qr: no other device can reach this server; add --host 0.0.0.0" in server.log
        elif "as a QR code" in server.log:
            assert f":{server.port} as a QR code:\n█████" in server.log
        else:  # a machine without a network
            assert "no other device" in server.log


def test_nothing_lies_in_the_project(server: DevServer, home: Path) -> None:
    assert {*os.listdir(home.parent / "project")} <= {"__pycache__", "app.py"}
    assert sorted(os.listdir(home / ".local/share/devserver")) == ["leaf.pem", "root-key.pem", "root.pem"]
