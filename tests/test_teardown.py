"""A process that leaves its memory to another is gone at once, and the other holds nothing and ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import DEADLINE

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.cpython,
    pytest.mark.skipif(sys.platform != "linux", reason="it ends as any other process"),
]

# The parent adopts what its child leaves behind, as a supervisor does.
PROGRAM = """
import ctypes, os, select, signal, socket, sys, threading
from devserver.process.ending import at_last, leave
from devserver.process.teardown import hand_over_memory

DEADLINE = 600
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()
read, write = os.pipe()
ended = os.pidfd_open(child) if (child := os.fork()) else 0
if not child:
    listener.listen()
    above = os.dup(listener.fileno())
    memory = [bytes(1000) for _ in range(50_000)]
    {before}
    at_last(lambda: hand_over_memory(write, lambda pid: os.write(write, str(pid).encode())))
    leave(3)
listener.close()
os.close(write)
assert select.select([ended], [], [], DEADLINE)[0]
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
told = os.read(read, 100).decode()
print("told" if told else "not told")
if told:
    other = os.pidfd_open(int(told))
    open_ = set(os.listdir(f"/proc/{{told}}/fd")) - {{"0", "1", "2", str(write)}}
    assert not open_, open_
    socket.create_server(address).close()
    assert select.select([other], [], [], DEADLINE)[0]
    print(os.waitpid(int(told), 0)[1])
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("nothing left")
"""


def run(before: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert not done.stderr
    return done.stdout.splitlines()


def test_it_is_gone_at_once_and_the_other_ends_by_itself() -> None:
    assert run("pass") == ["told", "0", "nothing left"]


def test_a_signal_to_both_ends_neither() -> None:
    """Handlers of Python's must not be executed by somebody who shares its memory."""
    handled = "signal.signal(signal.SIGTERM, lambda *_: None)"
    later = "end, os._exit = os._exit, lambda code: (os.kill(0, signal.SIGTERM), end(code))"
    assert run(f"os.setpgid(0, 0); {handled}; {later}") == ["told", "0", "nothing left"]


def test_a_thread_of_the_application_does_not_meet_closed_descriptors() -> None:
    thread = "threading.Thread(target=threading.Event().wait, name='theirs', daemon=True).start()"
    assert run(thread) == ["not told", "nothing left"]


def test_a_locked_file_is_let_go_of_before_it_is_gone(tmp_path: Path) -> None:
    """It may be mapped, too, and then closing it is not enough."""
    lock = f"import fcntl; held = open({str(tmp_path / 'lock')!r}, 'w'); fcntl.flock(held, fcntl.LOCK_EX)"
    assert run(lock) == ["not told", "nothing left"]


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK), reason="no device that may be opened")
def test_a_device_is_let_go_of_before_it_is_gone() -> None:
    assert run("held = os.open('/dev/fuse', os.O_RDONLY)") == ["not told", "nothing left"]


def test_a_thread_that_executes_what_the_application_says_counts() -> None:
    thread = "threading.Thread(target=threading.Event().wait, name='devserver-checks', daemon=True).start()"
    assert run(thread) == ["not told", "nothing left"]


def test_a_thread_that_python_does_not_list_counts() -> None:
    thread = "import _thread, time; _thread.start_new_thread(time.sleep, (100,))"
    assert run(thread) == ["not told", "nothing left"]


def test_threads_of_ours_are_in_nobodys_way() -> None:
    thread = "threading.Thread(target=threading.Event().wait, name='devserver-control', daemon=True).start()"
    assert run(thread) == ["told", "0", "nothing left"]
