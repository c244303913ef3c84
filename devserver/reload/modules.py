"""Has the user's modules executed with ticks, whoever imports them.

`SourceFileLoader.exec_module` is replaced; a loader that compiles in a way of its own keeps it.
Compiled modules are cached as Python does it (PEP 552), beside Python's own .pyc files and under a
name of their own. Knows nothing of forks.
"""

from __future__ import annotations

import marshal
import os
import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER, cache_from_source
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

from devserver.reload.answers import YOUNG, Fingerprint, fingerprint_at, fingerprint_of, is_young
from devserver.reload.loader import Recorder
from devserver.reload.reads import disguise
from devserver.reload.ticks import Execution, Text, Ticker

_OWN = ("exec_module", "get_code", "source_to_code", "get_data")
"""What a loader overrides that compiles in a way of its own."""


class Stepping:
    """See the module."""

    def __init__(self, recorder: Recorder, ticker: Ticker) -> None:
        self._recorder = recorder
        self._ticker = ticker
        self._original: Any = None

    def start(self) -> None:
        """Begin."""
        self._original = SourceFileLoader.exec_module
        SourceFileLoader.exec_module = self._exec_module()  # type: ignore[method-assign]

    def stop(self) -> None:
        """From now on modules are executed as Python does it."""
        del SourceFileLoader.exec_module  # it is inherited

    def _exec_module(self) -> Any:
        stepping, original = self, self._original
        is_users, execute = self._recorder.project.is_users, self._ticker.execute

        def exec_module(self: SourceFileLoader, module: ModuleType) -> None:
            path = os.path.abspath(self.path)
            plain = SourceFileLoader if type(self) is SourceFileLoader else None
            compiled = stepping.compiled(self, path) if plain and is_users(path) else None
            if compiled is None:
                original(self, module)
            else:
                code, execution = compiled[0], Execution(path, module.__dict__, compiled[1])
                execute(execution, code)

        return disguise(cast("FunctionType", exec_module))

    def compiled(self, loader: SourceFileLoader, path: str) -> tuple[CodeType, Any] | None:
        """A module's code, and what gives its bytes; None when it is better executed without ticks."""
        fingerprint = fingerprint_at(path)
        if fingerprint is None:
            return None
        cache = _cache(path)
        if cache is not None and not is_young(fingerprint, time.time_ns()):
            code = _cached(cache, fingerprint)
            if code is not None:
                self._recorder.module(path, fingerprint)
                return code, lambda: _unchanged(path, fingerprint)
        try:
            with open(path, "rb") as file:
                data, fingerprint = file.read(), fingerprint_of(os.fstat(file.fileno()))
            code = Text(data, path).compile()
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return None  # Python itself will say it better
        self._recorder.module(path, fingerprint, data)
        if cache is not None and not sys.dont_write_bytecode and not is_young(fingerprint, time.time_ns()):
            loader.set_data(cache, _header(fingerprint) + marshal.dumps(code))
        return code, lambda: data


def _cache(path: str) -> str | None:
    try:
        return cache_from_source(path, optimization=f"devserver{sys.flags.optimize}")
    except NotImplementedError:
        return None  # an interpreter without a cache tag keeps none


def _header(source: Fingerprint) -> bytes:
    stamps = (0, source[0] // 10**9, source[2])
    return MAGIC_NUMBER + b"".join((number & 0xFFFFFFFF).to_bytes(4, "little") for number in stamps)


def _cached(cache: str, source: Fingerprint) -> CodeType | None:
    """What is in a cache, if it is of the newest text: see `loader` for what may be believed."""
    written = fingerprint_at(cache)
    if written is None or written[0] < max(source[0], source[1]) + YOUNG:
        return None
    try:
        with open(cache, "rb") as file:
            data = file.read()
        return (
            cast("CodeType", marshal.loads(memoryview(data)[16:])) if data[:16] == _header(source) else None
        )
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _unchanged(path: str, fingerprint: Fingerprint) -> bytes | None:
    """The bytes of a file, if it is still the same."""
    try:
        with open(path, "rb") as file:
            data, now = file.read(), fingerprint_of(os.fstat(file.fileno()))
    except OSError:
        return None
    return data if now == fingerprint else None
