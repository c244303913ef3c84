"""What an option is, and how each source of options is read.

An option is declared once, as a dataclass field made by `option()`; the field's metadata holds
its kind and help. A source (pyproject.toml, the environment, the command line, Python) is
turned into `Given` values, which know how the user wrote them, so that every message can point
at the very place: `--port 99999: …`, `DEVSERVER_PORT=99999: …`.

One reader per kind serves all sources. Only the file is strict about types (`port = "8000"` as
well as `reload = 1` is refused), since TOML has types of its own.

Lists in an environment variable are separated by `os.pathsep` (folders), by commas (patterns)
or by line ends (headers, whose values hold commas). An empty variable counts as not set.

This module refuses to know which options there are, and who wins: that is `config`. It is
imported by the light supervisor: tomllib and difflib are imported only when they are needed.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from devserver.errors import UsageError
from devserver.option_types import TARGET, OptionType, anchored

T = TypeVar("T")

PREFIX = "DEVSERVER_"
FILE = "pyproject.toml"
TABLE = "[tool.devserver]"
RUN = "run"
"""The key in it that is a table of programs, and no option; see `run_table`."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option, as declared by a field of a section.

    Attributes:
        help: one or two sentences for `--help`.
        kind: what the value may be.
        flag: its name on the command line, without the dashes in front.
        none: how the value None is shown.
        variable_elsewhere: a variable of the environment that other servers read for the same.
        default: the value when no source gives one; text is read by the kind.
        section: attribute of `Config` that holds it.
        field: attribute of the section that holds it.
    """

    help: str
    kind: OptionType
    flag: str
    none: str
    variable_elsewhere: str = ""
    default: object = None
    section: str = ""
    field: str = ""

    @property
    def name(self) -> str:
        """The name in Python: `timeout_keep_alive`."""
        return self.flag.replace("-", "_")

    @property
    def repeatable(self) -> bool:
        """Whether it may be given several times: the value is a tuple, which a source replaces whole."""
        return isinstance(self.default, tuple)

    @property
    def variable(self) -> str:
        """The name in the environment: `DEVSERVER_TIMEOUT_KEEP_ALIVE`."""
        return PREFIX + self.name.upper()

    @property
    def variables(self) -> tuple[str, ...]:
        """Its names in the environment, the one that counts most first."""
        return (self.variable, self.variable_elsewhere) if self.variable_elsewhere else (self.variable,)

    @property
    def label(self) -> str:
        """The name on the command line: `--timeout-keep-alive`, or `TARGET`."""
        return "TARGET" if self.flag == "target" else f"--{self.flag}"

    def show(self, value: object) -> str:
        """The value for people: as it would be written on the command line."""
        if self.kind.secret and value is not None:
            return "(not shown)"
        match value:
            case None:
                return self.none
            case bool():
                return str(value).lower()
            case float() if value.is_integer():
                return str(int(value))
            case tuple():
                items = (": ".join(item) if isinstance(item, tuple) else str(item) for item in value)
                return ", ".join(items) or "-"
        return str(value) or "-"


def option(
    default: T, help: str, *, kind: OptionType, flag: str = "", none: str = "-", variable: str = ""
) -> T:
    """Declare an option as a field of a section; see `Option` for the arguments.

    `flag` defaults to the name of the field, `variable` is `variable_elsewhere`; a default that is a tuple
    makes it repeatable. The result is a dataclass field. It is typed as its default, so that a type checker
    compares that with the field's annotation.
    """
    declared = Option(help=help, kind=kind, flag=flag, none=none, variable_elsewhere=variable)
    return field(default=default, metadata={"option": declared})


def declared(sections: Mapping[str, type[Any]]) -> dict[str, Option]:
    """All options of the sections by their Python name, in the order of declaration."""
    found: dict[str, Option] = {}
    for section, kind in sections.items():
        for each in fields(kind):
            known: Option = each.metadata["option"]
            flag = known.flag or each.name.replace("_", "-")
            made = replace(known, flag=flag, default=each.default, section=section, field=each.name)
            found[made.name] = made
    return found


@dataclass(frozen=True, slots=True)
class Given:
    """A value as a source holds it.

    Attributes:
        value: text, or a native value.
        source: the name of the source, for `Config.sources`.
        place: how the user wrote the option, up to the value.
        base: folder that relative paths start from.
        quote: how the source writes a value.
        native: only the kind's own types will do.
    """

    value: object
    source: str
    place: str
    base: str
    quote: Callable[[object], str] = str
    native: bool = False

    def read(self, option: Option) -> object:
        """The value, checked.

        Raises:
            UsageError: it cannot be used; the message has option, value, source and remedy.
        """
        if not option.repeatable:
            return self._read_one(option, self.value)
        if isinstance(self.value, list | tuple):
            return tuple(self._read_one(option, item) for item in self.value)
        return (self._read_one(option, self.value),)

    def _read_one(self, option: Option, value: object) -> object:
        try:
            if self.native and type(value) not in option.kind.types:
                names = " or ".join(_TOML_NAMES[each] for each in option.kind.types)
                raise ValueError(f"must be {names}" + (", or a list of them" if option.repeatable else ""))
            return option.kind.read(value, self.base)
        except ValueError as error:
            raise UsageError(f"{self.place}{self.quote(value)}: {error}") from None


_TOML_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is no option, with near misses."""
    import difflib  # only for a message

    close = difflib.get_close_matches(name, list(known), n=2)
    remedy = f"did you mean {' or '.join(close)}?" if close else "devserver --help lists the options"
    return UsageError(f"{what}: unknown option; {remedy}")


