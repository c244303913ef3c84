"""What happens at the very end of a process, and what must not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.patience import DEADLINE

pytestmark = pytest.mark.interpreter

HANGS = """
import atexit, os, threading
from devserver.process.ending import run_exit_handlers

hangs = threading.Event()
atexit.register(lambda: (hangs.set(), threading.Event().wait()))
atexit.register(print, "bye", flush=True)
threading.Thread(target=run_exit_handlers, daemon=True).start()
assert hangs.wait(600)
run_exit_handlers()
os._exit(0)
"""

COLLECTS_BY_HAND = """
import gc, os
import devserver

async def app(scope, receive, send):
    print(gc.isenabled(), gc.get_freeze_count() - FROZEN, flush=True)
    os._exit(0)

gc.disable()
FROZEN = gc.get_freeze_count()  # CPython 3.12 begins with some
devserver.run(app, port=0)
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    return done.stdout


def test_exit_handlers_run_once_although_one_of_them_hangs() -> None:
    assert run(HANGS) == "bye\n"


@pytest.mark.cpython("nothing can be kept from collections")
def test_a_script_that_collects_by_hand_goes_on_so() -> None:
    assert run(COLLECTS_BY_HAND) == "False 0\n"
