"""The supervisor's table and the child's, joined over channels in memory: every order of what can happen.

Each child has its own state, words that it was told and has not heard, and words that it has said and that
the supervisor has not heard. Words overtake nothing on their way, and any number of other things happen
meanwhile: saves, deaths, deadlines, requests. What is promised is held against what the children *do*, not
against what the supervisor believes of them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from devserver.child import machine as child
from devserver.reload import machine as supervisor
from devserver.reload.machine import About, Action, Event, State, is_a_change, is_over, of_exit, of_failure

Stage = child.State

MOST_RETIRED = 1
"""Children that were told to end and have not, in the worlds that are looked into further."""

MOST_LOADS = 2
"""Loads of one world."""

HOLDS = (Stage.STARTING, Stage.SERVING, Stage.UNFIT, Stage.DRAINING, Stage.CLOSING)
"""States in which the application may hold what only one generation can: a port, a lock, a database."""


UNHEARD_OF = About()


@dataclass(frozen=True)
class Child:
    """A process.

    Attributes:
        at: its own state; None when the process is gone.
        told, said: words on their way to it and from it, the next one first.
        about: what the supervisor has heard of it.
        listens: it was told to serve: from then on no signal is sent to it.
        exited: the supervisor knows that the process is gone.
    """

    at: Stage | None = Stage.LOADING
    told: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    about: About = UNHEARD_OF
    listens: bool = False
    exited: bool = False

    def happen(self, event: child.Event) -> Child:
        """The child after an event of its own table."""
        assert self.at is not None
        at, actions = child.step(self.at, event)
        said = self.said
        for action in actions:
            match action:
                case child.Action.SAY:
                    said = (*said, event.name)
                case child.Action.LEAVE:
                    return replace(self, at=None, said=said)
        return replace(self, at=at, said=said)

    def own(self) -> Iterator[tuple[str, Child]]:
        """What it can do, or what can befall it, now."""
        if self.at is None:
            return
        yield "dies", replace(self, at=None)
        match self.at:
            case Stage.LOADING:
                events = [child.Event.LOADED, child.Event.FAILED]
            case Stage.STARTING:
                events = [child.Event.STARTED, child.Event.FAILED]
            case Stage.SERVING:
                events = [child.Event.FAILED, child.Event.UNFIT]
            case Stage.DRAINING:
                events = [child.Event.DRAINED, child.Event.LATE]
            case Stage.CLOSING:
                events = [child.Event.CLOSED, child.Event.LATE]
            case _:
                events = []
        for event in events:
            yield event.name, self.happen(event)
        if self.at is Stage.ENDED:
            yield "exits", replace(self, at=None)
        # A signal comes at once; words are read by nobody while user code is executed.
        if "TERM" in self.told:
            rest = tuple(word for word in self.told if word != "TERM")
            yield "TERM", replace(self, told=rest).happen(child.Event.TERM)
        if self.told and self.told[0] != "TERM" and self.at not in (Stage.LOADING, Stage.ENDED):
            word = child.Event[self.told[0]]
            yield word.name, replace(self, told=self.told[1:]).happen(word)


def in_order(*children: Child) -> tuple[Child, ...]:
    """Children in an order that says nothing: worlds that differ in it are one."""
    return tuple(sorted(children, key=repr))


@dataclass(frozen=True)
class World:
    """What lives.

    Attributes:
        state: the supervisor's.
        current: the child that loads or serves, as the supervisor believes.
        retired: those that were told to end.
        pending: events that were raised and have not been taken through the table, and of whom they are: True
            for the current child's.
        page: whether a page answers.
        dirty: a save came after the newest load had begun.
        loads: so many have begun.
        settling: the timer runs.
        broken: the promise that the way here has broken.
    """

    state: State = State.STARTING
    current: Child | None = Child()
    retired: tuple[Child, ...] = ()
    pending: tuple[tuple[Event, bool], ...] = ()
    page: bool = False
    dirty: bool = False
    loads: int = 1
    settling: bool = False
    finished: bool = False
    broken: str = ""

    @property
    def alone(self) -> bool:
        return not self.retired

    @property
    def changing(self) -> bool:
        return (Event.CHANGED, False) in self.pending

    def raised(self, event: Event | None, about: bool = True) -> World:
        """The world when an event waits for the table."""
        if event is None or (event, about) in self.pending:
            return self
        return replace(self, pending=(*self.pending, (event, about)))

    def next(self, overlap: bool) -> Iterator[tuple[str, World]]:
        """What can happen, and the world after it."""
        if self.pending:
            (event, about), *rest = self.pending
            yield event.name, replace(self, pending=tuple(rest)).take(event, about, overlap)
        if len(self.pending) > 1:
            return  # the table takes all that waits before anything else is heard
        if self.current is not None:
            for name, after in self.current.own():
                yield f"child {name}", replace(self, current=after)
            yield from self.hear(self.current)
            if self.current.at is Stage.SERVING:  # a save, noticed by its gate
                old = self.current.happen(child.Event.OLD)
                yield "child OLD", replace(self, current=old, dirty=True)
        for number, one in enumerate(self.retired):
            others = self.retired[:number] + self.retired[number + 1 :]
            if one.at is None:
                yield "exit", replace(self, retired=others).raised(Event.GONE if not others else None, False)
                continue
            yield "killed", replace(self, retired=in_order(*others, replace(one, at=None)))
            for name, after in one.own():
                if name != "dies":
                    yield f"retired {name}", replace(self, retired=in_order(*others, after))
        if is_a_change(self.state, changing=self.changing):
            yield "save", replace(self, dirty=True).raised(Event.CHANGED, False)
        if self.settling:
            yield "settled", replace(self, settling=False).raised(Event.SETTLED, False)
        if self.page and self.state is State.WAITING:
            yield "request", self.raised(Event.ASKED, False)
        yield "stop", self.raised(Event.STOP, False)

    def hear(self, one: Child) -> Iterator[tuple[str, World]]:
        """What the supervisor can hear of the current child."""
        if one.said:
            word, rest = one.said[0], one.said[1:]
            after = replace(self, current=replace(one, said=rest))
            yield f"hears {word}", after.heard(word)
        elif one.at is None and not one.exited:
            after = replace(self, current=replace(one, exited=True))
            yield "exit", after.raised(of_exit(one.about, changing=self.changing, heals=lambda: True))
            if one.about.serves:
                once_too_often = of_exit(one.about, changing=self.changing, heals=lambda: False)
                yield "exit again", after.raised(once_too_often)

    def heard(self, word: str) -> World:
        one = self.current
        assert one is not None
        match word:
            case "LOADED":
                return self.raised(Event.LOADED)
            case "STARTED":
                return replace(self, current=replace(one, about=replace(one.about, serves=True))).raised(
                    Event.SERVING
                )
            case "OLD":
                if one.about.serves and is_a_change(self.state, changing=self.changing):
                    return self.raised(Event.CHANGED, False)
                return self
            case "FAILED" | "UNFIT":
                failed = replace(one, about=replace(one.about, failed=True))
                event = of_failure(
                    one.about, check=word == "UNFIT", changing=self.changing, heals=lambda: True
                )
                return replace(self, current=failed).raised(event)
        return self  # about its end: only its deadline follows from it

    def take(self, event: Event, about: bool, overlap: bool) -> World:
        """The world when the table has heard of an event and its actions are done."""
        of = None if not about else About(current=self.current is not None)
        if is_over(event, of, alone=self.alone):
            return self
        world = self
        ends = event in (Event.CRASHED, Event.CRASHED_AGAIN, Event.STRAYED)
        if ends and self.current is not None and self.current.exited:
            world = replace(world, current=None)
        state, actions = supervisor.step(self.state, event, overlap=overlap)
        world = replace(world, state=state)
        for action in actions:
            world = world.do(action)
        return world.checked()

    def do(self, action: Action) -> World:
        """The world after one action."""
        one = self.current
        match action:
            case Action.SPAWN | Action.RESPAWN:
                broken = self.broken or ("" if one is None or one.at is None else "two current children")
                # What was raised about the one before means nothing any more.
                pending = tuple(each for each in self.pending if not each[1])
                dirty = self.dirty and action is Action.RESPAWN
                return replace(
                    self, current=Child(), pending=pending, loads=self.loads + 1, dirty=dirty, broken=broken
                )
            case Action.SERVE if one is not None:
                return replace(self, current=replace(one, told=(*one.told, "SERVE"), listens=True))
            case Action.RETIRE if one is not None:
                pending = tuple(each for each in self.pending if not each[1])
                if one.exited:
                    return replace(self, current=None, pending=pending)
                loads = not one.listens and not one.about.failed
                told = (*one.told, "RETIRE", *(("TERM",) if loads else ()))
                # What it says from now on is heard by nobody who would act on it.
                retired = replace(one, told=told, said=(), about=About(current=False))
                return replace(
                    self,
                    current=None,
                    pending=pending,
                    retired=in_order(*self.retired, retired),
                )
            case Action.RETIRE_PAGE:
                return replace(self, page=False)
            case Action.SHOW | Action.SHOW_LOADING | Action.SHOW_AGAIN:
                return replace(self, page=True)
            case Action.AWAIT:
                return self.raised(Event.GONE, False) if self.alone else self
            case Action.SETTLE:
                return replace(self, settling=True)
            case Action.KILL:
                return replace(self, retired=tuple(replace(each, at=None) for each in self.retired))
            case Action.FINISH:
                return replace(self, finished=True)
        return self

    def checked(self) -> World:
        """The world, with what is broken in it."""
        holding = [each for each in (self.current, *self.retired) if each is not None and each.at in HOLDS]
        if len(holding) > 1:
            return replace(self, broken="two generations at once")
        return self


FROM_OUTSIDE = ("save", "stop", "request", "child OLD")
BY_FORCE = ("child dies", "killed")


class Worlds:
    """Every world that can come about from a first start."""

    def __init__(self, overlap: bool) -> None:
        self._came: dict[World, tuple[World, str] | None] = {World(): None}
        self.after: dict[World, list[tuple[str, World]]] = {}
        todo = deque(self._came)
        while todo:
            world = todo.popleft()
            if world.broken or world.finished:
                self.after[world] = []
                continue
            if len(world.retired) > MOST_RETIRED or world.loads > MOST_LOADS:
                continue  # what comes after it is not looked into
            self.after[world] = [(name, after.checked()) for name, after in world.next(overlap)]
            for name, after in self.after[world]:
                if after not in self._came:
                    self._came[after] = world, name
                    todo.append(after)

    def __iter__(self) -> Iterator[World]:
        return iter(self._came)

    def script(self, world: World) -> str:
        """The shortest way that leads to a world."""
        names = []
        while (came := self._came[world]) is not None:
            world, name = came
            names.append(name)
        return ", ".join(reversed(names))

    def lead_to(self, ends: set[World], *, without: tuple[str, ...] = ()) -> set[World]:
        """The worlds from which one of these can come about, or one that is not looked into further."""
        before = defaultdict[World, list[World]](list)
        for world, others in self.after.items():
            for name, other in others:
                if name not in without:
                    before[other].append(world)
        found = ends | {world for world in self._came if world not in self.after}
        todo = list(found)
        while todo:
            for world in before[todo.pop()]:
                if world not in found:
                    found.add(world)
                    todo.append(world)
        return found


@pytest.fixture(scope="module", params=[True, False], ids=["overlap", "alone"])
def worlds(request: pytest.FixtureRequest) -> Worlds:
    return Worlds(request.param)


def is_at_rest(world: World) -> bool:
    """Whether nothing happens until somebody does something."""
    current = world.current
    unheard = current is not None and (bool(current.said) or (current.at is None and not current.exited))
    quiet = not world.pending and not world.retired and not unheard
    return world.finished or (quiet and world.state in (State.SERVING, State.WAITING))


def test_there_is_something_to_explore(worlds: Worlds) -> None:
    reached = {world.current.at for world in worlds if world.current is not None}
    assert reached >= set(Stage)
    ends = {State.SERVING, State.WAITING, State.STOPPED}
    assert {world.state for world in worlds if is_at_rest(world)} == ends


def test_two_generations_never_live_at_once(worlds: Worlds) -> None:
    """From the lifespan's startup to the end of its process an application is alone."""
    assert [worlds.script(world) for world in worlds if world.broken] == []


