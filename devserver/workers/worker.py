"""What a worker does: loads the application, serves it, and tells the arbiter that its loop turns.

Like `alone`, but the arbiter ends it, and replaces it. Ctrl-C comes to all processes of a terminal; it is the
arbiter that acts on it.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from devserver import console
from devserver.alone import Ending, run_loop
from devserver.app import Application
from devserver.config import Config
from devserver.errors import DevserverError
from devserver.events import Events
from devserver.gateway.lifespan import StartupFailed
from devserver.http.exchange import Handler
from devserver.http.tally import Share, Tally
from devserver.process import WORKER
from devserver.process.control import Channel, Closed, Message, pack, unpack
from devserver.process.limits import raised
from devserver.process.signals import leave_interrupts
from devserver.serve_context import Program, ServeContext, refuse_green
from devserver.server import Serving
from devserver.workers import words

logger = logging.getLogger("devserver")

BEATS = 4
"""How often a worker says that its loop turns, within the time in which it must."""

STARTUP_FAILED = 3
"""The exit code after a lifespan that did not start up."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What a worker is given that no other has.

    Attributes:
        place: 1 to the number of workers.
        slot: of a tally.
        channel: to the arbiter.
    """

    place: int
    slot: int
    channel: Channel


class Worker:
    """See the module."""

    def __init__(
        self,
        config: Config,
        sockets: Sequence[socket.socket],
        events: Events,
        seat: Seat,
        tally: Tally | None,
    ) -> None:
        """Args: tally: what all workers have to do, if it matters."""
        self._config = config
        self._sockets = sockets
        self._events = events
        self._place = seat.place
        self._channel = seat.channel
        self._share = None if tally is None else Share(tally, seat.slot)
        self._end: Ending | None = None
        self._serving: Serving | None = None
        self._lock = threading.Lock()
        self._before: frozenset[Handler] = frozenset()

    def work(self, program: Program) -> int:
        """Have a program's application served. Returns the exit code."""
        leave_interrupts()
        console.configure(self._config.log, worker=self._place)
        self._begin()
        self._context = ServeContext(self._config, self._sockets, self._serve)
        return run_program(self._context, program, self._events, self._place)

    def work_with(self, application: Application, context: ServeContext) -> int:
        """Serve an application that has been loaded. Returns the exit code.

        Args:
            context: on which it was.
        """
        console.number(self._place)
        self._begin()
        self._context = context
        return self._serve(application)

    def _begin(self) -> None:
        os.environ[WORKER] = str(self._place)
        faulthandler.enable()  # for an arbiter that wants to know where this process stands
        threading.Thread(target=self._listen, name="devserver-arbiter", daemon=True).start()

    def _serve(self, application: Application) -> int:
        refuse_green()
        section = self._config.workers
        requests = None
        if section.max_requests is not None:
            requests = _Requests(section.max_requests + random.randint(0, section.jitter), self._say_worn)
        serving = self._serving = Serving(
            self._config,
            application,
            self._sockets,
            on_closing=lambda: end.closing(),
            gate=requests,
            # A TLS session cannot go to another process.
            hand_over=None if self._config.tls.enabled else self._hand_over,
            share=self._share,
        )
        end = Ending(serving, self._config.http.graceful, self._say_leaving, [signal.SIGTERM])
        end.restart = True
        self._end = end
        end.listen()
        self._context.outcome.append(0)
        try:
            run_loop(end.heard(serving.run(self._on_serving)), self._config)
        except StartupFailed as error:
            self._events.emit("failed", phase="lifespan", error=str(error), traceback="", worker=self._place)
            trace = console.format_failure(error.__cause__) if error.__cause__ else str(error)
            logger.error("%s", console.folded(trace).rstrip())
            self._context.outcome[:] = [STARTUP_FAILED]
        return self._context.outcome[0]

    def _on_serving(self) -> None:
        self._say({"word": words.SERVING})
        self._context.on_serving()
        if self._config.workers.healthcheck:
            self._beat()

    def _beat(self) -> None:
        """Say that the loop turns; but not while all threads are at work and none has come to an end."""
        import asyncio

        assert self._serving is not None
        running = frozenset(self._serving.running)
        stands_still = len(running) >= self._threads and self._before and self._before <= running
        self._before = running if len(running) >= self._threads else frozenset()
        if not stands_still:
            self._say({"word": words.TURNS})
        asyncio.get_running_loop().call_later(self._config.workers.healthcheck / BEATS, self._beat)

    @property
    def _threads(self) -> float:
        """How many requests are worked on at once; there is no bound where they are tasks."""
        assert self._serving is not None
        return self._config.http.wsgi_threads if self._serving.has_threads else float("inf")

    # the arbiter

    def _listen(self) -> None:
        """In a thread of its own: do what the arbiter says; its end is ours."""
        last = True
        try:
            while (message := (heard := self._heard())[0])["word"] == words.CONNECTIONS:
                self._adopt(unpack(message["sizes"], message.get("data", b""), heard[1]))
            last = message["last"]
        except Closed:
            pass
        if self._end is None:  # only one whose arbiter has gone comes here, and it serves nobody
            os._exit(1)
        if last:
            self._end.restart = False
        self._end.begin()

    def _heard(self) -> tuple[Message, list[int]]:
        """Wait for a word, whose descriptors this process must take although it may have all that it may."""
        while not self._channel.wait(3600.0):
            pass
        with raised():
            return self._channel.receive_one()

    def _adopt(self, connections: list[tuple[int, bytes]]) -> None:
        """Serve connections that another worker has left; if this one leaves, they stay the arbiter's."""
        assert self._serving is not None
        found = [(socket.socket(fileno=fd), data) for fd, data in connections]
        if not self._serving.adopt(found, lambda: self._say({"word": words.RECEIVED})):
            for connection, _ in found:
                connection.close()

    def _hand_over(self, connections: list[tuple[int, bytes]]) -> None:
        for fds, sizes, data in pack(connections):
            self._say({"word": words.CONNECTIONS, "sizes": sizes, "data": data}, fds)

    def _say(self, message: dict[str, object], fds: Sequence[int] = ()) -> None:
        with self._lock, suppress(Closed):  # `_listen` sees it, too
            self._channel.send(message, fds)

    def _say_worn(self, why: str) -> None:
        self._say({"word": words.WORN, "why": why})

    def _say_leaving(self) -> None:
        self._say({"word": words.LEAVING})


def run_program(context: ServeContext, program: Program, events: Events, place: int = 0) -> int:
    """Have a program load an application, and tell of its failure. Returns the exit code.

    Args:
        place: of the worker that loads; 0 for one that loads for all.
    """
    try:
        return context.run(program)
    except DevserverError as error:
        events.emit("failed", phase="load", error=str(error), traceback="", worker=place)
        logger.error("%s", error)
    except Exception as error:  # user code
        trace = console.format_failure(error)
        events.emit("failed", phase="load", error=str(error), traceback=trace, worker=place)
        logger.error("%s", console.folded(trace).rstrip())
    return 1


class _Requests:
    """A gate that lets all in, and counts them."""

    def __init__(self, limit: int, over: Callable[[str], None]) -> None:
        self._left = limit
        self._limit = limit
        self._over = over

    def lets_in(self) -> bool:
        self._left -= 1
        if self._left == 0:
            self._over(f"it has begun {self._limit} requests (--limit-max-requests)")
        return True
