"""A request that has not begun, and what has arrived of it."""

from __future__ import annotations

from collections.abc import Callable

from devserver.http.h2.events import Arrived, Piece


class Held:
    """It is a `service.Held`. Attributes: events: its head, and parts of its body."""

    def __init__(self, first: Arrived, begin: Callable[[Held], None]) -> None:
        """Args: begin: begins it."""
        self.events: list[Arrived | Piece] = [first]
        self._begin = begin

    @property
    def stream(self) -> int:
        """The number of its stream."""
        return self.events[0].stream

    @property
    def size(self) -> int:
        """Bytes of its body that have arrived."""
        return sum(len(event.data) for event in self.events if isinstance(event, Piece))

    def release(self) -> None:
        """See `service.Held`."""
        self._begin(self)
