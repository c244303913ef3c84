"""Notes what a program asks of the file system, by wrapping what it asks with.

`open`, `os.stat` and their like are replaced, in place, by objects that note the path and then do
what they did before. An audit hook would be simpler, but it cannot be removed, taxes every
request, and sees no `stat`. When the application is loaded, what only asks is put back; `open` and
what writes stay.

The replacements pass for the originals: they compare and hash alike (`os.stat in
os.supports_follow_symlinks`), say the same of themselves, pickle as them, and do not become methods
as attributes of a class. Their frames bear the name by which Python strips its own import machinery
from tracebacks.

Who asks matters: what imports, tracebacks and debuggers read says nothing about the application;
what `pathlib` or `glob` reads, they read for their caller, and so do `linecache` and `inspect`. Knows no
timeline; what is noted leaves by the five methods of a `Sink`.
"""

from __future__ import annotations

import builtins
import copy
import io
import os
import sys
from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any, Protocol, TypeVar

from devserver import procfs
from devserver.watching.answers import is_there
from devserver.watching.project import Project

F = TypeVar("F", bound=FunctionType)

# They look for modules or show tracebacks. By the first part of the module's name.
_INCURIOUS = frozenset(
    ("importlib", "_frozen_importlib", "_frozen_importlib_external", "zipimport", "pkg_resources",
     "importlib_metadata", "traceback", "site", "sysconfig", "py_compile", "warnings",
     "pdb", "bdb", "debugpy", "pydevd", "_pydevd_bundle", "pydevd_file_utils", "coverage", "devserver")
)  # fmt: skip
# They ask on behalf of their callers. Likewise.
_TRANSPARENT = frozenset(
    ("posixpath", "ntpath", "genericpath", "pathlib", "os", "glob", "io", "codecs", "tokenize", "fnmatch",
     "shutil", "tempfile", "_pyio", "fileinput", "contextlib", "runpy", "importlib_resources")
)  # fmt: skip
# The exceptions to both, by the beginning of the name.
_READING_DATA = ("importlib.resources", "importlib.readers", "importlib.simple", "importlib.abc")
_READING_FILES = (*_READING_DATA, "importlib.metadata")  # which lists every folder of modules, too
_READING_FOR_THE_APPLICATION = ("devserver.app", "devserver.discovery", "devserver.dotenv")

_KNOWN = _INCURIOUS | _TRANSPARENT | {"linecache", "inspect"}

# Functions of the standard library that ask by `stat` only what is there.
_EXISTENCE = frozenset(
    ("exists", "lexists", "isfile", "isdir", "islink", "ismount", "samefile", "realpath", "_joinrealpath",
     "walk", "_walk", "is_file", "is_dir", "is_symlink", "is_mount", "resolve", "glob", "_glob", "iglob",
     "rglob", "copyfile", "makedirs", "mkdir", "expand", "select_exists", "select_recursive", "_select_from")
)  # fmt: skip

_WRITING = frozenset("wax+")
_WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Sink(Protocol):
    """Takes what was noted: absolute paths of the project."""

    def read(self, path: str) -> None:
        """A file is about to be opened for reading."""

    def listed(self, path: str) -> None:
        """The names in a folder are about to be asked for."""

    def scanned(self, path: str) -> None:
        """The same, with what each of them is."""

    def asked(self, path: str) -> None:
        """What is at a path is about to be asked for."""

    def examined(self, path: str) -> None:
        """What is at a path is about to be asked for in full: its size, its times."""

    def wrote(self, path: str) -> None:
        """The program is about to write, create or remove what is at a path."""


def disguise(function: F, file: str = "<frozen importlib._bootstrap>") -> F:
    """Give a function the name by which Python strips its import machinery from tracebacks.

    CPython, `remove_importlib_frames`: of a failed import. `warnings` count no stack level for it.
    """
    code = function.__code__
    name = "_call_with_frames_removed" if file == "<frozen importlib._bootstrap>" else code.co_name
    function.__code__ = code.replace(co_filename=file, co_name=name)
    return function


