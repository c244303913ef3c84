"""The checkpoints of a generation, in the order in which loading left them, and which of them to go on from.

A change matters from the first *tick* on at which something that it concerns was read. Whatever
stands before that tick is as a fresh process would have it; so the latest checkpoint before it is the one
to go on from. A module that a checkpoint had not finished may have changed behind where it stood:
only the process itself can say, by its text.

Decides, and does nothing: processes belong to `children`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from devserver.reload.launcher import Spawned
from devserver.reload.timeline import Entry, Kind

Mark = tuple[str, int]
"""A module's path and the number of a statement; -1 for its first."""

MOST = 6
"""Checkpoints that are kept at most."""


@dataclass(slots=True)
class Checkpoint:
    """A process that waits to be gone on from.

    Attributes:
        spawned: the process.
        entries: how much of the timeline it has read.
        seconds: of loading, that it stands after.
        unfinished: the modules that it had begun to execute, by path, with the number of the statement.
    """

    spawned: Spawned
    entries: int
    seconds: float
    unfinished: dict[str, int]


class Chain:
    """See the module."""

    def __init__(self) -> None:
        self._checkpoints: list[Checkpoint] = []

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(list(self._checkpoints))

    def __len__(self) -> int:
        return len(self._checkpoints)

    def add(self, checkpoint: Checkpoint) -> None:
        """Append one: loading has come that far."""
        self._checkpoints.append(checkpoint)

    def remove(self, checkpoint: Checkpoint) -> None:
        """Forget one."""
        self._checkpoints.remove(checkpoint)

    def candidates(self, outdated: Iterable[Entry]) -> Iterator[Checkpoint]:
        """The checkpoints from which to go on after changes, the best first.

        Args:
            outdated: what would be read otherwise now.
        """
        outdated = list(outdated)
        for checkpoint in reversed(self._checkpoints):
            if all(_is_before(checkpoint, entry) for entry in outdated):
                yield checkpoint

    def after(self, checkpoint: Checkpoint) -> list[Checkpoint]:
        """Those that stand behind one: what they have executed is outdated when it goes on."""
        return self._checkpoints[self._checkpoints.index(checkpoint) + 1 :]

    def resumed(self, checkpoint: Checkpoint, dropped: Iterable[int]) -> None:
        """One was gone on from.

        Args:
            dropped: ticks of entries before it that are read again, so that later ones have moved up.
        """
        dropped = list(dropped)
        for other in self._checkpoints:
            other.entries -= sum(tick < other.entries for tick in dropped)

    def dispensable(self) -> Checkpoint | None:
        """The one that saves least, if there are too many. Never the first, from which all can be loaded."""
        if len(self._checkpoints) <= MOST:
            return None
        pairs = zip(self._checkpoints, self._checkpoints[1:-1], strict=False)
        return min(pairs, key=lambda pair: pair[1].seconds - pair[0].seconds)[1]


def _is_before(checkpoint: Checkpoint, entry: Entry) -> bool:
    """Whether a checkpoint has not read what is another now, or can tell by itself."""
    if entry.tick >= checkpoint.entries:
        return True
    return entry.kind is Kind.FILE and entry.path in checkpoint.unfinished
