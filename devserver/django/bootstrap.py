"""The process that was started with `manage.py runserver`: it becomes the supervisor, by exec.

When `devserver.django`, first in INSTALLED_APPS, is imported, the settings are loaded and nothing
else is. That is the earliest moment at which there is anything of ours, so it is then that this
process is replaced. What it was started with, arguments and environment, is taken from before
Python and the project had their say: variables that the settings have read from a `.env` file must
not shadow what the next generation reads from it.

It comes later, from the command, when only Django understands the command line, or when an
application before ours brings a command of its own (whitenoise's, a company's): that one may have
other defaults.

**When Django was first.** If the project could not be set up, Django's own reloader stands where a
supervisor should, and has removed the options that it does not know from the command line. It starts
a process for each attempt, and the one in which we are imported at last becomes the supervisor then,
inside of it. What was typed is read from the process above. A signal to that one ends both.

Refuses to know what a supervisor does.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:  # any command of manage.py imports this module, and most need no more of it
    from devserver.django.command_line import Wanted

WANTED = "DEVSERVER_DJANGO"
"""How the supervisor is told what was wanted; it takes it out of its environment."""

MODULE = "devserver.django"
COMMAND = "runserver"


class Origin(NamedTuple):
    """How a process was started, before anything had its say.

    Attributes:
        arguments: what followed `python`.
        environ: its variables.
    """

    arguments: list[str]
    environ: Mapping[str, str]


def on_import() -> None:
    """Become the supervisor if this process is about to run the command."""
    argv = command_in(sys._getframe())
    if argv is None or threading.current_thread() is not threading.main_thread():
        return
    from devserver.django import serving
    from devserver.django.command_line import read

    if serving.context() is not None:
        return
    origin = _origin()
    typed = origin.arguments if _is_attempt() and COMMAND in origin.arguments else argv
    wanted = None if _has_rivals() else read(typed[typed.index(COMMAND) + 1 :])
    if wanted is not None:
        become_supervisor(wanted)
    autoreload = importlib.import_module("django.utils.autoreload")
    vars(autoreload)["run_with_reloader"] = instead_of_reloader


def instead_of_reloader(inner_run: Any, *arguments: Any, **options: Any) -> NoReturn:
    """What stands for Django's `run_with_reloader`, for the command of another application.

    Args:
        inner_run: a method of the command, which knows the address by now.
    """
    from devserver.django.command_line import Wanted, own_options

    command = inner_run.__self__
    become_supervisor(Wanted(command.addr, str(command.port), command.use_ipv6, own_options(options)))


def command_in(frame: FrameType | None) -> list[str] | None:
    """The arguments with which Django runs our command, from its name on the stack; None if it does not."""
    while frame is not None:
        if frame.f_code.co_name == "execute" and frame.f_globals.get("__name__") == "django.core.management":
            argv = list(getattr(frame.f_locals.get("self"), "argv", ()))
            return argv if argv[1:2] == [COMMAND] else None
        frame = frame.f_back
    return None


def _has_rivals() -> bool:
    """Whether an application before ours brings a command of the same name."""
    from django.apps import apps

    place = os.path.join("management", "commands", COMMAND + ".py")
    return any(os.path.exists(os.path.join(config.path, place)) for config in apps.app_configs.values())


def become_supervisor(wanted: Wanted) -> NoReturn:
    """Replace this process."""
    from devserver.django.command_line import split

    origin = _origin()
    flags, program = split(origin.arguments)
    if program and not program[0].startswith("-") and not os.path.exists(program[0]):
        program[0] = str(getattr(sys.modules["__main__"], "__file__", program[0]))  # it has changed folders
    environ = {name: value for name, value in origin.environ.items() if name != "RUN_MAIN"}
    environ[WANTED] = json.dumps(wanted.to_json())
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    command = [sys.executable, *flags, "-m", MODULE, *program]
    if sys.platform == "win32":
        sys.exit(_stand_for(command, environ))  # there, exec is another process, and the shell goes on
    os.execve(sys.executable, command, environ)


def _stand_for(command: Sequence[str], environ: Mapping[str, str]) -> int:
    process = subprocess.Popen(command, env=dict(environ))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            pass  # it has come to both


def _is_attempt() -> bool:
    """Whether this process is one that Django's reloader has started."""
    return os.environ.get("RUN_MAIN") == "true"


def _origin() -> Origin:
    from devserver.origin import environ_of
    from devserver.procfs import words

    # A debugger has put itself before the program, and does so again by itself for whatever is started.
    arguments = _program() if "pydevd" in sys.modules else list(sys.orig_argv[1:])
    own = Origin(arguments, environ_of("self") or dict(os.environ))
    if _is_attempt():
        above = words(os.getppid(), "cmdline")
        if COMMAND in above:
            return Origin(above[1:], environ_of(f"{os.getppid()}") or own.environ)
    return own


def _program() -> list[str]:
    """The program that runs, and its arguments, whoever has started it."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return ["-m", main.__spec__.name.removesuffix(".__main__"), *sys.argv[1:]]
    return list(sys.argv)
