"""The checkpoints of a generation, in the order in which loading left them, and which of them to go on from.

A change matters from the first *sequence number* on at which something that it concerns was read. Whatever
stands before that number is as a fresh process would have it; so the latest checkpoint before it is the one
to go on from. A module that a checkpoint had not finished may have changed behind where it stood:
only the process itself can say, by its text.

Decides, and does nothing: processes belong to `children`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from devserver.reload.child import Child
from devserver.watching.timeline import Entry, Question

AGAIN = 3
"""So many times likelier than all others together is the next edit where the last one was."""


@dataclass(slots=True, eq=False)
class Checkpoint:
    """A process that waits to be gone on from.

    Attributes:
        child: the process.
        seq: of what it would read next.
        seconds: of loading, that it stands after.
        unfinished: the modules that it had begun to execute, the innermost last: for each its path, and
            the line of the statement that is executed next, or being executed.
        marked: the module for whose edit it was left, or `END`'s; "" for none.
        likely: how many of the latest edits were made directly behind it; many more for a place from which
            everything goes on that comes later, since there is no other behind it.
        is_first: it holds nothing of the user's.
    """

    child: Child
    seq: int
    seconds: float
    unfinished: dict[str, int]
    marked: str = ""
    likely: int = 0
    is_first: bool = False


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

    def up_to(self, checkpoint: Checkpoint) -> Chain:
        """Another chain, that ends with a checkpoint of this one.

        What those behind it have executed is outdated when it goes on.
        """
        part = Chain()
        part._checkpoints = self._checkpoints[: self._checkpoints.index(checkpoint) + 1]
        return part

    def dispensable(self, seq: int, sizes: Mapping[Checkpoint, int] | None = None) -> Checkpoint | None:
        """The one whose loss is expected to cost least, for what it occupies. None: there is no other.

        Who edits what it stands before has to execute again what lies between it and the one before it.
        Any module may be edited; one that was lately is the likeliest by far.
        Never the first, from which everything can be loaded.

        Args:
            seq: up to which loading has come.
            sizes: of the processes, in bytes; without them all count alike.
        """

        def loss(at: int) -> float:
            before, this, after = self._checkpoints[at - 1], self._checkpoints[at], ends[at]
            share = (after - this.seq + 1) / (seq + 1) + AGAIN * this.likely
            return (this.seconds - before.seconds) * share / (max(sizes.get(this, 1), 1) if sizes else 1)

        ends = [*(checkpoint.seq for checkpoint in self._checkpoints[1:]), seq]
        numbers = range(1, len(self._checkpoints))
        return self._checkpoints[min(numbers, key=loss)] if numbers else None


def _is_before(checkpoint: Checkpoint, entry: Entry) -> bool:
    """Whether a checkpoint has not read what is another now, or can tell by itself."""
    if entry.seq >= checkpoint.seq:
        return True
    return entry.kind is Question.FILE and entry.path in checkpoint.unfinished
