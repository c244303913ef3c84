"""What becomes of companions, as a table: events in, what is to be done out. No process, no clock."""

from __future__ import annotations

from typing import Any

import pytest

from devserver.companions.roster import (
    BRAKE,
    LAST,
    LIVING,
    PAUSES,
    PROVEN,
    RESTLESS,
    SETTLE,
    TABLE,
    Do,
    Event,
    Phase,
    Roster,
)
from devserver.process.pauses import Pauses
from devserver.run_table import Companion

START, INTERRUPT, TERMINATE, KILL = Do


def companion(name: str, **keys: Any) -> Companion:
    return Companion(name=name, command="x", cwd="/", root="/", **keys)


def done(roster: Roster, now: float) -> list[tuple[Do, str]]:
    """What is to be done, with whose name."""
    return [(do, member.companion.name) for do, member in roster.decide(now)]


def test_all_begin_at_once_but_those_that_wait_for_the_application() -> None:
    roster = Roster([companion("vite"), companion("tunnel", start="serving"), companion("css")])
    assert done(roster, 1.0) == [(START, "vite"), (START, "css")]
    assert done(roster, 2.0) == []
    assert roster.serves(3.0, again=False) == []
    assert roster.next_look() == 0.0
    assert done(roster, 3.0) == [(START, "tunnel")]
    assert roster.next_look() is None


def test_what_comes_after_one_that_is_awaited_waits_for_its_work() -> None:
    roster = Roster(
        [companion("vite"), companion("db", once=True), companion("migrate", once=True), companion("jobs")]
    )
    assert done(roster, 1.0) == [(START, "vite"), (START, "db")]
    assert roster.holds == ["db", "migrate"]
    assert roster.ended("db", 0, 2.0) is None
    assert done(roster, 2.0) == [(START, "migrate")]
    assert roster.holds == ["migrate"]
    assert roster.ended("migrate", 0, 3.0) is None
    assert done(roster, 3.0) == [(START, "jobs")]
    assert roster.holds == []
    assert roster.lives
    roster.changed("db", 4.0)
    assert done(roster, 4.0 + SETTLE) == [(START, "db")]
    assert roster.holds == []  # the application has begun long since


def test_one_that_is_awaited_and_fails_is_tried_again() -> None:
    roster = Roster([companion("db", once=True), companion("jobs")])
    assert done(roster, 0.0) == [(START, "db")]
    for pause, now in zip(PAUSES[:3], (1.0, 10.0, 20.0), strict=True):
        assert roster.ended("db", 1, now) == pause
        assert roster.holds == ["db"]
        assert done(roster, now + pause) == [(START, "db")]
    assert roster.ended("db", 0, 30.0) is None
    assert done(roster, 30.0) == [(START, "jobs")]


def test_what_dies_is_begun_again_after_a_pause_that_grows() -> None:
    roster = Roster([companion("vite")])
    assert done(roster, 0.0) == [(START, "vite")]
    now, pauses = 0.0, []
    for code in (1, 0, -9, 2, None, 1, 1):
        pause = roster.ended("vite", code, now)
        assert pause is not None
        pauses.append(pause)
        assert roster.next_look() == now + pause
        assert done(roster, now + pause - 0.01) == []
        now += pause
        assert done(roster, now) == [(START, "vite")]
    assert pauses == [*PAUSES, PAUSES[-1]]
    assert roster.ended("vite", 1, now + PROVEN) == PAUSES[0]  # it had worked


def test_a_change_ends_it_and_begins_it_when_files_are_quiet() -> None:
    roster = Roster([companion("jobs", grace=4.0)])
    done(roster, 0.0)
    assert roster.changed("jobs", 1.0)
    assert done(roster, 1.0) == [(INTERRUPT, "jobs")]
    assert not roster.changed("jobs", 1.1)
    assert done(roster, 1.1) == []
    assert roster.ended("jobs", -2, 1.2) is None
    assert not roster.changed("jobs", 1.21)
    assert done(roster, 1.2 + SETTLE) == []
    assert done(roster, 1.21 + SETTLE) == [(START, "jobs")]
    assert roster.changed("jobs", 2.0)


def test_a_change_ends_a_pause() -> None:
    roster = Roster([companion("jobs")])
    done(roster, 0.0)
    for _ in range(4):
        roster.ended("jobs", 1, 0.0)
        done(roster, 100.0)
    roster.ended("jobs", 1, 100.0)
    roster.changed("jobs", 101.0)
    assert done(roster, 101.0 + SETTLE) == [(START, "jobs")]
    assert roster.ended("jobs", 1, 102.0) == PAUSES[0]


