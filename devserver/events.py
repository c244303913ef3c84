"""Events for programs: what the server does, one JSON object a line.

IDEs and tests wait for these lines instead of asking ports or sleeping. Each has `event` and
`time` (seconds since the epoch) and, by its name:

    listening  url, urls, pid        bound: the best URL, and all of them; requests wait from now on
    starting   target                the application begins to load for the first time
    loaded     generation, pid       the application is imported; `generation` counts starts from 1
    serving    generation, pid, seconds
                                     requests are answered; seconds since the start or the change
    change     files, line           these files changed, and it matters; the first one at this line, 0
                                     if that is not known
    restart    kind, reason, generation
                                     a restart begins: from nothing ("cold") or from a checkpoint
                                     ("warm"), and why, as in the terminal
               reads, path, line     if it is warm: how many things had been read before, and the
                                     statement that comes next, or is being executed; "" and 0
                                     before any
               obstacle              if it is cold: what stood in the way of a warm one, or ""
    barrier    path, line, reason    behind this statement no checkpoint could be made
    warm_start_failed  generation, reason
                                     a warm start led nowhere; a cold one begins
    checkpoints  count, memory       after a start: how many wait, and their bytes (PSS)
    prepared   pid                   a copy of a checkpoint was made ahead of the next restart
    failed     generation, phase, error, traceback
                                     it failed in "load", "lifespan" or "serve", in what is done
                                     while it is served ("check"), or its process died ("crash");
                                     one line, and the whole text or ""
    failed_again  generation         it failed in the same way as the generation before
    worker_started  worker, pid      a worker's process has begun; `worker` is its place, from 1
    worker_serving  worker, pid, seconds
                                     the worker answers requests; `serving` comes once, when all do
    worker_exited  worker, pid, code, wanted
                                     its process has ended with this exit code, negative for a signal;
                                     whether that was wanted
    successor_started  pid           another arbiter begins, to succeed this one (SIGUSR2)
    successor_serving  pid           it serves
    successor_exited   pid           it has ended before this one
    companion_started  companion, pid
                                     a program of [tool.devserver.run] has begun
    companion_exited  companion, pid, code, wanted, pause
                                     it has ended with this exit code, negative for a signal; whether that
                                     was wanted; seconds until it is begun again because it was not, or null
    companion_failed  companion, error, pause
                                     it could not be started, and why; seconds until it is tried again
    stopping   (nothing more)        somebody has asked for the end: requests in flight are finished
    stopped    (nothing more)        the end; no line follows

More fields may come, so a reader ignores what it does not know. A reader that goes away does not
stop the server: the rest is dropped, with one warning.

Lines are ASCII. Bytes of a file name that are no UTF-8 become lone surrogates, as in
`os.fsdecode`, which reads them back.

This module refuses to know when these things happen.
"""

import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Self

from devserver.errors import UsageError

_DEPTH = 10  # of nested values; deeper ones, and circles, become text


Listener = Callable[[str, Mapping[str, object]], None]


class Events:
    """Writes events to a file or a descriptor, or nowhere."""

    __slots__ = ("_fd", "_followers", "_is_inherited", "_listener")

    def __init__(self, fd: int | None, listener: Listener | None = None) -> None:
        """Args: listener: is told of each event, too, by its name and fields."""
        self._fd = fd
        self._listener = listener
        self._is_inherited = False
        self._followers: list[Listener] = []

    @classmethod
    def open(cls, spec: str | None, listener: Listener | None = None) -> Self:
        """Open what `--events` names.

        Args:
            spec: a path, to which lines are appended, or `fd:N`, a descriptor that is open for
                writing; it is not passed on to processes started from here. None: nowhere.
            listener: see the class.

        Raises:
            UsageError: it cannot be opened, or is not open for writing.
        """
        if spec is None:
            return cls(None, listener)
        try:
            if spec.startswith("fd:"):
                events = cls(_inherited(spec), listener)
                events._is_inherited = True
                return events
            return cls(os.open(spec, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), listener)
        except (OSError, ValueError) as error:  # ValueError: a null character
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"--events {spec!r} cannot be written ({reason}); "
                "give a file in a folder that exists, or fd:N for a descriptor that is open"
            ) from None

    @property
    def passed_on(self) -> list[int]:
        """The descriptor that `fd:N` has named, for a process that is started with the same arguments."""
        return [self._fd] if self._fd is not None and self._is_inherited else []

    def listen(self, listener: Listener) -> None:
        """Have each event told to somebody else, when it is written: what that leads to comes after it."""
        self._followers.append(listener)

    def emit(self, name: str, /, **fields: object) -> None:
        """Write one event; see the top of this module for names and fields. Never raises.

        Values that JSON has not are made fit: paths, bytes and exceptions become text,
        sets become lists.
        """
        if self._listener is not None:
            self._listener(name, fields)
        if self._fd is not None:
            self._write(self._fd, name, fields)
        for follower in self._followers:
            follower(name, fields)

    def _write(self, fd: int, name: str, fields: Mapping[str, object]) -> None:
        event = {"event": name, "time": round(time.time(), 6), **{k: _plain(v) for k, v in fields.items()}}
        line = json.dumps(event).encode("ascii") + b"\n"
        try:
            # One call for a line, so that lines of several writers do not mix; the rest of it
            # is only left when a disk is full or a signal comes between.
            while line:
                line = line[os.write(fd, line) :]
        except OSError as error:
            self.close()
            logging.getLogger("devserver").warning("no more --events: %s", error.strerror or error)

    def close(self) -> None:
        """Close the file or descriptor; later events are dropped."""
        fd, self._fd = self._fd, None
        if fd is not None:
            try:
                os.close(fd)
            except OSError:
                pass  # closed by somebody else, or what it wrote last did not arrive


def _inherited(spec: str) -> int:
    if not re.fullmatch(r"fd:[0-9]{1,9}", spec):
        raise ValueError("no number of a descriptor")
    fd = int(spec[3:])
    os.write(fd, b"")  # fails if it is not open, or only for reading
    os.set_inheritable(fd, False)
    return fd


def _plain(value: object, depth: int = _DEPTH) -> object:
    """The nearest value that JSON has."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, bytes | os.PathLike):
        return os.fsdecode(value)
    if depth and isinstance(value, dict):
        return {_text(key): _plain(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth - 1) for item in value]
    return _text(value)


def _text(value: object) -> str:
    try:
        return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
    except Exception:  # the user's `__str__` is called
        return f"({type(value).__name__})"
