"""How often something was refused, so that a flood of it is not a flood of lines in the log.

The first ones have a line each. After them only the hundredth, the thousandth and so on have one, with the
count. Who has been quiet for a while begins anew.

Pure: time is an argument. Refuses to know what is refused, and how it is said.
"""

_EACH = 10
"""As many have a line of their own."""

_QUIET = 60.0
"""Seconds without another, after which counting begins anew."""


class Repeats:
    """See the module."""

    def __init__(self) -> None:
        self._counts: dict[object, tuple[int, float]] = {}

    def another(self, kind: object, now: float) -> str | None:
        """Count one more. Returns what its line ends with, None if it is to have no line.

        Args:
            kind: what is counted apart. There must be few of them.
            now: on a clock in seconds that only goes forward.
        """
        count, last = self._counts.get(kind, (0, now))
        count = count + 1 if now - last < _QUIET else 1
        self._counts[kind] = count, now
        if count < _EACH:
            return ""
        if count == _EACH:
            return "; more like it are only counted"
        return f"; {count} like it" if str(count).rstrip("0") == "1" else None
