"""What `devserver.cpython` does in place of the standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import devserver
from tests.patience import DEADLINE

pytestmark = pytest.mark.interpreter

SOURCE = Path(devserver.__file__).parents[1]

PROGRAM = """
import importlib, os, sys
{before}
sys.path[:0] = [{source!r}, {folder!r}, "."]
from devserver.cpython import invalidate_caches
loaded = "importlib.metadata" in sys.modules

class Own:
    asked = 0
    def find_spec(self, *names): return None
    def invalidate_caches(self): Own.asked += 1
sys.meta_path.insert(0, Own())

def add(name):
    "Into a folder of which nothing tells that it has changed."
    open(os.path.join({folder!r}, name + ".py"), "w").close()
    os.utime({folder!r}, (1e9, 1e9))

add("one")
import one
add("two")
try:
    import two
    sys.exit("the trap is not there: this test proves nothing")
except ImportError:
    pass
assert "." in sys.path_importer_cache
invalidate_caches()
import two
assert Own.asked == 1
assert ("importlib.metadata" in sys.modules) is loaded
assert not [folder for folder in sys.path_importer_cache if folder == "."]
"""


@pytest.mark.parametrize("before", ["", "import importlib.metadata"])
def test_new_modules_are_found_and_nothing_is_imported_for_it(before: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "modules").mkdir()
    program = PROGRAM.format(before=before, source=str(SOURCE), folder=str(tmp_path / "modules"))
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=tmp_path / "here", capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
