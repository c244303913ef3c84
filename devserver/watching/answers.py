"""Questions to the file system, and their answers as they are now.

Which bytes are in a file, which names in a folder, what is at a path, whether a module of some
name can be found in a folder. Answers are small, can be sent, and are equal if nothing changed
that a reader would notice.

Asks with functions taken before anybody wraps them, so that asking leaves no traces of its own.
Refuses to know who asked, and what another answer leads to.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.machinery import EXTENSION_SUFFIXES
from time import sleep, time_ns
from typing import Any

from devserver.watching.rules import passing

try:  # hashlib has the same function, and loads OpenSSL: a tenth of the time that a supervisor starts in
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

Fingerprint = tuple[int, int, int, int]
"""mtime_ns, ctime_ns, size, inode."""

DIGEST_LIMIT = 64 * 2**20
"""Bytes; a larger file is known by its size and times alone."""

LIST_LIMIT = 100_000
"""Characters; of a folder with more names than fit only a digest is kept."""

YOUNG = 2 * 10**9
"""Nanoseconds: the coarsest time stamps are those of FAT, 2 s."""

EMPTIED = 50 * 10**6
"""Nanoseconds for which a file without a byte is one that is most likely being saved: first it is emptied."""

REFILL = 0.003
"""Seconds that it is given then."""

OWN = "own"
"""The answer for a path that the application itself writes."""

SUFFIXES = (".py", *EXTENSION_SUFFIXES)
"""Of files that are modules."""

_stat, _lstat, _listdir, _readlink = os.stat, os.lstat, os.listdir, os.readlink
_scandir = os.scandir


class Question(Enum):
    """The questions."""

    FILE = "file"  # which bytes are in it
    LIST = "list"  # which names are in a folder
    PATH = "path"  # is there a file, a folder or nothing
    NAME = "name"  # is there a module of that name in a folder
    TREE = "tree"  # none: whatever is below a folder counts, read or not


@dataclass(slots=True)
class Entry:
    """A question and its answer.

    Attributes:
        kind: which question.
        path: the absolute path that was asked for; for NAME folder and name, joined.
        answer: FILE: digest in hex, "" if it cannot be read, None if it has not been taken (then
            what is in the file as long as its fingerprint is the same); LIST: the names, each
            behind a slash, or a digest of them behind "#", "" if it is no folder; PATH: "file",
            "folder" or "", and where it leads to if it is a link; NAME: the names that would be taken
            for the module, with spaces; TREE: a pattern of the rules.
        fingerprint: of a FILE when it was read, of a LIST when it was listed, of a PATH when it was asked
            for in full, which matters to a process that goes on from a checkpoint.
        names: of a FILE that was imported, the answer to NAME for it: two questions in one message.
        late: it was read at some time before it was noticed.
        own: of a FILE that the application had written before it read it: that it changes is no reason to
            restart, but a fresh process would read what is there now.
        seq: running number in a timeline; below 0 if it is late.
    """

    kind: Question
    path: str
    answer: str | None
    fingerprint: Fingerprint | None = None
    names: str | None = None
    late: bool = False
    own: bool = False
    seq: int = 0

    def to_json(self) -> list[Any]:
        """As a part of a message."""
        return [self.kind.value, self.path, self.answer, self.fingerprint, self.names, self.late, self.own]

    @classmethod
    def from_json(cls, data: list[Any]) -> Entry:
        """The inverse of `to_json`."""
        kind, path, answer, fingerprint, *rest = data
        return cls(Question(kind), path, answer, tuple(fingerprint) if fingerprint else None, *rest)


def fingerprint_of(status: os.stat_result) -> Fingerprint:
    """The fingerprint in a stat result."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def fingerprint_at(path: str) -> Fingerprint | None:
    """The fingerprint of what is at a path; None if nothing is."""
    try:
        return fingerprint_of(_stat(path))
    except (OSError, ValueError):
        return None


def identity_at(path: str) -> tuple[int, int] | None:
    """Device and inode of what is at a path; None if nothing is."""
    try:
        status = _stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def folder_at(path: str) -> tuple[int, int] | None:
    """Device and inode of the folder at a path; None if there is none."""
    return identity_at(path) if stat.S_ISDIR(mode_of(path)) else None


def is_racy(fingerprint: Fingerprint, now: int) -> bool:
    """Whether another change might leave the same fingerprint; `now` in nanoseconds since the epoch.

    By ctime, too: an older mtime can be restored. A stamp in the future counts as racy.
    """
    return now - max(fingerprint[0], fingerprint[1]) < YOUNG


def digest_of(data: bytes) -> str:
    """What a file's bytes are known by."""
    return blake2b(data, digest_size=16).hexdigest()


def read_entry(path: str) -> Entry:
    """The answer for the bytes of a file as they are now; "" for one that cannot be read."""
    try:
        # Only a regular file: opening a FIFO would wait for its writer.
        if stat.S_ISREG(_stat(path).st_mode):
            with io.FileIO(path) as file:
                return _read(file, path)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        pass
    return Entry(Question.FILE, path, "")


