"""What the value of an option may be: one reader for each kind of value.

A kind reads text, as from the command line or the environment, and native values, as from
pyproject.toml or Python, to the same result. Where it cannot, it raises ValueError with the
rest of a sentence ("must be a whole number from 1 up"); whoever knows the option and where
the value stands puts that in front.

This module refuses to know options, sources and who wins. Of the outside it asks only what
lies at a path.
"""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 section 5.5, obs-text included
_FRAMING = {"connection", "content-length", "transfer-encoding"}
_TARGET = re.compile(r"(?P<path>(?:[A-Za-z]:[\\/])?[^:]*)(?P<attribute>:.*)?")


@dataclass(frozen=True, slots=True)
class OptionType:
    """What the value of an option may be.

    Attributes:
        metavar: stands for the value in `--help`.
        read: makes the value from what a source holds; its second argument is the folder that
            relative paths start from. Raises ValueError with the rest of a sentence.
        types: what pyproject.toml may hold for it.
        separator: stands between the items of a list in an environment variable.
        switch: a pair of flags, `--x` and `--no-x`, without a value.
        secret: the value is not shown.
    """

    metavar: str
    read: Callable[[object, str], object]
    types: tuple[type, ...] = (str,)
    separator: str = ","
    switch: bool = False
    secret: bool = False


def integer(low: int, high: int = sys.maxsize) -> OptionType:
    """A whole number within the limits, both included."""
    wanted = f"must be a whole number from {low} " + ("up" if high == sys.maxsize else f"to {high}")

    def read(value: object, base: str) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError(wanted) from None
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise ValueError(wanted)
        return number

    return OptionType("INTEGER", read, (int,))


