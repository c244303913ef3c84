"""A process that has done what comes before the first user code, and copies itself for each question.

Each copy loads the application as devserver does that serves without `--reload`, and says in which state
it is then, or how it failed. Nothing of it is left for the next. Bytecode is neither read nor written: two
saves within a second may leave a .pyc that passes for another text's. What the application sleeps is
skipped.

Run in a project's folder. Reads lines, answers each with a line of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

TARGET = "main:app"

LIBRARY = (
    *("copy", "decimal", "glob", "importlib.metadata", "importlib.resources", "inspect", "linecache"),
    *("mimetypes", "pathlib", "pkgutil", "random", "runpy", "tempfile", "tokenize", "zipfile"),
)
"""What the applications of the tests import. To compile it would take most of the time of a load."""


def state() -> dict[str, Any]:
    """Load the application; what it says of itself, or how it failed."""
    from devserver import target
    from devserver.child.process import ChildProcess
    from devserver.config import Config
    from devserver.process.control import Channel

    ours, theirs = socket.socketpair()
    child = ChildProcess(Channel(ours), Config(TARGET))
    try:
        application = target.load(Config(TARGET))
    except BaseException as error:  # user code
        trace = error.__traceback__
        child.failed(error.with_traceback(trace and trace.tb_next))
        message, _ = Channel(theirs).receive_one()
        return {"failed": [message["error"], message["traceback"]]}
    found: dict[str, Any] = sys.modules[application.callable.__module__].state()
    return found


def copy() -> bytes:
    """The state of a copy of this process."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 1)
            with open(write, "w") as file:
                file.write(json.dumps(state()))
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            raise
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        data = answer.read()
    os.waitpid(pid, 0)
    return data


def answer() -> None:
    """Answer until the end of the file."""
    from devserver.child import main

    main.prepare()
    for name in LIBRARY:
        importlib.import_module(name)
    sys.pycache_prefix = str(Path("__nothing__").absolute())
    sys.dont_write_bytecode = True
    time.sleep = lambda seconds: None
    while sys.stdin.readline():
        os.write(1, copy() + b"\n")


if __name__ == "__main__":
    del sys.path[0]
    answer()
