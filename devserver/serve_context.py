"""What a program is given that loads an application: the way to have it served.

A *program* runs in the process that serves. It loads an application however it likes, calls
`ServeContext.serve` once, and returns or raises when that has returned. Most load a module's attribute;
`manage.py runserver` loads a whole project, calls from deep within it, and has a say in what a
changed file means.

Knows neither processes nor what serving is: all of it comes as callables.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from devserver.console import folded, format_failure
from devserver.errors import ApplicationError

if TYPE_CHECKING:
    from devserver.app import Application
    from devserver.config import Config

logger = logging.getLogger("devserver")


def _call(what: Callable[[], None]) -> None:
    what()


_GREEN: dict[str, Callable[[Any], bool]] = {
    "gevent.monkey": lambda module: module.is_module_patched("socket"),
    "eventlet.patcher": lambda module: module.is_monkey_patched("socket"),
}


def refuse_green() -> None:
    """Refuse an application that has made the standard library another one, in which no event loop runs.

    Raises:
        ApplicationError: it has.
    """
    for name, has_patched in _GREEN.items():
        if name in sys.modules and has_patched(sys.modules[name]):
            library = name.partition(".")[0]
            raise ApplicationError(
                f"{library} has patched the standard library, and asyncio, which devserver needs, does not"
                f" run in it: patch it in production only, or serve it with gunicorn -k {library} --reload"
            )


def _all(paths: list[str]) -> list[str]:
    return paths


def _never(path: str) -> bool:
    """Where nobody notes what is read."""
    return False


def _nothing(*arguments: object) -> None:
    """Where nobody restarts this process, nobody has to be told."""


def _log(error: BaseException) -> None:
    """Where there is no supervisor to show it."""
    logger.error("%s", folded(format_failure(error)).rstrip())


@dataclass(slots=True)
class ServeContext:
    """See the module.

    Attributes:
        config: of this process.
        sockets: listening, and what will be served on.
        serve: serves an application until the end; returns the exit code. See `in_main`.
        fail: takes an exception for which what is being served should not be; any thread.
        restart: takes the path because of which a restart is wanted; any thread.
        watch: takes a folder and a pattern like `**/*`: files there count, read or not. Any thread.
        accept: takes a path of which a change has been dealt with; any thread.
        in_main: set by a program that serves in another thread: has something called in the main thread,
            the only one that can handle signals.
        on_serving: set by the program; called, in the event loop, when requests are answered.
        on_change: set by the program before `serve`; given changed paths, returns those for which a
            restart is needed. Called in the event loop or in a thread, of which several may run.
        was_loaded: set by who serves; whether a file was read before the application served.
        outcome: the exit code, as soon as something is or was served; else empty.
    """

    config: Config
    sockets: Sequence[socket.socket]
    serve: Callable[[Application], int]
    fail: Callable[[BaseException], None] = _log
    restart: Callable[[str], None] = _nothing
    watch: Callable[[str, str], None] = _nothing
    accept: Callable[[str], None] = _nothing
    in_main: Callable[[Callable[[], None]], None] = _call
    on_serving: Callable[[], None] = _nothing
    on_change: Callable[[list[str]], list[str]] = _all
    was_loaded: Callable[[str], bool] = _never
    outcome: list[int] = field(default_factory=list)

    @property
    def has_say(self) -> bool:
        """Whether the program wants to be asked what a change means."""
        return self.on_change is not _all

    def run(self, program: Program) -> int:
        """Run a program. Returns the exit code of what it had served, whatever came after that.

        Raises:
            BaseException: what the program raised before it had anything served.
        """
        try:
            code = program(self)
        except BaseException as error:  # user code
            if not self.outcome:
                raise
            if not isinstance(error, SystemExit):
                logger.error("after the end of serving:", exc_info=error)
            return self.outcome[0]
        return self.outcome[0] if self.outcome else code


Program = Callable[[ServeContext], int]
"""Loads an application, has it served, and returns the exit code."""
