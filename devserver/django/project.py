"""The program of a child: runs manage.py, or what was started instead of it, as `__main__`.

As Python would: `sys.argv`, `sys.path`, `__file__`. The command that it ends in serves from within.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from types import ModuleType

from devserver.django import patches, serving
from devserver.dotenv import load as load_environment
from devserver.errors import TargetError
from devserver.serve_context import ServeContext


def play(context: ServeContext, program: Sequence[str]) -> int:
    """Run a program that serves.

    Args:
        program: what would follow `python`: a script, `-m` and a module, or `-c` and code; and arguments.

    Raises:
        TargetError: it has ended without serving anything.
        BaseException: what it raised.
    """
    serving.set_stage(context)
    patches.take()
    if context.config.app.env_file is not None:
        load_environment(context.config.app.env_file, os.environ)
    first, *rest = program
    if first == "-m":
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv[:] = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), _main(None).__dict__)
    else:
        sys.argv[:] = program
        _run_script(first)
    if not context.outcome:
        raise TargetError(f"{' '.join(program)} has ended and served nothing")
    return context.outcome[0]


def _run_script(path: str) -> None:
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        runpy.run_path(path, run_name="__main__")
        return
    with open(path, "rb") as file:
        text = file.read()
    exec(compile(text, os.path.abspath(path), "exec"), _main(path).__dict__)


def _main(path: str | None) -> ModuleType:
    """A fresh `__main__`: ours has names of its own."""
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = __builtins__
    if path is not None:
        module.__file__ = os.path.abspath(path)
    sys.modules["__main__"] = module
    return module
