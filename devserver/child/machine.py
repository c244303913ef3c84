"""What a child does next: a table of state and event to state and actions, as the supervisor has one.

A child executes user code first, and hears nothing but a signal then. It waits for the word to serve, since
its predecessor may still drain; it starts up, serves, drains and shuts down. The supervisor decides when it
ends; a child ends by itself only when its code is old, when it fails, or when the supervisor is gone. A page
has no user code to execute, and waits for no word.

Imports neither os nor time nor threading. Words, signals, the end of a grace and what threads do arrive as
events; what is to be done leaves as actions, which `process` performs in order.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """Where a child stands."""

    LOADING = auto()  # user code is executed
    WAITING = auto()  # loaded; the word to serve is awaited
    STARTING = auto()  # the lifespan starts up
    SERVING = auto()  # requests are answered
    UNFIT = auto()  # a check has failed: no request is begun, and the supervisor will end it
    DRAINING = auto()  # no request is begun, and those that were begun are finished
    CLOSING = auto()  # the lifespan shuts down
    ENDED = auto()  # nothing is served any more; exit handlers may run


class Event(Enum):
    """What can happen to a child."""

    LOADED = auto()  # user code was executed
    SERVE = auto()  # it may start up: the supervisor says so, or it is a page
    RETIRE = auto()  # the supervisor says: drain and end
    TERM = auto()  # SIGTERM: the supervisor's way to be heard while user code is executed
    STARTED = auto()  # the lifespan has started up
    FAILED = auto()  # user code has raised, and nothing goes on
    UNFIT = auto()  # a check that runs while requests are answered has failed
    OLD = auto()  # a file has changed that the application read
    DRAINED = auto()  # the last request is over
    CLOSED = auto()  # the lifespan has shut down, or has been cut off while it started up
    LATE = auto()  # the time for all that is over
    ORPHANED = auto()  # the supervisor is gone


class Action(Enum):
    """What a child can do."""

    SAY = auto()  # tell the supervisor what has happened
    GIVE_UP = auto()  # leave the user's code, or the wait for the word
    START = auto()  # listen to the supervisor in a thread
    DRAIN = auto()  # begin no request, hand connections over, and be gone when the grace is over
    QUIT = auto()  # drain when nobody is there who could wait for it
    ABANDON = auto()  # hand over what can be: the event loop does not turn
    LEAVE = auto()  # name what still runs, and end the process


S, E, A = State, Event, Action

_ANSWERING = (S.STARTING, S.SERVING, S.UNFIT)

TABLE: dict[tuple[State, Event], tuple[State, tuple[Action, ...]]] = {
    # before anything is served
    (S.LOADING, E.LOADED): (S.WAITING, (A.SAY,)),
    (S.LOADING, E.SERVE): (S.STARTING, (A.START,)),
    (S.WAITING, E.SERVE): (S.STARTING, (A.START,)),
    **{(state, E.FAILED): (S.ENDED, (A.SAY,)) for state in (S.LOADING, S.WAITING)},
    **{(state, E.RETIRE): (S.ENDED, (A.GIVE_UP,)) for state in (S.LOADING, S.WAITING)},
    **{(state, E.TERM): (S.ENDED, (A.GIVE_UP,)) for state in (S.LOADING, S.WAITING)},
    (S.WAITING, E.ORPHANED): (S.ENDED, (A.GIVE_UP,)),
    (S.ENDED, E.LOADED): (S.ENDED, (A.GIVE_UP,)),  # the user's code has caught what should have ended it
    # serving
    (S.STARTING, E.STARTED): (S.SERVING, (A.SAY,)),
    (S.SERVING, E.UNFIT): (S.UNFIT, (A.SAY,)),
    (S.SERVING, E.OLD): (S.DRAINING, (A.SAY, A.DRAIN)),
    **{(state, E.RETIRE): (S.DRAINING, (A.DRAIN,)) for state in _ANSWERING},
    **{(state, E.TERM): (S.DRAINING, (A.DRAIN,)) for state in _ANSWERING},
    # ending
    (S.DRAINING, E.DRAINED): (S.CLOSING, (A.SAY,)),
    **{(state, E.CLOSED): (S.ENDED, ()) for state in (S.DRAINING, S.CLOSING)},
    **{(state, E.FAILED): (S.ENDED, (A.SAY,)) for state in (*_ANSWERING, S.DRAINING, S.CLOSING)},
    (S.DRAINING, E.LATE): (S.DRAINING, (A.ABANDON, A.LEAVE)),
    **{(state, E.LATE): (state, (A.LEAVE,)) for state in (S.CLOSING, S.ENDED)},
    **{(state, E.ORPHANED): (S.DRAINING, (A.QUIT,)) for state in _ANSWERING},
    **{(state, E.ORPHANED): (state, (A.QUIT,)) for state in (S.DRAINING, S.CLOSING, S.ENDED)},
}

PHASES = {S.LOADING: "load", S.WAITING: "load", S.STARTING: "lifespan"}
"""What a failure says of where it came about; from anywhere else it is "serve"."""


def step(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """The state after an event, and what is to be done, in order.

    An event that a state does not know changes nothing: it came too late.
    """
    return TABLE.get((state, event), (state, ()))
