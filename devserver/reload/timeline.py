"""What the application read, in order, and whether it would read the same now.

Each entry is a question that was asked of the file system and its answer: the bytes of a file,
the names in a folder, whether a path exists, whether a module of some name can be found in a
folder. The running number of an entry is its *tick*. A change matters if it changes an answer.

Watchers give hints; this module decides, by content. A file is known by (mtime_ns, ctime_ns,
size, inode), and if one of these differs by a digest of its bytes, so that a `touch` or a save
without a change is nothing. Knows neither processes nor watchers nor what follows from a change.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

from devserver.reload.rules import Kind as Verdict
from devserver.reload.rules import Rules, temporary

Fingerprint = tuple[int, int, int, int]
"""mtime_ns, ctime_ns, size, inode."""

DIGEST_LIMIT = 64 * 2**20
"""Bytes; a larger file is known by its size and times alone."""

OWN = "own"
"""The answer for a path that the application itself writes: a change there is the application's."""

_SUFFIXES = (".py", *EXTENSION_SUFFIXES)


class Kind(Enum):
    """The questions."""

    FILE = "file"  # which bytes are in it
    LIST = "list"  # which names are in a folder
    PATH = "path"  # is there a file, a folder or nothing
    NAME = "name"  # is there a module of that name in a folder


@dataclass(slots=True)
class Entry:
    """A question and its answer.

    Attributes:
        kind: which question.
        path: the absolute path that was asked for; for NAME folder and name, joined.
        answer: FILE: digest in hex, or None if it has not been taken (then by `fingerprint` from
            the file itself); LIST: digest of the names; PATH: "file", "folder" or ""; NAME: the
            names in the folder that would be taken for the module, joined.
        fingerprint: of a FILE when it was read.
    """

    kind: Kind
    path: str
    answer: str | None
    fingerprint: Fingerprint | None = None

    def to_json(self) -> list[Any]:
        """As a part of a message."""
        return [self.kind.value, self.path, self.answer, self.fingerprint]

    @classmethod
    def from_json(cls, data: list[Any]) -> Entry:
        """The inverse of `to_json`."""
        kind, path, answer, fingerprint = data
        return cls(Kind(kind), path, answer, tuple(fingerprint) if fingerprint else None)


def fingerprint_of(status: os.stat_result) -> Fingerprint:
    """The fingerprint in a stat result."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def digest_of(data: bytes) -> str:
    """What a file's bytes are known by."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def read_entry(path: str) -> Entry:
    """The answer for the bytes of a file as they are now; "" for one that cannot be read."""
    try:
        with open(path, "rb") as file:
            fingerprint = fingerprint_of(os.fstat(file.fileno()))
            if fingerprint[2] > DIGEST_LIMIT:
                return Entry(Kind.FILE, path, f"large {fingerprint[0]} {fingerprint[2]}", fingerprint)
            return Entry(Kind.FILE, path, digest_of(file.read()), fingerprint)
    except (OSError, ValueError):
        return Entry(Kind.FILE, path, "")


def list_entry(folder: str) -> Entry:
    """The answer for the names in a folder, without those that come and go by themselves."""
    try:
        names = sorted(name for name in os.listdir(folder) if not passing(name))
    except OSError:
        return Entry(Kind.LIST, folder, "")
    return Entry(Kind.LIST, folder, digest_of("\0".join(names).encode("utf-8", "surrogateescape")))


def passing(name: str) -> bool:
    """A name in a folder that says nothing about the project."""
    return name == "__pycache__" or name.endswith((".pyc", "-journal", "-wal", "-shm")) or temporary(name)


