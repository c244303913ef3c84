"""What a process must not have when it is forked, or its copies would share what cannot be shared.

A thread is in one process only; the offset of an open file, a lock or a connection would be in both;
what is to be done at exit would be done by each. As long as one of these is there no checkpoint is
made. What is known to survive a fork is allowed: log files opened for appending, and the threads of
libraries that end them before a fork and start them again, as OpenBLAS does. Which threads these are is
not guessed: a trial fork shows it.

Only looks; refuses to know what follows. Linux.
"""

from __future__ import annotations

import _thread
import atexit
import fcntl
import os
import re
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sized
from functools import wraps
from time import monotonic, perf_counter
from typing import Any

from devserver import procfs
from devserver.loading.locks import Locks
from devserver.loading.variable import Variable
from devserver.process import WORKER
from devserver.process.ending import log_files
from devserver.process.forks import fork

_open, _listdir, _exists = open, os.listdir, os.path.exists  # an application may replace them

assert sys.platform == "linux"  # a type checker reads no further elsewhere

_HARMLESS_AT_EXIT = frozenset(
    {"logging", "concurrent", "multiprocessing", "weakref", "asyncio", "readline", "rlcompleter"}
    | {"colorama", "PIL", "matplotlib", "filelock"}
    | {"llvmlite", "numba", "zmq"}  # they note that the end has come
    # They end threads, and close what their process has opened.
    | {"pymongo", "clickhouse_connect", "sentry_sdk", "opentelemetry", "loguru"}
)
"""Modules, by the first part of their names, whose exit handlers may run once in each copy.

What such a handler has to close or to end, a connection, a file, a thread, is a barrier by itself.
"""

_HARMLESS_FINALIZERS = frozenset(
    {"django.dispatch.dispatcher", "celery.utils.dispatch.signal", "urllib3.connectionpool"}
    | {"numba.core.codegen", "numba.core.dispatcher", "numba.core.runtime.nrt"}
)
"""Modules whose finalizers only tidy up in memory: signals, pools of connections, compiled functions."""

_HARMLESS_THREADS = frozenset(("jemalloc_bg_thd",))
"""Threads that a copy can do without: jemalloc has handlers for forks, after which it does their work."""

_ENDING = 0.05
"""Seconds after which the kernel lists a thread no more that was waited for."""

_STARTING = 15e-6
"""Seconds; a process, or a native library's thread, is hardly started in less. If so it is named late."""

_HARMLESS_DEVICES = frozenset(
    ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
)

_WRITABLE_SHARED = re.compile(r"^\S+ rw.s .*$", re.MULTILINE)


_EPOLL = "anon_inode:[eventpoll]"
"""Where the descriptor of an event loop leads."""

_stat = os.stat  # while the application is loaded there is another, which notes what is asked


