"""Executes user modules, and records what loading the application reads.

Two instruments. A finder that stands directly before `PathFinder` (so a user's `time.py` does not
replace the built-in) notes each module of the project that is executed and each name that was
looked for and not found. Wrappers around `open` and its like note the rest of what is asked of the
file system, while loading; while serving only `open` and what writes stay wrapped, because an audit
hook could not be removed, would tax every request, and sees no `stat`.

An entry is reported *before* the module is executed: whoever watches knows what a process was about
to read even if it then hangs or dies. Knows no processes; entries leave through a callable.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import io
import os
import site
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, FrameType, ModuleType
from typing import Any

from devserver.reload.timeline import (
    OWN,
    Entry,
    Kind,
    digest_of,
    fingerprint_of,
    list_entry,
    name_entry,
    path_entry,
)

YOUNG = 2.0
"""Seconds. A .pyc knows its source by whole seconds and size, so that of a source saved twice in
one second may be of the first; a source younger than this is compiled from its text."""

HALF_WRITTEN = 0.1
"""Seconds for which an unparsable file may be one that is still being written."""

STATIC = (".css", ".js", ".map", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".ico", ".webp", ".avif",
          ".woff", ".woff2", ".ttf", ".otf", ".eot", ".mp3", ".mp4", ".webm", ".pdf")  # fmt: skip
"""What a request reads without its change needing a restart."""

# Their reading says nothing about the application: they look for modules or show tracebacks.
_INCURIOUS = ("importlib", "linecache", "traceback", "inspect", "zipimport", "pkg_resources", "runpy",
              "devserver.", "site", "sysconfig", "_frozen_importlib", "py_compile", "warnings", "pdb", "bdb")  # fmt: skip
# They ask on behalf of their callers.
_TRANSPARENT = frozenset(
    ("posixpath", "ntpath", "genericpath", "pathlib", "pathlib._local", "pathlib._abc", "os", "glob",
     "io", "codecs", "tokenize", "fnmatch", "shutil", "tempfile", "_pyio", "fileinput", "contextlib")  # fmt: skip
)


def library_folders() -> tuple[str, ...]:
    """Folders whose modules are not the user's: standard library, site-packages, devserver."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths.update(getattr(site, "getsitepackages", list)())
    if site.ENABLE_USER_SITE:
        paths.add(site.getusersitepackages())
    paths.add(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    every = {form for path in paths if path for form in (path, os.path.realpath(path))}
    return tuple(os.path.join(path, "") for path in sorted(every))


class Recorder:
    """Reports what is read, once for each question.

    Attributes:
        current: the file of the module that is being executed, for who wants to know where a load stands.
    """

    def __init__(self, report: Callable[[Entry], None], roots: Iterable[str]) -> None:
        """
        Args:
            report: takes each entry, in any thread.
            roots: folders of the project. Data counts below these; user modules count anywhere.
        """
        self._report = report
        self._libraries = library_folders()
        self._roots: tuple[str, ...] = ()
        for root in roots:
            self.add_root(root)
        self._seen: set[tuple[Kind, str]] = set()
        self._written: set[str] = set()
        self._busy = threading.local()
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        self._finder = Finder(self)
        self._serving = False

    def add_root(self, folder: str) -> None:
        """Count data below another folder, too."""
        root = os.path.join(os.path.abspath(folder), "")
        if root not in self._roots:
            self._roots += (root,)

    def is_user_module(self, path: str) -> bool:
        """Whether a source file is the user's."""
        return not path.startswith(self._libraries) and "site-packages" not in path and "dist-packages" not in path

    def in_project(self, path: str) -> bool:
        """Whether a file or folder belongs to the project."""
        return os.path.join(path, "").startswith(self._roots) and self.is_user_module(path)

    # when

    def start(self) -> None:
        """Begin to record everything."""
        place = next((i for i, finder in enumerate(sys.meta_path) if finder is PathFinder), len(sys.meta_path))
        sys.meta_path.insert(place, self._finder)
        for module in list(sys.modules.values()):
            self._loaded_before(module)
        # Objects and not functions: a function kept as an attribute of a class would become a method.
        opened = _Wrapper(builtins.open, self._opened)
        self._replace(builtins, "open", opened)
        self._replace(io, "open", opened)
        self._replace(os, "open", _Wrapper(os.open, self._os_opened))
        for name in ("replace", "rename"):
            self._replace(os, name, _Wrapper(getattr(os, name), self._renamed))
        for name in ("listdir", "scandir"):
            self._replace(os, name, _Wrapper(getattr(os, name), self._listed))
        for name in ("stat", "lstat", "access"):
            self._replace(os, name, _Wrapper(getattr(os, name), self._asked))

    def serving(self) -> None:
        """The application is loaded: from now on only record modules and files that are opened."""
        self._serving = True
        kept = ("open", "replace", "rename")
        for module, name, original, wrapper in self._replaced:
            if name not in kept and getattr(module, name) is wrapper:
                setattr(module, name, original)

    def stop(self) -> None:
        """Put everything back."""
        for module, name, original, wrapper in self._replaced:
            if getattr(module, name) is wrapper:
                setattr(module, name, original)
        self._replaced.clear()
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)

    def _replace(self, module: Any, name: str, wrapper: _Wrapper) -> None:
        self._replaced.append((module, name, getattr(module, name), wrapper))
        setattr(module, name, wrapper)

    def _loaded_before(self, module: ModuleType | None) -> None:
        # By way of __dict__: a module's own __getattr__ is user code.
        path = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(path, str) and path.endswith(".py") and self.is_user_module(os.path.abspath(path)):
            self.file(path)

    # what

    def record(self, entry: Entry) -> None:
        """Report an entry unless its question was asked before."""
        key = entry.kind, entry.path
        if key not in self._seen:
            self._seen.add(key)
            self._report(entry)

    def file(self, path: str, data: bytes | None = None, fingerprint: Any = None) -> None:
        """A file that is about to be read; with its bytes if they are at hand."""
        path = os.path.abspath(path)
        if (Kind.FILE, path) in self._seen:
            return
        try:
            fingerprint = fingerprint or fingerprint_of(_stat(path))
        except OSError:
            self.record(path_entry(path))
            return
        self.record(Entry(Kind.FILE, path, None if data is None else digest_of(data), fingerprint))

    def _opened(self, path: Any, mode: Any = "r", *_: Any, **named: Any) -> None:
        mode = named.get("mode", mode)
        if not isinstance(path, int):
            self._open(path, isinstance(mode, str) and any(sign in mode for sign in "wax+"))

    def _os_opened(self, path: Any, flags: int, *_: Any, dir_fd: int | None = None, **__: Any) -> None:
        if dir_fd is None:
            self._open(path, bool(flags & (os.O_WRONLY | os.O_RDWR)))

    def _open(self, path: Any, write: bool) -> None:
        path = self._of_project(path)
        if path is None:
            return
        if write:
            self._write(path)
        elif path not in self._written and not (self._serving and path.endswith(STATIC)):
            self.file(path)

    def _write(self, path: str) -> None:
        """The application writes the file itself: its changes are the application's own."""
        if path not in self._written:
            self._written.add(path)
            self._seen.add((Kind.FILE, path))
            self._report(Entry(Kind.FILE, path, OWN))

    def _renamed(self, _: Any, path: Any, **__: Any) -> None:
        path = self._of_project(path)
        if path is not None:
            self._write(path)

    def _listed(self, path: Any = ".") -> None:
        path = self._of_project("." if path is None else path)
        if path is not None and (Kind.LIST, path) not in self._seen:
            self.record(list_entry(path))

    def _asked(self, path: Any, *_: Any, dir_fd: int | None = None, **__: Any) -> None:
        if dir_fd is None and (path := self._of_project(path)) is not None and (Kind.PATH, path) not in self._seen:
            self.record(path_entry(path))

    def _of_project(self, path: Any) -> str | None:
        """The absolute path if it is the project's and the application itself is asking."""
        if isinstance(path, int) or getattr(self._busy, "yes", False):
            return None
        self._busy.yes = True
        try:
            path = os.path.abspath(os.fsdecode(path))
            return path if self.in_project(path) and _curious(sys._getframe(3)) else None
        except (TypeError, ValueError):
            return None  # the wrapped function will say what is wrong with it
        finally:
            self._busy.yes = False


