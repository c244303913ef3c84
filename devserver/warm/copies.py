"""Copies that children make of themselves who wait: at the word, or ahead of it.

A child that has left a checkpoint waits, and does nothing but answer. Asked to resume, it makes a copy that
goes on. For the likeliest of them the copy is *prepared*, made ahead, so that nobody waits for a fork.

Knows neither which is the likeliest nor what becomes of a copy; `checkpoint` is the other side. Linux.
"""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress

from devserver.process.control import Closed, QueueingChannel
from devserver.reload import protocol
from devserver.reload.child import Child
from devserver.reload.children import Children

if sys.platform == "linux":
    from devserver.process.adopted import Adopted

ASKED = 3.0
"""Seconds that a checkpoint has to say whether it can resume. It needs milliseconds on a calm machine."""


class Copies:
    """See the module."""

    def __init__(self, children: Children) -> None:
        """Args: children: those that wait, and what was made ahead of one of them, are among these."""
        self._children = children
        self._prepared: Child | None = None  # a copy that was made ahead,
        self._prepared_of: Child | None = None  # of this child

    def resume(self, waiting: Child, word: protocol.Resume) -> Child | None:
        """The copy of a child that goes on from now on. None: it cannot."""
        copy, unfit = None, False
        if waiting is self._prepared_of:
            copy, unfit = self._go_on(word)
        return self.make(waiting, word) if copy is None and not unfit else copy

    def make(self, waiting: Child, word: protocol.Resume | protocol.ShowPage) -> Child | None:
        """The copy that a child makes when it is told something. None: it cannot."""
        said, copy = self._ask(waiting, word)
        return copy if isinstance(said, protocol.Resumed | protocol.ShowsPage) else None

    def adopt(self, maker: Child, pid: int, fd: int) -> Child | None:
        """Take over a copy that was announced, with the other end of its channel; None if it is gone."""
        if sys.platform == "linux":
            channel = QueueingChannel(socket.socket(fileno=fd))
            try:
                copy = maker.copied(Adopted(pid, channel))
            except OSError:
                channel.close()
                return None
            self._children.attend(copy)
            return copy
        raise AssertionError("checkpoints are left on Linux only")

    def prepare(self, waiting: Child, sibling: int, most: int) -> None:
        """Have a copy made ahead of the next `resume`; there is one such at a time.

        Args:
            sibling: the process id of a copy that has gone on before; it shows which memory will be needed.
            most: bytes of memory that may be copied for that.
        """
        if waiting is not self._prepared_of:
            self._drop()
            if waiting.tell(protocol.Prepare(sibling, most)):
                self._prepared_of = waiting

    def prepared(self, waiting: Child, pid: int, fd: int) -> bool:
        """A copy was made ahead. Returns whether it will do."""
        copy = self.adopt(waiting, pid, fd)
        if copy is None:
            self.lost(waiting)
            return False
        self._children.waiting.add(copy)
        if waiting is not self._prepared_of:
            copy.process.kill()  # it took too long
            return False
        self._prepared = copy
        return True

    def lost(self, waiting: Child) -> None:
        """None was made, and what there is of it is nobody's."""
        self._children.lose()
        if waiting is self._prepared_of and self._prepared is None:
            self._prepared_of = None

    def pids(self, waiting: Child) -> list[int]:
        """The process ids of a child, and of a copy that was made ahead of it."""
        ahead = [self._prepared] if self._prepared is not None and waiting is self._prepared_of else []
        return [each.process.pid for each in (waiting, *ahead)]

    def dismiss(self, waiting: Child) -> None:
        """End a child, and what was made ahead of it."""
        waiting.process.kill()
        if waiting is self._prepared_of:
            self._drop()

    def gone(self, child: Child) -> None:
        """A process has ended, whichever it was."""
        if child is self._prepared:
            self._prepared = self._prepared_of = None
        elif child is self._prepared_of:
            self._drop()

    def _drop(self) -> None:
        if self._prepared is not None:
            self._prepared.process.kill()
        self._prepared = self._prepared_of = None

    def _go_on(self, word: protocol.Resume) -> tuple[Child | None, bool]:
        """Have the copy made ahead go on. Returns it, if there is one and it can; and whether it is unfit."""
        copy, self._prepared, self._prepared_of = self._prepared, None, None
        if copy is None:
            return None, False
        said, _ = self._ask(copy, word)
        if not isinstance(said, protocol.Resumed):
            copy.process.kill()
            return None, isinstance(said, protocol.Unfit)
        self._children.waiting.discard(copy)
        return copy, False

    def _ask(
        self, waiting: Child, word: protocol.Resume | protocol.ShowPage
    ) -> tuple[protocol.Said | None, Child | None]:
        """Tell a child something that does nothing but wait for it. Returns its answer, and its copy if any.

        One that does not answer is killed; its exit is reported by its own descriptor.
        """
        waiting.tell(word)
        deadline = time.monotonic() + ASKED
        with suppress(Closed):
            while waiting.process.channel.wait(max(0.0, deadline - time.monotonic())):
                try:
                    message, fds = (
                        waiting.process.channel.receive_one()
                    )  # what follows is for whoever hears it
                except BlockingIOError:
                    continue  # that was not the whole of it
                match protocol.said(message):
                    case protocol.Prepared() as said:  # it was still at that
                        self.prepared(waiting, said.pid, fds[0])
                    case protocol.Lost():
                        self.lost(waiting)
                    case protocol.Resumed() | protocol.ShowsPage() as said if fds:
                        return said, self.adopt(waiting, said.pid, fds[0])
                    case said:
                        return said, None
            waiting.process.kill()
        return None, None
