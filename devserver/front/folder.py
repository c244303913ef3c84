"""Where the local authority lies, and whether this machine trusts it. Light: no library of certificates here.

In the user's data folder and never in a project, where it would be committed, copied and served.
"""

from __future__ import annotations

import ipaddress
import os
import sys

NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        (
            "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10",
            "::1/128", "fc00::/7", "fe80::/10",
        ),
    )
)  # fmt: skip
"""Addresses of this machine, and of private networks (RFC 1918, RFC 3927, RFC 4193, RFC 6598)."""

RECORD = "trusted.json"
"""In our folder, once the authority was installed: where."""


def data_folder() -> str:
    """Where programs keep data of this user (XDG Base Directory Specification, or what the system has)."""
    if sys.platform == "win32":
        return os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Application Support")
    return os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")


def own_folder() -> str:
    """The folder of our own authority; it need not exist."""
    return os.path.join(data_folder(), "devserver")


def mkcert_folder() -> str:
    """The folder of mkcert's authority, where mkcert looks for it; it need not exist."""
    return os.environ.get("CAROOT") or os.path.join(data_folder(), "mkcert")


def has_mkcert() -> bool:
    """Whether mkcert has an authority that can be used."""
    folder = mkcert_folder()
    return all(os.access(os.path.join(folder, name), os.R_OK) for name in ("rootCA.pem", "rootCA-key.pem"))


def can_vouch(host: str) -> bool:
    """Whether a certificate of this machine's authority may be for an address."""
    return any(ipaddress.ip_address(host) in network for network in NETWORKS)


def is_trusted() -> bool:
    """Whether the authority was installed, as far as that is known."""
    return has_mkcert() or os.path.exists(os.path.join(own_folder(), RECORD))
