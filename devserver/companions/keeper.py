"""Does with companions what the roster says: starts and ends their processes, and shows what they print.

It does so within the supervisor's one wait, and waits for nothing itself. In a turn no more than a bounded
part is read of what a program has printed, so that one that prints without pause holds up nobody. It hears
what becomes of the application by the events that the server writes, and has watchers of its own for files.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from devserver import console
from devserver.companions.lines import Lines
from devserver.companions.roster import Action, Do, Member, Phase, Roster
from devserver.config import Config
from devserver.errors import DevserverError
from devserver.events import Events
from devserver.origin import environ_for_another
from devserver.process import PROGRAM, Group
from devserver.process.prompt import debugged
from devserver.process.reactor import Reactor
from devserver.reload.child import describe_exit
from devserver.run_table import Companion, place_of
from devserver.watching.patterns import Patterns

logger = logging.getLogger("devserver")

URL = "DEVSERVER_URL"
"""Environment variable of a companion with the server's address."""

_MOST = 4096
"""Bytes that are read of a program in a turn."""

_REST = 2**18
"""Bytes that are read of one that has ended."""

_LINGER, _LOOK = 1.0, 0.05
"""Seconds for what a program leaves behind to end, and between two looks whether it has."""

_QUIET = 1.0
"""Seconds without more of a line after which it is shown as it is: it may be a question."""

_PATIENCE = 2.0
"""Seconds of an end after which it is said for whom devserver waits."""

_NARROW, _WIDE = 20, 80
"""Columns that a program has at least, and where nobody knows."""


@dataclass(slots=True, eq=False)
class _Running:
    """A process, and what is known of it.

    Attributes:
        began: on `time.monotonic`.
        code: its exit code; None while it runs.
        until: when what it left behind is killed.
        shows_at: when a line that is not complete is shown.
        killed: it did not end by itself.
    """

    group: Group
    lines: Lines
    began: float
    code: int | None = None
    until: float = 0.0
    shows_at: float | None = None
    is_read: bool = True
    killed: bool = False