_stat = os.stat


def _curious(frame: FrameType | None) -> bool:
    """Whether a call comes from the application (or a library on its behalf)."""
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if name not in _TRANSPARENT:
            return not name.startswith(_INCURIOUS)
        frame = frame.f_back
    return False


class _Wrapper:
    """Calls `note` with the arguments, then the function."""

    def __init__(self, function: Callable[..., Any], note: Callable[..., None]) -> None:
        self._function = function
        self._note = note
        self.__wrapped__ = function
        self.__name__ = getattr(function, "__name__", "")
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **named: Any) -> Any:
        try:
            self._note(*args, **named)
        except TypeError:
            pass  # wrong arguments: the function says so
        return self._function(*args, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


class Finder(importlib.abc.MetaPathFinder):
    """Finds what `PathFinder` finds, and notes it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        spec = PathFinder.find_spec(name, path, target)
        self._note_absent(name.rpartition(".")[2], sys.path if path is None else path, spec)
        if spec is None:
            return None
        origin = spec.origin
        if type(spec.loader) is SourceFileLoader and origin and self._recorder.is_user_module(os.path.abspath(origin)):
            spec.loader = Loader(spec.loader.name, spec.loader.path, self._recorder)
        return spec

    def _note_absent(self, name: str, path: Iterable[str], spec: ModuleSpec | None) -> None:
        """Note the project's folders that were looked into before the module was found, if it was.

        A module that appears there later would be taken instead.
        """
        found = os.path.dirname(os.path.abspath(spec.origin)) if spec and spec.has_location and spec.origin else None
        for folder in list(path):
            folder = os.path.abspath(folder or ".")
            if self._recorder.in_project(folder):
                self._recorder.record(name_entry(folder, name))
            if found is not None and (found == folder or found == os.path.join(folder, name)):
                return


class Loader(SourceFileLoader):
    """Reports a user's module before it is executed, and trusts no .pyc of a young source."""

    def __init__(self, name: str, path: str, recorder: Recorder) -> None:
        super().__init__(name, path)
        self._recorder = recorder

    def get_code(self, fullname: str) -> CodeType | None:
        """The module's code, and a report of the bytes it was made of."""
        path = self.get_filename(fullname)
        data, status = _read(path)
        if time.time() - status.st_mtime >= YOUNG:
            self._recorder.file(path, data, fingerprint_of(status))
            return super().get_code(fullname)
        while True:
            try:
                code: CodeType = self.source_to_code(data, path)
            except SyntaxError:
                if time.time() - status.st_mtime < HALF_WRITTEN:
                    time.sleep(HALF_WRITTEN / 10)  # an editor may be in the middle of writing
                    data, status = _read(path)
                    continue
                self._recorder.file(path, data, fingerprint_of(status))
                raise
            self._recorder.file(path, data, fingerprint_of(status))
            return code


def _read(path: str) -> tuple[bytes, os.stat_result]:
    with io.FileIO(path) as file:
        status = os.fstat(file.fileno())
        return file.readall(), status
