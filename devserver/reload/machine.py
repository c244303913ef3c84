"""What the supervisor does next: a table of state and event to state and actions.

Imports neither os nor time nor asyncio. Time arrives as events of timers that the supervisor
keeps, processes as what they reported; what is to be done leaves as actions, which the
supervisor performs in order. Cold spawn and warm resume are the same action.

There is at most one *current* child, which loads or serves. A child that has been told to end is
*retired*: it drains, exits, and is killed when its grace is over. While one of those lives no
successor may begin its lifespan, so that two generations never overlap; loading overlaps, because
that is what takes the time. When nobody can answer, a *page* child, without user code, shows why;
nobody waits for its end but the supervisor at its own.

What happens to a child is not yet an event: what it means depends on who that child is and what it has done.
The functions after the table say so, from facts that the supervisor gives them. Nothing that decides about a
restart stands elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto


class State(Enum):
    """Where the supervisor stands. One comment each: what lives."""

    STARTING = auto()  # a child that loads or starts up; no predecessor
    DRAINING = auto()  # a child that loads; a predecessor that drains
    LOADED = auto()  # a child that has loaded and waits for its predecessor's end
    REPEATING = auto()  # no child; the load that failed is repeated when the predecessor is gone
    ALONE = auto()  # no child; one is spawned when the predecessor is gone (--no-reload-overlap)
    SETTLING = auto()  # no child; one is spawned when files have been quiet for a moment
    SERVING = auto()  # a child that serves
    WAITING = auto()  # a page; a child is spawned on a change
    STOPPING = auto()  # whatever lives is ending
    STOPPED = auto()  # nothing


class Event(Enum):
    """What can happen."""

    LOADED = auto()  # the child has loaded the application and waits
    SERVING = auto()  # the child answers requests
    FAILED = auto()  # the child could not load, start up or go on with the application, and said so
    CRASHED = auto()  # the child is gone without having been told
    CRASHED_AGAIN = auto()  # a child that had served has failed or crashed, too often
    STRAYED = auto()  # a child that goes on from a checkpoint is gone, or takes too long
    CHANGED = auto()  # a file changed that matters, or somebody asked for a restart
    GONE = auto()  # no retired child is left that held the application; at the end: none at all
    SETTLED = auto()  # no change for a moment
    SLOW = auto()  # the load, or the lifespan's startup, takes longer than requests may wait
    ASKED = auto()  # a request reached the page, long enough after the last attempt
    PAGE_LOST = auto()  # the page child is gone without having been told
    STOP = auto()  # interrupt or terminate


ENDS = (Event.CRASHED, Event.CRASHED_AGAIN, Event.STRAYED)
"""Events at which the current child may be gone."""


class Action(Enum):
    """What the supervisor can do."""

    SPAWN = auto()  # start a child for a new generation; it loads
    RESPAWN = auto()  # the same for the generation that there is; after it strayed, from nothing
    SERVE = auto()  # tell the child to start up and serve
    RETIRE = auto()  # tell the child to drain and end; kill it after its grace
    RETIRE_PAGE = auto()  # the same for the page
    AWAIT = auto()  # raise GONE as soon as it is true, which may be now
    SETTLE = auto()  # raise SETTLED when there has been no change for a moment
    SHOW = auto()  # start the page, or give the one that is there the newest failure
    SHOW_LOADING = auto()  # start the page with where the load or the startup stands
    SHOW_AGAIN = auto()  # start the page as it was
    ANNOUNCE = auto()  # say that the new code is served
    KILL = auto()  # kill what lives
    FINISH = auto()  # leave


S, E, A = State, Event, Action

TABLE: dict[tuple[State, Event], tuple[State, tuple[Action, ...]]] = {
    # loading
    (S.STARTING, E.LOADED): (S.LOADED, (A.RETIRE_PAGE, A.AWAIT)),
    (S.DRAINING, E.LOADED): (S.LOADED, (A.RETIRE_PAGE, A.AWAIT)),
    (S.DRAINING, E.GONE): (S.STARTING, ()),
    (S.LOADED, E.GONE): (S.STARTING, (A.SERVE,)),
    (S.STARTING, E.SERVING): (S.SERVING, (A.RETIRE_PAGE, A.ANNOUNCE)),
    (S.STARTING, E.SLOW): (S.STARTING, (A.SHOW_LOADING,)),
    (S.DRAINING, E.SLOW): (S.DRAINING, (A.SHOW_LOADING,)),
    # a load that failed while its predecessor lived may have collided with it: repeated once
    (S.DRAINING, E.FAILED): (S.REPEATING, (A.RETIRE, A.AWAIT)),
    (S.DRAINING, E.CRASHED): (S.REPEATING, (A.AWAIT,)),
    (S.REPEATING, E.GONE): (S.STARTING, (A.RESPAWN,)),
    # a warm start that leads nowhere: at once a cold one
    (S.STARTING, E.STRAYED): (S.STARTING, (A.RETIRE, A.RESPAWN)),
    (S.DRAINING, E.STRAYED): (S.DRAINING, (A.RETIRE, A.RESPAWN)),
    (S.LOADED, E.STRAYED): (S.DRAINING, (A.RETIRE, A.RESPAWN, A.AWAIT)),
    # failure
    (S.STARTING, E.FAILED): (S.WAITING, (A.RETIRE, A.SHOW)),
    (S.STARTING, E.CRASHED): (S.WAITING, (A.SHOW,)),
    (S.LOADED, E.CRASHED): (S.WAITING, (A.SHOW,)),
    (S.SERVING, E.FAILED): (S.DRAINING, (A.RETIRE, A.SPAWN, A.AWAIT)),
    (S.SERVING, E.CRASHED): (S.STARTING, (A.SPAWN,)),
    (S.SERVING, E.CRASHED_AGAIN): (S.WAITING, (A.RETIRE, A.SHOW)),
    (S.WAITING, E.ASKED): (S.STARTING, (A.SPAWN,)),
    **{(state, E.PAGE_LOST): (state, (A.SHOW_AGAIN,)) for state in (S.WAITING, S.STARTING, S.DRAINING)},
    # change: the first acts at once, those during a load gather
    (S.SERVING, E.CHANGED): (S.DRAINING, (A.RETIRE, A.SPAWN, A.AWAIT)),
    (S.WAITING, E.CHANGED): (S.STARTING, (A.RETIRE_PAGE, A.SPAWN)),
    (S.STARTING, E.CHANGED): (S.SETTLING, (A.RETIRE, A.RETIRE_PAGE, A.SETTLE)),
    (S.DRAINING, E.CHANGED): (S.SETTLING, (A.RETIRE, A.RETIRE_PAGE, A.SETTLE)),
    (S.LOADED, E.CHANGED): (S.SETTLING, (A.RETIRE, A.SETTLE)),
    (S.REPEATING, E.CHANGED): (S.SETTLING, (A.SETTLE,)),
    (S.SETTLING, E.CHANGED): (S.SETTLING, (A.SETTLE,)),
    (S.SETTLING, E.SETTLED): (S.DRAINING, (A.SPAWN, A.AWAIT)),
    # end
    **{
        (state, E.STOP): (S.STOPPING, (A.RETIRE, A.RETIRE_PAGE, A.AWAIT))
        for state in S
        if state not in (S.STOPPING, S.STOPPED)
    },
    (S.STOPPING, E.STOP): (S.STOPPING, (A.KILL, A.AWAIT)),
    (S.STOPPING, E.GONE): (S.STOPPED, (A.FINISH,)),
}

APART: dict[tuple[State, Event], tuple[State, tuple[Action, ...]]] = {
    **TABLE,
    # --no-reload-overlap: nothing loads before its predecessor is gone
    (S.SERVING, E.CHANGED): (S.ALONE, (A.RETIRE, A.AWAIT)),
    (S.SERVING, E.FAILED): (S.ALONE, (A.RETIRE, A.AWAIT)),
    (S.WAITING, E.CHANGED): (S.ALONE, (A.RETIRE_PAGE, A.AWAIT)),
    (S.WAITING, E.ASKED): (S.ALONE, (A.AWAIT,)),
    (S.SETTLING, E.SETTLED): (S.ALONE, (A.AWAIT,)),
    (S.STARTING, E.STRAYED): (S.ALONE, (A.RETIRE, A.AWAIT)),
    (S.ALONE, E.CHANGED): (S.SETTLING, (A.SETTLE,)),
    (S.ALONE, E.GONE): (S.STARTING, (A.SPAWN,)),
}


def step(state: State, event: Event, *, overlap: bool = True) -> tuple[State, tuple[Action, ...]]:
    """The state after an event, and what is to be done, in order.

    Args:
        overlap: whether a successor may load while its predecessor drains.

    An event that a state does not know changes nothing: it came too late (a child reported that
    it serves after it had been retired, say).
    """
    return (TABLE if overlap else APART).get((state, event), (state, ()))


@dataclass(frozen=True, slots=True)
class About:
    """A child, as far as it decides what happens to it means.

    Attributes:
        current: it is the one that loads or serves, or one of several that do.
        serves: it has answered requests, or the first of its generation has.
        resumed: it goes on from a checkpoint.
        failed: it has said that it has failed.
        beside: others of its generation may live.
    """

    current: bool = True
    serves: bool = False
    resumed: bool = False
    failed: bool = False
    beside: bool = False


def of_exit(about: About, *, changing: bool, heals: Callable[[], bool]) -> Event | None:
    """What it means that the process of an application's child is gone.

    Args:
        changing: a change is about to be taken through the table.
        heals: whether a child that served may be started again; asked at most once, since that counts.
    """
    if not about.current:
        return Event.GONE
    if about.failed:
        return None  # it has said so
    if about.serves:  # where there are others, they must be told to end
        event = Event.FAILED if about.beside else Event.CRASHED
        return _of_loss(event, changing=changing, heals=heals)
    return Event.STRAYED if about.resumed else Event.CRASHED


def of_failure(about: About, *, check: bool, changing: bool, heals: Callable[[], bool]) -> Event | None:
    """What it means that the current child says that it has failed.

    Args:
        check: what has failed is a check, while requests were answered: it would fail again.
        changing, heals: see `of_exit`.
    """
    if check:
        return Event.CRASHED_AGAIN
    if about.serves:
        return _of_loss(Event.FAILED, changing=changing, heals=heals)
    return Event.FAILED


def _of_loss(event: Event, *, changing: bool, heals: Callable[[], bool]) -> Event | None:
    """A child that had served does so no more: it is replaced, but not for ever."""
    if changing:
        return None  # it has said why, a moment ago
    return event if heals() else Event.CRASHED_AGAIN


def is_over(event: Event, about: About | None, *, alone: bool) -> bool:
    """Whether an event means nothing any more, since others were taken through the table before it.

    Args:
        about: the child that it is about, if it is about one.
        alone: no child lives that was told to end and held the application.
    """
    return (about is not None and not about.current) or (event is Event.GONE and not alone)


def is_a_change(state: State, *, changing: bool) -> bool:
    """Whether a change is one to act on. The first of several says why."""
    return not changing and state not in (State.STOPPING, State.STOPPED)


def is_judged(state: State, *, judges: bool, changing: bool) -> bool:
    """Whether the application is asked what a change means.

    Args:
        judges: it has said that it wants to.
        changing: it is restarted anyway, for another reason.
    """
    return judges and state is State.SERVING and not changing


def is_retried(state: State, retries: Callable[[], bool]) -> bool:
    """Whether a request that has reached the page leads to another attempt. Args: retries: it may."""
    return state is State.WAITING and retries()


def is_late_at_loading(state: State, *, slow: bool) -> bool:
    """Whether a page tells a request where the load stands. Args: slow: the time for the load is over."""
    return slow and state in (State.STARTING, State.DRAINING)


HEAL = (2, 10.0)
"""How often a child that had served and died is started again, at most, in how many seconds."""

RETRY = (1, 2.0)
"""How often a failed start is tried again for a request, at most, in how many seconds."""


class Attempts:
    """Allows something at most `count` times in `seconds`: healing must not become a loop."""

    def __init__(self, count: int, seconds: float, clock: Callable[[], float]) -> None:
        """Args: clock: gives the time in seconds; it does not go back."""
        self._count = count
        self._seconds = seconds
        self._clock = clock
        self._made: list[float] = []

    def __call__(self) -> bool:
        """Whether it may be done now; if so it counts as done."""
        now = self._clock()
        self._made = [then for then in self._made if now - then < self._seconds]
        if len(self._made) >= self._count:
            return False
        self._made.append(now)
        return True
