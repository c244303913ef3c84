"""Certificates for tests, of an authority that is made for each run of a test."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Certificates:
    """An authority, and what it issues as files in a folder.

    Attributes:
        root: the authority's certificate.
        certfile, keyfile: for `localhost` and the loopback addresses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.root = folder / "root.pem"
        self.authority.cert_pem.write_to_path(str(self.root))
        self.certfile, self.keyfile = self.issue("server")

    def issue(self, name: str, *names: str, days: tuple[int, int] = (-1, 30)) -> tuple[Path, Path]:
        """A certificate and its key. Args: days: from when until when it is valid, from today."""
        now = datetime.now(UTC)
        begins, ends = (now + timedelta(days=each) for each in days)
        found = self.authority.issue_cert(
            *(names or ("localhost", "127.0.0.1", "::1")), common_name=name, not_before=begins, not_after=ends
        )
        certfile, keyfile = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certfile.write_bytes(b"".join(each.bytes() for each in found.cert_chain_pems))
        keyfile.write_bytes(found.private_key_pem.bytes())
        return certfile, keyfile

    @property
    def options(self) -> dict[str, str]:
        """The options of a server, as Python has them."""
        return {"ssl_certfile": str(self.certfile), "ssl_keyfile": str(self.keyfile)}

    @property
    def arguments(self) -> list[str]:
        """The same on the command line."""
        return ["--ssl-certfile", str(self.certfile), "--ssl-keyfile", str(self.keyfile)]

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """What a client needs that trusts the authority."""
        context = ssl.create_default_context(cafile=str(self.root))
        if certificate is not None:
            context.load_cert_chain(*map(str, certificate))
        return context
