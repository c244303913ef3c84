"""The supervisor's table: as scripts, and against every order in which things can happen."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from devserver.reload.machine import (
    APART,
    TABLE,
    About,
    Action,
    Attempts,
    Event,
    State,
    is_judged,
    is_over,
    of_exit,
    of_failure,
    step,
)

# Scripts. The first line is a state; each other line an event, and after the arrow the state and the
# actions that it leads to. Without an arrow the event changes nothing.

SCRIPTS = {
    "the first start": """
        STARTING
        LOADED      -> LOADED RETIRE_PAGE AWAIT
        GONE        -> STARTING SERVE
        SERVING     -> SERVING RETIRE_PAGE ANNOUNCE
        """,
    "a save; the predecessor ends before the successor has loaded": """
        SERVING
        CHANGED     -> DRAINING RETIRE SPAWN AWAIT
        GONE        -> STARTING
        LOADED      -> LOADED RETIRE_PAGE AWAIT
        GONE        -> STARTING SERVE
        SERVING     -> SERVING RETIRE_PAGE ANNOUNCE
        """,
    "a save; the successor has loaded before the predecessor ends": """
        SERVING
        CHANGED     -> DRAINING RETIRE SPAWN AWAIT
        LOADED      -> LOADED RETIRE_PAGE AWAIT
        GONE        -> STARTING SERVE
        SERVING     -> SERVING RETIRE_PAGE ANNOUNCE
        """,
    "a second save during the load: the load is dropped, and begun again when it is quiet": """
        DRAINING
        CHANGED     -> SETTLING RETIRE RETIRE_PAGE SETTLE
        CHANGED     -> SETTLING SETTLE
        SETTLED     -> DRAINING SPAWN AWAIT
        """,
    "a save while the successor waits for its turn": """
        LOADED
        CHANGED     -> SETTLING RETIRE SETTLE
        GONE
        SETTLED     -> DRAINING SPAWN AWAIT
        """,
    "a save while the lifespan starts": """
        STARTING
        CHANGED     -> SETTLING RETIRE RETIRE_PAGE SETTLE
        SERVING
        SETTLED     -> DRAINING SPAWN AWAIT
        """,
    "a load that may have collided with its predecessor is repeated, and only then believed": """
        DRAINING
        FAILED      -> REPEATING RETIRE AWAIT
        GONE        -> STARTING RESPAWN
        FAILED      -> WAITING RETIRE SHOW
        """,
    "a broken save, and the one that mends it": """
        STARTING
        FAILED      -> WAITING RETIRE SHOW
        GONE
        CHANGED     -> STARTING RETIRE_PAGE SPAWN
        LOADED      -> LOADED RETIRE_PAGE AWAIT
        GONE        -> STARTING SERVE
        SERVING     -> SERVING RETIRE_PAGE ANNOUNCE
        """,
    "a failed start is tried again when somebody asks, and the page stays until it has loaded": """
        WAITING
        ASKED       -> STARTING SPAWN
        FAILED      -> WAITING RETIRE SHOW
        ASKED       -> STARTING SPAWN
        LOADED      -> LOADED RETIRE_PAGE AWAIT
        """,
    "a page that dies is put up again": """
        WAITING
        PAGE_LOST   -> WAITING SHOW_AGAIN
        """,
    "a child that had served heals, but not for ever": """
        SERVING
        CRASHED     -> STARTING SPAWN
        LOADED      -> LOADED RETIRE_PAGE AWAIT
        GONE        -> STARTING SERVE
        SERVING     -> SERVING RETIRE_PAGE ANNOUNCE
        CRASHED_AGAIN -> WAITING RETIRE SHOW
        """,
    "a child whose event loop the application has ended is replaced, too": """
        SERVING
        FAILED      -> DRAINING RETIRE SPAWN AWAIT
        """,
    "a child that dies when it had loaded waits for a change": """
        LOADED
        CRASHED     -> WAITING SHOW
        """,
    "a process that dies while it loads waits for a change": """
        STARTING
        CRASHED     -> WAITING SHOW
        """,
    "a warm start that leads nowhere is a cold one at once": """
        STARTING
        STRAYED     -> STARTING RETIRE RESPAWN
        LOADED      -> LOADED RETIRE_PAGE AWAIT
        STRAYED     -> DRAINING RETIRE RESPAWN AWAIT
        STRAYED     -> DRAINING RETIRE RESPAWN
        """,
    "a slow load says where it stands": """
        STARTING
        SLOW        -> STARTING SHOW_LOADING
        PAGE_LOST   -> STARTING SHOW_AGAIN
        LOADED      -> LOADED RETIRE_PAGE AWAIT
        """,
    "the end": """
        SERVING
        STOP        -> STOPPING RETIRE RETIRE_PAGE AWAIT
        CHANGED
        FAILED
        GONE        -> STOPPED FINISH
        """,
    "the end, in a hurry": """
        DRAINING
        STOP        -> STOPPING RETIRE RETIRE_PAGE AWAIT
        STOP        -> STOPPING KILL AWAIT
        GONE        -> STOPPED FINISH
        """,
    "what a retired child says comes too late": """
        SETTLING
        LOADED
        SERVING
        FAILED
        CRASHED
        """,
}

SCRIPTS_ALONE = {
    "without overlap nothing is loaded before the predecessor is gone": """
        SERVING
        CHANGED     -> ALONE RETIRE AWAIT
        GONE        -> STARTING SPAWN
        CHANGED     -> SETTLING RETIRE RETIRE_PAGE SETTLE
        SETTLED     -> ALONE AWAIT
        CHANGED     -> SETTLING SETTLE
        SETTLED     -> ALONE AWAIT
        GONE        -> STARTING SPAWN
        """,
    "without overlap, from a failure": """
        WAITING
        CHANGED     -> ALONE RETIRE_PAGE AWAIT
        GONE        -> STARTING SPAWN
        """,
}


def play(script: str, overlap: bool) -> None:
    """Go through a script and compare."""
    first, *lines = script.split("\n")[1:-1]
    state = State[first.strip()]
    for number, line in enumerate(lines, 1):
        event, arrow, expected = line.partition("->")
        after, actions = step(state, Event[event.strip()], overlap=overlap)
        said = " ".join([after.name, *(action.name for action in actions)])
        wanted = expected.strip() if arrow else state.name
        assert said == wanted, f"line {number}: {event.strip()} in {state.name}"
        state = after


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name: str) -> None:
    play(SCRIPTS[name], overlap=True)


@pytest.mark.parametrize("name", SCRIPTS_ALONE)
def test_script_without_overlap(name: str) -> None:
    play(SCRIPTS_ALONE[name], overlap=False)


# The world: processes that do what they were told, in any order, or die.

CHILD_EVENTS = {
    "loading": (Event.LOADED, Event.FAILED, Event.CRASHED),
    "loaded": (Event.CRASHED,),
    "starting": (Event.SERVING, Event.FAILED, Event.CRASHED),
    "serving": (Event.FAILED, Event.CRASHED, Event.CRASHED_AGAIN),
}
"""What a child may do next; it fails while it serves if user code ends its event loop."""

NEXT = {
    Event.LOADED: "loaded",
    Event.SERVING: "serving",
    Event.FAILED: "failed",
    Event.CRASHED: "over",
    Event.CRASHED_AGAIN: "over",
}

FROM_OUTSIDE = (Event.CHANGED, Event.STOP, Event.ASKED)


@dataclass(frozen=True)
class World:
    """What lives, beside the state that the table believes in.

    Attributes:
        child: what the current child is at; "failed" while it has yet to exit, then "over".
        page: whether the page is up.
        retired: "app" or "page" for each that was told to end and has not.
        gone: whether GONE has been raised and not yet handled.
        slow, settling: whether these timers run.
        dirty: whether something changed after the last child was spawned.
        warm: whether the child goes on from a checkpoint; every one does that may.
        strayed: whether the next child may not.
        boots: children spawned since something came from outside.
        beside: whether a predecessor of the current child lived when it was spawned.
        wasted: whether a load was repeated though it had none to collide with.
        broken: the promise that the way here has broken.
    """

    state: State = State.STARTING
    child: str = "loading"
    page: bool = False
    retired: tuple[str, ...] = ()
    gone: bool = False
    slow: bool = True
    settling: bool = False
    dirty: bool = False
    warm: bool = False
    strayed: bool = False
    boots: int = 1
    beside: bool = False
    wasted: bool = False
    finished: bool = False
    broken: str = ""

    @property
    def alone(self) -> bool:
        """Whether nobody retired lives who matters; at the end everybody does."""
        return "app" not in self.retired and (not self.retired or self.state is not State.STOPPING)

    def events(self) -> Iterator[tuple[str, World]]:
        """What can happen now, and the world just after, before the table has heard of it."""
        if self.gone:  # it was raised before whatever happens now, and is handled before
            yield Event.GONE.name, replace(self, gone=False)
            return
        if self.warm and self.child in ("loading", "loaded", "starting"):
            late = replace(self, slow=False, strayed=True, boots=self.boots - 1)
            yield Event.STRAYED.name, replace(late, child="over")
            if self.slow:  # it takes too long, and lives
                yield Event.STRAYED.name + " ", late
        for event in CHILD_EVENTS.get(self.child, ()):
            if event is Event.CRASHED and self.warm and self.child != "serving":
                continue  # it has strayed
            boots = 0 if self.child == "serving" else self.boots  # it heals
            slow = self.slow and event not in (Event.LOADED, Event.SERVING)
            yield event.name, replace(self, child=NEXT[event], slow=slow, boots=boots)
        if self.child == "failed":
            yield "exit after failure", replace(self, child="over")
        for kind in dict.fromkeys(self.retired):
            rest = list(self.retired)
            rest.remove(kind)
            world = replace(self, retired=tuple(rest))
            yield f"exit of {kind}", replace(world, gone=world.alone)
        if self.slow and not self.warm:
            yield Event.SLOW.name, replace(self, slow=False)
        if self.settling:
            yield Event.SETTLED.name, replace(self, settling=False)
        if self.page:
            yield Event.PAGE_LOST.name, replace(self, page=False)
        if self.page and self.state is State.WAITING:
            yield Event.ASKED.name, replace(self, boots=0)
        yield Event.CHANGED.name, replace(self, dirty=True, boots=0)
        yield Event.STOP.name, self

    def after(self, name: str, overlap: bool) -> World:
        """The world when the table has heard of an event and its actions are done."""
        if name.startswith("exit") or (name == Event.GONE.name and not self.alone):
            return self
        state, actions = step(self.state, Event[name.strip()], overlap=overlap)
        world = replace(self, state=state)
        for action in actions:
            world = world.do(action, overlap)
        return world

    def do(self, action: Action, overlap: bool) -> World:
        """The world after one action."""
        broken = self.broken
        match action:
            case Action.SPAWN | Action.RESPAWN:
                if self.child not in ("", "over"):
                    broken = "two current children"
                if not overlap and "app" in self.retired:
                    broken = "loads beside its predecessor"
                again = action is Action.RESPAWN
                return replace(
                    self,
                    child="loading",
                    slow=True,
                    dirty=self.dirty and again,
                    boots=self.boots + 1,
                    warm=not again and not self.strayed,
                    strayed=False,
                    beside="app" in self.retired,
                    wasted=again and not self.beside and not self.strayed,
                    broken=broken,
                )
            case Action.SERVE:
                if "app" in self.retired:
                    broken = "serves beside its predecessor"
                if self.child not in ("loaded", "over"):
                    broken = "serves what is not loaded"
                if self.child == "over":
                    return self
                return replace(self, child="starting", slow=True, broken=broken)
            case Action.RETIRE:
                more = ("app",) if self.child not in ("", "over") else ()
                return replace(self, child="", slow=False, retired=tuple(sorted(self.retired + more)))
            case Action.RETIRE_PAGE:
                more = ("page",) if self.page else ()
                return replace(self, page=False, retired=tuple(sorted(self.retired + more)))
            case Action.AWAIT:
                return replace(self, gone=self.gone or self.alone)
            case Action.SETTLE:
                return replace(self, settling=True)
            case Action.SHOW | Action.SHOW_LOADING | Action.SHOW_AGAIN:
                return replace(self, page=True)
            case Action.ANNOUNCE if self.child not in ("serving", "over"):
                return replace(self, broken="announces what does not serve")
            case Action.FINISH:
                return replace(self, finished=True)
        return self


MOST_RETIRED, MOST_BOOTS = 3, 4


def explore(overlap: bool) -> dict[World, str]:
    """Every world that can come about, with the shortest script that leads there."""
    scripts = {World(): "STARTING"}
    todo = deque(scripts)
    while todo:
        world = todo.popleft()
        if world.broken or world.finished or len(world.retired) > MOST_RETIRED or world.boots >= MOST_BOOTS:
            continue
        for name, before in world.events():
            after = before.after(name, overlap)
            if after not in scripts:
                scripts[after] = f"{scripts[world]}, {name} -> {after.state.name}"
                todo.append(after)
    return scripts


@pytest.fixture(scope="module", params=[True, False], ids=["overlap", "alone"])
def worlds(request: pytest.FixtureRequest) -> dict[World, str]:
    return explore(request.param)


def violations(worlds: dict[World, str], wrong: str) -> list[str]:
    return [script for world, script in worlds.items() if world.broken == wrong]


def test_there_is_something_to_explore(worlds: dict[World, str]) -> None:
    assert len(worlds) > 50
    rare = {State.DRAINING, State.REPEATING, State.ALONE}  # only with overlap, or only without
    assert {world.state for world in worlds} >= set(State) - rare


def test_there_is_never_a_second_current_child(worlds: dict[World, str]) -> None:
    assert violations(worlds, "two current children") == []


def test_a_child_serves_only_when_nobody_retired_lives(worlds: dict[World, str]) -> None:
    assert violations(worlds, "serves beside its predecessor") == []
    assert violations(worlds, "serves what is not loaded") == []
    assert violations(worlds, "announces what does not serve") == []


def test_without_overlap_a_child_loads_only_when_its_predecessor_is_gone() -> None:
    assert violations(explore(overlap=False), "loads beside its predecessor") == []


def test_who_waits_has_a_page(worlds: dict[World, str]) -> None:
    assert [s for w, s in worlds.items() if w.state is State.WAITING and not w.page] == []


def test_who_serves_has_a_child(worlds: dict[World, str]) -> None:
    serving = {w: s for w, s in worlds.items() if w.state is State.SERVING}
    assert [s for w, s in serving.items() if w.child != "serving"] == []


def test_who_serves_has_no_page(worlds: dict[World, str]) -> None:
    assert [s for w, s in worlds.items() if w.state is State.SERVING and w.page] == []


def test_a_change_is_loaded(worlds: dict[World, str]) -> None:
    settled = {w: s for w, s in worlds.items() if w.state in (State.SERVING, State.WAITING)}
    assert [s for w, s in settled.items() if w.dirty] == []


def test_nothing_hangs(worlds: dict[World, str]) -> None:
    """Something happens by itself in every world that is neither served, nor shown, nor over."""
    at_rest = (State.SERVING, State.WAITING, State.STOPPED)
    stuck = [
        script
        for world, script in worlds.items()
        if world.state not in at_rest
        and {name for name, _ in world.events()} <= {e.name for e in FROM_OUTSIDE}
    ]
    assert stuck == []


def test_a_stop_is_the_end(worlds: dict[World, str]) -> None:
    """From each world: STOP, then everything exits, then it is over."""
    for overlap in (True, False):
        for start, script in worlds.items():
            if start.state is State.STOPPED or start.broken:
                continue
            world = start.after(Event.STOP.name, overlap)
            while (names := dict(world.events())) and not world.finished:
                name = next((name for name in names if name.startswith("exit")), Event.GONE.name)
                assert name in names, script
                world = names[name].after(name, overlap)
            assert world.state is State.STOPPED, script
            assert (world.page, world.retired, world.child) in ((False, (), ""), (False, (), "over")), script


def test_one_change_makes_at_most_two_boots(worlds: dict[World, str]) -> None:
    assert [script for world, script in worlds.items() if world.boots > 2] == []


def test_a_load_is_repeated_only_for_a_predecessor(worlds: dict[World, str]) -> None:
    assert [script for world, script in worlds.items() if world.wasted] == []


def test_everything_in_the_table_can_happen() -> None:
    """No line is there for nothing."""
    for table, overlap in ((TABLE, True), (APART, False)):
        used = {
            (world.state, Event[name.strip()])
            for world in explore(overlap)
            for name, _ in world.events()
            if not name.startswith("exit")
        }
        # Apart, nobody retired lives when a child has loaded: LOADED is left before anything happens.
        unreachable = {State.ALONE} if overlap else {State.DRAINING, State.REPEATING, State.LOADED}
        assert {pair for pair in set(table) - used if pair[0] not in unreachable} == set()


def test_attempts_are_counted_in_a_window() -> None:
    times = iter([0.0, 1.0, 2.0, 9.9, 10.0, 10.5, 11.0])
    attempts = Attempts(2, 10.0, lambda: next(times))
    assert [attempts() for _ in range(7)] == [True, True, False, False, True, False, True]


# What happens to a child is an event only by what that child is.


@dataclass(frozen=True)
class Meaning:
    """What a child's end, or its failure, means. `heals`: None if it must not be asked."""

    about: About
    event: Event | None
    heals: bool | None = None
    changing: bool = False
    check: bool = False

    def asked(self) -> bool:
        assert self.heals is not None, "that counts as an attempt"
        return self.heals


