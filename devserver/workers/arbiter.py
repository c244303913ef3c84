"""The process that begins and replaces workers. It holds the listeners, and has neither user code nor a loop.

gunicorn's word, and its signals: TTIN and TTOU are one worker more or less, HUP replaces all of them, one
after the other, by such as load the application anew. USR2 and WINCH replace this process (`peer`). TERM and
INT end it as Ctrl-C ends a server; QUIT, or a second one of these, ends it at once. (gunicorn ends at once
with INT, too. Here Ctrl-C is the same with and without workers.)

What is to be done is decided by `pool`.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from devserver import procfs
from devserver.config import Config
from devserver.events import Events
from devserver.http.tally import Tally
from devserver.managers.systemd import Notifier
from devserver.process import Orphans, await_end
from devserver.process.control import Channel, Closed, QueueingChannel, unpack
from devserver.process.limits import raise_limit, set_limit
from devserver.process.reactor import Reactor
from devserver.process.signals import Signals
from devserver.reload.protocol import Connections
from devserver.reload.transit import Transit
from devserver.workers import words
from devserver.workers.pool import Abort, Action, End, Kill, Phase, Pool, Retire, Start, Worker

if sys.platform != "win32":
    from devserver.workers.births import Births, Forked, Preloaded
    from devserver.workers.peer import Succeeding, Succession
    from devserver.workers.worker import Seat

assert sys.platform != "win32"  # `launch` has looked; a type checker reads no further there

logger = logging.getLogger("devserver")

LOOK = 1.0
"""Seconds between two looks at how much memory workers hold."""

ASLEEP = 1.0
"""Seconds by which a wait must have been too long for this process to have been stopped meanwhile."""

SLACK = 1.0
"""Seconds that a worker may take beyond its grace, to unwind."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Roles:
    """What copies of an arbiter do, with an exit code, and what belongs to them.

    Attributes:
        work: what a worker does that loads for itself.
        load: what a loader does: its end of the channel.
        close_listeners: closes them in this process.
        tally: what all workers have to do, if it matters.
    """

    work: Callable[[Seat], int]
    load: Callable[[Channel], int]
    close_listeners: Callable[[], None]
    tally: Tally | None = None


@dataclass(slots=True, eq=False)
class _Process:
    """The process of a worker.

    Attributes:
        pid: 0 as long as it has not been forked.
        given: how often it was given connections of others.
        fits: it serves, and held no more than it may when it began to.
    """

    worker: Worker
    channel: QueueingChannel
    began: float
    pid: int = 0
    given: int = 0
    fits: bool = False

    def tell(self, word: Connections, fds: Sequence[int] = ()) -> None:
        """See `Receiver`."""
        with suppress(Closed):
            self.channel.send({"word": words.CONNECTIONS, "sizes": word.sizes, "data": word.data}, fds)


