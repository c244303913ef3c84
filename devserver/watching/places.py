"""Where to listen so that nothing asked for is missed, and what an event there means to the asker.

Systems report names inside *real* folders (no link in their path). A caller asks for paths as it
spells them: through links, or not there yet. `Places` keeps both sides. For each folder that
matters, and for each link, it walks the path name by name; the result is a `Trail`: the real
folders to listen in, the names that would bend the trail, and where it ends now. A trail is
walked anew when one of its names or folders changes. So a link is edited by either name, and a
path that does not exist is waited for in its nearest existing ancestor.

Files are not walked one by one: a plain file is known by its folder. A file with two hard links is
two files here: editing one name says nothing of the other.

This module refuses to know any source of events. It asks the file system, but never opens a file.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from devserver.watching.rules import passing

_listdir = os.listdir  # an application may replace them

MAX_LINKS = 40
"""Links followed in one path before it counts as missing; Linux gives up (ELOOP) there too."""


class Trail(NamedTuple):
    """How a path is reached at this moment.

    Attributes:
        folders: real folders whose names decide: each that holds a link of the path, and the last
            one that exists.
        names: real paths that bend the trail when they appear, go, or are replaced: the links, and
            the end if it is no folder.
        end: the real folder that the path is; None when it is a file, or nothing yet.
        inode: of `end`, so that another folder put in its place makes another trail; else 0.
    """

    folders: tuple[str, ...]
    names: tuple[str, ...]
    end: str | None
    inode: int


def walk_trail(path: str) -> Trail:
    """Walk the absolute `path` from the root, link by link, as far as it exists."""
    here, todo = _split(path)
    folders, names, links, inode = [], [], 0, 0
    while todo:
        name = todo.pop()
        if name == os.pardir:
            here = os.path.dirname(here)
            continue
        step = os.path.join(here, name)
        mode, inode = _mode(step)
        if stat.S_ISDIR(mode):
            here = step
            continue
        folders.append(here)
        names.append(step)
        links += 1
        target = _target(step) if stat.S_ISLNK(mode) and links <= MAX_LINKS else None
        if target is None:
            return Trail(tuple(folders), tuple(names), None, 0)
        root, more = _split(target)
        here = root or here
        todo += more
    return Trail((*folders, here), tuple(names), here, inode)


def _split(path: str) -> tuple[str, list[str]]:
    """Give the root of `path` ("" for a relative one) and its names, the last one first."""
    drive, rest = os.path.splitdrive(path)
    root = drive + os.sep if rest.startswith(os.sep) else ""
    return root, [name for name in reversed(rest.split(os.sep)) if name not in ("", os.curdir)]


def _mode(path: str) -> tuple[int, int]:
    """Give mode and inode of `path` itself; zeros when it is not there or cannot be asked for."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):  # ValueError: a NUL, or a name that cannot be encoded
        return 0, 0
    return found.st_mode, found.st_ino


def _target(link: str) -> str | None:
    try:
        return os.readlink(link)
    except OSError:
        return None  # gone since it was asked for: missing


def ancestors(folder: str) -> Iterator[str]:
    """Yield `folder` and every folder above it, the root last."""
    yield folder
    while (above := os.path.dirname(folder)) != folder:
        folder = above
        yield folder


def beneath(paths: Iterable[str], tops: set[str]) -> Iterator[str]:
    """Yield those of `paths` that are one of `tops` or lie below one."""
    known: dict[str, bool] = {}
    for path in paths:
        seen = []
        inside = False
        for folder in ancestors(path):
            inside = known.get(folder, folder in tops)
            if inside or folder in known:
                break
            seen.append(folder)
        known.update(dict.fromkeys(seen, inside))
        if inside:
            yield path


