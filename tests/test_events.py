"""The stream of events for programs."""

import enum
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devserver.errors import UsageError
from devserver.events import Events
from tests.patience import DEADLINE


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe, closed at the end if nobody else has."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_one_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events"
    events = Events.open(str(path))
    before = time.time()
    events.emit("starting", target="shop:app")
    events.emit("serving", generation=1, pid=123, seconds=0.25)
    first, second = lines(path)
    events.close()
    assert before - 1e-6 <= float(str(first["time"])) <= time.time()
    assert first == {"event": "starting", "time": first["time"], "target": "shop:app"}
    assert list(second) == ["event", "time", "generation", "pid", "seconds"]


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "events"
    for name in ("starting", "stopped"):
        events = Events.open(str(path))
        events.emit(name)
        events.close()
    assert [each["event"] for each in lines(path)] == ["starting", "stopped"]


def test_a_descriptor(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.set_inheritable(write, True)
    events = Events.open(f"fd:{write}")
    assert not os.get_inheritable(write)
    events.emit("stopped")
    # All of the line is there at once: no buffer is between.
    assert json.loads(os.read(read, 65536))["event"] == "stopped"


def descriptors_of(path: Path) -> list[int]:
    found = []
    for fd in range(3, 256):
        try:
            if os.path.samestat(os.fstat(fd), path.stat()):
                found.append(fd)
        except OSError:
            pass
    return found


def test_a_file_is_not_inherited(tmp_path: Path) -> None:
    path = tmp_path / "events"
    events = Events.open(str(path))
    (fd,) = descriptors_of(path)
    assert not os.get_inheritable(fd)
    events.close()
    assert descriptors_of(path) == []


def test_nowhere() -> None:
    events = Events.open(None)
    events.emit("starting")
    events.close()


@pytest.mark.parametrize(
    "spec", ["fd:", "fd:x", "fd:-1", "fd:99999", "fd:1e3", "{folder}", "{folder}/none/events", "a\0b"]
)
def test_what_cannot_be_written(tmp_path: Path, spec: str) -> None:
    with pytest.raises(UsageError, match=r"--events .* cannot be written \(.+\); give a file"):
        Events.open(spec.format(folder=tmp_path))


def test_the_reading_end_cannot_be_written(pipe: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        Events.open(f"fd:{pipe[0]}")


def test_a_reader_that_goes_away_is_told_once(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    read, write = pipe
    events = Events.open(f"fd:{write}")
    os.close(read)
    logger = logging.getLogger("devserver")
    logger.addHandler(caplog.handler)
    try:
        events.emit("change", files=["a.py"])
        events.emit("stopped")
    finally:
        logger.removeHandler(caplog.handler)
    warnings = {each.getMessage() for each in caplog.records}
    assert warnings == {"no more --events: Broken pipe"}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(write)


class Color(enum.StrEnum):
    RED = "red"


class Kind(enum.Enum):
    COLD = 1


class Bad:
    def __str__(self) -> str:
        raise RuntimeError


def circle() -> list[object]:
    found: list[object] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (Color.RED, "red"),
        (Kind.COLD, "Kind.COLD"),
        (Path("a") / "b", os.path.join("a", "b")),
        (b"caf\xc3\xa9", "café"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (("a", {"b"}), ["a", ["b"]]),
        ({1: Path("a"), None: b"b"}, {"1": "a", "None": "b"}),
        (ValueError("no"), "ValueError: no"),
        (Bad(), "(Bad)"),
        ("a\n\u2028\x1b", "a\n\u2028\x1b"),
    ],
)
def test_values_are_made_fit(tmp_path: Path, value: object, expected: object) -> None:
    path = tmp_path / "events"
    events = Events.open(str(path))
    events.emit("x", value=value)
    events.close()
    assert lines(path)[0]["value"] == expected
    assert path.read_bytes().isascii()


def test_names_of_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "events"
    names = ["caf\udce9.py", b"caf\xe9.py"] if sys.platform == "linux" else ["caf\udce9.py"]
    events = Events.open(str(path))
    events.emit("change", files=names)
    events.close()
    assert lines(path)[0]["files"] == ["caf\udce9.py"] * len(names)


def test_circles_end(tmp_path: Path) -> None:
    path = tmp_path / "events"
    events = Events.open(str(path))
    events.emit("x", value=circle())
    events.close()
    assert "[[[" in path.read_text(encoding="ascii")


def test_fields_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "events"
    events = Events.open(str(path))
    events.emit("x", name="y", self="z")
    events.close()
    assert lines(path)[0]["name"] == "y"
    assert lines(path)[0]["self"] == "z"


def test_a_long_line_arrives_whole(pipe: tuple[int, int]) -> None:
    read, write = pipe
    events = Events.open(f"fd:{write}")
    text = "x" * 1_000_000
    # Longer than any pipe: the write ends when the reader has taken it.

    def write_all() -> None:
        events.emit("failed", traceback=text)
        events.close()

    writer = threading.Thread(target=write_all)
    writer.start()
    with open(read, "rb", closefd=False) as reader:
        received = reader.read()
    writer.join(timeout=DEADLINE)
    assert json.loads(received)["traceback"] == text


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs a signal to one thread")
def test_a_signal_in_the_middle_of_a_line_loses_nothing(pipe: tuple[int, int]) -> None:
    read, write = pipe
    events = Events.open(f"fd:{write}")
    handled = threading.Event()
    received = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handled.set())
    main = threading.get_ident()

    def interrupt() -> None:
        import fcntl
        import termios

        waiting, deadline = 0, time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            now = int.from_bytes(fcntl.ioctl(read, termios.FIONREAD, bytes(4)), sys.byteorder)
            if now and now == waiting:
                break  # the pipe is full
            waiting = now
        # The system call returns with the part that was written.
        signal.pthread_kill(main, signal.SIGUSR1)
        handled.wait(DEADLINE)
        with open(read, "rb", closefd=False) as reader:
            received.append(reader.read())

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        events.emit("failed", traceback="x" * 1_000_000)
        events.close()
    finally:
        thread.join(10)
        signal.signal(signal.SIGUSR1, before)
    assert handled.is_set()
    assert json.loads(received[0])["traceback"] == "x" * 1_000_000
