"""Forks that neither the user hears of nor Python's objects.

From Python 3.12 on `os.fork` warns when a process has threads. Who forks here has looked which threads
these are; the user could do nothing about it. And `threading` takes all threads for ended in a copy but
the one that forked, even those that have not been started. `multiprocessing` lets only the process that made
a `Process` start it.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from typing import Any


def fork() -> int:
    """As `os.fork`, but without its warning, and threads that have not been started can be in both."""
    if sys.platform == "win32":
        raise OSError("Windows cannot fork")
    filters, known = warnings.filters, vars(threading)["_dangling"]
    unstarted = [thread for thread in known if thread.ident is None]
    # Not by `catch_warnings`, after which every warning that is shown once would be shown once more.
    warnings.filters = [("ignore", None, DeprecationWarning, None, 0)]
    known.difference_update(unstarted)
    try:
        pid = os.fork()
        if not pid:
            _mend(threading.current_thread(), unstarted)
            _take_over()
        return pid
    finally:
        known.update(unstarted)
        warnings.filters = filters


def _take_over() -> None:
    """In a copy: processes that have not been started are this one's to start."""
    known = sys.modules.get("multiprocessing.process")
    for process in list(vars(known).get("_dangling", ())) if known is not None else ():
        if process._popen is None and process._parent_pid == os.getppid():
            process._parent_pid = os.getpid()


def _mend(current: Any, unstarted: list[Any]) -> None:
    """In a copy: what `threading` leaves undone, and from Python 3.13 on its C part overdoes."""
    if hasattr(current, "_set_native_id"):
        current._set_native_id()
    for thread in unstarted:
        if hasattr(thread, "_handle"):
            thread._handle = type(thread._handle)()
