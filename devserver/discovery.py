"""Discovery: which application is meant when the command line names none.

Source files are read and parsed, nothing is imported, so this may run in the supervisor. The
price is that only names are seen: a top level that binds `application` or `app` is taken for one
that holds an application.

In a child a recorder notes what is asked, to restart when it changes. It is to hear of the files that
were looked at in vain. That the file of the application was looked into is none of its business: the
import asks for it anyway, and a restart after an edit of it would have to begin before everything.

This module refuses to know how a target is imported.
"""

import ast
import io
import itertools
import os
import re
import stat
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.machinery import PathFinder

from devserver.errors import TargetError

ATTRIBUTES = ("application", "app")
"""Names of an application, the preferred one first."""

MODULES = ("main", "app", "wsgi", "asgi")
"""Modules that are looked into."""

SUGGESTED = 5
"""So many commands are suggested at most."""

_FACTORY = re.compile(r"(?!_)\w+_app|app_factory")
# As it was before a recorder wrapped it. When an application is found, what else comes to lie beside it
# is no reason to restart; when none is, `modules_in` asks by the wrapped one.
_listdir = os.listdir
_stat = os.stat
_SURVEYED = 300  # files read for suggestions; a home folder has thousands


def discover(app_dir: str) -> str:
    """Find the application of a project without importing anything, and return its target.

    Looks into `MODULES`, in `app_dir` and one package down, for a top level that binds
    `application` or `app`. A file that cannot be parsed but mentions one of them is taken, with
    no attribute: so its error is shown, and the save that mends it is noticed.

    Raises:
        TargetError: nothing was found; says what was looked for and what else may be meant.
    """
    unreadable = []
    for module, path in _candidates(app_dir):
        data = _read(path)
        outline = _outline(data)
        if outline is None and re.search(rb"\bapp(lication)?\b", data):
            return module
        for name in ATTRIBUTES:
            if name in (outline or {}):
                return f"{module}:{name}"
        if outline is None:
            unreadable.append(module)
        with suppress(OSError), open(path, "rb") as file:
            file.read()  # so that it is noted
    if unreadable:
        return unreadable[0]
    raise TargetError(_nothing_found(app_dir))


def _candidates(app_dir: str) -> Iterator[tuple[str, str]]:
    for prefix, folder in _packages(app_dir):
        for name in MODULES:
            # In the order of the import system: a package hides a module of the same name.
            for path in (os.path.join(folder, name, "__init__.py"), os.path.join(folder, name + ".py")):
                if _is_file(path):
                    yield prefix + name, path
                    break
                os.path.isfile(path)  # so that it is noted


def is_there(target: str, app_dir: str) -> bool:
    """Whether there is a module, or a file, that a target names; its attribute is for the load to find.

    Imports nothing, so of a dotted name it sees the first part only.
    """
    drive = 2 if re.match(r"[A-Za-z]:[\\/]", target) else 0  # its colon separates nothing
    head, colon, _ = target[drive:].rpartition(":")
    place = target[:drive] + head if colon else target
    if not place.replace(".", "").isidentifier() or place.endswith((".py", ".pyw")):
        paths = [os.path.join(folder, place) for folder in (app_dir, os.getcwd())]
        return any(os.path.exists(path) or os.path.exists(path + ".py") for path in paths)
    top = place.partition(".")[0]
    if PathFinder.find_spec(top, [app_dir]):
        return True
    # Each finder: what is installed to be edited has one of its own.
    return any(finder.find_spec(top, None) for finder in sys.meta_path)


