"""Requests that have not begun, and what has arrived of them."""

from __future__ import annotations

from collections.abc import Callable

from devserver.http.h2.events import SMALL, Arrived, Piece


class Held:
    """It is a `service.Held`.

    Attributes:
        events: its head, and parts of its body.
        size: bytes of its body that have arrived.
    """

    def __init__(self, first: Arrived, begin: Callable[[Held], None]) -> None:
        """Args: begin: begins it."""
        self.events: list[Arrived | Piece] = [first]
        self.size = 0
        self._begin = begin

    @property
    def stream(self) -> int:
        """The number of its stream."""
        return self.events[0].stream

    def add(self, piece: Piece) -> None:
        """A part of its body has arrived."""
        last = self.events[-1]
        if isinstance(last, Piece) and len(last.data) + len(piece.data) <= SMALL:
            last.data += piece.data
            last.ended = piece.ended
        else:
            self.events.append(piece)
        self.size += len(piece.data)

    def release(self) -> None:
        """See `service.Held`."""
        self._begin(self)


class Holding(dict[int, Held]):
    """Those of a connection, by the numbers of their streams."""

    @property
    def size(self) -> int:
        """Bytes of their bodies."""
        return sum(held.size for held in self.values())

    def drop(self, stream: int) -> int:
        """Hold one no more, if it was held. Returns the bytes of its body."""
        held = self.pop(stream, None)
        return 0 if held is None else held.size

    def events(self) -> dict[int, list[Arrived | Piece]]:
        """What has arrived of each."""
        return {stream: held.events for stream, held in self.items()}
