"""A server's whole tree of processes, read from /proc: memory and processor time. Linux only.

A tree is a session: a server is started in one of its own, and what it starts stays in it, also
when a parent in between has died.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_SESSION = 3
_TIMES = slice(11, 15)
"""Of the fields behind the program's name in /proc/PID/stat: session; own and reaped children's times."""


def _fields(process: Path) -> list[str]:
    """The fields of a process behind its name, which may have spaces in it; none when it is gone."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def processes(session: int) -> Iterator[tuple[Path, list[str]]]:
    """The processes of a session, each with its fields."""
    for process in Path("/proc").glob("[0-9]*"):
        fields = _fields(process)
        if fields and int(fields[_SESSION]) == session:
            yield process, fields


def cpu_seconds(session: int) -> float:
    """Processor time that the processes of a session have used so far."""
    return sum(sum(map(int, fields[_TIMES])) for _, fields in processes(session)) / _TICKS


def pss_mib(session: int) -> float:
    """Memory of a session's processes, what they share counted once (PSS), in MiB."""
    return sum(_pss(process) for process, _ in processes(session)) / 1024


def _pss(process: Path) -> int:
    try:
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended meanwhile
    return 0
