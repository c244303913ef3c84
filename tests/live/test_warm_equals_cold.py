"""After each restart the application is in the state in which a fresh process would be (P1).

Random projects under random edits; a warm restart's state is held against that of a process that has
loaded the same files by plain imports. What a seed does can be repeated by its number.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.live.generated_projects import Project, break_something, write
from tests.live.process import ALL, EACH, DevServer, tell
from tests.once import once

pytestmark = [
    pytest.mark.live,
    pytest.mark.cpython,
    pytest.mark.skipif(sys.platform != "linux", reason="there are no warm restarts"),
]

COLD = Path(__file__).with_name("cold_start.py")
ENVIRON = {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "", "PYTHONDONTWRITEBYTECODE": ""}


def environ() -> dict[str, str]:
    """Bytecode is not beside the sources: a listing does not count when only `__pycache__` is new.

    It is in one place for all workers, or each would compile the standard library.
    """
    return {**ENVIRON, "PYTHONPYCACHEPREFIX": str(once("bytecode", lambda folder: None))}


class Cold:
    """Asks `cold_start` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Cold:
        self._process = subprocess.Popen(
            [sys.executable, COLD], cwd=self._folder, env={**os.environ, **environ()},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def state(self) -> Any:
        """The state of a fresh process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Comparison:
    """One project, served, and what was found."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.project = Project(seed)
        self.rng = random.Random(seed + 1)
        self.folder = folder
        self.done: list[str] = []
        self.kept = self.executed = self.failures = self.within = 0
        self.fails = False
        self._failure: dict[str, Any] = {}
        self._written: dict[str, bytes] = {}

    def write(self) -> None:
        """Bring the folder up to date."""
        files = self.project.files()
        write(self.folder, self._written, files, self.rng)
        self._written = files

    def run(self, edits: int) -> None:
        """Edit so many times and compare each time."""
        self.write()
        with (
            DevServer("main:app", "--reload", cwd=self.folder, env=environ()) as server,
            Cold(self.folder) as cold,
        ):
            server.listening()
            self.compare(server, cold)
            good = self.project.snapshot()
            for _ in range(edits):
                failed = self.compare_after(server, cold, good)
                if not failed:
                    good = self.project.snapshot()

    def compare_after(self, server: DevServer, cold: Cold, good: Any) -> bool:
        """Make an edit, or several on each other's heels. Whether it then fails."""
        what = []
        for _ in range(self.rng.choice((1, 1, 1, 1, 2, 3))):
            if self.rng.random() < 0.07:
                what.append(break_something(self.project))
            elif self.fails and self.rng.random() < 0.8:
                what.append("mend")
                self.project.restore(good)
            else:
                what.append(self.project.edit())
            self.write()
            if self.rng.random() < 0.5:
                server.idle(self.rng.random() * 0.1)
        self.done.append(" / ".join(what))
        return self.compare(server, cold)

    def compare(self, server: DevServer, cold: Cold) -> bool:
        """Hold the states against each other. Whether it fails."""
        before, answer = len(server.log), server.get("/")
        if "GET / failed" in server.log[before:]:  # what was cut is the function that answers
            self.fails = True
            server.forget()
            return True
        if answer.status == 200:
            said = json.loads(answer.text)
            warm = said["state"]
            self.executed += len(said["pids"])
            self.kept += sum(pid != said["pid"] for pid in said["pids"])
        else:
            self._failure = (server.events("failed") or [self._failure])[-1]
            warm = {"failed": [self._failure["error"], self._failure["traceback"]]}
            assert answer.status == 500, answer.text
        self.within += sum(event.get("line") is not None for event in server.events("restart"))
        server.forget()
        found = list(differences(cold.state(), warm))
        told = "\n  ".join(self.done[-5:])
        assert not found, f"after {len(self.done)} edits, the last of which were\n  {told}\n" + "\n".join(
            found
        )
        self.failures += "failed" in warm
        self.fails = "failed" in warm
        return self.fails


def differences(cold: Any, warm: Any, place: str = "") -> Iterator[str]:
    """Where two states differ, each with its place and both values."""
    if isinstance(cold, dict) and isinstance(warm, dict):
        if list(cold) != list(warm):
            only = [[key for key in one if key not in other] for one, other in ((cold, warm), (warm, cold))]
            yield f"{place}: only cold {only[0]}, only warm {only[1]}, or in another order"
        for key in cold:
            if key in warm:
                yield from differences(cold[key], warm[key], f"{place}.{key}")
    elif isinstance(cold, list) and isinstance(warm, list) and len(cold) == len(warm):
        for number, (one, other) in enumerate(zip(cold, warm, strict=True)):
            yield from differences(one, other, f"{place}[{number}]")
    elif cold != warm:
        yield f"{place}: cold {cold!r}, warm {warm!r}"[:2000]


def compare(seeds: Iterable[int], edits: int, folder: Path) -> None:
    """So many edits of each seed's project."""
    done = kept = executed = within = failures = 0
    for seed in seeds:
        (folder / str(seed)).mkdir()
        comparison = Comparison(seed, folder / str(seed))
        try:
            comparison.run(edits)
        except AssertionError as error:
            raise AssertionError(f"seed {seed} {error}") from None
        done += len(comparison.done)
        kept, executed = kept + comparison.kept, executed + comparison.executed
        within, failures = within + comparison.within, failures + comparison.failures
    tell(
        f"{done} edits without a difference: {within} restarts began within a module, {failures} failed "
        f"as they should; {kept} of {executed} noted statements were not executed again"
    )
    assert 0 < kept < executed
    assert within


@pytest.mark.interpreter
def test_state_after_a_warm_restart_is_that_of_a_fresh_process(tmp_path: Path) -> None:
    compare(range(1, 4), 6, tmp_path)


# Differences that were found, each by its cause

APP = """
def state():
    return repr(log.SAID)


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": state().encode()})
"""


Edit = dict[str, str] | Callable[[], object]
"""Files to be written, or what is to be called."""


def same_after(folder: Path, files: dict[str, str], *edits: Edit) -> list[list[str]]:
    """Serve files that say things to `log`, edit them, and compare each time. Returns what was changed."""
    write_all(folder, {"log.py": "SAID = []\nsay = SAID.append\n", **files})
    restarts = []
    with (
        DevServer("main:app", "--reload", *ALL, cwd=folder, env={**environ(), **EACH}) as server,
        Cold(folder) as cold,
    ):
        server.listening()
        assert server.get("/").text == cold.state()
        for edit in edits:
            server.forget()
            if callable(edit):
                edit()
            else:
                write_all(folder, edit)
            assert server.get("/").text == cold.state(), server.log
            restarts.append([event["kind"] for event in server.events("restart")])
    return restarts


def write_all(folder: Path, files: dict[str, str]) -> None:
    """Save files."""
    for name, text in files.items():
        (folder / name).write_text(text.lstrip("\n"))


EXECUTED_AGAIN = (
    "importlib.reload(one0)",
    "del sys.modules['one1']; import one1 as other",
    "runpy.run_module('one2')",
    "spec = find_spec('one3'); spec.loader.exec_module(module_from_spec(spec))",
)


# A checkpoint costs the more, the more there are before it: so each project is small.
@pytest.mark.interpreter
@pytest.mark.parametrize("first", [0, 2])
def test_module_that_is_executed_again_does_not_go_on_within(first: int, tmp_path: Path) -> None:
    """The first time it has done already what was edited."""
    ones = {
        f"one{number}.py": f"import log\nlog.say('one')\nlog.say('old {number}')\n"
        for number in range(first, first + 2)
    }
    main = "\n".join(
        [
            f"import importlib, log, runpy, sys, one{first}, one{first + 1}",
            "from importlib.util import find_spec, module_from_spec",
            *EXECUTED_AGAIN[first : first + 2],
            f"log.say('main')\n{APP}",
        ]
    )
    edits = [{name: text.replace("old", "new")} for name, text in ones.items()]
    last = f"one{first + 1}.py"
    same_after(tmp_path, {"main.py": main, **ones}, *edits, {last: ones[last]})


def test_module_within_which_it_was_gone_on_is_known_to_earlier_checkpoints(tmp_path: Path) -> None:
    """It went on within the second execution; the first was before a checkpoint all the same."""
    one = "import log\nlog.say('one')\nlog.say('old')\n"
    two = "import importlib, log, one\nlog.say('two')\nimportlib.reload(one)\nlog.say('end')\n"
    files = {"main.py": f"import one, two, log\n{APP}", "one.py": one, "two.py": two}
    same_after(
        tmp_path, files, {"two.py": two.replace("end", "END")}, {"main.py": files["main.py"] + "1\n"},
        {"two.py": two}, {"one.py": one.replace("old", "new")}, {"one.py": one},
    )  # fmt: skip


LOOKS = (
    "open(__file__).read()",
    "tokenize.open(__file__).read()",
    "linecache.getlines(__file__)",
    "inspect.getsource(sys.modules[__name__])",
    "__loader__.get_source(__name__)",
    "__loader__.get_data(__file__)",
    "pkgutil.get_data(__name__, os.path.basename(__file__))",
    "os.path.getsize(__file__)",
)


@pytest.mark.interpreter
@pytest.mark.parametrize("first", [0, 4])
def test_module_that_has_looked_at_its_own_text_does_not_go_on_within(first: int, tmp_path: Path) -> None:
    """It has seen what stands behind, too."""
    modules = {
        f"look{number}": f"""
import inspect, linecache, log, os, pkgutil, sys, tokenize
log.say({look})
log.say('a')
"""
        for number, look in enumerate(LOOKS[first : first + 4])
    }
    main = f"import log, {', '.join(modules)}\n{APP}"
    edits = [{f"{name}.py": text.replace("'a'", "'ab'")} for name, text in modules.items()]
    same_after(tmp_path, {"main.py": main, **{f"{name}.py": text for name, text in modules.items()}}, *edits)


@pytest.mark.interpreter
def test_archive_that_comes_and_goes_counts(tmp_path: Path) -> None:
    main = f"""
import log, sys
sys.path.append('lib.zip')
try:
    import one
except ImportError as error:
    log.say(str(error))
else:
    log.say(one.VALUE)
log.say('a')
{APP}"""

    def pack(value: int) -> None:
        with zipfile.ZipFile(tmp_path / "lib.zip", "w") as file:
            file.writestr("one.py", f"VALUE = {value}\n")

    archive = tmp_path / "lib.zip"
    same_after(tmp_path, {"main.py": main}, lambda: pack(1), lambda: pack(2), archive.unlink, lambda: pack(3))


def test_links_that_lead_elsewhere_count(tmp_path: Path) -> None:
    main = f"""
import log, os
log.say([os.path.islink('link'), os.path.basename(os.path.realpath('link'))])
try:
    log.say(os.readlink('link'))
except OSError:
    log.say('no link')
log.say('a')
{APP}"""
    link = tmp_path / "link"
    for name in ("one", "two"):
        (tmp_path / name).write_text("the same")
    link.symlink_to("one")

    def retarget(name: str) -> None:
        (tmp_path / "new").symlink_to(name)
        (tmp_path / "new").rename(link)

    same_after(tmp_path, {"main.py": main}, lambda: retarget("two"), lambda: link.unlink())


def test_data_that_was_made_sure_of_before_it_was_read_is_read_again(tmp_path: Path) -> None:
    """The application keeps it as its own; what it has written since is what a fresh process reads."""
    main = f"""
import log
open('todo', 'a').close()
log.say(open('todo').read())
log.say('end')
{APP}"""

    def keep() -> None:
        (tmp_path / "todo").write_text("milk")
        (tmp_path / "main.py").write_text(main.replace("end", "kept").lstrip())

    edits = ({"main.py": main.replace("end", text)} for text in ("one", "two", "three"))
    restarts = same_after(tmp_path, {"main.py": main}, *edits, keep)
    assert {kind for kinds in restarts for kind in kinds} == {"warm"}


def test_names_that_do_not_count_are_listed_again(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        "[tool.devserver]\nreload_exclude = ['uploads/*', '*_local.py']\n"
    )
    main = f"""
import log, os
log.say(sorted(os.listdir('uploads')))
try:
    import conf_local
except ImportError:
    log.say('none')
else:
    log.say(conf_local.VALUE)
log.say('a')
{APP}"""

    def put(name: str, text: str, word: str) -> None:
        (tmp_path / name).write_text(text)
        (tmp_path / "main.py").write_text(main.replace("'a'", word).lstrip())

    same_after(
        tmp_path,
        {"main.py": main},
        lambda: put("uploads/one.png", "", "'b'"),
        lambda: put("conf_local.py", "VALUE = 1", "'c'"),
        lambda: put("uploads/two.png", "", "'d'"),
    )


def test_module_that_is_loaded_from_a_path_comes_later(tmp_path: Path) -> None:
    main = f"""
import log
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location('local', 'local.py')
module = module_from_spec(spec)
try:
    spec.loader.exec_module(module)
except FileNotFoundError:
    log.say('none')
else:
    log.say(module.VALUE)
log.say('a')
{APP}"""
    restarts = same_after(tmp_path, {"main.py": main}, {"local.py": "VALUE = 1"}, {"local.py": "VALUE = 2"})
    assert [len(each) for each in restarts] == [1, 1]


@pytest.mark.interpreter
def test_collections_find_what_was_made_before_a_checkpoint(tmp_path: Path) -> None:
    """It is frozen when a process is forked."""
    main = f"""
import gc, log, weakref
class Base: pass
class Made(Base): pass
made, one = weakref.ref(Made), Base()
del Made

log.say(sum(type(each) is Base for each in gc.get_objects()))

log.say([each["one"] is one for each in gc.get_referrers(one) if "one" in each])
gc.collect()
log.say([made(), Base.__subclasses__(), repr(gc.collect)])
log.say('old')
{APP}"""
    same_after(tmp_path, {"main.py": main}, {"main.py": main.replace("old", "new")}, {"main.py": main})


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_state_after_thousands_of_warm_restarts(tmp_path: Path) -> None:
    compare(range(1000, 1250), 20, tmp_path)
