"""What becomes of each companion: a table of phase and event to phase and what is done.

No processes, no clock: times are arguments, in seconds. Whoever acts tells the roster what has happened, and
then asks `decide` what is to be done.

Companions are begun in the order of their table. One that is *awaited* (`once`, and started before the
application) holds back what comes after it in the table, and the application, until its work is done. That
holds for the first time only: when it runs again later, nobody waits for it.

A companion is asked to end by SIGINT, as a terminal's Ctrl-C does it: that is what programs for developers
are tried with, and the signal that pools of workers leave to their parent. After its grace comes SIGTERM,
which background jobs of a shell heed, and then SIGKILL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from devserver.process.pauses import Pauses
from devserver.run_table import BEFORE, SERVING, Companion

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between a death and the next beginning, by the number of deaths in a row before it."""

PROVEN = 10.0
"""Seconds after which a companion has shown that it can run: the row of deaths is over."""

SETTLE = 0.05
"""Seconds without another change after which one begins that a change has ended."""

RESTLESS = 5, 10.0
"""A companion that begins so many times in so many seconds may write the files that are watched for it."""

BRAKE = 2.0
"""Seconds between two beginnings of a restless one."""

LAST = 1.0
"""Seconds between SIGTERM and SIGKILL."""


class Phase(Enum):
    """What a companion is at. One comment each: what lives."""

    WAITING = auto()  # nothing; its turn has not come
    RUNNING = auto()  # its process
    PAUSING = auto()  # nothing; it is begun when the time is over
    RENEWING = auto()  # its process, which is told to end and has a successor
    DONE = auto()  # nothing; its work is done
    ENDING = auto()  # its process, which is told to end
    GONE = auto()  # nothing, ever


class Event(Enum):
    """What can happen to a companion."""

    TURN = auto()  # what comes before it is done
    AGAIN = auto()  # it is to begin anew, because of a change
    DUE = auto()  # a time is over
    DIED = auto()  # its process has ended, or could not be started
    DONE = auto()  # its process has ended, and its work is done
    STOP = auto()  # it is to end
    HURRY = auto()  # it is to end at once


class Do(Enum):
    """What is done about it."""

    START = auto()
    INTERRUPT = auto()
    TERMINATE = auto()
    KILL = auto()


class _Step(Enum):
    """What a table says is done: some of it depends on what was done before."""

    START = auto()
    END = auto()  # begin to end it
    HARDER = auto()  # by the next signal
    KILL = auto()
    PAUSE = auto()  # have the time be over after a pause, the longer the more deaths there were
    SETTLE = auto()  # have it be over soon, if nothing changes meanwhile


P, E, S = Phase, Event, _Step

TABLE: dict[tuple[Phase, Event], tuple[Phase, _Step | None]] = {
    (P.WAITING, E.TURN): (P.RUNNING, S.START),
    (P.PAUSING, E.DUE): (P.RUNNING, S.START),
    (P.RUNNING, E.DIED): (P.PAUSING, S.PAUSE),
    (P.RUNNING, E.DONE): (P.DONE, None),
    # a change
    (P.RUNNING, E.AGAIN): (P.RENEWING, S.END),
    (P.RENEWING, E.DUE): (P.RENEWING, S.HARDER),
    (P.RENEWING, E.DIED): (P.PAUSING, S.SETTLE),
    (P.RENEWING, E.DONE): (P.PAUSING, S.SETTLE),
    (P.PAUSING, E.AGAIN): (P.PAUSING, S.SETTLE),
    (P.DONE, E.AGAIN): (P.PAUSING, S.SETTLE),
    # what was taken out of the table and put back
    (P.ENDING, E.AGAIN): (P.RENEWING, None),
    (P.GONE, E.AGAIN): (P.PAUSING, S.SETTLE),
    # the end
    **{(phase, E.STOP): (P.GONE, None) for phase in (P.WAITING, P.PAUSING, P.DONE)},
    (P.RUNNING, E.STOP): (P.ENDING, S.END),
    (P.RENEWING, E.STOP): (P.ENDING, None),
    (P.ENDING, E.DUE): (P.ENDING, S.HARDER),
    (P.ENDING, E.HURRY): (P.ENDING, S.KILL),
    (P.ENDING, E.DIED): (P.GONE, None),
    (P.ENDING, E.DONE): (P.GONE, None),
}

LIVING = (Phase.RUNNING, Phase.RENEWING, Phase.ENDING)
"""Phases in which there is a process."""


@dataclass(slots=True, eq=False)
class Member:
    """One companion, as far as the roster knows it.

    Attributes:
        companion: as it stands in the table.
        phase: what it is at.
        since: when its process began.
        due: when a time is over; None if none is awaited.
        proven: its work was done at least once.
        begun: it has been started at least once.
        renewed: it was told to begin anew, and has not begun yet.
        begins: when it was started lately.
    """

    companion: Companion
    phase: Phase = Phase.WAITING
    since: float = 0.0
    due: float | None = None
    proven: bool = False
    begun: bool = False
    renewed: bool = False
    signals: int = 0
    begins: list[float] = field(default_factory=list)
    pauses: Pauses = field(default_factory=lambda: Pauses(PAUSES, PROVEN))

    @property
    def holds(self) -> bool:
        """Whether what comes after it has to wait."""
        return self.companion.awaited and not self.proven and self.phase not in (Phase.ENDING, Phase.GONE)


Action = tuple[Do, Member]


