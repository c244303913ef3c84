"""What came from a manager of services, in words, for `--explain-config`. It takes and changes nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping

from devserver import procfs
from devserver.config import Bind
from devserver.listeners import url
from devserver.managers import systemd

_INSTEAD = frozenset(("host", "port", "uds"))
"""The options that are not looked at where a socket was passed."""


_MANAGERS = ("supervisord", "circusd")
"""Programs in Python, which the system calls by the name of the interpreter."""


def lines(section: Bind, environ: Mapping[str, str], pid: int) -> list[str]:
    """What has come from a manager, a line for each; none if this process has no manager.

    Args:
        section: the options of the address.
        environ: the environment as it is.
        pid: of this process.

    Raises:
        UsageError: LISTEN_FDS is no number.
    """
    return [*_sockets(section, environ, pid), *_others(environ, pid)]


def unused(section: Bind, environ: Mapping[str, str], pid: int) -> frozenset[str]:
    """The options, by their Python names, in whose place a passed socket is listened on."""
    passed = systemd.take_sockets(dict(environ), pid)
    return _INSTEAD if section.fd is not None or passed else frozenset()


def _sockets(section: Bind, environ: Mapping[str, str], pid: int) -> Iterator[str]:
    if section.fd is not None:
        parent = os.getppid()
        yield f"--fd: descriptor {section.fd}, {_address(section.fd)}, from {_program(parent)} (pid {parent})"
    for fd, name in systemd.take_sockets(dict(environ), pid):
        named = f" ({name})" if name else ""
        instead = ", not used: --fd comes first" if section.fd is not None else ""
        yield f"LISTEN_FDS: descriptor {fd}{named}, {_address(fd)}{instead}"


def _others(environ: Mapping[str, str], pid: int) -> Iterator[str]:
    if "SUPERVISOR_ENABLED" in environ:
        name, group = environ.get("SUPERVISOR_PROCESS_NAME", ""), environ.get("SUPERVISOR_GROUP_NAME", "")
        yield f"supervisor: this is the process {name} of the group {group}"
    if address := environ.get("NOTIFY_SOCKET"):
        yield f"NOTIFY_SOCKET: {address} is told when the server is ready, loads again, fails and ends"
        if (seconds := systemd.watchdog_in(environ, pid)) is not None:
            yield f"WATCHDOG_USEC: it is told at least every {seconds:g} s that the server is not stuck"
    if pid == 1:
        yield "PID 1: the server is a container's first process, and removes zombies"


def _program(pid: int) -> str:
    """What a process is called, for people: a program in Python by its own name."""
    words = [os.path.basename(word) for word in procfs.words(pid, "cmdline")]
    known = (name for name in _MANAGERS if any(word.endswith(name) for word in words))
    return next(known, procfs.name(pid)) or "the process"


def _address(fd: int) -> str:
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            return url(sock)
    except OSError:
        return "which is not a socket"
