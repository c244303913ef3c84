"""Classify: how is this application called, as WSGI, ASGI 2 or ASGI 3?

Classifying looks and never calls: a call would run the user's code with arguments made up.
What is asked, in this order:

 1. Is it a coroutine function, or an object whose `__call__` is one? Then it is ASGI 3.
 2. What are its arguments called? `environ` and `start_response`, `scope`, `receive` and `send`
    speak for themselves.
 3. How many must it be given? Three is ASGI 3, two is WSGI. One, called `scope`, is ASGI 2.
 4. If it takes `*args`: the same questions about what it wraps (`__wrapped__`, then what a closure
    or an object holds under a name like `app` or `func`). Not before: the wrapper is what will
    be called, so an async wrapper around a plain function is ASGI.
 5. If that is a plain function of one argument, it takes a request object: the wrapper is
    Werkzeug's `Request.application` or a relative of it, and WSGI. An ASGI application is not
    wrapped like that, because there the inner function would be async.

A class is called too, and what comes out is used: awaited (ASGI 3), called again (ASGI 2) or
iterated (WSGI). What is still unclear is refused, with the option that settles it: a wrong guess
would fail later and say less.

Rejected: `inspect.iscoroutinefunction` and `inspect.signature` as they are. The first does not see
objects, the second looks through `__wrapped__` at once and is misled by objects with `__get__`.

This module refuses to know where an application comes from and what it does.
"""

import functools
import inspect
import math
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from devserver.errors import TargetError

Interface = Literal["asgi3", "asgi2", "wsgi"]

_WSGI_NAMES = {"environ", "start_response"}
_ASGI_NAMES = {"scope", "receive", "send"}
_REQUEST_NAMES = {"request", "req"}
_HELD = ("app", "application", "wsgi_app", "asgi_app", "func", "function", "fn", "f", "wrapped")
_DEPTH = 16  # wrappers within wrappers; also ends a circle


def classify(app: object, interface: str = "auto", name: str = "the target") -> Interface:
    """Tell how an application is called, by the questions listed at the top of this module.

    Args:
        app: the application.
        interface: "auto", or what the user says it is, which is then believed.
        name: what to call it in a message.

    Raises:
        TargetError: it cannot be called, or cannot be told; the message names the remedy.
    """
    if isinstance(app, types.ModuleType):
        there = [each for each in ("application", "app") if callable(vars(app).get(each))]
        meant = f", {app.__name__}:{there[0]}" if there else "; it has neither `application` nor `app`"
        raise TargetError(f"{name} is a module: name the application in it{meant}")
    if not callable(app):
        raise TargetError(f"{name} is a {type(app).__qualname__}, which cannot be called: not an application")
    found = guess(app) if interface == "auto" else cast("Interface", interface)
    if found is None:
        raise TargetError(f"{name} {_refusal(app)}")
    return found


def guess(app: Callable[..., Any], depth: int = _DEPTH) -> Interface | None:
    """What `classify` finds without being told, or None. Follows up to `depth` wrappers."""
    shape = _shape(app)
    if isinstance(app, type):
        return _class_interface(app, shape)
    found = _interface(shape)
    if found or not shape.is_open or not depth:
        return found
    for inner in _inside(app):
        found = guess(inner, depth - 1) or _request_interface(inner)
        if found:
            return found
    return "wsgi" if shape.names[:1] and shape.names[0] in _REQUEST_NAMES else None


def check_factory(factory: object, name: str) -> Callable[[], object]:
    """Make sure that something can be called as a factory, and return it.

    Raises:
        TargetError: it cannot be called, is an application, is async, or needs arguments.
    """
    if not callable(factory):
        raise TargetError(f"{name} is a {type(factory).__qualname__}, which cannot be called: not a factory")
    shape = _shape(factory)
    if shape.least and guess(factory):
        raise TargetError(f"{name} is an application already: leave out --factory")
    if shape.is_async and not isinstance(factory, type):
        raise TargetError(f"the factory {name} is async: make it a plain function, and await in the lifespan")
    if shape.least:
        needed = ", ".join(shape.names[: shape.least])
        raise TargetError(f"the factory {name} needs arguments ({needed}): give them defaults")
    return factory


@dataclass(frozen=True, slots=True)
class _Shape:
    """What can be seen of a callable: how many positional arguments, their names, async or not."""

    least: int
    most: float
    names: tuple[str, ...]
    is_async: bool

    @property
    def is_open(self) -> bool:
        return self.most == math.inf

    def takes(self, count: int) -> bool:
        return self.least <= count <= self.most

    def says(self, names: set[str]) -> bool:
        return not names.isdisjoint(self.names)


