"""All of a project is loaded, in Django's order and in the main thread, before it is served.

What is loaded so lies on the timeline, and a warm restart goes on from behind it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.polls import make, make_stock, runserver
from tests.live.process import MARKED, DevServer

pytestmark = [pytest.mark.live, pytest.mark.django]

SETTINGS = "mysite/settings.py"
ORDER = [
    SETTINGS, "polls/apps.py", "polls/models.py", "polls/admin.py", "mysite/urls.py", "polls/urls.py",
    "polls/views.py",
]  # fmt: skip

SAYS = """
import threading
print("\\nLOADED", {name!r}, threading.active_count(), flush=True)
"""


def say(folder: Path) -> None:
    """Have each of these modules say that it is executed, and beside how many threads."""
    for name in ORDER:
        path = folder / name
        path.write_text(SAYS.format(name=name) + path.read_text())


def loaded(server: DevServer) -> list[tuple[str, int]]:
    """What has been executed, and the number of threads at that moment."""
    lines = [line.split() for line in server.log.splitlines() if line.startswith("LOADED ")]
    return [(name, int(threads)) for _, name, threads in lines]


@pytest.mark.parametrize("how", ["manage.py runserver", "devserver"])
def test_order(how: str, tmp_path: Path) -> None:
    ours = how == "manage.py runserver"
    make(tmp_path) if ours else make_stock(tmp_path)
    say(tmp_path)
    with runserver(tmp_path) if ours else DevServer("--reload", cwd=tmp_path) as server:
        server.serving()
        done = loaded(server)
        while done[1][0] == SETTINGS:  # by these the first process learns that it is wanted
            del done[0]
        assert done == [(name, 1) for name in ORDER]


@pytest.mark.cpython
def test_an_edit_executes_only_what_comes_after_it(tmp_path: Path) -> None:
    make(tmp_path)
    say(tmp_path)
    with runserver(tmp_path, "--checkpoints=50", "--checkpoint-memory=10", env=MARKED) as server:
        server.serving()
        before = len(loaded(server))
        for number in range(1, len(ORDER)):
            path = tmp_path / ORDER[number]
            for word in ("once", "twice"):  # the first leaves a checkpoint before it
                path.write_text(f"{path.read_text()}\nEDITED = {word!r}\n")
                assert server.restarted()["kind"] == "warm"
                done = [name for name, _ in loaded(server)[before:]]
                before += len(done)
            # From directly before the edit, or from the one before it.
            assert done == ORDER[len(ORDER) - len(done) :]
            assert len(done) <= len(ORDER[number:]) + 1
