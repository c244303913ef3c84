"""Copies that children make of themselves who wait: at the word, or ahead of it.

A child that has left a checkpoint waits, and does nothing but answer. Asked to resume, it makes a copy that
goes on. For the likeliest of them the copy is *prepared*, made ahead, so that nobody waits for a fork.

Knows neither which is the likeliest nor what becomes of a copy; `checkpoint` is the other side. Linux.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from devserver.process.control import Closed, QueueingChannel
from devserver.reload import protocol
from devserver.reload.launcher import Spawned

if sys.platform == "linux":
    from devserver.process.adopted import Adopted

ASKED = 3.0
"""Seconds that a checkpoint has to say whether it can resume. It needs milliseconds on a calm machine."""


class Copies:
    """See the module.

    Attributes:
        waiting: the children that wait, and what was made ahead of one of them.
        has_lost: whether there may be processes that are nobody's. To be reset by who has ended them.
    """

    def __init__(self, attend: Callable[[Spawned], None]) -> None:
        """Args: attend: has a copy heard, and its end noticed, from now on."""
        self.waiting: set[Spawned] = set()
        self.has_lost = False
        self._attend = attend
        self._prepared: Spawned | None = None  # a copy that was made ahead,
        self._prepared_of: Spawned | None = None  # of this child

    def resume(self, waiting: Spawned, word: protocol.Resume) -> Spawned | None:
        """The copy of a child that goes on from now on. None: it cannot."""
        copy, unfit = None, False
        if waiting is self._prepared_of:
            copy, unfit = self._go_on(word)
        return self.make(waiting, word) if copy is None and not unfit else copy

    def make(self, waiting: Spawned, word: protocol.Resume | protocol.ShowPage) -> Spawned | None:
        """The copy that a child makes when it is told something. None: it cannot."""
        said, copy = self._ask(waiting, word)
        return copy if isinstance(said, protocol.Resumed | protocol.ShowsPage) else None

    def adopt(self, maker: Spawned, pid: int, fd: int) -> Spawned | None:
        """Take over a copy that was announced, with the other end of its channel; None if it is gone."""
        if sys.platform == "linux":
            channel = QueueingChannel(socket.socket(fileno=fd))
            try:
                copy = maker.copied(Adopted(pid, channel))
            except OSError:
                channel.close()
                return None
            self._attend(copy)
            return copy
        raise AssertionError("checkpoints are left on Linux only")

    def prepare(self, waiting: Spawned, sibling: int, most: int) -> None:
        """Have a copy made ahead of the next `resume`; there is one such at a time.

        Args:
            sibling: the process id of a copy that has gone on before; it shows which memory will be needed.
            most: bytes of memory that may be copied for that.
        """
        if waiting is not self._prepared_of:
            self._drop()
            if waiting.tell(protocol.Prepare(sibling, most)):
                self._prepared_of = waiting

    def prepared(self, waiting: Spawned, pid: int, fd: int) -> bool:
        """A copy was made ahead. Returns whether it will do."""
        copy = self.adopt(waiting, pid, fd)
        if copy is None:
            self.lost(waiting)
            return False
        self.waiting.add(copy)
        if waiting is not self._prepared_of:
            copy.child.kill()  # it took too long
            return False
        self._prepared = copy
        return True

    def lost(self, waiting: Spawned) -> None:
        """None was made, and what there is of it is nobody's."""
        self.has_lost = True
        if waiting is self._prepared_of and self._prepared is None:
            self._prepared_of = None

    def pids(self, waiting: Spawned) -> list[int]:
        """The process ids of a child, and of a copy that was made ahead of it."""
        ahead = [self._prepared] if self._prepared is not None and waiting is self._prepared_of else []
        return [each.child.pid for each in (waiting, *ahead)]

    def dismiss(self, waiting: Spawned) -> None:
        """End a child, and what was made ahead of it."""
        waiting.child.kill()
        if waiting is self._prepared_of:
            self._drop()

    def gone(self, spawned: Spawned) -> None:
        """A process has ended, whichever it was."""
        self.waiting.discard(spawned)
        if spawned is self._prepared:
            self._prepared = self._prepared_of = None
        elif spawned is self._prepared_of:
            self._drop()

    def _drop(self) -> None:
        if self._prepared is not None:
            self._prepared.child.kill()
        self._prepared = self._prepared_of = None

    def _go_on(self, word: protocol.Resume) -> tuple[Spawned | None, bool]:
        """Have the copy made ahead go on. Returns it, if there is one and it can; and whether it is unfit."""
        copy, self._prepared, self._prepared_of = self._prepared, None, None
        if copy is None:
            return None, False
        said, _ = self._ask(copy, word)
        if not isinstance(said, protocol.Resumed):
            copy.child.kill()
            return None, isinstance(said, protocol.Unfit)
        self.waiting.discard(copy)
        return copy, False

    def _ask(
        self, waiting: Spawned, word: protocol.Resume | protocol.ShowPage
    ) -> tuple[protocol.Said | None, Spawned | None]:
        """Tell a child something that does nothing but wait for it. Returns its answer, and its copy if any.

        One that does not answer is killed; its exit is reported by its own descriptor.
        """
        waiting.tell(word)
        deadline = time.monotonic() + ASKED
        with suppress(Closed):
            while waiting.child.channel.wait(max(0.0, deadline - time.monotonic())):
                try:
                    message, fds = waiting.child.channel.receive_one()  # what follows is for whoever hears it
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
            waiting.child.kill()
        return None, None
