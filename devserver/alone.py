"""One process that serves and is never replaced, and the event loop that every serving process has.

Signals end it: the first drains, the second leaves at once. Knows nothing of supervisors.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import closing
from time import sleep
from types import FrameType
from typing import TYPE_CHECKING, Any

from devserver import console
from devserver.config import Config
from devserver.errors import DevserverError
from devserver.events import Events
from devserver.process import WORKER
from devserver.process.signals import Bell, ending

if TYPE_CHECKING:
    from devserver.app import Application
    from devserver.managers.systemd import Notifier
    from devserver.serve_context import Program
    from devserver.server import Serving

logger = logging.getLogger("devserver")

EXIT_FORCED = 130
"""After a second Ctrl-C."""

_LOOK = 0.1
"""Seconds between two looks at who handles the signals while the application starts up."""

_SLACK = 0.5
"""Seconds between the end of a grace and the end of the process: for cancelled tasks to unwind."""


def run_loop(serving: Coroutine[Any, Any, None], config: Config) -> None:
    for name in ("devserver", "devserver.access"):
        # Disabled by `logging.config`, as it does by default, if the application has used it.
        logging.getLogger(name).disabled = False
    import asyncio

    from devserver.server import loop_factory

    with closing(Bell()) as bell, asyncio.Runner(loop_factory=loop_factory(config.http.loop)) as runner:
        loop = runner.get_loop()
        if isinstance(loop, asyncio.SelectorEventLoop):  # uvloop sees to it itself
            loop.add_reader(bell, bell.wait)
            with bell.rung_by_signals():
                runner.run(serving)
        else:
            runner.run(serving)


def serve_alone(
    config: Config,
    sockets: list[socket.socket],
    events: Events,
    program: Program,
    found: str,
    notifier: Notifier | None = None,
) -> int:
    """Serve in this process. Returns the exit code.

    Args:
        found: what is served, by name; "" if that is not known.
        notifier: tells a manager of services that the event loop turns.
    """
    from time import perf_counter

    from devserver.gateway.lifespan import StartupFailed
    from devserver.serve_context import ServeContext, refuse_green
    from devserver.server import Serving

    began = perf_counter()
    os.environ[WORKER] = "1"  # an application need not ask how many there are
    events.emit("starting", target=found or None)

    def elapsed() -> dict[str, object]:
        return {"generation": 1, "pid": os.getpid(), "seconds": round(perf_counter() - began, 4)}

    def on_serving() -> None:
        logger.info("%s", console.ready(perf_counter() - began))
        events.emit("serving", **elapsed())
        if notifier is not None and notifier.interval is not None:
            _beat(notifier, notifier.interval)
        context.on_serving()

    def serve(application: Application) -> int:
        refuse_green()
        events.emit("loaded", **elapsed())
        serving = Serving(config, application, sockets, on_closing=lambda: end.closing())
        end = Ending(serving, config.http.graceful, lambda: events.emit("stopping"), ending())
        context.in_main(end.listen)
        context.outcome.append(0)
        try:
            run_loop(end.heard(serving.run(on_serving)), config)
        except StartupFailed as error:
            events.emit("failed", phase="lifespan", error=str(error), traceback="")
            trace = console.format_failure(error.__cause__) if error.__cause__ else str(error)
            logger.error("%s", console.folded(trace).rstrip())
            context.outcome[:] = [3]
        else:
            logger.info("stopped")
            events.emit("stopped")
        return context.outcome[0]

    context = ServeContext(config, sockets, serve)
    try:
        return context.run(program)
    except DevserverError as error:
        events.emit("failed", phase="load", error=str(error), traceback="")
        raise
    except Exception as error:  # user code
        trace = console.format_failure(error)
        events.emit("failed", phase="load", error=console.summarise(error), traceback=trace)
        logger.error("%s", console.folded(trace).rstrip())
        return 1


def _beat(notifier: Notifier, interval: float) -> None:
    """Tell the watchdog now, and again every so many seconds, as long as the event loop turns."""
    import asyncio

    notifier.beat()
    asyncio.get_running_loop().call_later(interval, _beat, notifier, interval)


class Ending:
    """The first signal drains, the second ends at once, and nothing that the application does keeps it up.

    Python's own handlers, not the loop's: they run even while a view blocks the loop. An application that
    takes a signal for itself, as a lifespan does that wants to know of the end, is called as well.

    Attributes:
        restart: somebody else serves next; see `Serving.stop`.
    """

    def __init__(
        self, serving: Serving, graceful: float, on_first: Callable[[], None], signums: Iterable[int]
    ) -> None:
        """
        Args:
            graceful: seconds for requests in flight, and after them for the lifespan's shutdown.
            on_first: called when the first signal has come, in a thread.
            signums: the signals that end it.
        """
        self.restart = False
        self._signums = list(signums)
        self._serving = serving
        self._on_first = on_first
        self._graceful = graceful
        self._came = 0
        self._others: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._closing = threading.Event()
        self._listens = False

    def listen(self) -> None:
        """Handle the signals that somebody else handles by now.

        In a thread of somebody else's there can be no handler, and whoever made the thread sees to its end.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in self._signums:
            if (before := signal.getsignal(signum)) != self._stop:
                if self._listens and callable(before):
                    self._others[signum] = before
                signal.signal(signum, self._stop)
        self._listens = True

    async def heard(self, serving: Coroutine[Any, Any, None]) -> None:
        """Serve, and listen again as long as the application starts up: then it may take a signal."""
        import asyncio

        loop = asyncio.get_running_loop()

        def look() -> None:
            self.listen()
            if not self._serving.started:
                loop.call_later(_LOOK, look)

        look()
        await serving

    def closing(self) -> None:
        """The drain is over, and the lifespan's shutdown begins."""
        self._closing.set()

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self._came += 1
        if self._came > 1:
            _leave(EXIT_FORCED)
        self.begin()
        if signum in self._others:
            try:
                self._others[signum](signum, frame)
            except (Exception, SystemExit, KeyboardInterrupt):  # it ends all the same
                logger.debug("the application's handler of a signal raised", exc_info=True)

    def begin(self) -> None:
        """Drain, and end in time; any thread."""
        # In threads: the lock within `stop` may be held by the very code that a signal interrupts.
        for target in (self._drain, self._give_up):
            threading.Thread(target=target, name="devserver-signal", daemon=True).start()

    def _drain(self) -> None:
        self._on_first()
        self._serving.stop(self._graceful, self.restart)

    def _give_up(self) -> None:
        """End a process whose loop does not turn, or in which something does not end."""
        if self._closing.wait(self._graceful + _SLACK):  # then come the lifespan, threads, exit handlers
            sleep(self._graceful + _SLACK)
        logger.warning("still running at the end of --timeout-graceful-shutdown, and ended")
        _leave(0)


def _leave(code: int) -> None:
    from devserver.process.ending import flush

    flush()
    os._exit(code)
