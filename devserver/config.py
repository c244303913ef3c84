"""The configuration: every option, declared once, in frozen sections.

A field of a section is the option: its default, its help and what its value may be. The command
line, the environment, pyproject.toml and `devserver.run()` all take their names from here.
Defaults < [tool.devserver] in the nearest pyproject.toml < DEVSERVER_<OPTION> < command line; a
source replaces a value whole, lists too. `Config.sources` remembers who won.

A part of the server is handed its section, never the whole. A `Config` that came from files
and variables knows what it was resolved from, so that it can be resolved again when
pyproject.toml has changed, and handed to a child process as JSON.

This module refuses to know click, and what any option brings about.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from devserver.errors import UsageError
from devserver.https import Tls, check_https
from devserver.option_types import (
    EVENTS,
    EXISTING_FILE,
    FOLDER,
    HEADER,
    HOST,
    PATH,
    PATTERN,
    PORT,
    ROOT_PATH,
    SWITCH,
    TARGET,
    choice,
    factor,
    integer,
    seconds,
)
from devserver.options import (
    Given,
    Option,
    declared,
    from_command_line,
    from_environ,
    from_file,
    from_python,
    nearest_file,
    option,
    table_in,
)
from devserver.processes import Workers, check_workers
from devserver.proxy import Proxy, check_uwsgi
from devserver.run_table import Companion, Companions, companions_of
from devserver.websockets import WebSocket

if TYPE_CHECKING:
    from typing import Unpack

    from devserver.arguments import Arguments

_C_INT = 2**31 - 1  # what listen(2) and a descriptor can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Which application, and how it is called."""

    target: object | None = option(None, "module:attribute or path/to/file.py:attribute.", kind=TARGET)
    factory: bool = option(False, "Call TARGET to get the application.", kind=SWITCH)
    interface: str = option(
        "auto", "How the application is called.", kind=choice("auto", "asgi3", "asgi2", "wsgi")
    )
    app_dir: str = option(".", "Folder that modules are imported from.", kind=FOLDER)
    env_file: str | None = option(
        None,
        "File of environment variables for the application (extra dotenv); the real environment wins.",
        kind=EXISTING_FILE,
    )
    root_path: str = option("", "Path prefix under which a proxy serves the application.", kind=ROOT_PATH)
    lifespan: str = option(
        "auto",
        "Whether to run the ASGI application's startup and shutdown.",
        kind=choice("auto", "on", "off"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """Where connections are taken. `port` is None for "auto"."""

    host: str = option(
        "localhost",
        "Name or address to listen on; localhost means 127.0.0.1 and ::1, 0.0.0.0 every network.",
        kind=HOST,
    )
    port: int | None = option(
        8000,
        "Port to listen on; 0 takes any free port, auto the next free one from 8000.",
        kind=PORT,
        none="auto",
    )
    uds: str | None = option(None, "Listen on a Unix socket at this path instead.", kind=PATH)
    fd: int | None = option(
        None, "Listen on this descriptor of a bound socket instead.", kind=integer(0, _C_INT)
    )
    qr: bool = option(False, "Print the URL for other devices as a QR code.", kind=SWITCH)
    backlog: int = option(2048, "Connections that may wait to be accepted.", kind=integer(1, _C_INT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """Whether and when the application is started anew. Times are in seconds."""

    enabled: bool = option(
        False, "Restart when a file that the application read changes.", kind=SWITCH, flag="reload"
    )
    dirs: tuple[str, ...] = option(
        (), "Also watch everything in this folder.", kind=FOLDER, flag="reload-dir"
    )
    include: tuple[str, ...] = option(
        (), "Also watch files that match this pattern.", kind=PATTERN, flag="reload-include"
    )
    exclude: tuple[str, ...] = option(
        (), "Never restart for files that match this pattern.", kind=PATTERN, flag="reload-exclude"
    )
    grace: float = option(
        1.0,
        "Seconds to let requests in flight finish at a restart.",
        kind=seconds(zero=True),
        flag="reload-grace",
    )
    overlap: bool = option(
        True,
        "Load the new code while the old process finishes its requests.",
        kind=SWITCH,
        flag="reload-overlap",
    )
    restart: str = option(
        "auto",
        "What a restart executes: only what comes after the change (warm), or everything (cold).",
        kind=choice("auto", "warm", "cold"),
    )
    checkpoints: int = option(4, "Maximum number of checkpoints for warm restarts.", kind=integer(1))
    checkpoint_memory: float = option(
        1.5,
        "Drop checkpoints above this multiple of the memory of cold restarts.",
        kind=factor(1.0),
    )
    poll: bool = option(False, "Poll for changes, where the system sends no notifications.", kind=SWITCH)
    load_timeout: float = option(
        30.0,
        "Seconds that requests wait for the application to load before they get a 503.",
        kind=seconds(zero=False),
    )
    error_page: str = option(
        "full",
        "Whether the browser's traceback has source lines (full) or not (short).",
        kind=choice("full", "short"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """HTTP, whatever the parser. Times are in seconds, sizes in bytes."""

    protocol: str = option(
        "http",
        "What clients speak: http, or uwsgi for nginx's uwsgi_pass.",
        kind=choice("http", "uwsgi"),
    )
    parser: str = option("auto", "HTTP parser.", kind=choice("auto", "h11", "httptools"), flag="http")
    http2: bool | None = option(
        None, "Speak HTTP/2, too; auto does if the extra http2 is there.", kind=SWITCH, none="auto"
    )
    loop: str = option("auto", "Event loop.", kind=choice("auto", "asyncio", "uvloop"))
    keep_alive: float = option(
        75.0,
        "Close connections that are idle for longer than this many seconds.",
        kind=seconds(zero=True),
        flag="timeout-keep-alive",
    )
    header_timeout: float = option(
        10.0,
        "Seconds that the head of a request may take to arrive.",
        kind=seconds(zero=False),
        flag="timeout-header",
    )
    graceful: float = option(
        3.0,
        "Seconds to let requests in flight finish when the server stops.",
        kind=seconds(zero=True),
        flag="timeout-graceful-shutdown",
    )
    max_head: int = option(
        65536,
        "Largest head of a request in bytes, with either parser.",
        kind=integer(1),
        flag="h11-max-incomplete-event-size",
    )
    concurrency: int | None = option(
        None,
        "Answer 503 when more requests than this are in flight.",
        kind=integer(1),
        flag="limit-concurrency",
    )
    wsgi_threads: int = option(512, "Maximum number of threads for a WSGI application.", kind=integer(1))
    headers: tuple[tuple[str, str], ...] = option(
        (), "Add this header to every response.", kind=HEADER, flag="header"
    )
    server_header: bool = option(True, "Send the Server header.", kind=SWITCH)
    date_header: bool = option(True, "Send the Date header.", kind=SWITCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is told, and how. `colors` is None to look at the terminal."""

    level: str = option(
        "info",
        "Least severe level to show.",
        kind=choice("critical", "error", "warning", "info", "debug", "trace"),
        flag="log-level",
    )
    config: str | None = option(
        None, "Configuration file for logging: .ini, .json or .toml.", kind=EXISTING_FILE, flag="log-config"
    )
    access: bool = option(True, "Print one line for each request.", kind=SWITCH, flag="access-log")
    colors: bool | None = option(
        None, "Print colours; without it the terminal decides.", kind=SWITCH, flag="use-colors", none="auto"
    )
    events: str | None = option(
        None, "Write events to this file or descriptor, one JSON object per line.", kind=EVENTS
    )


SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "app": App,
        "bind": Bind,
        "tls": Tls,
        "reload": Reload,
        "companions": Companions,
        "workers": Workers,
        "http": Http,
        "proxy": Proxy,
        "websocket": WebSocket,
        "log": Log,
    }
)

OPTIONS: Mapping[str, Option] = MappingProxyType(declared(SECTIONS))
"""Every option by its Python name (`timeout_keep_alive`), in the order of declaration."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a configuration was resolved from, apart from the file.

    Attributes:
        given: the options given, on the command line or, if `typed`, in Python.
    """

    given: Mapping[str, object]
    typed: bool
    environ: Mapping[str, str]
    folder: str


@dataclass(frozen=True, slots=True, init=False)
class Config:
    """All options of one server.

    Attributes:
        app, bind, tls, reload, companions, workers, http, proxy, websocket, log: the sections.
        programs: the companions, whether they are wanted or not.
        sources: for each option who set it: "default", the path of a pyproject.toml,
            "DEVSERVER_PORT", "--port", or "run()".
        file: the pyproject.toml that was looked at, whether it has something for us or not.
        origin: what it was resolved from; None when it was made from Python.
    """

    app: App
    bind: Bind
    tls: Tls
    reload: Reload
    companions: Companions
    workers: Workers
    http: Http
    proxy: Proxy
    websocket: WebSocket
    log: Log
    programs: tuple[Companion, ...]
    sources: Mapping[str, str]
    file: str | None
    origin: Origin | None = field(repr=False)

    def __init__(self, target: object | None = None, /, **options: "Unpack[Arguments]") -> None:
        """Make a configuration from Python alone; neither environment nor file is looked at.

        Args:
            target: an import string as on the command line, or an application; None searches.
            **options: named as the flags, with underscores. Times are in seconds, sizes in bytes.
                None means not given. Those that may be repeated take a list or one value, a header
                is the text "Name: value". Relative paths start from the working directory.

        Raises:
            UsageError: an unknown option, a value that cannot be used, or two that exclude each other.
        """
        values = options if target is None else {"target": target, **options}
        folder = os.getcwd()
        self._fill(_combine(from_python(OPTIONS, values, folder), folder), (), None, None)

    def _fill(
        self,
        combined: "_Combined",
        programs: tuple[Companion, ...],
        file: str | None,
        origin: Origin | None,
    ) -> None:
        values, sources = combined
        parts: dict[str, object] = {
            name: section(**{each.field: values[each.name] for each in _options_of(name)})
            for name, section in SECTIONS.items()
        }
        parts |= {"programs": programs, "sources": MappingProxyType(sources)}
        self._set({**parts, "file": file, "origin": origin})

    def _set(self, attributes: Mapping[str, object]) -> None:
        for name, value in attributes.items():
            object.__setattr__(self, name, value)  # the way a frozen dataclass is filled

    def value(self, name: str) -> object:
        """The value of an option by its Python name, as in `OPTIONS`."""
        known = OPTIONS[name]
        return getattr(getattr(self, known.section), known.field)

    @property
    def scheme(self) -> str:
        """That of the server's URLs: "http", "https" or "uwsgi"."""
        return "uwsgi" if self.http.protocol == "uwsgi" else self.tls.scheme

    def reread(self) -> "Config":
        """The same command line and environment, with pyproject.toml as it is now, but for the scheme.

        Whoever serves HTTPS was started with those options, and goes on with them. The URL that was told
        stays true.

        Raises:
            UsageError: as for `resolve`.
        """
        if self.origin is None:
            return self
        made = _resolve(self.origin)
        made._set({"tls": self.tls, "http": replace(made.http, protocol=self.http.protocol)})
        return made

    def to_json(self) -> dict[str, Any]:
        """This configuration as JSON's types, for another process.

        Raises:
            TypeError: the target is an application, which cannot be sent.
        """
        if not isinstance(self.app.target, str | None):
            raise TypeError(f"a target that is an object cannot be sent: {self.app.target!r}")
        parts: dict[str, Any] = {name: _as_dict(getattr(self, name)) for name in SECTIONS}
        origin = self.origin and _as_dict(self.origin)
        parts["programs"] = [_as_dict(each) for each in self.programs]
        return {**parts, "sources": dict(self.sources), "file": self.file, "origin": origin}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The configuration that `to_json` was called on; nothing is checked again."""
        made = cls.__new__(cls)
        made._set({name: section(**_frozen(data[name])) for name, section in SECTIONS.items()})
        origin = data["origin"] and Origin(**_frozen(data["origin"]))
        programs = tuple(Companion(**_frozen(each)) for each in data["programs"])
        sources = _frozen(data["sources"])
        made._set({"programs": programs, "sources": sources, "file": data["file"], "origin": origin})
        return made


def resolve(
    given: Mapping[str, object],
    environ: Mapping[str, str],
    folder: "str | os.PathLike[str]",
    *,
    typed: bool = False,
) -> Config:
    """Put defaults, file, environment and what was given together.

    Args:
        given: the options really given, by their Python names; text, bool for switches,
            a list or tuple of text for those that may be repeated.
        typed: they are values of Python, as for `Config`.
        environ: the environment; all but the options' own variables is ignored.
        folder: the working directory: relative paths start here, and the search for the
            nearest pyproject.toml, upwards.

    Raises:
        UsageError: a value, a key or the file cannot be used.
    """
    names = [name for each in OPTIONS.values() for name in each.variables]
    own = {name: environ[name] for name in names if name in environ}
    # Frozen as after a journey through JSON, so that both compare equal.
    return _resolve(Origin(_frozen(given), typed, _frozen(own), os.path.abspath(folder)))


def _resolve(origin: Origin) -> Config:
    file = nearest_file(origin.folder)
    table = table_in(file) if file else {}
    read = from_python if origin.typed else from_command_line
    given = {
        **from_file(OPTIONS, file or "", table),
        **from_environ(OPTIONS, origin.environ, origin.folder),
        **read(OPTIONS, origin.given, origin.folder),
    }
    made = Config.__new__(Config)
    made._fill(_combine(given, origin.folder), companions_of(table, file or ""), file, origin)
    return made


_Combined = tuple[dict[str, object], dict[str, str]]


def _combine(given: Mapping[str, Given], folder: str) -> _Combined:
    """Values and sources of all options."""
    values: dict[str, object] = {}
    for name, known in OPTIONS.items():
        values[name] = given[name].read(known) if name in given else known.default
        if name not in given and known.kind is FOLDER and known.default:
            values[name] = os.path.normpath(os.path.join(folder, str(known.default)))
    _check_together(values, given)
    return values, {name: given[name].source if name in given else "default" for name in OPTIONS}


def _check_together(values: Mapping[str, object], given: Mapping[str, Given]) -> None:
    if values["uds"] is not None and values["fd"] is not None:
        both = " and ".join(f"{name} (from {given[name].source})" for name in ("uds", "fd"))
        raise UsageError(f"{both} exclude each other: give one of them")
    check_https(values)
    check_uwsgi(values)
    check_workers(values)
    target = values["target"]
    if values["reload"] and not isinstance(target, str | None):
        raise UsageError(
            "reload=True needs the target as an import string, as in run('module:app', reload=True): "
            f"every restart imports it anew; it is an object of type {type(target).__name__}"
        )


def _options_of(section: str) -> Iterable[Option]:
    return (each for each in OPTIONS.values() if each.section == section)


def _as_dict(section: Any) -> dict[str, Any]:
    return {each.name: _thawed(getattr(section, each.name)) for each in fields(section)}


def _thawed(value: Any) -> Any:
    """As JSON would give it back."""
    if isinstance(value, Mapping):
        return {key: _thawed(item) for key, item in value.items()}
    return [_thawed(item) for item in value] if isinstance(value, list | tuple) else value


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
