"""What is recorded while an application loads, and that the application does not notice.

Each program runs in an interpreter of its own, since recording replaces parts of the standard library: in a
copy of one that has imported what all of them import (`tests.forked`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

import devserver
from devserver.loading.bytecode import cached, keep, read_source
from devserver.loading.recorder import Recorder
from devserver.watching.answers import OWN, digest_of
from tests.forked import Forked
from tests.patience import DEADLINE

pytestmark = pytest.mark.interpreter

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(devserver.__file__)))

PLAIN = "import json, os, sys"
RECORDED = (
    "import json, os, sys; sys.path.insert(0, {source!r}); from devserver.watching import answers; "
    "from devserver.loading import recorder as loader; from devserver.loading.recorder import Recorder; "
    "sys.path.remove({source!r})"
)
"""What is imported before a program: one line, so that lines have the same numbers behind both."""

PROGRAM = """
root = {root!r}
sys.path[:0] = {path!r}
sys.dont_write_bytecode = {dont_write!r}
entries = []
if {recorded!r}:
    recorder = Recorder(lambda entry: entries.append(entry.to_json()), [root])
    recorder.start()
    serving = recorder.loaded
else:
    serving = lambda: None
result = None
{code}
sys.stdout.write(json.dumps([result, entries], default=repr))
"""


class Interpreters:
    """The interpreters of which there are copies: each is started when it is needed first."""

    def __init__(self) -> None:
        self._forked: dict[tuple[bool, str], Forked] = {}
        self._stack = ExitStack()

    def run(self, program: str, recorded: bool, cwd: Path) -> subprocess.CompletedProcess[str]:
        if not hasattr(os, "fork"):
            return self.start(program, recorded, cwd)
        measured = "COVERAGE_PROCESS_CONFIG"
        key = recorded, os.environ.get(measured, "")
        if key not in self._forked:
            forked = Forked(prelude(recorded), environ())
            self._forked[key] = self._stack.enter_context(forked)
        return self._forked[key].run(program, cwd)

    def start(self, program: str, recorded: bool, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run it in an interpreter that is started for it."""
        command = [sys.executable, "-c", prelude(recorded) + program]
        return subprocess.run(
            command, cwd=cwd, env=environ(), capture_output=True, text=True, timeout=DEADLINE, check=False
        )

    def close(self) -> None:
        self._stack.close()


def prelude(recorded: bool) -> str:
    return RECORDED.format(source=SOURCE) if recorded else PLAIN


def environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@pytest.fixture(scope="module")
def interpreters() -> Iterator[Interpreters]:
    with closing(Interpreters()) as made:
        yield made


class Project:
    """A folder with files, and the programs that run in it."""

    def __init__(self, root: Path, interpreters: Interpreters) -> None:
        self.root = root
        self.interpreters = interpreters
        self.path: list[str] = [str(root)]
        self.dont_write = False

    def write(self, name: str, text: str = "") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def program(self, code: str, recorded: bool) -> str:
        return PROGRAM.format(
            root=str(self.root),
            recorded=recorded,
            path=self.path,
            code=textwrap.dedent(code),
            dont_write=self.dont_write,
        )

    def run(self, code: str, recorded: bool = True) -> tuple[Any, list[list[Any]]]:
        """What the program left in `result`, and the entries."""
        done = self.interpreters.run(self.program(code, recorded), recorded, self.root)
        assert done.returncode == 0, done.stderr
        result, entries = json.loads(done.stdout)
        return result, entries

    def stderr(self, code: str, recorded: bool) -> list[str]:
        """What an interpreter prints that runs nothing but the program."""
        done = self.interpreters.start(self.program(code, recorded), recorded, self.root)
        return done.stderr.splitlines()

    def entries(self, code: str) -> set[tuple[str, str]]:
        """What was recorded, as kinds and names below the project."""
        return {(kind, os.path.relpath(path, self.root)) for kind, path, *_ in self.run(code)[1]}

    def own(self, code: str) -> set[str]:
        return {
            os.path.relpath(path, self.root) for _, path, answer, *_ in self.run(code)[1] if answer == OWN
        }


@pytest.fixture
def project(tmp_path: Path, interpreters: Interpreters) -> Project:
    root = tmp_path / "my project"
    root.mkdir()
    return Project(root, interpreters)


# invisible: the same program with and without