def _number(value: object) -> float | None:
    """A finite number, from text, too; None for anything else."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if not isinstance(number, int | float) or isinstance(number, bool) or not isfinite(number):
        return None
    return float(number)


def seconds(*, zero: bool) -> OptionType:
    """A time in seconds, with or without a fraction; `zero` says whether it may be 0."""
    wanted = "must be a number of seconds, " + ("0 or more" if zero else "more than 0")

    def read(value: object, base: str) -> float:
        number = _number(value)
        if number is None or number < 0 or (number == 0 and not zero):
            raise ValueError(wanted)
        return number

    return OptionType("SECONDS", read, (int, float))


def factor(low: float) -> OptionType:
    """A number of at least `low`, with or without a fraction."""
    wanted = f"must be a number, {low:g} or more"

    def read(value: object, base: str) -> float:
        number = _number(value)
        if number is None or number < low:
            raise ValueError(wanted)
        return number

    return OptionType("NUMBER", read, (int, float))


def choice(*names: str) -> OptionType:
    """One of the names, in upper or lower case."""

    def read(value: object, base: str) -> str:
        if isinstance(value, str) and value.lower() in names:
            return value.lower()
        raise ValueError(f"must be {', '.join(names[:-1])} or {names[-1]}")

    return OptionType(f"[{'|'.join(names)}]", read)


_REQUIREMENTS = {"0": "none", "1": "optional", "2": "required"}
"""Python's ssl.CERT_*, which is what uvicorn's option takes."""

_VERSIONS = {"auto": None, "2": None, "17": None, "1.2": "1.2", "5": "1.2", "1.3": "1.3"}
"""Likewise its ssl.PROTOCOL_*; those of versions that nobody speaks any more are not among them."""


def _cert_reqs(value: object, base: str) -> str:
    text = str(value).lower() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    text = _REQUIREMENTS.get(text, text)
    if text in _REQUIREMENTS.values():
        return text
    raise ValueError("must be none, optional or required")


def _tls_version(value: object, base: str) -> str | None:
    text = str(value).lower().removeprefix("tlsv") if not isinstance(value, bool) else ""
    if text in _VERSIONS:
        return _VERSIONS[text]
    raise ValueError("must be auto, 1.2 or 1.3")


def _truth(value: object, base: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise ValueError("must be true or false (1, yes, on and 0, no, off will do)")


def _text(value: object, base: str) -> str:
    if isinstance(value, str) and value and "\0" not in value:
        return value
    raise ValueError("must be text that is not empty")


def _path(value: object, base: str) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    return os.path.abspath(os.path.join(base, os.path.expanduser(_text(text, base))))


def _folder(value: object, base: str) -> str:
    path = _path(value, base)
    if not os.path.isdir(path):
        what = "is not a folder" if os.path.exists(path) else "does not exist"
        raise ValueError(f"the folder {path} {what}; correct the path or make the folder")
    return path


def _file(value: object, base: str) -> str:
    path = _path(value, base)
    if os.path.isdir(path) or not os.path.exists(path):  # a pipe, as of <(…), is as good as a file
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        raise ValueError(f"the file {path} {what}; correct the path")
    return path


def _events(value: object, base: str) -> str:
    if isinstance(value, str) and value.startswith("fd:"):
        if re.fullmatch(r"fd:[0-9]{1,9}", value):
            return value
        raise ValueError("must be a file, or fd: and the number of an open descriptor, as in fd:3")
    return _path(value, base)


def _host(value: object, base: str) -> str:
    text = value.strip("[]") if isinstance(value, str) else ""  # [::1] is how a URL writes ::1
    if not text or re.search(r"[\s/\0]|^[^:]*:[0-9]*$", text):
        raise ValueError(
            "must be a name or an address alone, as in 0.0.0.0; the port is an option of its own"
        )
    return text


def _port(value: object, base: str) -> int | None:
    if isinstance(value, str) and value.lower() == "auto":
        return None
    try:
        number = integer(0, 65535).read(value, base)
    except ValueError as error:
        raise ValueError(f"{error}, or auto for the next free one from 8000") from None
    assert isinstance(number, int)
    return number


def _root_path(value: object, base: str) -> str:
    if isinstance(value, str) and (not value or value.startswith("/")):
        return value.rstrip("/")
    raise ValueError("must begin with a slash, as in /api")


def _proxies(value: object, base: str) -> str:
    from ipaddress import ip_network  # needed by whoever gives the option, and by nobody else

    words = [word.strip() for word in value.split(",")] if isinstance(value, str) else [""]
    for word in words:
        if word in ("*", "unix"):
            continue
        try:
            ip_network(word)
        except ValueError as error:
            remedy = f" ({error})" if "host bits" in str(error) else ""
            raise ValueError(
                f"must be an address, a network as in 10.0.0.0/8, unix or *{remedy}; commas separate several"
            ) from None
    return ",".join(words)


def _header(value: object, base: str) -> tuple[str, str]:
    name, colon, content = value.partition(":") if isinstance(value, str) else ("", "", "")
    content = content.strip(" \t")
    if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(content):
        raise ValueError('must be a header line, as in "Cache-Control: no-store"')
    if name.lower() in _FRAMING:
        raise ValueError(f"leave {name} out: the server sets it for each response")
    return name, content


def _target(value: object, base: str) -> object:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if text == "":
        raise ValueError("must be module:attribute or path/to/file.py:attribute")
    return text


def anchored(target: str, folder: str) -> str:
    """A target that names a file of the folder, made absolute; any other as it is."""
    found = _TARGET.fullmatch(target)
    if found is None or not re.search(r"[\\/]|\.pyw?$", found["path"]):
        return target
    path = os.path.abspath(os.path.join(folder, found["path"]))
    there = os.path.exists(path) or os.path.exists(path + ".py")
    return path + (found["attribute"] or "") if there else target


SWITCH = OptionType("BOOLEAN", _truth, (bool,), switch=True)
BOOLEAN = OptionType("BOOLEAN", _truth, (bool,))
TEXT = OptionType("TEXT", _text)
SECRET = OptionType("TEXT", _text, secret=True)
CERT_REQS = OptionType("[none|optional|required]", _cert_reqs, (str, int))
TLS_VERSION = OptionType("[auto|1.2|1.3]", _tls_version, (str, int, float))
PATTERN = OptionType("PATTERN", _text)
PATH = OptionType("PATH", _path)
FOLDER = OptionType("FOLDER", _folder, separator=os.pathsep)
EXISTING_FILE = OptionType("FILE", _file)
EVENTS = OptionType("FILE|fd:N", _events)
HOST = OptionType("HOST", _host)
PORT = OptionType("PORT", _port, (int, str))
PROXIES = OptionType("ADDRESS", _proxies)
ROOT_PATH = OptionType("PATH", _root_path)
HEADER = OptionType('"NAME: VALUE"', _header, separator="\n")
TARGET = OptionType("TARGET", _target)
