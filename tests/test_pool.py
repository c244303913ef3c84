"""The pool of workers: what is to be done after what has happened, without processes and without a clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from devserver.config import Config
from devserver.server import Serving
from devserver.workers.pool import (
    DYING,
    PAUSES,
    PROVEN,
    Abort,
    End,
    Kill,
    Phase,
    Pool,
    Retire,
    Start,
    Worker,
)

STALL, GRACE = 30.0, 3.0


def begun(count: int = 3) -> Pool:
    """A pool whose workers all serve, since 0.0."""
    pool = Pool(count, STALL, GRACE)
    assert [action.worker.place for action in pool.decide(0.0)] == list(range(1, count + 1))  # type: ignore[union-attr]
    for worker in pool.workers:
        pool.is_serving(worker, 0.0)
    assert pool.decide(0.0) == []
    return pool


def at(pool: Pool, place: int) -> list[Worker]:
    return [worker for worker in pool.workers if worker.place == place]


def test_who_dies_has_a_successor_in_the_same_place() -> None:
    pool = begun()
    assert pool.is_gone(pool.workers[1], 20.0, -11) == 0.0
    [start] = pool.decide(20.0)
    assert isinstance(start, Start)
    assert start.worker.place == 2


def test_who_goes_on_dying_is_begun_less_and_less_often() -> None:
    pool, now, pauses = begun(1), 0.0, []
    for _ in range(len(PAUSES) + 1):
        pause = pool.is_gone(pool.workers[0], now, 1)
        assert pause is not None
        pauses.append(pause)
        if pause:
            assert pool.decide(now + pause - 0.01) == []
            assert pool.next_look() == now + pause
        now += pause
        assert len(pool.decide(now)) == 1
    assert pauses == [*PAUSES, PAUSES[-1]]


def test_a_worker_that_has_served_long_enough_ends_the_row() -> None:
    pool = begun(1)
    for _ in range(3):
        pool.is_gone(pool.workers[0], 0.0, 1)
        pool.decide(100.0)
    pool.is_serving(pool.workers[0], 100.0)
    assert pool.is_gone(pool.workers[0], 100.0 + PROVEN, 1) == 0.0


def test_who_stands_still_after_it_has_served_long_enough_ends_the_row() -> None:
    """Else the hundredth in a year would leave its place empty for 15 s."""
    pool = begun(1)
    for now in (1.0, 101.0):
        [worker] = pool.workers
        pool.turns(worker, now + PROVEN)
        now += PROVEN + STALL
        abort, start = pool.decide(now)
        assert abort == Abort(worker)
        assert isinstance(start, Start)
        pool.is_serving(start.worker, now)
        assert pool.is_gone(worker, now, -6) == 0.0


@pytest.mark.parametrize(("code", "expected"), [(3, 3), (1, 1), (0, 1), (-9, 1)])
def test_what_cannot_start_at_all_ends_it(code: int, expected: int) -> None:
    pool = Pool(2, STALL, GRACE)
    first, second = (action.worker for action in pool.decide(0.0) if isinstance(action, Start))
    assert pool.is_gone(first, 1.0, code) is None
    assert pool.decide(1.0) == [Kill(second)]
    assert pool.is_gone(second, 1.0, -9) is None
    assert pool.decide(1.0) == [End(expected)]


def test_renewal_goes_one_by_one_and_who_is_new_serves_before_who_is_old_leaves() -> None:
    pool = begun()
    old = list(pool.workers)
    pool.renew()
    for place in (1, 2, 3):
        [start] = [action for action in pool.decide(1.0) if isinstance(action, Start)]
        assert start.worker.place == place
        assert pool.decide(2.0) == []
        pool.is_serving(start.worker, 3.0)
        actions = pool.decide(3.0)
        assert actions[0] == Retire(old[place - 1])
        assert pool.is_gone(old[place - 1], 4.0, 0) is None
        if len(actions) > 1:  # the next has begun
            assert isinstance(actions[1], Start)
            pool.workers.remove(actions[1].worker)  # for the loop to begin it
    assert not set(old) & set(pool.workers)


def test_who_waits_for_a_start_looks_at_no_clock() -> None:
    """The arbiter would turn in a circle until the successor serves, which may load for long."""
    pool = Pool(2, 0.0, GRACE)
    for worker in [action.worker for action in pool.decide(0.0) if isinstance(action, Start)]:
        pool.is_serving(worker, 0.0)
    pool.renew()
    [start] = pool.decide(1.0)
    assert isinstance(start, Start)
    assert pool.next_look() is None
    assert pool.is_gone(start.worker, 2.0, 1) == 0.0
    assert pool.next_look() == 2.0


def test_renewal_by_what_cannot_start_leaves_the_old_ones_alone() -> None:
    pool = begun(2)
    old = list(pool.workers)
    pool.renew()
    now = 1.0
    for _ in range(5):
        [start] = pool.decide(now)
        assert isinstance(start, Start)
        pause = pool.is_gone(start.worker, now, 1)
        assert pause is not None
        now += pause
    assert pool.workers == old
    assert {worker.phase for worker in old} == {Phase.SERVING}
    pool.renew()  # mended: at once
    assert len(pool.decide(now)) == 1


def test_more_and_fewer() -> None:
    pool = begun(2)
    pool.resize(1)
    [start] = pool.decide(1.0)
    assert isinstance(start, Start)
    assert start.worker.place == 3
    pool.is_serving(start.worker, 1.0)
    pool.resize(-1)
    assert pool.decide(2.0) == [Retire(start.worker)]
    pool.resize(-9)
    assert pool.wanted == 1
    assert pool.decide(2.0) == [Retire(at(pool, 2)[0])]


def test_who_starts_and_is_not_wanted_any_more_is_not_waited_for() -> None:
    pool = begun(1)
    pool.resize(1)
    [start] = pool.decide(1.0)
    assert isinstance(start, Start)
    pool.resize(-1)
    assert pool.decide(2.0) == [Kill(start.worker)]
    assert pool.is_gone(start.worker, 2.0, -9) is None


def test_who_stands_still_is_ended_and_replaced() -> None:
    pool = begun(2)
    first, second = pool.workers
    assert pool.next_look() == STALL
    pool.turns(first, STALL - 1)
    assert pool.decide(STALL - 0.1) == []
    abort, start = pool.decide(STALL)
    assert abort == Abort(second)
    assert isinstance(start, Start)
    assert start.worker.place == 2
    assert pool.decide(STALL + DYING) == [Kill(second)]  # it did not even write where
    assert pool.is_gone(second, STALL + DYING, -9) == 0.0


def test_who_was_stopped_together_with_the_arbiter_has_not_stood_still() -> None:
    pool = begun(3)
    serving, hung, leaving = pool.workers
    pool.turns(serving, STALL)
    pool.turns(leaving, STALL)
    pool.resize(-1)
    assert pool.decide(STALL)[0] == Abort(hung)
    pool.awoke(9999.0)
    assert pool.decide(9999.0) == []
    assert pool.decide(9999.0 + DYING) == [Kill(hung)]
    assert Kill(leaving) in pool.decide(9999.0 + GRACE)
    assert Abort(serving) in pool.decide(9999.0 + STALL)


def test_nobody_stands_still_for_too_long_without_a_bound() -> None:
    pool = Pool(1, 0.0, GRACE)
    pool.decide(0.0)
    pool.is_serving(pool.workers[0], 0.0)
    assert pool.next_look() is None
    assert pool.decide(1e9) == []


def test_who_starts_may_take_its_time() -> None:
    pool = Pool(1, STALL, GRACE)
    pool.decide(0.0)
    assert pool.decide(1e9) == []


def test_who_is_worn_serves_until_its_successor_does() -> None:
    pool = begun(1)
    [worn] = pool.workers
    pool.is_worn(worn, "enough")
    pool.is_worn(worn, "and enough")
    assert worn.worn == "enough"
    [start] = pool.decide(1.0)
    assert isinstance(start, Start)
    assert worn.phase is Phase.SERVING
    pool.is_serving(start.worker, 2.0)
    assert pool.decide(2.0) == [Retire(worn)]
    assert pool.decide(2.0 + GRACE) == [Kill(worn)]
    assert pool.is_gone(worn, 6.0, -9) is None


def test_who_leaves_by_itself_is_replaced_at_once() -> None:
    pool = begun(2)
    leaving = pool.workers[0]
    pool.is_leaving(leaving, 1.0)
    [start] = pool.decide(1.0)
    assert isinstance(start, Start)
    assert start.worker.place == 1
    assert pool.is_gone(leaving, 2.0, 0) is None


def test_the_end() -> None:
    pool = begun(2)
    first, second = pool.workers
    pool.resize(1)
    [start] = pool.decide(0.5)
    assert isinstance(start, Start)
    pool.stop()
    assert pool.decide(1.0) == [Retire(first), Retire(second), Kill(start.worker)]
    pool.is_gone(start.worker, 1.0, -9)
    pool.is_gone(first, 1.0, 0)
    assert pool.decide(1.5) == []
    pool.hurry()
    assert pool.decide(1.5) == [Kill(second)]
    pool.is_gone(second, 2.0, -9)
    assert pool.decide(2.0) == [End(0)]


class Life(RuleBasedStateMachine):
    """Whatever happens, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(3, STALL, GRACE)
        self.now = 0.0
        self.told: set[Worker] = set()
        self.ended = False
        self.decide()

    def decide(self) -> None:
        for action in self.pool.decide(self.now):
            if isinstance(action, End):
                assert not self.pool.workers
                self.ended = True
            else:
                assert action.worker in self.pool.workers
                assert isinstance(action, Start) != (action.worker in self.told)
                self.told.add(action.worker)
        assert self.ended or not self.pool.decide(self.now)  # nothing is left to be done
        look = self.pool.next_look()
        assert self.ended or look is None or look > self.now  # else the arbiter would turn in a circle

    def one(self, which: int) -> Worker:
        return self.pool.workers[which % len(self.pool.workers)]

    @precondition(lambda self: self.pool.workers)
    @rule(which=some.integers(0, 9), code=some.sampled_from([0, 1, -9]))
    def goes(self, which: int, code: int) -> None:
        self.pool.is_gone(self.one(which), self.now, code)
        self.decide()

    @precondition(lambda self: self.pool.workers)
    @rule(which=some.integers(0, 9), what=some.sampled_from(["serving", "turns", "worn", "leaving"]))
    def says(self, which: int, what: str) -> None:
        worker = self.one(which)
        if what == "serving":
            self.pool.is_serving(worker, self.now)
        elif what == "turns":
            self.pool.turns(worker, self.now)
        elif what == "worn":
            self.pool.is_worn(worker, "worn")
        else:
            self.pool.is_leaving(worker, self.now)
        self.decide()

    @rule(what=some.sampled_from(["renew", "more", "fewer"]))
    def is_told(self, what: str) -> None:
        serving = [each for each in self.pool.workers if each.phase is Phase.SERVING]
        if what == "renew":
            self.pool.renew()
        else:
            self.pool.resize(1 if what == "more" else -1)
        self.decide()
        if serving and not self.pool.stopping:  # somebody serves as long as somebody did
            assert any(each.phase is Phase.SERVING for each in self.pool.workers)

    @rule(seconds=some.sampled_from([0.1, 1.0, 2.0, 10.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.decide()

    @rule()
    def time_passes_to_the_next_look(self) -> None:
        look = self.pool.next_look()
        if look is not None:
            self.now = max(self.now, look)
            self.decide()

    @rule()
    def is_stopped(self) -> None:
        self.pool.stop()
        self.decide()

    @invariant()
    def all_places_are_taken_or_will_be(self) -> None:
        counted = {each.place for each in self.pool.workers if each.counts}
        if not self.pool.stopping and len(counted) < self.pool.wanted:
            look = self.pool.next_look()
            assert look is not None or any(each.phase is Phase.STARTING for each in self.pool.workers)

    @invariant()
    def nobody_is_there_twice(self) -> None:
        starting = [each.place for each in self.pool.workers if each.phase is Phase.STARTING]
        assert len(starting) == len(set(starting))


EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "")
Life.TestCase.settings = settings(
    max_examples=int(EXAMPLES or 60),
    stateful_step_count=40,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
)
TestLife = Life.TestCase


# Whose a connection is


@pytest.mark.parametrize(("workers", "taken"), [(1, 3), (2, 1)])
def test_a_worker_takes_one_connection_at_a_time(
    workers: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others wait for the same; whoever is first must not have them all."""
    accepted: list[socket.socket] = []

    async def accepts() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as clients:
            listener.setblocking(False)
            for _ in range(3):
                clients.enter_context(socket.create_connection(listener.getsockname()))
            serving = Serving(Config(print, workers=workers), _Nothing(), [listener])
            monkeypatch.setattr(
                serving, "_begin", lambda connection, data, service: accepted.append(connection)
            )
            serving._accept(listener, cast(Any, None))

    asyncio.run(accepts())
    assert len(accepted) == taken
    for connection in accepted:
        connection.close()


class _Nothing:
    """A gateway that is never asked."""

    websockets = False

    def __init__(self) -> None:
        self.running: set[Any] = set()

    def exchange(self, exchange: Any) -> Any: ...

    def session(self, session: Any) -> Any: ...

    def close(self) -> None: ...


def test_none_is_wanted_until_all_are_renewed() -> None:
    pool = begun(2)
    first, second = pool.workers
    pool.rest()
    assert pool.decide(1.0) == [Retire(first), Retire(second)]
    for worker in (first, second):
        pool.is_gone(worker, 2.0, 0)
    assert pool.decide(2.0) == []
    assert pool.next_look() is None
    pool.rest()  # once more
    pool.renew()
    assert [action.worker.place for action in pool.decide(3.0) if isinstance(action, Start)] == [1, 2]


def test_who_starts_when_none_is_wanted_any_more_is_ended() -> None:
    pool = begun(1)
    pool.resize(1)
    [start] = pool.decide(1.0)
    assert isinstance(start, Start)
    pool.rest()
    assert pool.decide(1.0) == [Retire(pool.workers[0]), Kill(start.worker)]
