"""`python -m devserver.django manage.py runserver`: the supervisor of a Django project, and its child.

What stands behind the module is the program as it was started. A supervisor binds where it was
wanted and never loads it; the child runs it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from devserver.config import Config, resolve
from devserver.django.bootstrap import COMMAND, WANTED
from devserver.django.command_line import DEFAULT_HOST, DEFAULT_HOST_6, DEFAULT_PORT, Wanted, read
from devserver.errors import DevserverError, UsageError
from devserver.process import adopt
from devserver.serve_context import ServeContext


def main() -> None:
    """Be a child if a supervisor made this process, else supervise."""
    gc.disable()  # see `devserver.__main__`
    program = sys.argv[1:]
    channel = adopt()
    if channel is not None:
        from devserver.child.main import run
        from devserver.process.ending import leave
        from devserver.process.prompt import debugged

        leave(run(channel, lambda context: _run_program(context, program)), whole=debugged())
    try:
        from devserver.launch import start

        sys.exit(start(configure(_wanted(program), program)))
    except DevserverError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def _run_program(context: ServeContext, program: Sequence[str]) -> int:
    from devserver.django.project import play

    return play(context, program)


def _wanted(program: Sequence[str]) -> Wanted:
    """What `bootstrap` has found out; or, typed by hand, what the command line says."""
    told = os.environ.pop(WANTED, "")
    if told:
        return Wanted(**json.loads(told))
    wanted = read(program[program.index(COMMAND) + 1 :]) if COMMAND in program else None
    if wanted is None:
        raise UsageError(f"write python -m devserver.django manage.py {COMMAND}, with options that it knows")
    return wanted


def name_of(program: Sequence[str]) -> str:
    """What to call a program: `manage.py`, `django-admin`, or the module that it is."""
    return program[1] if program[0] == "-m" else os.path.basename(program[0])


def configure(wanted: Wanted, program: Sequence[str]) -> Config:
    """The configuration for a project: devserver's own, with Django's habits where it says nothing.

    Raises:
        UsageError: an option cannot be used.
    """
    given: dict[str, Any] = dict(wanted.options)
    given.update(target=name_of(program), reload=True)
    if not program[0].startswith("-"):
        given["app_dir"] = os.path.dirname(os.path.abspath(program[0]))
    if wanted.port is not None:
        given["port"] = wanted.port
    if wanted.host is not None:
        given["host"] = wanted.host
    config = resolve(given, os.environ, os.getcwd())
    habits = {"host": DEFAULT_HOST_6 if wanted.ipv6 else DEFAULT_HOST, "port": DEFAULT_PORT}
    missing = {name: value for name, value in habits.items() if config.sources[name] == "default"}
    return resolve({**given, **missing}, os.environ, os.getcwd()) if missing else config


if __name__ == "__main__":
    main()