INVISIBLE = {
    "modules are what they are": """
        import shop, shop.views
        result = [
            (type(m.__loader__).__name__, type(m.__spec__.loader).__name__, m.__file__, m.__cached__,
             m.__spec__.name, m.__spec__.origin, m.__package__, list(getattr(m, "__path__", [])))
            for m in (shop, shop.views)
        ]
        """,
    "sources can be had": """
        import inspect, shop.views
        result = [inspect.getsource(shop.views), shop.views.__loader__.get_source("shop.views")]
        """,
    "reloading in place": """
        import importlib, shop.views
        result = importlib.reload(shop.views) is shop.views
        """,
    "package data": """
        import pkgutil, importlib.resources, shop
        result = [pkgutil.get_data("shop", "data.txt").decode(),
                  importlib.resources.files("shop").joinpath("data.txt").read_text()]
        """,
    "running a path and a module": """
        import runpy
        result = [runpy.run_path(root + "/shop/views.py")["NAME"], runpy.run_module("shop.views")["NAME"]]
        """,
    "executing what was read": """
        exec(open(root + "/shop/views.py").read())
        result = NAME
        """,
    "open as an attribute, a default and a partial": """
        import functools
        class Store:
            reader = open
            def read(self, opener=open): return opener(root + "/shop/data.txt").read()
        first = functools.partial(open, root + "/shop/data.txt")
        result = [Store().reader(root + "/shop/data.txt").read(), Store().read(), first().read()]
        """,
    "built-in functions are built in": """
        import inspect, io, os, pickle, copy, types
        result = [isinstance(open, types.BuiltinFunctionType), inspect.isbuiltin(os.stat), open is io.open,
                  repr(open), open.__name__, open.__qualname__, os.stat.__module__, str(open.__doc__)[:20],
                  str(inspect.signature(os.stat)),
                  pickle.loads(pickle.dumps([open, os.stat])) == [open, os.stat],
                  copy.deepcopy(os.stat) is os.stat]
        """,
    "what the system supports": """
        import os, shutil
        result = [os.stat in os.supports_dir_fd, os.stat in os.supports_follow_symlinks,
                  os.scandir in os.supports_fd, os.access in os.supports_effective_ids,
                  {os.open, os.stat, os.unlink, os.rmdir} <= os.supports_dir_fd,
                  shutil.rmtree.avoids_symlink_attacks]
        """,
    "mock_open": """
        from unittest import mock
        with mock.patch("builtins.open", mock.mock_open(read_data="fake")):
            fake = open("nowhere").read()
        with mock.patch.object(os, "stat", autospec=True) as stat:
            os.stat("x")
        result = [fake, open(root + "/shop/data.txt").read(), stat.call_count, os.path.exists(root)]
        """,
    "walking": """
        import glob, os, pathlib, shutil
        base = pathlib.Path(root, "shop")
        with os.scandir(base) as found:
            names = sorted(entry.name for entry in found)
        folder = os.open(base, os.O_RDONLY)
        result = [names, sorted(os.listdir(folder)), os.stat("data.txt", dir_fd=folder).st_size,
                  sorted(name for *_, names, _ in os.fwalk(base) for name in names),
                  sorted(name for _, _, names in os.walk(base) for name in names),
                  sorted(path.name for path in base.glob("**/*.txt")),
                  sorted(path.name for path in base.iterdir()),
                  glob.glob(root + "/shop/*.txt"), (base / "data.txt").exists(), (base / "no").is_file()]
        os.close(folder)
        """,
    "copying and removing": """
        import shutil, tempfile, pathlib
        with tempfile.TemporaryDirectory() as scratch:
            copied = shutil.copytree(root + "/shop", scratch + "/shop")
            names = sorted(path.name for path in pathlib.Path(copied).rglob("*.txt"))
            shutil.rmtree(copied)
            result = [names, pathlib.Path(copied).exists()]
        """,
    "errors": """
        result = []
        for call in (lambda: open(), lambda: open(root, "q"), lambda: os.stat("\\0"), lambda: os.stat(1.5),
                     lambda: open(root + "/none"), lambda: os.listdir(root + "/none"), lambda: open(b"none"),
                     lambda: os.open(root), lambda: os.rename(root + "/none", root + "/more")):
            try:
                call()
            except Exception as error:
                result.append(repr(error))
        """,
    "all kinds of paths": """
        import pathlib
        name = root + "/shop/data.txt"
        result = [open(file=name, mode="r").read(), open(os.fsencode(name)).read(),
                  open(pathlib.Path(name)).read(), open("shop/data.txt").read(),
                  open(os.open(name, os.O_RDONLY)).read(), os.stat(path=name).st_size]
        """,
    "odd entries in sys.path": """
        import pathlib
        sys.path[:0] = ["", "shop", ".", pathlib.Path(root), b"bytes", root + "/none",
                        root + "/shop/data.txt", root + "/"]
        import views
        try:
            import missing_everywhere
        except ImportError as error:
            result = [views.__file__, repr(error)]
        """,
    "odd modules": """
        import types
        class Rude(types.ModuleType):
            def __getattr__(self, name): raise RuntimeError(name)
        class Ruder:
            def __getattribute__(self, name): raise RuntimeError(name)
        sys.modules.update(rude=Rude("rude"), ruder=Ruder(), none=None)
        serving()
        result = True
        """,
    "other finders": """
        import importlib.abc, importlib.util
        class Virtual(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path=None, target=None):
                if name == "virtual": return importlib.util.spec_from_loader(name, self)
            def exec_module(self, module): module.here = True
        sys.meta_path.insert(0, Virtual())
        import virtual, shop.views
        importlib.invalidate_caches()
        result = [virtual.here, shop.views.NAME]
        """,
    "SQLite": """
        import sqlite3
        base = sqlite3.connect(":memory:")
        result = [base.execute("select 1").fetchone(), sqlite3.connect.__name__,
                  isinstance(base, sqlite3.Connection)]
        """,
    "warnings": """
        import warnings, noisy
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            noisy.warn()
            import importlib
            importlib.reload(noisy)
        result = [(os.path.basename(w.filename), w.lineno) for w in caught]
        """,
    "tracebacks of imports": """
        import traceback
        result = []
        for name in ("broken", "raising", "importing_missing", "opening_missing"):
            try:
                __import__(name)
            except Exception as error:
                result.append([(f.name, os.path.basename(f.filename), f.lineno)
                               for f in traceback.extract_tb(error.__traceback__)][1:])
        """,
    "threads": """
        import threading
        found = []
        def work():
            import shop.views
            found.append(shop.views.NAME)
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads: thread.start()
        serving()
        for thread in threads: thread.join()
        result = found
        """,
}