class Companions:
    """See the module, and `devserver.reload.children.Beside`."""

    def __init__(self, config: Config, events: Events, url: str) -> None:
        """
        Args:
            config: as it is at the start.
            events: told of what happens here, too.
            url: of the server.
        """
        self._config = config
        self._events = events
        self._url = url
        self._roster = Roster(_wanted(config))
        self._running: dict[str, _Running] = {}
        self._watches: dict[str, Patterns] = {}
        self._colors = console.wants_colors(config.log.colors, sys.stderr, os.environ)
        self._width = 0
        self._told = set[str]()
        self._restless = set[str]()
        self._lived = self._hurries = False
        self._tells_at: float | None = None  # for whom the end waits
        self._reactor: Reactor | None = None
        self._current: Callable[[], Config] = lambda: config
        self._ready: Callable[[], None] = lambda: None
        self._over: Callable[[], None] = lambda: None
        events.listen(self._heard)

    # for who owns this

    def attend(
        self,
        reactor: Reactor,
        current: Callable[[], Config],
        ready: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        """See `Beside.attend`."""
        self._reactor, self._current, self._ready, self._over = reactor, current, ready, over
        self._watch()
        self._act(time.monotonic())

    @property
    def pids(self) -> set[int]:
        """The processes that are meant to live."""
        found = set[int]()
        for running in self._running.values():
            found |= {running.group.pid, *running.group.orphans()}
        return found

    @property
    def lives(self) -> bool:
        """Whether there is a process."""
        return self._roster.lives

    @property
    def awaited(self) -> list[str]:
        """The companions for which the application waits."""
        return self._roster.holds

    def deadlines(self) -> Iterable[float]:
        """When `be_punctual` has something to do, on `time.monotonic`."""
        now = time.monotonic()
        pauses = (watch.watcher.interval for watch in self._watches.values())
        due = [now + pause for pause in pauses if pause is not None]
        due += [now + _LOOK for running in self._running.values() if running.code is not None]
        due += [running.shows_at for running in self._running.values() if running.shows_at is not None]
        due += [] if self._tells_at is None else [self._tells_at]
        look = self._roster.next_look()
        return due if look is None else [*due, look]

    def be_punctual(self, now: float) -> None:
        """Do what is due."""
        for name, watch in self._watches.items():
            if watch.watcher.interval is not None:
                self._look(name)
        for name, running in list(self._running.items()):
            if running.shows_at is not None and running.shows_at <= now:
                running.shows_at = None
                self._show(name, running.lines.pause())
            if running.code is not None:
                self._see_off(name, running, now)
        self._act(now)
        if self._tells_at is not None and self._tells_at <= now:
            self._tells_at = None
            self._tell_wait(now)

    def stop(self) -> None:
        """End all."""
        self._tells_at = time.monotonic() + _PATIENCE
        self._roster.stop(time.monotonic())
        self._act(time.monotonic())

    def kill(self) -> None:
        """End all at once."""
        self._hurries = True
        self._roster.hurry(time.monotonic())
        self._act(time.monotonic())

    def close(self) -> None:
        """Kill what lives, and stop watching."""
        for running in self._running.values():
            running.group.kill()
        for running in self._running.values():
            while running.group.exit_code() is None:
                time.sleep(_LOOK / 10)
            running.group.close()
        self._running.clear()
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()

    # what happens

    def _heard(self, name: str, fields: Mapping[str, object]) -> None:
        """An event of the server's."""
        if self._reactor is None:
            return
        now = time.monotonic()
        if name == "serving":
            for member in self._roster.serves(now, again=fields["generation"] != 1):
                logger.info("restarting %s with the application", member.companion.name)
            self._act(now)
        elif name == "restart":
            self._reconfigure(now)

    def _reconfigure(self, now: float) -> None:
        """The application is started anew, maybe because pyproject.toml is another."""
        before, self._config = self._config, self._current()
        if _wanted(self._config) == _wanted(before):
            return
        names = {each.name for each in _wanted(self._config)}
        for name in self._running.keys() - names:
            if self._roster.members[name].phase is not Phase.ENDING:
                logger.info("ending %s: its table is gone", name)
        for member in self._roster.update(_wanted(self._config), now):
            logger.info("restarting %s: its table has changed", member.companion.name)
        self._watch()
        self._act(now)

    def _watch(self) -> None:
        """Watch the files that patterns name."""
        reactor = self._reactor
        assert reactor is not None
        for watch in self._watches.values():
            fd = watch.watcher.fileno()
            if fd is not None:
                reactor.remove(fd)
            watch.close()
        poll = self._config.reload.poll
        self._watches = {
            each.name: Patterns(each.watch, each.root, poll=poll)
            for each in _wanted(self._config)
            if each.watch
        }
        for name, watch in self._watches.items():
            fd = watch.watcher.fileno()
            if fd is not None:
                reactor.add(fd, lambda name=name: self._look(name))  # type: ignore[misc]
        self._width = max((len(name) for name in self._roster.members), default=0)

    def _look(self, name: str) -> None:
        changed, member = self._watches[name].changed(), self._roster.members.get(name)
        if changed and member is not None and member.begun:
            now = time.monotonic()
            if self._roster.changed(name, now):
                more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
                logger.info("%s changed%s: restarting %s", _short(changed[0]), more, name)
                if self._roster.is_restless(name, now) and name not in self._restless:
                    self._restless.add(name)
                    logger.warning("%s: its watch seems to name what it writes; take that out of it", name)
            self._act(now)

    def _printed(self, name: str, running: _Running) -> None:
        data = running.group.read(_MOST)
        if data is not None:
            self._show(name, running.lines.feed(data) if data else running.lines.end())
            running.shows_at = time.monotonic() + _QUIET if running.lines.asks else None
            if not data:
                self._stop_reading(running)

    def _stop_reading(self, running: _Running) -> None:
        assert self._reactor is not None
        if running.is_read:
            running.is_read = False
            self._reactor.remove(running.group.output)

    def _show(self, name: str, lines: Iterable[str]) -> None:
        number = list(self._roster.members).index(name) if name in self._roster.members else 0
        for line in lines:
            console.show_companion(f"{name:{self._width}}", number, line)

    def _exited(self, name: str, running: _Running) -> None:
        code = running.group.exit_code()
        if code is None:
            return
        assert self._reactor is not None
        self._reactor.remove(running.group.fileno())
        running.code, now = code, time.monotonic()
        running.until = now + _LINGER
        if running.group.lives():
            running.group.terminate()
        self._see_off(name, running, now)
        self._act(now)

    def _see_off(self, name: str, running: _Running, now: float) -> None:
        """A program has ended. It is over when what it has left behind has ended, too."""
        if running.group.lives():
            if now < running.until:
                return
            running.group.kill()
        code, read = running.code, 0
        assert code is not None
        while running.is_read and read < _REST and (data := running.group.read(_MOST)):
            read += len(data)
            self._show(name, running.lines.feed(data))
        self._show(name, running.lines.end())
        self._stop_reading(running)
        running.group.close()
        del self._running[name]
        member = self._roster.members[name]
        phase = member.phase
        pause = self._roster.ended(name, code, now)
        self._tell_end(member, running, phase, pause)
        wanted = pause is None
        self._events.emit(
            "companion_exited", companion=name, pid=running.group.pid, code=code, wanted=wanted, pause=pause
        )

    def _tell_end(self, member: Member, running: _Running, phase: Phase, pause: float | None) -> None:
        name, code = member.companion.name, running.code or 0
        if running.killed:
            logger.warning("%s did not end within its grace and was killed", name)
        if pause is not None:
            how = f"{name} {_describe(code)}"
            waits = "; the application waits for it" if name in self._roster.holds else ""
            advice = "" if code or member.companion.once else " (if its work is done then, write once = true)"
            logger.error("%s%s; starting it again in %.0f s%s", how, waits, pause, advice)
        elif phase is Phase.RUNNING:
            logger.info("%s is done, %.1f s", name, time.monotonic() - running.began)

    def _tell_wait(self, now: float) -> None:
        """Say for whom the end waits."""
        names = [name for name, running in self._running.items() if running.code is None]
        until = max((self._roster.members[name].due or now for name in names), default=now)
        if names and not self._hurries:
            text = "waiting for %s to end, up to %d s; Ctrl-C again kills at once"
            logger.info(text, " and ".join(names), math.ceil(until - now))

    # what is done

    def _act(self, now: float) -> None:
        """Do what the roster says, until it has nothing to say."""
        if self._reactor is None:
            return
        for action in self._roster.decide(now):
            self._do(action, now)
        if self._lived and not self._roster.lives:
            self._over()
        self._lived = self._roster.lives
        self._ready()

    def _do(self, action: Action, now: float) -> None:
        do, member = action
        name = member.companion.name
        running = self._running.get(name)
        if do is Do.START:
            self._start(member, now)
        elif running is not None and do is Do.INTERRUPT:
            running.group.interrupt()
        elif running is not None and do is Do.TERMINATE:
            running.group.terminate()
        elif running is not None:
            running.killed = running.code is None and not self._hurries
            running.group.kill()

    def _start(self, member: Member, now: float) -> None:
        companion = member.companion
        name = companion.name
        try:
            environ = self._environ(companion)
            group = Group(companion.command, companion.cwd, environ, self._columns())
        except (OSError, DevserverError, ValueError) as error:
            self._could_not_start(companion, error, now)
            return
        if name not in self._told:
            self._told.add(name)
            waits = "; the application waits until it is done" if name in self._roster.holds else ""
            logger.info("starting %s: %s%s", name, companion.shown, waits)
        running = self._running[name] = _Running(group, Lines(colors=self._colors), now)
        assert self._reactor is not None
        self._reactor.add(group.output, lambda: self._printed(name, running))
        self._reactor.add(group.fileno(), lambda: self._exited(name, running))
        self._events.emit("companion_started", companion=name, pid=group.pid)

    def _could_not_start(self, companion: Companion, error: Exception, now: float) -> None:
        missing = getattr(error, "filename", None)
        reason = getattr(error, "strerror", None) or str(error)
        text = f"{missing}: {reason}" if missing else reason
        pause = self._roster.ended(companion.name, None, now)
        place = f"{place_of(companion.name)} in {_short(self._config.file or '')}"
        logger.error("%s: %s; trying again in %.0f s", place, text, pause or 0)
        self._events.emit("companion_failed", companion=companion.name, error=text, pause=pause)

    def _environ(self, companion: Companion) -> dict[str, str]:
        """What the application gets, and a little more.

        Raises:
            DevserverError: the file of variables cannot be read.
        """
        environ = dict(os.environ) if debugged() else environ_for_another(os.environ)
        if self._config.app.env_file is not None:
            from devserver.dotenv import load

            load(self._config.app.env_file, environ, quiet=True)
        if not self._colors:  # by a pipe, which Python writes to in blocks
            environ = {"PYTHONUNBUFFERED": "1", **environ}
        return {**environ, URL: self._url, **dict(companion.env), PROGRAM: companion.name}

    def _columns(self) -> int | None:
        if not self._colors:
            return None
        try:
            wide = os.get_terminal_size(sys.stderr.fileno()).columns
        except (OSError, ValueError):  # it is none: an IDE's window
            wide = _WIDE
        return max(_NARROW, wide - self._width - len(" | "))


def _wanted(config: Config) -> tuple[Companion, ...]:
    return config.programs if config.companions.enabled else ()


def _describe(code: int) -> str:
    if code == 127:
        return "exited with code 127, by which a shell says that it does not find a command"
    return describe_exit(code)


def _short(path: str) -> str:
    """A path as it is seen from where the terminal is."""
    with suppress(FileNotFoundError):  # it has been deleted
        return path.removeprefix(os.path.join(os.getcwd(), ""))
    return path
