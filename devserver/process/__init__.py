"""Processes on any system: spawning, adopting, watching the end, signals, the terminal.

Everything that differs between systems stands in `posix`, `kin` and `terminal`, and in `windows`,
which offers the same names; the choice is made here, once. What only Linux has is in `adopted`. Knows
neither applications nor HTTP.
"""

import sys

if sys.platform == "win32":
    from devserver.process.windows import (
        Child,
        Kin,
        Terminal,
        adopt,
        await_end,
        guard,
        listeners_from,
        reads_keys,
        spawn,
    )
else:
    from devserver.process.kin import Kin, await_end, guard
    from devserver.process.posix import Child, adopt, listeners_from, spawn
    from devserver.process.terminal import Terminal, reads_keys

RUN_MAIN = "DEVSERVER_RUN_MAIN"
"""Says to an application that it runs in the child that a supervisor restarts."""

CONTROL = "DEVSERVER_CONTROL"
"""Where a child finds its channel. Taken out of the environment as soon as it was looked at."""

EXIT_RESTART = 3
"""How a child ends that has a successor, for who looks; the supervisor goes by what was said."""

__all__ = [
    "CONTROL",
    "EXIT_RESTART",
    "RUN_MAIN",
    "Child",
    "Kin",
    "Terminal",
    "adopt",
    "await_end",
    "guard",
    "listeners_from",
    "reads_keys",
    "spawn",
]
