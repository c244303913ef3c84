"""Statements for random modules, one text each, made from a seeded source of randomness.

Each stands by itself, so that it can be inserted, deleted and moved. Most leave a trace in the journal of
`registry`, so that a statement shows which was executed twice or not at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.live.generated_oddities import ODD_WHEN_LATE, ODDITIES

Make = Callable[["Statements"], str]

REGISTRY = '''"""What the other modules register with, and what they have done, in order."""
import functools
import itertools
import os
import warnings

JOURNAL = []
NAMED = {}
PIDS = []
WARNED = []
COUNT = itertools.count()


def note(*what):
    JOURNAL.append(what)
    PIDS.append(os.getpid())


def register(each):
    NAMED.setdefault(each.__qualname__, []).append(each)
    note("registered", each.__module__, each.__qualname__)
    return each


def named(name, *, twice=False):
    def decorate(each):
        NAMED[name, twice] = each
        return each
    return decorate


class Plugin:
    kinds = []

    def __init_subclass__(cls, **named):
        super().__init_subclass__()
        cls.kinds.append((cls, sorted(named.items())))
        note("plugin", cls.__module__, cls.__qualname__, cls.__subclasses__())


class Loose:
    pass


@functools.singledispatch
def handle(each):
    return type(each).__name__


def warned(message, category, filename, lineno, file=None, line=None):
    inside = filename.startswith(os.path.dirname(__file__))
    WARNED.append((str(message), category.__name__, inside and (filename, lineno)))


def warn(text, level=2):
    warnings.warn(text, UserWarning, stacklevel=level)


warnings.simplefilter("default")
warnings.showwarning = warned
'''

MAIN = """
LATE = []


def state():
    import statedump
    LATE[:] = LATE or [contextvars.copy_context().run(statedump.failure, lazily)]  # not only of this request
    pids, registry.PIDS[:] = list(registry.PIDS), []
    found = {"late": LATE, **statedump.dump()}
    registry.PIDS[:] = pids
    return found


async def app(scope, receive, send):
    import json, os
    if scope["type"] == "http":
        try:
            text = json.dumps({"pid": os.getpid(), "state": state(), "pids": registry.PIDS})
        except BaseException:
            import traceback
            text = json.dumps({"state": traceback.format_exc()})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})
"""

DATA = ("data/a.txt", "data/b.json", "data/sub/c.txt", "data/missing.txt")
FOLDERS = ("data", "data/sub", "plugs")
OPTIONAL = ("optional1", "optional2", "space.optional3")
SHADOWING = ("wave", "sched", "netrc")


class Statements:
    """Makes statements for one module at a time; `late` is one that a request imports."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._number = 0
        self.name = ""
        self.others: list[str] = []
        self.every: list[str] = []
        self.is_package = self.late = False
        self.parent = ""

    def fresh(self) -> int:
        """A number that was not there before."""
        self._number += 1
        return self._number

    def one(self) -> str:
        """A statement; now and then one that takes its time."""
        if self.rng.random() < 0.12:
            return f"time.sleep({self.rng.choice((0.005, 0.01, 0.02, 0.06))})"
        kind = self.rng.choice(KINDS)
        return self.one() if self.late and kind in NOT_LATE else kind(self)

    def value(self) -> str:
        """A plain value."""
        number = self.rng.randrange(100)
        return self.rng.choice(
            (f"{number}", f"'{number}'", f"[{number}, {number}]", f"{{'k': {number}}}", f"({number}, None)",
             f"'ä{number}'", f"b'{number}'", f"{{{number}, 1}}", f"{number}.5", f"'''a\n  {number}\n'''")
        )  # fmt: skip


def _plain(s: Statements) -> str:
    return f"v{s.fresh()} = {s.value()}"


def _noted(s: Statements) -> str:
    return f"note(__name__, {s.fresh()}, sys._getframe().f_lineno)"


def _annotated(s: Statements) -> str:
    n = s.fresh()
    return s.rng.choice((f"a{n}: int = {n}", f"a{n}: 'list[str]'", f"a{n}: dict[str, int] = {{}}"))


def _annotated_inside(s: Statements) -> str:
    return f"if {s.rng.choice('01')}:\n    a{s.fresh()}: int = 1\nelse:\n    note('else', __name__)"


def _function(s: Statements) -> str:
    n = s.fresh()
    lines = [f"def f{n}(x: int = {n}, *, y={s.value()}):", f'    """Says {n}."""', f"    z = x + {n}"]
    lines += [f"    # {s.value()!r}"] if s.rng.random() < 0.3 else []
    return "\n".join([*lines, "    return lambda q: (q, z, y)"])


def _tabbed(s: Statements) -> str:
    return f"def t{s.fresh()}():\n\tif 1:\n\t\treturn {s.fresh()}\n\treturn 0"


