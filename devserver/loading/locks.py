"""Locks that a fork makes anew: one that is held must not be forked over.

`os.register_at_fork` lets a library take its locks before a fork and make them new in the child. What held
one of them there, a `with` statement around the code that loads, then releases a lock that nobody holds:
`logging.config.dictConfig` fails with "cannot release un-acquired lock" if it imports a module of the
application's while it configures. So such a lock prevents checkpoints as long as it is held.

`logging` is known. Which locks another library's hooks make anew nobody says; all that a hook can reach in a
few steps count, since a checkpoint too few costs less than a failed start.

Only looks: no code of what it comes across runs, not even for `isinstance`, which asks a proxy for its class.
Sees what is registered from `start` on. Linux.
"""

from __future__ import annotations

import _thread
import gc
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from itertools import islice
from types import CodeType, FunctionType, ModuleType, NoneType
from typing import Any, cast
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
    if issubclass(type(found), _thread.RLock):
        return bool(_thread.RLock._is_owned(found))  # type: ignore[attr-defined] # `locked` came with 3.14
    return type(found) is _thread.LockType and found.locked()


def _reached(hook: _Hook) -> Iterator[object]:
    """What a hook refers to in a few steps, nearest first."""
    seen: set[int] = set()
    here: list[object] = [hook]
    for _ in range(_STEPS + 1):
        further: list[object] = []
        for found in here:
            if len(seen) == _MOST:
                return
            if id(found) not in seen:
                seen.add(id(found))
                yield found
                further += _referred(found)
        here = further


def _referred(found: object) -> list[object]:
    """What a hook, or a thing that it uses, refers to; not all of a module, and of a class its own locks."""
    kind = type(found)
    if issubclass(kind, ModuleType | str | bytes | int | float | NoneType):
        return []
    if issubclass(kind, type):
        return [each for each in type.__dict__["__dict__"].__get__(found).values() if type(each) in _LOCKS]
    if kind is WeakSet:
        return _first(cast(WeakSet[object], found))
    if kind is FunctionType:
        return _used(cast(FunctionType, found))
    if kind in (list, tuple, set, frozenset):
        return _first(cast(list[object], found))
    if issubclass(kind, dict):
        return _first(dict.values(cast(dict[object, object], found)))
    return [
        each
        for referent in gc.get_referents(found)
        for each in (_first(dict.values(referent)) if type(referent) is dict else [referent])
    ]


def _used(function: FunctionType) -> list[object]:
    """What a function's code can name: its defaults, its closure, globals."""
    cells, named = function.__closure__ or (), _names(function.__code__)
    used = [dict.get(function.__globals__, name) for name in named]
    modules = [vars(each) for each in used if type(each) is ModuleType]
    used += [dict.get(names, name) for names in modules for name in named]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*gc.get_referents(*cells), *defaults, *used]


def _first(things: Iterable[object]) -> list[object]:
    return list(islice(things, _MOST))


def _names(code: CodeType) -> list[str]:
    """The global names and attributes of a function's code, and of functions within it."""
    within = [name for each in code.co_consts if isinstance(each, CodeType) for name in _names(each)]
    return [*code.co_names, *within]
