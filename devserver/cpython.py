"""What CPython has and other interpreters have not, as far as more than one module must know.

PyPy serves and restarts cold. A copy of a process that is made by `fork` needs more than the fork: that
collections leave frozen objects alone, and that threads of the interpreter's own are known.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from importlib.machinery import PathFinder

CAN_COPY = sys.implementation.name == "cpython" and sys.platform == "linux"
"""Whether a process may leave copies of itself: checkpoints, and what takes its memory apart."""

EXACT_STACKS = sys.implementation.name == "cpython"
"""Whether `faulthandler` says which line is executed. PyPy's says at which the function begins."""

KNOWS_IGNORED = sys.implementation.name == "cpython"
"""Whether `signal.getsignal` knows of signals that this process was started to ignore."""

CAN_SPAWN = hasattr(os, "posix_spawn")
"""Whether a process that has threads can start another without forking in Python."""


def invalidate_caches() -> None:
    """As `importlib.invalidate_caches`: modules are found that have come since a folder was listed.

    That one imports `importlib.metadata` (from CPython 3.10 on), and with it `email` and `zipfile`: 15 ms of
    each start for what an application may never need. What that module keeps there is only once it is loaded.
    """
    if "importlib.metadata" in sys.modules:
        importlib.invalidate_caches()
        return
    for finder in sys.meta_path:
        if finder is not PathFinder and hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()
    for folder, known in list(sys.path_importer_cache.items()):
        if known is None or not os.path.isabs(folder):  # the working directory may be another by now
            del sys.path_importer_cache[folder]
        elif hasattr(known, "invalidate_caches"):
            known.invalidate_caches()


def keep_all() -> None:
    """Have no collection look at what there is by now, as far as that can be had."""
    if hasattr(gc, "freeze"):
        gc.freeze()
    gc.enable()