def _shape(app: Callable[..., Any]) -> _Shape:
    try:
        parameters = inspect.signature(_called(app), follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return _Shape(0, math.inf, (), _is_async(app))  # written in C, and does not say
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    is_open = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    least = sum(p.default is p.empty for p in positional)
    names = tuple(p.name for p in positional)
    return _Shape(least, math.inf if is_open else len(positional), names, _is_async(app))


def _called(app: Callable[..., Any]) -> Callable[..., Any]:
    """The function that runs: of an object its `__call__`, taken from the type as Python does."""
    if isinstance(app, types.FunctionType | types.MethodType | functools.partial):
        return app  # on PyPy their types have a `__call__` that is a function, and takes anything
    call = _defined_call(type(app))
    # On PyPy what is built in, as a class's `__call__`, is a function as well, with code of another type.
    if inspect.isfunction(call) and isinstance(call.__code__, types.CodeType):
        return types.MethodType(call, app)
    return app


def _defined_call(kind: type) -> object:
    """`__call__` as the class or a parent defines it, unbound; None if none does."""
    return next((vars(each)["__call__"] for each in kind.__mro__ if "__call__" in vars(each)), None)


def _is_async(app: Callable[..., Any]) -> bool:
    while isinstance(app, functools.partial):
        app = app.func
    if isinstance(app, type):
        return hasattr(app, "__await__")
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(_called(app))


def _interface(shape: _Shape) -> Interface | None:
    """Questions 1 to 3."""
    if shape.is_async:
        return "asgi3" if shape.takes(3) else None
    if shape.says(_WSGI_NAMES) and shape.takes(2):
        return "wsgi"
    if shape.says(_ASGI_NAMES):
        if shape.takes(3):
            return "asgi3"
        return "asgi2" if shape.takes(1) and shape.names[0] == "scope" else None
    if shape.is_open:
        return "asgi3" if shape.least == 3 else None
    by_count: dict[int, Interface] = {3: "asgi3", 2: "wsgi"}
    return by_count.get(shape.least)


def _request_interface(inner: Callable[..., Any]) -> Interface | None:
    """Question 5."""
    shape = _shape(inner)
    is_plain = inspect.isroutine(inner) and not shape.is_async
    return "wsgi" if is_plain and shape.least == shape.most == 1 else None


def _class_interface(kind: type, shape: _Shape) -> Interface | None:
    if shape.is_async:
        return "asgi3" if shape.takes(3) else None
    call = _defined_call(kind)
    if callable(call):
        # None stands for self. A class like Flask also takes one argument, and its objects two.
        inner = _shape(functools.partial(call, None))
        is_second_half = inner.takes(2) and (inner.is_async or inner.says(_ASGI_NAMES)) and not inner.takes(3)
        return "asgi2" if shape.takes(1) and is_second_half else None
    return "wsgi" if shape.takes(2) and (hasattr(kind, "__iter__") or hasattr(kind, "__next__")) else None


def _inside(app: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """What a wrapper may hand its arguments on to, the likeliest first."""
    if isinstance(app, functools.partial):
        yield from (functools.partial(inner, *app.args, **app.keywords) for inner in _inside(app.func))
        return
    call = _called(app)
    function = call.__func__ if isinstance(call, types.MethodType) else call
    # Looked up statically: an object with `__getattr__` has everything it is asked for.
    wrapped = inspect.getattr_static(function, "__wrapped__", None)
    if callable(wrapped):
        yield types.MethodType(wrapped, call.__self__) if isinstance(call, types.MethodType) else wrapped
    held = {**_closure(function), **getattr(app, "__dict__", {})}
    yield from (held[name] for name in _HELD if callable(held.get(name)))


def _closure(function: object) -> dict[str, object]:
    found: dict[str, object] = {}
    if not isinstance(function, types.FunctionType):
        return found
    # On PyPy what is built in is a function as well, and its code has no names.
    names: tuple[str, ...] = getattr(function.__code__, "co_freevars", ())
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            pass  # not bound yet
    return found


def _refusal(app: Callable[..., Any]) -> str:
    shape = _shape(app)
    if isinstance(app, type):
        return "is a class: give an object made of it, or add --factory to have one made"
    if shape.is_async and shape.most == 0:
        return "is an async function without arguments: no application, and a factory must not be async"
    # What is inside counts too: a factory is often wrapped, as in functools.cache.
    if any(each.least == 0 and not each.is_open for each in (shape, *map(_shape, _inside(app)))):
        return "is a function without arguments: looks like a factory, add --factory"
    settle = "if it is an application, say which kind: --interface asgi3, asgi2 or wsgi"
    if shape.is_open:
        return f"takes any arguments, so it may be ASGI or WSGI; {settle}"
    taken = f"{'is async and ' if shape.is_async else ''}takes {shape.least} ({', '.join(shape.names)})"
    return f"{taken}; WSGI takes 2 (environ, start_response), ASGI takes 3 (scope, receive, send); {settle}"
