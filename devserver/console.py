"""What the terminal shows: log lines, access lines, the banner, failures.

Everything goes through three loggers of the standard library, `devserver`, `devserver.access` and
`devserver.companions`, so that `--log-config` can send it elsewhere. A line of the first begins with
`devserver:` and, from warning up, says so, because the application writes into the same terminal; an access
line begins with the client, and what a companion has printed with its name. Every line is flushed.

Text from outside (a target, a file name, the message of an exception) may hold control characters,
and a terminal obeys them. So what is formatted here has them escaped, all but line ends and tabs;
the only escape sequences that get through are our own colours.

Failures are shown from the user's code on: what leads there from devserver, through the import
system, threads or asyncio, is the same every time, and hides the line that matters. The user's is
what belongs neither to us nor to the standard library; a failure in which there is nothing of it
is ours, and shown whole. What is left has Python's own form, whose `File "…", line N` editors turn
into links.

The supervisor imports this module, so it stays light. It refuses to know HTTP and asyncio.
"""

import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from devserver import config
from devserver.errors import DevserverError, UsageError
from devserver.folding import fold

if TYPE_CHECKING:
    from devserver.http.exchange import Address

_open = open  # an application may replace them

TRACE = 5
"""Level below debug, for `--log-level trace`."""

LOGGER = logging.getLogger("devserver")
ACCESS = logging.getLogger("devserver.access")
COMPANIONS = logging.getLogger("devserver.companions")
_ALL = (LOGGER, ACCESS, COMPANIONS)

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_BY_LEVEL = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31;1m"}
_BY_STATUS = {1: "\x1b[37m", 2: "\x1b[32m", 3: "\x1b[36m", 4: "\x1b[33m", 5: "\x1b[31m"}

# C0 without tab and newline, DEL, C1, and the two line ends only Unicode knows.
_CONTROLS = {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029} - {0x09, 0x0A}
_ESCAPED = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _CONTROLS}
# A quote and a backslash too: the end of a target must not be feigned.
_ESCAPED_TARGET = _ESCAPED | {
    code: f"\\x{code:02x}" for code in (0x09, 0x0A, 0x22, 0x5C, *range(0x80, 0x100))
}

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_FROZEN = ("<frozen ", "<builtin>/frozen ")  # the second on PyPy
_IMPORTS = (
    *(f"{each}{name}" for each in _FROZEN for name in ("importlib", "zipimport")),
    _STDLIB + "importlib" + os.sep,
)
_PACKAGES = re.compile(r"[\\/](?:site|dist)-packages[\\/]")
_DEPENDENCIES = re.compile(_PACKAGES.pattern + r"(?:h11|wsproto|watchfiles|click)[\\/]")


def show_prints_at_once() -> None:
    """Have each line that the application prints shown when it is complete, where that is no terminal, too.

    A container's log or a manager's file would get them in blocks, long after the lines of our own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:  # else somebody has replaced it
            stream.reconfigure(line_buffering=True)


def wants_colors(option: bool | None, stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Decide about colours: the option, NO_COLOR, FORCE_COLOR, TERM, PyCharm, the terminal.

    The order is that of Python's own tracebacks; both variables count when they are not empty
    (no-color.org, force-color.org).
    """
    if option is not None:
        return option
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    if environ.get("TERM") == "dumb":
        return False
    return bool(environ.get("PYCHARM_HOSTED")) or stream.isatty()


def configure(section: config.Log, stream: TextIO | None = None, worker: int = 0) -> None:
    """Set up the loggers. May be called again; only what it added before is replaced.

    With a configuration file, the file decides. What it leaves open is filled in: a level it
    does not set, and a handler if nothing at all would take our records.

    Args:
        section: level, colours, file.
        stream: where lines go; None means `sys.stderr`, as it is now.
        worker: of several that write into the same terminal the one that this process is; 0 for none.

    Raises:
        UsageError: the file cannot be read or makes no sense.
    """
    logging.addLevelName(TRACE, "TRACE")
    for logger in _ALL:
        for handler in [each for each in logger.handlers if isinstance(each, _Handler)]:
            logger.removeHandler(handler)
    by_file = section.config is not None
    for logger in _ALL:
        logger.propagate = by_file
    LOGGER.setLevel(logging.NOTSET)
    COMPANIONS.setLevel(logging.INFO)  # --log-level is about lines of our own
    if section.config is not None:
        _apply_file(section.config)
    if LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(logging.getLevelNamesMapping()[section.level.upper()])
    if not (by_file and all(logger.hasHandlers() for logger in _ALL)):
        _add_handlers(section, stream or sys.stderr, by_file, _who(worker))


