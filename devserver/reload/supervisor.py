"""Phase 1: keeps the listeners, spawns children, and does what the table says.

Every stimulus arrives through one wait: signals, messages, the ends of processes, hints of the
watcher, deadlines. It never loads user code, so nothing that a user types can end it. It watches
itself and does not leave that to the child: while a child loads, hangs with the GIL held, or has
died, there is nobody else to notice the save that mends it.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from devserver.config import Config
from devserver.errors import DevserverError
from devserver.events import Events
from devserver.process import Terminal
from devserver.process.control import Closed, Message
from devserver.process.signals import Signals
from devserver.reload.launcher import APP, PAGE, Launcher, Spawned, describe_exit
from devserver.reload.machine import Action, Attempts, Event, State, step
from devserver.reload.timeline import Entry
from devserver.reload.transit import Transit
from devserver.reload.watchset import WatchSet

logger = logging.getLogger("devserver")

SETTLE = 0.05
"""Seconds without a change after which a load that changes overtook is begun again."""

SLACK = 0.25
"""Seconds beyond its grace after which a child is killed; by then it should have left by itself."""

HEAL = (2, 10.0)
"""A child that had served and died is started again at most so often in so many seconds."""

RETRY = (1, 2.0)
"""A failed start is tried again for a request at most so often in so many seconds."""

GOING_AWAY, SERVICE_RESTART = 1001, 1012


class Supervisor:
    """See the module. `run` is its whole life."""

    def __init__(
        self, config: Config, sockets: list[socket.socket], events: Events, launcher: Launcher
    ) -> None:
        """
        Args:
            config: read again before each spawn.
            sockets: bound and listening; every child gets duplicates.
            events: where to say what happens.
            launcher: makes the children.
        """
        self._config = config
        self._sockets = sockets
        self._events = events
        self._launcher = launcher
        self._transit = Transit()
        self._state = State.STARTING
        self._selector = selectors.DefaultSelector()
        self._terminal = Terminal()
        self._current: Spawned | None = None
        self._page: Spawned | None = None
        self._retired: list[Spawned] = []
        self._pending: list[Event] = []
        self._timers: dict[Event, float] = {}
        self._generation = 0
        self._reason = "start"
        self._changed_at = time.monotonic()
        self._failure: Message = {}
        self._shown = ""
        self._heal = Attempts(*HEAL)
        self._retry = Attempts(*RETRY)
        self._watched = WatchSet(config)
        self._served = self._watched.timeline
        self._finished = False
        self._actions: dict[Action, Callable[[], None]] = {
            Action.SPAWN: self._spawn,
            Action.SERVE: self._serve,
            Action.RETIRE: self._retire_current,
            Action.RETIRE_PAGE: self._retire_page,
            Action.AWAIT: self._await,
            Action.SETTLE: self._settle,
            Action.SHOW: self._show,
            Action.SHOW_LOADING: self._show_loading,
            Action.ANNOUNCE: self._announce,
            Action.KILL: self._kill,
            Action.FINISH: self._finish,
        }

    def run(self) -> int:
        """Supervise until told to stop. Returns the exit code."""
        with Signals(_signals()) as signals:
            self._selector.register(signals, selectors.EVENT_READ, lambda: self._signalled(signals))
            fd = self._watched.watcher.fileno()
            if fd is not None:
                self._selector.register(fd, selectors.EVENT_READ, self._look)
            self._spawn()
            try:
                while not self._finished:
                    self._wait()
            finally:
                self._kill()
                self._launcher.close()
                self._transit.close()
                self._watched.close()
                self._selector.close()
                self._terminal.restore()
        return 0

    # the one wait

    def _wait(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            if key.fd in self._selector.get_map():  # it may have been let go of by one before it
                key.data()
        now = time.monotonic()
        for event, due in list(self._timers.items()):
            if due <= now:
                del self._timers[event]
                self._pending.append(event)
        for spawned in self._retired:
            if spawned.kill_at is not None and spawned.kill_at <= now:
                spawned.kill_at = None
                logger.warning("process %d did not end within its grace and was killed", spawned.child.pid)
                spawned.child.kill()
        if self._watched.watcher.interval is not None:
            self._look()
        while self._pending:
            self._happen(self._pending.pop(0))

    def _timeout(self) -> float | None:
        due = [*self._timers.values(), *(s.kill_at for s in self._retired if s.kill_at is not None)]
        waits = [max(0.0, min(due) - time.monotonic())] if due else []
        if self._watched.watcher.interval is not None:
            waits.append(self._watched.watcher.interval)
        return min(waits) if waits else None

    def _happen(self, event: Event) -> None:
        """Take one event through the table."""
        state = self._state
        self._state, actions = step(state, event, overlap=self._config.reload.overlap)
        if self._state is not state:
            logger.debug("%s: %s -> %s", event.name, state.name, self._state.name)
        for action in actions:
            self._actions[action]()

    # stimuli

    def _signalled(self, signals: Signals) -> None:
        for signum in signals.taken():
            if signum == getattr(signal, "SIGHUP", None) and not _hung_up():
                self._change_by("SIGHUP")
            else:
                self._pending.append(Event.STOP)

    def _change_by(self, reason: str) -> None:
        self._reason = reason
        self._changed_at = time.monotonic()
        self._pending.append(Event.CHANGED)

    def _look(self) -> None:
        """Ask whether something changed."""
        changed = self._watched.changed()
        if changed:
            self._changed(changed)

    def _changed(self, changed: list[str]) -> None:
        if self._state not in (State.STOPPING, State.STOPPED):
            files = [os.path.relpath(path) if path.startswith(os.getcwd() + os.sep) else path for path in changed]
            self._events.emit("change", files=files)
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            self._change_by(f"{files[0]} changed{more}")

    def _heard(self, spawned: Spawned) -> None:
        try:
            messages = spawned.child.channel.receive()
        except Closed:
            self._selector.unregister(spawned.child.channel)
            return  # its exit is reported by its own descriptor
        for message, fds in messages:
            self._said(spawned, message, fds)

    def _said(self, spawned: Spawned, message: Message, fds: list[int]) -> None:
        what = message["say"]
        if what == "read":
            self._note_reads(spawned, message["entries"])
        elif what == "connection":
            self._transit.take(fds[0], message["data"])
            self._pass_on()
        elif what == "received":
            self._transit.received(spawned)
        elif what == "changed" and spawned is self._current and spawned.serving:
            self._changed(message["files"])
        elif what == "closing" and spawned.kill_at is not None:
            spawned.kill_at = time.monotonic() + self._config.http.graceful + SLACK
        elif spawned is self._page and what in ("asked", "serving"):
            self._asked(spawned, what)
        elif spawned is self._current and what in ("loaded", "serving", "failed"):
            self._progressed(spawned, what, message)

    def _asked(self, page: Spawned, what: str) -> None:
        """A request has come to the page, which holds it until it is told to answer, or retired."""
        if what == "serving":
            page.serving = True
            self._pass_on()
            return
        self._look()
        if Event.CHANGED not in self._pending:
            page.tell({"do": "answer"})
            if self._state is State.WAITING and self._retry.allow(time.monotonic()):
                self._reason = "a request came while the start had failed"
                self._changed_at = time.monotonic()
                self._pending.append(Event.ASKED)

    def _pass_on(self) -> None:
        """Give connections in transit to whoever serves now."""
        for spawned in (self._current, self._page):
            if spawned is not None and spawned.serving:
                self._transit.pass_on(spawned)
                return

    def _progressed(self, spawned: Spawned, what: str, message: Message) -> None:
        if what == "loaded":
            self._timers.pop(Event.SLOW, None)
            self._events.emit("loaded", generation=spawned.generation, pid=spawned.child.pid)
            self._pending.append(Event.LOADED)
        elif what == "serving":
            spawned.serving = True
            self._pending.append(Event.SERVING)
        else:
            spawned.failed = True
            self._failure = {key: message[key] for key in ("phase", "error", "traceback")}
            self._pending.append(Event.FAILED)

    def _note_reads(self, spawned: Spawned, entries: list[list[Any]]) -> None:
        if spawned is not self._current:
            return
        for data in entries:
            entry = Entry.from_json(data)
            self._watched.add(entry)
            spawned.at = entry.path
        # Answers given before the paths were watched may be outdated by now.
        self._look()

    def _exited(self, spawned: Spawned) -> None:
        child = spawned.child
        code = child.exit_code()
        if code is None:
            return
        self._selector.unregister(child.fileno())
        if self._registered(child.channel):
            try:
                while messages := child.channel.receive():
                    for message, fds in messages:
                        self._said(spawned, message, fds)
            except Closed:
                pass
            if self._registered(child.channel):
                self._selector.unregister(child.channel)
        trace = spawned.last_words()
        child.close()
        self._transit.lost(spawned)
        self._terminal.restore()
        if spawned in self._retired:
            self._retired.remove(spawned)
            self._await()
        elif spawned is self._page:
            self._page = None
            self._pending.append(Event.PAGE_LOST)
        elif spawned is self._current:
            self._current = None
            if not spawned.failed:
                self._crashed(spawned, code, trace)

    def _registered(self, channel: Any) -> bool:
        return channel.fileno() in self._selector.get_map()

    def _crashed(self, spawned: Spawned, code: int, trace: str) -> None:
        how = describe_exit(code)
        where = "while it served" if spawned.serving else f"while it loaded{_at(spawned.at)}"
        self._failure = {"phase": "crash", "error": f"the application's process {how} {where}", "traceback": trace}
        if not spawned.serving:
            self._pending.append(Event.CRASHED)
        elif self._heal.allow(time.monotonic()):
            logger.error("%s; starting it again", self._failure["error"])
            if trace:
                logger.error("%s", trace)
            self._reason, self._changed_at = f"the application's process {how}", time.monotonic()
            self._pending.append(Event.CRASHED)
        else:
            self._pending.append(Event.CRASHED_AGAIN)

    # actions

    def _spawn(self) -> None:
        try:
            self._config = self._config.reread()
        except DevserverError as error:
            logger.error("%s; the options as they were are used", error)
        self._generation += 1
        if self._generation > 1:
            self._events.emit("restart", kind="cold", reason=self._reason)
            logger.debug("%s: restarting", self._reason)
        else:
            self._events.emit("starting", target=str(self._config.app.target))
        self._watched.begin(self._config)
        self._current = self._launch(APP, {})
        self._timers[Event.SLOW] = time.monotonic() + self._config.reload.load_timeout

    def _launch(self, role: str, more: Message) -> Spawned:
        spawned = self._launcher.launch(role)
        spawned.boot(role, self._generation, {"config": self._config.to_json(), **more}, self._sockets)
        self._selector.register(spawned.child.channel, selectors.EVENT_READ, lambda: self._heard(spawned))
        self._selector.register(spawned.child.fileno(), selectors.EVENT_READ, lambda: self._exited(spawned))
        return spawned

    def _serve(self) -> None:
        if self._current is not None:
            self._current.tell({"do": "serve"})

    def _retire_current(self) -> None:
        self._timers.pop(Event.SLOW, None)
        spawned, self._current = self._current, None
        if spawned is not None:
            self._retire(spawned)
            if not spawned.serving and not spawned.failed:
                spawned.child.terminate()  # it loads, and reads no messages

    def _retire_page(self) -> None:
        spawned, self._page = self._page, None
        if spawned is not None:
            self._retire(spawned)

    def _retire(self, spawned: Spawned) -> None:
        stopping = self._state is State.STOPPING
        grace = self._config.http.graceful if stopping else self._config.reload.grace
        code = GOING_AWAY if stopping else SERVICE_RESTART
        spawned.tell({"do": "retire", "grace": grace, "code": code, "restart": not stopping})
        spawned.kill_at = time.monotonic() + grace + SLACK
        self._retired.append(spawned)

    def _await(self) -> None:
        if not self._retired and self._current_is_all():
            self._pending.append(Event.GONE)

    def _current_is_all(self) -> bool:
        return self._state is not State.STOPPING or (self._current is None and self._page is None)

    def _settle(self) -> None:
        self._timers[Event.SETTLED] = time.monotonic() + SETTLE

    def _show(self) -> None:
        failure = self._failure
        text = f"{failure['error']}\n{failure['traceback']}"
        if text != self._shown:
            self._shown = text
            self._events.emit("failed", generation=self._generation, **failure)
            logger.error("%s", (failure["traceback"] or failure["error"]).rstrip())
            logger.error("%s; waiting for a change", failure["error"])
            self._watched.recall(self._served)
        else:
            logger.info("still: %s", failure["error"])
        self._put_up({"status": 500, **failure})

    def _show_loading(self) -> None:
        assert self._current is not None
        seconds = time.monotonic() - self._current.began
        error = f"still loading after {seconds:.0f} s{_at(self._current.at)}"
        logger.warning("%s", error)
        self._put_up({"status": 503, "phase": "load", "error": error, "traceback": ""})

    def _put_up(self, failure: Message) -> None:
        if self._page is None:
            self._page = self._launch(PAGE, {"failure": failure})
        else:
            self._page.tell({"do": "show", "failure": failure})

    def _announce(self) -> None:
        assert self._current is not None
        spawned = self._current
        self._shown = ""
        self._served = self._watched.timeline
        self._pass_on()
        self._launcher.prepare()
        seconds = time.monotonic() - (spawned.began if spawned.generation == 1 else self._changed_at)
        self._events.emit(
            "serving", generation=spawned.generation, pid=spawned.child.pid, seconds=round(seconds, 4)
        )
        if spawned.generation > 1:
            logger.info("%s: restarted, %.2f s", self._reason, seconds)

    def _kill(self) -> None:
        for spawned in [*self._retired, *(s for s in (self._current, self._page) if s is not None)]:
            if spawned.child.exit_code() is None:
                spawned.child.kill()
                if self._finished or self._state is not State.STOPPING:
                    spawned.child.wait()

    def _finish(self) -> None:
        self._events.emit("stopped")
        self._finished = True


def _at(path: str) -> str:
    return f" ({os.path.basename(path)} was read last)" if path else ""


def _signals() -> list[int]:
    """The signals that mean something; one that was ignored when we started stays ignored (nohup)."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    signums = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [n for n in signums if signal.getsignal(n) is not signal.SIG_IGN or n == signal.SIGINT]


def _hung_up() -> bool:
    """Whether the terminal that we were started from is gone."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return sys.stdin is not None and sys.stdin.isatty()
    return False
