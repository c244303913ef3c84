"""systemd's two protocols: sockets that it passes (sd_listen_fds(3)), and what it is told (sd_notify(3)).

Both begin with variables that are meant for one process, this one: they are taken out of the environment, so
that what the application starts does not believe them. A container's runtime speaks the second one, too.

What is told follows from events (`devserver.events`). A server that restarts on save is ready as soon as
anybody can be answered, by an error page, too: it lives on, and the save that mends is answered.

Who tells the watchdog is the supervisor, or without one the event loop that serves. So a loop that hangs is
noticed where nothing else would notice; below a supervisor it is not, because somebody may be standing at a
breakpoint.
"""

from __future__ import annotations

import logging
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import NamedTuple, Self

from devserver.console import is_library
from devserver.errors import UsageError

logger = logging.getLogger("devserver")

_UNIX: int = getattr(socket, "AF_UNIX", 0)  # Windows has none

_FIRST = 3
"""The first descriptor that is passed."""

_BEATS = 2
"""How often the watchdog is told in the time in which it must be."""

_PATIENCE = struct.pack("ll", 1, 0)
"""A second (struct timeval) in which a manager that has not read yet may make room for what it is told."""

_AT_ONCE = getattr(socket, "MSG_DONTWAIT", 0)

_FRAME = re.compile(r'File "([^"<][^"]*)", line (\d+)')
_UNNAMED = "unknown"
"""The name of a socket that the unit has given none, if others have one."""


class Passed(NamedTuple):
    """A socket that was passed: its descriptor, and the name that the unit gives it, or ""."""

    fd: int
    name: str


def take_sockets(environ: MutableMapping[str, str], pid: int) -> list[Passed]:
    """The sockets that were passed to this process; the variables about them go.

    Args:
        pid: of this process. What is for another one is left.

    Raises:
        UsageError: their number is none.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return []
    names = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
    _, count, named, _ = (environ.pop(name, "") for name in names)
    if not (count.isascii() and count.isdigit()):
        raise UsageError(f"LISTEN_FDS must be the number of sockets passed, not {count!r}; unset LISTEN_PID")
    called = [*named.split(":"), *[""] * int(count)]
    return [Passed(_FIRST + i, "" if called[i] == _UNNAMED else called[i]) for i in range(int(count))]


class Notifier:
    """Tells a manager of services what the server is at.

    Attributes:
        interval: seconds between two calls of `beat`; None if there is no watchdog.
        variables: those that were taken out of the environment, for a process that succeeds this one.
    """

    def __init__(self, address: str, interval: float | None, *, lives_on: bool) -> None:
        """
        Args:
            address: a path, or a name in Linux's abstract namespace that begins with `@`.
            interval: seconds in which the watchdog has to be told; None if there is none.
            lives_on: a failure of the application does not end this process.
        """
        self.interval = None if interval is None else interval / _BEATS
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)
        self._due = time.monotonic()
        self._words = Words(lives_on=lives_on)
        self.variables = {"NOTIFY_SOCKET": address}
        if interval is not None:
            self.variables["WATCHDOG_USEC"] = str(int(interval * 1e6))

    @classmethod
    def take(cls, environ: MutableMapping[str, str], pid: int, *, lives_on: bool) -> Self | None:
        """What tells the manager; None where none wants to know. The variables about it go.

        Args:
            pid: of this process.
            lives_on: see the class.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog = watchdog_in(environ, pid)
        if watchdog is not None:
            del environ["WATCHDOG_USEC"]
            environ.pop("WATCHDOG_PID", None)
        if address[:1] not in ("/", "@") or not _UNIX:
            return None
        return cls(address, watchdog, lives_on=lives_on)

    def happened(self, event: str, fields: Mapping[str, object]) -> None:
        """Tell what follows from an event; see `devserver.events`."""
        told = self._words.of(event, fields, time.monotonic())
        if told:
            self._send(told)

    def deadlines(self) -> list[float]:
        """When `be_punctual` has something to tell, on `time.monotonic`."""
        return [] if self.interval is None else [self._due]

    def be_punctual(self, now: float) -> None:
        """Tell the watchdog that this process lives, if it is time."""
        if self.interval is not None and now >= self._due:
            self._due = now + self.interval
            self.beat()

    def beat(self) -> None:
        """Tell the watchdog that this process lives."""
        self._send({"WATCHDOG": "1"}, _AT_ONCE)  # where there is no room, others wait that say the same

    def _send(self, told: Mapping[str, str], flags: int = 0) -> None:
        text = "\n".join(f"{name}={value}" for name, value in told.items())
        try:
            self._socket.sendto(text.encode("utf-8", "backslashreplace"), flags, self._address)
        except OSError as error:
            logger.debug("NOTIFY_SOCKET: %s", error)

    def hand_to(self, pid: int) -> None:
        """Say that another process is the service's from now on; nothing more is told by this one."""
        self._send({"MAINPID": str(pid)})
        self.interval = None
        self.close()

    def close(self) -> None:
        """Nothing is told any more."""
        self._socket.close()


