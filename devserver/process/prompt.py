"""Whether somebody is at work inside the application: at a debugger's breakpoint or at a prompt.

A restart then waits: nobody wants the process killed that they are looking into. Knows debuggers only
by what they leave in plain sight, and starts none.
"""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from devserver.process import reads_keys

_READING_KEYS = frozenset(
    (
        "prompt_toolkit",
        "urwid",
        "curses",
        "pudb",
        "ptpython",
        "bpython",
        "_pyrepl",
        "getpass",
        "tty",
        "readchar",
    )
)
"""Packages that read a terminal by keys and not by lines: what IPython, ipdb, pudb and others stand on.

By name, since the terminal itself does not say who of its process group reads it: a program beside the server
(`npm run dev`) may, for ever.
"""

_SUSPENDED = 2
"""pydevd's state of a thread that stands at a breakpoint; pydevd is what debugpy and PyCharm use."""


_BY_ANOTHER = 105
"""Its reason of a thread that only stands because another one does."""


class Prompt:
    """Wraps `input`, which `breakpoint()` and most other prompts end in.

    Attributes:
        readers: how many calls are waiting for a line.
    """

    def __init__(self, notify: Callable[[bool], None]) -> None:
        """Args: notify: told when the first call begins and when the last one ends."""
        self.readers = 0
        self._notify = notify
        self._lock = threading.Lock()
        self._input = builtins.input
        self.__doc__ = self._input.__doc__
        self.__name__ = "input"

    def install(self) -> None:
        """Begin to notice."""
        builtins.input = self

    def __call__(self, *arguments: Any) -> str:
        self._count(1)
        try:
            return self._input(*arguments)
        finally:
            self._count(-1)

    def _count(self, step: int) -> None:
        with self._lock:
            before, self.readers = self.readers, self.readers + step
            if not before or not self.readers:
                self._notify(bool(self.readers))

    def where(self) -> str:
        """Where somebody is at work, as the end of a sentence; "" when nobody is."""
        if self.readers:
            return "the application waits for a line from the terminal"
        if reads_keys() and (reader := _reader_of_keys()):
            return f"the application reads the terminal ({reader})"
        if debugged():
            stopped = [t for t in threading.enumerate() if _is_suspended(t)]
            if stopped:
                return f"a debugger has stopped in {min(stopped, key=_is_dragged).name}"
        return ""


def _reader_of_keys() -> str:
    """The package by which a thread reads keys, or whose prompt executes something; "" if none does."""
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            name = str(frame.f_globals.get("__name__")).partition(".")[0]
            if name in _READING_KEYS:
                return name
            frame = frame.f_back
    return ""


def _is_suspended(thread: threading.Thread) -> bool:
    return getattr(getattr(thread, "additional_info", None), "pydev_state", None) == _SUSPENDED


def _is_dragged(thread: threading.Thread) -> bool:
    """Whether another thread's breakpoint has stopped this one, too."""
    return getattr(thread, "stop_reason", None) == _BY_ANOTHER


_BRIEF = ("posixpath", "ntpath", "genericpath")
"""What a debugger that is written in C calls, with no frame of its own between; none of it waits."""


def in_debugger(frame: FrameType | None) -> bool:
    """Whether a debugger's own code runs on top of the application's, or may do so."""
    if frame is not None and debugged() and frame.f_globals.get("__name__") in _BRIEF:
        return True
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.startswith(("pydevd", "_pydev")):
            return True
        if name.startswith("devserver."):
            return False  # what is below runs in a debugger as a whole
        frame = frame.f_back
    return False


def debugged() -> bool:
    """Whether this process runs under a debugger of an IDE."""
    return "pydevd" in sys.modules


def unseen(thread: threading.Thread) -> threading.Thread:
    """A thread that debuggers leave alone, so that it runs while they have stopped the others."""
    thread.__dict__.update(pydev_do_not_trace=True, is_pydev_daemon_thread=True)
    return thread
