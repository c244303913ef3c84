"""Which paths are the project's, and which modules the user's.

User modules count wherever they are, also beside the project (an editable install); data counts
below the project's folders only. Neither counts inside the standard library, an environment's
packages, or devserver. What a folder above the project is called says nothing. A package that is
installed as a symbolic link to where somebody works on it is the user's; a link into the cache of a
package manager (uv's and PDM's way to save space) is not.

Asked at every `open` of the application, so the answer for a path elsewhere comes first.
"""

from __future__ import annotations

import os
import site
import stat
import sys
import sysconfig
from collections.abc import Iterable
from typing import Any

_isfile = os.path.isfile  # an application may replace them

_PACKAGES = ("site-packages", "dist-packages")
_CACHES = (".cache", "Cache", "Caches")
"""How folders are called that hold caches, on Linux, Windows and macOS."""

MOST_LINKS = 40
"""Links that lead to links, as many as Linux follows."""

_lstat, _readlink = os.lstat, os.readlink  # before anybody wraps them

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


def linked_top(path: str) -> str | None:
    """The symbolic link among installed packages that a path is, or lies below; None without one."""
    path = path.rstrip(os.sep)
    while any(name in path for name in _PACKAGES) and not path.endswith(_PACKAGES):
        if _is_link(path):
            return path
        path = os.path.dirname(path)
    return None


def _target(link: str) -> str:
    """Where a link leads, through others. Not `realpath`, which asks what asks here."""
    for _ in range(MOST_LINKS):
        if not _is_link(link):
            break
        link = os.path.normpath(os.path.join(os.path.dirname(link), _readlink(link)))
    return link


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(_lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _is_in_a_cache(path: str) -> bool:
    """Whether a path lies in a cache: by its name, or by the tag of https://bford.info/cachedir/."""
    while path != (path := os.path.dirname(path)):
        if os.path.basename(path) in _CACHES or _isfile(os.path.join(path, "CACHEDIR.TAG")):
            return True
    return False


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
        if not known:  # a module of one file
            return folder.endswith(_PACKAGES) and self._leads_out(path)
        # A folder that begins a library: the question is about itself, then.
        return path.rpartition(os.sep)[2] not in self._begins or self._is_users(os.path.join(path, ""))

    def _is_users(self, folder: str) -> bool:
        return not self._is_in_a_library(folder) or self._leads_out(folder)

    def _is_in_a_library(self, folder: str) -> bool:
        if folder.startswith(self._libraries):
            return True
        root = max((root for root in self._roots if folder.startswith(root)), key=len, default="")
        inside = folder[len(root) :]
        return any(name in inside for name in _PACKAGES)

    def _leads_out(self, path: str) -> bool:
        """Whether what is installed is a link to where the user works."""
        top = linked_top(path)
        if top is None:
            return False
        real = _target(top)
        return not self._is_in_a_library(os.path.join(real, "")) and not _is_in_a_cache(real)

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
