"""Sources and their compiled forms, such as may be believed.

A .pyc knows its source by whole seconds of mtime and by size. A second save within the second, or one
after which the older mtime was restored, would run old code even in a fresh process. So a compiled
form is believed only if it was written later than its source was changed, by ctime, which cannot be
set, with `YOUNG` between. The format is Python's (PEP 552).

Opens with functions taken before anybody wraps them.
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import MAGIC_NUMBER, cache_from_source
from types import CodeType
from typing import cast

from devserver.watching.answers import YOUNG, Fingerprint, fingerprint_at, fingerprint_of

_open, _fdopen = os.open, os.fdopen
_HEADER = 16


def read_source(path: str) -> tuple[bytes, Fingerprint]:
    """The bytes of a source, and its fingerprint.

    Raises:
        OSError: it cannot be read.
    """
    with _fdopen(_open(path, os.O_RDONLY), "rb") as file:
        # In this order: bytes newer than their stamps are looked at again, older ones would not be.
        fingerprint = fingerprint_of(os.fstat(file.fileno()))
        return file.read(), fingerprint


def is_believable(path: str, source: Fingerprint) -> bool:
    """Whether what Python would run, a .pyc or the text, is what is in the source."""
    cache = _cache(path, None)
    if cache is None or _is_later(cache, source, missing=True):
        return True
    return _head(cache)[4:5] > b"\0"  # by a hash of the source: never outdated


def cached(path: str, source: Fingerprint, form: str) -> CodeType | None:
    """A compiled form of a module, if there is one to be believed.

    Args:
        form: a part of the file's name, of letters and digits.
    """
    cache = _cache(path, form)
    if cache is None or not _is_later(cache, source, missing=False):
        return None
    try:
        with _fdopen(_open(cache, os.O_RDONLY), "rb") as file:
            data = file.read()
        code = cast("CodeType", marshal.loads(data[_HEADER:])) if data[:_HEADER] == _header(source) else None
    except (OSError, ValueError, EOFError, TypeError):
        return None
    # In a folder that was renamed, or is mounted elsewhere too, it would name files that are not there.
    return code if code is not None and code.co_filename == path else None


def keep(loader: SourceFileLoader, path: str, source: Fingerprint, code: CodeType, form: str = "") -> None:
    """Store a compiled form; without `form` it replaces the .pyc, which could not be believed."""
    cache = None if sys.dont_write_bytecode else _cache(path, form or None)
    if cache is not None:
        loader.set_data(cache, _header(source) + marshal.dumps(code))


def _cache(path: str, form: str | None) -> str | None:
    try:
        if form is None:
            return cache_from_source(path)
        return cache_from_source(path, optimization=f"{form}{sys.flags.optimize}")
    except NotImplementedError:
        return None  # an interpreter without a cache tag keeps none


def _is_later(cache: str, source: Fingerprint, *, missing: bool) -> bool:
    written = fingerprint_at(cache)
    return missing if written is None else written[0] >= max(source[0], source[1]) + YOUNG


def _head(path: str) -> bytes:
    try:
        with _fdopen(_open(path, os.O_RDONLY), "rb") as file:
            return file.read(8)
    except OSError:
        return b""


def _header(source: Fingerprint) -> bytes:
    stamps = (0, source[0] // 10**9, source[2])
    return MAGIC_NUMBER + b"".join((number & 0xFFFFFFFF).to_bytes(4, "little") for number in stamps)
