"""How long a test waits for something: one number, which grows with how slow the machine is.

A test waits for events, bytes and exit codes; a deadline only ends a wait that would last for ever. So it
may be generous. It is measured once, before there are workers: the time in which an interpreter starts and
imports asyncio, against that of a calm machine. What tests start inherits the result.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

VARIABLE = "TESTS_SLOWNESS"
"""Names how many times slower than a calm machine this one is."""

CALM = 0.15
"""Seconds in which an interpreter of a calm machine starts and imports asyncio."""

SLOWEST = 8.0
"""The largest factor: a hang is to be found within minutes, too."""


def measure() -> None:
    """Note how slow the machine is, unless that is known. Called before there are workers."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = str(slowness(max(_start() for _ in range(3))))


def slowness(seconds: float) -> float:
    """How many times slower than a calm machine one is whose interpreter takes so many seconds to start."""
    return min(max(1.0, seconds / CALM), SLOWEST)


def _start() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", "import asyncio"], check=True)
    return time.perf_counter() - began


measure()

SLOWNESS = float(os.environ[VARIABLE])
"""How many times slower than a calm machine this one is; 1 at least."""

DEADLINE = 60.0 * SLOWNESS
"""Seconds for anything that a test waits for."""

TIMEOUT = 4 * DEADLINE
"""Seconds for a whole test, which waits more than once."""