def path_entry(path: str) -> Entry:
    """The answer for what is at a path."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return Entry(Kind.PATH, path, "")
    return Entry(Kind.PATH, path, "folder" if stat.S_ISDIR(mode) else "file")


def name_entry(folder: str, name: str) -> Entry:
    """The answer for what a folder has that would be taken for a module."""
    path = os.path.join(folder, name)
    found = [name + suffix for suffix in _SUFFIXES if os.path.isfile(path + suffix)]
    if os.path.isdir(path):
        # A folder without __init__ is a namespace package, found only when nothing else is.
        found.append(name if os.path.isfile(os.path.join(path, "__init__.py")) else name + "/")
    return Entry(Kind.NAME, path, " ".join(found))


ASK: dict[Kind, Callable[[str], Entry]] = {
    Kind.FILE: read_entry,
    Kind.LIST: list_entry,
    Kind.PATH: path_entry,
    Kind.NAME: lambda path: name_entry(*os.path.split(path)),
}


class Timeline:
    """The watch set: entries in order, found by the paths that a watcher hints."""

    def __init__(self, rules: Rules) -> None:
        """Args: rules: which paths never count, and which count whether they were read or not."""
        self._rules = rules
        self._entries: dict[tuple[Kind, str], Entry] = {}
        self._by_path: dict[str, list[Entry]] = {}
        self._above: set[str] = set()
        self._suspects: list[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    @property
    def suspicious(self) -> bool:
        """Whether answers were added that have not been held against the file system yet."""
        return bool(self._suspects)

    def add(self, entry: Entry) -> Iterator[str]:
        """Append an entry, unless its question was asked before.

        Yields the paths to be watched. The answer was given some time ago; whether it still holds
        is asked by the next `changes`, after the paths are watched, so that nothing is missed.
        """
        if entry.answer == OWN:
            for known in self._by_path.get(entry.path, ()):
                if known.kind in (Kind.FILE, Kind.PATH):
                    known.answer = OWN
        key = entry.kind, entry.path
        if key in self._entries:
            return
        self._entries[key] = entry
        self._suspects.append(entry)
        folder = os.path.dirname(entry.path)
        yield entry.path if entry.kind is not Kind.NAME else folder
        for path in self._places(entry, folder):
            self._by_path.setdefault(path, []).append(entry)
        while folder not in self._above:
            self._above.add(folder)
            folder = os.path.dirname(folder)

    def _places(self, entry: Entry, folder: str) -> Iterator[str]:
        """The paths whose hint means this entry."""
        yield entry.path
        if entry.kind is Kind.NAME:
            for suffix in _SUFFIXES:
                yield entry.path + suffix
            yield os.path.join(entry.path, "__init__.py")

    def changes(self, hints: Iterable[str] | None) -> list[str]:
        """The paths of entries whose answer is another now, in the order of their ticks.

        Args:
            hints: touched paths; None for "look at everything".
        """
        if hints is None:
            entries, fresh = list(self._entries.values()), []
        else:
            entries = self._suspects + [entry for hint in hints for entry in self._hinted(hint)]
            fresh = [hint for hint in hints if hint not in self._by_path and self._always(hint)]
        self._suspects = []
        unique = {id(entry): entry for entry in entries}.values()
        return list(dict.fromkeys([*(entry.path for entry in unique if self._differs(entry)), *fresh]))

    def _always(self, path: str) -> bool:
        """Whether a file that nobody read counts nevertheless."""
        return self._rules.verdict(path).kind is Verdict.ALWAYS and os.path.isfile(path)

    def _hinted(self, hint: str) -> Iterator[Entry]:
        yield from self._by_path.get(hint, ())
        for entry in self._by_path.get(os.path.dirname(hint), ()):
            if entry.kind is Kind.LIST:
                yield entry
        if hint in self._above:
            below = os.path.join(hint, "")
            yield from (entry for entry in self if entry.path.startswith(below))

    def _differs(self, entry: Entry) -> bool:
        if entry.answer == OWN or self._rules.verdict(entry.path).kind is Verdict.NEVER:
            return False
        if entry.kind is not Kind.FILE:
            return ASK[entry.kind](entry.path).answer != entry.answer
        try:
            now = fingerprint_of(os.stat(entry.path))
        except (OSError, ValueError):
            return entry.answer != ""
        if now == entry.fingerprint and entry.answer is not None:
            return False
        fresh = read_entry(entry.path)
        if entry.answer is None and fresh.fingerprint == entry.fingerprint:
            entry.answer = fresh.answer  # a data file: its digest is taken by who watches, not by who reads
        if fresh.answer != entry.answer:
            return True
        entry.fingerprint = fresh.fingerprint
        return False
