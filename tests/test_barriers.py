"""What stands in the way of a fork, and whether what does not is sound in each copy.

The rows are those of `tests.barrier_kinds`. Each is executed in a copy of one interpreter, which copies
itself as a process that loads does: directly before a barrier, directly behind what is none.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import devserver
from tests.barrier_kinds import KINDS, elsewhere
from tests.forked import Forked

pytestmark = [
    pytest.mark.cpython,
    pytest.mark.unmeasured,  # coverage is a tracer
    pytest.mark.skipif(sys.platform != "linux", reason="there are no warm restarts"),
]

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(devserver.__file__)))

PRELUDE = f"sys.path.append({SOURCE!r}); from devserver.loading.barriers import Barriers"

PROGRAM = """
import json, os, sys
from devserver.loading.barriers import Barriers
from devserver.process.forks import fork

def seen():
    "What stands in the way, and whether one of the next ticks notices."
    return any(barriers.stirred() for _ in range(100)), barriers.look()

def copies():
    "Makes two copies, one after the other, and goes on in these."
    for _ in range(2):
        pid = fork()
        if not pid:
            return True
        assert os.waitpid(pid, 0)[1] == 0
    return False

barriers = Barriers([0, 1, 2])
barriers.start()
{before}
at_first = seen()[1]
if {is_barrier}:
    goes_on = copies()
{statement}
stirred, reason = seen()
if not {is_barrier}:
    goes_on = copies()
if goes_on:
    said = [at_first, stirred, reason, bool({sound})]
    os.write(1, json.dumps(said).encode() + bytes([10]))
"""


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Forked]:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))
    }
    with (
        elsewhere() as place,
        Forked(
            PRELUDE, {**environ, "ELSEWHERE": place, "PYTHONWARNINGS": "always::DeprecationWarning"}
        ) as forked,
    ):
        yield forked


@pytest.mark.parametrize(
    "name",  # libraries are the same under each Python
    [pytest.param(name, marks=[] if kind.needs else pytest.mark.interpreter) for name, kind in KINDS.items()],
)
def test_what_a_fork_would_spoil_is_seen_and_what_it_would_not_is_sound_in_each_copy(
    name: str, tmp_path: Path, interpreter: Forked
) -> None:
    kind = KINDS[name]
    if not kind.is_here():
        pytest.skip(f"{kind.needs} is not installed")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "lines.txt").write_text("1\n2\n3\n")
    program = PROGRAM.format(
        before=kind.before, statement=kind.statement, sound=kind.sound, is_barrier=bool(kind.reason)
    )
    done = interpreter.run(program, folder)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr
    said: list[Any] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == 2
    for at_first, stirred, reason, sound in said:
        assert not at_first
        assert sound
        assert reason.startswith(kind.reason) if kind.reason else not reason
        assert stirred or not kind.reason
