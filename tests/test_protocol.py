"""Each word between supervisor and child comes out of a channel as it went in."""

from __future__ import annotations

import socket
from typing import Any, get_args

import pytest

from devserver.process.control import Channel
from devserver.reload import protocol
from devserver.reload.protocol import Said, Told, Word, encode, said, told

VALUES: dict[str, Any] = {
    "int": 7, "str": "a\udcff", "bool": True, "float": 0.5, "bytes": b"\0data",
    "list[str]": ["a"], "list[int]": [1],
    "list[Any]": [{"a": None}], "dict[str, Any]": {"a": [1]}, "dict[str, Any] | None": {"a": [1]},
    "Mark": ["a.py", -1], "Mark | None": None, "Sequence[Mark]": [["a.py", 1]], "list[Mark]": [],
    "list[tuple[str, int]]": [["a.py", 1]], "tuple[str, int] | None": ["a.py", 3],
}  # fmt: skip
"""A value for each type of a field, as JSON gives it back."""

WORDS = Word.__subclasses__()


@pytest.mark.parametrize("kind", WORDS, ids=lambda kind: kind.__name__)
def test_a_word_comes_out_as_it_went_in(kind: type[Any]) -> None:
    word = kind(**{name: VALUES[kind.__annotations__[name]] for name in kind.fields})
    here, there = (Channel(end) for end in socket.socketpair())
    try:
        here.send(encode(word))
        message, _ = there.receive_one()
    finally:
        here.close()
        there.close()
    for decode, words in ((said, Said), (told, Told)):
        if kind in get_args(words):
            again: Any = decode(message)
            assert type(again) is kind
            assert [getattr(again, name) for name in kind.fields] == [
                getattr(word, name) for name in kind.fields
            ]


def test_every_word_is_said_or_told() -> None:
    assert {*get_args(Said), *get_args(Told)} == {*WORDS}
    assert {*get_args(Said)} & {*get_args(Told)} == {protocol.Connections}


def test_a_word_has_defaults_and_what_else_is_in_its_message_is_left_alone() -> None:
    boot = told({**encode(protocol.Boot({"a": 1}, warm=True)), "crash": True, "sockets": ["of Windows"]})
    assert isinstance(boot, protocol.Boot)
    assert (boot.config, boot.role, boot.warm, boot.crash, boot.failure) == (
        {"a": 1},
        "app",
        True,
        True,
        None,
    )
