"""Phase 1: keeps the listeners, spawns children, and does what the table says.

Every stimulus arrives through one wait: signals, keys, messages, the ends of processes, hints of the
watcher, deadlines. It never loads user code, so nothing that a user types can end it. It watches
itself and does not leave that to the child: while a child loads, hangs with the GIL held, or has
died, there is nobody else to notice the save that mends it.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from devserver.config import Config
from devserver.errors import DevserverError
from devserver.events import Events
from devserver.process import Kin, Terminal, guard
from devserver.process.control import Closed, Message
from devserver.process.reactor import Reactor
from devserver.process.signals import Signals, wanted
from devserver.reload.launcher import APP, PAGE, Launcher, Spawned, describe_exit
from devserver.reload.machine import Action, Attempts, Event, State, step
from devserver.reload.prompt import debugged
from devserver.reload.report import Report, crash, slow
from devserver.reload.timeline import Entry
from devserver.reload.transit import Transit
from devserver.reload.watchset import WatchSet

logger = logging.getLogger("devserver")

SETTLE = 0.05
"""Seconds without a change after which a load that changes overtook is begun again."""

SLACK = 0.25
"""Seconds beyond its grace after which a child is killed; by then it should have left by itself."""

SLACK_DEBUGGED = 2.0
"""The same under a debugger, which is slow to say where it has stopped, and to let a process end."""

HEAL = (2, 10.0)
"""A child that had served and died is started again at most so often in so many seconds."""

RETRY = (1, 2.0)
"""A failed start is tried again for a request at most so often in so many seconds."""

PAGES = (3, 10.0)
"""A page that died by itself is put up again at most so often in so many seconds."""

JUDGE = 0.5
"""Seconds in which an application must have said what a change means to it, or is started anew."""

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
        self._report = Report(events)
        self._launcher = launcher
        self._transit = Transit()
        self._kin = Kin()
        self._terminal = Terminal()
        self._watched = WatchSet(config)
        self._served = self._watched.timeline
        self._reactor = Reactor()
        self._slack = SLACK_DEBUGGED if debugged() else SLACK
        self._state = State.STARTING
        self._current: Spawned | None = None
        self._page: Spawned | None = None
        self._retired: list[Spawned] = []
        self._pending: list[tuple[Event, Spawned | None]] = []
        self._timers: dict[Event, float] = {}
        self._generation = 0
        self._failure: Message = {}
        self._heal = Attempts(*HEAL)
        self._retry = Attempts(*RETRY)
        self._pages = Attempts(*PAGES)
        self._finished = False
        self._actions: dict[Action, Callable[[], None]] = {
            Action.SPAWN: self._spawn,
            Action.RESPAWN: self._respawn,
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
        with guard(lambda: self._terminal.restore(unless_taken=True)), Signals(wanted()) as signals:
            self._reactor.add(signals, lambda: self._signalled(signals))
            fd = self._watched.watcher.fileno()
            if fd is not None:
                self._reactor.add(fd, self._look)
            self._listen_to_keys(True)
            self._spawn()
            try:
                while not self._finished:
                    self._wait()
            finally:
                self._kill(wait=True)
                self._launcher.close()
                self._transit.close()
                self._watched.close()
                self._reactor.close()
                self._terminal.restore()
                self._kin.end()
        return 0

    # the one wait

    def _wait(self) -> None:
        self._reactor.wait(self._until())
        now = time.monotonic()
        for event, due in list(self._timers.items()):
            if due <= now:
                del self._timers[event]
                self._raise(event)
        for spawned in self._retired:
            if spawned.kill_at is not None and spawned.kill_at <= now:
                spawned.kill_at = None
                logger.warning("process %d did not end within its grace and was killed", spawned.child.pid)
                spawned.child.kill()
        if self._watched.watcher.interval is not None:
            self._look()
        while self._pending:
            self._happen(*self._pending.pop(0))

    def _until(self) -> float | None:
        due = [*self._timers.values(), *(s.kill_at for s in self._retired if s.kill_at is not None)]
        if self._watched.watcher.interval is not None:
            due.append(time.monotonic() + self._watched.watcher.interval)
        return min(due, default=None)

    def _raise(self, event: Event, about: Spawned | None = None) -> None:
        """Have an event taken through the table, after those that came before it.

        Args:
            about: the child that it is about. If by then another is the current one, the event came
                too late to mean anything.
        """
        self._pending.append((event, about))

    def _happen(self, event: Event, about: Spawned | None) -> None:
        if (about is not None and about is not self._current) or (event is Event.GONE and self._retired):
            return
        if event in (Event.CRASHED, Event.CRASHED_AGAIN):
            self._current = None
        before = self._state
        self._state, actions = step(before, event, overlap=self._config.reload.overlap)
        if self._state is not before:
            logger.debug("%s: %s -> %s", event.name, before.name, self._state.name)
        for action in actions:
            self._actions[action]()

    # stimuli: signals, keys, files

    def _signalled(self, signals: Signals) -> None:
        for signum in signals.taken():
            if signum == getattr(signal, "SIGHUP", None) and not self._terminal.hung_up():
                self._restart_by_hand("SIGHUP")
            else:
                self._raise(Event.STOP)

    def _listen_to_keys(self, on: bool) -> None:
        """Read lines from the terminal, or leave them to an application that reads them."""
        fd = self._terminal.keys()
        if fd is not None and on != (fd in self._reactor):
            self._reactor.add(fd, self._key) if on else self._reactor.remove(fd)

    def _key(self) -> None:
        line = self._terminal.read_key()
        if line is None:
            self._listen_to_keys(False)  # end of file: nobody types any more
        elif line == "r":
            self._restart_by_hand("r was pressed")
        elif line == "q":
            self._raise(Event.STOP)

    def _restart_by_hand(self, reason: str) -> None:
        self._report.because(reason)
        self._raise(Event.CHANGED)

    def _look(self) -> None:
        """Ask whether something changed."""
        changed = self._watched.changed()
        if changed and not self._judged(changed):
            self._changed(changed)

    def _judged(self, paths: list[str]) -> bool:
        """Leave what a change means to the application if it has a say. It may be late, but not for ever."""
        current = self._current
        if self._state is not State.SERVING or current is None or not current.judges:
            return False
        current.unjudged += 1
        self._report.because(f"{paths[0]} changed")
        self._timers[Event.CHANGED] = time.monotonic() + JUDGE
        return current.tell({"do": "judge", "files": paths})

    def _handled(self, spawned: Spawned, paths: list[str]) -> None:
        spawned.unjudged -= 1
        self._watched.accept(paths)
        if not spawned.unjudged:
            self._timers.pop(Event.CHANGED, None)

    def _changed(self, paths: list[str]) -> None:
        # The gate of a child and our own watcher notice the same save: one of them is enough.
        self._timers.pop(Event.CHANGED, None)
        if self._state not in (State.STOPPING, State.STOPPED) and (Event.CHANGED, None) not in self._pending:
            self._report.changed(paths)
            self._raise(Event.CHANGED)

    # stimuli: what children say

    def _heard(self, spawned: Spawned) -> None:
        try:
            for message, fds in spawned.child.channel.receive():
                self._said(spawned, message, fds)
        except Closed:
            self._reactor.remove(spawned.child.channel)  # its exit is reported by its own descriptor

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
        elif what == "handled" and spawned is self._current:
            self._handled(spawned, message["files"])
        elif what == "stdin":
            self._listen_to_keys(not message["reading"])
        elif what in ("closing", "stopped", "resumed") and spawned in self._retired:
            self._put_off(spawned, message)
        elif spawned is self._page and what in ("asked", "serving"):
            self._asked(spawned, what)
        elif spawned is self._current and what in ("loaded", "serving", "failed"):
            self._progressed(spawned, what, message)

    def _put_off(self, spawned: Spawned, message: Message) -> None:
        """A child that drains has a reason to live longer."""
        if message["say"] == "closing":
            spawned.kill_at = time.monotonic() + self._config.http.graceful + self._slack
        elif message["say"] == "resumed":
            spawned.kill_at = time.monotonic() + self._config.reload.grace + self._slack
        elif self._state is State.STOPPING:
            self._wait_no_more(spawned)
        else:
            spawned.kill_at = None
            logger.warning("the restart waits: %s", message["where"])

    def _wait_no_more(self, spawned: Spawned) -> None:
        """The end has come for a child that waits for somebody at a breakpoint or a prompt."""
        if spawned.serving:
            self._see_off(spawned)
        else:
            spawned.child.kill()  # it loads, reads no messages, and has nothing to drain

    def _asked(self, page: Spawned, what: str) -> None:
        """A request has come to the page, which holds it until it is told to answer, or retired."""
        if what == "serving":
            page.serving = True
            self._pass_on()
            return
        self._look()
        if (Event.CHANGED, None) not in self._pending:
            if self._state in (State.STARTING, State.DRAINING) and Event.SLOW not in self._timers:
                self._show_loading(again=True)  # it stands elsewhere by now
            page.tell({"do": "answer"})
            if self._state is State.WAITING and self._retry.allow(time.monotonic()):
                self._report.because("a request came while the start had failed")
                self._raise(Event.ASKED)

    def _pass_on(self) -> None:
        """Give connections in transit to whoever serves now."""
        for spawned in (self._current, self._page):
            if spawned is not None and spawned.serving and not spawned.exited:
                self._transit.pass_on(spawned)
                return

    def _progressed(self, spawned: Spawned, what: str, message: Message) -> None:
        if what == "loaded":
            self._timers.pop(Event.SLOW, None)
            spawned.loaded = True
            self._report.loaded(spawned.generation, spawned.child.pid, time.monotonic() - spawned.began)
            self._raise(Event.LOADED, spawned)
        elif what == "serving":
            self._timers.pop(Event.SLOW, None)
            spawned.serving = True
            spawned.judges = message["judges"]
            self._raise(Event.SERVING, spawned)
        else:
            spawned.failed = True
            self._failure = {key: message[key] for key in ("phase", "error", "traceback")}
            self._raise(Event.FAILED, spawned)

    def _note_reads(self, spawned: Spawned, entries: list[list[Any]]) -> None:
        if spawned is not self._current:
            return
        for data in entries:
            entry = Entry.from_json(data)
            self._watched.add(entry)
            spawned.at = entry.path
        # Answers given before the paths were watched may be outdated by now.
        self._look()

    # stimuli: what children do

    def _exited(self, spawned: Spawned) -> None:
        child = spawned.child
        code = child.exit_code()
        if code is None:
            return
        self._reactor.remove(child.fileno())
        if self._reactor.remove(child.channel):
            for message, fds in child.channel.drain():
                self._said(spawned, message, fds)
        spawned.exited = True
        trace = spawned.last_words()
        child.close()
        self._transit.lost(spawned)
        self._terminal.restore()
        self._listen_to_keys(True)
        self._kin.end(apart_from=self._alive())
        if spawned in self._retired:
            self._retired.remove(spawned)
            self._await()
        elif spawned is self._page:
            self._page = None
            if self._pages.allow(time.monotonic()):
                self._raise(Event.PAGE_LOST)
            else:
                logger.error("the error page's process %s; requests wait", describe_exit(code))
        elif spawned is self._current and not spawned.failed:
            self._crashed(spawned, code, trace)

    def _alive(self) -> set[int]:
        """Our own children that are meant to live."""
        ours = [*self._retired, self._current, self._page, self._launcher.spare]
        return {spawned.child.pid for spawned in ours if spawned is not None and not spawned.exited}

    def _crashed(self, spawned: Spawned, code: int, trace: str) -> None:
        how = describe_exit(code)
        self._failure = crash(how, spawned.serving, spawned.at, trace)
        if not spawned.serving:
            self._raise(Event.CRASHED, spawned)
        elif self._heal.allow(time.monotonic()):
            self._report.healing(self._failure)
            self._report.because(f"the application's process {how}")
            self._raise(Event.CRASHED, spawned)
        else:
            self._raise(Event.CRASHED_AGAIN, spawned)

    # actions

    def _spawn(self) -> None:
        try:
            self._config = self._config.reread()
        except DevserverError as error:
            logger.error("%s; the options as they were are used", error)
        self._generation += 1
        self._report.spawned(self._generation, str(self._config.app.target))
        self._respawn()

    def _respawn(self) -> None:
        before = self._watched.begin(self._config)
        if self._page is not None:
            # It goes on answering with the failure: what that one read must not change meanwhile.
            for entry in before:
                self._watched.add(entry)
        self._current = self._launch(APP, {})
        self._timers[Event.SLOW] = time.monotonic() + self._config.reload.load_timeout

    def _launch(self, role: str, more: Message) -> Spawned:
        spawned = self._launcher.launch(role)
        spawned.boot(role, self._generation, {"config": self._config.to_json(), **more}, self._sockets)
        self._reactor.add(spawned.child.channel, lambda: self._heard(spawned))
        self._reactor.add(spawned.child.fileno(), lambda: self._exited(spawned))
        return spawned

    def _serve(self) -> None:
        if self._current is not None:
            self._current.tell({"do": "serve"})
            self._timers[Event.SLOW] = time.monotonic() + self._config.reload.load_timeout

    def _retire_current(self) -> None:
        self._timers.pop(Event.SLOW, None)
        self._timers.pop(Event.CHANGED, None)
        for waiting in self._retired if self._state is State.STOPPING else ():
            if waiting.kill_at is None:
                self._wait_no_more(waiting)
        spawned, self._current = self._current, None
        if spawned is not None:
            self._retire(spawned)
            if not spawned.serving and not spawned.failed and not spawned.exited:
                spawned.child.terminate()  # it loads, and reads no messages

    def _retire_page(self) -> None:
        spawned, self._page = self._page, None
        if spawned is not None:
            self._retire(spawned)

    def _retire(self, spawned: Spawned) -> None:
        if not spawned.exited:
            self._see_off(spawned)
            self._retired.append(spawned)

    def _see_off(self, spawned: Spawned) -> None:
        stopping = self._state is State.STOPPING
        grace = self._config.http.graceful if stopping else self._config.reload.grace
        code = GOING_AWAY if stopping else SERVICE_RESTART
        spawned.tell({"do": "retire", "grace": grace, "code": code, "restart": not stopping})
        spawned.kill_at = time.monotonic() + grace + self._slack

    def _await(self) -> None:
        if not self._retired:
            self._raise(Event.GONE)

    def _settle(self) -> None:
        self._timers[Event.SETTLED] = time.monotonic() + SETTLE

    def _show(self) -> None:
        if self._report.failed(self._generation, self._failure):
            self._watched.recall(self._served)
        self._put_up({"status": 500, **self._failure})

    def _show_loading(self, again: bool = False) -> None:
        if self._current is None:
            return
        failure = slow(time.monotonic() - self._current.began, self._current.at, self._current.loaded)
        logger.log(logging.DEBUG if again else logging.WARNING, "%s", failure["error"])
        self._put_up({"status": 503, **failure})

    def _put_up(self, failure: Message) -> None:
        if self._page is None:
            self._page = self._launch(PAGE, {"failure": failure})
        else:
            self._page.tell({"do": "show", "failure": failure})

    def _announce(self) -> None:
        assert self._current is not None
        self._served = self._watched.timeline
        self._pass_on()
        self._report.serving(self._generation, self._current.child.pid, self._current.began)
        self._launcher.prepare()

    def _kill(self, wait: bool = False) -> None:
        for spawned in [*self._retired, *(s for s in (self._current, self._page) if s is not None)]:
            if not spawned.exited:
                spawned.child.kill()
                if wait:
                    spawned.child.wait()

    def _finish(self) -> None:
        self._report.stopped()
        self._finished = True
