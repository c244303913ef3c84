"""What is made once for all workers of a run: copies of it are cheap, and making it is not."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

VARIABLE = "TESTS_MADE_ONCE"
"""Names the folder for it, for the workers as well."""


def begin() -> None:
    """Before there are workers."""
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="tests-made-once-")


def end() -> None:
    """When they are gone."""
    shutil.rmtree(os.environ.pop(VARIABLE))


def once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder in which something has been made, by whoever needed it first. It must not be changed."""
    import fcntl  # there is none on Windows

    folder = Path(os.environ[VARIABLE], name)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = folder.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)  # of one who did not come to the end
            making.mkdir()
            make(making)
            making.rename(folder)
    return folder
