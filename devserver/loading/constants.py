"""One table of constants for a module that is executed in two halves.

The compiler makes equal constants of one module one object, and a program can see that: `a is b`. What goes
on with a newer text is compiled by itself. Here its constants become those of the half before it, as if both
had been compiled at once. Sets, which the compiler makes of `x in {1, 2}`, stay: no program gets hold of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import copysign
from types import CodeType

Constants = dict[object, object]
"""What the compiler takes for equal → the one object."""


def collect(code: CodeType, constants: Constants) -> None:
    """Add the constants of a module's code, and of all code within it; what is there already stays."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            collect(constant, constants)
        else:
            for each in _parts(constant):
                constants.setdefault(_key(each), each)


def share(code: CodeType, constants: Constants) -> CodeType:
    """The same code, with constants that are in the table taken from there."""
    shared = tuple(
        share(constant, constants) if isinstance(constant, CodeType) else _taken(constant, constants)
        for constant in code.co_consts
    )
    if all(one is other for one, other in zip(shared, code.co_consts, strict=True)):
        return code
    return code.replace(co_consts=shared)


def _taken(constant: object, constants: Constants) -> object:
    key = _key(constant)
    known = constants.get(key, constants)
    if known is not constants:
        return known
    if type(constant) is tuple:  # a new one, which may hold what is known; others may be equal to it
        parts = tuple(_taken(each, constants) for each in constant)
        same = all(one is other for one, other in zip(parts, constant, strict=True))
        constant = constants[key] = constant if same else parts
    return constant


def _parts(constant: object) -> Iterator[object]:
    """A constant, and those that a tuple holds."""
    yield constant
    if type(constant) is tuple:
        for each in constant:
            yield from _parts(each)


def _key(constant: object) -> object:
    """What the compiler tells constants apart by: their type, the signs of zeros, and that of their parts."""
    kind = type(constant)
    if isinstance(constant, float):
        return kind, constant, copysign(1, constant)
    if isinstance(constant, complex):
        return kind, constant, copysign(1, constant.real), copysign(1, constant.imag)
    if isinstance(constant, tuple):
        return kind, tuple(map(_key, constant))
    if isinstance(constant, slice):  # since Python 3.14
        return kind, *map(_key, (constant.start, constant.stop, constant.step))
    return kind, id(constant) if isinstance(constant, frozenset) else constant
