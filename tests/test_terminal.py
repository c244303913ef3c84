"""Lines that are typed into a terminal of which we are not the only readers."""

from __future__ import annotations

import ast
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.patience import DEADLINE

# A session with the terminal as its own; what it does comes after, and each of its lines is waited for.
PROGRAM = """
import os, select, signal, sys, termios
from devserver.process import Terminal
from devserver.process.reactor import Reactor

os.login_tty(int(sys.argv[1]))
report = int(sys.argv[2])

def say(what):
    os.write(report, f"{what}\\n".encode())

terminal, reactor, woken = Terminal(), Reactor(), []

def woke():
    woken.append(terminal.read_lines())
    say(woken[-1])

reactor.add(terminal.keys(), woke)
"""


class Typist:
    """Who sits at the terminal of a program."""

    def __init__(self, master: int, report: int) -> None:
        self._master = master
        self._report = report
        self._buffer = b""

    def types(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def reads(self) -> str:
        """The next line that the program reports."""
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._report], [], [], DEADLINE)
            assert ready, "the program says nothing"
            data = os.read(self._report, 4096)
            assert data, "the program has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


@contextmanager
def running(program: str) -> Iterator[Typist]:
    """A program after `PROGRAM`, which must end by itself and well."""
    master, slave = os.openpty()
    report, write = os.pipe()
    command = [sys.executable, "-c", PROGRAM + program, str(slave), str(write)]
    process = subprocess.Popen(command, pass_fds=(slave, write), stderr=subprocess.PIPE)
    os.close(slave)
    os.close(write)
    try:
        yield Typist(master, report)
        _, errors = process.communicate(timeout=DEADLINE)
        assert (process.returncode, errors) == (0, b"")
    finally:
        process.kill()
        process.communicate()
        os.close(master)
        os.close(report)


def test_lines_are_read() -> None:
    with running("say('ready')\nwhile woken[-1:] != [None]: reactor.wait(None)") as typist:
        assert typist.reads() == "ready"
        typist.types("r\n")
        assert typist.reads() == "['r']"
        typist.types("one\n two \n\n")
        got: list[str] = []
        while len(got) < 3:  # as they came, at once or one by one
            got += ast.literal_eval(typist.reads())
        assert got == ["one", "two", ""]
        typist.types("\x04")
        assert typist.reads() == "None"


@pytest.mark.parametrize(
    "change",
    [
        "flags[3] &= ~termios.ICANON",
        "flags[3] &= ~termios.ECHO",
        "os.tcsetpgrp(0, other)",
    ],
    ids=["a line editor", "a password", "in the background"],
)
def test_what_is_not_for_us_is_left_and_wakes_us_once(change: str) -> None:
    program = f"""
import time
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
gate, open_gate = os.pipe()
other = os.fork()
if other == 0:
    os.close(open_gate)
    os.setpgid(0, 0)
    os.read(gate, 1)
    os._exit(0)
os.close(gate)
try:
    os.setpgid(other, other)
except OSError:
    pass  # it has done so itself
before, flags = termios.tcgetattr(0), termios.tcgetattr(0)
{change}
termios.tcsetattr(0, termios.TCSANOW, flags)
say("ready")
reactor.wait(None)
reactor.wait(time.monotonic() + 0.2)
say(len(woken))
os.tcsetpgrp(0, os.getpgrp())
say(os.read(0, 100))
termios.tcsetattr(0, termios.TCSANOW, before)
say("ready")
reactor.wait(None)
os.close(open_gate)
os.waitpid(other, 0)
"""
    with running(program) as typist:
        assert typist.reads() == "ready"
        typist.types("q\n")
        assert typist.reads() == "[]"
        assert typist.reads() == "1"
        assert typist.reads() == r"b'q\n'"
        assert typist.reads() == "ready"
        typist.types("r\n")
        assert typist.reads() == "['r']"


def test_who_waits_in_a_read_goes_first() -> None:
    """Also when it takes all, so that there is nothing left: then we must not wait for more."""
    program = """
import threading, time
reader = threading.Thread(target=lambda: say(os.read(0, 100)))
reader.start()
say("ready")
while reader.is_alive():
    reactor.wait(time.monotonic() + 0.05)
say("end")
"""
    with running(program) as typist:
        assert typist.reads() == "ready"
        typist.types("q\n")
        said: list[str] = []
        while said[-1:] != ["end"]:
            said.append(typist.reads())
        assert set(said) - {"[]"} == {r"b'q\n'", "end"}  # woken or not, we had nothing of it


def test_no_keys_of_a_terminal_that_is_not_ours() -> None:
    """Its descriptor alone gives no right to what is typed there."""
    master, slave = os.openpty()
    program = "from devserver.process import Terminal; print(Terminal().keys())"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdin=slave,
            stdout=subprocess.PIPE,
            timeout=DEADLINE,
            start_new_session=True,
            check=True,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert done.stdout == b"None\n"
