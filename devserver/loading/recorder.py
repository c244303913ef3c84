"""Records what loading the application reads, and runs no module from a .pyc of an older text.

Three instruments. A `Finder` that stands directly before `PathFinder` (so a user's `time.py` does not
replace the built-in) notes each name that was looked for. `SourceFileLoader.get_code` is replaced, so
that each user module is noted before it is executed, whoever made its loader (an editable install,
`runpy`, a plug-in system); modules keep the loader that they would have without us. `Reads` notes the
rest.

An entry is reported *before* the module is executed: whoever watches knows what a process was about
to read even if it then hangs or dies. Knows no processes; entries leave through a callable, and none
from a process that the application has forked.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.machinery import PathFinder, SourceFileLoader
from time import sleep, time, time_ns
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

from devserver.loading.bytecode import is_believable, keep, read_source
from devserver.loading.finder import Finder
from devserver.loading.reads import Reads, disguise, is_curious
from devserver.watching.answers import (
    OWN,
    Entry,
    Fingerprint,
    Question,
    digest_of,
    file_entry,
    fingerprint_at,
    is_racy,
    links_in,
    list_entry,
    mode_of,
    module_place,
    path_entry,
    read_entry,
)
from devserver.watching.project import Project

HALF_WRITTEN = 0.1
"""Seconds for which a file may be one that is still being written."""

STATIC = (".css", ".js", ".map", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".ico", ".webp", ".avif",
          ".woff", ".woff2", ".ttf", ".otf", ".eot", ".mp3", ".mp4", ".webm", ".pdf")  # fmt: skip
"""What a request reads without its change needing a restart."""

_stat, _open, _fdopen = os.stat, os.open, os.fdopen


class Recorder:
    """Reports what is read, once for each question."""

    def __init__(self, report: Callable[[Entry], None], roots: Iterable[str]) -> None:
        """
        Args:
            report: takes each entry, in any thread.
            roots: folders of the project. Data counts below these; user modules count anywhere.
        """
        self._report = report
        self.project = Project(roots)
        self._reads = Reads(self.project, self)
        self._seen: set[tuple[Question, str]] = set()
        self._written: set[str] = set()
        self._back: set[str] = set()  # of these the ones that were read then
        self._examined: set[str] = set()
        self._scanned: set[str] = set()
        self._executed: set[str] = set()
        self._repeated: set[str] = set()
        self._as_data: set[str] = set()
        self._loaded: frozenset[tuple[Question, str]] = frozenset()
        self._racy: list[tuple[str, Fingerprint, str]] = []
        self._found: dict[str, Entry] = {}
        self._finder = Finder(self)
        self._newest = "", 0
        self._late = False
        self._pid = os.getpid()
        self._originals: dict[str, Any] = {}

    # when

    def start(self) -> None:
        """Begin to record everything."""
        finders: list[Any] = sys.meta_path
        finders.insert(finders.index(PathFinder) if PathFinder in finders else len(finders), self._finder)
        for name, made in (("get_code", _get_code_for), ("get_data", _get_data_for)):
            self._originals[name] = getattr(SourceFileLoader, name)
            setattr(SourceFileLoader, name, made(self, self._originals[name]))
        self.note_loaded()
        self._reads.start()

    def loaded(self) -> None:
        """The application is loaded: from now on only record modules and files that are opened."""
        self._late = True
        self._loaded = frozenset(self._seen)
        self.tell_found()
        self._reads.quieten()
        self.note_loaded(late=True)

    def stop(self) -> None:
        """Put everything back."""
        self._reads.stop()
        for name in self._originals:
            delattr(SourceFileLoader, name)  # both are inherited
        self._originals.clear()
        if self._finder in sys.meta_path:
            sys.meta_path.remove(cast("Any", self._finder))

    def settle(self) -> bool:
        """Whether something was read half-written; to be asked before a failure is shown.

        Waits until what was younger than `HALF_WRITTEN` when it was read is so no more. If its bytes
        are others then, the failure says nothing, and a change will follow.
        """
        racy = [each for each in self._racy if each[0] not in self._written]
        for _, fingerprint, _ in racy:
            _wait_until_written(fingerprint)
        return any(read_entry(path).answer != answer for path, _, answer in racy)

    # what

    def record(self, entry: Entry) -> None:
        """Report an entry unless its question was asked before."""
        self.tell_found()
        key = entry.kind, entry.path
        if key not in self._seen:
            self._seen.add(key)
            if entry.fingerprint and entry.answer and entry.kind is Question.FILE:
                self._racy.append((entry.path, entry.fingerprint, entry.answer))
            if os.getpid() == self._pid:
                self._report(entry)

    def found(self, origin: str, entry: Entry) -> None:
        """A module was looked up and found; most often its file is executed next, and tells this, too."""
        self.tell_found()
        self._found[origin] = entry

    def tell_found(self) -> None:
        """Report what was found and then not executed."""
        while self._found:
            try:
                _, entry = self._found.popitem()
            except KeyError:
                return  # another thread has taken it
            self.record(entry)

    def is_new(self, kind: Question, path: str) -> bool:
        """Whether a question has not been asked before."""
        return (kind, path) not in self._seen

    def was_loaded(self, path: str) -> bool:
        """Whether a file was read before the application served."""
        return (Question.FILE, path) in self._loaded

    def was_executed_once(self, path: str) -> bool:
        """Whether nothing has come of a module's text but what its one execution has done so far.

        A module may look at its own text, beyond what was executed; one that is executed again, or within
        itself, has already done what comes in its text later.
        """
        return path not in self._as_data and path not in self._repeated

    def file(self, path: str) -> None:
        """A file is about to be read, wherever it is."""
        path = os.path.abspath(path)
        if not self.is_new(Question.FILE, path):
            return
        mode, fingerprint = mode_of(path), fingerprint_at(path)
        if stat.S_ISDIR(mode):
            self.listed(path)
        elif fingerprint is None:
            self.asked(path)
        elif stat.S_ISREG(mode):
            # Who watches takes the digest. Of a racy file at once: its stamps prove nothing.
            self.record(file_entry(path, time_ns()))

    def module(
        self, path: str, fingerprint: Fingerprint, data: bytes | None = None, *, late: bool = False
    ) -> None:
        """A module is about to be executed, or has been (`late`); with its text if it is at hand."""
        entry = Entry(Question.FILE, path, None if data is None else digest_of(data), fingerprint, late=late)
        found = self._found.pop(path, None)
        if found is not None and found.path == module_place(path) and self.is_new(Question.FILE, path):
            self._seen.add((Question.NAME, found.path))
            entry.names = found.answer
        elif found is not None:  # its text was read before, as data
            self.record(found)
        if path in self._executed:
            self._repeated.add(path)
        self._executed.add(path)
        if path in self._written:
            self._written.discard(path)
            self._seen.discard((Question.FILE, path))
        self.record(entry)

    # what `Reads` notes

    def read(self, path: str) -> None:
        """See `reads.Sink`."""
        self._as_data.add(path)
        if path in self._written:
            self._read_back(path)
        elif not (self._late and path.endswith(STATIC)):
            self.file(path)

    def _read_back(self, path: str) -> None:
        """A file that was written before is about to be read; what comes to be in it matters at a restart."""
        if not self._late and path not in self._back:
            self._back.add(path)
            fingerprint = fingerprint_at(path)
            if fingerprint is not None:
                self._seen.discard((Question.FILE, path))
                self.record(replace(file_entry(path, time_ns()), own=True))

    def listed(self, path: str) -> None:
        """See `reads.Sink`."""
        if self.is_new(Question.LIST, path):
            self.record(list_entry(path))

    def scanned(self, path: str) -> None:
        """See `reads.Sink`. Whether a name is a file or a folder it says by being read or listed next."""
        if path not in self._scanned:
            self._scanned.add(path)
            for link in links_in(path):
                self.asked(link)
        self.listed(path)

    def asked(self, path: str) -> None:
        """See `reads.Sink`."""
        if self.is_new(Question.PATH, path) and path not in self._written:
            self.record(path_entry(path))

    def examined(self, path: str) -> None:
        """See `reads.Sink`. A size that was asked for is kept, and is wrong when the file has another.

        WhiteNoise, for one, answers each request for an asset with the length that it had at the start.
        """
        if path not in self._examined and path not in self._written:
            self._examined.add(path)
            if stat.S_ISREG(mode_of(path)):
                self.file(path)
            self._seen.discard((Question.PATH, path))
            self.record(replace(path_entry(path), fingerprint=fingerprint_at(path)))

    def wrote(self, path: str) -> None:
        """See `reads.Sink`. What was executed stays what it is: it would run otherwise now."""
        if path not in self._written and path not in self._executed:
            self._written.add(path)
            self._seen.discard((Question.FILE, path))
            self.record(Entry(Question.FILE, path, OWN))

    def sqlite(self) -> None:
        """`_sqlite3` has been loaded."""
        self._reads.wrap_sqlite()

    def forked(self) -> None:
        """This process is a copy of the one that has recorded until now, and goes on with it."""
        self._pid = os.getpid()

    def resumed(self) -> None:
        """It goes on from a checkpoint: what was read before has been judged."""
        self._racy.clear()

    def again(self, path: str, fingerprint: Fingerprint, data: bytes) -> None:
        """A module goes on with a newer text."""
        self._seen.discard((Question.FILE, path))
        self.record(Entry(Question.FILE, path, digest_of(data), fingerprint))

    def restate(self, entry: Entry) -> None:
        """What was read is known better by now."""
        self._report(entry)

    def note_loaded(self, *, late: bool = False) -> None:
        """Note the modules that came by ways of their own since this was called last."""
        for module in self._newly_loaded():
            try:
                # Not `module.__file__`: a module's own `__getattr__` is user code, and so may this be.
                path = object.__getattribute__(module, "__dict__").get("__file__")
            except Exception:
                continue
            if isinstance(path, str) and self.project.is_users(path := os.path.abspath(path)):
                fingerprint = fingerprint_at(path)
                if fingerprint is not None and self.is_new(Question.FILE, path):
                    self.module(path, fingerprint, late=late)

    def _newly_loaded(self) -> list[ModuleType]:
        """The modules behind the one that was the newest when this was asked last.

        To touch an object is to copy a page of memory, in a process that goes on from a checkpoint, and
        there are thousands of modules. So they are gone through from the newest back.
        """
        newest, new = self._newest, list[tuple[str, ModuleType]]()
        try:
            for name, module in reversed(sys.modules.items()):
                if (name, id(module)) == newest:
                    break
                new.append((name, module))
        except RuntimeError:  # another thread imports something
            new = list(sys.modules.items())[::-1]
        if new:
            self._newest = new[0][0], id(new[0][1])
        # What is run as a script takes the place of what was there under that name.
        script = [sys.modules["__main__"]] if "__main__" in sys.modules else []
        return [*script, *(module for _, module in reversed(new))]


def _get_code_for(recorder: Recorder, original: Callable[[Any, str], Any]) -> FunctionType:
    """What stands for `SourceFileLoader.get_code`."""
    is_users = recorder.project.is_users

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        path = os.path.abspath(self.get_filename(fullname))
        fingerprint = fingerprint_at(path)
        if fingerprint is None or not is_users(path):
            if fingerprint is None and recorder.project.place(path) is not None:
                recorder.asked(path)  # the import will fail, and may be expected to
            return cast("CodeType | None", original(self, fullname))
        if not is_racy(fingerprint, time_ns()) and is_believable(path, fingerprint):
            recorder.module(path, fingerprint)
            return cast("CodeType | None", original(self, fullname))
        data, fingerprint = read_source(path)
        while True:
            try:
                # By the loader's own method: what instruments modules overrides it.
                code: CodeType = self.source_to_code(data, path)
                break
            except SyntaxError:
                before = fingerprint
                if _wait_until_written(fingerprint):
                    data, fingerprint = read_source(path)
                if fingerprint == before:
                    recorder.module(path, fingerprint, data)
                    raise
        recorder.module(path, fingerprint, data)
        if type(self) is SourceFileLoader and not is_racy(fingerprint, time_ns()):
            keep(self, path, fingerprint, code)
        return code

    return disguise(cast("FunctionType", get_code), "<frozen importlib._bootstrap_external>")


def _get_data_for(recorder: Recorder, original: Callable[[Any, str], bytes]) -> FunctionType:
    """What stands for `SourceFileLoader.get_data`: `pkgutil.get_data` and `get_source` read by it."""

    def get_data(self: SourceFileLoader, path: str) -> bytes:
        frame = sys._getframe(1)
        reader = frame.f_back if frame.f_code.co_name == "get_source" else frame
        place = None if path.endswith(".pyc") else recorder.project.place(path)
        if place is not None and (is_curious(reader, recorder.project.is_users) or not path.endswith(".py")):
            recorder.read(place)
        return original(self, path)

    return disguise(cast("FunctionType", get_data), "<frozen importlib._bootstrap_external>")


def _wait_until_written(fingerprint: Fingerprint) -> bool:
    """Wait until a file is older than `HALF_WRITTEN`; whether it was not."""
    age = time() - max(fingerprint[0], fingerprint[1]) / 1e9
    if 0 <= age < HALF_WRITTEN:
        sleep(HALF_WRITTEN - age)
        return True
    return False
