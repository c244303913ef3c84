"""A child as the supervisor knows it: its process, what it has said, and when it must be gone.

Knows neither when a child is wanted nor what becomes of it. How the process itself behaves stands in the
room `devserver.child`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Collection, Sequence
from typing import Any

from devserver.process import Process
from devserver.process.control import Closed
from devserver.process.standing import Standing, ask
from devserver.reload import protocol


class Child:
    """A child and what the supervisor remembers of it.

    Attributes:
        role: APP or PAGE.
        generation: running number of the application's loads; a page has that of its failure.
        began: when it was told its role, on `time.monotonic`.
        loaded, serves, failed: what it has said.
        told: it was told to serve: from then on it reads messages.
        exited: the process is gone.
        kill_at: when it is killed, on `time.monotonic`; None while it is not retired.
        judges: its application wants to say itself what a change means.
        unjudged: so many changes it has not answered yet.
        at: what it said last that it would read.
        resumed: it goes on from a checkpoint.
        place: which of several workers it is; 0 if there is one.
    """

    def __init__(self, process: Process, crash: int) -> None:
        """Args: crash: a descriptor of what a fatal signal makes the process write; -1 for none."""
        self.process = process
        self.role = ""
        self.generation = 0
        self.began = 0.0
        self.loaded = False
        self.told = False
        self.serves = False
        self.failed = False
        self.judges = False
        self.unjudged = 0
        self.exited = False
        self.kill_at: float | None = None
        self.at = ""
        self.resumed = False
        self.place = 0
        self._crash = crash

    def copied(self, process: Process) -> Child:
        """What a copy is that this process has made of itself."""
        copy = Child(process, os.dup(self._crash) if self._crash >= 0 else -1)
        copy.role, copy.generation, copy.began, copy.at = self.role, self.generation, self.began, self.at
        copy.place = self.place
        return copy

    def tell(self, word: protocol.Told, fds: Sequence[int] = ()) -> bool:
        """Tell it something; whether that could be sent. A child that is gone is known by its exit."""
        try:
            self.process.channel.send(protocol.encode(word), fds)
        except Closed:
            return False
        return True

    def ask(self, paths: list[str]) -> bool:
        """Ask what a change means to the application; whether that could be sent."""
        self.unjudged += 1
        return self.tell(protocol.Judge(paths))

    def boot(self, word: protocol.Boot, generation: int, sockets: Sequence[socket.socket]) -> None:
        """Tell it what to be."""
        self.role, self.generation, self.began = word.role, generation, time.monotonic()
        self.place = word.place
        shared: list[Any] = list(sockets)
        if self._crash >= 0:
            shared.append(_Descriptor(self._crash))
        try:
            self.process.send_listeners({**protocol.encode(word), "crash": self._crash >= 0}, shared)
        except Closed:
            pass  # it died at once, which its exit reports

    def last_words(self) -> str:
        """What a fatal signal made the process say; to be asked once, when it is gone."""
        if sys.platform == "win32" or self._crash < 0:
            return ""
        fd, self._crash = self._crash, -1
        try:
            return os.pread(fd, 65536, 0).decode("utf-8", "replace")
        finally:
            os.close(fd)

    def stands(self, ours: Collection[int]) -> Standing:
        """Where it stands. Args: ours: inodes of the sockets that it was given."""
        return ask(self.process.pid, self._crash, ours)

    def discard(self) -> None:
        """End a process that is of no more use, and let go of it."""
        self.process.kill()
        self.process.wait()
        self.last_words()
        self.process.close()


class _Descriptor:
    """A descriptor that can be sent like a socket."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


def describe_exit(code: int) -> str:
    """What an exit code says, as the end of a sentence about a process."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
