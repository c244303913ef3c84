"""How many descriptors a process may have (RLIMIT_NOFILE), and how none is lost for want of one.

A supervisor holds copies of the connections on their way between its children, beside what it needs
itself; so it raises its soft limit to the hard one. Its children get back the one it had: an
application's programs would inherit a raised one, and there are such as go through every number up to
it, make room for as many, or use select(2), which knows 1024. A child takes it back by itself, since
nothing of ours runs between fork and exec.

A child that is at its limit, because it has accepted all it could, may be handed connections. The
kernel drops a descriptor for which there is no room; so the limit is raised for as long as one is being
received. What is open beyond a limit stays open. Windows has no such limit, and nothing is done there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MANY = 10240
"""Where the hard limit says that there is none: macOS takes no more."""


def raise_limit() -> int:
    """Raise the soft limit as far as it goes. Returns what it was."""
    if sys.platform == "win32":
        return 0
    import resource  # there is none on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MANY if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < most:
        set_limit(most)
    return soft


def set_limit(soft: int) -> None:
    """Set the soft limit; one that the system refuses changes nothing."""
    if sys.platform == "win32":
        return
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    except (ValueError, OSError):
        pass


@contextmanager
def raised() -> Iterator[None]:
    """Raise the soft limit for a moment.

    A program that another thread starts just then inherits it, which is no harm worth a lock.
    """
    soft = raise_limit()
    try:
        yield
    finally:
        set_limit(soft)