NOT_PYPY = {"tracebacks of imports": pytest.mark.cpython("a frame of ours is seen")}
"""Rows that do not hold there, and why."""


@pytest.mark.parametrize("late", [False, True], ids=["loading", "serving"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=NOT_PYPY.get(name, ())) for name in INVISIBLE])
@pytest.mark.unmeasured
def test_the_application_does_not_notice(project: Project, name: str, late: bool) -> None:
    project.write("shop/__init__.py", '"""A shop."""\n')
    project.write("shop/views.py", "NAME = __name__ or 'views'\n")
    project.write("shop/data.txt", "data")
    project.write("noisy.py", "import warnings\ndef warn():\n    warnings.warn('x', stacklevel=2)\nwarn()\n")
    project.write("broken.py", "x = (\n")
    project.write("raising.py", "def f():\n    1 / 0\nf()\n")
    project.write("importing_missing.py", "import nowhere_to_be_found\n")
    project.write("opening_missing.py", "open('nowhere')\n")
    project.dont_write = True
    code = textwrap.dedent(INVISIBLE[name])
    if late:
        code = "serving()\n" + code
    plain, _ = project.run(code, recorded=False)
    noted, _ = project.run(code, recorded=True)
    assert plain is not None
    assert noted == plain


def test_stop_puts_everything_back() -> None:
    import builtins
    import glob  # noqa: F401 # may have taken functions from `os`
    import io
    from importlib.machinery import SourceFileLoader

    def look() -> list[object]:
        names = ("open", "stat", "lstat", "access", "scandir", "listdir", "mkdir", "rename", "unlink")
        parts = [builtins.open, io.open, io.open_code, *(getattr(os, name) for name in names)]
        return [*map(id, parts), list(sys.meta_path), SourceFileLoader.get_code, SourceFileLoader.get_data]

    before = look()
    recorder = Recorder(lambda entry: None, [os.getcwd()])
    for quieten in (False, True):
        recorder.start()
        assert look() != before
        if quieten:
            recorder.loaded()
        recorder.stop()
        assert look() == before


def test_what_somebody_else_has_replaced_since_stays(project: Project) -> None:
    code = """
        original = os.stat
        mine = os.stat = lambda *args, **named: original(*args, **named)
        serving()
        result = [os.stat is mine, os.path.exists(root)]
        """
    assert project.run(code)[0] == [True, True]


# what is recorded


READS = {
    "open": ("open(root + '/data.txt').read()", {("file", "data.txt")}),
    "a relative path": ("open('data.txt').read()", {("file", "data.txt")}),
    "os.open": ("os.close(os.open(root + '/data.txt', os.O_RDONLY))", {("file", "data.txt")}),
    "pathlib": (
        "import pathlib; pathlib.Path(root, 'data.txt').read_text()",
        {("file", "data.txt")},
    ),
    "pathlib asks": (
        "import pathlib; pathlib.Path(root, 'data.txt').exists(), pathlib.Path(root, 'none').is_dir()",
        {("path", "data.txt"), ("path", "none")},
    ),
    "pathlib lists": (
        "import pathlib; list(pathlib.Path(root, 'folder').glob('*.txt'))",
        {("list", "folder")},
    ),
    "os.path": (
        "os.path.isfile(root + '/data.txt'), os.path.exists(root + '/none')",
        {("path", "data.txt"), ("path", "none")},
    ),
    "os.access": ("os.access(root + '/data.txt', os.R_OK)", {("path", "data.txt")}),
    "os.listdir": ("os.listdir(root + '/folder')", {("list", "folder")}),
    "the root itself": ("os.listdir(), os.listdir(root)", {("list", ".")}),
    "os.scandir": ("list(os.scandir(root + '/folder'))", {("list", "folder")}),
    "os.walk": ("list(os.walk(root + '/folder'))", {("list", "folder")}),
    "os.fwalk": ("list(os.fwalk(root + '/folder'))", {("list", "folder")}),
    "glob": ("import glob; glob.glob(root + '/folder/*')", {("list", "folder")}),
    "codecs": ("import codecs; codecs.open(root + '/data.txt').read()", {("file", "data.txt")}),
    "configparser": (
        "import configparser; configparser.ConfigParser().read(root + '/none.ini')",
        {("path", "none.ini")},
    ),
    "what is missing": (
        "try: open(root + '/none.txt')\nexcept OSError: pass",
        {("path", "none.txt")},
    ),
    "a folder opened": ("os.close(os.open(root + '/folder', os.O_RDONLY))", {("list", "folder")}),
    "package data": (
        "import pkgutil, shop; pkgutil.get_data('shop', 'data.txt')",
        {("file", "shop/data.txt"), ("file", "shop/__init__.py")},
    ),
    "resources": (
        "from importlib import resources; resources.files('shop').joinpath('data.txt').read_text()",
        {("file", "shop/data.txt")},
    ),
    "plug-ins": (
        "import pkgutil; list(pkgutil.iter_modules([root + '/shop']))",
        {("list", "shop")},
    ),
    "run_path": ("import runpy; runpy.run_path(root + '/main.py')", {("file", "main.py")}),
    "run_module": ("import runpy; runpy.run_module('main')", {("file", "main.py")}),
    "exec": ("exec(open(root + '/main.py').read())", {("file", "main.py")}),
    "a module": ("import main", {("file", "main.py")}),
    "a module by its path": (
        """
        import importlib.util
        spec = importlib.util.spec_from_file_location("odd", root + "/main.py")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        """,
        {("file", "main.py")},
    ),
    "a missing module": (
        "try: import none_such\nexcept ImportError: pass",
        {("name", "none_such")},
    ),
    "a missing submodule": (
        "try: from shop import none_such\nexcept ImportError: pass",
        {("name", "shop/none_such")},
    ),
    "a library that could be shadowed": ("import wave", {("name", "wave")}),
    "a module that is only looked for": (
        "import importlib.util; importlib.util.find_spec('main'); serving()",
        {("name", "main")},
    ),
    "a namespace package": ("import folder", {("name", "folder")}),
    "a module while serving": ("serving(); import main", {("file", "main.py")}),
    "the text of a module": ("import inspect, main; inspect.getsource(main)", {("path", "main.py")}),
    "lines": ("import linecache; linecache.getlines(root + '/data.txt')", {("file", "data.txt")}),
    "a text by its encoding": ("import tokenize; tokenize.open(root + '/data.txt')", {("file", "data.txt")}),
    "a template while serving": ("serving(); open(root + '/data.txt')", {("file", "data.txt")}),
    "threads": (
        """
        import concurrent.futures
        with concurrent.futures.ThreadPoolExecutor() as pool:
            pool.submit(open, root + "/data.txt").result().close()
        """,
        {("file", "data.txt")},
    ),
}


