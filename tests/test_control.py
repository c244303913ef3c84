"""The control channel over real socket pairs: framing, descriptors, and the end."""

import json
import os
import selectors
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from devserver.process.control import MAX_FDS, Channel, Closed, Message, QueueingChannel
from devserver.process.reactor import Reactor
from tests.patience import DEADLINE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors do not travel on Windows")

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of a channel."""
    ours, theirs = map(Channel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def file() -> Iterator[Callable[[str], int]]:
    """Makes descriptors that can be told apart: the read ends of pipes that hold a text."""
    made: list[int] = []

    def make(text: str) -> int:
        read, write = os.pipe()
        os.write(write, text.encode())
        os.close(write)
        made.append(read)
        return read

    yield make
    for fd in made:
        os.close(fd)


def take(fds: list[int]) -> list[str]:
    """What the descriptors of `file` hold; closes them."""
    texts = []
    for fd in fds:
        with os.fdopen(fd) as opened:
            texts.append(opened.read())
    return texts


def frame(message: Message, count: int = 0) -> bytes:
    """A message on the wire, put together by hand."""
    body = json.dumps(message).encode()
    return struct.pack("!IIB", len(body), 0, count) + body


def gather(channel: Channel, count: int) -> list[Message]:
    """Receive until so many messages have come."""
    found: list[Message] = []
    while len(found) < count:
        found += [message for message, _ in channel.receive()]
    return found


def open_descriptors() -> set[int]:
    """Those of this process, without the one that listing them needs."""
    return set(filter(is_open, map(int, os.listdir("/dev/fd"))))


def is_open(fd: int) -> bool:
    """Whether a descriptor is open in this process."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# Framing


def test_a_message_arrives_as_it_was_sent(pair: Pair) -> None:
    ours, theirs = pair
    message = {"say": "read", "entries": [[1, None, True], {"deep": 1.5}], "fds": 7, "text": "é€😀\0\n"}
    ours.send(message)
    assert theirs.receive() == [(message, [])]
    theirs.send({})
    assert ours.receive() == [({}, [])]


def test_bytes_travel_as_they_are(pair: Pair) -> None:
    ours, theirs = pair
    data = bytes(range(256)) * 100
    ours.send({"say": "connection", "data": data})
    ours.send({"say": "loaded", "data": b""})
    found: list[tuple[Message, list[int]]] = []
    while len(found) < 2:
        found += theirs.receive()
    assert found == [({"say": "connection", "data": data}, []), ({"say": "loaded"}, [])]


def test_many_messages_in_one_segment(pair: Pair) -> None:
    ours, theirs = pair
    for number in range(100):
        ours.send({"number": number})
    assert theirs.receive() == [({"number": number}, []) for number in range(100)]


def test_a_message_byte_by_byte(pair: Pair) -> None:
    ours, theirs = pair
    data = frame({"say": "loaded"})
    for byte in data[:-1]:
        ours.socket.sendall(bytes([byte]))
        assert theirs.receive() == []
    ours.socket.sendall(data[-1:])
    assert theirs.receive() == [({"say": "loaded"}, [])]


def test_the_beginning_of_a_message_behind_another(pair: Pair) -> None:
    ours, theirs = pair
    data = frame({"a": 1}) + frame({"b": 2})
    ours.socket.sendall(data[:-3])
    assert theirs.receive() == [({"a": 1}, [])]
    ours.socket.sendall(data[-3:] + frame({"c": 3}))
    assert theirs.receive() == [({"b": 2}, []), ({"c": 3}, [])]


def test_a_message_of_a_mebibyte(pair: Pair) -> None:
    ours, theirs = pair
    message = {"text": "x" * 2**20, "end": True}
    sender = threading.Thread(target=ours.send, args=(message,))
    sender.start()
    assert gather(theirs, 1) == [message]
    sender.join()


def test_lone_surrogates_survive(pair: Pair) -> None:
    """A file name that is not in the file system's encoding."""
    ours, theirs = pair
    name = os.fsdecode(b"caf\xe9.py")
    ours.send({"path": name, name: "\ud800"})
    assert theirs.receive() == [({"path": name, name: "\ud800"}, [])]


def test_receive_returns_at_once_on_a_socket_that_does_not_block(pair: Pair) -> None:
    _, theirs = pair
    theirs.socket.setblocking(False)
    assert theirs.receive() == []


