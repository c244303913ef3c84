"""Checkpoints: a process that loads leaves copies of itself behind, each to go on from where it stands.

At a tick between two statements the process forks. One half waits there for the word to go on; the
other goes on at once. The half that waits is a small supervisor: told to *resume* it looks whether
what it had executed of each unfinished module stands unchanged in the newest text, and if so forks
again, and that copy goes on with the files as they are now. What is executed after the word is what a
fresh process would execute there, over the state that a fresh process would have there.

A fork of a large process takes its time. So where the next edit is likely a copy is *prepared*, ahead of
the word: it waits for it, too, makes ready what it can meanwhile, and goes on itself.

Each fork is double, and the half between ends at once: so every process is the supervisor's own child
(it is their *subreaper*), and none has to wait for another.

A waiting half and a copy speak on the channel of the half that was forked. Their words stand in `protocol`.

Linux. Knows neither the machine nor which files have changed.
"""

from __future__ import annotations

import ctypes
import linecache
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any, NoReturn, Protocol

from devserver.cpython import invalidate_caches
from devserver.loading import gc_freeze, prefault
from devserver.loading.modules import Stepping
from devserver.loading.recorder import Recorder
from devserver.loading.rng import RandomStates
from devserver.loading.ticks import Execution, Text, Ticker, can_go_on
from devserver.loading.variable import Variable
from devserver.process import WORKER
from devserver.process.control import Channel, Closed
from devserver.process.ending import fileno, flush
from devserver.process.forks import fork
from devserver.process.serializer import Serializer
from devserver.reload import protocol
from devserver.reload.protocol import END, Mark
from devserver.warm.policy import Policy
from devserver.watching.answers import Entry, Fingerprint, fingerprint_of, identity_at

_open = open  # an application may replace them

assert sys.platform == "linux"  # a type checker reads no further elsewhere

PLACES = "_DEVSERVER_CHECKPOINTS"
"""Names the variable by which tests ask for checkpoints at each statement, or exactly at marked ones; see
`Policy`. It is not an option: it costs more than it saves."""


class Process(Protocol):
    """This process as a child, as far as a checkpoint must know it.

    Attributes:
        channel: to the supervisor; replaced in each new half.
        pid: of this process, replaced likewise.
        place: which of several workers it is; 0 if there is one.
    """

    channel: Channel
    pid: int
    place: int

    @property
    def sayings(self) -> Serializer[Any]:
        """What it says, one after the other."""
        ...

    def say(self, word: protocol.Said, fds: Sequence[int] = ()) -> None:
        """Tell the supervisor something."""


