"""How processes of workers come to be, and how one hears of their ends.

There are two ways. `Forked` makes each a copy of the arbiter, which then loads the application for itself.
`Preloaded` makes a *loader* a copy of the arbiter; it loads the application once and forks the workers, which
share what it has loaded. Each renewal has a loader of its own, so that it loads the newest code. The arbiter
loads nothing in either case, and does not know which of them it has.

A worker's process is its parent's to wait for, and so is the right to signal it: only the parent knows for
certain whose number a process id is. So a loader signals its workers, and says which have ended.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn, Protocol

from devserver.process import await_end
from devserver.process.control import Channel, Closed, QueueingChannel
from devserver.process.reactor import Reactor
from devserver.process.signals import managing
from devserver.workers import words
from devserver.workers.pool import Worker
from devserver.workers.worker import Seat

assert sys.platform != "win32"  # see the arbiter; a type checker reads no further there

logger = logging.getLogger("devserver")

Born = Callable[[Worker, int], None]
"""Takes a worker and the process id that it has got."""

Gone = Callable[[Worker, int], None]
"""Takes a worker whose process has ended, and its exit code; negative for a signal."""


class Births(Protocol):
    """See the module. Everything is called in the arbiter's thread."""

    def begin(self, worker: Worker, theirs: socket.socket) -> None:
        """Have a worker's process begin.

        Args:
            theirs: its end of the channel; closed by the caller.

        Raises:
            OSError: no process can be started.
        """
        ...

    def signal(self, worker: Worker, pid: int, signum: int) -> None:
        """Send a signal to a worker's process. Args: pid: 0 if it has none yet."""
        ...

    def reap(self) -> None:
        """Some process has ended: look whose that was."""
        ...

    def pids(self) -> set[int]:
        """Children of this process."""
        ...

    def settle(self, epoch: int) -> None:
        """Have what is of no use any more end. Args: epoch: the newest renewal."""
        ...

    def close_listeners(self) -> None:
        """Have the listeners closed, apart from those of workers."""
        ...

    def let_go(self) -> None:
        """In a copy of this process: close what is not its own."""
        ...

    def close(self) -> None:
        """All workers have ended: so do those that began them."""
        ...


def fork(run: Callable[[], int], leave: Callable[[], None]) -> int:
    """Have a copy of this process run something, and exit with its result. Returns the process id.

    Args:
        leave: is called first in the copy: closes what is its parent's.

    Raises:
        OSError: there are too many processes.
    """
    # Who is signalled before it has handlers of its own would act as its parent.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, managing())
    try:
        pid = os.fork()
        if not pid:
            _be(run, leave, before)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be(run: Callable[[], int], leave: Callable[[], None], mask: set[signal.Signals | int]) -> NoReturn:
    """In a copy of a process: never return into what was its parent."""
    from devserver.process.ending import flush, flush_files, run_exit_handlers

    code = 1
    try:
        leave()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = run()
    except SystemExit as error:  # user code's; as the interpreter would
        code = error.code if isinstance(error.code, int) else 1
        if isinstance(error.code, str):
            logger.error("%s", error.code)
    except BaseException:  # a fault of ours
        logger.exception("a worker failed")
    finally:
        with suppress(BaseException):
            run_exit_handlers()
            flush()
            flush_files()
        os._exit(code)


