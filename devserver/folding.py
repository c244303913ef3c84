"""Tracebacks as text, with the frames folded in which nothing is the user's.

A view of a framework is reached through thirty frames that are the same every time. Those of libraries that
stand together become one line which names them; the first and the last frame of a traceback stay, and so do
the user's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

LEAST = 3
"""The number of frames from which a fold is shorter and says no less."""

_FRAME = re.compile(r'(?P<indent>[ |+-]*)File "(?P<path>[^"\n]+)", line (?P<line>\d+)(?:, in (?P<name>.*))?')
_REPEATED = re.compile(r"[ |+-]*\[Previous line repeated ")
_PACKAGE = re.compile(r"[\\/](?:site|dist)-packages[\\/]([^\\/.]+)")


class Frame(NamedTuple):
    """A frame, and its lines of text."""

    indent: str
    path: str
    line: int
    name: str
    lines: list[str]


def fold(trace: str, is_library: Callable[[str], bool]) -> str:
    """Fold a traceback.

    Args:
        trace: as Python prints it; more than one, chained or grouped, may follow each other.
        is_library: whether a file is of no interest.
    """
    folded: list[str] = []
    for part in _parts(trace):
        if isinstance(part, str):
            folded.append(part)
            continue
        if all(is_library(frame.path) for frame in part):
            folded += [line for frame in part for line in frame.lines]  # there is nothing better to look at
            continue
        run: list[Frame] = []
        for at, frame in enumerate(part):
            if is_library(frame.path) and 0 < at < len(part) - 1:
                run.append(frame)
                continue
            folded += [*_folded(run), *frame.lines]
            run = []
    return "\n".join(folded)


def last_of_users(trace: str, is_library: Callable[[str], bool]) -> Frame | None:
    """The last frame of the user's in the last traceback that has one."""
    frames = [frame for part in _parts(trace) if not isinstance(part, str) for frame in part]
    return next((frame for frame in reversed(frames) if not is_library(frame.path)), None)


def _folded(run: list[Frame]) -> list[str]:
    if len(run) < LEAST:
        return [line for frame in run for line in frame.lines]
    names = dict.fromkeys(_library(frame.path) for frame in run)
    return [f"{run[0].indent}… {len(run)} frames of {', '.join(names)}"]


def _library(path: str) -> str:
    found = _PACKAGE.search(path)
    return found[1] if found else "Python"


def _parts(trace: str) -> Iterator[str | list[Frame]]:
    """Lines, and lists of frames that follow each other."""
    frames: list[Frame] = []
    for line in trace.split("\n"):
        found = _FRAME.match(line)
        if found is not None:
            name = found["name"] or ""
            frames.append(Frame(found["indent"], found["path"], int(found["line"]), name, [line]))
        elif frames and (line.startswith(frames[-1].indent + "  ") or _REPEATED.match(line)):
            frames[-1].lines.append(line)
        else:
            if frames:
                yield frames
                frames = []
            yield line
    if frames:
        yield frames
