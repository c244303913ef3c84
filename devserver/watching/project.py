"""Which paths are the project's, and which modules the user's.

User modules count wherever they are, also beside the project (an editable install); data counts
below the project's folders only. Neither counts inside the standard library, an environment's
packages, or devserver. What a folder above the project is called says nothing.

Asked at every `open` of the application, so the answer for a path elsewhere comes first.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from typing import Any

_PACKAGES = ("site-packages", "dist-packages")
# An absolute path that begins otherwise is elsewhere, unless it climbs. Drives and cases are for Windows.
_QUICK = os.sep == "/"


def library_folders() -> tuple[str, ...]:
    """Folders whose files are not the user's, each with a slash at its end.

    Not an environment as a whole: a project may live in one (its root is then `sys.prefix`).
    """
    found = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib", "scripts", "include")
    paths = {found.get(name, "") for name in names}
    paths.update(getattr(site, "getsitepackages", list)())
    if site.ENABLE_USER_SITE:
        paths.add(site.getusersitepackages())
    paths.update(path for path in sys.path if _is_archive_of_python(path))
    paths.add(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    every = {form for path in paths if path for form in (path, os.path.realpath(path))}
    return tuple(os.path.join(path, "") for path in sorted(every))


def _is_archive_of_python(path: Any) -> bool:
    """Whether an entry of `sys.path` is the standard library in an archive (`lib/python311.zip`)."""
    prefixes = (sys.base_prefix, sys.base_exec_prefix)
    return isinstance(path, str) and path.endswith(".zip") and path.startswith(prefixes)


class Project:
    """See the module."""

    def __init__(self, roots: Iterable[str]) -> None:
        """Args: roots: folders of the project."""
        self._libraries = library_folders()
        self._begins = {os.path.basename(path.rstrip(os.sep)) for path in self._libraries} | set(_PACKAGES)
        self._roots: tuple[str, ...] = ()
        self._tops: tuple[str, ...] = ()
        self._known: dict[str, bool] = {}
        for root in roots:
            self.add_root(root)

    def add_root(self, folder: str) -> None:
        """Count data below another folder, too."""
        top = os.path.abspath(folder)
        if top not in self._tops:
            self._known.clear()
            self._tops += (top,)
            self._roots += (os.path.join(top, ""),)

    def is_users(self, path: str) -> bool:
        """Whether a module's file or folder, given by its absolute path, is the user's."""
        folder = path.rpartition(os.sep)[0]
        known = self._known.get(folder)
        if known is None:
            known = self._known[folder] = self._is_users(os.path.join(folder, ""))
        # A folder that begins a library: the question is about itself, then.
        return known and (
            path.rpartition(os.sep)[2] not in self._begins or self._is_users(os.path.join(path, ""))
        )

    def _is_users(self, folder: str) -> bool:
        if folder.startswith(self._libraries):
            return False
        root = max((root for root in self._roots if folder.startswith(root)), key=len, default="")
        inside = folder[len(root) :]
        return not any(name in inside for name in _PACKAGES)

    def holds(self, path: str) -> bool:
        """Whether the absolute path of a file or folder belongs to the project."""
        return (path.startswith(self._roots) or path in self._tops) and self.is_users(path)

    def place(self, path: Any) -> str | None:
        """The absolute path of what a program names, if it belongs to the project.

        Args:
            path: whatever is taken for a path; a descriptor belongs to nothing.
        """
        if type(path) is not str:
            if isinstance(path, int) or path is None:
                return None
            try:
                path = os.fsdecode(path)
            except TypeError:
                return None  # the function that gets it will say so
        if _QUICK and path[:1] == "/" and not path.startswith(self._roots) and ".." not in path:
            return path if path in self._tops and self.is_users(path) else None
        try:
            path = os.path.abspath(path)
        except OSError:
            return None  # relative to a working directory that is gone
        return path if self.holds(path) else None