def test_waiting_ends_with_a_message_with_the_end_and_with_the_time(pair: Pair) -> None:
    ours, theirs = pair
    assert not theirs.wait(0)
    ours.send({"say": "something"})
    assert theirs.wait(DEADLINE)
    theirs.receive()
    assert not theirs.wait(0)
    ours.close()
    assert theirs.wait(DEADLINE)


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors have other numbers there")
def test_waiting_on_a_descriptor_that_select_does_not_take() -> None:
    """As a supervisor has them that holds a thousand connections while nobody serves."""
    import fcntl

    from devserver.process.limits import raise_limit, set_limit

    before = raise_limit()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            high = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD, 1100)
        except OSError:
            pytest.skip("there may not be so many")
        channel = Channel(socket.socket(fileno=high))
        assert not channel.wait(0)
        ours.sendall(b"x")
        assert channel.wait(DEADLINE)
        channel.close()
    set_limit(before)


def test_waiting_takes_no_descriptor() -> None:
    """A supervisor that has none left must still hear its children."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # what is open beyond it stays open
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(ours.fileno())
            assert not channel.wait(0)
            ours.sendall(b"x")
            assert channel.wait(DEADLINE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_default_timeout_of_the_application_is_none_of_a_channel() -> None:
    socket.setdefaulttimeout(0.01)
    try:
        one, other = socket.socketpair()
        with one, other:
            assert one.gettimeout() == 0.01
            Channel(one)
            assert one.gettimeout() is None
    finally:
        socket.setdefaulttimeout(None)


def test_receive_waits_for_something(pair: Pair) -> None:
    ours, theirs = pair
    found: list[Message] = []
    receiver = threading.Thread(target=lambda: found.extend(gather(theirs, 1)))
    receiver.start()
    ours.send({"late": True})
    receiver.join()
    assert found == [{"late": True}]


def test_one_message_is_taken_and_the_next_stays_visible(pair: Pair, file: Callable[[str], int]) -> None:
    ours, theirs = pair
    ours.send({"do": "boot"}, [file("a"), file("b")])
    ours.send({"do": "show"})
    ours.send({"do": "retire"}, [file("c")])
    with selectors.DefaultSelector() as selector:
        selector.register(theirs, selectors.EVENT_READ)
        message, fds = theirs.receive_one()
        assert (message, take(fds)) == ({"do": "boot"}, ["a", "b"])
        assert selector.select(0)
        assert theirs.receive_one() == ({"do": "show"}, [])
        assert selector.select(0)
        [(message, fds)] = theirs.receive()
        assert (message, take(fds)) == ({"do": "retire"}, ["c"])
        assert not selector.select(0)


def test_one_message_in_pieces(pair: Pair) -> None:
    ours, theirs = pair
    data = frame({"do": "boot", "text": "x" * 300_000})

    def send() -> None:
        for start in range(0, len(data), 777):
            ours.socket.sendall(data[start : start + 777])
        ours.send({"do": "serve"})

    sender = threading.Thread(target=send)
    sender.start()
    assert theirs.receive_one()[0]["do"] == "boot"
    assert theirs.receive_one() == ({"do": "serve"}, [])
    sender.join()


def test_one_message_that_was_received_in_part(pair: Pair) -> None:
    ours, theirs = pair
    data = frame({"a": 1})
    ours.socket.sendall(data[:7])
    assert theirs.receive() == []
    ours.socket.sendall(data[7:] + frame({"b": 2}))
    assert theirs.receive_one() == ({"a": 1}, [])
    assert theirs.receive_one() == ({"b": 2}, [])


# Descriptors


def test_descriptors_arrive_with_their_message(pair: Pair, file: Callable[[str], int]) -> None:
    ours, theirs = pair
    ours.send({"do": "boot"}, [file("a"), file("b")])
    [(message, fds)] = theirs.receive()
    assert message == {"do": "boot"}
    assert not any(os.get_inheritable(fd) for fd in fds)
    assert take(fds) == ["a", "b"]


def test_a_listening_socket_still_listens(pair: Pair) -> None:
    ours, theirs = pair
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours.send({}, [listener.fileno()])
        address = listener.getsockname()
    [(_, [fd])] = theirs.receive()
    with socket.socket(fileno=fd) as arrived, socket.create_connection(address) as client:
        accepted, peer = arrived.accept()
        accepted.close()
        assert peer == client.getsockname()


def test_several_messages_with_descriptors(pair: Pair, file: Callable[[str], int]) -> None:
    ours, theirs = pair
    ours.send({"n": 0})
    ours.send({"n": 1}, [file("a"), file("b")])
    ours.send({"n": 2})
    ours.send({"n": 3})
    ours.send({"n": 4}, [file("c")])
    ours.send({"n": 5}, [file("d")])
    found: list[tuple[Message, list[str]]] = []
    while len(found) < 6:
        found += [(message, take(fds)) for message, fds in theirs.receive()]
    assert found == [
        ({"n": 0}, []),
        ({"n": 1}, ["a", "b"]),
        ({"n": 2}, []),
        ({"n": 3}, []),
        ({"n": 4}, ["c"]),
        ({"n": 5}, ["d"]),
    ]


@pytest.mark.parametrize("first", [1, 3, 5, 9])
def test_descriptors_that_come_before_the_rest_of_their_message(
    pair: Pair, file: Callable[[str], int], first: int
) -> None:
    ours, theirs = pair
    data = frame({"n": 1}, 1)
    socket.send_fds(ours.socket, [data[:first]], [file("a")])
    assert theirs.receive() == []
    ours.socket.sendall(data[first:] + frame({"n": 2}))
    [(message, fds), after] = theirs.receive()
    assert (message, take(fds)) == ({"n": 1}, ["a"])
    assert after == ({"n": 2}, [])


def test_descriptors_with_a_large_message(pair: Pair, file: Callable[[str], int]) -> None:
    ours, theirs = pair

    def send() -> None:
        for number in range(3):
            ours.send({"n": number, "text": "x" * 2**20}, [file(str(number))])

    sender = threading.Thread(target=send)
    sender.start()
    found: list[tuple[int, list[str]]] = []
    while len(found) < 3:
        found += [(message["n"], take(fds)) for message, fds in theirs.receive()]
    sender.join()
    assert found == [(0, ["0"]), (1, ["1"]), (2, ["2"])]


def test_as_many_descriptors_as_the_kernel_takes(pair: Pair, file: Callable[[str], int]) -> None:
    ours, theirs = pair
    fd = file("a")
    with pytest.raises(ValueError, match=f"{MAX_FDS + 1} descriptors in one message"):
        ours.send({}, [fd] * (MAX_FDS + 1))
    ours.send({}, [fd] * MAX_FDS)
    [(_, fds)] = theirs.receive()
    for each in fds:
        os.close(each)
    assert len(fds) == MAX_FDS


def test_descriptors_that_nobody_took_are_closed(pair: Pair, file: Callable[[str], int]) -> None:
    ours, theirs = pair
    data = frame({}, 2)
    socket.send_fds(ours.socket, [data[:-1]], [file("a"), file("b")])
    before = open_descriptors()
    assert theirs.receive() == []
    arrived = open_descriptors() - before
    assert len(arrived) == 2
    theirs.close()
    assert not any(map(is_open, arrived))
    theirs.close()


@pytest.mark.unmeasured
def test_descriptors_find_room_above_the_limit_for_programs() -> None:
    program = (
        "import os, resource, socket, subprocess\n"
        "from devserver.process.control import Channel\n"
        "ours, theirs = map(Channel, socket.socketpair())\n"
        "ours.send({}, [0] * 9)\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "highest = os.dup(0); os.close(highest)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))\n"
        "(_, fds), = theirs.receive()\n"
        "print(len(fds), resource.getrlimit(resource.RLIMIT_NOFILE) == (highest, hard))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE)
    assert (run.stderr, run.stdout) == ("", "9 True\n")


def test_descriptors_that_found_no_room_break_the_channel() -> None:
    program = (
        "import os, resource, socket\n"
        "from devserver.process.control import Channel, Closed\n"
        "count = lambda: len(os.listdir('/dev/fd'))\n"
        "ours, theirs = map(Channel, socket.socketpair())\n"
        "ours.send({}, [0] * 9)\n"
        "before = count()\n"
        "spare = os.dup(0)\n"
        "highest = os.dup(0); os.close(highest)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 5, highest + 5))\n"
        "try: theirs.receive()\n"
        "except Closed as error: print(error)\n"
        "os.close(spare)  # counting needs one\n"
        "print(count() - before)\n"
        "theirs.close()\n"
        "print(count() - before)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE)
    assert run.stderr == ""
    # Five found room, and were closed with the channel.
    assert run.stdout.splitlines() == [
        "descriptors were lost: this process has too many open",
        "5",
        "-1",
    ]


# The end


def test_everything_said_is_taken_before_the_end(pair: Pair) -> None:
    ours, theirs = pair
    ours.send({"say": "failed"})
    ours.close()
    assert theirs.receive() == [({"say": "failed"}, [])]
    with pytest.raises(Closed, match="end of stream"):
        theirs.receive()
    with pytest.raises(Closed):
        theirs.receive_one()


def test_the_end_in_the_middle_of_a_message(pair: Pair) -> None:
    ours, theirs = pair
    ours.socket.sendall(frame({"a": 1})[:-1])
    ours.close()
    assert theirs.receive() == []
    with pytest.raises(Closed):
        theirs.receive()


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_is_there_to_read(pair: Pair, file: Callable[[str], int], count: int) -> None:
    ours, theirs = pair
    theirs.close()
    with pytest.raises(Closed, match="Broken pipe"):
        ours.send({"do": "serve"}, [file("a")] * count)


def test_an_end_that_was_closed_here(pair: Pair) -> None:
    ours, _ = pair
    ours.close()
    with pytest.raises(Closed):
        ours.send({})
    with pytest.raises(Closed):
        ours.receive()
    assert ours.drain() == []


def test_a_selector_sees_the_end(pair: Pair) -> None:
    ours, theirs = pair
    with selectors.DefaultSelector() as selector:
        selector.register(theirs, selectors.EVENT_READ)
        assert not selector.select(0)
        ours.close()
        assert selector.select(0)


def test_draining_takes_all_that_was_said(pair: Pair) -> None:
    ours, theirs = pair
    message = {"say": "failed", "traceback": "x" * 100_000}
    ours.send(message)
    ours.send({"n": 2})
    ours.close()
    assert theirs.drain() == [(message, []), ({"n": 2}, [])]


def test_draining_does_not_wait_for_what_was_forked(pair: Pair) -> None:
    """A process that the ended one has forked keeps the channel open, and the stream without end."""
    ours, theirs = pair
    with ours.socket.dup():
        ours.send({"say": "failed"})
        ours.close()
        assert theirs.drain() == [({"say": "failed"}, [])]
        assert theirs.drain() == []


def test_a_full_channel_queues(file: Callable[[str], int]) -> None:
    """What is sent to somebody who does not read waits, in order, with its descriptors."""
    ours, theirs = socket.socketpair()
    writer, reader = QueueingChannel(ours), Channel(theirs)
    count = 0
    while not writer.pending:
        writer.send({"n": count, "pad": "x" * 5000}, [file(str(count))])
        count += 1
    for _ in range(3):
        writer.send({"n": count, "pad": ""}, [file(str(count))])
        count += 1
    reactor = Reactor()
    reactor.add(writer, lambda: None, writer)
    theirs.setblocking(False)
    seen: list[tuple[int, list[str]]] = []
    while len(seen) < count:
        received = reader.receive()
        if not received:
            reactor.wait(time.monotonic() + 5)
        seen += [(message["n"], take(fds)) for message, fds in received]
    assert seen == [(n, [str(n)]) for n in range(count)]
    assert not writer.pending
    began = time.monotonic()
    reactor.wait(began + 0.01)
    assert time.monotonic() - began >= 0.01, "a channel with nothing to write wakes nobody"
    reactor.close()
    writer.close()
    reader.close()


def test_what_nobody_will_read_is_dropped() -> None:
    ours, theirs = socket.socketpair()
    writer = QueueingChannel(ours)
    while not writer.pending:
        writer.send({"pad": "x" * 5000})
    theirs.close()
    with pytest.raises(Closed):
        writer.flush()
    assert not writer.pending
    writer.close()


def test_another_process(pair: Pair, file: Callable[[str], int]) -> None:
    ours, theirs = pair
    program = (
        "import os, socket, sys\n"
        "from devserver.process.control import Channel\n"
        "channel = Channel(socket.socket(fileno=int(sys.argv[1])))\n"
        "message, [fd] = channel.receive_one()\n"
        "channel.send({'said': message, 'held': os.read(fd, 9).decode()}, [0])\n"
    )
    fd = theirs.fileno()
    with subprocess.Popen(
        [sys.executable, "-c", program, str(fd)], pass_fds=[fd], stdin=subprocess.PIPE
    ) as process:
        theirs.close()
        ours.send({"n": 1}, [file("text")])
        message, fds = ours.receive_one()
        assert process.wait(timeout=DEADLINE) == 0
    assert message == {"said": {"n": 1}, "held": "text"}
    assert [stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in fds] == [True]
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in fds:
        os.close(fd)