def _decorated(s: Statements) -> str:
    n = s.fresh()
    how = s.rng.choice(
        ("register", f"named('n{n}')", f"named(\n    'n{n}',\n    twice=True,\n)", "functools.lru_cache",
         "functools.cache", "functools.wraps(note)")
    )  # fmt: skip
    return (
        f"@{how}\ndef d{n}(x=1):\n    return x + {n}\nd{n}(1)"
        if "cache" in how
        else (f"@{how}\ndef d{n}(x=1):\n    return x + {n}")
    )


def _boom(s: Statements) -> str:
    n = s.fresh()
    return f"def boom{n}():\n    x = 1\n    def inner():\n        raise ValueError({n})\n    inner()"


def _class(s: Statements) -> str:
    n = s.fresh()
    base = s.rng.choice(("", "(registry.Plugin)", "(registry.Plugin, kind=1)", "(abc.ABC)"))
    return (
        f"class C{n}{base}:\n    '''Of {n}.'''\n    size: int = {n}\n\n    def me(self):\n"
        f"        return super().__repr__(), {n}\n\n    @property\n    def p(self):\n        return {n}\n"
        f"o{n} = C{n}()\nsame{n} = o{n}"
    )


def _dataclass(s: Statements) -> str:
    n = s.fresh()
    how = s.rng.choice(("", "(frozen=True)", "(slots=True)"))
    return f"@dataclasses.dataclass{how}\nclass D{n}:\n    x: int\n    y: str = '{n}'\nd{n} = D{n}({n})"


def _enum(s: Statements) -> str:
    n = s.fresh()
    return f"class E{n}(enum.Enum):\n    A = {n}\n    B = enum.auto()\ne{n} = E{n}.A"


def _reads(s: Statements) -> str:
    n, path = s.fresh(), s.rng.choice(DATA)
    body = s.rng.choice(
        (f"r{n} = open({path!r}).read()", f"r{n} = pathlib.Path(HERE, {path!r}).read_bytes()",
         f"with open(os.path.join(HERE, {path!r}), 'rb') as r{n}:\n        r{n} = r{n}.read()",
         f"r{n} = json.load(open({path!r}))", f"r{n} = pkgutil.get_data('main', {path!r})")
    )  # fmt: skip
    return f"try:\n    {body}\nexcept (OSError, ValueError) as r{n}:\n    r{n} = type(r{n}).__name__"


def _lists(s: Statements) -> str:
    n, path = s.fresh(), s.rng.choice(FOLDERS)
    how = s.rng.choice(
        ("sorted(os.listdir({0!r}))", "sorted(glob.glob({0!r} + '/*.txt'))", "len([n for n in os.listdir({0!r}) if n[0] != '_'])",
         "sorted(map(str, pathlib.Path({0!r}).iterdir()))", "sorted(map(str, pathlib.Path({0!r}).rglob('*')))",
         "sorted(e.name for e in os.scandir({0!r}) if e.is_file())",
         "sorted(sorted(x[2]) for x in os.walk({0!r}))", "os.chdir({0!r}), sorted(os.listdir('.')), os.chdir(HERE)")
    )  # fmt: skip
    return f"try:\n    l{n} = {how.format(path)}\nexcept OSError:\n    l{n} = None"


def _asks(s: Statements) -> str:
    n, path = s.fresh(), s.rng.choice((*DATA, *FOLDERS, "optional1.py", "plugs/p1.py"))
    how = s.rng.choice(
        ("os.path.exists({0!r})", "pathlib.Path({0!r}).exists()", "os.path.isfile({0!r})",
         "os.path.isdir(os.path.join(HERE, {0!r}))", "os.access({0!r}, os.R_OK)")
    )  # fmt: skip
    return f"q{n} = {how.format(path)}"


def _optional(s: Statements) -> str:
    n, name = s.fresh(), s.rng.choice(OPTIONAL)
    how = s.rng.choice(
        (f"import {name} as i{n}", f"from {name} import VALUE as i{n}", f"from {name} import *")
    )
    return f"try:\n    {how}\nexcept ImportError as error:\n    i{n} = str(error)"


def _asks_for_a_module(s: Statements) -> str:
    return f"u{s.fresh()} = importlib.util.find_spec({s.rng.choice(OPTIONAL)!r}) is not None"


def _imports(s: Statements) -> str:
    if not s.others:
        return _plain(s)
    n, other = s.fresh(), s.rng.choice(s.others)
    package, _, last = other.rpartition(".")
    ways = [f"import {other}", f"import {other} as i{n}", f"from {other} import NAME as i{n}",
            f"from {other} import *", f"i{n} = importlib.import_module({other!r})",
            f"from {package} import {last} as i{n}" if package else f"import {other}, sys",
            f"def load{n}():\n    import {other}\n    return {other}.NAME\nx{n} = load{n}()"]  # fmt: skip
    if package and package == s.parent:
        ways += [f"from {'..' if s.is_package else '.'} import {last}",
                 f"from {'..' if s.is_package else '.'}{last} import NAME as i{n}"] * 3  # fmt: skip
    return s.rng.choice(ways)


