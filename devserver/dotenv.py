r"""Environment files: what `--env-file` names, in the syntax of python-dotenv.

    # A comment; blank lines mean nothing.
    export NAME=value of words   # from a blank and a hash on it is a comment, so a#b is a value
    QUOTED="line one\nline two"  # \\ \' \" \a \b \f \n \r \t \v; may go on over several lines
    'ANY NAME'='a $raw\path'     # \\ and \' only; may go on over several lines
    MORE=${NAME}/${OTHER:-none}  # a variable of the environment, else one from further up

`${…}` is replaced whatever the quotes are. The default counts only for a name that is not there at
all; an empty one stays empty. A name without `=` sets nothing, and makes earlier lines for the same
name void. A statement that cannot be read is left out, and reading goes on with the line after
the point where it failed. As the real environment wins over the file, it wins within `${…}` too.

What no environment can hold (an `=` in a name, a NUL) is one more statement that cannot be read,
while python-dotenv fails on it.

`parse` decides and touches nothing; only `load` knows files.
"""

import logging
import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import NamedTuple

from devserver.errors import UsageError

logger = logging.getLogger("devserver")

# Blanks are what str.isspace says, but for the ends of lines: \r, \n or both.
_BETWEEN = re.compile(r"\s*")
_EXPORT = re.compile(r"export[^\S\r\n]+")
_NAME = re.compile(r"'(?P<quoted>[^']+)'|(?P<bare>[^'=#\s][^=#\s]*)")
_EQUALS = re.compile(r"[^\S\r\n]*=")
_QUOTED = re.compile(
    r"""[^\S\r\n]*(?:
        '(?P<single>[^'\\]*(?:\\.[^'\\]*)*)'
      | "(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"
    )""",
    re.VERBOSE | re.DOTALL,
)
_BARE = re.compile(r"(?![^\S\r\n]*['\"])[^\r\n]*")
_COMMENT = re.compile(r"\s#.*", re.DOTALL)
_END = re.compile(r"[^\S\r\n]*(?:#[^\r\n]*)?(?:\r\n|\r|\n|\Z)")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")

_ESCAPE_IN_SINGLE = re.compile(r"\\([\\'])")
_ESCAPE_IN_DOUBLE = re.compile(r"\\([\\'\"abfnrtv])")
_MEANINGS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_VARIABLE = re.compile(r"\$\{(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?\}")


class _Statement(NamedTuple):
    """One statement.

    Attributes:
        end: where the next one may begin.
        name: None when nothing was named: a comment.
        value: before `${…}` is replaced; None for a name alone.
        valid: whether it could be read.
    """

    end: int
    name: str | None = None
    value: str | None = None
    valid: bool = True


def parse(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a file's text defines, those of the environment among them too.

    Args:
        text: what the file holds; a byte order mark and any kind of line end may be there.
        environ: where `${NAME}` is looked for first.
    """
    assignments, _ = _read(text)
    return _expand(assignments, environ)


def load(path: str, environ: MutableMapping[str, str]) -> dict[str, str]:
    """Set what a file defines and the environment does not have yet. Returns what was set.

    A line that cannot be read is left out, with a warning in the log.

    Args:
        path: of the file, which is in UTF-8.
        environ: is changed, most often `os.environ`.

    Raises:
        UsageError: the file cannot be read, or the environment cannot hold a value.
    """
    text = _contents(path)
    assignments, invalid = _read(text)
    for line in invalid:
        logger.warning("%s, line %d: expected NAME=value; line ignored", path, line)
    found = {name: value for name, value in _expand(assignments, environ).items() if name not in environ}
    for name, value in found.items():
        try:
            environ[name] = value
        except UnicodeEncodeError as error:
            raise UsageError(
                f"--env-file {path}: {name} has a character that is not in {error.encoding}, "
                "the encoding of this environment: set PYTHONUTF8=1"
            ) from None
    return found


def _contents(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--env-file {path}: the byte at offset {error.start} is not UTF-8; save the file in UTF-8"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--env-file {path}: {reason}; correct the path or leave the option out") from None


def _read(text: str) -> tuple[list[tuple[str, str | None]], list[int]]:
    """The assignments, in order, and the numbers of the lines where invalid statements begin.

    The numbers are those of a file opened as text, which has every end of line as \\n.
    """
    text = text.removeprefix("\ufeff")
    assignments: list[tuple[str, str | None]] = []
    invalid: list[int] = []
    line, counted = 1, 0
    start = _after(_BETWEEN, text, 0)
    while start < len(text):
        statement = _statement(text, start)
        if not statement.valid:
            line, counted = line + text.count("\n", counted, start), start
            invalid.append(line)
        elif statement.name is not None:
            assignments.append((statement.name, statement.value))
        start = _after(_BETWEEN, text, statement.end)
    return assignments, invalid


def _statement(text: str, at: int) -> _Statement:
    """The statement that begins here, which no blank does."""
    at = _after(_EXPORT, text, at)
    name, value = None, None
    if not text.startswith("#", at):
        named = _NAME.match(text, at)
        if named is None:
            return _failed(text, at)
        name, at = named["quoted"] or named["bare"], named.end()
        if _EQUALS.match(text, at):
            at = _after(_EQUALS, text, at)
            found = _QUOTED.match(text, at) or _BARE.match(text, at)
            if found is None:
                return _failed(text, at)
            value, at = _value(found), found.end()
    end = _END.match(text, at)
    if end is None:
        return _failed(text, at)
    valid = name is None or not ("=" in name or "\0" in name or "\0" in (value or ""))
    return _Statement(end.end(), name, value, valid)


def _failed(text: str, at: int) -> _Statement:
    return _Statement(_after(_LINE, text, at), valid=False)


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where a pattern ends that may or may not be here."""
    match = pattern.match(text, at)
    return match.end() if match else at


def _value(found: re.Match[str]) -> str:
    """What a value means, `${…}` aside."""
    parts = found.groupdict()
    if parts.get("single") is not None:
        return _ESCAPE_IN_SINGLE.sub(r"\1", parts["single"])
    if parts.get("double") is not None:
        return _ESCAPE_IN_DOUBLE.sub(lambda escape: _MEANINGS.get(escape[1], escape[1]), parts["double"])
    # With the blanks after the equals sign, so that "NAME= # comment" is empty.
    return _COMMENT.sub("", found[0]).strip()


def _expand(assignments: Iterable[tuple[str, str | None]], environ: Mapping[str, str]) -> dict[str, str]:
    """Replace `${…}`; of several assignments to a name the last one counts."""
    known = dict(environ)  # os.environ would refuse to look for a name that it cannot encode
    values: dict[str, str | None] = {}

    def replacement(variable: re.Match[str]) -> str:
        name = variable["name"]
        return known.get(name, values.get(name, variable["default"] or "")) or ""

    for name, value in assignments:
        values[name] = None if value is None else _VARIABLE.sub(replacement, value)
    return {name: value for name, value in values.items() if value is not None}