class Wrapper:
    """Calls `note` with the arguments, then the function."""

    def __init__(self, function: Callable[..., Any], note: Callable[..., None]) -> None:
        self.__dict__.update({name: getattr(function, name, None) for name in ("__doc__", "__module__")})
        self.__wrapped__ = function
        self._note = note

    @disguise  # type: ignore[type-var] # a function here, whatever it is to be
    def __call__(self, *args: Any, **named: Any) -> Any:
        try:
            self._note(*args, **named)
        except Exception:  # wrong arguments, or user code (`__fspath__`): the function will say so
            pass
        try:
            return self.__wrapped__(*args, **named)
        except BaseException:
            # Error pages of frameworks and test runners leave out frames that say so.
            __traceback_hide__ = __tracebackhide__ = True  # read from the frame
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    __class__ = property(lambda self: self.__wrapped__.__class__)  # for isinstance

    def __eq__(self, other: object) -> bool:
        return self is other or self.__wrapped__ == other

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __copy__(self) -> Wrapper:
        return self

    def __deepcopy__(self, memo: object) -> Wrapper:
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        name = self.__wrapped__.__name__
        home = sys.modules.get(self.__wrapped__.__module__)
        if getattr(home, name, None) is self:
            return name
        # `os.stat` is at home in `posix`, where the original still is; a function is its own copy.
        return copy.copy, (self.__wrapped__,)


class Scanning(Wrapper):
    """Calls `note`, then `os.scandir`; entries tell `examine` which of them are asked for their stamps."""

    def __init__(
        self, function: Callable[..., Any], note: Callable[..., None], examine: Callable[..., None]
    ) -> None:
        super().__init__(function, note)
        self._examine = examine

    @disguise  # type: ignore[type-var]
    def __call__(self, path: Any = ".") -> Any:
        entries = super().__call__(path)
        name = sys._getframe(1).f_globals.get("__name__") or ""
        # `os.walk` and its like keep entries to themselves, and ask them only what they are.
        if isinstance(path, int) or name.partition(".")[0] in _KNOWN:
            return entries
        return _Entries(entries, self._examine)


class _Entries:
    """What `os.scandir` gave, each entry as an `_Entry`."""

    def __init__(self, entries: Any, examine: Callable[..., None]) -> None:
        self._entries = entries
        self._examine = examine
        self.close = entries.close

    def __iter__(self) -> _Entries:
        return self

    def __next__(self) -> _Entry:
        return _Entry(next(self._entries), self._examine)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Entry:
    """An `os.DirEntry` that notes who asks it for its stamps."""

    __slots__ = ("_examine", "_wrapped")

    def __init__(self, entry: os.DirEntry[Any], examine: Callable[..., None]) -> None:
        self._wrapped = entry
        self._examine = examine

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        self._examine(self._wrapped.path)
        return self._wrapped.stat(follow_symlinks=follow_symlinks)

    def __fspath__(self) -> Any:
        return self._wrapped.__fspath__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __repr__(self) -> str:
        return repr(self._wrapped)

    __class__ = property(lambda self: os.DirEntry)  # for isinstance


