"""The table [tool.devserver.run]: companions, the programs that run beside the server. Judges their keys.

It stands in pyproject.toml and nowhere else: a program with its folder, its environment and its patterns fits
neither into a variable nor into a flag. What becomes of a companion is known in the room `companions`.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from devserver.errors import UsageError
from devserver.option_types import SWITCH
from devserver.options import RUN, TABLE, option

PLACE = f"{TABLE.removesuffix(']')}.{RUN}]"

BEFORE, SERVING = "before", "serving"
"""When a companion is started: ahead of the application, or when that is served."""

_LONG = 100
"""Characters of a command that are shown."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Companions:
    """Whether programs run beside the server."""

    enabled: bool = option(
        True,
        "Run the programs of [tool.devserver.run] beside the server, with --reload.",
        kind=SWITCH,
        flag="companions",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """One program. Its fields are the keys of its table.

    Attributes:
        name: of its table, and of its lines in the log.
        command: text for the shell, or a program and its arguments.
        cwd: the folder that it is started in, absolute.
        env: variables for it alone.
        start: BEFORE or SERVING.
        restart: it is restarted whenever the application is.
        watch: patterns of files; it is restarted when one of them changes.
        once: its work is done when it exits with code 0.
        grace: seconds that it may take to end.
        root: the folder that its patterns start from, absolute.
    """

    name: str
    command: str | tuple[str, ...]
    cwd: str
    env: tuple[tuple[str, str], ...] = ()
    start: str = BEFORE
    restart: bool = False
    watch: tuple[str, ...] = ()
    once: bool = False
    grace: float = 5.0
    root: str

    @property
    def awaited(self) -> bool:
        """Whether the application is not loaded before its work is done."""
        return self.once and self.start == BEFORE

    @property
    def shown(self) -> str:
        """The command for people: one line, not too long."""
        text = (self.command if isinstance(self.command, str) else " ".join(self.command)).strip()
        line = text.partition("\n")[0]
        return text if len(text) <= _LONG and line == text else f"{line[:_LONG]} …"

    def lines(self) -> str:
        """All that is not as it is by default, for `--explain-config`."""
        told = [f"command = {self.shown}", f"cwd = {self.cwd}"]
        told += [f"env {name} = (not shown)" for name, _ in self.env]
        defaults = {each.name: each.default for each in fields(self) if each.default is not MISSING}
        for name in ("start", "restart", "watch", "once", "grace"):
            value = getattr(self, name)
            if value != defaults[name]:
                told.append(f"{name} = {', '.join(value) if isinstance(value, tuple) else _shown(value)}")
        return "; ".join(told)


def companions_of(table: Mapping[str, Any], path: str) -> tuple[Companion, ...]:
    """The companions that a table [tool.devserver] has, in their order.

    Args:
        path: of the pyproject.toml; relative paths start from its folder.

    Raises:
        UsageError: something in the table cannot be used; the message names file, table and key.
    """
    found = table.get(RUN, {})
    if not isinstance(found, dict):
        raise UsageError(f'{path}: run must be a table; write {PLACE}, and below it name = "command"')
    return tuple(_companion(name, given, path) for name, given in found.items())


def _companion(name: str, given: object, path: str) -> Companion:
    place = f"{path}: {place_of(name)}"
    if not _NAME.fullmatch(name):
        raise UsageError(f"{path}: {PLACE} {name}: a name has up to 32 letters, digits, - and _")
    keys = given if isinstance(given, dict) else {"command": given}
    base, values = os.path.dirname(path), dict[str, Any]()
    for key, value in keys.items():
        if key not in _KEYS:
            raise _unknown(f"{place} {key}", key)
        try:
            values[key] = _KEYS[key](value)
        except ValueError as error:
            raise UsageError(f"{place} {key} = {_shown(value)}: {error}") from None
    if "command" not in values:
        raise UsageError(f'{place}: command is missing; write command = "…", as you would type it')
    cwd = os.path.normpath(os.path.join(base, os.path.expanduser(values.pop("cwd", "."))))
    return Companion(name=name, root=base, cwd=cwd, **values)


def place_of(name: str) -> str:
    """How the table of a companion is written."""
    return f"{PLACE.removesuffix(']')}.{name}]"


def _unknown(what: str, key: str) -> UsageError:
    import difflib  # only for a message

    close = difflib.get_close_matches(key, _KEYS, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(_KEYS)}"
    return UsageError(f"{what}: unknown key; {remedy}")


def _command(value: object) -> str | tuple[str, ...]:
    if isinstance(value, list) and value and _is_text(value[0]):
        if all(isinstance(each, str) and "\0" not in each for each in value):
            return tuple(value)
    elif _is_text(value):
        return str(value)
    raise ValueError("must be text for the shell, or a list: a program and its arguments, all of them text")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _text(value: object) -> str:
    if not _is_text(value):
        raise ValueError("must be text")
    return str(value)


def _env(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise ValueError('must be a table of text; write env = { NAME = "value" }')
    for name, text in value.items():
        if not isinstance(text, str) or not name or "=" in name or "\0" in name + text:
            raise ValueError(f'{name} must be text; write {name} = "…"')
    return tuple(value.items())


def _start(value: object) -> str:
    if value not in (BEFORE, SERVING):
        raise ValueError(f'must be "{BEFORE}" (the application) or "{SERVING}" (when it is served)')
    return str(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _patterns(value: object) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) and each for each in found):
        raise ValueError('must be a list of patterns as in .gitignore; write watch = ["jobs/**/*.py"]')
    return tuple(found)


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 3600:
        raise ValueError("must be a number of seconds, from 0 to 3600")
    return float(value)


_KEYS: Mapping[str, Callable[[object], object]] = {
    "command": _command,
    "cwd": _text,
    "env": _env,
    "start": _start,
    "restart": _flag,
    "watch": _patterns,
    "once": _flag,
    "grace": _seconds,
}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