def _read(file: io.FileIO, path: str) -> Entry:
    fingerprint = fingerprint_of(os.fstat(file.fileno()))
    if fingerprint[2] == 0 and 0 <= time_ns() - fingerprint[0] < EMPTIED:
        sleep(REFILL)
        fingerprint = fingerprint_of(os.fstat(file.fileno()))
    for _ in range(3):
        if fingerprint[2] > DIGEST_LIMIT:
            return Entry(Question.FILE, path, f"large {fingerprint[0]} {fingerprint[2]}", fingerprint)
        file.seek(0)
        digest = digest_of(file.readall())
        before, fingerprint = fingerprint, fingerprint_of(os.fstat(file.fileno()))
        # Written meanwhile: new bytes must not pass for those that an old fingerprint means.
        if fingerprint == before:
            break
    return Entry(Question.FILE, path, digest, before)


def file_entry(path: str, now: int) -> Entry:
    """The answer for a file; without its digest unless its stamps prove nothing.

    Args:
        now: nanoseconds since the epoch.
    """
    fingerprint = fingerprint_at(path)
    if fingerprint is None or is_racy(fingerprint, now):
        return read_entry(path)
    return Entry(Question.FILE, path, None, fingerprint)


def list_entry(folder: str) -> Entry:
    """The answer for the names in a folder, without those that come and go by themselves."""
    try:
        fingerprint = fingerprint_of(_stat(folder))
        names = "".join(sorted("/" + name for name in _listdir(folder) if not passing(name)))
    except (OSError, ValueError):
        return Entry(Question.LIST, folder, "")
    if len(names) > LIST_LIMIT:
        names = "#" + digest_of(names.encode("utf-8", "surrogatepass"))
    return Entry(Question.LIST, folder, names or "/", fingerprint)


def name_of(entry: Entry) -> Entry:
    """The other question of a module that was imported: for its name."""
    return Entry(Question.NAME, module_place(entry.path), entry.names)


def lists_otherwise(listing: Entry, path: str) -> bool:
    """Whether a name in a folder is not there as it was listed, or that cannot be said."""
    answer, name = listing.answer or "", "/" + os.path.basename(path)
    if answer[:1] != "/":
        return True
    if passing(name[1:]):
        return False
    return (answer.endswith(name) or name + "/" in answer) != is_there(path)


def links_in(folder: str) -> list[str]:
    """The links that a folder lists: where one leads, and whether to a file, no name says."""
    try:
        with _scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_symlink()]
    except (OSError, ValueError):
        return []


def tree_entry(folder: str, pattern: str) -> Entry:
    """That files below a folder count, read or not.

    Args:
        pattern: what they are called, as for `--reload-include`, from the folder on.
    """
    plain = "".join("\\" + letter if letter in "*?[]\\" else letter for letter in folder)
    return Entry(Question.TREE, folder, f"{plain}/{pattern}")


def path_entry(path: str) -> Entry:
    """The answer for what is at a path."""
    mode = mode_of(path)
    try:
        link = f" -> {_readlink(path)}"
    except (OSError, ValueError):
        link = ""
    return Entry(Question.PATH, path, ("folder" if stat.S_ISDIR(mode) else "file" if mode else "") + link)


def name_entry(folder: str, name: str) -> Entry:
    """The answer for what a folder has that would be taken for a module."""
    path = os.path.join(folder, name)
    found = [name + suffix for suffix in SUFFIXES if stat.S_ISREG(mode_of(path + suffix))]
    if stat.S_ISDIR(mode_of(path)):
        # A folder without __init__ is a namespace package, found only when nothing else is.
        inside = any(stat.S_ISREG(mode_of(os.path.join(path, "__init__" + suffix))) for suffix in SUFFIXES)
        found.append(name if inside else name + "/")
    return Entry(Question.NAME, path, " ".join(found))


def module_place(file: str) -> str:
    """Folder and name, joined, by which a module's file is found: what NAME asks for."""
    folder, name = os.path.split(file)
    stem = name.partition(".")[0]
    return folder if stem == "__init__" else os.path.join(folder, stem)


def watched_for(entry: Entry) -> list[str]:
    """The paths to be watched for an entry."""
    if entry.kind is not Question.NAME:
        return [entry.path]
    folder = os.path.dirname(entry.path)
    # What is a folder already may become a package, or be none any more.
    is_folder = bool(entry.answer) and not (entry.answer or "").endswith(SUFFIXES)
    return [folder, entry.path] if is_folder else [folder]


def places_of(entry: Entry) -> Iterator[str]:
    """The paths whose hint means an entry."""
    yield entry.path
    if entry.kind is Question.NAME:
        for suffix in SUFFIXES:
            yield entry.path + suffix
            yield os.path.join(entry.path, "__init__" + suffix)


def is_there(path: str) -> bool:
    """Whether a folder lists a path: a link that leads nowhere, too."""
    try:
        _lstat(path)
    except (OSError, ValueError):
        return False
    return True


def mode_of(path: str) -> int:
    """The mode of what is at a path; 0 if nothing is."""
    try:
        return _stat(path).st_mode
    except (OSError, ValueError):
        return 0


ASK: dict[Question, Callable[[str], Entry]] = {
    Question.FILE: read_entry,
    Question.LIST: list_entry,
    Question.PATH: path_entry,
    Question.NAME: lambda path: name_entry(*os.path.split(path)),
}


def culprit(entry: Entry, now: str) -> str:
    """What to name as changed: for a module the file that came or went."""
    if entry.kind is not Question.NAME:
        return entry.path
    names = sorted((set((entry.answer or "").split(" ")) ^ set(now.split(" "))) - {""})
    folder, _ = os.path.split(entry.path)
    return os.path.join(folder, names[0].rstrip("/")) if names else entry.path