def test_who_is_believed_to_serve_does_so(worlds: Worlds) -> None:
    """Unless it is about to say, or has said, that it ends."""
    for world in worlds:
        if world.state is State.SERVING and world.current is not None:
            early = (Stage.LOADING, Stage.WAITING, Stage.STARTING)
            assert world.current.at not in early, worlds.script(world)
            if is_at_rest(world):
                assert world.current.at is Stage.SERVING, worlds.script(world)


def test_every_save_is_loaded(worlds: Worlds) -> None:
    lost = [world for world in worlds if is_at_rest(world) and world.dirty and not world.finished]
    assert [worlds.script(world) for world in lost] == []


def test_whatever_happens_it_comes_to_rest(worlds: Worlds) -> None:
    """Nobody has to do anything for it, nor to die: no order of words leaves both waiting for each other."""
    without = (*FROM_OUTSIDE, *BY_FORCE)
    rest = worlds.lead_to({world for world in worlds if is_at_rest(world)}, without=without)
    assert [worlds.script(world) for world in worlds if world not in rest] == []


def test_a_stop_is_the_end(worlds: Worlds) -> None:
    ended = worlds.lead_to({world for world in worlds if world.finished}, without=(*FROM_OUTSIDE, *BY_FORCE))
    stopping = [world for world in worlds if world.state is State.STOPPING]
    assert [worlds.script(world) for world in stopping if world not in ended] == []
    assert [
        worlds.script(world) for world in worlds if world.finished and (world.retired or world.page)
    ] == []