def number(worker: int) -> None:
    """Have the lines that `configure` has set up begin with the place of this worker."""
    for logger in (LOGGER, ACCESS):
        for handler in logger.handlers:
            if isinstance(handler, _Handler) and isinstance(handler.formatter, _Formatter | _AccessFormatter):
                handler.formatter.who = _who(worker)


def _who(worker: int) -> str:
    return f"[{worker}] " if worker else ""


def _add_handlers(section: config.Log, stream: TextIO | None, only_where_none: bool, who: str) -> None:
    if stream is None:
        return  # a Windows program without a console
    colors = wants_colors(section.colors, stream, os.environ)
    if colors:
        _enable_colors()
    formatters = {
        LOGGER: _Formatter(colors, who),
        ACCESS: _AccessFormatter(colors, who),
        COMPANIONS: _CompanionFormatter(colors),
    }
    # Asked for all before one is added: the others hand on to the first.
    for logger in [each for each in formatters if not (only_where_none and each.hasHandlers())]:
        logger.addHandler(_Handler(stream, formatters[logger]))
        logger.propagate = False


def _enable_colors() -> None:
    if sys.platform == "win32":
        import colorama  # type: ignore[import-untyped]  # needed nowhere else, so not loaded elsewhere

        colorama.just_fix_windows_console()


def _apply_file(path: str) -> None:
    try:
        suffix = os.path.splitext(path)[1].lower()
        if suffix in (".yaml", ".yml"):
            raise ValueError("YAML is not read")
        if suffix in (".json", ".toml"):
            _apply_mapping(path, suffix)
        else:
            _apply_ini(path)
    except Exception as error:  # the user's handlers and formatters are imported and called
        cause = f"{type(error).__name__}: {error}" + (f": {error.__cause__}" if error.__cause__ else "")
        raise UsageError(
            f"--log-config {path} cannot be used ({cause}); it must be a configuration of logging: "
            ".json or .toml with the keys of logging.config.dictConfig, any other name is read as .ini"
        ) from error


def _apply_ini(path: str) -> None:
    import logging.config  # here and below: imports that only few need

    with _open(path, encoding="utf-8") as file:
        logging.config.fileConfig(file, disable_existing_loggers=False)


def _apply_mapping(path: str, suffix: str) -> None:
    import json
    import logging.config
    import tomllib

    with _open(path, "rb") as file:
        found = tomllib.load(file) if suffix == ".toml" else json.load(file)
    # By default loggers that the file does not name fall silent, ours among them.
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, **found})


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to the terminal and flushes; a terminal that has gone stops nothing."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__(stream)
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
        except Exception:  # what is logged is formatted by its own class
            self.handleError(record)
            return
        try:
            self._write(line)
        except (OSError, ValueError):
            pass  # closed, or nobody reads any more: there is no place left to say so

    def _write(self, line: str) -> None:
        try:
            self.stream.write(line)
        except UnicodeEncodeError:  # a file name that is no text, or a terminal in ASCII
            encoding = self.stream.encoding or "ascii"
            self.stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
        self.stream.flush()


class _Formatter(logging.Formatter):
    """`devserver: message`, with the failure below it."""

    def __init__(self, colors: bool, who: str) -> None:
        super().__init__()
        self._colors = colors
        self.who = who

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}\n{folded(format_failure(record.exc_info[1])).rstrip()}"
        label = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        label = self.who + label
        return f"{self._prefix(record.levelno, label)}{text.translate(_ESCAPED)}"

    def _prefix(self, level: int, label: str) -> str:
        if not self._colors:
            return f"devserver: {label}"
        color = _BY_LEVEL.get(level, _DIM)
        return f"{_DIM}devserver:{_RESET} {color}{label}{_RESET}" if label else f"{_DIM}devserver:{_RESET} "


_ACCESS_LINE = '%s "%s %s HTTP/%s" %d %s'


