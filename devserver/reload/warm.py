"""Warm restarts: from which checkpoint the next generation goes on, or why from none.

Cold is never wrong, only slow; so whenever something cannot be said for certain it is cold: other
options, other packages, a change of what was read before the first checkpoint, a file that counts
though nothing was seen reading it, a debugger.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from devserver.config import Bind, Config
from devserver.cpython import CAN_COPY
from devserver.discovery import discover, may_change
from devserver.errors import TargetError
from devserver.reload import protocol
from devserver.reload.chain import Chain, Checkpoint
from devserver.reload.children import Children
from devserver.reload.launcher import Spawned
from devserver.reload.marks import END, Mark
from devserver.reload.prompt import debugged
from devserver.watching.lines import Lines
from devserver.watching.timeline import Entry, Question, Timeline
from devserver.watching.watchset import WatchSet, here

logger = logging.getLogger("devserver")

MARKS = 4
"""Statements, edited lately, before which checkpoints are wanted."""

BARRED = 1000
"""So many edits are expected behind the checkpoint before a barrier: it is the last one, from which
everything goes on that comes later."""


def is_wanted(config: Config) -> bool:
    """Whether restarts may be warm."""
    wanted = config.reload.restart
    return wanted != "cold" and CAN_COPY and hasattr(os, "pidfd_open") and not debugged()


@dataclass(frozen=True, slots=True)
class _Given:
    """What the last restart that led to an answer had, before a restart that has not yet.

    Attributes:
        chain: its checkpoints, some of which the newest load has given up.
        timeline: what it had read.
    """

    chain: Chain
    timeline: Timeline


class Warm:
    """See the module.

    A restart may fail, and the save that mends it may put back much of what was loaded before, or all. So
    the checkpoints that a restart goes back behind are kept until its code serves.

    Attributes:
        obstacle: why the newest generation goes on from no checkpoint; "" if it does, or if there is none.
    """

    def __init__(self, children: Children, watched: WatchSet) -> None:
        self.chain = Chain()
        self._children = children
        self._watched = watched
        self._lines = Lines()
        self._changed: list[str] = []
        self._edited: list[Mark] = []
        self._barred: list[Mark] = []
        self._readers: dict[str, Mark] = {}
        self._loaded: int | None = None  # the sequence number at which everything was
        self._resumed: Checkpoint | None = None
        self._good: _Given | None = None
        self._serves = False
        self._room = 0  # bytes that are left of what checkpoints may have
        self._cold = self.obstacle = ""
        self._target = ""  # what was found where none was named, by the last load from nothing

    # what the next restart must know

    def changed(self, paths: Iterable[str]) -> None:
        """Files have changed that matter."""
        self._changed += (path for path in paths if path not in self._changed)

    def handled(self, paths: Iterable[str]) -> None:
        """The application has dealt with changes; its checkpoints have what they had read before."""
        known = self._watched.timeline.knows
        self._changed = [path for path in self._changed if path not in paths or known(path)]

    def read(self, path: str, place: Sequence[Any] | None) -> None:
        """What is no module was read by this statement, a module's path and a number; None: by none known."""
        if place is not None and not path.endswith(".py"):
            self._readers[path] = (place[0], place[1])

    def loaded(self) -> None:
        """A child has loaded the application: what it reads from now on, it reads while it serves."""
        self._loaded = self._watched.timeline.seq

    def serves(self) -> None:
        """The newest load has led to an answer."""
        self._serves = True

    def settle(self) -> None:
        """When there is time: forget the checkpoints that were kept in case that the restart fails."""
        if self._serves and self._good is not None:
            good, self._good = self._good, None
            for checkpoint in good.chain:
                if checkpoint not in self.chain:
                    self._children.dismiss(checkpoint.spawned)

    def line(self, path: str) -> int:
        """At which line a file was changed; 0 if that is not known."""
        return self._lines.changed(path)

    def go_cold(self, why: str) -> None:
        """The next restart executes everything."""
        self._cold = why

    def boot(self, config: Config) -> protocol.Boot:
        """What a child is told that begins from nothing."""
        self.clear()
        self._changed, self._cold, self._loaded, self._target = [], "", None, _found(config)
        # A script that calls `run` may have read whatever, before anybody noted it.
        clean = self._children.is_clean or config.reload.restart == "warm"
        return protocol.Boot(config.to_json(), warm=is_wanted(config) and clean, marks=self._marks())

    def _marks(self) -> Sequence[Mark]:
        return [*self._edited, *self._barred]

    # going on

    def resume(self, generation: int, before: Config, config: Config) -> Checkpoint | None:
        """Have a child go on from the latest checkpoint that nothing has changed before. None: from none."""
        self.settle()
        self._serves = False
        changed = self._changed
        _tell_of_listeners(before, config)
        self.obstacle = self._cold or self._obstacle(before, config)
        if self.obstacle:
            return None
        outdated = self._watched.timeline.outdated(changed)
        self._edited = [*self._edited, *self._places(changed, outdated)][-MARKS:]
        marks = self._marks()
        for checkpoint, timeline in self._candidates(outdated):
            # It does not know digests, so that a file that was only touched would be a change to it.
            touched = timeline.touched(checkpoint.seq, checkpoint.unfinished)
            word = protocol.Resume(marks, [entry.to_json() for entry in touched])
            if self._children.resume(checkpoint.spawned, generation, word):
                break
        else:
            self.obstacle = (
                "it was read before the first checkpoint" if self.chain and is_wanted(config) else ""
            )
            return None
        self._changed, self._resumed, self._loaded = [], checkpoint, None
        self._go_back(checkpoint)
        self._expect()
        # Of the unfinished modules it says what it reads now.
        self._watched.resume(checkpoint.seq, checkpoint.unfinished, timeline)
        return checkpoint

    def _candidates(self, outdated: Sequence[Entry]) -> list[tuple[Checkpoint, Timeline]]:
        """The checkpoints from which to go on, each with what it had read; the one that spares most first.

        Args:
            outdated: what the newest load would read otherwise now.
        """
        timeline = self._watched.timeline
        found = [(checkpoint, timeline) for checkpoint in self.chain.candidates(outdated)]
        if self._good is not None:
            # What has changed meanwhile that only it had read nobody was told.
            others = self._good.timeline.outdated(None)
            kept = (each for each in self._good.chain.candidates(others) if each not in self.chain)
            found += [(checkpoint, self._good.timeline) for checkpoint in kept]
        return sorted(found, key=lambda each: each[0].seconds, reverse=True)

    def _go_back(self, checkpoint: Checkpoint) -> None:
        """Have the chain end with the checkpoint that is gone on from, and keep what may be of use again."""
        before, good = self.chain, self._good
        self.chain = (before if checkpoint in before or good is None else good.chain).up_to(checkpoint)
        given_up = [each for each in before if each not in self.chain]
        if good is None and given_up:
            self._good = _Given(before, self._watched.timeline)
        elif good is not None:
            for each in given_up:
                if each not in good.chain:
                    self._children.dismiss(each.spawned)

    def _places(self, changed: Iterable[str], outdated: Sequence[Entry]) -> list[Mark]:
        """Before which statements a checkpoint would have been of most use to a restart."""
        if outdated and self._loaded is not None and outdated[0].seq >= self._loaded:
            return [END]
        places = (self._readers.get(path, (path, -1)) for path in changed)
        return [each for each in places if each[0].endswith(".py")]

    def _obstacle(self, before: Config, config: Config) -> str:
        if before != config:
            return "options changed"
        if not here():
            return "the working folder was deleted"  # checkpoints stay in it, whatever stands in its place
        if self._children.outdated():
            return "packages were installed or removed"
        files = {config.file, config.app.env_file and os.path.abspath(config.app.env_file)}
        for path in self._changed:
            if path in files:
                return "options or environment may have changed"
            if not self._watched.timeline.knows(path):
                return "nothing was seen reading it"
        if any(map(may_change, self._changed)) and _found(config) != self._target:
            return "another application is found"
        return ""

    # checkpoints come and go

    def left(self, spawned: Spawned, said: protocol.Left, most: int) -> None:
        """A child has left a checkpoint.

        Args:
            said: by the child about it.
            most: of them that are kept.
        """
        seq = self._watched.timeline.seq
        stack = dict(said.stack)
        first = not self.chain
        checkpoint = Checkpoint(spawned, seq, said.seconds, stack, said.marked, is_first=first)
        barred = any((path, number) in self._barred for path, number in said.at)
        checkpoint.likely = BARRED if barred else self._likely(checkpoint)
        # What will be read behind the newest is not known yet, so one of the others is forgotten for it.
        while len(self.chain) >= max(2, most) and (least := self.chain.dispensable(seq)) is not None:
            if least.likely > checkpoint.likely:
                self._children.dismiss(spawned)
                return
            self._forget(least)
        self.chain.add(checkpoint)

    def _expect(self) -> None:
        """Note where the next edit is likely: where the latest were."""
        for checkpoint in self.chain:
            if checkpoint.likely != BARRED:
                checkpoint.likely = self._likely(checkpoint)

    def _likely(self, checkpoint: Checkpoint) -> int:
        """How many of the latest edits were made behind it; one at least if the last restart began there."""
        return max(checkpoint is self._resumed, sum(path == checkpoint.marked for path, _ in self._edited))

    def prepare_copy(self) -> None:
        """When there is time: have a copy made from which an edit would go on that is like the last one.

        Where there is no checkpoint, an interpreter is started that could begin from nothing.
        """
        checkpoints = list(self.chain)
        marked = [each for each in checkpoints if self._edited and each.marked == self._edited[-1][0]]
        if checkpoints:
            best = self._resumed if not marked and self._resumed in checkpoints else None
            self._children.prepare_copy((best or [*checkpoints, *marked][-1]).spawned, self._room)
        else:
            self._children.prepare()

    def barrier(self, mark: Mark) -> None:
        """A child can make no checkpoint where it wanted to; at this mark it could, last."""
        self._barred = [(mark[0], mark[1])]

    def gone(self, spawned: Spawned) -> None:
        """A process that waited is gone."""
        for chain in self._chains():
            for checkpoint in chain:
                if checkpoint.spawned is spawned:
                    chain.remove(checkpoint)

    def first(self) -> Spawned | None:
        """The process of the first checkpoint, if there is one."""
        return next((checkpoint.spawned for checkpoint in self.chain), None)

    def clear(self) -> None:
        """Forget all checkpoints."""
        for chain in self._chains():
            for checkpoint in chain:
                self._forget(checkpoint)
        self._good = None

    def _forget(self, checkpoint: Checkpoint) -> None:
        for chain in self._chains():
            if checkpoint in chain:
                chain.remove(checkpoint)
        self._children.dismiss(checkpoint.spawned)

    def _chains(self) -> list[Chain]:
        return [self.chain, *([self._good.chain] if self._good is not None else [])]

    def bound(self, most: int, factor: float) -> tuple[int, int]:
        """When there is time: forget checkpoints until the memory of all is bounded.

        Returns how many are left, and their bytes.

        Args:
            most: of them that are kept.
            factor: of what a serving process and a spare need without checkpoints.
        """
        self._lines.note(entry.path for entry in self._watched.timeline if entry.kind is Question.FILE)
        current, used = self._children.current, dict[Checkpoint, int]()
        if current is None or not self.chain:
            return len(self.chain), 0
        common = _sizes("self")["Shared_Clean"]  # any Python has it, and so it is nobody's
        size = _sizes(current.child.pid)
        own, limit = size["Pss"], size["Rss"] - common
        for checkpoint in self.chain:
            sizes = [_sizes(pid) for pid in self._children.waiting(checkpoint.spawned)]
            used[checkpoint] = sum(size["Pss"] for size in sizes)
            if len(used) == 1:
                limit += sizes[0]["Rss"] - common  # it has no more than a spare has
        seq = self._watched.timeline.seq
        while len(used) > most or own + sum(used.values()) > factor * limit:
            least = self.chain.dispensable(seq, used)
            if least is None:
                break
            del used[least]
            self._forget(least)
        self._room = max(0, int(factor * limit) - own - sum(used.values()))
        return len(self.chain), sum(used.values())


def _tell_of_listeners(before: Config, config: Config) -> None:
    """Say which options mean nothing to a server that runs."""
    names = [field.name for field in fields(Bind) if _other(before.bind, config.bind, field.name)]
    if names:
        logger.warning(
            "%s: listeners stay as they are; stop devserver and start it by hand to change them",
            ", ".join(names),
        )


def _found(config: Config) -> str:
    """The application that is served where none was named; "" if none is found."""
    if config.app.target is not None:
        return ""
    try:
        return discover(config.app.app_dir)
    except TargetError:
        return ""


def _other(before: Bind, now: Bind, name: str) -> bool:
    return bool(getattr(before, name) != getattr(now, name))


def _sizes(process: int | str) -> dict[str, int]:
    """The memory of a process in bytes, by the names of the kernel; 0 when it is gone."""
    sizes = {"Pss": 0, "Rss": 0, "Shared_Clean": 0}
    try:
        with open(f"/proc/{process}/smaps_rollup") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name in sizes:
                    sizes[name] = int(rest.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    return sizes
