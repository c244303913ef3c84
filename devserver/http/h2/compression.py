"""Fields as bytes and back (HPACK, RFC 7541). Pure.

What is received is read by hpack. What is sent refers to the static table alone: each field is encoded by
itself, so the most usual ones are encoded once and remembered. A dynamic table would save bytes, which are
not what is scarce between two programs of one machine, cost time for each response, and have to go over to
the next generation with its connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from devserver.http.exchange import Headers
from devserver.http.h2.frames import Broken, Code

_SECRET = frozenset((b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"))
"""Fields that no intermediary may put into a table (RFC 7541 section 7.1.3)."""

_SHORT = 256
"""Bytes of a field that is remembered."""

NO_TABLE = b"\x20"
"""Says that the table has no room for anything (RFC 7541 section 6.3)."""

_WHOLE: dict[tuple[bytes, bytes], int] = {}
_NAMES: dict[bytes, int] = {}
for _index, _entry in enumerate(HeaderTable.STATIC_TABLE, 1):
    _WHOLE[_entry[0], _entry[1]] = _index
    _NAMES.setdefault(_entry[0], _index)


def encode(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A field block. Args: headers: names in lower case."""
    return b"".join(
        [
            _remembered(name, value) if len(name) + len(value) < _SHORT else _field(name, value)
            for name, value in headers
        ]
    )


def _field(name: bytes, value: bytes) -> bytes:
    whole = _WHOLE.get((name, value))
    if whole is not None:
        return _integer(whole, 7, 0x80)
    kind = 0x10 if name in _SECRET else 0x00  # never indexed, or not indexed
    index = _NAMES.get(name)
    head = _integer(index, 4, kind) if index else _integer(0, 4, kind) + _string(name)
    return head + _string(value)


_remembered = lru_cache(maxsize=1024)(_field)


def _string(text: bytes) -> bytes:
    return _integer(len(text), 7, 0) + text


def _integer(value: int, bits: int, pattern: int) -> bytes:
    """A number (RFC 7541 section 5.1). Args: bits: of the first byte are its own; pattern: the others."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((pattern | value,))
    out = bytearray((pattern | most,))
    value -= most
    while value > 0x7F:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


class Reader:
    """Reads field blocks; what it has learnt of earlier ones is its table."""

    def __init__(self, limit: int) -> None:
        """Args: limit: the most bytes that a block may have when it is read, and 32 for each field."""
        self._decoder = Decoder(limit)

    def read(self, block: bytes) -> Headers:
        """The fields of a block.

        Raises:
            Broken: it is malformed, or larger than the limit; what comes later cannot be read any more.
        """
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise Broken(Code.ENHANCE_YOUR_CALM, "more fields than anybody needs") from None
        except (HPACKError, IndexError, ValueError) as error:
            raise Broken(Code.COMPRESSION_ERROR, f"fields that cannot be read: {error}") from None

    def table(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """The size of the table in bytes, and what is in it, the oldest first."""
        table = self._decoder.header_table
        return table.maxsize, [(bytes(name), bytes(value)) for name, value in reversed(table.dynamic_entries)]

    def restore(self, size: int, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Go on from a table of another reader."""
        self._decoder.header_table_size = size
        for name, value in entries:
            self._decoder.header_table.add(name, value)