class Roster:
    """See the module.

    Attributes:
        members: by their names, in the order of the table.
    """

    def __init__(self, companions: Iterable[Companion]) -> None:
        self.members = {each.name: Member(each) for each in companions}
        self._actions: list[Action] = []
        self._served = self._stopping = self._released = False

    # what has happened

    def serves(self, now: float, *, again: bool) -> list[Member]:
        """The application is served. Returns those that are restarted with it, and were not about to be.

        Args:
            again: by another generation than the first.
        """
        self._served = True
        with_it = [each for each in self.members.values() if again and each.companion.restart and each.begun]
        return [each for each in with_it if self._renew(each, now)]

    def changed(self, name: str, now: float) -> bool:
        """A file has changed that matters to a companion. Returns whether that is news."""
        return self._renew(self.members[name], now)

    def is_restless(self, name: str, now: float) -> bool:
        """Whether a companion begins so often that it does so no more than at intervals."""
        count, seconds = RESTLESS
        return sum(now - then < seconds for then in self.members[name].begins) >= count

    def ended(self, name: str, code: int | None, now: float) -> float | None:
        """A companion's process has ended.

        Args:
            code: its exit code, negative for a signal; None if it could not be started.

        Returns the seconds until it is begun again because it died; None if that is not why, or it is not.
        """
        member = self.members[name]
        was_running = member.phase is Phase.RUNNING
        is_done = code == 0 and member.companion.once
        member.proven = member.proven or (is_done and was_running)
        self._happen(member, Event.DONE if is_done else Event.DIED, now)
        return member.due - now if was_running and member.due is not None else None

    def update(self, companions: Iterable[Companion], now: float) -> list[Member]:
        """The table is another. Returns those that are begun anew because they stand there otherwise."""
        wanted = {each.name: each for each in companions}
        before, self.members = self.members, {}
        again = []
        for name, companion in wanted.items():
            member = self.members[name] = before.pop(name) if name in before else Member(companion)
            changed = member.companion != companion
            member.companion = companion
            if changed or member.phase in (Phase.ENDING, Phase.GONE):
                self._renew(member, now)
                again.append(member)
        for name, member in before.items():
            self._happen(member, Event.STOP, now)
            if member.phase is not Phase.GONE:
                self.members[name] = member
        return again

    def stop(self, now: float) -> None:
        """End all."""
        self._stopping = True
        for member in self.members.values():
            self._happen(member, Event.STOP, now)

    def hurry(self, now: float) -> None:
        """End all at once."""
        self.stop(now)
        for member in self.members.values():
            self._happen(member, Event.HURRY, now)

    # what is to be done

    @property
    def lives(self) -> bool:
        """Whether there is a process."""
        return any(member.phase in LIVING for member in self.members.values())

    @property
    def holds(self) -> list[str]:
        """The names of the companions for which the application waits."""
        if self._released:
            return []
        return [name for name, member in self.members.items() if member.holds]

    def decide(self, now: float) -> list[Action]:
        """What is to be done now; the roster takes it for done."""
        for member in self._in_turn():
            self._happen(member, Event.TURN, now)
        for member in self.members.values():
            if member.due is not None and member.due <= now:
                member.due = None
                self._happen(member, Event.DUE, now)
        self._released = self._released or not self.holds
        actions, self._actions = self._actions, []
        return actions

    def next_look(self) -> float | None:
        """When `decide` may have something to do although nothing has happened; None: never."""
        if self._actions or any(True for _ in self._in_turn()):
            return 0.0
        return min((each.due for each in self.members.values() if each.due is not None), default=None)

    def _in_turn(self) -> Iterator[Member]:
        """Those that wait and need not any more."""
        if self._stopping:
            return
        for member in self.members.values():
            start = member.companion.start
            if member.phase is Phase.WAITING and (start == BEFORE or (start == SERVING and self._served)):
                yield member
            if member.holds:
                return

    def _renew(self, member: Member, now: float) -> bool:
        """Have it begin anew. Of a burst of changes only the first is news, and returns true."""
        is_news, member.renewed = not member.renewed, True
        self._happen(member, Event.AGAIN, now)
        return is_news

    def _happen(self, member: Member, event: Event, now: float) -> None:
        if event is Event.AGAIN and self._stopping:
            return
        before = member.phase
        member.phase, step = TABLE.get((before, event), (before, None))
        if member.phase not in (Phase.PAUSING, Phase.RENEWING, Phase.ENDING):
            member.due = None
        match step:
            case _Step.START:
                member.since, member.begun, member.renewed = now, True, False
                member.begins = [*member.begins[1 - RESTLESS[0] :], now]
                self._actions.append((Do.START, member))
            case _Step.END:
                member.signals = 0
                self._end(member, now)
            case _Step.HARDER:
                self._end(member, now)
            case _Step.KILL:
                member.signals = 2
                self._end(member, now)
            case _Step.PAUSE:
                member.pauses.worked(now - member.since)
                member.due = now + member.pauses.after_death()
            case _Step.SETTLE:
                member.pauses.forget()
                restless = self.is_restless(member.companion.name, now)
                member.due = max(now + SETTLE, member.begins[-1] + BRAKE if restless else 0.0)

    def _end(self, member: Member, now: float) -> None:
        """Ask it to end, the more firmly the more often it was asked."""
        do = (Do.INTERRUPT, Do.TERMINATE, Do.KILL)[min(member.signals, 2)]
        member.signals += 1
        member.due = now + (member.companion.grace if do is Do.INTERRUPT else LAST)
        self._actions.append((do, member))
