"""What answers while nobody serves the application: a process without user code that says why.

Keeps what it says, so that a page that is lost can be put up again. Decides nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from devserver.process.control import Message
from devserver.reload import protocol
from devserver.reload.children import Children
from devserver.reload.launcher import Spawned
from devserver.reload.machine import Attempts
from devserver.reload.report import slow

logger = logging.getLogger("devserver")

AGAIN = (3, 10.0)
"""A page that died by itself is put up again at most so often in so many seconds."""


class Page:
    """See the module."""

    def __init__(self, children: Children, waiting: Callable[[], Spawned | None]) -> None:
        """Args: waiting: gives the process of the first checkpoint, if there is one."""
        self._children = children
        self._waiting = waiting
        self._says: Message = {}
        self._attempts = Attempts(*AGAIN)

    def show(self, generation: int, failure: Message) -> None:
        """Say why there is nothing to serve."""
        self._put_up(generation, {"status": 500, **failure})

    def show_loading(self, generation: int, *, again: bool) -> None:
        """Say where the load, or the startup, stands that takes so long. `again`: the terminal knows."""
        current = self._children.current
        if current is not None:
            failure = slow(time.monotonic() - current.began, *self._children.stands(), current.loaded)
            logger.log(logging.DEBUG if again else logging.WARNING, "%s", failure["error"])
            self._put_up(generation, {"status": 503, **failure})

    def show_again(self, generation: int) -> None:
        """Say what was said last."""
        self._put_up(generation, self._says)

    def may_return(self, how: str) -> bool:
        """The page's process is gone; whether it may be put up again. `how` it ended is told if not."""
        if self._attempts.allow(time.monotonic()):
            return True
        logger.error("the error page's process %s; requests wait", how)
        return False

    def _put_up(self, generation: int, says: Message) -> None:
        self._says = says
        if self._children.page is None:
            try:
                self._children.put_up(self._waiting(), generation, says)
            except OSError as error:
                logger.error("no process can be started for the error page: %s; requests wait", error)
        else:
            self._children.page.tell(protocol.Show(says))
