"""What is watched of a running server: beyond its folder, beyond what it reads, and in mid-save."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.live.process import DevServer, save
from tests.live.projects import PROJECTS, answer

pytestmark = pytest.mark.live

QUICK = ("--reload", "--reload-grace", "0.2")

HALF = """
open({gate!r}).read()  # waits until somebody has opened it for writing and closed it
assert not "half-written"
"""


def test_failure_of_a_half_written_save_is_no_news(tmp_path: Path) -> None:
    """What is executed fails while the file is being written over: nothing is told of it."""
    path = PROJECTS["asgi"].make(tmp_path)
    gate = tmp_path.parent / f"{tmp_path.name}-gate"
    os.mkfifo(gate)
    with DevServer("app:app", *QUICK, cwd=tmp_path) as server:
        server.serving()
        for number in range(3):
            save(path, HALF.format(gate=str(gate)))
            server.wait("restart")
            with open(path, "r+") as file:
                with open(gate, "w"):  # it is executed now, and fails when this is closed
                    file.write(answer(f"whole {number}").ljust(200))
                    file.flush()
                assert server.wait("change", "failed")["event"] == "change"
            server.serving()
            assert server.answered().text == f"whole {number}"
        assert not server.events("failed")


def test_failure_is_told_once_though_nothing_follows_its_half_written_file(tmp_path: Path) -> None:
    """What is written is left out: no change is noticed, and the failure is told all the same."""
    path = PROJECTS["asgi"].make(tmp_path)
    data = tmp_path / "data.log"
    path.write_text(
        "import subprocess, sys\n"
        "open('data.log').read()\n"
        "subprocess.run([sys.executable, '-c', \"open('data.log', 'a').write('more')\"])\n"
        "raise RuntimeError('as it is')\n"
    )
    data.write_text("begun")
    with DevServer("app:app", *QUICK, "--reload-exclude", "*.log", cwd=tmp_path) as server:
        assert server.failed()["error"] == "RuntimeError: as it is"


MANY = 500

INTERRUPTED = {
    "a finalizer": ("", "Cycle()", "gc.collect()"),
    "a signal": (
        "signal.signal(signal.SIGALRM, lambda *_: read()); signal.setitimer(signal.ITIMER_REAL, 1e-3, 7e-4)",
        "",
        "signal.setitimer(signal.ITIMER_REAL, 0); read()",
    ),
}

READS = """
import gc, itertools, signal

MORE, NUMBERS = itertools.count({many}), itertools.count()

def read(numbers=MORE):
    open(f"data/{{next(numbers) % {all}}}").read()

class Cycle:
    def __init__(self):
        self.me = self

    def __del__(self):
        read()

{begin}
for _ in range({many}):
    {each}
    read(NUMBERS)
{end}

def application(environ, start_response):
    for _ in range(3):
        Cycle()
        read(NUMBERS)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"one"]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no timers")
@pytest.mark.parametrize("by", INTERRUPTED)
def test_reading_may_interrupt_itself(by: str, tmp_path: Path) -> None:
    """Collections of garbage and signals come wherever an object is made: also while a read is noted."""
    (tmp_path / "data").mkdir()
    for number in range(2 * MANY):
        (tmp_path / "data" / str(number)).touch()
    begin, each, end = INTERRUPTED[by]
    (tmp_path / "app.py").write_text(
        READS.format(many=MANY, all=2 * MANY, begin=begin, each=each or "pass", end=end)
    )
    with DevServer("app:application", "--reload", cwd=tmp_path) as server:
        server.serving()
        for _ in range(60):
            assert server.get("/").text == "one"
        save(tmp_path / "data" / str(MANY), "what was read amid something else counts")
        server.restarted()


def test_target_elsewhere_is_a_project_with_all_its_data(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    (elsewhere / "text.txt").write_text("one")
    source = (
        PROJECTS["asgi"]
        .source.replace("answer.TEXT", "TEXT")
        .replace(
            "import answer",
            "import answer, pathlib\nTEXT = pathlib.Path(__file__).with_name('text.txt').read_text()",
        )
    )
    with DevServer(f"{elsewhere}/app.py:app", *QUICK, cwd=here) as server:
        assert "app.py" in server.failed()["error"]
        (elsewhere / "answer.py").write_text(answer(""))
        save(elsewhere / "app.py", source)
        server.serving()
        assert server.get("/").text == "one"
        save(elsewhere / "text.txt", "two")
        assert server.get("/").text == "two"
        assert server.restarted()["reason"].endswith("text.txt changed")


def test_included_file_that_is_touched_counts_for_nothing(tmp_path: Path) -> None:
    """And one in a new folder counts."""
    path = PROJECTS["asgi"].make(tmp_path)
    (tmp_path / "a.toml").write_text("text")
    with DevServer("app:app", *QUICK, "--reload-include", "*.toml", cwd=tmp_path) as server:
        server.serving()
        for number in range(3):
            os.utime(tmp_path / "a.toml")
            save(tmp_path / "a.toml", "text")
            assert server.get("/").status == 200
            save(path, answer(f"{number}"))
            assert server.restarted()["reason"] == "answer.py changed"
            assert server.get("/").text == f"{number}"
        (tmp_path / "conf" / "deep").mkdir(parents=True)
        (tmp_path / "conf" / "deep" / "b.toml").write_text("new")
        assert server.restarted()["reason"] == "conf/deep/b.toml changed"


@pytest.mark.parametrize("cached", [False, True], ids=["worked on", "in a cache"])
def test_a_package_that_is_installed_as_a_link(cached: bool, tmp_path: Path) -> None:
    """It counts by either name, but for a link into the cache of a package manager."""
    packages = tmp_path / "site" / "venv/lib/site-packages"
    packages.mkdir(parents=True)
    home = tmp_path / ("cache" if cached else "work")
    (home / "shop").mkdir(parents=True)
    if cached:
        (home / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    for name in ("shop", "single.py"):
        (packages / name).symlink_to(home / name)
    (home / "shop/__init__.py").write_text("")
    prices, single = home / "shop/prices.py", home / "single.py"
    prices.write_text("PRICE = 1\n")
    single.write_text("RATE = 1\n")
    ours = tmp_path / "site"
    (ours / "app.py").write_text(
        "import shop.prices, single\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'%d %d' % (shop.prices.PRICE, single.RATE)]\n"
    )
    with DevServer("app:app", "--reload", cwd=ours, env={"PYTHONPATH": str(packages)}) as server:
        server.serving()
        save(prices, "PRICE = 2\n")
        if cached:
            save(ours / "app.py", (ours / "app.py").read_text() + "\n")
            server.restarted()
            assert [event["files"] for event in server.events("change")] == [["app.py"]]
            return
        assert server.get().text == "2 1"
        server.restarted()
        save(packages / "shop/prices.py", "PRICE = 3\n")
        assert server.get().text == "3 1"
        server.restarted()
        save(packages / "single.py", "RATE = 2\n")
        assert server.get().text == "3 2"
