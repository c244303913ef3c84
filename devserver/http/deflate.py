"""Compression of WebSocket messages: permessage-deflate (RFC 7692), on wsproto's extension.

Negotiation and the sending side are wsproto's. The receiving side is our own, for two reasons.
wsproto inflates whatever arrived in one go, so that 64 KiB from a client can become 64 MiB here
before anybody can look at the size; and it takes a ping between the fragments of a compressed
message for the end of that message, and the rest of it for plain text (wsproto pull request 205).

Knows no connection and no application.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

_Frames = FrameDecoder | FrameProtocol

# RFC 7692 section 7.1: an offer with any other parameter, or with one twice, is declined.
_BITS = r"=(?:[89]|1[0-5])"
_PARAMETER = re.compile(
    rf"(?:server|client)_no_context_takeover|server_max_window_bits{_BITS}|client_max_window_bits(?:{_BITS})?"
)


class MessageDeflate(PerMessageDeflate):
    """permessage-deflate that never inflates a message beyond a limit."""

    def __init__(self, limit: int) -> None:
        """Args: limit: the most bytes that a message may have when it is inflated."""
        super().__init__()
        self._limit = limit
        self._room = limit
        self._inflater: zlib._Decompress | None = None
        self._compressed = False  # the message on its way
        self._inflating = False  # the frame on its way

    def frame_inbound_header(
        self, proto: _Frames, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> RsvBits:
        """Take the head of a frame; says which reserved bits are ours in it.

        May be called twice for the same frame, when its head arrives in two parts.
        """
        first = opcode in (Opcode.TEXT, Opcode.BINARY)
        if first:
            self._compressed = rsv.rsv1
            self._room = self._limit
        self._inflating = self._compressed and not opcode.iscontrol()
        return RsvBits(first, False, False)

    def frame_inbound_payload_data(self, proto: _Frames, data: bytes) -> bytes | CloseReason:
        return self._inflate(data) if self._inflating else data

    def frame_inbound_complete(self, proto: _Frames, fin: bool) -> bytes | CloseReason | None:
        if not fin or not self._inflating:
            return None
        data = self._inflate(b"\x00\x00\xff\xff")  # which the sender leaves out (section 7.2.2)
        if self._inflater is not None and self._inflater.eof:
            self._inflater = None  # a sender may end its stream, and begin another (section 7.2.3.5)
        return data

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        if self._inflater is None:
            self._inflater = zlib.decompressobj(-self.client_max_window_bits)
        try:
            inflated = self._inflater.decompress(data, self._room + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._room -= len(inflated)
        return CloseReason.MESSAGE_TOO_BIG if self._room < 0 else inflated


def negotiate(offers: Iterable[str], limit: int) -> tuple[MessageDeflate, str] | None:
    """Take up the first offer that can be met.

    Args:
        offers: the extensions that the client offers, each a name with its parameters.
        limit: the most bytes that a message may have.

    Returns the extension and what to answer; None to do without.
    """
    for offer in offers:
        name, *parameters = (part.strip() for part in offer.replace('"', "").split(";"))
        if name.lower() != PerMessageDeflate.name or not _valid(parameters):
            continue
        extension = MessageDeflate(limit)
        accepted = extension.accept("; ".join((name, *parameters)))
        if isinstance(accepted, str):
            return extension, "; ".join((PerMessageDeflate.name, *filter(None, [accepted])))
    return None


def _valid(parameters: list[str]) -> bool:
    names = {parameter.partition("=")[0] for parameter in parameters}
    return len(names) == len(parameters) and all(map(_PARAMETER.fullmatch, parameters))
