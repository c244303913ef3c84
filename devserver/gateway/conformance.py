"""What PEP 3333 allows an application to say, checked.

An application that breaks the rules may seem to work here and fail behind another server. So
each rule is checked, and the message says what was sent. Whether a name or a value has bytes
that no header may have is for the HTTP side to find out; it also drops the fields that are the
server's to send, which an application has from a response of another server that it passes on.

No effects; this module refuses to know exchanges, threads and what happens next.
"""

import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from devserver.errors import ApplicationError
from devserver.http.codes import BODILESS
from devserver.http.exchange import Headers

# A final response only: nothing would follow a 1xx, and the client would wait for ever.
_STATUS = re.compile(r"[2-9][0-9]{2} .*")


@dataclass(slots=True)
class Head:
    """A response's status and header lines, and the content-length among them or None."""

    status: int
    headers: Headers
    length: int | None

    def announce(self, size: int, method: str) -> None:
        """Add a content-length for a body known to have `size` bytes, where there may be one.

        RFC 9110 section 8.6: none with 204, and in answer to HEAD only that of the GET, which an
        empty body does not tell.
        """
        if self.length is None and self.status not in BODILESS and (size or method != "HEAD"):
            self.headers.append((b"Content-Length", b"%d" % size))
            self.length = size

    def check_length(self, sent: int, last: bool, method: str) -> None:
        """Find a wrong content-length while the client can still be told by a 500.

        Args:
            sent: bytes of the body so far.
            last: there will be no more.
            method: the request's; an answer to HEAD may be too short.

        Raises:
            ApplicationError: the announced length is wrong.
        """
        if self.length is None or self.status in BODILESS:
            return
        short = last and sent < self.length and method != "HEAD"
        if short or sent > self.length:
            raise ApplicationError(
                f"the application announced a content-length of {self.length} and sent {sent} bytes"
            )


def checked_head(status: Any, headers: Any) -> Head:
    """Turn the arguments of `start_response` into the head of a response.

    Raises:
        ApplicationError: PEP 3333 does not allow them.
    """
    if not isinstance(status, str) or not _STATUS.fullmatch(status):
        raise ApplicationError(
            f"the application passed start_response the status {status!r}; it must be a str such as '200 OK'"
        )
    if not isinstance(headers, list):
        raise ApplicationError(
            f"the application passed start_response the headers {reprlib.repr(headers)}; they must be a list"
        )
    length = None
    lines: Headers = []
    for header in headers:
        name, value = _checked_header(header)
        if name.lower() == b"content-length":
            if not value.isdigit() or length is not None:
                raise ApplicationError(
                    f"the application sent the content-length {value!r}; it must be one number"
                )
            length = int(value)
        lines.append((name, value))
    return Head(int(status[:3]), lines, length)


def _checked_header(header: Any) -> tuple[bytes, bytes]:
    try:
        name, value = header if isinstance(header, tuple) else ()
        return name.encode("latin-1"), value.encode("latin-1")
    except (AttributeError, ValueError):  # ValueError: not two, or not in latin-1
        raise ApplicationError(
            f"the application sent the header {reprlib.repr(header)}; "
            "it must be a tuple of two strs with code points up to U+00FF"
        ) from None


def checked_chunks(result: Any) -> Iterable[Any]:
    """Check what the application returned; a sequence of one becomes a list (PEP 3333)."""
    if isinstance(result, str | bytes | bytearray):
        kind = type(result).__name__
        raise ApplicationError(
            f"the application returned a {kind}; it must return an iterable such as [body]"
        )
    if not hasattr(result, "__iter__") and not hasattr(result, "__getitem__"):
        raise ApplicationError(f"the application returned {result!r}; it must return an iterable of bytes")
    chunks: Iterable[Any] = result
    if not isinstance(result, list | tuple) and hasattr(result, "__len__") and len(result) == 1:
        chunks = list(result)
    return chunks


def checked_chunk(chunk: Any, how: str) -> bytes:
    """Return `chunk` if it is bytes; `how` says what the application did with it."""
    if not isinstance(chunk, bytes):
        raise ApplicationError(f"the application {how} {reprlib.repr(chunk)}; it must be bytes")
    return chunk
