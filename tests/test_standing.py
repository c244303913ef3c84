"""Where another process stands: it is asked while it executes Python, runs in C, and waits."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from devserver.process.standing import Standing, ask
from tests.patience import DEADLINE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nobody answers elsewhere")

PROGRAM = """if True:
    import sys
    from devserver.process.standing import answer
    answer({fd})
    code = compile({code!r}, "app.py", "exec")
    print(flush=True)
    exec(code)
"""
PLACES = {
    "a loop in Python": ("x = 0\nwhile True: x += 1", 2),
    "a loop in C that holds the GIL": ("import itertools\nsum(itertools.repeat(1))", 2),
    "a sleep": ("import time\n\ntime.sleep(1000)", 3),
    "a wait that nothing interrupts": ("import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()", 4),
}


@contextmanager
def running(code: str) -> Iterator[tuple[int, int]]:
    """A process that executes this, and the file that it answers into."""
    fd = os.memfd_create("answers")
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)  # as the supervisor's: what was read of it is taken out
    argv = [sys.executable, "-c", PROGRAM.format(fd=fd, code=code)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, pass_fds=[fd])
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process.pid, fd
        assert process.poll() is None, f"it was ended: {process.returncode}"
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE)
        os.close(fd)


@pytest.mark.cpython("it may answer later than is waited for")
@pytest.mark.parametrize("name", PLACES)
def test_a_process_says_which_line_it_executes(name: str) -> None:
    code, line = PLACES[name]
    with running(code) as (pid, fd):
        end, frames = time.monotonic() + DEADLINE, list[tuple[str, int]]()
        while frames[:1] != [("app.py", line)] and time.monotonic() < end:  # it may still be on its way there
            frames = ask(pid, fd, []).frames
        assert frames[:1] == [("app.py", line)]


@pytest.mark.cpython("an answer may come too late to be taken out")
def test_an_answer_is_taken_out_of_the_file() -> None:
    with running(PLACES["a sleep"][0]) as (pid, fd):
        end = time.monotonic() + DEADLINE
        while not ask(pid, fd, []).frames:  # it may still be on its way there
            assert time.monotonic() < end
        assert os.fstat(fd).st_size == 0


def test_a_process_that_is_gone_says_nothing() -> None:
    with running("import time; time.sleep(1000)") as (pid, fd):
        pass
    assert ask(pid, fd, []) == Standing()


def test_being_asked_does_not_end_a_process() -> None:
    """Amid Python's instructions, where frames are half made: by the hundred."""
    code = "def f(n): return [g for g in (x for x in range(n))]\nwhile True: f(3)"
    with running(code) as (pid, fd):
        answers = sum(bool(ask(pid, fd, []).frames) for _ in range(200))
        assert answers
