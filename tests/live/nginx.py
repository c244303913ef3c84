"""A real nginx in front of a server, with the very configuration that a page of the documentation shows.

nginx inherits its listening socket, as when its program is replaced while it runs. So its port is known and
taken before it starts, and a client that comes early waits: nothing is probed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import pytest

from tests.live.process import descendants, gone
from tests.patience import DEADLINE

DOCS = Path(__file__).parents[2] / "docs"

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
OPENSSL = shutil.which("openssl")

UWSGI_PARAMS = Path("/etc/nginx/uwsgi_params")
"""Of the package, which may differ from nginx's own."""

needs_nginx = pytest.mark.skipif(not (NGINX and OPENSSL), reason="needs nginx and openssl")

NEEDS_UWSGI = pytest.mark.skipif(
    not (NGINX and OPENSSL and UWSGI_PARAMS.exists()), reason="needs nginx with its uwsgi_params, and openssl"
)

NAME = "shop.example"

CLIENT = "127.0.0.2"
"""The address of clients."""

_AROUND = """
daemon off;
worker_processes 1;
user root;
pid nginx.pid;
error_log error.log notice;
events { worker_connections 512; }
http {
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
%s
}
"""


def documented(page: str = "proxies") -> str:
    """The configuration of a page."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- nginx -->\n```nginx\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


class Nginx:
    """nginx in front of the server at an address.

    Attributes:
        port: on every address of this machine.
        files: the folder for X-Accel-Redirect.
        context: what a client needs for TLS; None if nginx speaks plain HTTP.
    """

    def __init__(
        self,
        folder: Path,
        upstream: str,
        changes: Mapping[str, str] | None = None,
        *,
        page: str = "proxies",
        text: str | None = None,
    ) -> None:
        """
        Args:
            folder: for all that nginx writes.
            upstream: as after `server` in an `upstream`.
            changes: what else differs from the documented configuration.
            page: which documentation has it.
            text: instead of the documented configuration, what stands beside `proxy_pass` in the only
                location of a server, which speaks plain HTTP.
        """
        assert NGINX is not None
        self._folder = folder / "nginx"
        self.files = folder / "files"
        self._socket = socket.create_server(("0.0.0.0", 0))  # as `listen 443` does
        self.port: int = self._socket.getsockname()[1]
        self.context: ssl.SSLContext | None = None
        self._folder.mkdir()
        self.files.mkdir(exist_ok=True)
        if text is None:
            text = self._documented(documented(page), upstream, changes or {})
        else:
            text = f"server {{ listen {self.port}; location / {{ proxy_pass http://{upstream}; {text} }} }}"
        self._config = self._folder / "nginx.conf"
        self._config.write_text(_AROUND % text)

    def _documented(self, text: str, upstream: str, changes: Mapping[str, str]) -> str:
        certificate, key = self._folder / "shop.pem", self._folder / "shop.key"
        _make_certificate(certificate, key)
        self.context = ssl.create_default_context(cafile=str(certificate))
        if UWSGI_PARAMS.exists():
            shutil.copy(UWSGI_PARAMS, self._folder)
        own = {
            "server 127.0.0.1:8000;": f"server {upstream};",
            "listen 443 ssl;": f"listen {self.port} ssl;",
            "/etc/ssl/shop.example.pem": str(certificate),
            "/etc/ssl/shop.example.key": str(key),
            "/srv/shop/": f"{self.files}/",
        }
        for before, after in {**own, **changes}.items():
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        return text

    def __enter__(self) -> Nginx:
        assert NGINX is not None
        fd = self._socket.fileno()
        self._output = (self._folder / "output").open("wb")
        self._process = subprocess.Popen(
            [NGINX, "-p", str(self._folder), "-c", "nginx.conf", "-e", "error.log"],
            env={**os.environ, "NGINX": f"{fd};"},
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self._socket.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()
        if error is not None:
            output = (self._folder / "output").read_text()
            sys.stderr.write(f"--- nginx\n{output}{self.error_log}\n{self.access_log}\n")

    def reload(self, before: str, after: str) -> None:
        """Change the configuration, and wait until no process works by the old one."""
        text = self._config.read_text()
        assert text.count(before) == 1, before
        old = descendants(self._process.pid)
        self._config.write_text(text.replace(before, after))
        self._process.send_signal(signal.SIGHUP)
        for pid in old:
            gone(pid)

    @property
    def error_log(self) -> str:
        """What nginx has found wrong, and what it tells."""
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / "error.log").read_text()
        return ""

    @property
    def faults(self) -> list[str]:
        """Lines of nginx's log about requests that went wrong."""
        return [line for line in self.error_log.splitlines() if "[error]" in line or "[crit]" in line]

    @property
    def access_log(self) -> str:
        """nginx's line for each request."""
        return (self._folder / "access.log").read_text()

    def dial(self) -> socket.socket:
        """A connection of TCP to nginx, from an address of this machine that is not a trusted proxy's."""
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE, source_address=(CLIENT, 0))

    def connect(self) -> socket.socket:
        """A connection to nginx, over TLS if it speaks that."""
        if self.context is None:
            return self.dial()
        return self.context.wrap_socket(self.dial(), server_hostname=NAME)


def _make_certificate(certificate: Path, key: Path) -> None:
    assert OPENSSL is not None
    subprocess.run(
        [
            OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={NAME}",
            "-addext", f"subjectAltName=DNS:{NAME}",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