class Places:
    """What was asked for, and the trails that lead there.

    A *key* is a path as the caller spells it whose trail is kept: the folder of an asked file, an
    asked folder, an asked link.

    Attributes:
        trails: the trail of each key, as it was when last followed.
    """

    def __init__(self) -> None:
        self.trails: dict[str, Trail] = {}
        self._known: set[str] = set()
        self._asked: dict[str, set[str]] = {}  # folder, as spelled: asked paths directly inside
        self._spelled: dict[str, set[str]] = {}  # real folder: the keys that end there
        self._bends: dict[str, set[str]] = {}  # real path: the keys with that name on their trail

    def __contains__(self, path: str) -> bool:
        return path in self._known

    def ask(self, path: str) -> list[str]:
        """Note that `path` matters; give the keys that must be followed because of it."""
        if path in self._known:
            return []
        self._known.add(path)
        self._asked.setdefault(os.path.dirname(path), set()).add(path)
        return self.unfollowed(path)

    def keys(self, path: str) -> list[str]:
        """Give the keys that stand for `path` as it is now: itself, its folder, or both."""
        mode, _ = _mode(path)
        if stat.S_ISDIR(mode):
            return [path]
        folder = os.path.dirname(path)
        return [folder, path] if stat.S_ISLNK(mode) else [folder]

    def unfollowed(self, path: str) -> list[str]:
        """Give those keys of `path` that have no trail yet."""
        return [key for key in self.keys(path) if key not in self.trails]

    def follow(self, key: str) -> Trail:
        """Walk the trail of `key`, keep it and give it."""
        old, new = self.trails.get(key), walk_trail(key)
        if new != old:
            if old is not None:
                self._index(key, old, add=False)
            self._index(key, new, add=True)
            self.trails[key] = new
        return new

    def _index(self, key: str, trail: Trail, *, add: bool) -> None:
        pairs = [(self._bends, name) for name in trail.names]
        if trail.end is not None:
            pairs.append((self._spelled, trail.end))
        for table, path in pairs:
            if add:
                table.setdefault(path, set()).add(key)
            else:
                table[path].discard(key)

    def spell(self, folder: str, name: str, *, listing: bool = False) -> set[str]:
        """Say `name` in the real `folder` in the caller's words; empty if it concerns nobody.

        With `listing` the folder's list of names has changed: that concerns whoever asked for the
        folder, whose spellings are given too unless the name is one that comes and goes by itself.
        """
        found = set(self._bends.get(os.path.join(folder, name), ()))
        for key in self._spelled.get(folder, ()):
            path = os.path.join(key, name)
            if path in self._known:
                found.add(path)
            if listing and key in self._known:
                found.update((path,) if passing(name) else (path, key))
        return found

    def bent(self, folder: str, name: str) -> set[str]:
        """Give the keys to be followed because `name` in the real `folder` came, went or was replaced."""
        keys = set(self._bends.get(os.path.join(folder, name), ()))
        for key in self._spelled.get(folder, ()):
            path = os.path.join(key, name)
            if path in self._known:
                keys.update(self.unfollowed(path))
        return keys

    def arrived(self, key: str) -> set[str]:
        """Give the keys that must be followed because the trail of `key` leads somewhere else now."""
        return {each for path in self._asked.get(key, ()) for each in self.unfollowed(path)}

    def through(self, gone: set[str]) -> set[str]:
        """Give the keys whose trails pass one of the real folders in `gone`."""
        folders = {folder for trail in self.trails.values() for folder in trail.folders}
        hit = set(beneath(folders, gone))
        return {key for key, trail in self.trails.items() if not hit.isdisjoint(trail.folders)}

    def below(self, key: str) -> set[str]:
        """Give all that may have changed when the trail of `key` did.

        That is `key`, what was asked for directly inside, and if it was itself asked for and is a
        folder, every name in it.
        """
        found = {key} | self._asked.get(key, set())
        if key in self._known and self.trails[key].end is not None:
            found.update(os.path.join(key, name) for name in names_in(key))
        return found


def names_in(folder: str) -> frozenset[str]:
    """List `folder`; empty when it is none, is gone, or may not be read."""
    try:
        return frozenset(_listdir(folder))
    except (OSError, ValueError):
        return frozenset()
