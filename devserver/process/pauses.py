"""How long a pause is before what has died is started again: the longer, the more deaths there are in a row.

No processes, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence


class Pauses:
    """See the module."""

    def __init__(self, seconds: Sequence[float], proven: float) -> None:
        """
        Args:
            seconds: of the pause after the first death in a row, after the second, and so on; the last one
                stays.
            proven: seconds of work that end a row.
        """
        self._seconds = seconds
        self._proven = proven
        self._deaths = 0

    def worked(self, seconds: float) -> None:
        """Whoever has died, or is about to be ended for standing still, had worked for so many seconds."""
        if seconds >= self._proven:
            self._deaths = 0

    def after_death(self) -> float:
        """Seconds until the next beginning; to be asked once for each death."""
        pause = self._seconds[min(self._deaths, len(self._seconds) - 1)]
        self._deaths += 1
        return pause

    def forget(self) -> None:
        """What made it die may be mended: the row is over."""
        self._deaths = 0
