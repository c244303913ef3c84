"""What all workers have to do, as each of them knows it."""

from __future__ import annotations

import os

import pytest

from devserver.http.tally import CONNECTIONS, HANDLERS, SLOTS, Counted, Share, Tally


def test_a_set_tells_the_others_its_size() -> None:
    tally = Tally()
    mine, theirs = Share(tally, tally.claim()), Share(tally, tally.claim())
    connections, handlers = Counted(mine, CONNECTIONS), Counted(mine, HANDLERS)
    for item in ("a", "b", "b"):
        connections.add(item)
    handlers.add("a")
    connections.discard("a")
    connections.discard("a")
    assert (theirs.others(CONNECTIONS), theirs.others(HANDLERS)) == (1, 1)
    assert (mine.others(CONNECTIONS), mine.others(HANDLERS)) == (0, 0)


def test_what_a_process_had_goes_with_it() -> None:
    tally = Tally()
    slot, other = tally.claim(), tally.claim()
    tally.write(slot, HANDLERS, 7)
    assert tally.others(other, HANDLERS) == 7
    tally.release(slot)
    tally.release(slot)
    assert tally.others(other, HANDLERS) == 0
    assert tally.claim() == slot
    assert tally.claim() != slot


def test_more_processes_than_slots_are_served_all_the_same() -> None:
    tally = Tally()
    slots = [tally.claim() for _ in range(SLOTS + 2)]
    assert slots[-2:] == [SLOTS - 1, SLOTS - 1]
    assert len(set(slots)) == SLOTS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_processes_share_it() -> None:
    tally = Tally()
    slot = tally.claim()
    if not (pid := os.fork()):
        tally.write(slot, HANDLERS, 3)
        os._exit(0)
    os.waitpid(pid, 0)
    assert tally.others(tally.claim(), HANDLERS) == 3
