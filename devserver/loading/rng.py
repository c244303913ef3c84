"""The states of random number generators in copies of a process.

Whoever has seeded one gets in each copy what a fresh process would draw there; whoever has not gets
something else each time. Refuses to know what copies are made for.
"""

from __future__ import annotations

import random
import sys
from typing import Any


class RandomStates:
    """The states of `random`, which CPython seeds anew in a copy, and of `numpy.random`, which is not."""

    def __init__(self) -> None:
        self._seed, self._setstate = random.seed, random.setstate
        self._seeded = False
        self._state = random.getstate()

    def start(self) -> None:
        """Begin to notice whether the application seeds it."""

        def seed(*args: Any, **named: Any) -> None:
            self._seeded = (*args, *named.values(), None)[0] is not None
            self._seed(*args, **named)

        def setstate(state: Any) -> None:
            self._seeded = True
            self._setstate(state)

        for stand_in in (seed, setstate):
            stand_in.__doc__, stand_in.__module__ = getattr(random, stand_in.__name__).__doc__, "random"
            stand_in.__qualname__ = f"Random.{stand_in.__name__}"
            setattr(random, stand_in.__name__, stand_in)

    def stop(self) -> None:
        """Notice nothing any more."""
        random.seed, random.setstate = self._seed, self._setstate

    def keep(self) -> None:
        """Before a fork."""
        self._state = random.getstate()

    def restore(self) -> None:
        """In the half that goes on at once: it is to know nothing of the fork."""
        self._setstate(self._state)

    def renew(self) -> None:
        """In a copy that was resumed: as a fresh process would have it."""
        if self._seeded:
            self._setstate(self._state)
        numpy = sys.modules.get("numpy.random.mtrand")
        # NumPy forgets where its seed came from when the application sets one.
        if numpy is not None and getattr(numpy._rand._bit_generator, "_seed_seq", None) is not None:
            numpy._rand.set_state(numpy.RandomState().get_state())