class Checkpoints:
    """Makes this process leave checkpoints while it loads. See the module."""

    def __init__(
        self,
        this: Process,
        recorder: Recorder,
        marks: Iterable[Mark],
        turn: Callable[[protocol.ShowPage], NoReturn],
        ahead: Callable[[Callable[[], bool]], None],
    ) -> None:
        """
        Args:
            this: whose channel is replaced in each new half.
            recorder: goes on in each new half.
            marks: statements before which a checkpoint is wanted.
            turn: is the page's process from now on, as it is told.
            ahead: what a prepared copy may do, while the callable that it is given says False.
        """
        from devserver.loading.barriers import Barriers  # a module that is there on Linux only

        self.ticker = Ticker(self._at)
        self._this = this
        self._recorder = recorder
        self._stepping = Stepping(recorder, self.ticker)
        self._marks = set(marks)
        self._turn = turn
        self._ahead = ahead
        self._variable = Variable(WORKER) if this.place else None
        self._barriers = Barriers([this.channel.fileno()], self._variable)
        self._random = RandomStates()
        self._reread: list[tuple[str, Fingerprint, bytes]] = []
        self._touched: list[Entry] = []
        self._policy = Policy(perf_counter(), os.environ.get(PLACES, ""))
        self._on = self._pristine = False
        self._passed: Mark = "", 0
        self._left: tuple[Execution, int] | None = None  # where the last checkpoint was made
        self._obstacle = ""
        self._raised: tuple[Mark, tuple[str, int] | None] = self._passed, None
        self._told = False

    def start(self) -> None:
        """Make a checkpoint where nothing of the user's has been executed, and others on the way."""
        self._barriers.start()
        if self._variable is not None:
            self._variable.start()
        self._random.start()
        self.ticker.install()
        self._stepping.start()
        self._on = self._pristine = True
        self._leave()
        self._pristine = False

    def stop(self) -> None:
        """Make one last checkpoint, if it is worth it, and no more."""
        marked = END in self._marks
        if self._on and self._policy.wants(perf_counter(), marked=marked):
            self._leave(END[0] if marked else "")
        elif self._on and (self._obstacle or self._barriers.stirred()) and not self._look():
            self._tell()
        self._on = False
        self._barriers.stop()
        if self._variable is not None:
            self._variable.stop()
        self._random.stop()
        self._stepping.stop()
        self.ticker.uninstall()

    def place(self) -> Mark | None:
        """The statement that is being executed; None if it is none of those that are followed."""
        return (
            (self.ticker.stack[-1].path, self.ticker.stack[-1].index)
            if self._on and self.ticker.stack
            else None
        )

    def _at(self, execution: Execution) -> None:
        if not self._on or (execution, execution.index) == self._left:
            return  # a newer text goes on with the very statement before which this process has waited
        now = perf_counter()
        begins, execution.begins = execution.begins, False
        marked = (execution.path, execution.index) in self._marks or (
            begins and (execution.path, -1) in self._marks
        )
        if self._barriers.stirred():
            self._look()
        if self._policy.wants(now, marked=marked):
            self._leave(execution.path if marked else "")
        if not self._obstacle:
            self._passed = execution.path, execution.index

    def _look(self) -> bool:
        """Whether nothing stands in the way of a fork. Notes since when."""
        obstacle = self._barriers.look()
        if obstacle and not self._obstacle:
            self._raised = self._passed, _last_statement(self.ticker.stack)
        self._obstacle = obstacle
        return not obstacle

    def _tell(self) -> None:
        """Say what stands in the way of checkpoints that are wanted, once."""
        if not self._told:
            self._told = True
            mark, statement = self._raised
            self._this.say(protocol.Barrier(self._obstacle, mark, statement))

    def _leave(self, marked: str = "") -> None:
        """Fork, unless something stands in the way; returns in the half that goes on.

        Args:
            marked: the module for whose edit a checkpoint is wanted here, or `END`'s name.
        """
        if self._barriers.held():
            return  # until the first tick at which nobody holds it
        self._policy.begins(perf_counter())
        if os.getpid() != self._this.pid:
            self._on = False  # the application has forked, and this is its child: our channel is not for it
            return
        if self._this.sayings.busy:
            return  # a finalizer or a signal's handler imports; a copy would say the rest, too
        if not self._look():
            self._tell()
            return
        self._recorder.tell_found()  # what was asked before is to be known before
        self._recorder.note_loaded()
        for execution in self.ticker.stack:
            execution.keep(execution.read())  # what was compiled, whatever the file is by now
        _write_out()
        stack = [(e.path, e.line) for e in self.ticker.stack]
        at = [(e.path, e.index) for e in self.ticker.stack[-1:]]
        self._left = (self.ticker.stack[-1], self.ticker.stack[-1].index) if self.ticker.stack else None
        self._random.keep()
        gc_freeze.freeze()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        copied = self._fork(lambda pid: protocol.Left(pid, stack, at, self._policy.seconds, marked))
        if copied:
            self._random.restore()
            self._policy.made(perf_counter())
        elif copied is not None:
            self._wait()
            self._random.renew()
            self._recorder.resumed()
        self._recorder.forked()
        for module in self._reread:
            self._recorder.again(*module)
        for entry in self._touched:
            self._recorder.restate(entry)
        self._reread, self._touched = [], []
        self._policy.goes_on(perf_counter())
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _fork(
        self, what: Callable[[int], protocol.Said], can: Callable[[], bool] = lambda: True
    ) -> bool | None:
        """Make a copy that is a child of the supervisor. True in the copy, which has a channel of its own.

        None where none could be made.

        Args:
            what: makes the word about it from its process id.
            can: asked in the half between; the copy inherits what it has done.
        """
        try:
            between = fork()
        except OSError:
            return None  # there are too many processes
        if between:
            with suppress(ChildProcessError):  # the application may ignore SIGCHLD
                if os.waitpid(between, 0)[1]:
                    self._this.say(protocol.Lost())
                    return None
            return False
        this = self._this
        try:
            if not can():
                this.say(protocol.Unfit())
                os._exit(0)
            ours, theirs = socket.socketpair()
            hold, release = os.pipe()
            pid = fork()
            if pid:
                # Said before this half ends: an orphan that nobody has announced would be killed.
                this.say(what(pid), [theirs.fileno()])
                os._exit(0)
        except BaseException:
            os._exit(1)
        theirs.close()
        this.pid = os.getpid()
        os.close(release)
        os.read(hold, 1)  # until that half has ended: what comes of this copy is announced later than it
        os.close(hold)
        # By the same number, which is known to be ours.
        fd = this.channel.socket.detach()
        os.dup2(ours.fileno(), fd, inheritable=False)
        ours.close()
        this.channel = Channel(socket.socket(fileno=fd))
        return True

    # the half that waits

    def _wait(self) -> None:
        """Wait for the word. Returns only in a copy that goes on."""
        while True:
            match self._word():
                case protocol.Resume() as word:
                    copied = self._fork(protocol.Resumed, partial(self._renew, word))
                    if copied:
                        return
                    if copied is None:
                        self._this.say(protocol.Unfit())
                case protocol.Prepare() as word:
                    if self._fork(protocol.Prepared):
                        self._stand_by(word)
                        return
                case protocol.ShowPage() as word:
                    copied = self._fork(protocol.ShowsPage) if self._pristine else None
                    if copied:
                        self._show(word)
                    if copied is None:
                        self._this.say(protocol.Unfit())

    def _word(self) -> protocol.Told:
        try:
            return protocol.told(self._this.channel.receive_one()[0])
        except Closed:
            os._exit(0)

    def _stand_by(self, how: protocol.Prepare) -> None:
        """In a copy that was made ahead: go on at the word, or end. See `prefault.take_after`."""
        try:
            prefault.take_after(how.like, how.most)
            self._ahead(lambda: self._this.channel.wait(0))
            word = self._word()
            while signal.sigtimedwait(signal.valid_signals(), 0):
                pass  # what was sent to everybody meanwhile was not for the one that it becomes now
            fit = isinstance(word, protocol.Resume) and self._renew(word)
        except BaseException:
            os._exit(1)  # below are frames of the user's, which must not hear of it
        self._this.say(protocol.Resumed(os.getpid()) if fit else protocol.Unfit())
        if not fit:
            os._exit(0)

    def _show(self, word: protocol.ShowPage) -> NoReturn:
        """Put everything back, and show why nothing is served."""
        self._on = False
        self.stop()
        self._recorder.stop()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        self._turn(word)

    def _renew(self, word: protocol.Resume) -> bool:
        """Whether what was executed stands in the newest texts; if so go on with these."""
        marks = [(path, number) for path, number in word.marks]
        if _logs_elsewhere():
            return False
        reread: list[tuple[Execution, Fingerprint, bytes]] = []
        for execution in self.ticker.stack:
            old = execution.read()
            try:
                with _open(execution.path, "rb") as file:
                    data, fingerprint = file.read(), fingerprint_of(os.fstat(file.fileno()))
                reread.append((execution, fingerprint, data))
                if data == old:
                    continue
                if old is None or not self._recorder.was_executed_once(execution.path):
                    return False
                text, before = Text(data, execution.path), Text(old, execution.path)
                executed = execution.index + (execution is not self.ticker.stack[-1])
                if not can_go_on(before, text, executed):
                    return False
                execution.go_on_with(text, executed)
            except (OSError, SyntaxError):
                return False
            marks.append((execution.path, text.differs_at(before)))
        self._marks = set(marks)
        self._touched = [Entry.from_json(entry) for entry in word.touched]
        for execution, _, data in reread:
            execution.keep(data)
        self._reread = [(execution.path, fingerprint, data) for execution, fingerprint, data in reread]
        self._be(word.place)
        invalidate_caches()
        _forget_lines()
        return True

    def _be(self, place: int) -> None:
        """In a copy that goes on: be this one of several workers."""
        if place != self._this.place and self._variable is not None:
            self._this.place = place
            self._variable.set(str(place))
            self._on = False  # the first leaves checkpoints for all


