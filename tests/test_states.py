"""The tables of what a connection is at: walked as a whole, and as scripts."""

from __future__ import annotations

import pytest

from devserver.http.states import PHASES, READINGS, Event, Flow, Phase, Reading

SCRIPTS = {
    "requests, one after the other": "OPENING BEGIN ANSWERING NEXT IDLE BEGIN ANSWERING NEXT IDLE",
    "a head in parts": "OPENING BEGIN ANSWERING NEXT IDLE PART OPENING BEGIN ANSWERING",
    "an answer before the request is complete": "IDLE BEGIN ANSWERING ANSWERED DROPPING NEXT IDLE",
    "a body that nobody wants and that does not end": "ANSWERING ANSWERED DROPPING END OVER",
    "a client that does not take its answers": "ANSWERING NEXT IDLE CLOG CLOGGED ROOM IDLE BEGIN ANSWERING",
    "a request that follows a save": "IDLE HOLD HELD BEGIN ANSWERING",
    "the same, and it is too late": "IDLE HOLD HELD LEAVE LEAVING END OVER",
    "a hand-over that waits for the last bytes": "CLOGGED LEAVE LEAVING LEAVE LEAVING END OVER",
    "a WebSocket": "OPENING UPGRADE AWAY",
    "a WebSocket that is refused": "IDLE UPGRADE AWAY REFUSE ANSWERING END OVER",
    "a connection that is closed twice": "IDLE END OVER END OVER",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_of_a_connection(script: str) -> None:
    words = SCRIPTS[script].split()
    phase = Phase[words[0]]
    for event, after in zip(words[1::2], words[2::2], strict=True):
        phase = PHASES[phase, Event[event]]
        assert phase is Phase[after], f"{event} leads to {phase.name}"


def test_every_phase_is_reached_and_ends() -> None:
    """No event leads out of the end, and the end is one event away from everywhere."""
    seen, ahead = {Phase.OPENING, Phase.IDLE}, [Phase.OPENING, Phase.IDLE]  # accepted, or handed over
    while ahead:
        phase = ahead.pop()
        following = {after for (before, _), after in PHASES.items() if before is phase}
        assert Phase.OVER in following
        ahead += following - seen
        seen |= following
    assert seen == set(Phase)
    assert {event for (phase, event) in PHASES if phase is Phase.OVER} == {Event.END}
    assert {event for _, event in PHASES} == set(Event)


def test_a_request_begins_only_where_a_head_is_awaited() -> None:
    """Never amid another, nor behind a response that the client does not take, nor at the end."""
    begins = {phase for (phase, event) in PHASES if event is Event.BEGIN}
    assert begins == {Phase.OPENING, Phase.IDLE, Phase.HELD}
    assert {phase for (phase, event) in PHASES if event is Event.LEAVE} == begins | {
        Phase.CLOGGED,
        Phase.LEAVING,
    }
    with pytest.raises(KeyError):
        PHASES[Phase.ANSWERING, Event.BEGIN]


def test_what_the_client_sends() -> None:
    assert set(READINGS) == {(reading, flow) for reading in Reading for flow in Flow}
    for (reading, flow), after in READINGS.items():
        ended = reading is Reading.ENDED or flow is Flow.END
        assert (after is Reading.ENDED) is ended, "the end is for good"
        assert ended or (after is Reading.PAUSED) is (flow is Flow.PAUSE)
