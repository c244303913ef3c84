"""What answers while nobody serves the application: a process without user code that says why.

Keeps what it says, so that a page that is lost can be put up again. Decides nothing.

A page in a browser waits until the failure that it shows is over. It waits by the failure's *moment*, a word.
An attempt that only a request has led to, and that fails again, ends no failure, however its text differs
from that of the last one (an address, a time): the pages of both wait on. Else the reload of the first page
would be the request that leads to the next attempt, for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from devserver.process.control import Message
from devserver.reload import protocol
from devserver.reload.child import Child
from devserver.reload.children import Children
from devserver.reload.machine import Attempts, Event
from devserver.reload.report import SLOW, slow
from devserver.watching.answers import digest_of

logger = logging.getLogger("devserver")

AGAIN = (3, 10.0)
"""A page that died by itself is put up again at most so often in so many seconds."""


KEPT = 16
"""Failures of attempts that requests have led to, one after the other, whose pages wait on."""


class Page:
    """See the module."""

    def __init__(self, children: Children, put_up: Callable[[int, Message], Child]) -> None:
        """Args: put_up: starts a page with a generation's failure; raises OSError if that is impossible."""
        self._children = children
        self._start = put_up
        self._says: Message = {}
        self._moments: list[str] = []
        self._retries = False  # only a request has led to the attempt that is being made
        self._attempts = Attempts(*AGAIN, time.monotonic)

    def happened(self, event: Event) -> None:
        """Something is taken through the table: is what comes of it what came before?"""
        news = event in (Event.CHANGED, Event.SERVING)
        self._retries = event is Event.ASKED or (self._retries and not news)

    def show(self, generation: int, failure: Message) -> None:
        """Say why there is nothing to serve."""
        self._say(generation, failure)

    def show_loading(self, generation: int, *, again: bool) -> None:
        """Say where the load, or the startup, stands that takes so long. `again`: the terminal knows."""
        current = self._children.current
        if current is not None:
            failure = slow(time.monotonic() - current.began, *self._children.stands(), current.loaded)
            logger.log(logging.DEBUG if again else logging.WARNING, "%s", failure["error"])
            self._say(generation, failure)

    def show_again(self, generation: int) -> None:
        """Say what was said last."""
        self._put_up(generation, self._says)

    def may_return(self, how: str) -> bool:
        """The page's process is gone; whether it may be put up again. `how` it ended is told if not."""
        if self._attempts():
            return True
        logger.error("the error page's process %s; requests wait", how)
        return False

    def _say(self, generation: int, failure: Message) -> None:
        moment = digest_of(repr(sorted(failure.items())).encode("utf-8", "backslashreplace"))
        loads = self._says.get("phase") in SLOW  # pages that tell of a load wait for nothing but its end
        before = self._moments[:-1] if loads else self._moments
        self._moments = [*before, moment][-KEPT:] if self._retries else [moment]
        self._put_up(generation, {**failure, "moments": self._moments})

    def _put_up(self, generation: int, says: Message) -> None:
        self._says = says
        if self._children.page is None:
            try:
                self._children.page = self._start(generation, says)
            except OSError as error:
                logger.error("no process can be started for the error page: %s; requests wait", error)
        else:
            self._children.page.tell(protocol.Show(says))
