"""Where a checkpoint is worth it: a table of times."""

from __future__ import annotations

import pytest

from devserver.warm.policy import COST, PACE, SLOWER, WORTH, Policy


@pytest.mark.parametrize(
    ("passed", "marked", "wanted"),
    [
        (0.0, False, False),
        (PACE * 0.99, False, False),
        (PACE * 1.01, False, True),
        (0.0, True, False),
        (WORTH * 0.99, True, False),
        (WORTH * 1.01, True, True),
        (PACE * 1.01, True, True),
    ],
)
def test_loading_must_have_taken_a_while_and_less_where_edits_are(
    passed: float, marked: bool, wanted: bool
) -> None:
    assert Policy(100.0).wants(100.0 + passed, marked=marked) is wanted


@pytest.mark.parametrize(("places", "unmarked"), [("each", True), ("marked", False)])
def test_places_that_a_test_asks_for_cost_no_time(places: str, unmarked: bool) -> None:
    policy = Policy(0.0, places)
    assert policy.wants(0.0, marked=True)
    assert policy.wants(0.0, marked=False) is unmarked
    assert policy.wants(1000.0, marked=False) is unmarked


@pytest.mark.parametrize(
    ("took", "pace"),
    [
        (0.0, PACE),
        (PACE / COST, PACE),
        (2 * PACE / COST, 2 * PACE),
        (10.0, SLOWER * PACE),  # perhaps the machine was busy
    ],
)
def test_what_the_last_one_took_says_how_far_the_next_one_is(took: float, pace: float) -> None:
    policy = Policy(0.0)
    policy.begins(1.0)
    policy.made(1.0 + took)
    policy.goes_on(20.0)
    assert not policy.wants(20.0 + pace * 0.99, marked=False)
    assert policy.wants(20.0 + pace * 1.01, marked=False)


def test_several_slow_ones_lengthen_the_pace_step_by_step_and_a_quick_one_ends_that() -> None:
    policy = Policy(0.0)
    for _ in range(3):
        policy.begins(0.0)
        policy.made(10.0)
        policy.goes_on(0.0)
    assert not policy.wants(SLOWER**3 * PACE * 0.99, marked=False)
    assert policy.wants(SLOWER**3 * PACE * 1.01, marked=False)
    policy.begins(0.0)
    policy.made(0.0)
    policy.goes_on(0.0)
    assert policy.wants(PACE * 1.01, marked=False)


def test_seconds_are_of_loading_without_what_checkpoints_took() -> None:
    policy = Policy(10.0)
    policy.begins(12.0)
    assert policy.seconds == 2.0
    policy.goes_on(15.0)
    policy.begins(16.0)
    assert policy.seconds == 3.0


def test_one_that_could_not_be_made_is_not_tried_again_at_once() -> None:
    policy = Policy(0.0)
    assert policy.wants(1.0, marked=False)
    policy.begins(1.0)
    assert not policy.wants(1.0 + PACE * 0.99, marked=False)
