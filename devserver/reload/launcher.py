"""How a child comes to be: the seam between the supervisor and what knows how to start one.

There are two: `devserver.cold.Cold` starts each child from nothing, `devserver.warm.launcher.Warm` also has
them go on from checkpoints. The supervisor does not know which of them it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from devserver.config import Config
from devserver.process.control import Message
from devserver.reload import protocol
from devserver.reload.child import Child
from devserver.reload.children import Children
from devserver.watching.watchset import WatchSet


@dataclass(frozen=True, slots=True)
class Place:
    """Where a child that goes on from a checkpoint begins.

    Attributes:
        seq: of what it will read next.
        path, line: the statement that it executes next; "" and 0 if it is outside of any module.
        is_first: nothing of the user's has been executed there.
    """

    seq: int
    path: str
    line: int
    is_first: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """How a load has begun.

    Attributes:
        child: who loads.
        place: where it goes on; None if it begins from nothing.
        obstacle: why it begins from nothing, if there were checkpoints; else "".
    """

    child: Child
    place: Place | None = None
    obstacle: str = ""


class Launcher(Protocol):
    """See the module. Everything is called in the supervisor's thread."""

    def launch(self, generation: int, before: Config, config: Config) -> Begun:
        """Have a child load the application, and the watch set begin anew with what it has read already.

        Args:
            generation: the number of this load.
            before: the options of the last load.
            config: the options of this one.

        Raises:
            OSError: no process can be started.
        """
        ...

    def join(self, generation: int, config: Config, place: int) -> Child:
        """Have one more child come to where the current one of this generation has come by loading.

        Args:
            config: the options of that load.
            place: which of several workers it is to be, from 2.

        Raises:
            OSError: no process can be started.
        """
        ...

    def show(self, config: Config, generation: int, failure: Message) -> Child:
        """Have a child show why nothing is served.

        Raises:
            OSError: no process can be started.
        """
        ...

    def changed(self, paths: Iterable[str], *, handled: bool = False) -> None:
        """Files have changed that matter; or the application has dealt with their change."""
        ...

    def heard(self, child: Child, word: protocol.Said, fds: list[int]) -> bool:
        """Note what a child has said about its load. Returns whether that is news for the terminal.

        Args:
            fds: descriptors that came with it.
        """
        ...

    def distrust(self, why: str) -> None:
        """The next load begins from nothing."""
        ...

    def rest(self, *, serves: bool) -> tuple[int, int] | None:
        """Do what had to wait until the first requests were answered: make the next load fast.

        Returns how many checkpoints there are and their bytes, if that is known.

        Args:
            serves: the application is served; else a page is.
        """
        ...

    def gone(self, child: Child) -> None:
        """The process of a child has ended."""
        ...

    def unheard(self) -> set[int]:
        """The process ids of those that are kept for later and that `Children` does not know."""
        ...

    def close(self) -> None:
        """End what is kept for later."""
        ...


MakeLauncher = Callable[[Children, WatchSet], Launcher]
