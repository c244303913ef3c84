"""What a connection is at, as two tables: its phase, and what the client still sends.

The two are joint: the client may end its side in any phase, and the phase says what is made of it.
Whatever changes where a connection stands is an event of a table here, so that a test can walk all
of it. An event that a phase does not know is a fault of the caller, and raises `KeyError`.

Pure. Knows no bytes, no sockets and no time.
"""

from enum import IntEnum, auto

# Whole numbers, because a connection changes its phase with each request: looking up a pair of them
# never leaves C, while a plain `Enum` computes its hash in Python.


class Phase(IntEnum):
    """What a connection is at."""

    OPENING = auto()  # a head is awaited, for a limited time; some of it may be there
    IDLE = auto()  # as many responses as requests, and nothing of the next head
    HELD = auto()  # a head is there, and the gate does not let it through
    ANSWERING = auto()  # a request has begun
    DROPPING = auto()  # it is answered; the rest of its body, which nobody wants, is dropped
    CLOGGED = auto()  # all is answered, but the client has yet to take most of it
    LEAVING = auto()  # it goes to whoever serves next, as soon as everything is written
    AWAY = auto()  # it is a WebSocket's, or HTTP/2's
    OVER = auto()  # nothing is to be sent any more; what still arrives is dropped


class Event(IntEnum):
    """What can happen to it."""

    PART = auto()  # a part of a head has come
    HOLD = auto()  # the gate does not let a request through
    BEGIN = auto()  # a request begins, or its refusal
    ANSWERED = auto()  # the response is complete, and the request is not
    NEXT = auto()  # request and response are complete, and another request may come
    CLOG = auto()  # nothing may begin before the client has taken what was written to it
    ROOM = auto()  # it has taken it
    LEAVE = auto()  # another process is to serve it
    UPGRADE = auto()  # it becomes a WebSocket, or one of HTTP/2
    REFUSE = auto()  # it does not: the handshake gets an ordinary response
    END = auto()  # it is closed, cut or lost


P, E = Phase, Event

PHASES: dict[tuple[Phase, Event], Phase] = {
    (P.IDLE, E.PART): P.OPENING,
    **{(phase, E.HOLD): P.HELD for phase in (P.OPENING, P.IDLE)},
    **{(phase, E.BEGIN): P.ANSWERING for phase in (P.OPENING, P.IDLE, P.HELD)},
    **{(phase, E.UPGRADE): P.AWAY for phase in (P.OPENING, P.IDLE, P.HELD)},
    (P.AWAY, E.REFUSE): P.ANSWERING,
    (P.ANSWERING, E.ANSWERED): P.DROPPING,
    **{(phase, E.NEXT): P.IDLE for phase in (P.ANSWERING, P.DROPPING)},
    (P.IDLE, E.CLOG): P.CLOGGED,
    (P.CLOGGED, E.ROOM): P.IDLE,
    **{(phase, E.LEAVE): P.LEAVING for phase in (P.OPENING, P.IDLE, P.HELD, P.CLOGGED, P.LEAVING)},
    **{(phase, E.END): P.OVER for phase in P},
}


class Reading(IntEnum):
    """What comes from the client."""

    OPEN = auto()  # it is read as it comes
    PAUSED = auto()  # it waits at the client
    ENDED = auto()  # nothing: the client has ended its side


class Flow(IntEnum):
    """What can happen to it."""

    PAUSE = auto()
    RESUME = auto()
    END = auto()


READINGS: dict[tuple[Reading, Flow], Reading] = {
    (Reading.OPEN, Flow.PAUSE): Reading.PAUSED,
    (Reading.PAUSED, Flow.PAUSE): Reading.PAUSED,
    (Reading.OPEN, Flow.RESUME): Reading.OPEN,
    (Reading.PAUSED, Flow.RESUME): Reading.OPEN,
    **{(reading, Flow.END): Reading.ENDED for reading in Reading},
    **{(Reading.ENDED, flow): Reading.ENDED for flow in Flow},
}
