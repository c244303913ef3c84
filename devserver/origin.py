"""How a process was started, before anything had its say. Linux; elsewhere only Python's word is known."""

from __future__ import annotations

from collections.abc import Mapping

from devserver import procfs

_OURS = "DEVSERVER_"


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
    ours = {name: value for name, value in environ.items() if name.startswith(_OURS)}
    return {name: value for name, value in began.items() if not name.startswith(_OURS)} | ours
