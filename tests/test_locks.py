"""Which locks forbid a fork while they are held.

Each program runs in an interpreter of its own: hooks cannot be taken back.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forked import Forked

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.cpython,
    pytest.mark.skipif(sys.platform != "linux", reason="there are no checkpoints"),
]

PRELUDE = """
import logging, os, threading, weakref
from collections.abc import Mapping
from functools import partial
from devserver.loading.locks import Locks
"""

PROGRAM = """
locks = Locks()
locks.start()
lock = threading.{kind}()
{register}
assert not locks.held()
with lock:
    print(locks.held())
assert not locks.held()
locks.stop()
assert os.register_at_fork.__module__ == "posix"
"""

HOOKS = {
    "a method of the lock": "os.register_at_fork(after_in_child=lock._at_fork_reinit)",
    "a partial": "os.register_at_fork(after_in_child=partial(lambda each: each._at_fork_reinit(), lock))",
    "a global": """
def renew():
    global lock
    lock = threading.RLock()
os.register_at_fork(after_in_child=renew)
""",
    "a closure": """
def wire(mine):
    os.register_at_fork(after_in_child=lambda: mine._at_fork_reinit())
wire(lock)
""",
    "an attribute of a module": """
import types
state = types.ModuleType("state")
state.lock = lock
os.register_at_fork(after_in_child=lambda: state.lock._at_fork_reinit())
""",
    "a default by name": """
def renew(*, lock=lock): lock._at_fork_reinit()
os.register_at_fork(after_in_child=renew)
""",
    "an object of a weak set": """
class Pool:
    def __init__(self): self.lock = lock
pools, pool = weakref.WeakSet(), Pool()
pools.add(pool)
os.register_at_fork(after_in_child=lambda: [each.lock._at_fork_reinit() for each in pools])
""",
    "a method of a class": """
class Pool:
    mine = lock
    @classmethod
    def renew(cls): cls.mine = threading.Lock()
os.register_at_fork(after_in_child=Pool.renew)
""",
    "a bound method": """
class Pool:
    def __init__(self): self.lock = lock
    def renew(self): self.lock = threading.Lock()
pool = Pool()
os.register_at_fork(after_in_child=pool.renew)
""",
}


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Forked]:
    with Forked(PRELUDE, dict(os.environ)) as forked:
        yield forked


def held(register: str, kind: str, interpreter: Forked) -> bool:
    """What is said while a lock is held."""
    program = PROGRAM.format(register=textwrap.dedent(register), kind=kind)
    done = interpreter.run(program, Path.cwd())
    assert not done.returncode, done.stderr
    return done.stdout == "True\n"


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Condition"])
@pytest.mark.parametrize("name", HOOKS)
def test_a_lock_that_a_hook_can_reach_counts_while_it_is_held(
    name: str, kind: str, interpreter: Forked
) -> None:
    assert held(HOOKS[name], kind, interpreter)


def test_a_lock_that_no_hook_can_reach_does_not_count(interpreter: Forked) -> None:
    assert not held("os.register_at_fork(after_in_child=lambda: None)", "Lock", interpreter)


@pytest.mark.parametrize(
    "lock", ["logging._lock", "logging.getLogger().handlers[0].lock"], ids=["the module's", "a handler's"]
)
def test_locks_of_logging_count(lock: str, interpreter: Forked) -> None:
    assert held(f"logging.basicConfig()\nlock = {lock}", "Lock", interpreter)


UNTOUCHED = """
def refuse(*args):
    raise NotImplementedError("nobody may run this")

class Container(Mapping):
    __getitem__ = __iter__ = __len__ = refuse

class Lazy:  # as proxies of Django and Werkzeug are, which find out what they stand for when touched
    __class__ = property(refuse)
    __dict__ = property(refuse)
    __getattr__ = __iter__ = __eq__ = __hash__ = __bool__ = refuse

class Items(dict):
    values = items = keys = __iter__ = refuse

locks = Locks()
locks.start()
things = [Container(), Lazy(), Items(), threading.Lock()]
def renew():
    things
    never
os.register_at_fork(after_in_child=renew)
def wire():
    if not things:
        empty = 1
    os.register_at_fork(after_in_child=lambda: empty)
wire()
assert not locks.held()
with things[-1]:
    print(locks.held())
"""


def test_no_code_of_the_application_runs_while_it_is_looked_at(interpreter: Forked) -> None:
    done = interpreter.run(UNTOUCHED, Path.cwd())
    assert (done.stdout.strip(), done.stderr) == ("True", "")
