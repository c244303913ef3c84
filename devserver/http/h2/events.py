"""What a client's frames mean (`intake`). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from devserver.http.exchange import Headers
from devserver.http.framing import Framing, Refused

SMALL = 4096
"""Bytes up to which parts of a body that waits are put together.

The window counts bytes, and so many objects of one byte would take fifty times as much.
"""


@dataclass(slots=True)
class Arrived:
    """The head of a request.

    Attributes:
        said: what it says, or why it is refused.
        ended: nothing follows.
        is_head: its method is HEAD.
    """

    stream: int
    said: tuple[Framing, Headers] | Refused
    ended: bool
    is_head: bool


@dataclass(slots=True)
class Piece:
    """A part of a body. Attributes: ended: it is the last."""

    stream: int
    data: bytes
    ended: bool


@dataclass(slots=True)
class Ended:
    """A stream is over before its time. Attributes: reason: the client's fault; "" if it wants no more."""

    stream: int
    reason: str = ""


@dataclass(slots=True)
class Room:
    """There may be more room to send. Attributes: stream: on which; 0: on any."""

    stream: int


@dataclass(slots=True)
class Gone:
    """The client is about to leave."""


@dataclass(slots=True)
class Failed:
    """The connection is over, and the client is told so."""

    reason: str


Event = Arrived | Piece | Ended | Room | Gone | Failed
