"""Environment files: what `--env-file` names, read by python-dotenv (the extra `dotenv`).

That library has the syntax, and what `${NAME}` means. Here stands what it leaves open: which of file and
environment wins, where a line is that cannot be read, and errors that name the option. Weighed: a reader of
our own, which this module was, and environs, which stands on python-dotenv and checks types besides.

Imported in the process that loads the application, in a supervisor that has companions, and only if there is
such a file.
"""

from __future__ import annotations

import io
import logging
from collections import ChainMap
from collections.abc import MutableMapping

from devserver.errors import UsageError

logger = logging.getLogger("devserver")


def load(path: str, environ: MutableMapping[str, str], *, quiet: bool = False) -> dict[str, str]:
    """Set what a file defines and the environment does not have yet. Returns what was set.

    A line that cannot be read is left out, with a warning in the log.

    Args:
        path: of the file, which is in UTF-8.
        environ: is changed, most often `os.environ`.
        quiet: somebody else warns.

    Raises:
        UsageError: the file cannot be read, the environment cannot hold a value, or python-dotenv is missing.
    """
    text = _contents(path)
    try:
        from dotenv.parser import parse_stream
        from dotenv.variables import parse_variables
    except ImportError:
        raise UsageError(
            f"--env-file {path}: python-dotenv is needed to read it; pip install 'devserver[dotenv]'"
        ) from None
    assignments = []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or not _can_be_held(binding.key, binding.value):
            # A statement begins with the blank lines before it.
            statement = binding.original.string
            blank = statement[: len(statement) - len(statement.lstrip())].count("\n")
            line = binding.original.line + blank
            level = logging.DEBUG if quiet else logging.WARNING
            logger.log(level, "%s, line %d: expected NAME=value; line ignored", path, line)
        elif binding.key is not None:
            assignments.append((binding.key, binding.value))
    # As python-dotenv does it, but reading those variables only that the file names: who has read one that is
    # another one in each worker must not be copied.
    given: dict[str, str | None] = {name: environ[name] for name in environ if name in text}
    values: dict[str, str | None] = {}
    known = ChainMap(given, values)
    for name, written in assignments:
        parts = None if written is None else parse_variables(written)
        values[name] = None if parts is None else "".join(part.resolve(known) for part in parts)
    found = {name: value for name, value in values.items() if value is not None and name not in environ}
    for name, value in found.items():
        try:
            environ[name] = value
        except UnicodeEncodeError as error:
            raise UsageError(
                f"--env-file {path}: {name} has a character that is not in {error.encoding}, "
                "the encoding of this environment: set PYTHONUTF8=1"
            ) from None
    return found


def _can_be_held(name: str | None, value: str | None) -> bool:
    """Whether an environment can hold a variable."""
    return name is None or not ("=" in name or "\0" in name or "\0" in (value or ""))


def _contents(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--env-file {path}: the byte at offset {error.start} is not UTF-8; save the file in UTF-8"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--env-file {path}: {reason}; correct the path or leave the option out") from None
