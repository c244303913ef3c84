"""The child's table, as scripts. How it meets the supervisor's stands in `test_machine`."""

from __future__ import annotations

import pytest

from devserver.child.machine import PHASES, TABLE, Event, State, step

# The first line is a state; each other line an event, and after the arrow the state and the actions that it
# leads to. Without an arrow the event changes nothing.
SCRIPTS = {
    "a whole life": """
        LOADING
        LOADED      -> WAITING SAY
        SERVE       -> STARTING START
        STARTED     -> SERVING SAY
        RETIRE      -> DRAINING DRAIN
        DRAINED     -> CLOSING SAY
        CLOSED      -> ENDED
        """,
    "what is old notices it, and is told so as well": """
        SERVING
        OLD         -> DRAINING SAY DRAIN
        OLD
        RETIRE
        DRAINED     -> CLOSING SAY
        """,
    "a second word about the end begins no second drain": """
        DRAINING
        RETIRE
        TERM
        """,
    "a load that is not wanted any more": """
        LOADING
        TERM        -> ENDED GIVE_UP
        TERM
        FAILED
        """,
    "user code that catches its end does not wait for a word that never comes": """
        LOADING
        TERM        -> ENDED GIVE_UP
        LOADED      -> ENDED GIVE_UP
        """,
    "a wait for the word that is not wanted any more": """
        WAITING
        RETIRE      -> ENDED GIVE_UP
        TERM
        """,
    "a supervisor that is gone before its child serves": """
        WAITING
        ORPHANED    -> ENDED GIVE_UP
        """,
    "a supervisor that is gone": """
        SERVING
        ORPHANED    -> DRAINING QUIT
        DRAINED     -> CLOSING SAY
        CLOSED      -> ENDED
        """,
    "a page has nothing to load": """
        LOADING
        SERVE       -> STARTING START
        """,
    "a failure while user code is executed": """
        LOADING
        FAILED      -> ENDED SAY
        FAILED
        """,
    "a lifespan that fails": """
        STARTING
        FAILED      -> ENDED SAY
        """,
    "a check that fails while requests are answered": """
        SERVING
        UNFIT       -> UNFIT SAY
        UNFIT
        OLD
        RETIRE      -> DRAINING DRAIN
        """,
    "told to end while the lifespan starts up": """
        STARTING
        RETIRE      -> DRAINING DRAIN
        STARTED
        CLOSED      -> ENDED
        """,
    "a drain that takes too long": """
        DRAINING
        LATE        -> DRAINING ABANDON LEAVE
        """,
    "exit handlers that take too long": """
        ENDED
        LATE        -> ENDED LEAVE
        """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name: str) -> None:
    first, *lines = SCRIPTS[name].split("\n")[1:-1]
    state = State[first.strip()]
    for number, line in enumerate(lines, 1):
        event, arrow, expected = line.partition("->")
        after, actions = step(state, Event[event.strip()])
        said = " ".join([after.name, *(action.name for action in actions)])
        wanted = expected.strip() if arrow else state.name
        assert said == wanted, f"line {number}: {event.strip()} in {state.name}"
        state = after


def test_nothing_is_served_again_once_it_drains() -> None:
    """Whatever happens then, no state is reached in which a request could begin."""
    reached, ahead = set[State](), [State.DRAINING]
    while ahead:
        state = ahead.pop()
        if state not in reached:
            reached.add(state)
            ahead += [step(state, event)[0] for event in Event]
    assert not reached & {State.LOADING, State.WAITING, State.STARTING, State.SERVING, State.UNFIT}


def test_an_orphan_ends_in_every_state_in_which_it_hears() -> None:
    """While user code is executed nobody reads the channel; the guardian ends such a process."""
    deaf = {State.LOADING}
    assert [s for s in State if s not in deaf and not step(s, Event.ORPHANED)[1]] == []


def test_failures_are_told_with_where_they_came_about() -> None:
    assert {state.name: PHASES.get(state, "serve") for state in State if (state, Event.FAILED) in TABLE} == {
        "LOADING": "load",
        "WAITING": "load",
        "STARTING": "lifespan",
        "SERVING": "serve",
        "UNFIT": "serve",
        "DRAINING": "serve",
        "CLOSING": "serve",
    }
