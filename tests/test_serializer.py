from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from devserver.process.serializer import Serializer
from tests.patience import DEADLINE

pytestmark = pytest.mark.interpreter


def in_thread(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def owned(turns: Serializer[int]) -> tuple[threading.Thread, threading.Event]:
    """A thread that has it for its own by now, until the event is set."""
    begun, go_on = threading.Event(), threading.Event()

    def own() -> None:
        with turns.own():
            begun.set()
            assert go_on.wait(DEADLINE)

    thread = in_thread(own)
    assert begun.wait(DEADLINE)
    return thread, go_on


def test_what_interrupts_itself_is_taken_after_what_it_interrupted() -> None:
    taken: list[str] = []

    def take(item: str) -> None:
        if item == "outer":
            given.give("inner")  # as a finalizer would, or a signal's handler
            assert given.busy
        taken.append(item)

    given = Serializer(take)
    given.give("outer")
    assert taken == ["outer", "inner"]
    assert not given.busy


def test_nothing_is_taken_while_somebody_has_it_for_his_own() -> None:
    taken: list[int] = []
    given = Serializer(taken.append)
    with given.own() as mine:
        given.give(1)
        with given.own() as again:
            given.give(2)
        assert (mine, again, taken) == (True, False, [])
    assert taken == [1, 2]


def test_another_thread_waits_for_its_turn() -> None:
    taken: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def take(item: int) -> None:
        begun.set()
        assert go_on.wait(DEADLINE)
        taken.append(item)

    given = Serializer(take)
    first = in_thread(lambda: given.give(1))
    assert begun.wait(DEADLINE)
    second = in_thread(lambda: given.give(2))
    go_on.set()
    for thread in (first, second):
        thread.join(DEADLINE)
    assert taken == [1, 2]


def test_two_that_wait_for_each_other_go_on() -> None:
    """Each interrupts itself amid what the other one wants to do next."""
    taken: list[str] = []
    both = threading.Barrier(2)

    def take(of: str, other: list[Serializer[str]]) -> Callable[[str], None]:
        def take(item: str) -> None:
            if item == "outer":
                both.wait(DEADLINE)
                other[0].give(f"inner, of {of}")
            taken.append(item)

        return take

    first = Serializer(take("first", others := []))
    second = Serializer(take("second", [first]))
    others.append(second)
    threads = [in_thread(lambda each=each: each.give("outer")) for each in (first, second)]  # type: ignore[misc]
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert sorted(taken) == ["inner, of first", "inner, of second", "outer", "outer"]


def test_what_was_left_to_another_is_not_forgotten() -> None:
    """Whoever could not wait has gone; who was at it looks again when the lock is given back."""
    taken: list[int] = []
    given = Serializer(taken.append)
    thread, go_on = owned(given)
    given.give(1)  # not for longer than its patience
    assert taken == []
    go_on.set()
    thread.join(DEADLINE)
    assert taken == [1]


def test_what_is_given_for_now_comes_after_what_was_left_and_not_later() -> None:
    taken: list[int] = []
    given = Serializer(taken.append)
    first, go_on = owned(given)
    given.give(1)

    def give_and_go_on() -> None:
        given.give_now(2)
        taken.append(3)

    second = in_thread(give_and_go_on)
    go_on.set()
    for thread in (first, second):
        thread.join(DEADLINE)
    assert taken == [1, 2, 3]


def test_a_failure_leaves_it_usable() -> None:
    taken: list[int] = []

    def take(item: int) -> None:
        if not item:
            raise KeyboardInterrupt
        taken.append(item)

    given = Serializer(take)
    try:
        given.give(0)
    except KeyboardInterrupt:
        given.give(1)
    assert (taken, given.busy) == ([1], False)
