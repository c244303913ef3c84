"""What CPython has and other interpreters have not, as far as more than one module must know.

PyPy serves and restarts cold. A copy of a process that is made by `fork` needs more than the fork: that
collections leave frozen objects alone, and that threads of the interpreter's own are known.
"""

from __future__ import annotations

import gc
import os
import sys

CAN_COPY = sys.implementation.name == "cpython" and sys.platform == "linux"
"""Whether a process may leave copies of itself: checkpoints, and what takes its memory apart."""

CAN_SPAWN = hasattr(os, "posix_spawn")
"""Whether a process that has threads can start another without forking in Python."""


def keep_all() -> None:
    """Have no collection look at what there is by now, as far as that can be had."""
    if hasattr(gc, "freeze"):
        gc.freeze()
    gc.enable()
