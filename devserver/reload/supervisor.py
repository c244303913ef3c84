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
from devserver.process import RUN_MAIN, Child, Terminal, spawn
from devserver.process.control import Closed, Message
from devserver.process.signals import Signals
from devserver.reload import watch
from devserver.reload.machine import Action, Attempts, Event, State, step
from devserver.reload.rules import Rules
from devserver.reload.timeline import Entry, Timeline

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


class Spawned:
    """A child and what the supervisor remembers of it.

    Attributes:
        role: "app" or "page".
        generation: running number of the application's loads; a page has that of its failure.
        serving, announced: what it has said: that it serves, that its end is wanted.
        kill_at: when it is killed; None while it is not retired.
        at: the last file it said it would read.
    """

    def __init__(self, child: Child, role: str, generation: int, crash: int) -> None:
        self.child = child
        self.role = role
        self.generation = generation
        self.crash = crash
        self.began = time.monotonic()
        self.serving = False
        self.announced = False
        self.failed = False
        self.kill_at: float | None = None
        self.at = ""


class Supervisor:
    """See the module. `run` is its whole life."""

    def __init__(
        self,
        config: Config,
        sockets: list[socket.socket],
        events: Events,
        *,
        argv: list[str],
        page_argv: list[str],
    ) -> None:
        """
        Args:
            config: read again before each spawn.
            sockets: bound and listening; every child gets duplicates.
            events: where to say what happens.
            argv: how this program was started, and how a child is.
            page_argv: how a child is started that holds no user code.
        """
        self._config = config
        self._sockets = sockets
        self._events = events
        self._argv = argv
        self._page_argv = page_argv
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
        self._watcher = watch.make(config.reload.poll)
        self._rules = rules_of(config)
        self._timeline = Timeline(self._rules)
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
            self._watch_trees()
            fd = self._watcher.fileno()
            if fd is not None:
                self._selector.register(fd, selectors.EVENT_READ, self._look)
            self._spawn()
            try:
                while not self._finished:
                    self._wait()
            finally:
                self._kill()
                self._watcher.close()
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
        if self._watcher.interval is not None:
            self._look()
        while self._pending:
            self._happen(self._pending.pop(0))

    def _timeout(self) -> float | None:
        due = [*self._timers.values(), *(s.kill_at for s in self._retired if s.kill_at is not None)]
        waits = [max(0.0, min(due) - time.monotonic())] if due else []
        if self._watcher.interval is not None:
            waits.append(self._watcher.interval)
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
        """Ask the watcher, and the timeline whether what it hints matters."""
        hints = self._watcher.hints()
        paths = None if hints is watch.EVERYTHING else hints
        if paths is not None and not paths and not self._timeline.suspicious:
            return
        changed = self._timeline.changes(paths)
        if changed and self._state not in (State.STOPPING, State.STOPPED):
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
        for message, _ in messages:
            self._said(spawned, message)

    def _said(self, spawned: Spawned, message: Message) -> None:
        what = message["say"]
        if what == "read":
            self._note_reads(spawned, message["entries"])
        elif what == "restart":
            spawned.announced = True
        elif what == "closing" and spawned.kill_at is not None:
            spawned.kill_at = time.monotonic() + self._config.http.graceful + SLACK
        elif spawned is self._page and what == "asked":
            if self._failure.get("retry", True) and self._retry.allow(time.monotonic()):
                self._reason = "a request came while the start had failed"
                self._pending.append(Event.ASKED)
        elif spawned is self._current and what in ("loaded", "serving", "failed"):
            self._progressed(spawned, what, message)

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
            for path in self._timeline.add(entry):
                self._watcher.watch(path)
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
                    for message, _ in messages:
                        self._said(spawned, message)
            except Closed:
                pass
            if self._registered(child.channel):
                self._selector.unregister(child.channel)
        trace = _crash_report(spawned.crash)
        child.close()
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
        self._watcher.forget()
        self._timeline = Timeline(self._rules)
        self._watch_trees()
        self._current = self._launch(self._argv, "app", {})
        self._timers[Event.SLOW] = time.monotonic() + self._config.reload.load_timeout

    def _launch(self, argv: list[str], role: str, more: Message) -> Spawned:
        crash = _crash_file()
        environ = {**os.environ, RUN_MAIN: "true", "RUN_MAIN": "true", "WERKZEUG_RUN_MAIN": "true"}
        child = spawn(argv, environ)
        spawned = Spawned(child, role, self._generation, crash)
        message = {
            "do": "boot",
            "role": role,
            "config": self._config.to_json(),
            "crash": crash >= 0,
            **more,
        }
        try:
            child.send_listeners(message, [*self._sockets, *([_Descriptor(crash)] if crash >= 0 else [])])  # type: ignore[list-item] # only fileno is asked
        except Closed:
            pass  # it died at once, which its exit reports
        self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._heard(spawned))
        self._selector.register(child.fileno(), selectors.EVENT_READ, lambda: self._exited(spawned))
        return spawned

    def _serve(self) -> None:
        self._tell(self._current, {"do": "serve"})

    def _tell(self, spawned: Spawned | None, message: Message) -> None:
        if spawned is not None:
            try:
                spawned.child.channel.send(message)
            except Closed:
                pass  # its exit says more

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
        self._tell(spawned, {"do": "retire", "grace": grace, "code": code, "restart": not stopping})
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
            self._page = self._launch(self._page_argv, "page", {"failure": failure})
        else:
            self._tell(self._page, {"do": "show", "failure": failure})

    def _announce(self) -> None:
        assert self._current is not None
        spawned = self._current
        self._shown = ""
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

    # what to watch

    def _watch_trees(self) -> None:
        """Watch what counts without having been read, and the configuration file."""
        if self._config.file is not None:
            from devserver.reload.timeline import read_entry

            for path in self._timeline.add(read_entry(self._config.file)):
                self._watcher.watch(path)
        for folder in watch.walk(self._rules):
            self._watcher.watch(folder)


class _Descriptor:
    """A descriptor that can be sent like a socket."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


def rules_of(config: Config) -> Rules:
    """The rules of the `--reload-*` options."""
    section = config.reload
    return Rules(section.dirs, section.include, section.exclude, config.app.app_dir)


def describe_exit(code: int) -> str:
    """What an exit code says, as the end of a sentence about a process."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}"


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


def _crash_file() -> int:
    """A file in memory for the last words of a process; -1 where there is no such thing."""
    if sys.platform == "linux":
        try:
            return os.memfd_create("devserver-crash")
        except OSError:
            pass
    return -1


def _crash_report(fd: int) -> str:
    if fd < 0:
        return ""
    try:
        return os.pread(fd, 65536, 0).decode("utf-8", "replace")
    finally:
        os.close(fd)
