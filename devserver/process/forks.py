"""Forks that neither the user hears of nor Python's objects.

From Python 3.12 on `os.fork` warns when a process has threads. Who forks here has looked which threads
these are; the user could do nothing about it. And `threading` takes all threads for ended in a copy but
the one that forked, even those that have not been started.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings


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
        if not pid and hasattr(main := threading.current_thread(), "_set_native_id"):
            main._set_native_id()  # nobody else does
        return pid
    finally:
        known.update(unstarted)
        warnings.filters = filters
