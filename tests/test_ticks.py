"""Modules with ticks: equal to plain imports, whole or in two halves."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import linecache
import sys
import sysconfig
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devserver.loading.constants import Constants, collect, share
from devserver.loading.ticks import TICK, Execution, Text, Ticker, can_go_on

pytestmark = pytest.mark.interpreter

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
SAMPLE = [*sorted(LIBRARY.glob("*.py")), *sorted((LIBRARY / "asyncio").glob("*.py"))]


def constant(value: object) -> Any:
    """A constant as it is compared; equal sets may be in different orders."""
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def seen(code: types.CodeType) -> Any:
    """All that can be seen of code, and of the code in it; the module's own instructions are others."""
    inside = [seen(each) for each in code.co_consts if isinstance(each, types.CodeType)]
    if code.co_name == "<module>":
        return [code.co_filename, code.co_flags, inside]
    constants = [constant(each) for each in code.co_consts if not isinstance(each, types.CodeType)]
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    places = list(code.co_positions())
    return [
        code.co_qualname,
        code.co_firstlineno,
        code.co_flags,
        code.co_code,
        constants,
        names,
        places,
        inside,
    ]


@pytest.mark.parametrize("part", range(4))
def test_code_is_that_of_a_plain_import(part: int) -> None:
    """Every module of the standard library, whole and from some statement on."""
    for path in SAMPLE[part::4]:
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler says of it
            plain = compile(data, str(path), "exec", dont_inherit=True)
            text = Text(data, str(path))
            assert seen(text.compile()) == seen(plain), path
            start = max(text.first, len(text.ends) // 2)
            functions = {(each[0], each[1]): each for each in seen(plain)[2]}
            for each in seen(text.compile(start))[2]:
                assert each == functions[each[0], each[1]], path


def names_in(
    body: str, name: str = "made", run: Callable[[types.CodeType, dict[str, Any]], None] | None = None
) -> Any:
    """What a module's namespace is after it was executed, plainly or as `run` does it."""
    module = types.ModuleType(name)
    vars(module)["__file__"] = path = f"{name}.py"
    code = Text(body.encode(), path).compile() if run else compile(body, path, "exec", dont_inherit=True)
    (run or exec)(code, vars(module))
    return {
        key: value
        for key, value in vars(module).items()
        if key not in ("__builtins__", "__spec__", "__loader__")
    }


class Steps:
    """Executes a text with ticks, and at one of them goes on with another."""

    def __init__(self, at: int, newer: str) -> None:
        self.ticker = Ticker(self._at)
        self.ticks: list[int] = []
        self._stop, self._newer = at, newer.encode()

    def __call__(self, code: types.CodeType, namespace: dict[str, Any]) -> None:
        self.ticker.install()
        try:
            self.ticker.execute(Execution("made.py", namespace, lambda: None), code)
        finally:
            self.ticker.uninstall()
        assert not self.ticker.stack

    def _at(self, execution: Execution) -> None:
        self.ticks.append(execution.index)
        if execution.index == self._stop:
            self._stop = -1
            execution.go_on_with(Text(self._newer, "made.py"), execution.index)


def test_tick_before_each_statement_and_at_the_end() -> None:
    steps = Steps(-1, "")
    names_in('"""Doc."""\nfrom __future__ import annotations\nx = 1; y = 2\nif x:\n    z = 1\n', run=steps)
    assert steps.ticks == [2, 3, 4, 5]


PAIRS = {
    "a statement changed": ("a = 1\nb = 2\nc = 3\n", "a = 1\nb = 20\nc = 3\n", 1),
    "appended": ("a = 1\n", "a = 1\nb = a + 1\n", 1),
    "all deleted behind": ("a = 1\nb = 2\nc = 3\n", "a = 1\n", 1),
    "a docstring": ('"""Doc."""\na = 1\nb = 2\n', '"""Doc."""\na = 1\nb = __doc__\n', 2),
    "annotations": ("a: int = 1\nb: str\nc = 1\n", "a: int = 1\nb: bytes\nc: list = []\n", 1),
    "annotations of the future": (
        "from __future__ import annotations\na: int = 1\nb = 2\n",
        "from __future__ import annotations\na: int = 1\nb: nobody\ndef f(x: nobody): pass\n",
        2,
    ),
    "within a line": ("a = 1; b = 2; c = 3\n", "a = 1; b = 2; c = 4\n", 2),
    "a deletion": ("a = b = 1\ndel a\nc = 2\n", "a = b = 1\ndel a\nc = 'a' in globals()\n", 2),
}


@pytest.mark.parametrize("name", PAIRS)
def test_namespace_after_going_on_is_that_of_the_new_text(name: str) -> None:
    old, new, executed = PAIRS[name]
    assert can_go_on(Text(old.encode(), "made.py"), Text(new.encode(), "made.py"), executed)
    warm, cold = names_in(old, run=Steps(executed, new)), names_in(new)
    for names in (warm, cold):
        if "f" in names:
            names["f"] = names["f"].__annotations__, names["f"].__code__.co_firstlineno
    assert list(warm.items()) == list(cold.items())


# old text, new text, how many statements of the old stand in the new one
LIKE = {
    "nothing": ("a = 1\nb = 2\n", "a = 1\nb = 2\n", 2),
    "appended": ("a = 1\n", "a = 1\nb = 2\n", 1),
    "deleted": ("a = 1\nb = 2\n", "a = 1\n", 1),
    "first": ("a = 1\nb = 2\n", "a = 2\nb = 2\n", 0),
    "a comment behind": ("a = 1\nb = 2\n", "a = 1  # one\nb = 2\n", 1),
    "a comment above": ("a = 1\nb = 2\n", "# one\na = 1\nb = 2\n", 0),
    "a comment between": ("a = 1\nb = 2\n", "a = 1\n# two\nb = 2\n", 1),
    "a blank line": ("a = 1\nb = 2\n", "a = 1\n\nb = 2\n", 1),
    "spaces at the end": ("a = 1\nb = 2\n", "a = 1 \nb = 2\n", 1),
    "the last newline": ("a = 1\nb = 2\n", "a = 1\nb = 2", 2),
    "an else": ("if a:\n    b\nc\n", "if a:\n    b\nelse:\n    d\nc\n", 0),
    "a finally": ("try:\n    a\nexcept E:\n    b\nc\n", "try:\n    a\nexcept E:\n    b\nfinally:\n    d\nc\n", 0),
    "an else behind a comment": ("if a:\n    b\n# c\nd\n", "if a:\n    b\n# c\nelse: e\nd\n", 0),
    "one line more in a body": ("def f():\n    a\nb\n", "def f():\n    a\n    c\nb\n", 0),
    "a decorator": ("a\ndef f(): pass\n", "a\n@b\ndef f(): pass\n", 1),
    "a docstring": ("'''Doc.'''\na = 1\n", "'''Other.'''\na = 1\n", 0),
    "a docstring that comes": ("a = 1\nb = 2\n", "'Doc'\na = 1\nb = 2\n", 0),
    "a statement behind a docstring": ("'Doc'\na = 1\n", "'Doc'\nb = 1\na = 1\n", 1),
    "a future": ("import a\n", "from __future__ import annotations\nimport a\n", 0),
    "a future more": (
        "from __future__ import annotations\na\n", "from __future__ import annotations\nfrom __future__ import division\na\n", 0
    ),
    "a semicolon": ("a = 1\nb = 2\n", "a = 1;\nb = 2\n", 1),
    "joined by a semicolon": ("a = 1\nb = 2\n", "a = 1; c = 3\nb = 2\n", 1),
    "the second in a line": ("a = 1; b = 2\nc\n", "a = 1; b = 3\nc\n", 1),
    "a string continued": ("a = 'x'\nb\n", "a = 'x' 'y'\nb\n", 0),
    "a line continued": ("a = 1\nb = 2\n", "a = 1 \\\n  + 1\nb = 2\n", 0),
    "a continuation that leads on": ("a = 1\nb = 2\n", "a = 1; \\\nc = 2\nb = 2\n", 1),
    "other newlines": ("a = 1\nb = 2\n", "a = 1\r\nb = 2\r\n", 2),
    "other newlines in a string": ("a = '''\n'''\nb\n", "a = '''\r\n'''\r\nb\r\n", 2),
    "a form feed": ("a = 1\nb = 2\n", "a = 1\n\fb = 2\n", 1),
    "a form feed as a line": ("a = 1\n\f\nb = 2\n", "a = 1\n\f\nb = 3\n", 1),
    "tabs": ("if a:\n\tb\nc\n", "if a:\n        b\nc\n", 0),
    "a BOM": ("a = 1\nb = 2\n", "\ufeffa = 1\nb = 2\n", 2),
    "letters of two bytes": ("a = 'ä'\nb = 'ü'; c = 1\n", "a = 'ä'\nb = 'ü'; c = 2\n", 2),
    "nothing at all": ("", "a = 1\n", 0),
    "all": ("a = 1\n", "", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", LIKE)
def test_statements_that_stand_in_another_text(name: str) -> None:
    old, new, same = LIKE[name]
    before, after = Text(old.encode(), "made.py"), Text(new.encode(), "made.py")
    assert after.differs_at(before) == before.differs_at(after) == same
    for count in range(len(before.ends) + 1):
        assert after.begins_like(before, count) is (count <= same and before.first == after.first)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# -*- coding: latin-1 -*-\na = 'ä'\nb = 'ü'\n", "# -*- coding: latin-1 -*-\na = 'ä'\nb = 'ö'\n", 1),
        ("# -*- coding: latin-1 -*-\na = 'ä'; b = 1\n", "# -*- coding: latin-1 -*-\na = 'ä'; b = 2\n", 1),
    ],
)
def test_statements_in_another_encoding(old: str, new: str, same: int) -> None:
    before, after = Text(old.encode("latin-1"), "made.py"), Text(new.encode("latin-1"), "made.py")
    assert after.differs_at(before) == same
    utf8 = old.replace("latin-1", "utf-8").encode()
    assert after.differs_at(Text(utf8, "made.py")) == 0


def test_module_does_not_go_on_where_its_beginning_means_something_else() -> None:
    def can(old: str, new: str, executed: int) -> bool:
        return can_go_on(Text(old.encode(), "made.py"), Text(new.encode(), "made.py"), executed)

    assert can("a = 1\nb = 2\n", "a = 1\nb = 3\n", 1)
    assert not can("a = 1\nb = 2\n", "a = 1\nb: int = 2\n", 1), "there is an __annotations__ from the start"
    assert not can("a = 1\nb: int = 2\n", "a = 1\nb = 2\n", 1)
    assert not can("'Doc'\na = 1\n", "'Doc'\nfrom __future__ import annotations\na = 1\n", 1)
    assert not can("a = 1\nb = 2\n", "a = 1\n", 2)
    assert not can("a = 1\nb = 2\n", "a = 1\nglobal a\n", 1), "a SyntaxError that the rest does not show"


# What others see of it

LOOKING = """
import sys, traceback, warnings
def warn():
    warnings.warn("deep", stacklevel=3)
HERE = sys._getframe().f_lineno
DEPTH = len(list(traceback.walk_stack(sys._getframe())))
warnings.warn("the importer's", stacklevel=2)
def fail():
    raise ValueError("inside")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, whose modules are forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def import_with_ticks(folder: Path, stop: int = -1, newer: str = "") -> list[int]:
    """Have `made` imported by `importer`, as a child does it. Returns the ticks."""
    ticks: list[int] = []

    def at(execution: Execution) -> None:
        if execution.path.endswith("made.py"):
            ticks.append(execution.index)
            if ticks == list(range(stop + 1)) and newer:
                (folder / "made.py").write_text(newer)
                execution.go_on_with(Text(newer.encode(), execution.path), stop)
                linecache.checkcache()

    from devserver.loading.modules import Stepping
    from devserver.loading.recorder import Recorder

    recorder = Recorder(lambda entry: None, [str(folder)])
    ticker = Ticker(at)
    stepping = Stepping(recorder, ticker)
    ticker.install()
    stepping.start()
    try:
        importlib.import_module("importer")
    finally:
        stepping.stop()
        ticker.uninstall()
    return ticks


def looked(folder: Path, how: Callable[[], object]) -> tuple[dict[str, Any], list[tuple[str, int, str]]]:
    """The names of `made` after it was imported, and what was warned of where."""
    for name in ("made", "importer"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        how()
    warned = [(Path(each.filename).name, each.lineno, str(each.message)) for each in caught]
    return dict(vars(sys.modules["made"])), warned


@pytest.mark.parametrize("stop", [-1, 2, 4])
def test_nothing_of_ours_is_seen_by_who_looks_at_the_stack(stop: int, folder: Path) -> None:
    (folder / "importer.py").write_text("x = 1\nimport made\ny = 2\n")
    newer = LOOKING + "def more():\n    return 1\nraise_ = fail\n"
    (folder / "made.py").write_text(newer)
    cold, warned = looked(folder, lambda: importlib.import_module("importer"))
    (folder / "made.py").write_text(LOOKING if stop >= 0 else newer)
    warm, warned_too = looked(folder, lambda: import_with_ticks(folder, stop, newer))
    assert warned == warned_too == [("importer.py", 2, "the importer's")]
    assert warm["HERE"] == cold["HERE"] == 5
    assert [name for name in warm if name in ("DEPTH", "more", "raise_")] == ["DEPTH", "more", "raise_"]
    assert inspect.getsource(warm["more"]) == "def more():\n    return 1\n"
    with pytest.raises(ValueError, match="inside") as raised:
        warm["fail"]()
    assert traceback.extract_tb(raised.value.__traceback__)[-1].lineno == 9


def test_stack_is_as_deep_as_in_a_plain_import(folder: Path) -> None:
    (folder / "importer.py").write_text("import made\n")
    (folder / "made.py").write_text(
        "import sys, traceback\nSTACK = [f.f_code.co_filename for f, _ in traceback.walk_stack(sys._getframe())]\n"
    )
    depths = []
    for how in (lambda: importlib.import_module("importer"), lambda: import_with_ticks(folder)):
        stack = looked(folder, how)[0]["STACK"]
        between = list(itertools.takewhile(lambda file: not file.endswith("importer.py"), stack))
        assert all(file.startswith("<frozen") for file in between[1:])
        depths.append(len(between))
    assert depths[0] == depths[1]


@pytest.mark.parametrize("stop", [-1, 1])
def test_traceback_of_a_failed_import_has_no_frame_of_ours(stop: int, folder: Path) -> None:
    (folder / "importer.py").write_text("import made\n")
    (folder / "made.py").write_text("a = 1\nb = 2\n1 / 0\n" if stop < 0 else "a = 1\n")
    with pytest.raises(ZeroDivisionError) as raised:
        import_with_ticks(folder, stop, "a = 1\nb = 2\n1 / 0\n")
    frames = traceback.extract_tb(raised.value.__traceback__)
    names = [Path(frame.filename).name for frame in frames]
    assert names[-2:] == ["importer.py", "made.py"]
    assert frames[-1].lineno == 3
    assert raised.value.__context__ is None


def test_ticks_of_other_threads_and_of_later_do_nothing() -> None:
    namespace: dict[str, Any] = {}
    came: list[int] = []
    ticker = Ticker(lambda execution: came.append(execution.index))
    ticker.install()
    try:
        exec(Text(b"a = 1\n", "made.py").compile(), namespace)  # nobody's module
    finally:
        ticker.uninstall()
    assert namespace["a"] == 1
    assert came == []
    exec(Text(b"a = 2\n", "made.py").compile(), namespace)
    assert namespace["a"] == 2
    assert not TICK.isidentifier()


FIRST = """
a = [1000.5, "two words", b"bytes", 10**20, (1, "two words"), ((0.25,), 7), -0.0, 3j]
def f(): return [1000.5, "other words", (1, "two words")]
"""
SECOND = """
b = [1000.5, 0.0, ("three words", 1000.5), 99999]
"""
THIRD = """
c = [1000.5, "two words", b"bytes", 10**20, (1, "two words"), ((0.25,), 7), -0.0, 0.0, 3j, 99999, 1000]
def g(): return [((0.25,), 7), "other words", ("three words", 1000.5), 99999, (0.25,), 1 in {1000, 1001}, (5000, 6000)]
d = [(5000, 6000), (99999, "new words"), ((99999, "new words"), 1.25), b"a", "a", 1, True, 1.0, (1,), (True,), (1.0,)]
"""


def test_equal_constants_are_one_object_on_both_sides_of_a_resume() -> None:
    """And only equal ones, as if all had been compiled at once; also after a second resume."""

    def identities(names: dict[str, Any]) -> list[int]:
        things: list[object] = []
        for each in (*names["a"], *names["f"](), *names["b"], *names["c"], *names["g"](), *names["d"]):
            things += [each, *(each if isinstance(each, tuple) else ())]
        ids = [id(each) for each in things]
        return [ids.index(each) for each in ids]

    newer = {2: f"{FIRST}{SECOND}".encode(), 3: f"{FIRST}{SECOND}{THIRD}".encode()}

    class Twice(Steps):
        def _at(self, execution: Execution) -> None:
            if execution.index in newer:
                execution.go_on_with(Text(newer.pop(execution.index), "made.py"), execution.index)

    warm, cold = names_in(FIRST, run=Twice(-1, "")), names_in(FIRST + SECOND + THIRD)
    assert not newer
    assert identities(warm) == identities(cold)


def test_a_module_without_a_constant_in_common_stays_as_it_is() -> None:
    code = compile("a = 12345.5", "made.py", "exec")
    constants: Constants = {}
    collect(compile("b = 5.12345; c = 0.0", "made.py", "exec"), constants)
    assert share(code, constants) is code
    negative = compile("a = -0.0", "made.py", "exec")
    assert repr(share(negative, constants).co_consts[0]) == "-0.0"
