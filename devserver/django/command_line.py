"""What stands on the command line of `manage.py runserver`, read without Django.

The process that becomes the supervisor must know the address before anything is loaded; Django's own
command would be known only afterwards. So its options are declared a second time here, with the same
names, and what is not understood is left to Django: then the supervisor comes later, not never.

Refuses to know what an option brings about.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from devserver.config import OPTIONS
from devserver.options import Option

DEFAULT_HOST, DEFAULT_HOST_6, DEFAULT_PORT = "127.0.0.1", "::1", "8000"
"""Django's."""

SET_BY_DJANGO = {
    "target",
    "factory",
    "interface",
    "app_dir",
    "root_path",
    "lifespan",
    "host",
    "port",
    "reload",
    "workers",
    "timeout_worker_healthcheck",
    "limit_max_requests",
    "limit_max_requests_jitter",
    "limit_max_memory",
}
"""Options of ours that `runserver` has other ways to say, or that Django's settings decide."""

PREFIX = "devserver_"
"""Before our options' names among those of a command."""

_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:\s]+):)?(?P<port>\d+)")
_WITH_VALUE = {"-W", "-X", "--check-hash-based-pycs"}


@dataclass(frozen=True)
class Wanted:
    """What the supervisor must know.

    Attributes:
        host, port: where to listen; None for what neither the command line nor a subclass says.
        ipv6: whether the default host is that of IPv6.
        options: devserver's own options, as they were given.
    """

    host: str | None = None
    port: str | None = None
    ipv6: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the environment of another process."""
        return asdict(self)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add devserver's own options to a command's."""
    group = parser.add_argument_group("devserver")
    for name, known in OPTIONS.items():
        if name not in SET_BY_DJANGO:
            _add(group, name, known)
    served = group.add_mutually_exclusive_group()
    served.add_argument(
        "--asgi",
        action="store_true",
        dest="use_asgi",
        default=None,
        help="Serve ASGI_APPLICATION, as is done by itself with daphne or channels installed.",
    )
    served.add_argument("--noasgi", action="store_false", dest="use_asgi", help="Serve WSGI_APPLICATION.")


def _add(group: argparse._ArgumentGroup, name: str, known: Option) -> None:
    more: dict[str, Any] = {"metavar": known.kind.metavar}
    if known.kind.switch:
        more = {"action": argparse.BooleanOptionalAction}
    elif known.repeatable:
        more["action"] = "append"
    # None means not given: defaults, files and variables have their say in `config`.
    help = known.help.replace("%", "%%")
    group.add_argument(f"--{known.flag}", dest=PREFIX + name, default=None, help=help, **more)


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of devserver among a command's options, as far as they were given."""
    own = {
        name.removeprefix(PREFIX): value
        for name, value in options.items()
        if name.startswith(PREFIX) and value is not None
    }
    if options.get("no_color") or options.get("force_color"):
        own.setdefault("use_colors", not options["no_color"])
    return own


def read(arguments: Sequence[str]) -> Wanted | None:
    """Read what follows `runserver`. None: it is not for a supervisor, or only Django understands it."""
    try:
        found, unknown = _parser().parse_known_args(list(arguments))
    except (ValueError, argparse.ArgumentError):
        return None
    if unknown or found.refuse:
        return None
    options = vars(found)
    address = read_address(options["addrport"]) if options["addrport"] else (None, None)
    if address is None:
        return None
    host, port = address
    return Wanted(host, port, options["use_ipv6"], own_options(options))


def read_address(text: str) -> tuple[str | None, str] | None:
    """Host and port of `port`, `host:port` or `[ipv6]:port`; None if it is none of them."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return None
    host = found["host"]
    if host == "0":
        host = "0.0.0.0"  # as the system reads it
    return host and host.strip("[]"), found["port"]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False)
    parser.add_argument("addrport", nargs="?")
    parser.add_argument("--ipv6", "-6", action="store_true", dest="use_ipv6")
    for flag in ("--nothreading", "--nostatic", "--insecure", "--skip-checks", "--traceback"):
        parser.add_argument(flag, action="store_true")
    for flag in ("--no-color", "--force-color"):
        parser.add_argument(flag, action="store_true")
    for flags in (("--settings",), ("--pythonpath",), ("--verbosity", "-v")):
        parser.add_argument(*flags)
    for flags in (("--noreload",), ("--version",), ("--help", "-h")):
        parser.add_argument(*flags, action="store_true", dest="refuse")
    add_options(parser)
    return parser


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide what follows `python` into its own options and the program with its arguments."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-") and arguments[at] != "-":
        flag = arguments[at]
        if flag.startswith("--"):
            at += 2 if flag in _WITH_VALUE else 1
        elif (ends := re.match(r"-[a-zA-Z]*?([mc])", _plain(flag))) is not None:
            return _split_ended(list(arguments), at, ends.end())
        else:
            at += 2 if flag in _WITH_VALUE else 1
    return list(arguments[:at]), list(arguments[at:])


def _plain(flag: str) -> str:
    """A group of short options without the value that one of them may have in the same word."""
    return re.sub(r"[WX].*", "", flag)


def _split_ended(arguments: list[str], at: int, end: int) -> tuple[list[str], list[str]]:
    """`-m` and `-c` end Python's options, also within a group: `-Im module`, `-mmodule`."""
    flag = arguments[at]
    before, what, joined = flag[: end - 1], "-" + flag[end - 1], flag[end:]
    flags = [*arguments[:at], *([before] if before != "-" else [])]
    return flags, [what, *([joined] if joined else []), *arguments[at + 1 :]]
