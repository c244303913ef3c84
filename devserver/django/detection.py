"""`devserver` with no target, in a folder with a manage.py: the project is served as `runserver` does it.

Whether the project names us in INSTALLED_APPS or not: the command that serves is ours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from socket import socket

from devserver.serve_context import ServeContext

SCRIPT = "manage.py"
_SIGN = b"DJANGO_SETTINGS_MODULE"


def program(context: ServeContext) -> int:
    """Serve the project if there is one and nothing else was named. Returns the exit code.

    Raises:
        BaseException: what the project raised.
    """
    section = context.config.app
    if section.target is not None or not is_project(section.app_dir):
        from devserver.django.urls import load_urls
        from devserver.target import serve_target

        return serve_target(context, load_urls)
    from devserver.django.project import play

    script = os.path.join(section.app_dir, SCRIPT)
    here = os.path.relpath(script) == SCRIPT
    return play(context, [SCRIPT if here else script, "runserver", *_address(context.sockets)])


def found(folder: str) -> str:
    """What is served from a folder where nothing is named; "" if that is no project."""
    return SCRIPT if is_project(folder) else ""


def is_project(folder: str) -> bool:
    """Whether a folder has a manage.py of Django's."""
    try:
        with open(os.path.join(folder, SCRIPT), "rb") as file:
            return _SIGN in file.read()
    except OSError:
        return False


def _address(sockets: Sequence[socket]) -> list[str]:
    """Where it is served, as `runserver` would be told, and tells; nothing for a Unix socket."""
    for sock in sockets:
        name = sock.getsockname()
        if isinstance(name, tuple):
            return [f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"]
    return []
