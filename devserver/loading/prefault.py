"""Pages of memory that a copy will need, made its own ahead of time.

A copy shares its pages with the process that was forked, and has none of those that are files'. The first
write to a page copies it, and the first look into a file's maps it: some microseconds each, thousands of
times, right when somebody waits. Which pages these will be is known from a sibling that has gone on
from the same place before: it has them by now, as proc_pid_pagemap(5) says. What they hold is not changed by
this, and so nothing that the copy computes.

Refuses to know what the processes are. Needs Linux 5.14; an older one has other advice for nobody.
"""

from __future__ import annotations

import ctypes
import mmap
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from io import FileIO

from devserver import procfs

_open = open  # an application may replace them

POPULATE_READ, POPULATE_WRITE = 22, 23
"""Advice for madvise(2): be as if each page had been read, or written to."""

_PRESENT, _FILE, _EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
"""Bits of an entry: the page is in memory; it is a file's, or shared; nobody else maps it."""

Run = tuple[int, int, int]
"""Pages one after the other that need the same: the advice, the address of the first, how many bytes."""


def take_after(sibling: int, most: int) -> int:
    """Have the pages that a sibling has. Returns how many bytes were copied for it.

    Args:
        sibling: the process id of another copy of what this process is a copy of.
        most: bytes that may be copied.
    """
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    copied = 0
    with suppress(OSError), ExitStack() as files:
        ours, theirs = (files.enter_context(procfs.pagemap(of)) for of in ("self", sibling))
        for begin, end, writable in _mappings():
            needs = _needs(_entries(theirs, begin, end), _entries(ours, begin, end), writable)
            for advice, start, size in _runs(needs, begin):
                copied += size if advice == POPULATE_WRITE else 0
                if copied > most:
                    return copied - size
                madvise(start, size, advice)
    return copied


def _mappings() -> Iterator[tuple[int, int, bool]]:
    """Where this process's private memory is, and whether it can be written to."""
    for line in procfs.maps().splitlines():
        place, rights, *_, name = line.split(None, 5)  # the last of a mapping without a name is a number
        if rights[0] == "r" and rights[3] == "p" and not name.startswith("[v"):
            begin, _, end = place.partition("-")
            yield int(begin, 16), int(end, 16), rights[1] == "w"


def _entries(pagemap: FileIO, begin: int, end: int) -> array[int]:
    pagemap.seek(begin // mmap.PAGESIZE * 8)
    data = pagemap.read((end - begin) // mmap.PAGESIZE * 8)
    return array("Q", data[: len(data) // 8 * 8])


def _needs(theirs: Iterable[int], ours: Iterable[int], writable: bool) -> Iterator[int]:
    """For each page the advice that it needs, or 0."""
    for their, our in zip(theirs, ours, strict=False):
        if not their & _PRESENT:
            yield 0
        elif their & _FILE:
            yield 0 if our & _PRESENT else POPULATE_READ
        elif writable and their & _EXCLUSIVE:
            yield 0 if our & _PRESENT and our & _EXCLUSIVE else POPULATE_WRITE
        else:
            yield 0


def _runs(needs: Iterable[int], begin: int) -> Iterator[Run]:
    """Join what needs the same."""
    start, last = begin, 0
    at = begin
    for need in needs:
        if need != last:
            if last:
                yield last, start, at - start
            start, last = at, need
        at += mmap.PAGESIZE
    if last:
        yield last, start, at - start