class Forked:
    """Each worker is a copy of this process, and loads for itself. See `Births`."""

    def __init__(
        self, work: Callable[[Seat], int], leave: Callable[[], None], born: Born, gone: Gone
    ) -> None:
        """
        Args:
            work: what a worker does. Returns the exit code.
            leave: see `fork`.
        """
        self._work = work
        self._leave = leave
        self._born = born
        self._gone = gone
        self._living: dict[int, Worker] = {}

    def begin(self, worker: Worker, theirs: socket.socket) -> None:
        seat = Seat(worker.place, worker.slot, Channel(theirs))
        pid = fork(lambda: self._work(seat), self._leave)
        self._living[pid] = worker
        self._born(worker, pid)

    def signal(self, worker: Worker, pid: int, signum: int) -> None:
        if pid in self._living:  # until it has been waited for, the number is its own
            os.kill(pid, signum)

    def reap(self) -> None:
        for pid in list(self._living):
            if (code := _ended(pid)) is not None:
                self._gone(self._living.pop(pid), code)

    def pids(self) -> set[int]:
        return set(self._living)

    def settle(self, epoch: int) -> None:
        pass

    def close_listeners(self) -> None:
        pass

    def let_go(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass(slots=True, eq=False)
class _Loader:
    """A process that has loaded the application, or does so.

    Attributes:
        epoch: the renewal whose workers it forks.
        unborn: those that it was told to fork and has not, in order.
        living: those that it has forked, by their process ids.
        killed: those that it was told to kill.
        over: it was told to end.
    """

    epoch: int
    pid: int
    channel: QueueingChannel
    unborn: deque[Worker] = field(default_factory=deque)
    living: dict[int, Worker] = field(default_factory=dict)
    killed: set[Worker] = field(default_factory=set)
    over: bool = False


class Preloaded:
    """Workers are copies of a process that has loaded the application. See `Births`."""

    def __init__(
        self,
        load: Callable[[Channel], int],
        leave: Callable[[], None],
        reactor: Reactor,
        born: Born,
        gone: Gone,
    ) -> None:
        """
        Args:
            load: what a loader does: its end of the channel. Returns the exit code.
            leave: see `fork`.
        """
        self._load = load
        self._leave = leave
        self._reactor = reactor
        self._born = born
        self._gone = gone
        self._loaders: list[_Loader] = []
        self._adopted: dict[int, Worker] = {}  # their loader was killed; Linux makes them our own children

    def begin(self, worker: Worker, theirs: socket.socket) -> None:
        usable = (each for each in self._loaders if each.epoch == worker.epoch and not each.over)
        loader = next(usable, None) or self._begin_loader(worker.epoch, theirs)
        loader.unborn.append(worker)
        message = {"word": words.FORK, "place": worker.place, "slot": worker.slot}
        with suppress(Closed):  # its end is reported by a signal
            loader.channel.send(message, [theirs.fileno()])

    def _begin_loader(self, epoch: int, of_worker: socket.socket) -> _Loader:
        ours, theirs = socket.socketpair()

        def leave() -> None:
            self._leave()
            ours.close()
            of_worker.close()  # it comes by the channel, as that of any other

        try:
            pid = fork(lambda: self._load(Channel(theirs)), leave)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        loader = _Loader(epoch, pid, QueueingChannel(ours))
        self._loaders.append(loader)
        self._reactor.add(loader.channel, partial(self._heard, loader), loader.channel)
        return loader

    def _heard(self, loader: _Loader) -> None:
        try:
            for message, _ in loader.channel.receive():
                pid = message["pid"]
                if message["word"] == words.FORKED:
                    worker = loader.living[pid] = loader.unborn.popleft()
                    self._born(worker, pid)
                else:
                    self._gone(loader.living.pop(pid), message["code"])
        except Closed:
            self._reactor.remove(loader.channel)

    def signal(self, worker: Worker, pid: int, signum: int) -> None:
        if pid in self._adopted:
            os.kill(pid, signum)
        for loader in self._loaders:
            is_unborn = worker in loader.unborn
            if is_unborn and not loader.living:  # it loads, and hears nothing
                os.kill(loader.pid, signum)
            elif is_unborn or pid in loader.living:
                if worker in loader.killed:  # it stands still. Without it, those that it has forked are ours
                    os.kill(loader.pid, signal.SIGKILL)
                elif signum == signal.SIGKILL:
                    loader.killed.add(worker)
                with suppress(Closed):
                    loader.channel.send({"word": words.SIGNAL, "pid": pid, "signum": signum})

    def reap(self) -> None:
        for loader in list(self._loaders):
            if (code := _ended(loader.pid)) is not None:
                self._lost(loader, code)
        for pid in list(self._adopted):
            if (code := _ended(pid)) is not None:
                self._gone(self._adopted.pop(pid), code)

    def _lost(self, loader: _Loader, code: int) -> None:
        self._heard(loader)  # its last words
        self._reactor.remove(loader.channel)
        loader.channel.close()
        self._loaders.remove(loader)
        self._adopted.update(loader.living)
        for worker in loader.unborn:
            self._gone(worker, code)

    def pids(self) -> set[int]:
        return {*self._adopted, *(loader.pid for loader in self._loaders)}

    def settle(self, epoch: int) -> None:
        for loader in self._loaders:
            if loader.epoch != epoch and not (loader.over or loader.unborn or loader.living):
                self._end(loader)

    def _end(self, loader: _Loader) -> None:
        loader.over = True
        with suppress(Closed):
            loader.channel.send({"word": words.END})

    def close_listeners(self) -> None:
        for loader in self._loaders:
            with suppress(Closed):
                loader.channel.send({"word": words.CLOSE})

    def let_go(self) -> None:
        for loader in self._loaders:
            loader.channel.close()

    def close(self) -> None:
        for loader in self._loaders:
            self._end(loader)
        await_end({loader.pid for loader in self._loaders})


def _ended(pid: int) -> int | None:
    """The exit code of a child, if it has ended."""
    with suppress(ChildProcessError):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
    return None