def test_what_is_restarted_with_the_application() -> None:
    roster = Roster([companion("jobs", restart=True), companion("vite")])
    done(roster, 0.0)
    assert roster.serves(1.0, again=False) == []
    assert [each.companion.name for each in roster.serves(2.0, again=True)] == ["jobs"]
    assert done(roster, 2.0) == [(INTERRUPT, "jobs")]
    assert roster.serves(2.1, again=True) == []  # it is about to begin


def test_signals_get_firmer() -> None:
    roster = Roster([companion("jobs", grace=4.0)])
    done(roster, 0.0)
    roster.stop(10.0)
    seen: list[tuple[float, Do]] = []
    while (look := roster.next_look()) is not None and len(seen) < 4:
        now = look or 10.0
        seen += [(now, do) for do, _ in done(roster, now)]
    ends = [(10.0, INTERRUPT), (14.0, TERMINATE), (14.0 + LAST, KILL), (14.0 + 2 * LAST, KILL)]
    assert seen == ends
    assert roster.ended("jobs", -9, 20.0) is None
    assert not roster.lives
    assert roster.next_look() is None


def test_hurry_kills_at_once_and_nothing_begins_any_more() -> None:
    roster = Roster([companion("vite"), companion("jobs", restart=True), companion("late", start="serving")])
    done(roster, 0.0)
    roster.ended("vite", 1, 0.0)
    roster.stop(1.0)
    assert done(roster, 1.0) == [(INTERRUPT, "jobs")]
    roster.hurry(1.1)
    assert done(roster, 1.1) == [(KILL, "jobs")]
    roster.serves(1.2, again=True)
    roster.changed("jobs", 1.2)
    roster.ended("jobs", -9, 1.3)
    assert done(roster, 100.0) == []
    assert not roster.lives


def test_another_table() -> None:
    roster = Roster([companion("a"), companion("b"), companion("c")])
    done(roster, 0.0)
    changed = companion("b", grace=1.0)
    again = roster.update([companion("d"), changed, companion("a")], 1.0)
    assert [each.companion for each in again] == [changed]
    assert done(roster, 1.0) == [(INTERRUPT, "b"), (INTERRUPT, "c"), (START, "d")]
    roster.ended("b", -2, 1.1)
    roster.ended("c", -2, 1.1)
    assert done(roster, 2.0) == [(START, "b")]
    roster.update([companion("c")], 3.0)  # back again
    assert sorted(done(roster, 3.0 + SETTLE), key=str) == sorted(
        [(INTERRUPT, "d"), (INTERRUPT, "b"), (INTERRUPT, "a"), (START, "c")], key=str
    )


def test_one_that_is_awaited_and_taken_out_of_the_table_is_awaited_no_more() -> None:
    roster = Roster([companion("db", once=True), companion("jobs")])
    done(roster, 0.0)
    roster.ended("db", 1, 0.0)
    roster.update([companion("jobs")], 1.0)
    assert roster.holds == []
    assert done(roster, 1.0) == [(START, "jobs")]


@pytest.mark.parametrize("phase", Phase)
def test_whoever_lives_can_be_ended_and_who_does_not_is_gone_at_once(phase: Phase) -> None:
    after = TABLE.get((phase, Event.STOP), (phase, None))[0]
    assert after is (Phase.ENDING if phase in LIVING else Phase.GONE)


def test_every_phase_is_reached_and_left() -> None:
    reached = {after for after, _ in TABLE.values()}
    assert reached | {Phase.WAITING} == set(Phase)
    assert {phase for phase, _ in TABLE} == set(Phase)


@pytest.mark.parametrize(
    ("worked", "pauses"), [([0, 0, 0, 0], [1, 2, 4, 4]), ([0, 0, 10, 0], [1, 2, 1, 2]), ([9.9, 9.9], [1, 2])]
)
def test_pauses_grow_until_something_has_worked(worked: list[float], pauses: list[float]) -> None:
    made = Pauses((1, 2, 4), 10)
    seen = []
    for seconds in worked:
        made.worked(seconds)
        seen.append(made.after_death())
    assert seen == pauses
    made.forget()
    assert made.after_death() == 1


def test_one_that_changes_what_it_is_watched_for_is_slowed_down() -> None:
    roster = Roster([companion("css")])
    assert done(roster, 0.0) == [(START, "css")]
    now = 0.0
    for number in range(1, 2 * RESTLESS[0] - 1):
        restless = number >= RESTLESS[0]
        begun = now
        roster.changed("css", now)
        assert roster.is_restless("css", now) == restless
        assert done(roster, now) == [(INTERRUPT, "css")]
        roster.ended("css", 0, now)
        roster.changed("css", now)  # once more, while nothing lives
        now = begun + (BRAKE if restless else SETTLE)
        assert roster.next_look() == now
        assert done(roster, now) == [(START, "css")]
    assert not roster.is_restless("css", now + RESTLESS[1])
