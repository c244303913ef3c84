"""Has the user's modules executed with ticks, whoever imports them.

`SourceFileLoader.exec_module` is replaced; a loader that compiles in a way of its own keeps it.
Compiled modules are cached as Python does it (PEP 552), beside Python's own .pyc files and under a
name of their own. Knows nothing of forks.
"""

from __future__ import annotations

import os
from functools import partial
from importlib.machinery import SourceFileLoader
from time import time_ns
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast

from devserver.loading.bytecode import cached, keep, read_source
from devserver.loading.reads import disguise
from devserver.loading.recorder import Recorder
from devserver.loading.ticks import Execution, Text, Ticker
from devserver.watching.answers import Fingerprint, fingerprint_at, is_racy

FORM = "devserver"
"""Of the compiled modules: they stand beside Python's own."""

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
        if not is_racy(fingerprint, time_ns()):
            code = cached(path, fingerprint, FORM)
            if code is not None:
                self._recorder.module(path, fingerprint)
                return code, partial(_unchanged, path, fingerprint)
        try:
            data, fingerprint = read_source(path)
            code = Text(data, path).compile()
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return None  # Python itself will say it better
        self._recorder.module(path, fingerprint, data)
        if not is_racy(fingerprint, time_ns()):
            keep(loader, path, fingerprint, code, FORM)
        return code, lambda: data


def _unchanged(path: str, fingerprint: Fingerprint) -> bytes | None:
    """The bytes of a file, if it is still the same."""
    try:
        data, now = read_source(path)
    except OSError:
        return None
    return data if now == fingerprint else None
