"""How much all workers have to do at the moment: numbers in memory that their processes share.

Each process has a *slot*, and writes its numbers into it whenever one of its sets gains or loses a member.
So a limit that is meant for all of them can be held by each: it reads what the others have written. Nobody
waits for anybody; two requests that begin in the same microsecond may both be let in.

Made before processes are forked. Only where a limit is set: elsewhere sets are plain ones.
"""

from __future__ import annotations

import mmap
from typing import Any

SLOTS = 1024
"""Processes that can be counted; more are not."""

CONNECTIONS, HANDLERS = 0, 1
"""What is counted."""

_KINDS = 2


class Tally:
    """The numbers of all. See the module."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, SLOTS * _KINDS * 4)).cast("I")
        self._free = list(range(SLOTS - 1, -1, -1))

    def claim(self) -> int:
        """A slot for a process that is about to begin; the last one for all for whom there is none."""
        return self._free.pop() if self._free else SLOTS - 1

    def release(self, slot: int) -> None:
        """The process that had a slot has ended, in whatever way."""
        for kind in range(_KINDS):
            self._numbers[kind * SLOTS + slot] = 0
        if slot not in self._free:
            self._free.append(slot)

    def write(self, slot: int, kind: int, number: int) -> None:
        """Set one number of a process."""
        self._numbers[kind * SLOTS + slot] = number

    def others(self, slot: int, kind: int) -> int:
        """The sum of a number over all processes but one."""
        begin = kind * SLOTS
        return sum(self._numbers[begin : begin + SLOTS]) - self._numbers[begin + slot]


class Share:
    """A tally, as one process has it."""

    def __init__(self, tally: Tally, slot: int) -> None:
        self._tally = tally
        self._slot = slot

    def others(self, kind: int) -> int:
        """The sum of a number over all other processes."""
        return self._tally.others(self._slot, kind)

    def write(self, kind: int, number: int) -> None:
        """Set this process's number."""
        self._tally.write(self._slot, kind, number)


class Counted(set[Any]):
    """A set whose size the other processes know. Only `add` and `discard` may change it."""

    __hash__ = None  # as that of any set

    def __init__(self, share: Share, kind: int) -> None:
        super().__init__()
        self._share = share
        self._kind = kind

    def add(self, item: Any) -> None:
        super().add(item)
        self._share.write(self._kind, len(self))

    def discard(self, item: Any) -> None:
        super().discard(item)
        self._share.write(self._kind, len(self))
