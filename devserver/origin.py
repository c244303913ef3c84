"""How a process was started, before anything had its say. Linux; elsewhere only Python's word is known."""

from __future__ import annotations

import os
from collections.abc import Mapping

_OURS = "DEVSERVER_"


def words_of(process: str, name: str) -> list[str]:
    """The words of a file in /proc, which end in NUL each; none where the system does not tell.

    Args:
        process: a process id, or "self".
        name: "cmdline" or "environ".
    """
    try:
        with open(f"/proc/{process}/{name}", "rb") as file:
            data = file.read()
    except OSError:
        return []
    return [os.fsdecode(word) for word in data.removesuffix(b"\0").split(b"\0")]


def environ_of(process: str) -> dict[str, str]:
    """The variables that a process was started with; none where the system does not tell."""
    pairs = (word.partition("=") for word in words_of(process, "environ"))
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
    ours = {name: value for name, value in environ.items() if name.startswith(_OURS)}
    return {name: value for name, value in began.items() if not name.startswith(_OURS)} | ours
