"""Locks that a fork makes anew: one that is held must not be forked over.

`os.register_at_fork` lets a library take its locks before a fork and make them new in the child. What held
one of them there, a `with` statement around the code that loads, then releases a lock that nobody holds:
`logging.config.dictConfig` fails with "cannot release un-acquired lock" if it imports a module of the
application's while it configures. So such a lock allows no checkpoint as long as it is held.

`logging` is known. Which locks another library's hooks make anew nobody says; all that a hook can reach in a
few steps count, since a checkpoint too few costs less than a failed start.

Only looks. Sees what is registered from `start` on. Linux.
"""

from __future__ import annotations

import _thread
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakSet

_STEPS = 4
"""References from a hook to a lock, at most: to a list, an object in it, its condition, the lock of that."""

_MOST = 1000
"""Things that are looked at for one hook, at most; nearest first. A thing takes about a microsecond."""

_LOCKS = (_thread.LockType, _thread.RLock, threading.Condition)

_Hook = Callable[..., object]


class Locks:
    """See the module."""

    def __init__(self) -> None:
        self._hooks: list[_Hook] = []
        self._register: Callable[..., None] = vars(os)["register_at_fork"]  # which not every platform has

    def start(self) -> None:
        """Begin to note what is to be called at forks."""
        register = self._register

        @wraps(register)
        def noting(**hooks: Any) -> None:
            register(**hooks)
            self._hooks += hooks.values()

        setattr(os, register.__name__, noting)

    def stop(self) -> None:
        """Note nothing any more."""
        setattr(os, self._register.__name__, self._register)

    def held(self) -> bool:
        """Whether a lock is held that a fork would make anew. Some microseconds."""
        owned = [logging._lock, *(h.lock for h in list(logging._at_fork_reinit_lock_weakset))]  # type: ignore[attr-defined] # there is no other way
        return any(map(_is_held, owned)) or any(
            _is_held(each) for hook in self._hooks for each in _reached(hook)
        )


def _is_held(found: object) -> bool:
    if isinstance(found, _thread.RLock):
        return bool(found._is_owned())  # type: ignore[attr-defined] # `locked` came with 3.14
    return isinstance(found, _thread.LockType) and found.locked()


def _reached(hook: _Hook) -> Iterator[object]:
    """What a hook refers to in a few steps, nearest first."""
    seen: set[int] = set()
    here: list[object] = [hook]
    for _ in range(_STEPS + 1):
        further: list[object] = []
        for found in here:
            if id(found) not in seen and len(seen) < _MOST:
                seen.add(id(found))
                yield found
                further += _referred(found)
        here = further


def _referred(found: object) -> list[object]:
    """What a hook, or a thing that it uses, refers to; not all of a module, and of a class its own locks."""
    if isinstance(found, FunctionType):
        used = [found.__globals__[name] for name in _names(found.__code__) if name in found.__globals__]
        return [*inspect.getclosurevars(found).nonlocals.values(), *(found.__defaults__ or ()), *used]
    if isinstance(found, BuiltinMethodType):
        return [found.__self__]
    if isinstance(found, MethodType):
        return [found.__self__, found.__func__]
    if isinstance(found, partial):
        return [found.func, *found.args, *found.keywords.values()]
    if isinstance(found, type):
        return [each for each in vars(found).values() if isinstance(each, _LOCKS)]
    if isinstance(found, ModuleType | str | bytes | int | float | None):
        return []
    if isinstance(found, Mapping):
        return [*found.values()]
    return _contents(found)


def _names(code: CodeType) -> list[str]:
    """The global names and attributes of a function's code, and of functions within it."""
    within = [name for each in code.co_consts if isinstance(each, CodeType) for name in _names(each)]
    return [*code.co_names, *within]


def _contents(found: object) -> list[object]:
    if isinstance(found, list | tuple | set | frozenset | WeakSet):
        return [*found]
    values: dict[str, object] = getattr(found, "__dict__", {})
    return list(values.values())
