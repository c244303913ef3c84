"""ASGI's extensions of a response, and WSGI's file wrapper, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import io
import os
import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from devserver.errors import ApplicationError
from devserver.gateway.environ import FileWrapper, file_part
from tests.certificates import Certificates
from tests.raw import Raw, Signal, serving

SIZE = 3_000_000
"""Bytes: more than a socket takes from a server while its client does not read."""

START = {"type": "http.response.start", "status": 200, "headers": []}
PART = {"type": "http.response.body", "body": b"before ", "more_body": True}
LAST = {"type": "http.response.body", "body": b" after"}
TRAILING = {**START, "trailers": True}
TRAILERS = {"type": "http.response.trailers", "headers": [(b"X-Sum", b"42")]}
HINT = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]}


class Says:
    """Sends messages, and keeps the scope."""

    def __init__(self, *messages: Any) -> None:
        self.messages = messages
        self.scope: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        for message in self.messages:
            await send(message() if callable(message) else message)


def path_of(file: Path | str) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(file)}


def part_of(file: Any, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.zerocopysend", "file": file, **more}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "large.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return str(request.param)


def descriptors() -> set[str]:
    """What this process has open of files and sockets."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{fd}: {os.readlink(f'/proc/self/fd/{fd}')}")
    return found


# Files


def test_a_file_is_the_body_and_the_connection_lives_on(file: Path, loop: str) -> None:
    with serving(Says(START, path_of(file)), loop=loop) as server, Raw(server) as raw:
        for _ in range(2):
            raw.get()
            answer = raw.answer()
            assert answer.headers[b"content-length"] == b"%d" % SIZE
            assert answer.body == file.read_bytes()
        raw.get(method="HEAD")
        assert raw.answer(bodiless=True).headers[b"content-length"] == b"%d" % SIZE
        raw.get(version="1.0")
        assert raw.answer().body == file.read_bytes()