def from_python(options: Mapping[str, Option], values: Mapping[str, object], base: str) -> dict[str, Given]:
    """Keyword arguments; None means not given."""
    for name in values:
        if name not in options:
            raise unknown(name, name, options)
    return {
        name: Given(value, "run()", f"{name}=", base, quote=repr)
        for name, value in values.items()
        if value is not None
    }


def from_command_line(
    options: Mapping[str, Option], values: Mapping[str, object], base: str
) -> dict[str, Given]:
    """What was really given on the command line, by the options' Python names."""
    return {
        name: Given(value, options[name].label, f"{options[name].label} ", base)
        for name, value in values.items()
    }


def from_environ(options: Mapping[str, Option], environ: Mapping[str, str], base: str) -> dict[str, Given]:
    """The options' own variables; others, whatever their names, are none of our business."""
    found: dict[str, Given] = {}
    for name, each in options.items():
        variable = next((name for name in each.variables if environ.get(name)), each.variable)
        text = environ.get(variable, "")
        items = [part.strip() for part in text.split(each.kind.separator)]
        value = [part for part in items if part] if each.repeatable else text
        if text:
            found[name] = Given(value, variable, f"{variable}=", base)
    return found


def misspelt(options: Mapping[str, Option], environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that is nearly one of ours. Others may be anybody's, and are not spoken of."""
    known = {option.variable for option in options.values()}
    lines = []
    for name in sorted(name for name in environ.keys() - known if name.startswith(PREFIX)):
        import difflib

        words = [each.removeprefix(PREFIX) for each in known]  # or all would be near
        close = difflib.get_close_matches(name.removeprefix(PREFIX), words, n=1, cutoff=0.7)
        lines += [f"{name} is no option; did you mean {PREFIX}{word}?" for word in close]
    return lines


def from_file(options: Mapping[str, Option], path: str, table: Mapping[str, Any]) -> dict[str, Given]:
    """The options in the table [tool.devserver] of a pyproject.toml; relative paths start from its folder.

    Raises:
        UsageError: a key in it is unknown or there twice.
    """
    flags = {each.flag: name for name, each in options.items()}
    base = os.path.dirname(path)
    found: dict[str, Given] = {}
    for key, value in table.items():
        if key == RUN:
            continue
        flag = key.replace("_", "-")
        place = f"{path}: {TABLE} {key}"
        if flag not in flags:
            raise unknown(place, flag, flags)
        if flags[flag] in found:
            raise UsageError(f"{place}: stands there twice, with a dash and with an underscore; keep one")
        if options[flags[flag]].kind is TARGET and isinstance(value, str):
            # Whoever finds the application starts from the working directory, not from this file.
            value = anchored(value, base)
        found[flags[flag]] = Given(value, path, f"{place} = ", base, quote=_toml, native=True)
    return found


def nearest_file(folder: str) -> str | None:
    """The first pyproject.toml in the folder or above it."""
    while not os.path.isfile(path := os.path.join(folder, FILE)):
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
    return path


def table_in(path: str) -> dict[str, Any]:
    """The table [tool.devserver] of a pyproject.toml; empty where there is none.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; make it readable") from None
    if b"devserver" not in content:
        return {}  # nothing for us: not worth importing a parser, nor a complaint about its syntax
    import tomllib

    try:
        table = tomllib.loads(content.decode()).get("tool", {}).get("devserver", {})
    except ValueError as error:  # bad TOML or bad UTF-8
        raise UsageError(f"{path} is not valid TOML: {error}; correct it") from None
    except AttributeError:
        raise UsageError(f"{path}: tool must be a table; write {TABLE}") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path}: devserver must be a table; write {TABLE}")
    return table


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
    return str(value)
