"""The lifespan of an ASGI application (ASGI lifespan spec 2.0): started once, shut down once.

It runs in a task of its own for as long as the server serves. Knows no server; whoever serves
calls `startup` before and `shutdown` after.
"""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import MutableMapping
from enum import Enum
from typing import Any

from devserver.errors import ApplicationError
from devserver.gateway.asgi_words import Application

logger = logging.getLogger("devserver")


_MEANT = re.compile(r"lifespan|scope|protocol|http|websocket", re.IGNORECASE)
"""What an exception says by which an application refuses a lifespan; anything else is an accident."""

_RAISES = 0.5
"""Seconds for an application that has said that its startup failed to raise why, too."""


class State(Enum):
    """Where a lifespan stands."""

    STARTING = "starting"
    STARTED = "started"
    STOPPING = "stopping"
    ENDED = "ended"


class StartupFailed(Exception):
    """The application said so, or raised where a lifespan was demanded; what it raised is the cause."""


# What the application may send, by state: the state that follows.
_SENDS = {
    (State.STARTING, "lifespan.startup.complete"): State.STARTED,
    (State.STARTING, "lifespan.startup.failed"): State.ENDED,
    (State.STOPPING, "lifespan.shutdown.complete"): State.ENDED,
    (State.STOPPING, "lifespan.shutdown.failed"): State.ENDED,
}


class Lifespan:
    """Runs an application's lifespan.

    Attributes:
        state: what the application left in `scope["state"]`.
        started: whether it has said that it is; stays so when the lifespan has ended.
    """

    def __init__(self, application: Application, mode: str) -> None:
        """Args: mode: "on" demands a lifespan, "off" does without, "auto" takes it if there is one."""
        self.state: dict[str, Any] = {}
        self._application = application
        self._mode = mode
        self._phase = State.STARTING
        self.started = False
        self._asked = False
        self._unaware = False  # it takes every scope for a request
        self._messages: asyncio.Queue[str] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Start the application up.

        Raises:
            StartupFailed: it did not start. With "auto" an exception before the first `receive`, or
                the messages of a response, are how an application answers that has no lifespan;
                other exceptions are failures.
        """
        if self._mode == "off":
            return
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._messages.put_nowait("lifespan.startup")
        await self._changed.wait()
        if self.started:
            return
        # Starlette gives a whole traceback as the reason, and then raises the exception itself.
        await asyncio.wait([self._task], timeout=_RAISES)
        self._task = None
        if self._unaware and self._mode == "auto":
            self._asked = False
        elif isinstance(self._error, StartupFailed):
            raise self._error
        elif isinstance(self._error, ApplicationError):
            raise StartupFailed(str(self._error)) from self._error
        if self._mode == "on" or (self._error is not None and self._asked):
            reason = "returned" if self._error is None else "raised"
            raise StartupFailed(
                f"the application {reason} before its lifespan startup was complete"
            ) from self._error
        if self._error is not None and not self._unaware:
            _tell_of_refusal(self._error)

    async def shutdown(self) -> None:
        """Shut the application down, if it was started up. What fails is logged."""
        if self._task is None or self._phase is not State.STARTED:
            return
        self._changed.clear()
        self._phase = State.STOPPING
        self._messages.put_nowait("lifespan.shutdown")
        await self._changed.wait()
        await asyncio.wait([self._task])  # what the application does after its last message is part of it

    async def cancel(self) -> None:
        """End a startup or shutdown that takes too long."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1)

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._application(scope, self._receive, self._send)
        except BaseException as error:  # user code; with "auto" an exception means "no lifespan here"
            if self._phase is State.STARTING:
                self._error = self._error or error
            elif isinstance(self._error, StartupFailed):
                self._error.__cause__ = error
            elif not isinstance(error, asyncio.CancelledError):
                what = "during" if self._phase is State.STARTED else "at the end of"
                logger.error("the application failed %s its lifespan", what, exc_info=error)
        finally:
            if self._phase is State.STARTED:
                logger.debug("the application's lifespan ended by itself")
            self._phase = State.ENDED
            self._changed.set()

    async def _receive(self) -> MutableMapping[str, Any]:
        self._asked = True
        return {"type": await self._messages.get()}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        kind = message["type"]
        following = _SENDS.get((self._phase, kind))
        if following is None:
            error = ApplicationError(
                f"the application sent {kind!r} when its lifespan was {self._phase.value}"
            )
            if self._phase is State.STARTING and not kind.startswith("lifespan."):
                self._unaware = True
            self._error = self._error or error
            raise error
        if kind.endswith(".failed"):
            text = message.get("message", "") or "no reason given"
            if self._phase is State.STARTING:
                self._error = StartupFailed(f"lifespan startup failed: {text}")
            else:
                logger.error("lifespan shutdown failed: %s", text)
        self._phase = following
        self.started = self.started or following is State.STARTED
        self._changed.set()


def _tell_of_refusal(error: BaseException) -> None:
    """Say that startup does not run, unless the exception is one that is meant to say so.

    An application without a lifespan asserts another type of scope, or raises and names what it takes. A
    `KeyError: 'path'` in a middleware keeps the startup of the application within from ever being run.
    """
    if isinstance(error, AssertionError | NotImplementedError) or _MEANT.search(str(error)):
        logger.debug("the application has no lifespan", exc_info=error)
        return
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    logger.warning(
        "the application's startup does not run: it raised %s%s, when it was told of its lifespan;"
        " --lifespan on makes that a failure, --lifespan off does without",
        "".join(traceback.format_exception_only(error)).strip(),
        where,
    )
