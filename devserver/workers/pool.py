"""Which workers there should be: what happened in, what is to be done out.

No processes, no clock: times are arguments, in seconds. The arbiter tells the pool what has happened, and
after that asks `decide` what is to be done.

A worker has a *place*, 1 to the wanted number. It is replaced when it has died, stands still, has served
enough, or when all are renewed. Who is replaced while it can still serve leaves when its successor serves.

What fails does not turn in a circle: after each death that nobody wanted, there is a pause before the next
beginning, which is longer the more of them there have been in a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from devserver.process.pauses import Pauses

PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between a death and the next beginning, by the number of deaths in a row before it."""

PROVEN = 10.0
"""Seconds after which a worker that serves has shown that it can: the row of deaths is over."""

DYING = 2.0
"""Seconds for a worker that stands still to write where, before it is killed."""


class Phase(Enum):
    """What a worker is at."""

    STARTING = "starting"  # it loads the application
    SERVING = "serving"
    LEAVING = "leaving"  # it answers what it has begun
    DYING = "dying"  # it has been told to end at once


@dataclass(slots=True, eq=False)
class Worker:
    """One worker, as far as the pool knows it.

    Attributes:
        place: 1 to the wanted number.
        epoch: which of the renewals it belongs to.
        phase: what it is at.
        since: when that began.
        turned: when its loop was last known to turn, and one of its threads to be free or to have become so.
        worn: why it is to be replaced; "" if it is not.
        hung: it has stood still for too long.
        slot: of a tally; see `devserver.http.tally`.
    """

    place: int
    epoch: int
    phase: Phase = Phase.STARTING
    since: float = 0.0
    turned: float = 0.0
    worn: str = ""
    hung: bool = False
    slot: int = 0

    @property
    def counts(self) -> bool:
        """Whether it is one of those that there should be, for now."""
        return self.phase in (Phase.STARTING, Phase.SERVING)


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a worker."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Retire:
    """Have a worker answer what it has begun, and end."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Abort:
    """Have a worker that stands still write where, and end."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Kill:
    """End a worker."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left to be done, ever.

    Attributes:
        code: the exit code.
    """

    code: int


Action = Start | Retire | Abort | Kill | End


