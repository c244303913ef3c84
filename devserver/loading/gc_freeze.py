"""Keeps what a process has made out of the sight of garbage collections, until somebody asks for it.

Copies of a process share memory as long as nobody writes there, and a collection writes into every
object that it looks at. So everything is frozen before a fork. But what is frozen is never collected,
and neither `gc.get_objects` nor `gc.get_referrers` shows it: a class that was deleted at import would
stay among the subclasses of its base, however often the application collects. Who calls one of these
functions finds what a fresh process has: everything is thawed before.

Knows no forks.
"""

from __future__ import annotations

import gc
from typing import Any

from devserver.loading.reads import Wrapper

_ASKING = ("collect", "get_objects", "get_referrers")


def freeze() -> None:
    """Freeze everything there is."""
    gc.freeze()
    for name in _ASKING:
        function = getattr(gc, name)
        if type(function) is not Wrapper:
            setattr(gc, name, Wrapper(function, thaw))


def thaw(*_: Any, **__: Any) -> None:
    """Thaw it, and have the functions be Python's own again."""
    gc.unfreeze()
    for name in _ASKING:
        function = getattr(gc, name)
        if type(function) is Wrapper:
            setattr(gc, name, function.__wrapped__)
