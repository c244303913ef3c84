"""The freshness gate of a child that serves: may a request begin, or has the code become old?"""

from __future__ import annotations

import threading

from devserver.child.machine import State
from devserver.child.process import ChildProcess
from devserver.process.prompt import unseen
from devserver.serve_context import ServeContext
from devserver.watching.watchset import Gate


class Freshness:
    """What a connection asks before it begins a request; see `devserver.http.service.Gate`."""

    def __init__(self, gate: Gate, process: ChildProcess, context: ServeContext) -> None:
        """
        Args:
            gate: notices changes.
            process: begins to end when there are any.
            context: its program may have a say in what a change means.
        """
        self._gate = gate
        self._process = process
        self._context = context

    def watch(self) -> None:
        """Begin to notice, before the application serves."""
        self._gate.open()
        # Ahead of the first request, and while a predecessor drains.
        unseen(threading.Thread(target=self._gate.settle, name="devserver-digests", daemon=True)).start()

    def lets_in(self) -> bool:
        """Whether a request may begin; in the event loop. If not, this process is ending or is a page's."""
        if self._process.state is not State.SERVING:
            return False
        if self._gate.quiet():
            return True
        changed = self._gate.changed()
        left = self._context.on_change(changed) if changed else changed
        if left:
            self._process.changed(left)
        return not left