class Barriers:
    """Looks whether a fork is safe, cheaply first."""

    def __init__(self, ours: Iterable[int], variable: Variable | None = None) -> None:
        """
        Args:
            ours: descriptors that copies may share: the channel, listeners, standard streams.
            variable: is another one in some copies.
        """
        self._variable = variable
        self._ours = set(ours) | _descriptors()
        self._any = min(ours)  # descriptor that is open for certain
        self._at_exit = _exit_handlers()
        self._maps = _writable_maps()
        self._fork = os.fork
        # The second is behind `mkstemp` and `NamedTemporaryFile`.
        names = ("mkdtemp", "_mkstemp_inner" if hasattr(tempfile, "_mkstemp_inner") else "mkstemp")
        self._makers = {name: getattr(tempfile, name) for name in names}
        self._temporary: list[str] = []
        self._locks = Locks()
        self._around = self._threads_and_children()
        self._finalizer = -1  # the number of the newest that was looked at
        self._calm, self._found = self._sign(), ""
        self._asked = perf_counter()

    def start(self) -> None:
        """Begin to note what a look could not find.

        Temporary files and folders, since what removes them is most often a later statement; and what is to
        be called at forks.
        """
        for name, make in self._makers.items():
            setattr(tempfile, name, self._noting(make))
        self._locks.start()

    def _noting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(make)
        def noting(*args: Any, **named: Any) -> Any:
            made = make(*args, **named)
            self._temporary.append(os.fsdecode(made[1] if isinstance(made, tuple) else made))
            return made

        return noting

    def stop(self) -> None:
        """Note nothing any more."""
        for name, make in self._makers.items():
            setattr(tempfile, name, make)
        self._locks.stop()

    def held(self) -> bool:
        """Whether a lock is held that forbids a fork meanwhile. Some microseconds.

        Unlike what `look` finds it passes by itself, most often at the end of a statement.
        """
        return self._locks.held()

    def stirred(self) -> bool:
        """Whether something has come or gone since the last look: threads, descriptors, exit handlers...

        Some microseconds: to be asked at every tick, so that the statement can be named. Shared memory and
        tracers are seen by the next look only; processes and native threads late, if statements are quick.
        """
        now = perf_counter()
        if now - self._asked > _STARTING:
            self._around, self._asked = self._threads_and_children(), now
        sign, calm = self._sign(), self._calm
        # SQLAlchemy makes a finalizer for each model; a whole look takes a millisecond.
        stirred = sign != calm and (sign[:-1] != calm[:-1] or bool(self._found) or bool(self._finalizers()))
        if not stirred:
            self._calm = sign
        return stirred

    def _sign(self) -> tuple[object, ...]:
        fd = os.dup(self._any)
        os.close(fd)
        after_fork = sys.modules.get("multiprocessing.util")
        return (
            fd,  # the lowest that is free
            self._around,
            _thread._count(),
            atexit._ncallbacks(),
            len(getattr(after_fork, "_afterfork_registry", ())),  # locks are in it
            len(self._temporary),
            len(_file_locks()),
            _has_timer(),
            self._variable is not None and self._variable.asked,
            len(_finalizers()),
        )

    def _threads_and_children(self) -> tuple[int, bool]:
        return procfs.thread_count(), _has_children()

    def look(self) -> str:
        """What stands in the way of a fork now; "" for nothing. 0.1 to 0.5 ms; a trial takes some more."""
        self._finalizer = -1
        found = next(filter(None, (check() for check in self._checks())), "")
        self._around = self._threads_and_children()
        self._calm, self._found = self._sign(), found
        return found

    def inherited(self) -> str:
        """What a process would miss, or share, that is forked now and has come since: "" for nothing."""
        return self._threads() or self._children() or self._open_files() or self._finalizers()

    def _checks(self) -> tuple[Callable[[], str], ...]:
        return (
            self._tracer,
            self._threads,
            self._open_files,
            self._exit_handlers,
            self._finalizers,
            self._temporaries,
            self._children,
            self._timers,
            self._mappings,
            self._file_locks,
            self._asked_for,
        )

    def _tracer(self) -> str:
        if sys.gettrace() is not None or sys.getprofile() is not None or "pydevd" in sys.modules:
            return "a tracer, profiler or debugger"
        monitoring = getattr(sys, "monitoring", None)
        if monitoring is not None and any(monitoring.get_tool(tool) for tool in range(6)):
            return "a tool of sys.monitoring"
        return "" if os.fork is self._fork else "a replaced os.fork"

    def _threads(self) -> str:
        if threading.active_count() > 1:
            python = (t.name for t in threading.enumerate() if t is not threading.main_thread())
            return f"a thread ({', '.join(python)})"
        names = _native_threads()
        if names:
            _try_fork()
            end = monotonic() + _ENDING
            while (names := _native_threads()) and monotonic() < end:
                os.sched_yield()
        return f"threads of a native library ({', '.join(sorted({*names}))})" if names else ""

    def _open_files(self) -> str:
        logs, found = set(log_files()), ""
        for fd in sorted(_descriptors() - self._ours):
            try:
                status, path = os.fstat(fd), procfs.target(fd)
                flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            except OSError:
                continue  # closed meanwhile
            mode = status.st_mode
            appends = fd in logs and flags & os.O_APPEND and stat.S_ISREG(mode)
            if appends or path in _HARMLESS_DEVICES or os.isatty(fd) or stat.S_ISDIR(mode):
                continue
            if path == _EPOLL:
                return _event_loop()  # which has sockets as well
            kind = "socket" if stat.S_ISSOCK(mode) else "pipe" if stat.S_ISFIFO(mode) else f"file ({path})"
            found = found or f"an open {kind}"
        return found

    def _exit_handlers(self) -> str:
        for func in _exit_handlers():
            if not (func in self._at_exit or _is_harmless(func)):
                return f"an exit handler ({_module(func)}.{getattr(func, '__qualname__', '?')})"
        return ""

    def _finalizers(self) -> str:
        """Looks at those only that have come since it was asked last."""
        newest = self._finalizer
        for info in reversed(list(_finalizers().values())):
            if info.index <= newest:
                break
            self._finalizer = max(self._finalizer, info.index)
            if info.atexit and _module(info.func) not in _HARMLESS_FINALIZERS:
                return f"a finalizer ({getattr(info.func, '__qualname__', info.func)})"
        return ""

    def _temporaries(self) -> str:
        return next((f"a temporary file ({path})" for path in self._temporary if _exists(path)), "")

    def _children(self) -> str:
        return "a child process" if _has_children() else ""

    def _timers(self) -> str:
        return "a timer" if _has_timer() else ""

    def _mappings(self) -> str:
        more = _writable_maps() - self._maps
        if any(path.startswith("/dev/shm/sem.") for path in more):
            return "a lock of multiprocessing"
        return f"shared memory ({min(more)})" if more else ""

    def _file_locks(self) -> str:
        """Locks of filelock, version 4: they refuse to be used in a copy, whether they are held or not."""
        return "a lock of filelock" if len(_file_locks()) else ""

    def _asked_for(self) -> str:
        asked = self._variable is not None and self._variable.asked
        return f"reading {WORKER}, which is another one in each worker," if asked else ""