@pytest.fixture
def shop(project: Project) -> Project:
    for name in ("data.txt", "folder/a.txt", "shop/__init__.py", "shop/data.txt", "style.css"):
        project.write(name)
    project.write("main.py", "X = 1\n")
    return project


def test_where_links_lead_that_are_scanned_is_recorded(shop: Project) -> None:
    """An entry says whether it is a file without asking anybody else."""
    shop.run("os.symlink('none', root + '/folder/link')", recorded=False)
    entries = shop.entries("[each.is_file() for each in os.scandir(root + '/folder')]")
    assert {("list", "folder"), ("path", "folder/link")} <= entries


@pytest.mark.parametrize("name", READS)
def test_is_recorded(shop: Project, name: str) -> None:
    code, expected = READS[name]
    assert expected <= shop.entries(code)


def test_what_others_took_from_os_before_is_wrapped_too(shop: Project) -> None:
    """Python 3.13: `pathlib` lists by functions that its classes have kept."""
    code = """
        recorder.stop()
        import glob, pathlib
        recorder.start()
        list(pathlib.Path(root, "folder").glob("*.txt"))
        """
    assert ("list", "folder") in shop.entries(code)


NOT_READ = {
    "tracebacks": """
        import traceback, inspect
        try:
            exec(compile('1 / 0', root + '/data.txt', 'exec'))
        except ZeroDivisionError as error:
            traceback.format_exc(), inspect.getinnerframes(error.__traceback__)
        """,
    "inspect": "import inspect; inspect.getsourcefile(compile('', root + '/data.txt', 'exec'))",
    "metadata": "import importlib.metadata; list(importlib.metadata.distributions(path=[root + '/folder']))",
    "a descriptor": "os.stat(0); os.fstat(0)",
    "static files while serving": "serving(); open(root + '/style.css')",
    "questions while serving": "serving(); os.stat(root + '/data.txt'); os.listdir(root + '/folder')",
    "questions by a function kept from before": """
        from os import stat, listdir
        serving()
        stat(root + '/data.txt'); listdir(root + '/folder')
        """,
    "elsewhere": "open(os.__file__).close(); os.listdir('/'); os.path.exists('/etc/hosts')",
}


@pytest.mark.parametrize("name", NOT_READ)
def test_is_not_recorded(shop: Project, name: str) -> None:
    kinds = {"file", "list", "path"}
    ours = {"main.py", "venv", "venv/lib"}
    assert {
        entry for entry in shop.entries(NOT_READ[name]) if entry[0] in kinds and entry[1] not in ours
    } == set()


def test_a_virtual_environment_within_the_project(shop: Project) -> None:
    shop.write(
        "venv/lib/python3.11/site-packages/library/__init__.py", "import os; os.listdir(__path__[0])\n"
    )
    shop.write("venv/lib/python3.11/site-packages/library/settings.py")
    shop.write("venv/lib/python3.11/site-packages/reader.py", "open('data.txt')\n")
    shop.path.append(str(shop.root / "venv/lib/python3.11/site-packages"))
    found = shop.entries("import library.settings, reader")
    assert found >= {("name", "library"), ("name", "reader"), ("file", "data.txt")}
    assert [path for _, path in found if path.startswith("venv")] == []


