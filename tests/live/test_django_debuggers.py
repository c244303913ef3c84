"""`manage.py runserver` under debuggers: a breakpoint in a view is hit in every generation."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.dap import Dap, Editor, Pydevd
from tests.live.launched import SHORT_GRACE, Launched
from tests.live.polls import make, replace
from tests.live.process import DevServer, gone
from tests.patience import DEADLINE

pytest.importorskip("debugpy")
PYDEVD = Path(sysconfig.get_path("platlib"), "pydevd.py")

pytestmark = pytest.mark.live


def breakpoints(folder: Path) -> dict[Path, list[int]]:
    view = folder / "polls/views.py"
    lines = view.read_text().splitlines()
    return {view: [lines.index("    return HttpResponse(WORD)") + 1]}


@contextmanager
def vs_code(folder: Path) -> Iterator[tuple[DevServer, Editor]]:
    """Its own template for Django: "Python Debugger: Django"."""
    configuration = {
        "name": "Django",
        "type": "debugpy",
        "request": "launch",
        "program": str(folder / "manage.py"),
        "args": ["runserver"],
        "django": True,
        "console": "integratedTerminal",
    }
    editor = Dap(breakpoints(folder))
    with Launched(folder, editor, configuration, SHORT_GRACE) as server:
        yield server, editor


@contextmanager
def pycharm(folder: Path) -> Iterator[tuple[DevServer, Editor]]:
    """Its run configuration for Django."""
    editor = Pydevd(breakpoints(folder))
    command = [
        *(sys.executable, str(PYDEVD), "--multiprocess", "--qt-support=auto"),
        *("--client", "127.0.0.1", "--port", str(editor.port)),
        *("--file", str(folder / "manage.py"), "runserver", "0"),
    ]
    with DevServer(cwd=folder, command=command, env=SHORT_GRACE) as server:
        try:
            yield server, editor
        finally:
            editor.close()


@pytest.mark.parametrize("way", [vs_code, pycharm])
def test_a_breakpoint_is_hit_in_every_generation(tmp_path: Path, way: object) -> None:
    assert callable(way)
    make(tmp_path / "site")
    folder = tmp_path / "site"
    with way(folder) as (server, editor), ThreadPoolExecutor() as pool:
        server.serving()
        for word in ("one", "two"):
            answer = pool.submit(server.get, "/polls/word/")
            stop = editor.stopped()
            assert Path(stop.path) == folder / "polls/views.py"
            stop.resume()
            assert answer.result(DEADLINE).text == word
            if word == "one":
                replace(folder / "polls/views.py", '"one"', '"two"')
                server.restarted()
        # What was started may be a launcher: the supervisor is who listens.
        below = server.processes()
        os.kill(server.seen[0]["pid"], signal.SIGINT)
        server.ended()
        for pid in below:
            gone(pid)