def watchdog_in(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds in which the watchdog has to be told (sd_watchdog_enabled(3)); None if there is none.

    Args:
        pid: of this process.
    """
    text = environ.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdigit() and int(text)):
        return None
    return int(text) / 1e6 if environ.get("WATCHDOG_PID", str(pid)) == str(pid) else None


class Words:
    """What a manager is told, from one event to the next. Pure."""

    def __init__(self, *, lives_on: bool) -> None:
        """Args: lives_on: a failure of the application does not end this process."""
        self._lives_on = lives_on
        self._target = "the application"
        self._failure = ""

    def of(self, event: str, fields: Mapping[str, object], now: float) -> dict[str, str]:
        """The assignments of a message; none if the event means nothing to a manager.

        Args:
            fields: of the event.
            now: on the clock of `time.monotonic`, in seconds.
        """
        say = _WORDS.get(event)
        return {} if say is None else say(self, fields, now)

    def _starting(self, fields: Mapping[str, object], now: float) -> dict[str, str]:
        self._target = _line(fields.get("target") or self._target)
        return {"STATUS": f"loading {self._target}"}

    def _serving(self, fields: Mapping[str, object], now: float) -> dict[str, str]:
        return {"READY": "1", "STATUS": f"serving {self._target}"}

    def _restart(self, fields: Mapping[str, object], now: float) -> dict[str, str]:
        reason = f"loading {self._target}: {_line(fields['reason'])}"
        return {"RELOADING": "1", "MONOTONIC_USEC": str(int(now * 1e6)), "STATUS": reason}

    def _failed(self, fields: Mapping[str, object], now: float) -> dict[str, str]:
        self._failure = f"failed: {_line(fields['error'])}{_place(str(fields['traceback']))}"
        return self._failed_again(fields, now)

    def _failed_again(self, fields: Mapping[str, object], now: float) -> dict[str, str]:
        return {**({"READY": "1"} if self._lives_on else {}), "STATUS": self._failure}

    def _stopping(self, fields: Mapping[str, object], now: float) -> dict[str, str]:
        return {"STOPPING": "1", "STATUS": "finishing requests"}


_WORDS: dict[str, Callable[[Words, Mapping[str, object], float], dict[str, str]]] = {
    "starting": Words._starting,
    "serving": Words._serving,
    "restart": Words._restart,
    "failed": Words._failed,
    "failed_again": Words._failed_again,
    "stopping": Words._stopping,
}


def _line(text: object) -> str:
    """A text without the line ends that would begin another assignment."""
    return " ".join(str(text).split())


def _place(trace: str) -> str:
    """Where in the user's own files a traceback ends."""
    places = [(path, line) for path, line in _FRAME.findall(trace) if not is_library(path)]
    return f" ({places[-1][0]}, line {places[-1][1]})" if places else ""