class Reads:
    """See the module. For one `Sink`."""

    def __init__(self, project: Project, sink: Sink) -> None:
        self._project = project
        self._sink = sink
        self._asking = False
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        # Paths as they were spelled about which there is nothing more to say.
        self._opened_before: set[str] = set()
        self._asked_before: set[str] = set()

    def start(self) -> None:
        """Replace everything."""
        self._asking = True
        opened = Wrapper(builtins.open, self._opened)
        self._replace(builtins, "open", opened)
        self._replace(io, "open", opened)
        self._replace(io, "open_code", Wrapper(io.open_code, self._opened))
        self._replace(os, "open", Wrapper(os.open, self._os_opened))
        self._wrap(os, "listdir", self._listed)
        self._replace(os, "scandir", Scanning(os.scandir, self._scanned, self._examined))
        for name in ("stat", "lstat"):
            self._wrap(os, name, self._examined)
        for name in ("access", "readlink"):
            self._wrap(os, name, self._asked)
        for name in ("mkdir", "rmdir", "remove", "unlink", "truncate", "mkfifo"):
            self._wrap(os, name, self._changed)
        for name in ("rename", "replace", "link", "symlink"):
            self._wrap(os, name, self._moved)
        self._replace_captured(opened)
        self.wrap_sqlite()

    def quieten(self) -> None:
        """Put back what only asks; what reads and writes stays."""
        self._asking = False
        self.wrap_sqlite()
        asks = self._listed, self._scanned, self._asked, self._examined
        self._restore(lambda wrapper: wrapper._note in asks)

    def stop(self) -> None:
        """Put everything back."""
        self._asking = False
        self._restore(lambda wrapper: True)

    def wrap_sqlite(self) -> None:
        """SQLite makes and writes its files in C. To be called again when it has been loaded."""
        wrapper: Wrapper | None = None
        for module in map(sys.modules.get, ("_sqlite3", "sqlite3.dbapi2", "sqlite3")):
            connect = vars(module).get("connect") if module is not None else None
            if connect is not None and type(connect) is not Wrapper:
                wrapper = wrapper or Wrapper(connect, self._connected)
                self._replace(module, "connect", wrapper)

    def _wrap(self, module: Any, name: str, note: Callable[..., None]) -> None:
        if hasattr(module, name):
            self._replace(module, name, Wrapper(getattr(module, name), note))

    def _replace(self, owner: Any, name: str, wrapper: Any) -> None:
        self._replaced.append((owner, name, vars(owner)[name], wrapper))
        setattr(owner, name, wrapper)

    def _replace_captured(self, opened: Wrapper) -> None:
        """What others have taken: `tokenize`, `bz2`, and `pathlib` for its globbing (from Python 3.13 on)."""
        for owner in map(sys.modules.get, ("tokenize", "bz2")):
            if owner is not None and vars(owner).get("_builtin_open") == opened:
                self._replace(owner, "_builtin_open", opened)
        module = sys.modules.get("glob")
        for owner in list(vars(module).values()) if module is not None else ():
            for name in ("lstat", "scandir"):
                taken = owner.__dict__.get(name) if isinstance(owner, type) else None
                if isinstance(taken, staticmethod) and getattr(os, name) == taken.__func__:
                    self._replace(owner, name, staticmethod(getattr(os, name)))

    def _restore(self, which: Callable[[Any], bool]) -> None:
        kept = []
        for owner, name, original, wrapper in self._replaced:
            if not which(getattr(wrapper, "__func__", wrapper)):
                kept.append((owner, name, original, wrapper))
            elif vars(owner).get(name) is wrapper:  # unless somebody else has replaced it since
                setattr(owner, name, original)
        self._replaced = kept

    # notes: with the arguments of what they stand for

    def _opened(self, file: Any = None, mode: Any = "r", *_: Any, path: Any = None, **__: Any) -> None:
        if file is None:
            file = path  # `io.open_code` calls it so
        if type(mode) is str and not _WRITING.isdisjoint(mode):
            if "x" not in mode or not self._is_there(file):
                self._write(file)
        elif type(file) is not str or file not in self._opened_before:
            self._read(file)

    def _os_opened(self, path: Any, flags: int, *_: Any, dir_fd: int | None = None, **__: Any) -> None:
        path = _joined(path, dir_fd)
        if flags & _WRITING_FLAGS:
            if not flags & os.O_EXCL or not self._is_there(path):
                self._write(path)
        else:
            self._read(path)

    def _is_there(self, path: Any) -> bool:
        """Whether what must not be there is there: then nothing is written, and that is what was asked."""
        place = self._project.place(path)
        if place is None or not is_there(place):
            return False
        self._sink.asked(place)
        return True

    def _read(self, path: Any) -> None:
        place = self._project.place(path)
        if place is not None and is_curious(sys._getframe(1), self._project.is_users, _READING_FILES):
            self._sink.read(place)
            if type(path) is str and path[:1] == "/":
                self._opened_before.add(path)

    def _write(self, path: Any) -> None:
        place = self._project.place(path)
        if place is not None:
            self._opened_before.discard(place)
            self._sink.wrote(place)

    def _listed(self, path: Any = ".") -> None:
        self._names(path, self._sink.listed)

    def _scanned(self, path: Any = ".") -> None:
        self._names(path, self._sink.scanned)

    def _names(self, path: Any, note: Callable[[str], None]) -> None:
        if self._asking:
            place = self._project.place("." if path is None else _joined(path, None))
            if place is not None and is_curious(sys._getframe(2), self._project.is_users):
                note(place)

    def _asked(self, path: Any, *_: Any, dir_fd: int | None = None, **__: Any) -> None:
        if not self._asking or (type(path) is str and path in self._asked_before):
            return
        place = self._project.place(_joined(path, dir_fd) if dir_fd is not None else path)
        if place is not None and is_curious(sys._getframe(1), self._project.is_users):
            self._sink.asked(place)
            if type(path) is str and path[:1] == "/":
                self._asked_before.add(path)

    def _examined(self, path: Any, *_: Any, dir_fd: int | None = None, **__: Any) -> None:
        frame = sys._getframe(2)  # behind the wrapper
        if _asks_what_is_there(frame, self._project.is_users):
            self._asked(path, dir_fd=dir_fd)
        elif self._asking:
            place = self._project.place(_joined(path, dir_fd) if dir_fd is not None else path)
            if place is not None and is_curious(frame, self._project.is_users):
                self._sink.examined(place)

    def _changed(self, path: Any, *_: Any, dir_fd: int | None = None, **__: Any) -> None:
        self._write(_joined(path, dir_fd))

    def _moved(self, src: Any, dst: Any, *_: Any, **fds: Any) -> None:
        self._write(_joined(src, fds.get("src_dir_fd")))
        self._write(_joined(dst, fds.get("dst_dir_fd", fds.get("dir_fd"))))

    def _connected(self, database: Any, *_: Any, uri: bool = False, **__: Any) -> None:
        if isinstance(database, str) and uri and database.startswith("file:"):
            database = database[5:].partition("?")[0]
        if database != ":memory:":
            self._write(database)


