"""The end of a process that another has made for us."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.patience import DEADLINE

pytestmark = [
    pytest.mark.cpython,
    pytest.mark.skipif(sys.platform != "linux", reason="nothing is adopted elsewhere"),
]

# The parent is a supervisor, its child the maker, whose child is adopted while the maker lives.
PROGRAM = """
import os, signal, socket, time
from devserver.process.adopted import Adopted
from devserver.process.control import QueueingChannel

read, write = os.pipe()
hold, release = os.pipe()
maker = os.fork()
if not maker:
    os.close(release)
    if {ignores}:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    made = os.fork()
    if not made:
        signal.pause()
    os.write(write, str(made).encode())
    os.read(hold, 1)
    os._exit(0)
os.close(hold)
adopted = Adopted(int(os.read(read, 20)), QueueingChannel(socket.socketpair()[0]))
assert adopted.exit_code() is None
adopted.kill()
if {ignores}:
    print(adopted.wait(), adopted.exit_code())
    os.close(release)
    os.waitpid(maker, 0)
else:
    import ctypes
    assert adopted.exit_code() is None
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # it becomes ours when its maker ends
    os.close(release)
    os.waitpid(maker, 0)
    print(adopted.wait(), adopted.exit_code())
"""


@pytest.mark.parametrize("ignores", [False, True], ids=["", "the maker ignores SIGCHLD"])
def test_a_copy_that_is_killed_while_its_maker_lives_has_ended(ignores: bool) -> None:
    """Nothing may wait for it for ever, even if the kernel has given its exit code to nobody."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ignores=ignores)],
        capture_output=True, text=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    assert done.stdout == "-9 -9\n"