def _last_statement(stack: list[Execution]) -> tuple[str, int] | None:
    """Path and line of the statement that was executed last, or is being executed; the innermost."""
    for execution in reversed(stack):
        if execution is not stack[-1]:
            return execution.path, execution.line
        data = execution.read() if execution.index else None
        if data is not None:
            return execution.path, Text(data, execution.path).tree.body[execution.index - 1].lineno
    return None


def _logs_elsewhere() -> bool:
    """Whether log files were renamed or removed: a fresh process would write into new ones."""
    for reference in list(vars(logging)["_handlerList"]):
        handler = reference()
        path, fd = getattr(handler, "baseFilename", None), fileno(getattr(handler, "stream", None))
        if path is not None and fd >= 0:
            status = os.fstat(fd)
            if identity_at(path) != (status.st_dev, status.st_ino):
                return True
    return False


def _forget_lines() -> None:
    """Have tracebacks show files as they are now.

    Sources without a file stay: what generates code (attrs, dataclasses of others) has put them there once.
    """
    with suppress(Exception):  # whatever an application may have put there
        for name, entry in list(linecache.cache.items()):
            if len(entry) > 1 and entry[1] is not None:  # the time of a file
                del linecache.cache[name]


def _write_out() -> None:
    """Empty the buffers of Python and C, or each copy would write what they hold.

    Of logging handlers only the streams: one that collects records would give them out, or drop them.
    """
    flush()
    for reference in list(logging._handlerList):  # type: ignore[attr-defined] # there is no other way
        with suppress(Exception):  # whatever a handler may write to
            reference().stream.flush()
    ctypes.CDLL(None).fflush(None)
