"""One thing after the other, whoever asks for it: other threads, and who has interrupted itself.

Python may interrupt a thread wherever it makes an object: the collection of garbage calls finalizers, a
signal calls its handler, and both are the user's and may do whatever leads here. A lock that is held by
the very thread that then waits for it is never given back, and one for which two threads wait amid
each other's work neither. So what cannot be done at once is left to who is at it, and goes on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")

PATIENCE = 0.1
"""Seconds to wait for another thread. It needs microseconds, unless it waits for this one in its turn."""


class Serializer(Generic[Item]):
    """See the module."""

    def __init__(self, take: Callable[[Item], object]) -> None:
        """Args: take: is called with one item after the other, never amid another call."""
        self._take = take
        self._lock = threading.RLock()
        self._waiting = deque[Item]()
        self._busy = False

    @property
    def busy(self) -> bool:
        """Whether something is being done; asked by the thread that does it, it is what was interrupted."""
        return self._busy

    def give(self, item: Item) -> None:
        """Have an item taken: now, or if something else is being done and this cannot wait, after that."""
        self._waiting.append(item)
        self._go_on()

    def give_now(self, item: Item) -> None:
        """Have an item taken before this returns, however long that takes. Not for what interrupts."""
        with self.own():
            self._take(item)

    @contextmanager
    def own(self) -> Iterator[bool]:
        """Have nothing taken meanwhile. Gives False where this has interrupted what must not be."""
        with self._lock:
            mine = not self._busy
            if mine:
                self._take_all()
            self._busy = True
            try:
                yield mine
            finally:
                self._busy = not mine
        self._go_on()

    def _go_on(self) -> None:
        # Asked again when the lock is given back: somebody may have tried meanwhile, and left it to this one.
        while self._waiting and self._lock.acquire(timeout=PATIENCE):
            try:
                if self._busy:
                    return
                self._take_all()
            finally:
                self._lock.release()

    def _take_all(self) -> None:
        self._busy = True
        try:
            while self._waiting:
                self._take(self._waiting.popleft())
        finally:
            self._busy = False