def _event_loop() -> str:
    """An event loop that was made, and who did so if that is known."""
    if "daphne" in sys.modules:
        return (
            "an event loop (daphne's, by twisted; leave daphne out of INSTALLED_APPS:"
            " with channels there, or --asgi, ASGI is served without it)"
        )
    return "an event loop (twisted's)" if "twisted.internet.reactor" in sys.modules else "an event loop"


class _Listener(list[Callable[..., Any]]):
    """Is equal to nothing, and keeps what it was compared with."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        self.append(other)  # type: ignore[arg-type] # exit handlers
        return False


def _exit_handlers() -> list[Callable[..., Any]]:
    """What is to be done at exit, however it was registered: `unregister` compares with each."""
    found = _Listener()
    atexit.unregister(found)  # type: ignore[arg-type] # nothing is unregistered
    return list(found)


def _is_harmless(func: Callable[..., Any]) -> bool:
    module = _module(func)
    if module == "openpyxl.worksheet._writer":  # it removes what is half written
        return not getattr(sys.modules[module], "ALL_TEMP_FILES", True)
    if module == "certifi.core":  # it ends what it does for packages in archives only
        core = sys.modules[module]
        return str(getattr(core, "_CACERT_PATH", "")).startswith(os.path.dirname(str(core.__file__)))
    if module == "huggingface_hub.utils._http":  # it closes a client, and does the same after each fork
        return True
    return module.partition(".")[0] in _HARMLESS_AT_EXIT


def _module(func: Callable[..., Any]) -> str:
    return str(getattr(func, "__module__", "") or type(getattr(func, "__self__", func)).__module__)


def _finalizers() -> Mapping[Any, Any]:
    """Those of `weakref.finalize` that live, in the order in which they were made."""
    weakref = sys.modules.get("weakref")
    known: Mapping[Any, Any] = getattr(getattr(weakref, "finalize", None), "_registry", {})
    return known


def _file_locks() -> Sized:
    """The locks of filelock that live, as far as its version knows of forks."""
    known: Sized = getattr(sys.modules.get("filelock._core._fork"), "_FORK_OBJECTS", ())
    return known


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _has_timer() -> bool:
    which = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    return any(signal.getitimer(timer)[0] for timer in which)


def _native_threads() -> list[str]:
    """The names of the threads besides the main one that a copy could not do without."""
    names = (name for number, name in procfs.thread_names().items() if number != os.getpid())
    return [name for name in names if name not in _HARMLESS_THREADS]


def _try_fork() -> None:
    """Fork for nothing: threads that end before each fork have ended afterwards.

    The application must not hear of it, even if it waits for the ends of its children.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
    except OSError:
        pass  # the application may ignore SIGCHLD; or there are too many processes
    finally:
        signal.sigtimedwait([signal.SIGCHLD], 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _descriptors() -> set[int]:
    return {fd for fd in procfs.descriptors() if _is_open(fd)}


def _is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _writable_maps() -> set[str]:
    return {line.split(None, 5)[-1].strip() for line in _WRITABLE_SHARED.findall(procfs.maps())}
