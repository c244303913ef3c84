"""What a loader does: loads the application once, and forks the workers that serve it.

Nothing is served here, and there is neither a loop nor a thread of ours: a fork is as good as the loader.
What the application has made that a fork lacks or shares, a thread or a connection, is told of once.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from devserver import console
from devserver.app import Application
from devserver.config import Config
from devserver.cpython import CAN_COPY, keep_all
from devserver.events import Events
from devserver.http.tally import Tally
from devserver.process.control import Channel, Closed
from devserver.process.signals import Signals, leave_interrupts
from devserver.serve_context import Program, ServeContext, refuse_green
from devserver.workers import words
from devserver.workers.worker import Seat, Worker, run_program

if sys.platform != "win32":
    from devserver.workers.births import fork

assert sys.platform != "win32"  # see the arbiter; a type checker reads no further there

logger = logging.getLogger("devserver")


class Loader:
    """See the module."""

    def __init__(
        self,
        config: Config,
        sockets: Sequence[socket.socket],
        events: Events,
        channel: Channel,
        tally: Tally | None,
    ) -> None:
        """
        Args:
            channel: to the arbiter.
            tally: what all workers have to do, if it matters.
        """
        self._config = config
        self._sockets = sockets
        self._events = events
        self._channel = channel
        self._tally = tally
        self._living: set[int] = set()

    def run(self, program: Program) -> int:
        """Load what the program loads, fork workers as told, end. Returns the exit code."""
        leave_interrupts()
        console.show_prints_at_once()
        self._inherited = _look_what_is_there(self._channel)
        self._context = ServeContext(self._config, self._sockets, self._serve)
        return run_program(self._context, program, self._events)

    def _serve(self, application: Application) -> int:
        """What the program calls when it has loaded the application."""
        refuse_green()
        if found := self._inherited():
            logger.warning(
                "--preload: %s was made while the application was loaded, and workers miss or share it:"
                " make it in the lifespan, or leave --preload out",
                found,
            )
        gc.collect()
        keep_all()  # a collection in a worker would write to all that they share
        self._context.outcome.append(0)
        with Signals([signal.SIGCHLD]) as signals:
            while True:
                readable = select.select([self._channel.fileno(), signals.fileno()], [], [])[0]
                if signals.fileno() in readable:
                    signals.taken()
                    self._reap()
                if self._channel.fileno() in readable and not self._hear(signals, application):
                    return 0

    def _hear(self, signals: Signals, application: Application) -> bool:
        """Do what the arbiter says. Returns whether it may say more."""
        try:
            messages = self._channel.receive()
        except Closed:
            return False
        for message, fds in messages:
            if message["word"] == words.FORK:
                theirs = socket.socket(fileno=fds[0])
                self._fork(Seat(message["place"], message["slot"], Channel(theirs)), signals, application)
            elif message["word"] == words.SIGNAL:
                if message["pid"] in self._living:  # until it has been waited for, the number is its own
                    os.kill(message["pid"], message["signum"])
            elif message["word"] == words.CLOSE:
                for sock in self._sockets:
                    sock.close()
            else:
                _end_in(self._config.http.graceful)
                return False
        return True

    def _fork(self, seat: Seat, signals: Signals, application: Application) -> None:
        def work() -> int:
            worker = Worker(self._config, self._sockets, self._events, seat, self._tally)
            return worker.work_with(application, self._context)

        def leave() -> None:
            self._channel.close()
            signals.__exit__(None, None, None)

        try:
            pid = fork(work, leave)
        except OSError as error:
            logger.error("worker %d cannot be started: %s", seat.place, error.strerror)
            os._exit(1)  # the arbiter begins another loader, after a pause
        finally:
            seat.channel.close()
        self._living.add(pid)
        self._say({"word": words.FORKED, "pid": pid})

    def _reap(self) -> None:
        for pid in list(self._living):
            with suppress(ChildProcessError):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self._living.discard(pid)
                    code = os.waitstatus_to_exitcode(status)
                    self._say({"word": words.ENDED, "pid": pid, "code": code})

    def _say(self, message: dict[str, object]) -> None:
        with suppress(Closed):  # the next look says so, too
            self._channel.send(message)


def _end_in(seconds: float) -> None:
    """Have this process end although an exit handler of the application's does not."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))


def _look_what_is_there(channel: Channel) -> Callable[[], str]:
    """What says later which threads, files and connections have come since; "" for none, or where unknown."""
    if sys.platform == "linux" and CAN_COPY:
        from devserver.loading.barriers import Barriers

        return Barriers([channel.fileno()]).inherited
    return lambda: ""
