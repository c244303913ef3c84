"""What the supervisor says: a line for the terminal, an event for programs. Decides nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence

from devserver.events import Events
from devserver.process.control import Message

logger = logging.getLogger("devserver")


class Report:
    """Tells of one supervisor's generations.

    Attributes:
        reason: why the newest generation is, or will be, loaded.
        since: when the reason arose, on `time.monotonic`.
    """

    def __init__(self, events: Events) -> None:
        self.reason = ""
        self.since = time.monotonic()
        self._events = events
        self._shown = ""

    def because(self, reason: str) -> None:
        """Note why the next generation is wanted."""
        self.reason, self.since = reason, time.monotonic()

    def changed(self, paths: Sequence[str]) -> None:
        """Files changed that matter."""
        here = os.path.join(os.getcwd(), "") if os.path.isdir(".") else "\0"
        files = [path.removeprefix(here) for path in paths]
        self._events.emit("change", files=files)
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        self.because(f"{files[0]} changed{more}")

    def spawned(self, generation: int, target: str) -> None:
        """A generation begins to load."""
        if generation == 1:
            self._events.emit("starting", target=target)
        else:
            self._events.emit("restart", kind="cold", reason=self.reason, generation=generation)
            logger.debug("%s: restarting", self.reason)

    def loaded(self, generation: int, pid: int, seconds: float) -> None:
        """The application is loaded; it may still have to wait for its predecessor."""
        self._events.emit("loaded", generation=generation, pid=pid, seconds=round(seconds, 4))

    def serving(self, generation: int, pid: int, began: float) -> None:
        """The new code answers."""
        self._shown = ""
        seconds = time.monotonic() - (began if generation == 1 else self.since)
        self._events.emit("serving", generation=generation, pid=pid, seconds=round(seconds, 4))
        if generation > 1:
            logger.info("%s: restarted, %.2f s", self.reason, seconds)

    def failed(self, generation: int, failure: Message) -> bool:
        """There is nothing to serve. Returns whether that is news: the same failure is shown once."""
        text = f"{failure['error']}\n{failure['traceback']}"
        news = text != self._shown
        self._shown = text
        if news:
            self._events.emit("failed", generation=generation, **failure)
            if failure["traceback"]:
                logger.error("%s", failure["traceback"].rstrip())
            # Below suggestions, of which each has a line of its own, it must not seem to belong to the last.
            break_ = "\n" if "\n" in failure["error"] else "; "
            logger.error("%s%swaiting for a change", failure["error"], break_)
        else:
            logger.info("still: %s", failure["error"])
        return news

    def healing(self, failure: Message) -> None:
        """A child that had served has died and is replaced."""
        logger.error("%s; starting it again", failure["error"])
        if failure["traceback"]:
            logger.error("%s", failure["traceback"].rstrip())

    def stopped(self) -> None:
        """Everything has ended."""
        self._events.emit("stopped")


def crash(how: str, served: bool, at: str, trace: str) -> Message:
    """A process that is gone, as a failure to be shown.

    Args:
        how: see `launcher.describe_exit`.
        served: whether it had served.
        at: what it said last that it would read.
        trace: its last words.
    """
    when = "while it served" if served else f"while it loaded{_last(at)}"
    return {"phase": "crash", "error": f"the application's process {how} {when}", "traceback": trace}


def slow(seconds: float, at: str, loaded: bool) -> Message:
    """A load, or a startup, that takes longer than requests may wait, as a failure to be shown."""
    if loaded:
        error = f"the lifespan's startup is not complete after {seconds:.0f} s"
        return {"phase": "starting", "error": error, "traceback": ""}
    return {"phase": "loading", "error": f"still loading after {seconds:.0f} s{_last(at)}", "traceback": ""}


def _last(at: str) -> str:
    return f" ({at} was read last)" if at else ""
