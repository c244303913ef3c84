"""The extensions of ASGI's HTTP responses: trailers, early hints, and files that the server sends.

`http.response.trailers`, `http.response.early_hint`, `http.response.pathsend` and
`http.response.zerocopysend`, as the ASGI specification has them ("Extensions"), onto an exchange.

`uwsgi` is an extension of our own: what a proxy has said by that protocol beside the headers, name to value.

`http.response.push` is not offered, since browsers no longer take it, nor `http.response.debug`, which would
have frameworks put what they know into each response.

Refuses to know tasks, and how a file gets to the client.
"""

import os
import stat
from functools import partial
from typing import Any

from devserver.errors import ApplicationError
from devserver.gateway.asgi_words import Message
from devserver.gateway.environ import BLOCK, is_made
from devserver.http.exchange import Exchange, Headers

Extensions = dict[str, dict[str, Any]]

_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""A FIFO must not hold up the loop until somebody writes into it."""


def offered(exchange: Exchange) -> Extensions:
    """What a scope says of these. Each request gets dictionaries of its own: applications write into them."""
    extensions: Extensions = {
        "http.response.early_hint": {},
        "http.response.pathsend": {},
        "http.response.zerocopysend": {},
    }
    if exchange.takes_trailers:
        extensions["http.response.trailers"] = {}
    parameters = exchange.request.parameters
    if parameters is not None:
        # As text, where an environ has bytes in disguise.
        extensions["uwsgi"] = {
            name: value.encode("latin-1").decode("utf-8", "replace") for name, value in parameters.items()
        }
    return extensions


class Trailers:
    """The trailers of one response, which announces them when it starts and sends them after its body."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._headers: Headers = []
        self._due = False

    def body(self, more: bool) -> bool:
        """Note a part of the body; returns that more follows, since these do.

        Raises:
            ApplicationError: the body had ended.
        """
        if self._due:
            raise ApplicationError("the application sent more of a body that had ended")
        self._due = not more
        return True

    def take(self, message: Message) -> bool:
        """Take `http.response.trailers`; returns whether more of them follow.

        Raises:
            ApplicationError: the body has not ended, or a field cannot be sent as a trailer.
        """
        if not self._due:
            raise ApplicationError("the application sent trailers before the end of its body")
        self._headers += pairs(message.get("headers") or ())
        more = bool(message.get("more_trailers", False))
        if not more:
            self._exchange.trail(self._headers)
        return more

    def start(self, status: int, headers: Headers) -> None:
        """Start the response. A length says where it ends, and then nothing can follow: it is left out.

        Raises:
            ApplicationError: as `Exchange.start`.
        """
        if self._exchange.takes_trailers:
            headers = [header for header in pairs(headers) if header[0].lower() != b"content-length"]
        self._exchange.start(status, headers)


def hint(exchange: Exchange, message: Message) -> None:
    """`http.response.early_hint`: links that the client may fetch while the response is made.

    The specification has it after the start of a response. Where the final head leaves with that, as on
    HTTP/1.1, it would be too late, so it may come before as well.
    """
    links = message.get("links") or ()
    try:
        if links:
            exchange.hint([(b"Link", bytes(link)) for link in links])
    except (TypeError, ValueError):
        raise ApplicationError(
            f"the application sent the links {links!r:.200}: each must be a byte string"
        ) from None


def send_path(exchange: Exchange, message: Message, more: bool) -> None:
    """`http.response.pathsend`: a file is the body.

    An error of the file system must not leave `send` as an OSError, which says that the client has gone.
    """
    path = message.get("path")
    if not isinstance(path, str | os.PathLike) or not os.path.isabs(path):
        raise ApplicationError(f"'http.response.pathsend' has the path {path!r}: it must be absolute")
    try:
        file = os.open(path, _READ)
    except (OSError, ValueError) as error:  # ValueError: NUL
        raise ApplicationError(f"'http.response.pathsend': {error}") from None
    try:
        size = _size(file, message)
        if is_made(os.fstat(file)):
            exchange.write(b"".join(iter(partial(os.read, file, BLOCK), b"")), more)
        else:
            exchange.send_file(file, 0, size, more)
    except OSError as error:
        raise ApplicationError(f"'http.response.pathsend': {error}: {path!r}") from None
    finally:
        os.close(file)


def send_descriptor(exchange: Exchange, message: Message, more: bool) -> None:
    """`http.response.zerocopysend`: a part of an open file is a part of the body.

    Without an offset it begins where the file stands, which then moves on, as `sendfile` moves it.
    """
    given: Any = message.get("file")
    offset, count = message.get("offset"), message.get("count")
    try:
        file = given if isinstance(given, int) else given.fileno()
        position = given if hasattr(given, "seek") else _Position(file)
        start = position.tell() if offset is None else offset
        left = max(0, _size(file, message) - start)
        count = left if count is None else min(count, left)
        if start < 0 or count < 0:
            raise ApplicationError("'http.response.zerocopysend' has a negative offset or count")
        exchange.send_file(file, start, count, more)
        if offset is None:
            position.seek(start + count)
    except (OSError, TypeError, ValueError, AttributeError) as error:
        raise ApplicationError(
            f"'http.response.zerocopysend' has no file that can be sent: {error}"
        ) from None


class _Position:
    """Where a descriptor stands."""

    def __init__(self, file: int) -> None:
        self._file = file

    def tell(self) -> int:
        return os.lseek(self._file, 0, os.SEEK_CUR)

    def seek(self, offset: int) -> None:
        os.lseek(self._file, offset, os.SEEK_SET)


def _size(file: int, message: Message) -> int:
    info = os.fstat(file)
    if not stat.S_ISREG(info.st_mode):
        raise ApplicationError(f"{message['type']!r} has what is not a regular file")
    return info.st_size


def pairs(headers: Any) -> Headers:
    """The headers of a message as the seam has them.

    Raises:
        ApplicationError: they are not pairs of byte strings.
    """
    try:
        return [(bytes(name), bytes(value)) for name, value in headers]
    except (TypeError, ValueError):
        raise ApplicationError(
            f"the application sent headers {headers!r}: each must be a pair of byte strings"
        ) from None
