"""Where checkpoints are wanted: the word for it that supervisor and children share."""

from __future__ import annotations

Mark = tuple[str, int]
"""A module's path and the number of a statement; -1 for its first."""

END: Mark = ("<end>", 0)
"""Where everything is loaded: what was read by then an edit of what only requests read leaves as it is."""
