"""Connections between two generations: none is lost, and those come first that somebody waits for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from devserver.process.control import MAX_FDS, Channel, pack, unpack
from devserver.reload import protocol
from devserver.reload.child import Child
from devserver.reload.transit import Transit


class Receiver:
    """A child that serves, as far as transit goes: what is told goes through a channel."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        self.channel = Channel(theirs)
        self._channel = Channel(self._ours)

    def tell(self, word: protocol.Told, fds: list[int]) -> bool:
        self._channel.send(protocol.encode(word), fds)
        return True

    def close(self) -> None:
        self.channel.close()
        self._channel.close()

    def takes(self) -> list[bytes]:
        """What belongs to each connection of the next message."""
        message, fds = self.channel.receive_one()
        for fd in fds:
            os.close(fd)
        word = protocol.said(message)
        assert isinstance(word, protocol.Connections)
        return [data for _, data in unpack(word.sizes, word.data, fds)]


@pytest.fixture
def transit() -> Iterator[Transit]:
    made = Transit()
    yield made
    made.close()


def arrive(transit: Transit, *data: bytes) -> None:
    transit.take([(os.open(os.devnull, os.O_RDONLY), each) for each in data])


Receivers = Callable[[], tuple[Receiver, Child]]


@pytest.fixture
def receiver() -> Iterator[Receivers]:
    made = []

    def make() -> tuple[Receiver, Child]:
        made.append(Receiver())
        return made[-1], cast("Child", made[-1])

    yield make
    for each in made:
        each.close()


def test_those_of_which_something_was_read_come_first(transit: Transit, receiver: Receivers) -> None:
    arrive(transit, b"", b"GET /1", b"", b"GET /2")
    child, spawned = receiver()
    transit.pass_on(spawned)
    assert child.takes() == [b"GET /1", b"GET /2", b"", b""]
    assert len(transit) == 0


def test_a_receiver_is_given_more_when_it_has_what_it_was_given(
    transit: Transit, receiver: Receivers
) -> None:
    arrive(transit, *[b""] * (MAX_FDS + 1))
    child, spawned = receiver()
    transit.pass_on(spawned)
    arrive(transit, b"GET /")
    transit.pass_on(spawned)
    assert child.takes() == [b""] * MAX_FDS
    assert not child.channel.wait(0)
    transit.received(spawned)
    transit.pass_on(spawned)
    assert child.takes() == [b"GET /", b""]


def test_what_a_receiver_did_not_take_goes_to_the_next_in_order(
    transit: Transit, receiver: Receivers
) -> None:
    arrive(transit, b"1", b"2", b"")
    (_, gone), (child, spawned) = receiver(), receiver()
    transit.pass_on(gone)
    arrive(transit, b"3")
    transit.lost(gone)
    transit.pass_on(spawned)
    assert child.takes() == [b"1", b"2", b"3", b""]


def test_a_receiver_is_given_no_more_than_its_share(transit: Transit, receiver: Receivers) -> None:
    arrive(transit, b"1", b"2", b"", b"")
    (child, spawned), (other, one_more) = receiver(), receiver()
    transit.pass_on(spawned, 2)
    transit.pass_on(one_more)
    assert child.takes() == [b"1", b"2"]
    assert other.takes() == [b"", b""]


@pytest.mark.parametrize("count", [0, 1, MAX_FDS, MAX_FDS + 1])
def test_packing_loses_nothing(count: int) -> None:
    connections = [(number, b"x" * (number % 3)) for number in range(count)]
    found = []
    for fds, sizes, data in pack(connections):
        assert len(fds) <= MAX_FDS
        found += unpack(sizes, data, fds)
    assert found == connections
