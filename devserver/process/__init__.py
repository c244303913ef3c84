"""Processes on any system: spawning, adopting, watching the end, signals, the terminal.

Everything that differs between systems stands in `posix`, `group`, `orphans` and `terminal`, and in
`windows`, which offers the same names; the choice is made here, once. What only Linux has is in `adopted` and
`first`. Knows neither applications nor HTTP.
"""

import sys

from devserver.process.control import CONTROL, EXIT_RESTART, RUN_MAIN, WORKER

if sys.platform == "win32":
    from devserver.process.windows import (
        PROGRAM,
        Group,
        Orphans,
        Process,
        Terminal,
        adopt,
        await_end,
        guard,
        listeners_from,
        reads_keys,
        spawn,
    )
else:
    from devserver.process.group import PROGRAM, Group
    from devserver.process.orphans import Orphans, await_end, guard
    from devserver.process.posix import Process, adopt, listeners_from, spawn
    from devserver.process.terminal import Terminal, reads_keys

__all__ = [
    "CONTROL",
    "EXIT_RESTART",
    "PROGRAM",
    "RUN_MAIN",
    "WORKER",
    "Group",
    "Orphans",
    "Process",
    "Terminal",
    "adopt",
    "await_end",
    "guard",
    "listeners_from",
    "reads_keys",
    "spawn",
]