def _again(s: Statements) -> str:
    """A module, or what is no module, executed once more."""
    n, name = s.fresh(), s.rng.choice((*s.others, "optional1", "plugs.p1"))
    how = s.rng.choice(
        (f"importlib.reload(importlib.import_module({name!r}))", f"exec(open('{name}.py').read())",
         f"del sys.modules[{name!r}]\n    importlib.import_module({name!r})", f"g{n} = len(runpy.run_path('{name}.py'))")
    )  # fmt: skip
    return f"try:\n    {how}\nexcept (ImportError, OSError, KeyError) as error:\n    note({n}, type(error))"


def _stands_in_the_way(s: Statements) -> str:
    """Of checkpoints."""
    n = s.fresh()
    return s.rng.choice(
        (f"atexit.register(note, {n})", f"try:\n    sys.b{n} = b{n} = open('data/a.txt')\nexcept OSError:\n    pass",
         f"for b{n} in [threading.Thread(target=note, args=({n},))]:\n    b{n}.start()\n    b{n}.join()\n    del b{n}",
         f"os.pipe() and note({n})")
    )  # fmt: skip


def _plugins(s: Statements) -> str:
    return (
        f"for p{s.fresh()} in sorted(p.name for p in pkgutil.iter_modules(['plugs'])):\n"
        f"    importlib.import_module('plugs.' + p{s._number})"
    )


def _warns(s: Statements) -> str:
    n = s.fresh()
    return s.rng.choice(
        (f"warnings.warn('w{n}')", f"warnings.warn('w{n}', stacklevel=2)",
         f"registry.warn('w{n}')", f"registry.warn(\n    'w{n}', 3)", f"registry.warn('w{n}', 4)",
         "registry.warn('the same')", "warnings.warn('the same', stacklevel=2)")
    )  # fmt: skip


def _frames(s: Statements) -> str:
    return (
        f"s{s.fresh()} = [(f.f_code.co_filename, f.f_lineno, f.f_code.co_name)\n"
        "    for f, _ in traceback.walk_stack(sys._getframe())\n    if f.f_code.co_filename.startswith(HERE)]\n"
        f"s{s._number} = list(itertools.takewhile(lambda f: f[2] != 'lazily', s{s._number}))\n"
        f"g{s._number} = sys._getframe(0).f_globals is globals(), sys._getframe().f_locals is globals()"
    )


def _depth(s: Statements) -> str:
    n = s.fresh()
    return (
        f"h{n} = [os.path.basename(f.f_code.co_filename) for f, _ in traceback.walk_stack(sys._getframe())]\n"
        f"h{n} = ['frozen' if 'frozen' in f else f for f in h{n}[:h{n}.index('main.py')]]"
    )


def _compound(s: Statements) -> str:
    n = s.fresh()
    return s.rng.choice(
        (f"if {n} % 2:\n    c{n} = 1\n    note('if', {n})\nelif {n} % 3:\n    c{n} = 2\nelse:\n    def c{n}(): pass",
         f"for c{n} in range({n % 4}):\n    note('for', c{n})\nelse:\n    note('else', {n})",
         f"c{n} = 0\nwhile (c{n} := c{n} + 1) <= {n % 3}:\n    note('while', c{n})",
         f"try:\n    1 / 0\nexcept ZeroDivisionError as c{n}:\n    k{n} = c{n}\nfinally:\n    note('finally', {n})",
         f"with contextlib.suppress(KeyError):\n    note('with', {n})\n    {{}}[{n}]",
         f"match {s.value()}:\n    case [x, *rest]:\n        c{n} = rest\n    case {{'k': x}}:\n        c{n} = x\n"
         f"    case _:\n        c{n} = None",
         f"try:\n    raise ExceptionGroup('g', [ValueError({n})])\nexcept* ValueError as c{n}:\n    note('star', {n})")
    )  # fmt: skip


