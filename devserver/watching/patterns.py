"""Files that patterns name: which of them have changed since the last look. Read by nobody whom we know.

The patterns are those of `--reload-include`, and what is left out by default is left out here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from devserver.watching import watch
from devserver.watching.rules import Rules
from devserver.watching.timeline import Timeline
from devserver.watching.trees import Trees
from devserver.watching.watcher import EVERYTHING, Watcher

logger = logging.getLogger("devserver")


class Patterns:
    """See the module.

    Attributes:
        watcher: gives the hints; its `fileno` and `interval` say when to call `changed`.
    """

    watcher: Watcher

    def __init__(self, patterns: Sequence[str], root: str, *, poll: bool) -> None:
        """
        Args:
            root: the folder, absolute, that patterns with a slash start from.
            poll: look now and then, where the system sends no notifications.
        """
        self._rules = Rules((), tuple(patterns), (), root)
        self.watcher = watch.make(poll, quiet=True)
        self._trees = Trees(self._rules, self.watcher.watch, logger.warning)
        self._timeline = Timeline(self._rules)
        self._expect()

    def _expect(self) -> None:
        for path in self._trees.walk():
            self._timeline.expect(path)

    def changed(self) -> list[str]:
        """The files that have other contents than at the last call, have come or have gone; never waits."""
        hints = self.watcher.hints()
        if hints is EVERYTHING:
            changed = self._timeline.changes(None, self._trees.walk())
        elif hints or self._timeline.suspicious:
            changed = self._timeline.changes(hints, self._trees.explore(hints))
        else:
            return []
        if changed:  # what they are now is what the next change is held against
            self._timeline = Timeline(self._rules, self._timeline)
            self._expect()
        return changed

    def close(self) -> None:
        """Stop watching."""
        self.watcher.close()
