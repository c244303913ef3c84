"""Which watcher this system has, and which folders it must watch though nothing in them was read.

On Linux the watcher is in `inotify`, elsewhere in `watchfiles_backend`, or in `polling` where neither can be.
No backend is loaded but the chosen one.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator

from devserver.watching.polling import Polling
from devserver.watching.rules import Counts, Rules
from devserver.watching.watcher import Watcher

MAX_FOLDERS = 20_000
"""Folders that `walk` gives at most: beyond, the system's limits are near and the rules are wrong."""

log = logging.getLogger("devserver")


def make(poll: bool = False, quiet: bool = False) -> Watcher:
    """Choose the backend: polling if `poll`, else the best that this system has.

    Args:
        quiet: another process watches the same, and has said what cannot be watched.
    """
    if not poll:
        if sys.platform == "linux":
            from devserver.watching.inotify import Inotify

            try:
                return Inotify(quiet=quiet)
            except OSError as error:
                level = logging.DEBUG if quiet else logging.WARNING
                log.log(level, "inotify cannot be used (%s): polling instead", error.strerror)
        else:
            from devserver.watching.watchfiles_backend import Watchfiles

            try:
                return Watchfiles()
            except ImportError:
                pass  # optional: there is none for PyPy
    return Polling()


def walk(rules: Rules, top: str | None = None, warn: Callable[[str], None] = log.warning) -> Iterator[str]:
    """Yield what must be watched because of rules by which a change counts, read or not.

    Each folder comes before the files in it that count. Linked folders are entered, once.

    Args:
        rules: say where to begin, what counts and what is left out; learn of virtual environments.
        top: begin here only (a folder that has appeared).
        warn: told if there is more than can be watched.
    """
    todo = [top] if top is not None else rules.trees()
    begun = frozenset(todo)
    entered: set[tuple[int, int]] = set()
    while todo:
        folder = todo.pop()
        yield folder
        found = _entries(folder, entered)
        if "pyvenv.cfg" in found and folder not in begun:
            rules.add_environment(folder)
            continue
        for name, inside in found.items():
            path = os.path.join(folder, name)
            if inside and not rules.closed(path):
                todo.append(path)
            elif not inside and rules.verdict(path).kind is Counts.ALWAYS:
                yield path
        if len(entered) > MAX_FOLDERS:
            warn(
                f"more than {MAX_FOLDERS} folders to watch below {', '.join(sorted(begun))}: "
                "the rest is not watched; leave some out with --reload-exclude"
            )
            return


def _entries(folder: str, entered: set[tuple[int, int]]) -> dict[str, bool]:
    """List `folder` unless it was entered before: names, and whether each is a folder."""
    try:
        found = os.stat(folder)
        if (found.st_dev, found.st_ino) in entered:
            return {}
        entered.add((found.st_dev, found.st_ino))
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_dir() for entry in entries}
    except OSError:
        return {}
