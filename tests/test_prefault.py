"""Pages of memory taken ahead: what a sibling has written to is then this process's own; nothing changes."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from tests.patience import DEADLINE

pytestmark = [
    pytest.mark.cpython,
    pytest.mark.skipif(
        sys.platform != "linux" or tuple(map(int, platform.release().split(".", 2)[:2])) < (5, 14),
        reason="madvise cannot populate",
    ),
]

# A block that three processes share: a sibling writes to its first half, and a third is to have that.
PROGRAM = """
import hashlib, json, mmap, os, resource, sys
from devserver.loading.prefault import take_after

SIZE = 400 * mmap.PAGESIZE
block = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE)
block[:] = os.urandom(SIZE)
before = hashlib.sha256(block).hexdigest()
hold, release = os.pipe()
told, tell = os.pipe()

sibling = os.fork()
if not sibling:
    os.close(release)
    for at in range(0, SIZE // 2, mmap.PAGESIZE):
        block[at] = 0
    os.write(tell, b".")
    os.read(hold, 1)
    os._exit(0)

os.read(told, 1)
pid = os.fork()
if not pid:
    most = int(sys.argv[1])
    copied = take_after(sibling if sys.argv[2] == "alive" else 2**22 + 1, most)
    same = hashlib.sha256(block).hexdigest() == before
    faults = []
    for half in (range(0, SIZE // 2, mmap.PAGESIZE), range(SIZE // 2, SIZE, mmap.PAGESIZE)):
        began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for at in half:
            block[at] = 1
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began)
    print(json.dumps([copied, same, faults]), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
os.close(release)
os.waitpid(sibling, 0)
"""


def taken(most: int, sibling: str = "alive") -> tuple[int, bool, tuple[int, int]]:
    """How many bytes were copied, whether all is as it was, and the faults of writing to either half."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(most), sibling],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
    )
    copied, same, faults = json.loads(done.stdout)
    return copied, same, faults


def test_what_a_sibling_has_written_to_is_copied_ahead() -> None:
    copied, same, (written, other) = taken(1 << 40)
    assert same
    assert copied >= 200 * 4096
    assert written < 50 < 150 < other


def test_no_more_is_copied_than_may_be() -> None:
    copied, same, (written, _) = taken(10 * 4096)
    assert same
    assert copied <= 10 * 4096
    assert written > 150


def test_a_sibling_that_is_gone_is_no_model() -> None:
    copied, same, (written, _) = taken(1 << 40, "gone")
    assert (copied, same) == (0, True)
    assert written > 150