def may_change(path: str) -> bool:
    """Whether `discover` may find another application after a change of a file."""
    stem, suffix = os.path.splitext(os.path.basename(path))
    return suffix == ".py" and stem in (*MODULES, "__init__")


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(_stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _read(path: str) -> bytes:
    try:
        with io.FileIO(path) as file:
            return file.readall()
    except OSError:
        return b""


def _packages(app_dir: str) -> list[tuple[str, str]]:
    """The folder itself and the packages in it, each with its prefix for names of modules."""
    names = [name for name in listed(app_dir, _listdir) if name.isidentifier()]
    inside = [(name + ".", os.path.join(app_dir, name)) for name in names]
    return [("", app_dir)] + [(p, f) for p, f in inside if _is_file(os.path.join(f, "__init__.py"))]


def _outline(source: bytes) -> dict[str, bool] | None:
    """Names bound at the top level of a module, and whether each is a function without arguments.

    None when it cannot be parsed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come again, once, when the file is imported
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return {name: _is_plain(node) for node in _top_level(tree.body) for name in _bound_by(node)}


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import, also those within if, try and with."""
    for node in body:
        yield node
        match node:
            case ast.If(test=test, body=inner, orelse=other):
                guarded = re.search(r"\b(__name__|TYPE_CHECKING)\b", ast.unparse(test))
                yield from _top_level(other if guarded else inner + other)
            case ast.Try() | ast.TryStar():
                handled = [line for handler in node.handlers for line in handler.body]
                yield from _top_level(node.body + handled + node.orelse + node.finalbody)
            case ast.With() | ast.AsyncWith():
                yield from _top_level(node.body)


def _bound_by(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.Assign(value=ast.Constant()) | ast.AnnAssign(value=None | ast.Constant()):
            return []  # `app = None`: a place kept for later
        case ast.Assign(targets=targets):
            leaves = [leaf for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]
            return [leaf.id for leaf in leaves if isinstance(leaf.ctx, ast.Store)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.ImportFrom(names=names):
            return [alias.asname or alias.name for alias in names]
        case ast.Import(names=names):
            return [alias.asname for alias in names if alias.asname]
    return []


def _is_plain(node: ast.stmt) -> bool:
    if not isinstance(node, ast.FunctionDef):
        return False
    return len(node.args.posonlyargs) + len(node.args.args) <= len(node.args.defaults)


def _nothing_found(app_dir: str) -> str:
    text = (
        f"no application found in {app_dir}: looked for `application` and `app` in "
        f"{', '.join(name + '.py' for name in MODULES)}, here and one package down."
    )
    commands = list(itertools.islice(_other_targets(app_dir), SUGGESTED))
    if commands:
        elsewhere = "" if app_dir == os.getcwd() else f" --app-dir {app_dir}"
        return "\n  ".join([f"{text}\nPerhaps:", *(command + elsewhere for command in commands)])
    return f"{text}\nName it: devserver module:attribute, or devserver path/to/file.py:attribute"


def _other_targets(app_dir: str) -> Iterator[str]:
    """Commands for what looks like an application or a factory, in files of any name."""
    files = ((prefix, folder, name) for prefix, folder in _packages(app_dir) for name in modules_in(folder))
    for prefix, folder, name in itertools.islice(files, _SURVEYED):
        path = os.path.join(folder, name)
        is_file = os.path.isfile(path + ".py")
        outline = _outline(_read(path + ".py" if is_file else os.path.join(path, "__init__.py"))) or {}
        for bound, plain in outline.items():
            if bound in ATTRIBUTES:
                yield f"devserver {prefix}{name}:{bound}"
            elif plain and is_factory_name(bound):
                yield f"devserver {prefix}{name}:{bound} --factory"


def is_factory_name(name: str) -> bool:
    """Whether a function of this name is likely to make an application, like create_app."""
    return bool(_FACTORY.fullmatch(name))


def listed(folder: str, listdir: Callable[[str], list[str]] | None = None) -> list[str]:
    """What is in a folder, sorted, without hidden entries; nothing if it cannot be read.

    Args:
        listdir: lists it; by default `os.listdir` as it is now, so that a recorder notes the question.
    """
    try:
        return sorted(name for name in (listdir or os.listdir)(folder) if not name.startswith("."))
    except OSError:
        return []


def modules_in(folder: str) -> list[str]:
    """Names of the modules and packages in a folder."""
    found = []
    for name in listed(folder):
        stem, suffix = os.path.splitext(name)
        if suffix == ".py" and stem != "__init__":
            found.append(stem)
        elif os.path.isfile(os.path.join(folder, name, "__init__.py")):
            found.append(name)
    return found


def near(word: str, names: Iterable[str]) -> str:
    """The end of a sentence, with what may have been meant; empty when nothing is near."""
    import difflib  # a supervisor has no use for it

    near = difflib.get_close_matches(word, names, n=2)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
