"""Phase 1: keeps the listeners, spawns children, and does what the table says.

Every stimulus arrives through one wait: signals, keys, messages, the ends of processes, hints of the
watcher, deadlines. It never loads user code, so nothing that a user types can end it. It watches
itself and does not leave that to the child: while a child loads, hangs with the GIL held, or has
died, there is nobody else to notice the save that mends it.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import assert_never

from devserver.config import Config
from devserver.errors import DevserverError
from devserver.process import Terminal
from devserver.process.control import Message
from devserver.process.reactor import Reactor
from devserver.process.signals import Signals
from devserver.reload import protocol
from devserver.reload.child import Child, describe_exit
from devserver.reload.children import Children
from devserver.reload.controls import Controls
from devserver.reload.fellows import Fellows, of_worker
from devserver.reload.launcher import MakeLauncher
from devserver.reload.machine import (
    ENDS,
    HEAL,
    RETRY,
    Action,
    Attempts,
    Event,
    State,
    is_a_change,
    is_judged,
    is_late_at_loading,
    is_over,
    is_retried,
    of_exit,
    of_failure,
    step,
)
from devserver.reload.page import Page
from devserver.reload.report import Report, crash, unstarted
from devserver.reload.timers import Timers
from devserver.watching.timeline import Entry, Question
from devserver.watching.watchset import WatchSet

logger = logging.getLogger("devserver")


class Supervisor:
    """See the module. `run` is its whole life."""

    def __init__(
        self,
        config: Config,
        sockets: list[socket.socket],
        report: Report,
        launcher: MakeLauncher,
        terminal: Terminal,
    ) -> None:
        """
        Args:
            config: read again before each spawn.
            sockets: bound and listening; every child gets duplicates.
            report: says what happens.
            launcher: makes what starts the children.
            terminal: from which this program was started.
        """
        self._config = config
        self._report = report
        self._reactor = Reactor()
        self._children = Children(
            config,
            sockets,
            self._reactor,
            said=self._said,
            ended=self._ended,
            unheard=lambda: self._launcher.unheard(),
        )
        self._terminal = terminal
        self._controls = Controls(terminal, self._reactor, self._restart, self._stop, self._children.reap)
        self._watched = WatchSet(config)
        self._served = self._watched.timeline
        self._launcher = launcher(self._children, self._watched)
        self._state = State.STARTING
        self._pending: list[tuple[Event, Child | None]] = []
        self._timers = Timers(self._report)
        self._generation = 0
        self._failure: Message = {}
        self._heals = Attempts(*HEAL, time.monotonic)
        self._retries = Attempts(*RETRY, time.monotonic)
        self._fellows = Fellows(self._children, self._launcher, self._report)
        self._page = Page(self._children, lambda *what: self._launcher.show(self._config, *what))
        self._finished = False
        self._children.over = self._await
        self._actions: dict[Action, Callable[[], object]] = {
            Action.SPAWN: self._spawn,
            Action.RESPAWN: lambda: self._begin(self._config),
            Action.SERVE: self._serve,
            Action.RETIRE: self._retire,
            Action.RETIRE_PAGE: self._children.retire_page,
            Action.AWAIT: self._await,
            Action.SETTLE: self._timers.settle,
            Action.SHOW: self._show,
            Action.SHOW_LOADING: lambda: self._page.show_loading(self._generation, again=False),
            Action.SHOW_AGAIN: lambda: self._page.show_again(self._generation),
            Action.ANNOUNCE: self._announce,
            Action.KILL: self._children.kill,
            Action.FINISH: self._finish,
        }

    def run(self, signals: Signals) -> int:
        """Supervise until told to stop, by one of these signals or otherwise. Returns the exit code."""
        self._controls.attend(signals)
        fd = self._watched.watcher.fileno()
        if fd is not None:
            self._reactor.add(fd, self._look)
        self._spawn()
        try:
            while not self._finished:
                self._wait()
        finally:
            self._launcher.close()
            self._children.close()
            self._watched.close()
            self._reactor.close()
            self._terminal.restore()
        return 0

    def _wait(self) -> None:
        self._reactor.wait(self._until())
        now = time.monotonic()
        for event in self._timers.over(now):
            self._raise(event)
        if self._timers.rested(now):
            self._rest()
        self._children.be_punctual(now)
        self._report.be_punctual(now, self._children.stands)
        if self._watched.watcher.interval is not None:
            self._look()
        while self._pending:
            self._happen(*self._pending.pop(0))

    def _until(self) -> float | None:
        due = [*self._timers, *self._children.deadlines(), *self._report.deadlines()]
        if self._watched.watcher.interval is not None:
            due.append(time.monotonic() + self._watched.watcher.interval)
        return min(due, default=None)

    def _raise(self, event: Event, about: Child | None = None) -> None:
        """Have an event taken through the table, after those that came before it.

        Args:
            about: the child that it is about. If by then another is the current one, the event came
                too late to mean anything.
        """
        self._pending.append((event, about))

    def _happen(self, event: Event, about: Child | None) -> None:
        current = self._children.current
        if event is Event.STRAYED and about is None:  # the time for it is over
            if not self._timers.is_stuck(current, self._config.reload.load_timeout):
                return
            self._stray("takes too long")
        if is_over(
            event, None if about is None else self._children.about(about), alone=self._children.alone()
        ):
            return
        if current is not None and current.exited and event in ENDS:
            self._children.current = None
        self._page.happened(event)
        before = self._state
        self._state, actions = step(before, event, overlap=self._config.reload.overlap)
        if self._state is not before:
            logger.debug("%s: %s -> %s", event.name, before.name, self._state.name)
            self._children.stopping = self._state is State.STOPPING
        for action in actions:
            self._actions[action]()

    # stimuli: people, files

    def _restart(self, reason: str, cold: bool) -> None:
        if cold:
            self._launcher.distrust(reason)
        self._report.because(reason)
        self._raise(Event.CHANGED)

    def _stop(self) -> None:
        self._report.stopping()
        self._raise(Event.STOP)

    def _look(self, surely: bool = False) -> None:
        """Ask whether something changed."""
        changed = self._watched.changed(surely=surely)
        self._launcher.changed(changed)  # whoever decides, and whether in time or not
        if changed and not self._judged(changed):
            self._changed(changed)

    def _judged(self, paths: list[str]) -> bool:
        """Leave to the application what a change means, if it has a say, but not for ever."""
        if not is_judged(self._state, judges=self._children.judge(), changing=self._changing):
            return False
        self._report.suspects(paths)
        self._timers.judge()
        return self._children.ask(paths)

    def _handled(self, child: Child, paths: list[str]) -> None:
        self._watched.accept(paths)
        self._launcher.changed(paths, handled=True)
        if self._children.answered(child):
            self._timers.stop(Event.CHANGED)

    def _changed(self, paths: list[str]) -> None:
        # The gate of a child and our own watcher notice the same save: one of them is enough.
        self._timers.stop(Event.CHANGED)
        if is_a_change(self._state, changing=self._changing):
            self._report.changed(paths, self._watched.line(paths[0]))
            self._raise(Event.CHANGED)
        self._launcher.changed(paths)

    # stimuli: children

    def _said(self, child: Child, word: protocol.OfLoad, fds: list[int]) -> None:
        if isinstance(word, protocol.OfCopies):
            if self._launcher.heard(child, word, fds) and isinstance(word, protocol.Prepared):
                self._report.prepared(word.pid)
            return
        match word:
            case protocol.ReadsTerminal():
                self._controls.listen(not word.reading)
            case protocol.Serving() if child is self._children.page:
                self._children.serves(child, word.judges)
            case protocol.Asked() if child is self._children.page:
                self._asked(child)
            case _ if child in self._fellows:
                if not self._fellows.heard(child, word):
                    self._current_said(child, word)
            case _ if child is self._children.current:  # from another it comes too late
                self._launcher.heard(child, word, [])
                self._current_said(child, word)

    def _current_said(self, child: Child, word: protocol.OfCurrent) -> None:
        match word:
            case protocol.Read():
                self._note_reads(child, word)
            case protocol.Barrier():
                self._report.barrier(word.reason, word.statement)
            case protocol.Changed():
                if child.serves:
                    self._changed(word.files)
            case protocol.Handled():
                self._handled(child, word.files)
            case protocol.Loaded():
                self._loaded(child)
            case protocol.Serving():
                self._timers.stop(Event.SLOW, Event.STRAYED)
                self._children.serves(child, word.judges)
                self._raise(Event.SERVING, child)
            case protocol.Failed():
                self._failed(child, {"phase": word.phase, "error": word.error, "traceback": word.traceback})
            case protocol.Asked():
                raise AssertionError("only a page holds requests back")
            case _:
                assert_never(word)

    def _asked(self, page: Child) -> None:
        """A request has come to the page, which holds it until it is told to answer, or retired."""
        self._look()
        if self._changing:
            return
        if is_late_at_loading(self._state, slow=Event.SLOW not in self._timers):
            self._page.show_loading(self._generation, again=True)  # it stands elsewhere by now
        page.tell(protocol.Answer())
        if is_retried(self._state, self._retries):
            self._report.because("tried again, because a request came")
            self._raise(Event.ASKED)

    def _note_reads(self, child: Child, word: protocol.Read) -> None:
        for data in word.entries:
            entry = Entry.from_json(data)
            self._watched.add(entry)
            child.at = entry.path if entry.kind is Question.FILE else child.at
        # Answers given before the paths were watched may be outdated by now.
        self._look()

    def _loaded(self, child: Child) -> None:
        self._timers.stop(Event.SLOW, Event.STRAYED)
        self._look(surely=True)  # it watches by itself from now on, and believes that all is as it was read
        child.loaded = True
        self._report.loaded(child.generation, child.process.pid, time.monotonic() - child.began)
        self._raise(Event.LOADED, child)

    def _failed(self, child: Child, failure: Message) -> None:
        about = self._children.about(child)
        event = of_failure(
            about, check=failure["phase"] == "check", changing=self._changing, heals=self._heals
        )
        child.failed, self._failure = True, of_worker(child, failure)
        self._lost(child, event, failure["error"])

    def _ended(self, child: Child, code: int, trace: str) -> None:
        """A process is gone."""
        self._controls.tidy()
        how = describe_exit(code)
        self._launcher.gone(child)
        if child is self._children.page:
            self._children.page = None
            if self._page.may_return(how):
                self._raise(Event.PAGE_LOST)
            return
        about = self._children.about(child)
        self._report.worker_exited(child, code, wanted=not about.current)
        event = of_exit(about, changing=self._changing, heals=self._heals)
        if event is Event.GONE:
            self._await()
        elif about.current and not about.failed:
            self._failure = of_worker(child, crash(how, child.serves, child.at, trace))
            if event is Event.STRAYED:
                self._stray(how)
            self._lost(child, event, f"the application's process {how}")

    def _stray(self, how: str) -> None:
        """A child that goes on from a checkpoint does not get there."""
        self._report.strayed(self._generation, how)
        self._launcher.distrust("the last resume did not succeed")

    def _lost(self, child: Child, event: Event | None, reason: str) -> None:
        """A child does not go on; if it had served, and is replaced, that is what the next one is for."""
        if event is None:
            return
        if self._children.about(child).serves and event is not Event.CRASHED_AGAIN:
            self._report.healing(self._failure)
            self._report.because(reason)
        self._raise(event, child)

    @property
    def _changing(self) -> bool:
        """Whether a change is about to be taken through the table."""
        return (Event.CHANGED, None) in self._pending

    # actions

    def _spawn(self) -> None:
        before = self._config
        try:
            self._config = self._children.config = self._config.reread()
        except DevserverError as error:
            logger.error("%s; keeping the previous options", error)
        self._report.reconfigured(before.bind, self._config.bind)
        self._generation += 1
        self._begin(before)
        self._report.spawned(self._generation)

    def _begin(self, before: Config) -> None:  # before: the options of the last load
        """Have a child load, from a checkpoint or from nothing."""
        timeline = self._watched.timeline
        self._timers.begins()
        try:
            begun = self._launcher.launch(self._generation, before, self._config)
            self._children.current = begun.child
            self._report.begins(begun.place, begun.obstacle)
        except OSError as error:
            self._failure = unstarted(error)
            self._report.begins(None, "")
            self._raise(Event.CRASHED)
        if self._children.page is not None:
            # It goes on answering with the failure: what that one read must not change meanwhile.
            for entry in timeline:
                self._watched.add(entry)
        self._expect()

    def _expect(self) -> None:
        """Say so if requests have to wait for long."""
        self._timers.expect(self._children.current, self._config.reload.load_timeout)

    def _serve(self) -> None:
        if self._children.current is not None:
            self._fellows.serve(self._children.current)
            self._report.starts()
            self._expect()

    def _retire(self) -> None:
        self._timers.stop(Event.SLOW, Event.STRAYED, Event.CHANGED)
        self._children.retire_current()

    def _await(self) -> None:
        if self._children.alone():
            self._raise(Event.GONE)

    def _show(self) -> None:
        if self._report.failed(self._generation, self._failure):
            self._watched.recall(self._served)
        self._page.show(self._generation, self._failure)
        self._timers.rest()

    def _announce(self) -> None:
        current = self._children.current
        assert current is not None
        self._served = self._watched.timeline
        self._children.pass_on()
        self._report.serving(self._generation, current.process.pid, current.began)
        self._fellows.begin(current, self._config)
        self._timers.rest()

    def _rest(self) -> None:
        """What can wait until the first requests have been answered."""
        serves = self._state is State.SERVING
        if serves:
            self._watched.note_lines()
        if (checkpoints := self._launcher.rest(serves=serves)) is not None:
            self._report.checkpoints(*checkpoints)

    def _finish(self) -> None:
        self._report.stopped()
        self._finished = True
