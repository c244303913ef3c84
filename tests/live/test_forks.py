"""An application that forks at import, or is about to: its processes are its own affair."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.live.process import EACH, DevServer, save

pytestmark = [
    pytest.mark.live,
    pytest.mark.interpreter,
    pytest.mark.cpython,
    pytest.mark.skipif(sys.platform != "linux", reason="there are no warm restarts"),
]

FORKS = """
import os
between, behind = os.pipe()
child = os.fork()
if not child:
    import slow
    os.write(behind, b"%d" % slow.VALUE)
    os._exit(0)
os.waitpid(child, 0)
SAID = os.read(between, 10).decode()
os.close(between)
os.close(behind)
"""

STARTS = """
import multiprocessing
import slow

def work(queue):
    queue.put("7")

context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
process = context.Process(target=work, args=(queue,))
import slower
process.start()
process.join()
SAID = queue.get()
queue.close()
"""

APP = """
import early

def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{early.SAID} {TEXT}".encode()]

TEXT = "one"
"""


@pytest.mark.parametrize("early", [FORKS, STARTS])
def test_processes_made_at_import(early: str, tmp_path: Path) -> None:
    """By `os.fork`, or made by one statement and started by a later one, with a checkpoint between."""
    (tmp_path / "early.py").write_text(early)
    for name in ("slow.py", "slower.py"):
        (tmp_path / name).write_text("VALUE = 7\n")
    (tmp_path / "app.py").write_text(APP)
    with DevServer("app:app", "--reload", cwd=tmp_path, env=EACH) as server:
        server.serving()
        assert server.get("/").text == "7 one"
        for text in ("two", "three"):
            save(tmp_path / "app.py", APP.replace("one", text))
            assert server.restarted()["kind"] == "warm"
            assert server.get("/").text == f"7 {text}"
        save(tmp_path / "early.py", f"{early}\nMORE = 1\n")
        server.restarted()
        assert server.get("/").text == "7 three"
        assert not server.events("failed")