def _odd(s: Statements) -> str:
    n = s.fresh()
    return s.rng.choice(
        (f"global z{n}\nz{n} = {n}", f"z{n} = 1\ndel z{n}", f"z{n} = 1; note('semi', {n}); y{n} = 2",
         f"z{n} = 1; y{n} = [\n    {n},\n    2,\n]; note({n})", f"z{n} = 1 + \\\n    {n}",
         f"z{n} = '''many\n    lines {n}\n'''", "pass", f"(z{n} := {n})", f"z{n} = [i * {n} for i in range(3)]",
         f"z{n} = lambda x, y={n}: (x,\n    y)", "assert True, 'never'", f"'a string {n}'", "...",
         "if __name__ == '__main__':\n    note('main')", f"exec('z{n} = {n}')", f"z{n} = eval('lambda: {n}')",
         f"os.environ['Z{n}'] = '{n}'", f"sys.path.append('elsewhere{n}')", f"\f\nz{n} = 1", f"\fz{n} = {n}",
         f"z{n} = contextvars.ContextVar('z{n}'); z{n}.set({n})", f"random.seed({n}); z{n} = random.random()",
         f"z{n} = random.Random({n}); z{n}.random()", f"logging.getLogger('l{n}').addHandler(logging.NullHandler())",
         f"logging.getLogger(__name__).setLevel({n % 50})", f"sys.modules[__name__].z{n} = {n}",
         f"globals()['z{n}'] = {n}", f"z{n} = __doc__, __name__, __package__, __file__",
         f"z{n} = dict(globals().get('__annotations__', {{}}))", f"z{n} = type('T{n}', (), {{'x': {n}}})",
         f"z{n} = (yield_ for yield_ in [{n}]) and {n}", f"async def z{n}():\n    return {n}",
         f"type.mro(registry.Plugin); z{n} = registry.Plugin.__subclasses__()",
         f"z{n} = len([m for m in sys.modules.values() if getattr(m, '__file__', None) and m.__file__.startswith(HERE)])",
         f"z{n} = functools.partial(note, {n})", f"z{n} = linecache.getline(__file__, 5)",
         f"def __getattr__(name):\n    if name == 'late{n}':\n        return {n}\n    raise AttributeError(name)",
         f"try:\n    z{n} = inspect.getsource(state_of)\nexcept (OSError, NameError):\n    z{n} = None",
         "__doc__ = 'another'", f"z{n} = collections.namedtuple('z{n}', 'a b')", f"z{n} = enum.Enum('z{n}', 'A B')",
         f"class z{n}(typing.NamedTuple):\n    a: int = {n}", f"z{n} = typing.TypeVar('z{n}')",
         f"if typing.TYPE_CHECKING:\n    import nowhere{n}",
         f"z{n} = threading.current_thread() is threading.main_thread()", f"import os.path as z{n}, json.decoder as y{n}",
         f"z{n} = isinstance(registry.Plugin.kinds, list) and registry.Plugin.kinds[-1:]", f"__all__ = ['NAME', 'v{n}']; v{n} = 1", f"z{n}: int; z{n} = 1",
         f"z{n} = '\\N{{BULLET}} ü'", f"if 1: z{n} = 1", f"class z{n}: pass", f"def z{n}(): pass", f"z{n} = ();",
         *(f"import {name}" for name in ("colorsys", "wave", "netrc", "cmd", "sched")))
    )  # fmt: skip


def _blank(s: Statements) -> str:
    return s.rng.choice(("", "\n", f"# {s.fresh()}", "    # indented", "#\n#", "\f"))


def _reads_source(s: Statements) -> str:
    n = s.fresh()
    what = (
        "__file__"
        if not s.others or s.rng.random() < 0.5
        else f"HERE + {s.rng.choice(s.others).replace('.', '/')!r} + '.py'"
    )
    return f"try:\n    z{n} = zlib.crc32(open({what}, 'rb').read())\nexcept OSError:\n    z{n} = 0"


KINDS: list[Make] = [
    *[_plain, _noted, _function, _class, _imports, _odd, _odd, _compound] * 3,
    *[_annotated, _decorated, _reads, _lists, _asks, _optional, _warns, _blank] * 2,
    _annotated_inside, _tabbed, _boom, _dataclass, _enum, _asks_for_a_module, _plugins, _frames, _depth,
    _reads_source, _again, _stands_in_the_way, *ODDITIES,
]  # fmt: skip

NOT_LATE = (_lists, _asks, _plugins, _asks_for_a_module, _imports, _frames, _depth, _again, *ODD_WHEN_LATE)
"""In a module that is imported by a request its questions go unnoticed, and those of modules that nobody
but it imports; and who calls is another."""

NEEDED = (
    "import abc, ast, asyncio, atexit, builtins, collections, contextlib, contextvars, copyreg, dataclasses, decimal, enum, functools, gc, glob, importlib, importlib.resources, importlib.util",
    "import inspect, itertools, json, linecache, logging, mimetypes, os, pathlib, pkgutil, random, re, runpy, signal, socket, sys, threading, time\nimport tokenize, traceback, types, typing, warnings, weakref, zlib",
    "import registry\nfrom registry import named, note, register",
    "HERE = os.path.join(os.path.dirname(registry.__file__), '')",
)
