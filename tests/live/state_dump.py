"""The state of a small application as text, the same for two processes exactly if they are in the same state.

It is copied into each generated project and asked there, in the process whose state it is. Objects are
numbered in the order in which they are met, so that who is whom shows, and addresses do not. What of a
library's is met is only named.
"""

from __future__ import annotations

import collections
import contextvars
import copyreg
import dataclasses
import decimal
import enum
import functools
import gc
import inspect
import itertools
import linecache
import logging
import mimetypes
import os
import random
import re
import signal
import socket
import sys
import traceback
import types
import warnings
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import Any

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
UNLIKE = ("DEVSERVER", "RUN_MAIN", "WERKZEUG", "PYTEST", "COLUMNS", "LINES")
"""Beginnings of variables that only a child of a supervisor has, or only a test."""

RARE = ("colorsys", "wave", "netrc", "cmd", "sched")
"""Libraries that nobody loads but the project."""

# Of a module's spec and loader, which have paths of their own below.
OMITTED = ("__builtins__", "__spec__", "__loader__", "__cached__")


def users_modules() -> dict[str, types.ModuleType]:
    """The project's modules, in the order of `sys.modules`, without this one."""
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
        if file.startswith(HERE) and name != __name__:
            found[name] = module
    return found


class Dump:
    """One look at everything."""

    def __init__(self) -> None:
        self.modules = users_modules()
        self.numbers: dict[int, int] = {}
        self.met: list[Any] = []

    def all(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        gc.collect()  # when it happens by itself is nobody's promise
        modules = {name: self.module(module) for name, module in self.modules.items()}
        objects = {}
        for number, each in enumerate(self.met):  # it grows meanwhile
            objects[f"#{number}"] = self.describe(each)
        return {
            "modules": modules,
            "objects": objects,
            "process": self.process(),
            "tracebacks": dict(self.tracebacks()),
        }

    def module(self, module: types.ModuleType) -> dict[str, Any]:
        spec = module.__spec__
        assert spec is not None
        cached = spec.cached and os.path.basename(spec.cached)
        names = module.__dict__
        same = spec.loader is names.get("__loader__")
        return {
            "names": [[k, self.ref(v)] for k, v in module.__dict__.items() if k not in OMITTED],
            "kind": [cls.__name__ for cls in type(module).__mro__],
            "spec": [spec.name, spec.origin, type(spec.loader).__name__, same, cached, spec.has_location,
                     spec.submodule_search_locations and list(spec.submodule_search_locations),
                     getattr(spec, "_initializing", False), os.path.basename(names.get("__cached__") or "")],
        }  # fmt: skip

    def is_users(self, name: Any) -> bool:
        return isinstance(name, str) and name in self.modules

    def ref(self, each: Any) -> Any:
        """A value, or its number."""
        kind = type(each)
        if kind in PLAIN:
            return repr(each)
        if isinstance(each, types.ModuleType):
            return f"module {each.__name__}"
        if kind is tuple and all(type(part) in PLAIN for part in each):
            return repr(each)
        if isinstance(each, type | types.FunctionType) and not self.is_users(each.__module__):
            return f"{each.__module__}.{each.__qualname__}"
        if id(each) not in self.numbers:
            self.numbers[id(each)] = len(self.met)
            self.met.append(each)
        return f"#{self.numbers[id(each)]}"

    def refs(self, items: Any) -> list[Any]:
        return [self.ref(each) for each in items]

    def pairs(self, items: Any) -> list[Any]:
        return [[self.ref(key), self.ref(value)] for key, value in items]

    def describe(self, each: Any) -> Any:
        if isinstance(each, types.FunctionType):
            return self.function(each)
        if isinstance(each, type):
            return self.type(each)
        if isinstance(each, dict):
            return [self.ref(type(each)), *self.pairs(each.items()), *self.more(each)]
        if isinstance(each, list | tuple | collections.deque):
            return [self.ref(type(each)), *self.refs(each), *self.more(each)]
        if isinstance(each, set | frozenset):
            return [self.ref(type(each)), sorted(repr(part) for part in each)]
        return self.instance(each)

    def instance(self, each: Any) -> Any:
        kind = self.ref(type(each))
        match each:
            case types.MethodType():
                return [kind, self.ref(each.__func__), self.ref(each.__self__)]
            case functools.partial():
                return [kind, self.ref(each.func), self.refs(each.args), self.pairs(each.keywords.items())]
            case property():
                return [kind, *self.refs((each.fget, each.fset, each.fdel))]
            case staticmethod() | classmethod():
                return [kind, self.ref(each.__func__)]
            case logging.Logger():
                return [kind, each.name, each.level, each.propagate, scrubbed(each.handlers)]
            case contextvars.ContextVar():
                return [kind, each.name, self.ref(each.get(None))]
            case BaseException():
                lines = [(f.filename, f.lineno, f.name) for f in traceback.extract_tb(each.__traceback__)]
                return [kind, self.refs(each.args), [line for line in lines if line[0].startswith(HERE)]]
            case types.GeneratorType():
                frame = each.gi_frame
                return [
                    kind,
                    each.__qualname__,
                    frame and [frame.f_lineno, *self.pairs(frame.f_locals.items())],
                ]
            case weakref.ref():
                return [kind, self.ref(each())]
            case weakref.WeakValueDictionary():
                return [kind, self.pairs(each.items())]
            case random.Random():
                return [kind, summed(each.getstate())]
        if hasattr(each, "cache_info"):
            return [kind, repr(each.cache_info()), self.ref(each.__wrapped__)]
        return [kind, *self.more(each)] if self.is_users(type(each).__module__) else scrubbed(each)

    def more(self, each: Any) -> list[Any]:
        """What an instance has besides what it is."""
        own = [self.pairs(each.__dict__.items())] if hasattr(each, "__dict__") else []
        if isinstance(each, enum.Enum):
            own.append([scrubbed(each)])
        slots = [name for cls in type(each).__mro__ for name in getattr(cls, "__slots__", ())]
        return own + [[name, self.ref(getattr(each, name, None))] for name in slots if name[:2] != "__"]

    def type(self, each: type) -> Any:
        names = {
            key: value
            for key, value in each.__dict__.items()
            if key
            not in ("__dict__", "__weakref__", "_abc_impl", "__abstractmethods__", "__static_attributes__")
        }
        fields = [field.name for field in dataclasses.fields(each)] if dataclasses.is_dataclass(each) else []
        return {
            "name": f"{each.__module__}.{each.__qualname__}",
            "is the one": getattr(self.modules[each.__module__], each.__name__, None) is each,
            "mro": self.refs(each.__mro__),
            "type": self.ref(type(each)),
            "names": self.pairs(names.items()),
            "fields": fields,
            "subclasses": self.refs(type.__subclasses__(each)),
            "abstract": sorted(getattr(each, "__abstractmethods__", ())),
            "source": source(each),
        }

    def function(self, each: types.FunctionType) -> Any:
        module = self.modules[each.__module__]
        return {
            "name": f"{each.__module__}.{each.__qualname__}",
            "its module's": each.__globals__ is module.__dict__,
            "code": code(each.__code__),
            "defaults": self.ref(each.__defaults__),
            "kwdefaults": self.ref(each.__kwdefaults__),
            "doc": each.__doc__,
            "annotations": self.pairs(each.__annotations__.items()),
            "closure": [self.ref(cell.cell_contents) for cell in each.__closure__ or ()],
            "names": self.pairs(each.__dict__.items()),
            "source": source(each),
        }

    def process(self) -> dict[str, Any]:
        """What is not of one module."""
        environ = {k: v for k, v in sorted(os.environ.items()) if not k.startswith(UNLIKE)}
        root = logging.getLogger()
        return {
            "path": sys.path,
            "environ": environ,
            "filters": [scrubbed(each) for each in warnings.filters],
            "once": sorted(map(str, vars(warnings)["onceregistry"])),
            "limits": [
                sys.getrecursionlimit(),
                sys.getswitchinterval(),
                gc.isenabled(),
                gc.get_threshold(),
                socket.getdefaulttimeout(),
                decimal.getcontext().prec,
                len(mimetypes.types_map),
            ],
            "hooks": [
                scrubbed(sys.excepthook),
                scrubbed(signal.getsignal(signal.SIGUSR1)),
                scrubbed(sys.path_hooks),
            ],
            "finders": [
                each.__module__ for each in sys.meta_path if self.is_users(getattr(each, "__module__", ""))
            ],
            "pickled": sorted(
                each.__qualname__ for each in copyreg.dispatch_table if self.is_users(each.__module__)
            ),
            "handlers": scrubbed(root.handlers),
            "level": root.level,
            "folder": os.getcwd(),
            "builtins": sorted(set(vars(__import__("builtins"))) - {"<devserver tick>"}),
            "libraries": [name for name in sys.modules if name in RARE],
        }

    def tracebacks(self) -> Iterator[tuple[str, Any]]:
        """Of the functions that are there to fail."""
        for name, module in self.modules.items():
            for key, value in list(vars(module).items()):
                if key.startswith("boom") and isinstance(value, types.FunctionType):
                    yield f"{name}.{key}", failure(value)


def failure(function: Callable[[], object]) -> Any:
    """What it raises, and from where."""
    try:
        function()
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]
        return [scrubbed(error), [(f.filename, f.lineno, f.name, f.line) for f in frames]]
    return None


def code(each: types.CodeType) -> Any:
    """All that can be seen of it, and of the code in it."""
    constants = [code(c) if isinstance(c, types.CodeType) else scrubbed(c) for c in each.co_consts]
    # Whether a name was imported in the same compilation decides between two instructions that do the same.
    places = summed([place for place, _ in itertools.groupby(each.co_positions())])
    return [
        each.co_filename, each.co_name, each.co_qualname, each.co_firstlineno, constants,
        each.co_names, each.co_varnames, each.co_freevars, each.co_cellvars, each.co_flags, places,
    ]  # fmt: skip


def source(each: Any) -> Any:
    """What `inspect` says it is."""
    linecache.checkcache()
    try:
        return inspect.getsource(each)
    except (OSError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def scrubbed(each: Any) -> str:
    """What it says of itself, without addresses."""
    return re.sub(r"0x[0-9a-f]+", "0x", repr(each))


def summed(each: Any) -> int:
    """A short form of what is long."""
    return zlib.crc32(repr(each).encode())


def dump() -> dict[str, Any]:
    """The state now."""
    return Dump().all()