def test_files_are_copied_under_tls(file: Path, loop: str, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with serving(Says(START, path_of(file)), loop=loop, **certificates.options) as server:
        port = server.listeners.sockets[0].getsockname()[1]
        client = http.client.HTTPSConnection("127.0.0.1", port, context=certificates.client())
        for _ in range(2):
            client.request("GET", "/")
            assert client.getresponse().read() == file.read_bytes()
        client.close()


def test_parts_of_files_and_of_bodies_follow_each_other(file: Path, loop: str) -> None:
    """The application closes the file as soon as `send` returns."""
    content = file.read_bytes()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(PART)
        with file.open("rb") as opened:
            assert opened.read(10)
            await send(part_of(opened, count=SIZE - 20, more_body=True))  # from where it stands
            assert opened.tell() == SIZE - 10
            await send(part_of(opened, more_body=True))  # what is left
            await send(part_of(opened, more_body=True))  # nothing is left
            await send(part_of(opened.fileno(), offset=5, count=5, more_body=True))
            await send(part_of(opened.fileno(), offset=SIZE - 1, count=100, more_body=True))
        await send(LAST)

    with serving(app, loop=loop) as server, Raw(server) as raw:
        raw.get()
        answer = raw.answer()
    assert answer.headers[b"transfer-encoding"] == b"chunked"
    assert answer.body == b"before " + content[10:] + content[5:10] + content[-1:] + b" after"


def test_a_descriptor_moves_on_as_sendfile_moves_it(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        os.lseek(fd, 7, os.SEEK_SET)
        app = Says(START, part_of(fd, count=3, more_body=True), part_of(fd, count=2))
        with serving(app) as server, Raw(server) as raw:
            raw.get()
            assert raw.answer().body == file.read_bytes()[7:12]
        assert os.lseek(fd, 0, os.SEEK_CUR) == 12
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("name.txt", "must be absolute"),
        ("/a/file/that/is/not/there", "No such file"),
        ("/", "not a regular file"),
        ("/nul\0", "null"),
        (None, "must be absolute"),
    ],
)
def test_a_path_that_cannot_be_sent_is_the_applications_fault(
    path: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(Says(START, {**path_of(""), "path": path})) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().status == 500
    assert fault in caplog.text


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
@pytest.mark.parametrize("made", ["/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_what_the_kernel_makes_when_it_is_read_has_no_size(made: str, interface: str, tmp_path: Path) -> None:
    """In /proc it is said to be 0, in /sys a page."""
    if not os.access(made, os.R_OK):
        pytest.skip("there is no such file here")
    app = Says(START, path_of(made)) if interface == "asgi" else wrapping(partial(open, made, "rb"))
    with serving(app) as server, Raw(server) as raw:
        for _ in range(2):
            raw.get()
            assert raw.answer().body == Path(made).read_bytes()


@pytest.mark.parametrize("free", [0, 1, 2])
def test_a_lack_of_descriptors_does_not_look_as_if_the_client_had_gone(
    file: Path, free: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Frameworks take an OSError of `send` for that, and say nothing."""
    heard = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(each.partition(":")[0]) for each in descriptors())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, hard))
        held = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            for _ in range(free):
                os.close(held.pop())
            await send(path_of(file))
        except Exception as error:
            heard.set(error)
            raise
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in held:
                os.close(each)

    with serving(app) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().status == 500
    assert isinstance(heard.wait(), ApplicationError)
    assert "Too many open files" in caplog.text


def test_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with serving(Says(START, path_of(tmp_path / "fifo"))) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().status == 500


@pytest.mark.parametrize(
    "more",
    [
        {"file": None},
        {"file": "text"},
        {"file": -1},
        {"file": io.BytesIO(b"")},
        {"offset": -1},
        {"count": -1},
        {"count": "1"},
    ],
)
def test_a_file_that_cannot_be_sent_is_the_applications_fault(
    file: Path, more: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with file.open("rb") as opened:
        app = Says(START, {**part_of(opened), **more})
        with serving(app) as server, Raw(server) as raw:
            raw.get()
            assert raw.answer().status == 500
    assert "zerocopysend" in caplog.text


@pytest.mark.parametrize("way", ["length", "body before", "body after", "twice"])
def test_a_path_is_the_whole_body(file: Path, way: str, caplog: pytest.LogCaptureFixture) -> None:
    messages = {
        "length": [{**START, "headers": [(b"content-length", b"5")]}, path_of(file)],
        "body before": [START, PART, path_of(file)],
        "body after": [START, path_of(file), LAST],
        "twice": [START, path_of(file), path_of(file)],
    }[way]
    with serving(Says(*messages)) as server, Raw(server) as raw:
        raw.get()
        if way == "length":
            assert raw.answer().status == 500
        elif way == "body before":
            with pytest.raises((EOFError, ConnectionResetError)):
                raw.answer()
        else:
            assert raw.answer().body == file.read_bytes()
    assert "ApplicationError" in caplog.text


def test_who_leaves_amid_a_file_leaves_nothing_behind(file: Path, loop: str) -> None:
    """Nor does the application hear anything but that the client has gone."""
    heard = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/other":
            await send(START)
            await send(LAST)
            return
        await send({**START, "headers": [(b"content-length", b"%d" % (50 * SIZE))]})
        try:
            for _ in range(50):
                with file.open("rb") as opened:
                    await send(part_of(opened, more_body=True))
        except OSError as error:
            heard.set(error)
            raise

    with serving(app, loop=loop) as server:
        before = descriptors()
        with Raw(server) as raw:
            raw.get()
            raw.take(SIZE)
        assert "closed the connection" in str(heard.wait())
        with Raw(server) as raw:  # the loop is not in the midst of anything
            raw.get("/other")
            raw.answer()
        assert not {fd for fd in descriptors() - before if "large.bin" in fd}


def test_a_file_that_becomes_shorter_cuts_the_connection(
    tmp_path: Path, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shrinks"
    path.write_bytes(b"x" * (40 * SIZE))
    with serving(Says(START, path_of(path)), loop=loop) as server, Raw(server) as raw:
        raw.get()
        raw.take(100)
        os.truncate(path, 1000)
        with pytest.raises((EOFError, ConnectionResetError)):
            raw.take(40 * SIZE)
    assert "the file that is sent ended" in caplog.text


def test_a_file_is_not_read_ahead_of_a_client_that_takes_nothing(loop: str, tmp_path: Path) -> None:
    """Under TLS, where it is copied, and behind what another task of the application still sends."""
    certificates = Certificates(tmp_path)
    sparse = tmp_path / "sparse"
    sparse.touch()
    os.truncate(sparse, 40 * SIZE)
    left = Signal()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        parts = {**PART, "body": bytes(4 * SIZE)}
        other = asyncio.create_task(send(parts))
        await asyncio.sleep(0)
        while other.done():  # until the client is slower
            other = asyncio.create_task(send(parts))
            await asyncio.sleep(0)
        file = asyncio.create_task(send(part_of(opened)))
        for _ in range(50):
            await asyncio.sleep(0)
        left.set(send.__self__.exchange._file.left)
        file.cancel()
        other.cancel()

    with sparse.open("rb") as opened, serving(app, loop=loop, **certificates.options) as server:
        port = server.listeners.sockets[0].getsockname()[1]
        client = http.client.HTTPSConnection("127.0.0.1", port, context=certificates.client())
        client.request("GET", "/")
        assert left.wait() == 40 * SIZE
        client.close()


def test_others_are_answered_while_a_file_is_sent(tmp_path: Path, loop: str) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 40 * SIZE)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(path_of(path) if scope["path"] == "/file" else LAST)

    with serving(app, loop=loop) as server, Raw(server) as slow, Raw(server) as other:
        slow.get("/file")
        slow.take(100)
        other.get()
        assert other.answer().body == b" after"
        slow.take(SIZE)


# WSGI's file wrapper


def wrapping(make: Callable[[], Any], *headers: tuple[str, str]) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", list(headers))
        return environ["wsgi.file_wrapper"](make())

    return app


def test_wsgi_files_are_sent_from_where_they_stand(file: Path, loop: str) -> None:
    opened: list[Any] = []

    def make() -> Any:
        opened.append(file.open("rb"))
        opened[-1].read(10)
        return opened[-1]

    with serving(wrapping(make), loop=loop) as server, Raw(server) as raw:
        for method in ("GET", "HEAD", "GET"):
            raw.get(method=method)
            answer = raw.answer(bodiless=method == "HEAD")
            assert answer.headers[b"content-length"] == b"%d" % (SIZE - 10)
            assert answer.body == (b"" if method == "HEAD" else file.read_bytes()[10:])
    assert all(each.closed for each in opened)


def test_what_is_beyond_the_content_length_is_not_sent(file: Path) -> None:
    """PEP 3333, "Optional Platform-Specific File Handling"."""
    app = wrapping(lambda: file.open("rb"), ("Content-Length", "9"))
    with serving(app) as server, Raw(server) as raw:
        for _ in range(2):
            raw.get()
            assert raw.answer().body == file.read_bytes()[:9]


def test_a_file_shorter_than_its_content_length_is_a_fault(file: Path) -> None:
    app = wrapping(lambda: file.open("rb"), ("Content-Length", str(SIZE + 1)))
    with serving(app) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().status == 500


def test_only_what_is_on_the_disk_is_sent_by_the_kernel(file: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(b"content"))
    reads, writes = os.pipe()

    class Subclass(io.FileIO):
        """May read as it likes."""

    with (
        file.open("rb") as plain,
        file.open("rb", buffering=0) as raw,
        file.open("r+b") as both,
        gzip.open(packed) as unpacked,
        file.open(encoding="latin-1") as text,
        open(reads, "rb") as pipe,
        open(writes, "wb"),
        Subclass(file) as other,
    ):
        both.write(b"x")
        assert file_part(plain) == (plain.fileno(), 0, SIZE)
        assert file_part(raw) == (raw.fileno(), 0, SIZE)
        assert file_part(both) == (both.fileno(), 1, SIZE - 1)
        for each in (unpacked, text, pipe, other, io.BytesIO(b"x"), None):
            assert file_part(each) is None
    assert file_part(plain) is None  # closed
    with open("/proc/self/status", "rb") as made:  # of no size until it is read
        assert file_part(made) is None
        assert b"".join(FileWrapper(made)).startswith(b"Name:")


# Trailers


def trailing(raw: Raw) -> tuple[bytes, bytes]:
    """The body of a chunked response, and what follows its last chunk."""
    status, headers = raw.head()
    assert (status, headers[b"transfer-encoding"]) == (200, b"chunked")
    assert b"content-length" not in headers
    body = b""
    while size := int(raw.until(b"\r\n"), 16):
        body += raw.take(size)
        raw.take(2)
    lines = b""
    while (line := raw.until(b"\r\n")) != b"\r\n":
        lines += line
    return body, lines


def test_trailers_follow_the_body() -> None:
    app = Says(
        {**TRAILING, "headers": [(b"Trailer", b"X-Sum, X-More"), (b"Content-Length", b"13")]},
        PART,
        LAST,
        {**TRAILERS, "more_trailers": True},
        {"type": "http.response.trailers", "headers": [(b"X-More", b"yes")]},
    )
    with serving(app) as server, Raw(server) as raw:
        for _ in range(2):  # the connection lives on
            raw.get("/", "TE: trailers, deflate;q=0.5", "Connection: TE")
            assert trailing(raw) == (b"before  after", b"X-Sum: 42\r\nX-More: yes\r\n")
    assert app.scope["extensions"]["http.response.trailers"] == {}


def test_trailers_follow_a_file(file: Path) -> None:
    with serving(Says(TRAILING, path_of(file), TRAILERS)) as server, Raw(server) as raw:
        raw.get("/", "TE: trailers")
        assert trailing(raw) == (file.read_bytes(), b"X-Sum: 42\r\n")


def test_trailers_that_are_none_and_those_of_an_empty_body() -> None:
    empty = {"type": "http.response.trailers"}
    with serving(Says(TRAILING, PART, LAST, empty)) as server, Raw(server) as raw:
        raw.get("/", "TE: trailers")
        assert trailing(raw) == (b"before  after", b"")
    with serving(Says(TRAILING, {**LAST, "body": b""}, TRAILERS)) as server, Raw(server) as raw:
        raw.get("/", "TE: trailers")
        assert trailing(raw) == (b"", b"X-Sum: 42\r\n")


@pytest.mark.parametrize("lines", [(), ("TE: gzip",), ("TE: xtrailers",)])
def test_who_does_not_take_trailers_gets_none(lines: tuple[str, ...]) -> None:
    app = Says({**TRAILING, "headers": [(b"Content-Length", b"13")]}, PART, LAST, TRAILERS)
    with serving(app) as server, Raw(server) as raw:
        for _ in range(2):
            raw.get("/", *lines)
            answer = raw.answer()
            assert (answer.body, answer.headers[b"content-length"]) == (b"before  after", b"13")
        raw.get("/", "TE: trailers", method="HEAD")
        assert raw.answer(bodiless=True).status == 200
        raw.get("/", "TE: trailers", version="1.0")
        assert raw.answer().body == b"before  after"
    assert "http.response.trailers" not in app.scope["extensions"]


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ((START, LAST, TRAILERS), "not a message"),
        ((TRAILING, PART, TRAILERS), "before the end of its body"),
        ((TRAILING, LAST, LAST), "of a body that had ended"),
        ((TRAILING, LAST), "returned before it ended"),
        ((TRAILING, LAST, {**TRAILERS, "headers": [(b"Content-Length", b"1")]}), "belongs into the headers"),
        ((TRAILING, LAST, {**TRAILERS, "headers": [(b"X", b"a\r\nb")]}), "control character"),
        ((TRAILING, LAST, {**TRAILERS, "headers": [("X", "text")]}), "pair of byte strings"),
        ((TRAILING, LAST, TRAILERS, TRAILERS), "more after the end"),
    ],
)
def test_trailers_at_fault(messages: tuple[Any, ...], fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """What was announced cannot be kept, so the connection is cut, unless the response was whole."""
    with serving(Says(*messages)) as server, Raw(server) as raw:
        raw.get("/", "TE: trailers")
        if messages in ((START, LAST, TRAILERS), (TRAILING, LAST, TRAILERS, TRAILERS)):
            assert raw.head()[0] == 200
        else:
            with pytest.raises((EOFError, ConnectionResetError)):
                trailing(raw)
    assert fault in caplog.text


# Early hints


def interim(raw: Raw) -> Iterator[tuple[bytes, list[bytes]]]:
    """Status and lines of each head, up to the final one."""
    while True:
        first, *lines = raw.until(b"\r\n\r\n")[:-4].split(b"\r\n")
        yield first, lines
        if not first.startswith(b"HTTP/1.1 1"):
            return


@pytest.mark.parametrize("messages", [(HINT, START, LAST), (START, HINT, LAST)])
def test_early_hints_come_before_the_response(messages: tuple[Any, ...]) -> None:
    """The specification has them after the start, when a head may have left already: here it has not."""
    with serving(Says(*messages, HINT)) as server, Raw(server) as raw:
        for _ in range(2):
            raw.get()
            (status, lines), (final, _) = interim(raw)
            assert status == b"HTTP/1.1 103 Early Hints"
            assert lines == [b"Link: </a.css>; rel=preload", b"Link: </b.js>; rel=preload"]
            assert final == b"HTTP/1.1 200 OK"
            raw.take(len(" after"))


@pytest.mark.parametrize(
    ("version", "lines", "messages"),
    [
        ("1.0", (), (HINT, START, LAST)),
        ("1.1", ("User-Agent: python-requests/2.32.3",), (HINT, START, LAST)),
        ("1.1", ("User-Agent: Python-urllib/3.13",), (HINT, START, LAST)),
        ("1.1", (), (START, PART, HINT, LAST)),
        ("1.1", (), ({**HINT, "links": []}, START, LAST)),
    ],
)
def test_nobody_gets_hints_who_does_not_expect_them(
    version: str, lines: tuple[str, ...], messages: tuple[Any, ...]
) -> None:
    """Python's http.client takes them for the response."""
    with serving(Says(*messages)) as server, Raw(server) as raw:
        raw.get("/", *lines, version=version)
        assert raw.answer().status == 200


@pytest.mark.parametrize("links", [["</a.css>"], [b"a\r\nb"], 5])
def test_hints_at_fault(links: Any, caplog: pytest.LogCaptureFixture) -> None:
    with serving(Says({**HINT, "links": links}, START, LAST)) as server, Raw(server) as raw:
        raw.get()
        assert raw.answer().status == 500
    assert "ApplicationError" in caplog.text
