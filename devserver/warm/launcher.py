"""Warm restarts: from which checkpoint the next generation goes on, or why from none.

Cold is never wrong, only slow; so whenever something cannot be said for certain it is cold: other
options, other packages, a change of what was read before the first checkpoint, a file that counts
though nothing was seen reading it, a debugger.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from devserver import procfs
from devserver.cold import Cold, first
from devserver.config import Config
from devserver.discovery import discover, may_change
from devserver.errors import TargetError
from devserver.process.control import Message
from devserver.reload import protocol
from devserver.reload.child import Child
from devserver.reload.children import Children
from devserver.reload.launcher import Begun, Place
from devserver.reload.protocol import END, Mark
from devserver.reload.spawner import Spawner
from devserver.warm.chain import Chain, Checkpoint
from devserver.warm.copies import Copies
from devserver.watching.timeline import Entry, Timeline
from devserver.watching.watchset import WatchSet, here

logger = logging.getLogger("devserver")

MARKS = 4
"""Statements, edited lately, before which checkpoints are wanted."""

BARRED = 1000
"""So many edits are expected behind the checkpoint before a barrier: it is the last one, from which
everything goes on that comes later."""


def is_wanted(config: Config) -> bool:
    """Whether restarts may be warm."""
    return config.reload.restart != "cold"


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
    """

    def __init__(self, spawner: Spawner, children: Children, watched: WatchSet) -> None:
        self.chain = Chain()
        self._spawner = spawner
        self._nothing = Cold(spawner, children, watched)
        self._children = children
        self._copies = Copies(children)
        self._watched = watched
        self._config: Config | None = None  # of the last load
        self._changed: list[str] = []
        self._edited: list[Mark] = []
        self._barred: list[Mark] = []
        self._readers: dict[str, Mark] = {}
        self._loaded: int | None = None  # the sequence number at which everything was
        self._resumed: Checkpoint | None = None
        self._good: _Given | None = None
        self._serves = False
        self._room = 0  # bytes that are left of what checkpoints may have
        self._cold = self._obstacle = ""
        self._target = ""  # what was found where none was named, by the last load from nothing

    # what the next restart must know

    def changed(self, paths: Iterable[str], *, handled: bool = False) -> None:
        """See `Launcher.changed`. Checkpoints have what those had read that have dealt with a change."""
        known = self._watched.timeline.knows
        if handled:
            self._changed = [path for path in self._changed if path not in paths or known(path)]
        else:
            self._changed += (path for path in paths if path not in self._changed)

    def heard(self, child: Child, word: protocol.Said, fds: list[int]) -> bool:
        """See `Launcher.heard`."""
        match word:
            case protocol.Read() if word.place is not None:
                for entry in word.entries:
                    self._read(Entry.from_json(entry).path, word.place)
            case protocol.Barrier():
                self._barred = [(word.mark[0], word.mark[1])]
            case protocol.Loaded():
                self._loaded = self._watched.timeline.seq
            case protocol.Serving():
                self._serves = True
            case protocol.Left():
                self._leaves(child, word, fds[0])
            case protocol.Prepared():
                return self._copies.prepared(child, word.pid, fds[0])
            case protocol.Lost():
                self._copies.lost(child)
            case _:
                pass  # an answer that came too late: whoever asked has killed it
        return True

    def _read(self, path: str, place: Sequence[Any]) -> None:
        """What is not a module was read by this statement: a module's path and a number."""
        if not path.endswith(".py"):
            self._readers[path] = (place[0], place[1])

    def _settle(self) -> None:
        """When there is time: forget the checkpoints that were kept in case that the restart fails."""
        if self._serves and self._good is not None:
            good, self._good = self._good, None
            for checkpoint in good.chain:
                if checkpoint not in self.chain:
                    self._copies.dismiss(checkpoint.child)

    def distrust(self, why: str) -> None:
        """See `Launcher.distrust`."""
        self._cold = why

    def launch(self, generation: int, before: Config, config: Config) -> Begun:
        """See `Launcher.launch`."""
        self._config = config
        checkpoint, child = self._resume(generation, before, config)
        if checkpoint is not None and child is not None:
            path, line = next(reversed(checkpoint.unfinished.items()), ("", 0))
            return Begun(child, Place(checkpoint.seq, path, line, checkpoint.is_first))
        self.clear()
        self._changed, self._cold, self._loaded, self._target = [], "", None, _found(config)
        # A script that calls `run` may have read whatever, before anybody noted it.
        clean = self._spawner.is_clean or config.reload.restart == "warm"
        word = protocol.Boot(
            config.to_json(), warm=is_wanted(config) and clean, marks=self._marks(), place=first(config)
        )
        return Begun(self._nothing.boot(generation, config, word), obstacle=self._obstacle)

    def join(self, generation: int, config: Config, place: int) -> Child:
        """See `Launcher.join`. It goes on from the latest checkpoint, which mostly is at the end."""
        for checkpoint in reversed(list(self.chain)):
            word = self._word(checkpoint, self._watched.timeline, place)
            child = self._copies.resume(checkpoint.child, word)
            if child is not None:
                child.resumed = True
                return child
        return self._nothing.join(generation, config, place)

    def show(self, config: Config, generation: int, failure: Message) -> Child:
        """See `Launcher.show`. The first checkpoint holds no user code, and so its copy may be the page."""
        first = next((checkpoint.child for checkpoint in self.chain), None)
        if first is not None and self._spawner.is_clean:
            copy = self._copies.make(first, protocol.ShowPage(config.to_json(), failure))
            if copy is not None:
                copy.role, copy.generation, copy.began = protocol.PAGE, generation, time.monotonic()
                return copy
        return self._nothing.show(config, generation, failure)

    def _marks(self) -> Sequence[Mark]:
        several = self._config is not None and self._config.workers.count > 1
        return [*self._edited, *self._barred, *([END] if several else [])]

    def _word(self, checkpoint: Checkpoint, timeline: Timeline, place: int) -> protocol.Resume:
        # It does not know digests, so that a file that was only touched would be a change to it.
        touched = timeline.touched(checkpoint.seq, checkpoint.unfinished)
        return protocol.Resume(self._marks(), [entry.to_json() for entry in touched], place)

    # going on

    def _resume(
        self, generation: int, before: Config, config: Config
    ) -> tuple[Checkpoint | None, Child | None]:
        """Have a child go on from the latest checkpoint that nothing has changed before, if there is one."""
        self._settle()
        self._serves = False
        changed = self._changed
        self._obstacle = self._cold or self._find_obstacle(before, config)
        if self._obstacle:
            return None, None
        outdated = self._watched.timeline.outdated(changed)
        self._edited = [*self._edited, *self._places(changed, outdated)][-MARKS:]
        for checkpoint, timeline in self._candidates(outdated):
            word = self._word(checkpoint, timeline, first(config))
            child = self._copies.resume(checkpoint.child, word)
            if child is not None:
                break
        else:
            self._obstacle = (
                "it was read before the first checkpoint" if self.chain and is_wanted(config) else ""
            )
            return None, None
        child.generation, child.began, child.resumed = generation, time.monotonic(), True
        self._changed, self._resumed, self._loaded = [], checkpoint, None
        self._go_back(checkpoint)
        self._expect()
        # Of the unfinished modules it says what it reads now.
        self._watched.resume(checkpoint.seq, checkpoint.unfinished, timeline)
        return checkpoint, child

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
                    self._copies.dismiss(each.child)

    def _places(self, changed: Iterable[str], outdated: Sequence[Entry]) -> list[Mark]:
        """Before which statements a checkpoint would have been of most use to a restart."""
        if outdated and self._loaded is not None and outdated[0].seq >= self._loaded:
            return [END]
        places = (self._readers.get(path, (path, -1)) for path in changed)
        return [each for each in places if each[0].endswith(".py")]

    def _find_obstacle(self, before: Config, config: Config) -> str:
        if before != config:
            return "options changed"
        if not here():
            return "the working folder was deleted"  # checkpoints stay in it, whatever stands in its place
        if self._spawner.outdated():
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

    def _leaves(self, child: Child, said: protocol.Left, fd: int) -> None:
        """A child has left a checkpoint: it waits, and its copy goes on.

        Args:
            said: by the child about it.
            fd: the other end of the copy's channel.
        """
        copy = self._copies.adopt(child, said.pid, fd)
        if copy is None:
            child.process.kill()  # nobody goes on; its exit will be reported
            return
        if not self._children.goes_on(child, copy):
            return
        assert self._config is not None
        most = self._config.reload.checkpoints
        seq = self._watched.timeline.seq
        stack = dict(said.stack)
        first = not self.chain
        checkpoint = Checkpoint(child, seq, said.seconds, stack, said.marked, is_first=first)
        barred = any((path, number) in self._barred for path, number in said.at)
        checkpoint.likely = BARRED if barred else self._likely(checkpoint)
        # What will be read behind the newest is not known yet, so one of the others is forgotten for it.
        while len(self.chain) >= max(2, most) and (least := self.chain.dispensable(seq)) is not None:
            if least.likely > checkpoint.likely:
                self._copies.dismiss(child)
                return
            self._forget(least)
        self.chain.add(checkpoint)

    def _expect(self) -> None:
        """Note where the next edit is likely: where the latest were."""
        for checkpoint in self.chain:
            if checkpoint.likely != BARRED:
                checkpoint.likely = self._likely(checkpoint)

    def _likely(self, checkpoint: Checkpoint) -> int:
        """How many of the latest edits were made behind it; one at least if something begins there."""
        edits = sum(path == checkpoint.marked for path, _ in self._edited)
        joined = END in self._marks() and checkpoint.marked == END[0]
        return max(joined, checkpoint is self._resumed, edits)

    def rest(self, *, serves: bool) -> tuple[int, int] | None:
        """See `Launcher.rest`."""
        config, found = self._config, None
        if serves and config is not None:
            self._settle()
            if is_wanted(config):
                found = self._bound(config.reload.checkpoints, config.reload.checkpoint_memory)
        self._prepare()
        return found

    def _prepare(self) -> None:
        """Have a copy made ahead from which an edit would go on that is like the last one.

        Where there is no checkpoint, an interpreter is started that could begin from nothing.
        """
        checkpoints = list(self.chain)
        marked = [each for each in checkpoints if self._edited and each.marked == self._edited[-1][0]]
        if checkpoints:
            best = self._resumed if not marked and self._resumed in checkpoints else None
            current = self._children.current
            like = current.process.pid if current is not None else 0
            self._copies.prepare((best or [*checkpoints, *marked][-1]).child, like, self._room)
        else:
            self._nothing.rest(serves=False)

    def gone(self, child: Child) -> None:
        """See `Launcher.gone`."""
        self._copies.gone(child)
        for chain in self._chains():
            for checkpoint in chain:
                if checkpoint.child is child:
                    chain.remove(checkpoint)

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
        self._copies.dismiss(checkpoint.child)

    def unheard(self) -> set[int]:
        """See `Launcher.unheard`."""
        return self._nothing.unheard()

    def close(self) -> None:
        """See `Launcher.close`."""
        self._nothing.close()

    def _chains(self) -> list[Chain]:
        return [self.chain, *([self._good.chain] if self._good is not None else [])]

    def _bound(self, most: int, factor: float) -> tuple[int, int]:
        """Forget checkpoints until the memory of all is bounded.

        Returns how many are left, and their bytes.

        Args:
            most: of them that are kept.
            factor: of what a serving process and a spare need without checkpoints.
        """
        current, used = self._children.current, dict[Checkpoint, int]()
        if current is None or not self.chain:
            return len(self.chain), 0
        common = _sizes("self")["Shared_Clean"]  # any Python has it, and so it is nobody's
        size = _sizes(current.process.pid)
        own, limit = size["Pss"], size["Rss"] - common
        for checkpoint in self.chain:
            sizes = [_sizes(pid) for pid in self._copies.pids(checkpoint.child)]
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


def _found(config: Config) -> str:
    """The application that is served where none was named; "" if none is found."""
    if config.app.target is not None:
        return ""
    try:
        return discover(config.app.app_dir)
    except TargetError:
        return ""


def _sizes(process: int | str) -> dict[str, int]:
    """The memory of a process in bytes, by the names of the kernel; 0 when it is gone."""
    return {"Pss": 0, "Rss": 0, "Shared_Clean": 0, **procfs.memory(process)}