class _AccessFormatter(logging.Formatter):
    """The access line, its status coloured by class when that is wanted."""

    def __init__(self, colors: bool, who: str) -> None:
        super().__init__()
        self._colors = colors
        self.who = who

    def format(self, record: logging.LogRecord) -> str:
        return self.who + self._line(record)

    def _line(self, record: logging.LogRecord) -> str:
        args = record.args
        if record.msg is not _ACCESS_LINE or not isinstance(args, tuple):
            return record.getMessage().translate(_ESCAPED)
        client, method, target, version, status, taken = args
        if not self._colors:
            return f'{client} "{method} {target} HTTP/{version}" {status} {taken}'
        color = _BY_STATUS.get(int(str(status)) // 100, "")
        return f'{client} "{method} {target} HTTP/{version}" {color}{status}{_RESET} {_DIM}{taken}{_RESET}'


_COMPANION_LINE = "%s | %s"
_BY_NUMBER = tuple(f"\x1b[{code}m" for code in (36, 33, 35, 32, 34, 96, 93, 95, 92, 94))


class _CompanionFormatter(logging.Formatter):
    """The companion's name, in a colour of its own, and what it has printed, which is fit to be shown."""

    def __init__(self, colors: bool) -> None:
        super().__init__()
        self._colors = colors

    def format(self, record: logging.LogRecord) -> str:
        args = record.args
        if not self._colors or record.msg is not _COMPANION_LINE or not isinstance(args, tuple):
            return record.getMessage()
        color = _BY_NUMBER[getattr(record, "number", 0) % len(_BY_NUMBER)]
        return f"{color}{args[0]} |{_RESET} {args[1]}"


def show_companion(name: str, number: int, text: str) -> None:
    """Show a line that a companion has printed.

    Args:
        name: as wide as those of all.
        number: its place among them.
        text: without anything that a terminal obeys but colours.
    """
    COMPANIONS.info(_COMPANION_LINE, name, text, extra={"number": number})


def send_access_to(handler: logging.Handler) -> None:
    """Have access lines taken by another handler, unless `--log-config` has said where they go."""
    ours = [each for each in ACCESS.handlers if isinstance(each, _Handler)]
    for each in ours:
        ACCESS.removeHandler(each)
        ACCESS.addHandler(handler)


class AccessLog:
    """Writes one line for each request.

    The values are the arguments of the record (client, method, target, version, status, time
    taken), so that a handler of the user's can have them apart.

    Attributes:
        enabled: whether a call does anything; ask first on a hot path.
    """

    __slots__ = ("enabled",)

    def __init__(self, section: config.Log) -> None:
        self.enabled = section.access and ACCESS.isEnabledFor(logging.INFO)

    def __call__(
        self, client: "Address | None", method: str, target: bytes, version: str, status: int, seconds: float
    ) -> None:
        """Log one request.

        Args:
            client: as in `Peer`; None on a Unix socket.
            method, target, version: from the request line, as sent.
            status: of the response.
            seconds: from the request's head to the end of the response.
        """
        if self.enabled:
            line = _shown(method), _shown(target.decode("latin-1")), _shown(version)
            ACCESS.info(_ACCESS_LINE, _client(client), *line, status, _duration(seconds))


def _shown(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.translate(_ESCAPED_TARGET)


def _client(client: "Address | None") -> str:
    if client is None:
        return "unix"
    host, port = client
    if port is None:
        return _shown(host) or "unix"
    if not port:
        return host  # a proxy does not tell its client's port
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _duration(seconds: float) -> str:
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.2f} s"


def banner(urls: Sequence[str], target: str, reload: bool, keys: bool = False) -> list[str]:
    """The lines that say what is served and where; each is meant to be logged by itself.

    VS Code's serverReadyAction looks for `listening on`, so a URL ends its line.

    Args:
        urls: where the server is, the best one first; `lan_urls` finds those for other machines.
        target: the application, as the user named it or as it was found; "" if there is none yet.
        reload: whether a save restarts it.
        keys: whether lines that are typed are read.
    """
    if not reload:
        first = f"serving {target}; add --reload to restart on save"
    else:
        first = f"serving {target}, restarting on save" if target else "nothing to serve yet, waiting for it"
        first += "; h Enter lists keys" if keys else ""
    return [f"{first}; Ctrl-C stops", *(f"listening on {url}" for url in _shown_urls(urls))]


def _shown_urls(urls: Sequence[str]) -> list[str]:
    """URLs to open: `localhost` is either address of this machine, and what is bound to all of them.

    What `0.0.0.0` and `::` mean to who connects depends on the system, and no certificate is for them.
    """
    shown = []
    for bound in urls:
        url = re.sub(r"//(0\.0\.0\.0|\[::\])(?=:)", "//localhost", bound)
        name = re.sub(r"//(127\.0\.0\.1|\[::1\])(?=:)", "//localhost", url)
        both = {name.replace("localhost", each) for each in ("127.0.0.1", "[::1]")} <= set(urls)
        shown.append(name if both else url)
    return list(dict.fromkeys(shown))


def ready(seconds: float) -> str:
    """What says that the application answers, for the first time. Args: seconds: since the start."""
    return f"ready in {seconds:.1f} s"


def lan_urls(host: str, port: int, scheme: str = "http") -> list[str]:
    """URLs by which other machines reach a server bound to every address, else none.

    A UDP socket that is connected, which sends nothing, gets the address that packets to the
    outside would have. So the one network that matters is found without listing interfaces.

    Args:
        host: what the server is bound to: "0.0.0.0" or "::".
        port: its port.
        scheme: "http" or "https".
    """
    import socket

    # Addresses that are kept for documentation (RFC 5737, RFC 3849): nobody is there.
    outside = {"0.0.0.0": (socket.AF_INET, "192.0.2.1"), "::": (socket.AF_INET6, "2001:db8::1")}
    if host not in outside:
        return []
    family, address = outside[host]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            own = str(probe.getsockname()[0])
    except OSError:
        return []  # no such network
    if own.startswith("127.") or own == "::1":
        return []
    return [f"{scheme}://[{own}]:{port}" if ":" in own else f"{scheme}://{own}:{port}"]


def summarise(error: BaseException) -> str:
    """An exception in one line; what we raised ourselves in its own words, suggestions included."""
    try:
        text = str(error).strip()
    except BaseException:  # the user's `__str__`, which may end in anything
        text = ""
    if isinstance(error, DevserverError):
        return text
    kind = type.__getattribute__(type(error), "__name__")
    return f"{kind}: {text.splitlines()[0]}" if text else kind


def format_failure(error: BaseException) -> str:
    """A traceback from the user's code on, with all chained exceptions; ends with a newline.

    Never raises, whatever the exception does when it is looked at.
    """
    try:
        found = traceback.TracebackException.from_exception(error)
        if isinstance(error, DevserverError) and not any(_is_users(frame.filename) for frame in found.stack):
            return f"{error}\n"  # it names what is wrong and the remedy; the way there is ours alone
        _cut(found, isinstance(error, DevserverError))
        return "".join(found.format())
    except Exception:  # the user's: `__getattr__`, `__notes__` and more are called
        return _bare_failure(error)


def folded(trace: str) -> str:
    """A traceback as the terminal shows it: libraries' frames are folded, unless `--log-level` is debug."""
    return trace if LOGGER.isEnabledFor(logging.DEBUG) else fold(trace, is_library)


def is_library(filename: str) -> bool:
    """Whether a file is none of the user's: Python's, an installed package's, or ours."""
    return filename.startswith((_PACKAGE, _STDLIB, *_FROZEN)) or _PACKAGES.search(filename) is not None


def _bare_failure(error: BaseException) -> str:
    try:
        frames = traceback.format_tb(error.__traceback__)
    except Exception:  # the user's `__loader__` is asked for the source
        frames = []
    kind = type.__getattribute__(type(error), "__name__")
    return "".join(["Traceback (most recent call last):\n", *frames, f"{kind}: (cannot be shown)\n"])


def _cut(failure: traceback.TracebackException, is_told: bool) -> None:
    """Leave out the machinery's frames, here and in all that is chained to this.

    Args:
        failure: changed in place.
        is_told: the first one is an error of ours that speaks about the user's code, so the
            line of ours that raised it is of no interest either.
    """
    pending: list[traceback.TracebackException | None] = [failure]
    seen = set()
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        is_syntax_error = hasattr(each, "msg")  # which names file and line itself
        each.stack[:] = _users_frames(each.stack, is_told and each is failure, is_syntax_error)
        pending += [each.__cause__, each.__context__, *(each.exceptions or ())]


def _users_frames(
    stack: list[traceback.FrameSummary], is_told: bool, is_syntax_error: bool
) -> list[traceback.FrameSummary]:
    users = [i for i, frame in enumerate(stack) if _is_users(frame.filename)]
    if not users:
        return [] if is_syntax_error else list(stack)
    first, last = users[0], users[-1]
    kept = []
    for i, frame in enumerate(stack[first:], first):
        is_ours = frame.filename.startswith(_PACKAGE) and (is_told or i < last)
        if not is_ours and not frame.filename.startswith(_IMPORTS):
            kept.append(frame)
    return kept


def _is_users(filename: str) -> bool:
    if filename.startswith((_PACKAGE, *_FROZEN)) or _DEPENDENCIES.search(filename):
        return False
    return not filename.startswith(_STDLIB) or _PACKAGES.search(filename) is not None
