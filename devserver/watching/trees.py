"""Folders in which files count without being read: what is in them, and what is new there.

Knows neither what was read nor what follows from a change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from devserver.watching import watch
from devserver.watching.answers import folder_at
from devserver.watching.rules import Rules


class Trees:
    """See the module."""

    def __init__(self, rules: Rules, watching: Callable[[str], None], warn: Callable[[str], None]) -> None:
        """
        Args:
            rules: say where such files may be, and which of them count.
            watching: has a path watched.
            warn: told if there is more than can be watched.
        """
        self._rules = rules
        self._watch = watching
        self._warn = warn
        self._walked: dict[str, tuple[int, int]] = {}
        self.ask()

    def ask(self) -> None:
        """Ask the rules anew where to look."""
        self._tops = tuple(self._rules.trees())

    def walk(self, top: str | None = None) -> list[str]:
        """Have all be watched that counts. Returns the files.

        Args:
            top: begin at this folder only.
        """
        files = []
        for path in watch.walk(self._rules, top, self._warn):
            self._watch(path)
            folder = folder_at(path)
            if folder is None:
                files.append(path)
            else:
                self._walked[path] = folder
        return files

    def explore(self, hints: Iterable[str]) -> list[str]:
        """Have the folders among the hints be watched that are new. Returns the files in them."""
        found: list[str] = []
        for hint in hints if self._tops else ():
            folder = folder_at(hint)
            if folder not in (None, self._walked.get(hint)) and self._is_inside(hint):
                found += self.walk(hint)
        return found

    def _is_inside(self, folder: str) -> bool:
        inside = any(folder == top or folder.startswith(os.path.join(top, "")) for top in self._tops)
        return inside and not self._rules.closed(folder)