def test_a_project_that_is_the_virtual_environment(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True, timeout=DEADLINE
    )
    root = tmp_path / "env"
    (root / "main.py").write_text("open('data.txt')\n")
    (root / "data.txt").write_text("data")
    library = next(root.glob("lib/*/site-packages" if os.name != "nt" else "Lib/site-packages"))
    (library / "library.py").write_text("X = 1\n")
    code = f"""
import sys
sys.path[:0] = [{str(root)!r}]
sys.path.append({SOURCE!r})
from devserver.loading.recorder import Recorder
found = []
Recorder(lambda entry: found.append(entry.path), [{str(root)!r}]).start()
import main, library
print("\\n".join(found))
"""
    python = root / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    out = subprocess.run(
        [python, "-c", code], cwd=root, capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    found = {os.path.relpath(path, root) for path in out.stdout.splitlines()}
    assert {"main.py", "data.txt", "library"} <= found
    assert [path for path in found if path.startswith(("lib", "Lib")) and path != "library"] == []


def test_a_project_below_a_folder_called_site_packages(tmp_path: Path, interpreters: Interpreters) -> None:
    root = tmp_path / "site-packages" / "mine"
    root.mkdir(parents=True)
    project = Project(root, interpreters)
    project.write("main.py", "open('data.txt')")
    project.write("data.txt")
    assert {("file", "main.py"), ("file", "data.txt")} <= project.entries("import main")


def test_an_editable_install_beside_the_project(project: Project, tmp_path: Path) -> None:
    """Found by a finder of its own, as setuptools makes them: behind PathFinder, with a loader of its own."""
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "__init__.py").write_text("from beside import part\n")
    (beside / "part.py").write_text("")
    code = f"""
        import importlib.util
        class Editable:
            @classmethod
            def find_spec(cls, name, path=None, target=None):
                if name == "beside":
                    return importlib.util.spec_from_file_location(name, {str(beside / "__init__.py")!r})
        sys.meta_path.append(Editable)
        import beside
        """
    found = project.entries(code)
    assert {("file", "../beside/__init__.py"), ("file", "../beside/part.py"), ("name", "beside")} <= found


def test_a_module_in_an_archive_and_a_compiled_one(project: Project) -> None:
    import zipfile

    with zipfile.ZipFile(project.root / "parts.zip", "w") as archive:
        archive.writestr("zipped.py", "X = 1\n")
    project.write("source.py", "X = 1\n")
    code = """
        import py_compile
        py_compile.compile("source.py", "bare.pyc")
        sys.path.insert(0, root + "/parts.zip")
        import zipped, bare
        """
    assert {("file", "parts.zip"), ("file", "bare.pyc")} <= project.entries(code)


def test_an_extension_of_the_project(project: Project) -> None:
    import importlib.util
    import shutil

    spec = importlib.util.find_spec("_json")
    if spec is None or not spec.has_location or spec.origin is None:
        pytest.skip("this interpreter has no extension in a file to copy")
    shutil.copy(spec.origin, project.root)
    name = os.path.basename(spec.origin)
    assert ("file", name) in project.entries("sys.modules.pop('_json', None); import _json")


def test_an_import_is_told_before_it_is_executed(project: Project) -> None:
    project.write("main.py", "import __main__; __main__.result = list(__main__.entries)\n")
    result, _ = project.run("import main")
    (told,) = [entry for entry in result if entry[0] == "file"]
    kind, path, _, fingerprint, names, *_ = told
    assert (kind, os.path.basename(path), names) == ("file", "main.py", "main.py")
    assert fingerprint[0] == os.stat(project.root / "main.py").st_mtime_ns


def test_what_would_shadow_is_part_of_the_answer(project: Project) -> None:
    project.write("shop/__init__.py")
    project.write("shop.py")
    _, entries = project.run("import shop")
    assert [entry[4] for entry in entries if entry[0] == "file"] == ["shop.py shop"]


def test_a_module_loaded_before(project: Project) -> None:
    project.write("early.py")
    found = project.run("serving()")[1]
    assert found == []
    code = "recorder.stop(); import early; entries.clear(); recorder.start()"
    assert ("file", "early.py") in project.entries(code)


def test_a_forked_process_says_nothing(shop: Project) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    code = """
        pid = os.fork()
        if pid == 0:
            import main
            open(root + "/data.txt").close()
            os._exit(len(entries))
        result = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        """
    assert shop.run(code)[0] == 0


# what the application writes


