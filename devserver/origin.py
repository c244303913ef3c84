"""How a process was started, before anything had its say. Linux; elsewhere only Python's word is known."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from devserver import procfs

_OURS = "DEVSERVER_"
_LISTEN = ("LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID")
_FOR_ONE = (*_LISTEN, "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""What a manager of services sets for one process, which takes it out of its environment."""


def folder_at_start() -> str | None:
    """The folder in which this program was started, if its script has changed to another one since.

    Then a program that is started by the same arguments would not find the script.
    """
    path = getattr(sys.modules["__main__"], "__file__", None) or ""
    for word in sys.orig_argv[1:]:
        if path.endswith(os.sep + word):  # Python has joined them
            began = path[: -len(word) - 1] or os.sep
            return began if os.path.isdir(began) and began != os.getcwd() else None
    return None


def environ_of(process: str) -> dict[str, str]:
    """The variables that a process was started with; none where the system does not tell."""
    pairs = (word.partition("=") for word in procfs.words(process, "environ"))
    return {name: value for name, _, value in pairs if name}


def environ_for_another(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for a process that shall begin as this one did.

    What a `sitecustomize` has changed it will change itself: an agent that instruments programs from there
    may take its folder out of PYTHONPATH. What is ours is taken as it is now.

    Args:
        environ: this process's variables as they are now.
    """
    began = environ_of("self")
    if not began:
        return dict(environ)
    ours = {name: value for name, value in environ.items() if _is_kept(name)}
    return {name: value for name, value in began.items() if not _is_kept(name)} | ours


def _is_kept(name: str) -> bool:
    """Whether a variable's value now counts, and not the one that this process was started with."""
    return name.startswith(_OURS) or name in _FOR_ONE