def _is_users_own(file: str, is_users: Callable[[str], bool]) -> bool:
    """Whether code is from a file of the user's; what has no file, or is frozen, is not."""
    return os.path.isabs(file) and is_users(file)


def _joined(path: Any, folder: int | None) -> Any:
    """A path relative to an open folder, or an open folder itself, by its name where that can be had."""
    try:
        if isinstance(path, int):
            return procfs.target(path)
        if folder is not None:
            return os.path.join(procfs.target(folder), os.fsdecode(path))
    except OSError:
        return None
    return path


def _asks_what_is_there(frame: FrameType | None, is_users: Callable[[str], bool]) -> bool:
    """Whether a call of `stat` comes from a function that tells its caller no size and no time."""
    while frame is not None:
        name: str = frame.f_globals.get("__name__") or ""
        if name.partition(".")[0] not in _TRANSPARENT or _is_users_own(frame.f_code.co_filename, is_users):
            return False
        if frame.f_code.co_name in _EXISTENCE:
            return True
        frame = frame.f_back
    return False


def is_curious(
    frame: FrameType | None, is_users: Callable[[str], bool], behalf: tuple[str, ...] = _READING_DATA
) -> bool:
    """Whether a call comes from the application, or from a library on its behalf.

    Args:
        is_users: whether a file is one of the user's, who may call a package `coverage`, too.
        behalf: how names of modules begin that ask for their callers, though their package does not.
    """
    lines = False
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        first = name.partition(".")[0]
        if first in _KNOWN and _is_users_own(frame.f_code.co_filename, is_users):
            return True
        if first == "linecache":
            lines = True
        elif first == "inspect":
            if not lines or frame.f_code.co_name == "getframeinfo":
                return False  # where a text is, or the lines around a call, as in a traceback
        elif first in _INCURIOUS:
            if name.startswith(_READING_FOR_THE_APPLICATION):
                return True
            if name != __name__ and not name.startswith(behalf):
                return False
        elif first not in _TRANSPARENT:
            return True
        frame = frame.f_back
    return False
