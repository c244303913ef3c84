"""Finds modules as Python does, and notes where it looked.

Each name that was looked for, found or not: a file that appears later may be taken instead. Stands
directly before `PathFinder` and asks it, so modules keep the loader that they would have without us. What
is noted goes to a `Recorder`.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType, ModuleType
from typing import Any, Protocol, cast

from devserver.loading.reads import disguise
from devserver.watching.answers import (
    SUFFIXES,
    Entry,
    Fingerprint,
    Question,
    fingerprint_at,
    mode_of,
    name_entry,
)
from devserver.watching.project import Project


class Notes(Protocol):
    """Who is told what was looked for; see `devserver.loading.recorder.Recorder`."""

    project: Project

    def is_new(self, kind: Question, path: str) -> bool:
        """Whether a question has not been asked yet."""
        ...

    def record(self, entry: Entry) -> None:
        """Note an answer."""

    def found(self, origin: str, entry: Entry) -> None:
        """Note an answer that has led to a module's file."""

    def file(self, path: str) -> None:
        """Note that a file is read."""

    def module(self, path: str, fingerprint: Fingerprint) -> None:
        """Note that a module is executed."""

    def sqlite(self) -> None:
        """SQLite was imported."""


class Finder:
    """Finds what `PathFinder` finds, and notes where it looked.

    Not an `importlib.abc.MetaPathFinder`, whose module costs a millisecond: the protocol is enough.
    """

    def __init__(self, recorder: Notes) -> None:
        self._recorder = recorder
        self._folders: dict[str, str] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        # Before Python does: what comes meanwhile and is not seen by it must be a change afterwards.
        looked = self._look(name.rpartition(".")[2], sys.path if path is None else path)
        spec = PathFinder.find_spec(name, path, target)
        origin = spec.origin if spec is not None and spec.has_location else None
        self._note(looked, origin)
        if spec is not None and origin is not None and type(spec.loader) is not SourceFileLoader:
            self._note_other(spec, origin)
        if spec is not None and name == "_sqlite3":
            _run_after(spec, self._recorder.sqlite)
        return spec

    def _look(self, name: str, path: Iterable[Any]) -> list[tuple[str, Entry | None]]:
        """What each folder has for a name: None for one that is not the user's, or was looked into before."""
        looked = []
        for entry in list(path):
            if not isinstance(entry, str):
                continue  # `PathFinder` passes over it, too
            folder = self._folders.get(entry)
            if folder is None:
                folder = self._folder(entry)
            is_new = folder and self._recorder.is_new(Question.NAME, os.path.join(folder, name))
            looked.append((entry or folder, name_entry(folder, name) if is_new else None))
        return looked

    def _note(self, looked: list[tuple[str, Entry | None]], origin: str | None) -> None:
        """Note what was looked into, up to where the module was found."""
        found = (os.path.dirname(origin), os.path.dirname(os.path.dirname(origin))) if origin else ()
        for folder, answer in looked:
            here = folder in found
            if answer is not None:
                answer = _as_python_saw(folder, answer)
                if here and origin is not None:
                    self._recorder.found(origin, answer)
                else:
                    self._recorder.record(answer)
            if here:
                return

    def _folder(self, entry: str) -> str:
        """The absolute form of an entry of a search path if it is a folder of the user's, else ""."""
        try:
            folder = os.path.abspath(entry)
        except OSError:
            return ""  # relative to a working directory that is gone
        mode = mode_of(folder)
        if not self._recorder.project.is_users(os.path.join(folder, "")):
            folder = ""
        elif not stat.S_ISDIR(mode):
            self._recorder.file(folder)  # an archive, or what may become one
            folder = "" if mode else folder
        if os.path.isabs(entry):
            self._folders[entry] = folder
        return folder

    def _note_other(self, spec: ModuleSpec, origin: str) -> None:
        """A module that is no source file: compiled, or in an archive."""
        path = os.path.abspath(getattr(spec.loader, "archive", None) or origin)
        fingerprint = fingerprint_at(path)
        if fingerprint is not None and self._recorder.project.is_users(path):
            self._recorder.module(path, fingerprint)


def _as_python_saw(folder: str, answer: Entry) -> Entry:
    """The answer for a module's name by the listing that Python went by, which may be an older one."""
    seen = getattr(sys.path_importer_cache.get(folder), "_path_cache", None)
    name = os.path.basename(answer.path)
    if not seen or name in seen:
        return answer
    found = [name + suffix for suffix in SUFFIXES if name + suffix in seen]
    return Entry(Question.NAME, answer.path, " ".join(found))


def _run_after(spec: ModuleSpec, then: Callable[[], None]) -> None:
    """Have something done as soon as a module is executed."""
    loader = cast("Any", spec.loader)
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        del loader.exec_module
        then()

    loader.exec_module = disguise(cast("FunctionType", exec_module))