class Arbiter:
    """See the module."""

    def __init__(
        self, config: Config, events: Events, notifier: Notifier | None, roles: Roles, succeeding: Succeeding
    ) -> None:
        """
        Args:
            config: the sections `workers` and `http` are used.
            notifier: tells a manager of services at its times that this process lives.
        """
        self._reactor = Reactor()
        self._notifier = notifier
        self._orphans = Orphans()
        self._orphans.attend(self._reactor)
        self._section = config.workers
        self._roles = roles
        self._tally = roles.tally
        self._events = events
        self._births: Births = (
            Preloaded(roles.load, self._leave, self._reactor, self._born, self._gone)
            if config.workers.preload
            else Forked(roles.work, self._leave, self._born, self._gone)
        )
        self._pool = Pool(config.workers.count, config.workers.healthcheck, 2 * config.http.graceful + SLACK)
        self._processes: dict[Worker, _Process] = {}
        self._has_terminal = _has_terminal()
        self._interrupted = False
        self._told = False  # that all serve
        self._fits = True  # no worker has been seen that did not
        self._transit = Transit()
        self._succession = Succession(self._reactor, self._transit, events, notifier, succeeding)
        self._limit = raise_limit()  # for what waits in transit
        self._began = time.monotonic()
        self._next_look = 0.0

    def run(self, signals: Signals) -> int:
        """Serve until told to stop. Returns the exit code. Main thread only.

        Args:
            signals: captured, since before anybody was told where to send them.
        """
        self._signals = signals
        self._reactor.add(signals, lambda: self._hear(signals.taken()))
        while True:
            self._look_at_memory(now := time.monotonic())
            if self._notifier is not None:
                self._notifier.be_punctual(now)
            self._give()
            for action in self._pool.decide(now):
                if not isinstance(action, End):
                    self._act(action)
                elif self._succession.peer is None or self._transit.is_done:
                    return self._end(action.code)
            self._births.settle(self._pool.epoch)
            self._wait(self._until())

    def _end(self, code: int) -> int:
        self._births.close()
        self._reactor.close()
        self._transit.close()
        await_end(self._orphans.end(self._succession.pids))
        logger.info("stopped")
        self._events.emit("stopped")
        return code

    @property
    def is_succeeded(self) -> bool:
        """Whether another arbiter serves on the same sockets."""
        return self._succession.is_served

    def _wait(self, until: float | None) -> None:
        """Wait for what may happen. Who stops this process, by Ctrl-Z say, stops the workers as well."""
        self._reactor.wait(until)
        if until is not None and (now := time.monotonic()) - until > ASLEEP:
            self._pool.awoke(now)

    def _until(self) -> float | None:
        times = [self._pool.next_look(), self._next_look if self._section.max_memory else None]
        times += [] if self._notifier is None else self._notifier.deadlines()
        return min((each for each in times if each is not None), default=None)

    # what has happened

    def _hear(self, signums: Sequence[int]) -> None:
        for signum in signums:
            if signum == signal.SIGCHLD:
                self._reap()
            elif signum == signal.SIGHUP and not self._lost_terminal():
                logger.info("replacing all workers (SIGHUP)")
                self._pool.renew()
            elif signum == signal.SIGHUP and self._signals.were_ignored(signum):  # nohup
                self._has_terminal = False
            elif signum in (signal.SIGTTIN, signal.SIGTTOU):
                self._pool.resize(1 if signum == signal.SIGTTIN else -1)
                logger.info("%d workers wanted (%s)", self._pool.wanted, signal.Signals(signum).name)
            elif signum == signal.SIGUSR2:
                self._succession.begin()
            elif signum == signal.SIGWINCH:
                if not self._has_terminal:  # which says by it that its size is another one
                    self._pool.rest()
                    logger.info("no worker is wanted before SIGHUP (SIGWINCH)")
            elif signum == signal.SIGQUIT or self._interrupted:
                self._prepare_end()
                self._pool.hurry()
            else:
                self._interrupted = True
                self._prepare_end()
                self._events.emit("stopping")
                self._pool.stop()

    def _prepare_end(self) -> None:
        """Have nobody connect any more who would find nobody."""
        self._succession.hand_service_over()
        self._roles.close_listeners()
        self._births.close_listeners()

    def _lost_terminal(self) -> bool:
        """Whether the terminal in which this was started has been closed, which is told by SIGHUP, too."""
        return self._has_terminal and not _has_terminal()

    def _heard(self, process: _Process) -> None:
        """Take what a worker has said."""
        worker, now = process.worker, time.monotonic()
        try:
            for message, fds in process.channel.receive():
                word = message["word"]
                if word == words.SERVING:
                    self._pool.is_serving(worker, now)
                    self._see_if_fits(process)
                    self._tell_serving(process, now)
                elif word == words.TURNS:
                    self._pool.turns(worker, now)
                elif word == words.WORN:
                    self._pool.is_worn(worker, message["why"])
                    logger.info("worker %d is replaced: %s", worker.place, message["why"])
                elif word == words.LEAVING:
                    self._pool.is_leaving(worker, now)
                elif word == words.CONNECTIONS:
                    self._transit.take(unpack(message["sizes"], message.get("data", b""), fds))
                elif word == words.RECEIVED:
                    self._transit.received(process)
        except Closed:
            self._reactor.remove(process.channel)  # its end is reported by a signal

    def _give(self) -> None:
        """Give connections that a worker has left to those that serve. If there is none yet, they wait."""
        serving = [each for each in self._processes.values() if each.worker.phase is Phase.SERVING]
        for process in sorted(serving, key=lambda each: each.given):
            if len(self._transit):
                process.given += 1
                self._transit.pass_on(process)
        if not any(worker.counts for worker in self._pool.workers):
            self._succession.give()

    def _tell_serving(self, process: _Process, now: float) -> None:
        worker = process.worker
        fields: dict[str, object] = {"pid": process.pid, "seconds": round(now - process.began, 4)}
        self._events.emit("worker_serving", worker=worker.place, **fields)
        serving = {each.worker.place for each in self._processes.values() if each.worker.turned}
        if not self._told and len(serving) >= self._pool.wanted:
            self._told = True
            seconds = now - self._began
            logger.info("%d workers ready in %.2f s", len(serving), seconds)
            self._events.emit("serving", generation=1, pid=os.getpid(), seconds=round(seconds, 4))
            self._succession.serves()
        elif self._told:
            logger.info("worker %d serves (%d)", worker.place, process.pid)

    def _reap(self) -> None:
        self._births.reap()
        self._orphans.reap(self._births.pids)  # a successor too, whose end its channel tells

    def _gone(self, worker: Worker, code: int) -> None:
        process = self._processes[worker]
        self._heard(process)  # its last words
        self._forget(process)
        self._transit.lost(process)
        was_stopping = self._pool.stopping
        pause = self._pool.is_gone(worker, time.monotonic(), code)
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        if process.pid:
            wanted = pause is None
            self._events.emit("worker_exited", worker=worker.place, pid=process.pid, code=code, wanted=wanted)
        if pause is not None:
            again = f"in {pause:g} s" if pause else "now"
            logger.error("worker %d ended (%s), and is started again %s", worker.place, how, again)
        elif self._pool.stopping and not was_stopping:
            logger.error("worker %d ended (%s) before any served: that ends the server", worker.place, how)

    def _forget(self, process: _Process) -> None:
        del self._processes[process.worker]
        if self._tally is not None:
            self._tally.release(process.worker.slot)
        self._reactor.remove(process.channel)
        process.channel.close()

    def _look_at_memory(self, now: float) -> None:
        if self._section.max_memory is None or now < self._next_look:
            return
        self._next_look = now + LOOK
        for worker, process in self._processes.items():
            if process.fits and worker.counts and not worker.worn and (held := self._too_much(process)):
                why = f"it holds {held} MiB (--limit-max-memory {self._section.max_memory})"
                self._pool.is_worn(worker, why)
                logger.info("worker %d is replaced: %s", worker.place, why)

    def _see_if_fits(self, process: _Process) -> None:
        """Look whether who begins to serve holds too much already: its successors would be no better."""
        held = self._too_much(process)
        process.fits = not held
        if held and self._fits:
            self._fits = False
            logger.error(
                "a worker holds %d MiB before its first request: --limit-max-memory %d has no effect on it",
                held,
                self._section.max_memory,
            )

    def _too_much(self, process: _Process) -> int:
        """How many MiB a worker holds if that is more than it may; else 0."""
        limit = self._section.max_memory
        if limit is not None and sys.platform == "linux":
            with suppress(OSError):
                held = procfs.memory(process.pid).get("Rss", 0)
                return held // _MIB if held > limit * _MIB else 0
        return 0

    # what is done

    def _act(self, action: Action) -> None:
        if isinstance(action, Start):
            self._start(action.worker)
        elif isinstance(action, Retire):
            with suppress(Closed):
                last = self._pool.stopping and not self._succession.is_served
                self._processes[action.worker].channel.send({"word": words.RETIRE, "last": last})
        elif isinstance(action, Abort):
            logger.error(
                "worker %d has stood still for %g s (--timeout-worker-healthcheck) and is ended; it was at:",
                action.worker.place,
                self._section.healthcheck,
            )
            self._send_signal(action.worker, signal.SIGABRT)
        elif isinstance(action, Kill):
            self._send_signal(action.worker, signal.SIGKILL)

    def _send_signal(self, worker: Worker, signum: int) -> None:
        if (process := self._processes.get(worker)) is not None:
            self._births.signal(worker, process.pid, signum)

    def _start(self, worker: Worker) -> None:
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._cannot_start(worker, error)
            return
        if self._tally is not None:
            worker.slot = self._tally.claim()
        process = self._processes[worker] = _Process(worker, QueueingChannel(ours), time.monotonic())
        self._reactor.add(process.channel, partial(self._heard, process), process.channel)
        try:
            self._births.begin(worker, theirs)
        except OSError as error:
            self._forget(process)
            self._cannot_start(worker, error)
        finally:
            theirs.close()

    def _born(self, worker: Worker, pid: int) -> None:
        process = self._processes[worker]
        process.pid = pid
        self._events.emit("worker_started", worker=worker.place, pid=pid)
        if worker.phase is Phase.DYING:  # it was to be ended before it had a number
            self._births.signal(worker, pid, signal.SIGKILL)

    def _cannot_start(self, worker: Worker, error: OSError) -> None:
        logger.error("worker %d cannot be started: %s", worker.place, error.strerror)
        self._pool.is_gone(worker, time.monotonic(), 1)

    def _leave(self) -> None:
        """In a copy of this process: close what is the arbiter's."""
        from devserver.process.orphans import let_go

        for process in self._processes.values():
            process.channel.close()
        self._succession.let_go()
        self._births.let_go()
        self._transit.close()  # who is served elsewhere would never see the end of its connection
        self._reactor.close()
        self._signals.__exit__(None, None, None)
        let_go()
        set_limit(self._limit)


def _has_terminal() -> bool:
    """Whether this process has a terminal that it can be controlled from."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
