"""Find and import: from what the user typed to a callable whose interface is known.

`parse` reads a target, `load` imports it and gets the application. Which target is meant when
none was given is found by `devserver.discovery`, how an application is called by
`devserver.interface`; both can be had from here.

This module refuses to know how an application is served or restarted. Exceptions of the
user's code pass through unchanged: whoever catches them shows them.
"""

import importlib
import inspect
import os
import re
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from devserver import config
from devserver.cpython import invalidate_caches
from devserver.discovery import (
    ATTRIBUTES,
    MODULES,
    SUGGESTED,
    discover,
    is_factory_name,
    listed,
    modules_in,
    near,
)
from devserver.errors import TargetError
from devserver.interface import Interface, check_factory, classify, guess

__all__ = ["Application", "Interface", "Target", "classify", "discover", "load", "parse"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where an application is.

    Attributes:
        module: dotted name to import.
        attribute: dotted name in the module; None for the first of `application`, `app`.
        folder: what must be on `sys.path` for the import.
        file: the file that was named, absolute; None when a module was named.
    """

    module: str
    attribute: str | None
    folder: str
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Application:
    """An application, ready to be called.

    Attributes:
        callable: the application itself.
        interface: how it is called: ASGI 3, ASGI 2 or WSGI (PEP 3333).
        name: what to call it in a message, like `shop.main:app`.
    """

    callable: Callable[..., Any]
    interface: Interface
    name: str


def parse(target: str, app_dir: str) -> Target:
    """Read `module[:attribute]` or `path/to/file.py[:attribute]`.

    A file inside packages is imported by its dotted name, so that its relative imports work;
    any other by its stem.

    Args:
        target: what the user typed.
        app_dir: absolute folder for modules and relative paths; a path that is not found there
            is looked for in the working directory.

    Raises:
        TargetError: it has neither form, or there is no such file.
    """
    # The colon of a Windows drive separates nothing.
    drive = 2 if re.match(r"[A-Za-z]:[\\/]", target) else 0
    head, colon, tail = target[drive:].rpartition(":")
    place, attribute = (target[:drive] + head, tail) if colon else (target, None)
    if attribute is not None and not all(part.isidentifier() for part in attribute.split(".")):
        if attribute.endswith("()"):
            raise TargetError(f"a factory is named without parentheses: {target[:-2]} --factory")
        raise TargetError(f"{target!r}: {attribute!r} is not a valid attribute name; write module:attribute")
    if place in (".", "..") or place.endswith((".py", ".pyw")) or re.search(r"[\\/]", place):
        return _file_target(place, attribute, app_dir)
    if not all(place.split(".")):
        raise TargetError(f"{target!r} is not a target; write module:attribute or path/to/file.py:attribute")
    return Target(place, attribute, app_dir)


def _file_target(place: str, attribute: str | None, app_dir: str) -> Target:
    path = _find_file(place, app_dir)
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]
    if "." in stem:
        raise TargetError(f"{path} cannot be imported: rename it so that its name has no further dot")
    names = [] if stem == "__init__" else [stem]
    while os.path.isfile(os.path.join(folder, "__init__.py")) and os.path.basename(folder).isidentifier():
        folder, package = os.path.split(folder)
        names.insert(0, package)
    return Target(".".join(names or [stem]), attribute, folder, path)


def _find_file(place: str, app_dir: str) -> str:
    for folder in dict.fromkeys((app_dir, os.getcwd())):
        path = os.path.normpath(os.path.join(folder, place))
        for candidate in (path, path + ".py", os.path.join(path, "__init__.py")):
            if os.path.isfile(candidate):
                return candidate
        if os.path.isdir(path):
            raise TargetError(
                f"{place} is a folder; to look for an application in it: devserver --app-dir {place}"
            )
    path = os.path.normpath(os.path.join(app_dir, place))
    beside = [name + ".py" for name in modules_in(os.path.dirname(path))]
    raise TargetError(f"there is no file {path}{near(os.path.basename(path), beside)}")


def load(section: config.App) -> Application:
    """Import the target, get the application from it and tell its interface.

    Puts `app_dir` and the target's folder first on `sys.path`. The first even when a file
    elsewhere was named: `python -m devserver` has the working directory there, and the two ways
    to start must see the same modules.

    Raises:
        TargetError: there is no such module or attribute, or it is no application.
        BaseException: whatever the user's code raises, unchanged.
    """
    if section.target is None or isinstance(section.target, str):
        target = parse(section.target or discover(section.app_dir), section.app_dir)
        for folder in (section.app_dir, target.folder):
            sys.path[:] = [folder, *(entry for entry in sys.path if entry != folder)]
        found, name = _attribute(_import(target), target)
    else:
        found = section.target
        name = getattr(found, "__qualname__", None) or f"the {type(found).__qualname__} object"
    if section.factory:
        found, name = _make(found, name), f"{name}()"
    interface = classify(found, section.interface, name)
    return Application(cast("Callable[..., Any]", found), interface, name)


def _import(target: Target) -> types.ModuleType:
    invalidate_caches()  # the file may be younger than the last look into its folder
    try:
        module = importlib.import_module(target.module)
    except ModuleNotFoundError as error:
        if not _is_unknown(target.module, error):
            raise
        raise TargetError(_unknown_module(target)) from None
    other = getattr(module, "__file__", None)
    if target.file and not (other and os.path.exists(other) and os.path.samefile(other, target.file)):
        taken = other or "a part of Python"
        raise TargetError(f"{target.file} cannot be imported: {target.module!r} is {taken}; rename the file")
    return module


def missing(target: str, app_dir: str) -> TargetError:
    """What is said of a target whose module or file is not there."""
    try:
        return TargetError(_unknown_module(parse(target, app_dir)))
    except TargetError as error:
        return error


def _is_unknown(module: str, error: ModuleNotFoundError) -> bool:
    """Whether the target itself is missing, not something that the user's code imports."""
    if error.name is None or not f"{module}.".startswith(f"{error.name}."):
        return False
    traceback = error.__traceback__
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__"))
        if name.partition(".")[0] not in ("devserver", "importlib", "_frozen_importlib"):
            return False
        traceback = traceback.tb_next
    return True


def _unknown_module(target: Target) -> str:
    parent, _, last = target.module.rpartition(".")
    text = f"there is no module {target.module!r} in {target.folder}"
    folders = getattr(sys.modules.get(parent), "__path__", [target.folder])
    meant = near(last, [name for folder in folders for name in modules_in(folder)])
    if meant or parent:
        return text + meant
    for name in listed(target.folder):
        if last in modules_in(os.path.join(target.folder, name)):
            return f"{text}; there is one in {name}: add --app-dir {name}"
    return text


def _attribute(module: types.ModuleType, target: Target) -> tuple[object, str]:
    if target.attribute is None:
        present = [name for name in ATTRIBUTES if hasattr(module, name)]
        # `app` can also be a submodule: what can be called goes first.
        for name in sorted(present, key=lambda name: not callable(getattr(module, name))):
            return getattr(module, name), f"{target.module}:{name}"
        neither = f"{target.module} has neither `application` nor `app`"
        raise TargetError(_of_folder(module) or _no_attribute(module, neither, ""))
    found: object = module
    for part in target.attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            owner = target.module if found is module else type(found).__qualname__
            raise TargetError(_no_attribute(found, f"{owner} has no attribute {part!r}", part)) from None
    return found, f"{target.module}:{target.attribute}"


def _of_folder(module: types.ModuleType) -> str:
    """What is said of a folder that was imported as if it were a module; "" if it is none."""
    places = list(getattr(module, "__path__", ()))
    if getattr(module, "__file__", None) is not None or not places:
        return ""
    folder = os.path.relpath(places[0])
    found = modules_in(places[0])
    meant = next((each for each in MODULES if each in found), "")
    remedy = f"did you mean {folder}/{meant}.py?" if meant else f"name a file in it, as in {folder}/NAME.py"
    return f"{module.__name__} is a folder; {remedy}"


def _no_attribute(owner: object, text: str, name: str) -> str:
    names = [each for each in getattr(owner, "__dict__", {}) if not each.startswith("_")]
    meant = near(name, names)
    if meant or not isinstance(owner, types.ModuleType):
        return text + meant
    commands = [
        f"devserver {owner.__name__}:{each}{' --factory' if _is_factory(vars(owner)[each], each) else ''}"
        for each in names
        if _is_factory(vars(owner)[each], each) or _is_application(vars(owner)[each])
    ]
    text = f"{text} ({getattr(owner, '__file__', None) or 'no file'})"
    return "\n  ".join([f"{text}; perhaps:", *commands[:SUGGESTED]]) if commands else text


def _is_factory(value: object, name: str) -> bool:
    return inspect.isfunction(value) and is_factory_name(name)


def _is_application(value: object) -> bool:
    """Whether to suggest an object: functions and classes have too much in common with applications."""
    try:
        if not callable(value) or isinstance(value, type) or inspect.isroutine(value):
            return False
        return guess(value) is not None
    except Exception:  # the user's: `flask.request` raises at any look, being outside of a request
        return False


def _make(factory: object, name: str) -> object:
    made = check_factory(factory, name)()
    if inspect.iscoroutine(made):
        made.close()  # or Python complains that it was never awaited
        raise TargetError(f"the factory {name} returned a coroutine: it must return the application")
    if made is None:
        raise TargetError(f"the factory {name} returned None: it must return the application")
    return made
