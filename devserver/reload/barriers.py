"""What a process must not have when it is forked, or its copies would share what cannot be shared.

A thread is in one process only; the offset of an open file, a lock or a connection would be in both;
what is to be done at exit would be done by each. Where one of these is found no checkpoint is made,
nor after it. What is known to survive a fork is allowed: log files opened for appending, and the
threads of OpenBLAS, which stops them before a fork and starts them again.

Only looks; refuses to know what follows. Linux.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from devserver.process.ending import log_files

assert sys.platform == "linux"  # a type checker reads no further elsewhere

_HARMLESS_AT_EXIT = frozenset(
    ("logging", "concurrent", "multiprocessing", "weakref", "asyncio", "readline", "rlcompleter")
)
"""Modules, by the first part of their names, whose exit handlers may run once in each copy."""

_HARMLESS_DEVICES = frozenset(
    ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
)

_NATIVE_POOLS = re.compile(r"/[^/\s]*openblas[^/\s]*\.so")
_WRITABLE_SHARED = re.compile(r"^\S+ rw.s .*$", re.MULTILINE)


class Barriers:
    """Looks whether a fork is safe, cheaply first.

    Attributes:
        found: what stands in the way, once something did; "" before.
    """

    def __init__(self, ours: Iterable[int]) -> None:
        """Args: ours: descriptors that copies may share: the channel, listeners, standard streams."""
        self.found = ""
        self._ours = set(ours) | _descriptors()
        self._at_exit: list[str] = []
        self._register = atexit.register
        self._lowest = _lowest_free()
        self._maps = _writable_maps()
        self._fork = os.fork

    def start(self) -> None:
        """Begin to note what is to be done at exit."""
        noted, register = self._at_exit, self._register

        def noting(func: Callable[..., Any], *args: Any, **named: Any) -> Any:
            module = str(getattr(func, "__module__", "") or type(getattr(func, "__self__", func)).__module__)
            if module.partition(".")[0] not in _HARMLESS_AT_EXIT:
                noted.append(f"{module}.{getattr(func, '__qualname__', '?')}")
            return register(func, *args, **named)

        noting.__name__ = noting.__qualname__ = "register"
        noting.__doc__, noting.__module__ = register.__doc__, "atexit"
        atexit.register = noting  # type: ignore[assignment]

    def stop(self) -> None:
        """Note nothing any more."""
        atexit.register = self._register

    def stirred(self) -> bool:
        """Whether something may have come since `look` found nothing: threads, descriptors, exit handlers.

        About a microsecond: to be asked at every tick, so that the statement can be named.
        """
        return bool(self._at_exit) or threading.active_count() > 1 or _lowest_free() != self._lowest

    def look(self) -> str:
        """What stands in the way of a fork now; "" for nothing. 0.1 to 0.5 ms."""
        if not self.found:
            self.found = next(filter(None, (check() for check in self._checks())), "")
            self._lowest = _lowest_free()
        return self.found

    def _checks(self) -> tuple[Callable[[], str], ...]:
        return (
            self._tracer,
            self._threads,
            self._open_files,
            self._exit_handlers,
            self._children,
            self._timers,
            self._mappings,
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
            names = ", ".join(t.name for t in threading.enumerate() if t is not threading.main_thread())
            return f"a thread ({names})"
        native = len(os.listdir("/proc/self/task")) - 1
        if native:
            with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
                pools = set(_NATIVE_POOLS.findall(file.read()))
            expected = len(pools) * (len(os.sched_getaffinity(0)) - 1)
            if native > expected:
                return f"{native - expected} threads of a native library"
        return ""

    def _open_files(self) -> str:
        logs = set(log_files())
        for fd in sorted(_descriptors() - self._ours):
            try:
                status, path = os.fstat(fd), os.readlink(f"/proc/self/fd/{fd}")
                flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            except OSError:
                continue  # closed meanwhile
            mode = status.st_mode
            appends = fd in logs and flags & os.O_APPEND and stat.S_ISREG(mode)
            if appends or path in _HARMLESS_DEVICES or os.isatty(fd) or stat.S_ISDIR(mode):
                continue
            kind = "socket" if stat.S_ISSOCK(mode) else "pipe" if stat.S_ISFIFO(mode) else "file"
            return f"an open {kind} ({path})"
        return ""

    def _exit_handlers(self) -> str:
        if self._at_exit:
            return f"an exit handler ({self._at_exit[0]})"
        weakref = sys.modules.get("weakref")
        for info in list(getattr(getattr(weakref, "finalize", None), "_registry", {}).values()):
            if info.atexit:
                return f"a finalizer ({getattr(info.func, '__qualname__', info.func)})"
        return ""

    def _children(self) -> str:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                return "a child process" if file.read().strip() else ""
        except OSError:
            return ""

    def _timers(self) -> str:
        which = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
        return "a timer" if any(signal.getitimer(timer)[0] for timer in which) else ""

    def _mappings(self) -> str:
        more = _writable_maps() - self._maps
        return f"shared memory ({min(more)})" if more else ""


def _descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}


def _lowest_free() -> int:
    fd = os.dup(1)
    os.close(fd)
    return fd


def _writable_maps() -> set[str]:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        return {line.split(None, 5)[-1].strip() for line in _WRITABLE_SHARED.findall(file.read())}
