"""Where the local authority lies, and whether this machine trusts it. Light: no library of certificates here.

In the user's data folder and never in a project, where it would be committed, copied and served.
"""

from __future__ import annotations

import os
import sys

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


def is_trusted() -> bool:
    """Whether the authority was installed, as far as that is known."""
    return has_mkcert() or os.path.exists(os.path.join(own_folder(), RECORD))