WRITES = {
    "open": ("open(root + '/new.txt', 'w').close()", {"new.txt"}),
    "appending": ("open(root + '/data.txt', 'a').close()", {"data.txt"}),
    "read, then written": (
        "open(root + '/data.txt').close(); open(root + '/data.txt', 'r+').close()",
        {"data.txt"},
    ),
    "os.open": ("os.open(root + '/new.txt', os.O_WRONLY | os.O_CREAT)", {"new.txt"}),
    "made sure of, then read": ("open('new.txt', 'a').close(); open('new.txt').read()", {"new.txt"}),
    "touched, then read": (
        "import pathlib; pathlib.Path('new.txt').touch(); open('new.txt').read()",
        {"new.txt"},
    ),
    "os.open, then read": (
        "os.close(os.open('new.txt', os.O_CREAT | os.O_RDWR)); open('new.txt').read()",
        {"new.txt"},
    ),
    "pathlib": (
        "import pathlib; pathlib.Path('a/b').mkdir(parents=True); pathlib.Path('a/b/c').touch()",
        {"a", "a/b", "a/b/c"},
    ),
    "atomic": ("open('x.new', 'w').close(); os.replace('x.new', 'x')", {"x.new", "x"}),
    "links": ("os.symlink('data.txt', 'link'); os.link('data.txt', 'hard')", {"link", "hard"}),
    "removed": ("os.remove('data.txt'); os.mkdir('d'); os.rmdir('d')", {"data.txt", "d"}),
    "a tree removed": ("import shutil; shutil.rmtree('folder')", {"folder", "folder/a.txt"}),
    "a tree copied": ("import shutil; shutil.copytree('folder', 'copy')", {"copy", "copy/a.txt"}),
    "logging": ("import logging; logging.FileHandler('app.log')", {"app.log"}),
    "SQLite": ("import sqlite3; sqlite3.connect('db.sqlite3')", {"db.sqlite3"}),
    "SQLite by URI": (
        "import sqlite3; sqlite3.connect('file:db.sqlite3?mode=rwc', uri=True)",
        {"db.sqlite3"},
    ),
    "SQLite in memory": ("import sqlite3; sqlite3.connect(':memory:')", set[str]()),
    "while serving": (
        "serving(); os.mkdir('uploads'); open('uploads/a', 'wb').close()",
        {"uploads", "uploads/a"},
    ),
    "SQLite while serving": (
        "import sqlite3; serving(); os.path.exists('x'); sqlite3.connect('db.sqlite3')",
        {"db.sqlite3"},
    ),
    "SQLite imported while serving": (
        "serving(); import sqlite3; sqlite3.dbapi2.connect('db.sqlite3')",
        {"db.sqlite3"},
    ),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_the_application_writes_is_its_own(shop: Project, name: str) -> None:
    code, expected = WRITES[name]
    own = shop.own(code)
    assert expected <= own
    assert {path for path in own if path.startswith(("main", "shop"))} == set()


def test_a_module_that_was_executed_is_never_own(project: Project) -> None:
    project.write("main.py", "X = 1\n")
    assert project.own("import main; open('main.py', 'a').close()") == set()


def test_a_module_that_is_generated_counts_as_executed(project: Project) -> None:
    code = """
        with open("made.py", "w") as file: file.write("X = 2")
        import made
        """
    _, entries = project.run(code)
    made = [entry[2] for entry in entries if entry[0] == "file" and entry[1].endswith("made.py")]
    assert len(made) == 2
    assert made[0] == OWN != made[1]


STAMPS = {
    "getmtime": ("os.path.getmtime(path)", True),
    "getsize": ("os.path.getsize(path)", True),
    "stat": ("os.stat(path)", True),
    "Path.stat": ("pathlib.Path(path).stat()", True),
    "after exists": ("os.path.exists(path); os.stat(path)", True),
    "DirEntry.stat": ("[entry.stat() for entry in os.scandir(root)]", True),
    "DirEntry.stat, closed": ("with os.scandir(root) as found: next(found).stat()", True),
    "DirEntry.is_file": ("[entry.is_file() for entry in os.scandir(root)]", False),
    "os.walk": ("list(os.walk(root))", False),
    "glob": ("list(pathlib.Path(root).glob('*'))", False),
    "exists": ("os.path.exists(path)", False),
    "Path.is_file": ("pathlib.Path(path).is_file()", False),
    "realpath": ("os.path.realpath(path)", False),
    "access": ("os.access(path, os.R_OK)", False),
}


@pytest.mark.parametrize("how", STAMPS)
def test_stamps_are_recorded_only_for_who_asks_for_them(how: str, project: Project) -> None:
    code, wanted = STAMPS[how]
    project.write("data.txt", "text")
    _, entries = project.run(f"import pathlib\npath = root + '/data.txt'\n{code}")
    asked = [entry for entry in entries if entry[0] == "path" and entry[1].endswith("data.txt")]
    assert any(entry[3] is not None for entry in asked) is wanted
    # Who keeps a size is wrong when the file has another: it counts like one that was read.
    assert any(entry[0] == "file" for entry in entries) is wanted


def test_an_entry_of_a_folder_is_what_it_would_be_without_us(project: Project) -> None:
    project.write("data.txt", "text")
    code = """
        import shutil
        with os.scandir(root) as found:
            entry = next(found)
        kept = os.fspath(entry), entry.name, entry.path, entry.is_file(), entry.is_dir(), entry.inode() > 0
        copied = shutil.copy(entry, "copy.txt")
        size = entry.stat(follow_symlinks=False).st_size
        result = [kept, isinstance(entry, os.DirEntry), repr(entry), size]
        os.remove("copy.txt")
        """
    assert project.run(code)[0] == project.run(code, recorded=False)[0]


@pytest.mark.parametrize("name", ["coverage", "bdb", "importlib_metadata", "glob", "traceback", "devserver"])
def test_a_module_of_the_users_reads_whatever_it_is_called(name: str, project: Project) -> None:
    """These names are those of what looks for modules, shows tracebacks, or asks for its caller."""
    project.write("data.txt", "text")
    project.write(
        f"{name}/__init__.py", "import os; open('data.txt').close(); os.listdir('.'); os.stat('x.txt')"
    )
    project.write("x.txt")
    code = f"""
        for known in [each for each in sys.modules if each.partition(".")[0] == {name!r}]:
            del sys.modules[known]
        import {name}
        """
    assert {("file", "data.txt"), ("list", "."), ("path", "x.txt")} <= project.entries(code)


def test_what_is_own_is_not_asked_about(project: Project) -> None:
    code = """
        if not os.path.exists("db"): open("db", "w").close()
        open("db").close()
        os.path.exists("other"); open("other", "w").close(); os.path.getsize("other")
        """
    _, entries = project.run(code)
    assert [(entry[0], os.path.basename(entry[1]), entry[2]) for entry in entries] == [
        ("path", "db", ""),
        ("file", "db", OWN),
        ("file", "db", digest_of(b"")),  # what comes to be in it is none of a restart's reasons, but read
        ("path", "other", ""),
        ("file", "other", OWN),
    ]
    assert [entry[-1] for entry in entries] == [False, False, True, False, False]


def test_what_is_there_is_not_made_and_no_file_of_the_applications_own(project: Project) -> None:
    """Opened so as to fail if it is there: it is, so it is asked about, and read."""
    project.write("config.json", "{}")
    for opening in (
        "open('config.json', 'x')",
        "os.open('config.json', os.O_CREAT | os.O_EXCL | os.O_WRONLY)",
    ):
        code = f"""
            try: {opening}
            except FileExistsError: open("config.json").close()
            """
        _, entries = project.run(code)
        # The digest is taken at once only of a racy file, and a busy machine may take longer than that lasts.
        assert [(entry[0], entry[2] or digest_of(b"{}")) for entry in entries] == [
            ("path", "file"),
            ("file", digest_of(b"{}")),
        ]


# old .pyc files


def test_a_save_of_the_same_length_in_the_same_second_is_run(project: Project) -> None:
    """40 times: each text of the same length and mtime as the one before, whose .pyc is there."""
    code = """
        import importlib, py_compile
        result = []
        for number in range(40):
            text = f"X = {number:02}".replace("= 0", "= ")
            with recorder_free_open(root + "/main.py", "w") as file: file.write(text.ljust(8))
            os.utime(root + "/main.py", (1e9, 1e9))
            sys.modules.pop("main", None)
            importlib.invalidate_caches()
            import main
            result.append(main.X)
            py_compile.compile(root + "/main.py")
        """
    prelude = "import io\nrecorder_free_open = getattr(io.open, '__wrapped__', io.open)\n"
    stale, _ = project.run(prelude + textwrap.dedent(code), recorded=False)
    fresh, _ = project.run(prelude + textwrap.dedent(code))
    assert fresh == list(range(40))
    assert stale != fresh, "the trap is not there: this test proves nothing"


def test_a_compiled_form_of_another_folder_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was renamed, or is mounted in a container as well: paths in it lead nowhere."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "old").mkdir()
    path = str(tmp_path / "old" / "main.py")
    Path(path).write_text("X = 1\n")
    data, fingerprint = read_source(path)
    keep(SourceFileLoader("main", path), path, fingerprint, compile(data, path, "exec"), "form")
    [cache] = Path(path).parent.joinpath("__pycache__").iterdir()
    later = time.time() + 3600
    os.utime(cache, (later, later))
    assert cached(path, fingerprint, "form") is not None
    (tmp_path / "old").rename(tmp_path / "new")
    assert cached(str(tmp_path / "new" / "main.py"), fingerprint, "form") is None


def test_an_old_text_is_run_from_its_pyc_and_keeps_it(project: Project) -> None:
    """And a .pyc that cannot be believed is replaced by one that can."""
    code = """
        import importlib.util, marshal
        loader.is_racy = lambda fingerprint, now: answers.is_racy(fingerprint, now + 3600 * 10**9)
        import main
        cache = importlib.util.cache_from_source(root + "/main.py")
        result = [main.X, os.path.exists(cache)]
        if os.path.exists(cache):  # as if it had been written an hour later; another code, to be told apart
            head = open(cache, "rb").read()[:16]
            other = marshal.dumps(compile("X = 'cached'", "main.py", "exec"))
            with open(cache, "wb") as file: file.write(head + other)
            {stamp}
            del sys.modules["main"]
            import main
            result.append(main.X)
        """
    project.write("main.py", "X = 'text'\n")
    believed = "later = os.stat(cache).st_mtime + 3600; os.utime(cache, (later, later))"
    assert project.run(code.replace("{stamp}", believed))[0] == ["text", True, "cached"]
    assert project.run(code.replace("{stamp}", "os.utime(cache, (1e9, 1e9))"))[0] == ["cached", True, "text"]


def test_a_pyc_by_hash_is_left_to_python(project: Project) -> None:
    code = """
        import py_compile
        py_compile.compile("main.py", invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        with open("main.py", "w") as file: file.write("X = 2")
        import main
        result = main.X
        """
    project.write("main.py", "X = 1")
    assert project.run(code)[0] == 2


# half-written files


def test_a_file_that_is_still_being_written_is_read_again(project: Project) -> None:
    code = """
        import threading
        waited = []
        def wait(fingerprint):  # instead of 100 ms
            waited.append(fingerprint)
            with loader._fdopen(loader._open(root + "/main.py", os.O_WRONLY | os.O_APPEND), "w") as file:
                file.write("1)")
            return True
        loader._wait_until_written = wait
        import main
        result = [main.X, len(waited)]
        """
    project.write("main.py", "X = (")
    assert project.run(code)[0] == [1, 1]


def test_a_file_that_stays_broken_is_reported_and_raises(project: Project) -> None:
    project.write("main.py", "x = (")
    code = "try: import main\nexcept SyntaxError as error: result = error.msg"
    result, entries = project.run(code)
    assert result
    assert [os.path.basename(entry[1]) for entry in entries if entry[0] == "file"] == ["main.py"]


@pytest.mark.parametrize("ahead", [0, 3600])
def test_a_broken_file_is_waited_for_once_and_never_if_its_stamps_are_odd(
    project: Project, ahead: int
) -> None:
    from devserver.loading.recorder import _wait_until_written

    now = time.time_ns() + ahead * 10**9
    assert _wait_until_written((now, now, 0, 0)) is (ahead == 0)
    assert not _wait_until_written((1, 1, 0, 0))


@pytest.mark.parametrize(
    ("more", "expected"), [("", False), ("app = 1", True)], ids=["it was whole", "it was not"]
)
def test_a_failure_with_a_module_that_was_empty_a_moment_ago(
    project: Project, more: str, expected: bool
) -> None:
    """An empty `__init__` is common and costs nothing; before a failure is shown it is looked at again."""
    code = f"""
        import main
        with recorder_free(root + "/main.py", "w") as file: file.write({more!r})
        result = recorder.settle()
        """
    project.write("main.py", "")
    prelude = "import io\nrecorder_free = io.open.__wrapped__\n"
    assert project.run(prelude + textwrap.dedent(code))[0] is expected


def test_a_failure_with_data_that_was_half_written(project: Project) -> None:
    code = """
        import json
        try: json.load(open(root + "/data.json"))
        except ValueError: pass
        with io.open.__wrapped__(root + "/data.json", "w") as file: file.write("[]")
        result = recorder.settle()
        """
    project.write("data.json", "[")
    assert project.run("import io\n" + textwrap.dedent(code))[0] is True


def test_what_the_application_writes_itself_is_not_half_written(project: Project) -> None:
    code = """
        open(root + "/data.json").read()
        with open(root + "/data.json", "w") as file: file.write("[]")
        result = recorder.settle()
        """
    project.write("data.json", "[")
    assert project.run(code)[0] is False


def test_stamps_are_never_newer_than_the_bytes_that_were_executed(project: Project) -> None:
    """Else the save that comes in between would be taken for what runs."""
    code = """
        from devserver.loading import bytecode
        stamp = bytecode.fingerprint_of
        def stamp_and_write(status):
            bytecode.fingerprint_of = stamp
            fingerprint = stamp(status)
            with io.open.__wrapped__(root + "/main.py", "w") as file: file.write("X = 2222")
            return fingerprint
        bytecode.fingerprint_of = stamp_and_write
        import main
        result = main.X
        """
    project.write("main.py", "X = 1")
    result, entries = project.run("import io\n" + textwrap.dedent(code))
    [[_, _, answer, fingerprint, *_]] = [entry for entry in entries if entry[0] == "file"]
    size, digests = fingerprint[2], {1: digest_of(b"X = 1"), 2222: digest_of(b"X = 2222")}
    assert answer == digests[result]
    assert (size, result) == (5, 2222), "stamps of before: it is looked at again"


@pytest.mark.parametrize(("there", "comes"), [("folder/a.txt", "folder/__init__.py"), ("", "folder.py")])
def test_what_comes_while_python_looks_is_no_answer(project: Project, there: str, comes: str) -> None:
    """Else nobody would notice that it is there, and was not taken."""
    if there:
        project.write(there)
    code = f"""
        from importlib.machinery import FileFinder, SourceFileLoader
        class Finder(FileFinder):
            def find_spec(self, name, target=None):
                spec = super().find_spec(name, target)
                os.system({"touch " + comes!r})
                return spec
        os.chdir(root), sys.path.remove("")
        sys.path_importer_cache[root] = Finder(root, (SourceFileLoader, [".py"]))
        try:
            import folder
        except ImportError:
            pass
        """
    _, entries = project.run(code)
    place = ["name", str(project.root / "folder")]
    assert [entry[2] for entry in entries if entry[:2] == place] == ["folder/" if there else ""]


# what wrong programs look like


def test_the_traceback_of_a_broken_module_is_that_of_python(project: Project) -> None:
    project.write("main.py", "import broken\n")
    project.write("broken.py", "x = (\n")
    project.dont_write = True
    plain, noted = (project.stderr("import main", recorded) for recorded in (False, True))
    assert [line for line in noted if "devserver" in line or "frozen" in line] == []
    assert noted == plain


def test_a_module_that_came_by_a_way_of_its_own_is_told_late(project: Project) -> None:
    project.write("script.py", "X = 1")
    code = """
        import types
        module = sys.modules["script"] = types.ModuleType("script")
        module.__file__ = root + "/script.py"
        serving()
        """
    for name in ("script", "__main__"):
        [[kind, path, *_, late, _]] = project.run(code.replace('"script"]', f'"{name}"]'))[1]
        assert (kind, os.path.basename(path), late) == ("file", "script.py", True)
