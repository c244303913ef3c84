"""What the supervisor says: a line for the terminal, an event for programs. Decides nothing.

The line comes first: a program that has heard of an event finds in the log what was told of it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import fields

from devserver.config import Bind
from devserver.console import folded, is_library, ready
from devserver.events import Events
from devserver.managers.systemd import Notifier
from devserver.process.control import Message
from devserver.process.standing import GUARD, Standing
from devserver.reload.child import Child
from devserver.reload.launcher import Place
from devserver.run_table import PLACE

logger = logging.getLogger("devserver")

WARM = (2, 2.0)
"""A start from a checkpoint that takes so many times a cold one and so many seconds more has strayed."""


SLOW_START, SLOW_RESTART = 2.0, 0.5
"""Seconds after which a line says that the first load, or a restart, is still going on."""


class Report:
    """Tells of one supervisor's generations.

    Attributes:
        reason: why the newest generation is, or will be, loaded.
        since: when the reason arose, on `time.monotonic`.
    """

    def __init__(self, events: Events, target: str = "", notifier: Notifier | None = None) -> None:
        """
        Args:
            target: what is served, by name; "" if nothing was found yet.
            notifier: tells a manager of services at its times that this process lives.
        """
        self._target = target
        self._notifier = notifier
        self.reason = self._told = ""
        self.since = time.monotonic()
        self._events = events
        self._shown = self._barred = ""
        self._changed: dict[str, int] = {}  # since something was served, or known not to be: files, lines
        self._resumed = False
        self._how = ""
        self._fields: Message = {}
        self._cold: float | None = None  # seconds that the last load took that was one from nothing
        self._startup: float | None = None  # and the startup after it
        self._starts: float | None = None
        self._tell_at: float | None = None  # that it takes long
        self._is_first, self._is_told, self._is_stopping = True, False, False

    def because(self, reason: str, told: str = "") -> None:
        """Note why the next generation is wanted; and how that is told in the terminal, if otherwise."""
        self.reason, self._told, self.since = reason, told or reason, time.monotonic()

    def changed(self, paths: Sequence[str], line: int = 0) -> None:
        """Files changed that matter; the first at a line, if that is known."""
        files = [_short(path) for path in paths]
        self._events.emit("change", files=files, line=line)
        for file in files:
            self._changed.setdefault(file, 0 if self._changed else line)
        self._blame(self._changed)

    def suspects(self, paths: Sequence[str]) -> None:
        """Files changed that may matter: who is asked about that may not answer."""
        self._blame(dict.fromkeys((_short(path) for path in paths), 0))

    def _blame(self, files: dict[str, int]) -> None:
        (first, line), *others = files.items()
        more = f" and {len(others)} more" if others else ""
        at = f" at line {line}" if line else ""
        self.because(f"{first} changed{more}", f"{first} changed{at}{more}")

    def begins(self, place: Place | None, obstacle: str) -> None:
        """A load begins, from a checkpoint or from nothing, for this reason if there were checkpoints."""
        self._resumed, self._starts = place is not None, None
        if place is not None:
            path, line = place.path, place.line
            self._fields = {"kind": "warm", "reads": place.seq, "path": path, "line": line}
            outside = "at the start" if place.is_first else "at the end of loading"
            self._how = f"resumed {f'at line {line} of {_short(path)}' if path else outside}"
        else:
            self._fields = {"kind": "cold", "obstacle": obstacle}
            because = f" cold ({obstacle})" if obstacle and obstacle != self.reason else ""
            self._how = f"restarted{because}"

    def reconfigured(self, before: Bind, now: Bind) -> None:
        """Options were read anew: say which of them mean nothing to a server that runs."""
        changed = [
            field.name for field in fields(Bind) if getattr(before, field.name) != getattr(now, field.name)
        ]
        if changed:
            logger.warning(
                "%s: listeners stay as they are; stop devserver and start it by hand to change them",
                ", ".join(changed),
            )

    def spawned(self, generation: int) -> None:
        """It is that of a new generation."""
        self._is_first, self._is_told = generation == 1, False
        self._tell_at = self.since + (SLOW_START if self._is_first else SLOW_RESTART)
        if self._is_first:
            self._events.emit("starting", target=self._target or None)
        else:
            self._events.emit("restart", **self._fields, reason=self.reason, generation=generation)

    def deadlines(self) -> list[float]:
        """When `be_punctual` has something to say, on `time.monotonic`."""
        beats = () if self._notifier is None else self._notifier.deadlines()
        return [*beats, *(() if self._tell_at is None else (self._tell_at,))]

    def be_punctual(self, now: float, stands: Callable[[], tuple[str, Standing]]) -> None:
        """Say that a load takes long, if it does; of a restart twice. And that this process lives.

        Args:
            stands: what the child said last that it would read, and where it stands.
        """
        if self._notifier is not None:
            self._notifier.be_punctual(now)
        if self._tell_at is None or self._tell_at > now:
            return
        if self._is_first or self._is_told:
            self._tell_at = None
            logger.info("still loading%s", _where(*stands()))
        else:
            self._tell_at, self._is_told = self.since + SLOW_START, True
            logger.info("%s: restarting …", self._told)

    def strayed(self, generation: int, how: str) -> None:
        """A load, or a startup, that went on from a checkpoint leads nowhere."""
        logger.warning("the resumed process %s: loading everything again", how)
        self._events.emit("warm_start_failed", generation=generation, reason=how)

    def starts(self) -> None:
        """What is loaded begins its startup."""
        self._starts = time.monotonic()

    def patience(self, most: float) -> float | None:
        """Seconds in which a load from a checkpoint, or then its startup, should advance; None for any other.

        What takes minutes from nothing may take minutes from a checkpoint.

        Args:
            most: if it is not known how long one from nothing takes.
        """
        usual = self._cold if self._starts is None else self._startup
        if not self._resumed:
            return None
        return most if usual is None else WARM[0] * usual + WARM[1]

    def checkpoints(self, count: int, size: int) -> None:
        """How many checkpoints wait, and their proportional size in bytes."""
        self._events.emit("checkpoints", count=count, memory=size)

    def prepared(self, pid: int) -> None:
        """A copy of a checkpoint was made ahead of the next restart."""
        self._events.emit("prepared", pid=pid)

    def barrier(self, reason: str, statement: tuple[str, int] | None) -> None:
        """No checkpoint can be made since a statement: its path and line, if it is known. Said once."""
        path, line = statement or ("", 0)
        told = f"{path}:{line} {reason.partition('(')[0]}"
        if told != self._barred:
            self._barred = told
            where = f"{_short(path)}, line {line}" if path else "the start"
            logger.info("%s: %s prevents checkpoints; edits below it restart from there", where, reason)
            self._events.emit("barrier", path=path, line=line, reason=reason)

    def worker_started(self, child: Child) -> None:
        """One of several workers begins."""
        self._events.emit("worker_started", worker=child.place, pid=child.process.pid)

    def worker_serves(self, child: Child) -> None:
        """One of several workers answers; the first does so for its generation."""
        if child.place:
            seconds = round(time.monotonic() - child.began, 4)
            self._events.emit("worker_serving", worker=child.place, pid=child.process.pid, seconds=seconds)

    def worker_exited(self, child: Child, code: int, wanted: bool) -> None:
        """The process of one of several workers is gone. One that waits at a checkpoint never was one."""
        if child.told or child.place > 1:
            pid = child.process.pid
            self._events.emit("worker_exited", worker=child.place, pid=pid, code=code, wanted=wanted)

    def loaded(self, generation: int, pid: int, seconds: float) -> None:
        """The application is loaded; it may still have to wait for its predecessor."""
        if not self._resumed:
            self._cold = seconds
        self._events.emit("loaded", generation=generation, pid=pid, seconds=round(seconds, 4))

    def serving(self, generation: int, pid: int, began: float) -> None:
        """The new code answers."""
        self._changed, self._tell_at = {}, None
        self._shown, now = "", time.monotonic()
        if not self._resumed and self._starts is not None:
            self._startup = now - self._starts
        seconds = now - (began if generation == 1 else self.since)
        if generation > 1:
            cold = f" (cold: {self._cold:.1f} s)" if self._resumed and self._cold is not None else ""
            logger.info("%s: %s, %.2f s%s", self._told, self._how, seconds, cold)
        else:
            logger.info("%s", ready(now - self.since))
        self._events.emit("serving", generation=generation, pid=pid, seconds=round(seconds, 4))

    def failed(self, generation: int, failure: Message) -> bool:
        """There is nothing to serve. Returns whether that is news: the same failure is shown once."""
        self._changed, self._tell_at = {}, None
        error, trace = failure["error"], failure["traceback"].rstrip()
        text = f"{error}\n{trace}"
        news = text != self._shown
        self._shown = text
        if news:
            if trace:
                logger.error("%s", folded(trace))
            if not _says(trace, error):
                logger.error("%s", error)
            why = "the start failed" if generation == 1 else f"{self._told}: the restart failed"
            logger.error("%s; waiting for a change", why)
            self._events.emit("failed", generation=generation, **failure)
        else:
            logger.info("%s: it failed in the same way; waiting for a change", self._told)
            self._events.emit("failed_again", generation=generation)
        return news

    def healing(self, failure: Message) -> None:
        """A child that had served has died and is replaced."""
        logger.error("%s; starting it again", failure["error"])
        if failure["traceback"]:
            logger.error("%s", folded(failure["traceback"]).rstrip())

    def stopping(self) -> None:
        """Somebody has asked for the end; said once."""
        if not self._is_stopping:
            self._is_stopping = True
            self._events.emit("stopping")

    def stopped(self) -> None:
        """Everything has ended."""
        logger.info("stopped")
        self._events.emit("stopped")


def crash(how: str, served: bool, at: str, trace: str) -> Message:
    """A process that is gone, as a failure to be shown.

    Args:
        how: see `child.describe_exit`.
        served: whether it had served.
        at: what it said last that it would read.
        trace: its last words.
    """
    when = "while it served" if served else f"while it loaded{_last(at)}"
    return {"phase": "crash", "error": f"the application's process {how} {when}", "traceback": trace}


def unstarted(error: OSError) -> Message:
    """A process that could not be started, as a failure to be shown."""
    return {"phase": "crash", "error": f"no process can be started: {error}", "traceback": ""}


SLOW = ("loading", "starting")
"""Phases of what is no failure, but takes its time."""


def slow(seconds: float, at: str, stands: Standing, loaded: bool) -> Message:
    """A load, or a startup, that takes longer than requests may wait, as a failure to be shown."""
    if loaded:
        error = f"the lifespan's startup is not complete after {seconds:.0f} s{_where('', stands)}"
        return {"phase": SLOW[1], "error": error, "traceback": ""}
    error = f"still loading after {seconds:.0f} s{_where(at, stands)}"
    return {"phase": SLOW[0], "error": error, "traceback": ""}


def _where(at: str, stands: Standing) -> str:
    """Where a load stands: the user's innermost line, else what was read last; and who serves meanwhile."""
    frames = (frame for frame in stands.frames if frame[0][:1] != "<" and not is_library(frame[0]))
    path, line = next(frames, ("", 0))
    where = f": {_short(path)}, line {line}" if path else _last(_short(at))
    if stands.awaits:
        return f": the application waits for {' and '.join(stands.awaits)} of {PLACE}"
    if stands.listens:
        where += f"; it serves by itself, on {' and '.join(stands.listens)}: {GUARD}"
    return where


def _says(trace: str, error: str) -> bool:
    """Whether the last line of a traceback says what an error's line says, but for hints and places."""
    last = trace.rpartition("\n")[2]
    return bool(error) and last.startswith(error.partition(" (")[0])


def _short(path: str) -> str:
    """A path as it is seen from where the terminal is."""
    try:
        return path.removeprefix(os.path.join(os.getcwd(), ""))
    except FileNotFoundError:  # it has been deleted
        return path


def _last(at: str) -> str:
    return f" ({at} was read last)" if at else ""
