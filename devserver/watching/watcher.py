"""Watchers: they hint at paths that may have changed.

A hint is not a change: whoever asked compares the contents and decides. So a watcher may hint too
much, never too little; what it cannot tell apart it hints as `EVERYTHING`. What happened before
`watch` returned is not hinted: watch first, then look.

Folders are watched, never single files: editors save by putting another file in place. A watcher refuses to
know which paths matter and what a change leads to. It belongs to the process that made it, and is used under
its caller's lock: `hints` never blocks.
"""

import enum
from typing import Final, Protocol


class Everything(enum.Enum):
    """The type of `EVERYTHING`."""

    EVERYTHING = "everything"


EVERYTHING: Final = Everything.EVERYTHING
"""In place of hints: something was lost, so look at all."""

Hints = set[str] | Everything


class Watcher(Protocol):
    """What every backend does.

    Attributes:
        name: of the backend, for the banner.
    """

    name: str

    @property
    def interval(self) -> float | None:
        """Seconds after which `hints` should be called though `fileno` is silent; None: no need."""
        ...

    def watch(self, path: str) -> None:
        """Watch the absolute `path`: a file, a folder (also the names in it), or nothing yet.

        Cheap when repeated. What may not be read is left out in silence.
        """
        ...

    def forget(self) -> None:
        """Drop every path; the watcher and its descriptor stay."""
        ...

    def fileno(self) -> int | None:
        """Give a descriptor that is readable when hints may wait, or None."""
        ...

    def quiet(self) -> bool:
        """Say whether `hints` has nothing to give. To be asked often: cheap, and needs no lock."""
        ...

    def hints(self) -> Hints:
        """Give the paths touched since the last call, as `watch` was told to spell them.

        A path still being written is given when it has been closed, or 100 ms later.
        """
        ...

    def close(self) -> None:
        """Give everything back. May be called twice."""
        ...