@dataclass(slots=True)
class Pool:
    """See the module.

    Attributes:
        wanted: the number of workers that there should be.
        stall: seconds that a worker may stand still; 0 for ever.
        grace: seconds that a worker may take to leave.
        workers: those that there are.
        served: at least one worker has ever served.
        epoch: the number of renewals so far.
    """

    wanted: int
    stall: float
    grace: float
    workers: list[Worker] = field(default_factory=list)
    served: bool = False
    epoch: int = 0
    _before: int = 0  # so many were wanted before none was
    _pauses: Pauses = field(default_factory=lambda: Pauses(PAUSES, PROVEN))
    _not_before: float = 0.0
    _code: int | None = None  # it ends with this code

    # what has happened

    def is_serving(self, worker: Worker, now: float) -> None:
        """A worker answers requests."""
        if worker.phase is Phase.STARTING:
            worker.phase, worker.since, worker.turned = Phase.SERVING, now, now
            self.served = True

    def turns(self, worker: Worker, now: float) -> None:
        """A worker's loop turns, and it has a thread to spare."""
        worker.turned = now

    def is_worn(self, worker: Worker, why: str) -> None:
        """A worker is to be replaced, and serves until then."""
        worker.worn = worker.worn or why

    def is_leaving(self, worker: Worker, now: float) -> None:
        """A worker leaves by itself."""
        if worker.counts:
            worker.phase, worker.since = Phase.LEAVING, now

    def is_gone(self, worker: Worker, now: float, code: int) -> float | None:
        """A worker's process has ended.

        Args:
            code: its exit code; negative for a signal.

        Returns None if that was wanted, or ends everything; else the seconds until another one begins.
        """
        self.workers.remove(worker)
        wanted = worker.phase is Phase.LEAVING or (worker.phase is Phase.DYING and not worker.hung)
        if wanted or self.stopping:
            return None
        if not self.served:
            self.stop(code if code > 0 else 1)  # as where one process serves: what cannot start ends it
            return None
        if worker.phase is Phase.SERVING:
            self._pauses.worked(now - worker.since)
        pause = self._pauses.after_death()
        self._not_before = max(self._not_before, now + pause)
        return pause

    def awoke(self, now: float) -> None:
        """All of this had been stopped, as by Ctrl-Z: none of the workers had the time that has passed."""
        for worker in self.workers:
            if worker.phase is Phase.SERVING:
                worker.turned = now
            else:
                worker.since = now

    def renew(self) -> None:
        """Replace all, one after the other."""
        self.epoch += 1
        self.wanted = self.wanted or self._before
        self._pauses.forget()  # what could not start may be mended
        self._not_before = 0.0

    def resize(self, by: int) -> None:
        """Have more or fewer; at least one."""
        self.wanted = max(1, self.wanted + by)

    def rest(self) -> None:
        """Have none, until all are renewed."""
        self._before, self.wanted = self.wanted or self._before, 0

    def stop(self, code: int = 0) -> None:
        """End all. Args: code: the exit code."""
        if self._code is None:
            self._code = code

    def hurry(self) -> None:
        """End all at once."""
        self.stop()
        self.grace = 0.0

    # what is to be done

    @property
    def stopping(self) -> bool:
        """Whether all are to end."""
        return self._code is not None

    def decide(self, now: float) -> list[Action]:
        """What is to be done now; the pool takes it for done."""
        actions = [*self._over_time(now), *(self._ending(now) if self.stopping else self._filling(now))]
        if self._code is not None and not self.workers:
            actions.append(End(self._code))
        return actions

    def next_look(self) -> float | None:
        """When `decide` may have something to do although nothing has happened; None: never."""
        times = [end for worker in self.workers if (end := self._end_of(worker)) is not None]
        if not self.stopping and len(self._current()) < self.wanted and not self._is_in_turn():
            times.append(self._not_before)
        return min(times, default=None)

    def _end_of(self, worker: Worker) -> float | None:
        """When a worker has had all the time that it gets; None if it has."""
        if worker.phase is Phase.SERVING and self.stall:
            return worker.turned + self.stall
        if worker.phase is Phase.LEAVING:
            return worker.since + self.grace
        return worker.since + DYING if worker.phase is Phase.DYING else None

    def _over_time(self, now: float) -> Iterator[Action]:
        for worker in self.workers:
            end = self._end_of(worker)
            if end is None or now < end:
                continue
            if worker.phase is Phase.SERVING:
                worker.hung = True
                self._pauses.worked(worker.turned - worker.since)
                yield Abort(worker)
            else:
                yield Kill(worker)
            worker.phase, worker.since = Phase.DYING, now

    def _ending(self, now: float) -> Iterator[Action]:
        for worker in self.workers:
            if worker.phase is Phase.SERVING:
                yield self._retire(worker, now)
            elif worker.phase is Phase.STARTING:  # nobody has asked it anything
                worker.phase, worker.since = Phase.DYING, now
                yield Kill(worker)

    def _filling(self, now: float) -> Iterator[Action]:
        yield from self._replaced(now)
        if now < self._not_before:
            return
        taken = {worker.place for worker in self._current()}
        for place in range(1, self.wanted + 1):
            if place in taken:
                continue
            if self._is_in_turn():
                return
            worker = Worker(place, self.epoch, since=now)
            self.workers.append(worker)
            yield Start(worker)

    def _is_in_turn(self) -> bool:
        """Whether the next one waits for one that starts. No clock ends that, but this one's start or death.

        They start one by one if others serve meanwhile: each takes memory, and its start a processor.
        """
        if not any(worker.phase is Phase.STARTING for worker in self.workers):
            return False
        current = self._current()
        return any(worker.counts for worker in self.workers if worker not in current)

    def _replaced(self, now: float) -> Iterator[Action]:
        """Have those leave whose successors serve, and those for whom there is no place any more."""
        serving = {worker.place for worker in self._current() if worker.phase is Phase.SERVING}
        for worker in list(self.workers):
            is_current = not worker.worn and worker.epoch == self.epoch
            if not worker.counts or (is_current and worker.place <= self.wanted):
                continue
            if worker.phase is Phase.STARTING:
                worker.phase, worker.since = Phase.DYING, now
                yield Kill(worker)
            elif worker.place in serving or (worker.place > self.wanted and (serving or not self.wanted)):
                yield self._retire(worker, now)

    def _retire(self, worker: Worker, now: float) -> Retire:
        worker.phase, worker.since = Phase.LEAVING, now
        return Retire(worker)

    def _current(self) -> list[Worker]:
        """Those that need no successor."""
        return [
            worker
            for worker in self.workers
            if worker.counts
            and not worker.worn
            and worker.epoch == self.epoch
            and worker.place <= self.wanted
        ]