EXITS = {
    "a retired child": Meaning(About(current=False, serves=True), Event.GONE),
    "a child that has said why": Meaning(About(failed=True), None),
    "a load that dies": Meaning(About(), Event.CRASHED),
    "a load from a checkpoint that dies": Meaning(About(resumed=True), Event.STRAYED),
    "a child that has served": Meaning(About(serves=True, resumed=True), Event.CRASHED, heals=True),
    "a child that has served, once too often": Meaning(About(serves=True), Event.CRASHED_AGAIN, heals=False),
    "a child that ends because of a change": Meaning(About(serves=True), None, changing=True),
    "one of several workers: the others must end": Meaning(
        About(serves=True, beside=True), Event.FAILED, heals=True
    ),
    "one of several workers, once too often": Meaning(
        About(serves=True, beside=True), Event.CRASHED_AGAIN, heals=False
    ),
}
FAILURES = {
    "a load": Meaning(About(), Event.FAILED),
    "a load from a checkpoint: it would fail from nothing, too": Meaning(About(resumed=True), Event.FAILED),
    "an event loop that the application ended": Meaning(About(serves=True), Event.FAILED, heals=True),
    "an event loop, once too often": Meaning(About(serves=True), Event.CRASHED_AGAIN, heals=False),
    "a check, which would fail again": Meaning(About(serves=True), Event.CRASHED_AGAIN, check=True),
}


@pytest.mark.parametrize("name", EXITS)
def test_what_an_exit_means(name: str) -> None:
    case = EXITS[name]
    assert of_exit(case.about, changing=case.changing, heals=case.asked) is case.event


@pytest.mark.parametrize("name", FAILURES)
def test_what_a_failure_means(name: str) -> None:
    case = FAILURES[name]
    event = of_failure(case.about, check=case.check, changing=case.changing, heals=case.asked)
    assert event is case.event


def test_what_comes_too_late_means_nothing() -> None:
    assert is_over(Event.SERVING, About(current=False), alone=True)
    assert is_over(Event.GONE, None, alone=False)
    assert not is_over(Event.GONE, None, alone=True)
    assert not is_over(Event.CHANGED, None, alone=False)


def test_who_is_asked_what_a_change_means() -> None:
    assert is_judged(State.SERVING, judges=True, changing=False)
    assert not is_judged(State.SERVING, judges=False, changing=False)
    assert not is_judged(State.SERVING, judges=True, changing=True)  # it is restarted anyway
    assert not is_judged(State.DRAINING, judges=True, changing=False)
