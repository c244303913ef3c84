"""PID 1: the first process of a container, which the kernel treats unlike any other. Linux.

It becomes the parent of every process whose own has ended, and nobody but it can take their exit codes; until
then they stay as zombies. A server cannot do that beside an application: a code that it takes may be one
that the application waits for. So a server that would be PID 1 goes on in a child, and PID 1 only waits, as
`tini` and `docker run --init` do. A supervisor need not: no application waits for its children, and it takes
their codes itself (`orphans`).

A signal for which PID 1 has no handler is dropped. So it gets one before anything is imported, see
`devserver.__main__`; here PID 1 blocks what it passes on, and blocked signals are kept.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

from devserver.process import orphans

assert sys.platform == "linux"  # a type checker reads no further elsewhere

_PASSED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
_SIGNALLED = 128
"""What shells add to the number of the signal that has ended a process."""


def leave_first() -> None:
    """As PID 1, go on in a child. PID 1 waits, and ends with the child's exit code."""
    if os.getpid() != 1 or not orphans.is_single():
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_PASSED_ON, signal.SIGCHLD))
    pid = os.fork()
    if pid:
        _wait(pid)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as it is for any process but PID 1
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: int) -> NoReturn:
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the port is the child's
    code = None
    try:
        while code is None:
            came = signal.sigwaitinfo((*_PASSED_ON, signal.SIGCHLD))
            # What a terminal sends has come to the child as well.
            if came.si_signo != signal.SIGCHLD and came.si_code <= 0:
                with suppress(ProcessLookupError):
                    os.kill(child, came.si_signo)
            while ended := _ended():
                pid, status = ended
                if pid == child:
                    code = os.waitstatus_to_exitcode(status)
    finally:
        code = 1 if code is None else code
        os._exit(code if code >= 0 else _SIGNALLED - code)


def _ended() -> tuple[int, int] | None:
    """A child that has ended, with its status; None if there is none."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None
