"""One process that serves and is never replaced, and the event loop that every serving process has.

Signals end it: the first drains, the second leaves at once. Knows nothing of supervisors.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from types import FrameType
from typing import TYPE_CHECKING

from devserver import console
from devserver.config import Config
from devserver.errors import DevserverError
from devserver.events import Events

if TYPE_CHECKING:
    from devserver.app import Application
    from devserver.server import Serving
    from devserver.stage import Program

logger = logging.getLogger("devserver")

EXIT_FORCED = 130
"""After a second Ctrl-C."""


def run_loop(serving: Serving, config: Config, ready: Callable[[], None]) -> None:
    for name in ("devserver", "devserver.access"):
        # Disabled by `logging.config`, as it does by default, if the application has used it.
        logging.getLogger(name).disabled = False
    import asyncio

    from devserver.process.signals import Bell
    from devserver.server import loop_factory

    with closing(Bell()) as bell, asyncio.Runner(loop_factory=loop_factory(config.http.loop)) as runner:
        loop = runner.get_loop()
        if isinstance(loop, asyncio.SelectorEventLoop):  # uvloop sees to it itself
            loop.add_reader(bell, bell.wait)
            with bell.rung_by_signals():
                runner.run(serving.run(ready))
        else:
            runner.run(serving.run(ready))


def serve_alone(
    config: Config, sockets: list[socket.socket], events: Events, program: Program, found: str
) -> int:
    """Serve in this process. Returns the exit code.

    Args:
        found: what is served, by name; "" if that is not known.
    """
    from time import perf_counter

    from devserver.gateway.lifespan import StartupFailed
    from devserver.server import Serving
    from devserver.stage import Stage

    began = perf_counter()
    events.emit("starting", target=found or None)

    def elapsed() -> dict[str, object]:
        return {"generation": 1, "pid": os.getpid(), "seconds": round(perf_counter() - began, 4)}

    def ready() -> None:
        logger.info("%s", console.ready(perf_counter() - began))
        events.emit("serving", **elapsed())
        stage.on_serving()

    def serve(application: Application) -> int:
        events.emit("loaded", **elapsed())
        serving = Serving(config, application, sockets)
        stage.in_main(lambda: _stop_on_signals(serving, config.http.graceful))
        stage.outcome.append(0)
        try:
            run_loop(serving, config, ready)
        except StartupFailed as error:
            events.emit("failed", phase="lifespan", error=str(error), traceback="")
            logger.error("%s", console.format_failure(error.__cause__).rstrip() if error.__cause__ else error)
            stage.outcome[:] = [3]
        else:
            logger.info("stopped")
            events.emit("stopped")
        return stage.outcome[0]

    stage = Stage(config, sockets, serve)
    try:
        return stage.play(program)
    except DevserverError as error:
        events.emit("failed", phase="load", error=str(error), traceback="")
        raise
    except Exception as error:  # user code
        trace = console.format_failure(error)
        events.emit("failed", phase="load", error=str(error), traceback=trace)
        logger.error("%s", trace.rstrip())
        return 1


def _stop_on_signals(serving: Serving, graceful: float) -> None:
    """The first signal drains, the second ends at once.

    Python's own handlers, not the loop's: they run even while a view blocks the loop. In a thread of
    somebody else's there can be none, and whoever made the thread sees to its end.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    came: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        if len(came) > 1:
            _leave(EXIT_FORCED)
        # In a thread: the lock within `stop` may be held by the very code that this interrupts.
        threading.Thread(target=serving.stop, args=(graceful,), daemon=True).start()
        last = threading.Timer(2 * graceful + 1, _leave, (0,))
        last.daemon = True
        last.start()

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)


def _leave(code: int) -> None:
    from devserver.process.ending import flush

    flush()
    os._exit(code)
