"""More statements for random modules: what is seldom done at import, and what looks at itself.

As in `generated_statements`, each stands by itself and leaves a trace.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.live.generated_statements import Make, Statements


def _inside(s: Statements) -> str:
    """An import that other statements, functions or handled exceptions stand around."""
    n, other = s.fresh(), s.rng.choice(s.others or ["registry"])
    return s.rng.choice(
        (f"with contextlib.suppress(ImportError):\n    note('enter', {n})\n    import {other} as i{n}\n    note('exit', {n})",
         f"try:\n    import {other} as i{n}\nfinally:\n    note('finally', {n})",
         f"try:\n    {{}}[{n}]\nexcept KeyError:\n    import {other}\n    i{n} = repr(sys.exc_info()[1])",
         f"for i{n} in ('registry', {other!r}):\n    importlib.import_module(i{n})\n    note(i{n}, {n})",
         f"class I{n}:\n    import {other}\n    note('in a class', {n})",
         f"i{n} = [__import__(name).__name__ for name in ('registry', {other!r})]",
         f"def i{n}(x=importlib.import_module({other!r})): pass",
         f"@(lambda f: importlib.import_module({other!r}) and register(f))\ndef d{n}(): pass",
         f"async def i{n}():\n    import {other}\n    note('async', {n})\nasyncio.run(i{n}())",
         f"i{n} = threading.Thread(target=importlib.import_module, args=('registry',))\ni{n}.start(); i{n}.join(); del i{n}")
    )  # fmt: skip


def _circular(s: Statements) -> str:
    """Whoever it is, before or behind, half executed or not."""
    n, other = s.fresh(), s.rng.choice(s.every)
    how = s.rng.choice(
        (f"from {other} import NAME as i{n}", f"import {other} as i{n}", f"from {other} import *",
         f"from {other} import nothing{n}", f"i{n} = sys.modules[{other!r}].__spec__._initializing",
         f"i{n} = list(vars(sys.modules[{other!r}]))[-3:]")
    )  # fmt: skip
    return f"try:\n    {how}\nexcept (ImportError, KeyError) as error:\n    i{n} = str(error)"


def _from_its_package(s: Statements) -> str:
    """A submodule imported by its package, which is half executed."""
    n = s.fresh()
    own = [name for name in s.every if name.rpartition(".")[0] == s.name]
    if not own:
        return f"i{n} = __package__, sorted(globals().get('__path__', ()))"
    last = s.rng.choice(own).rpartition(".")[2]
    return s.rng.choice(
        (f"from . import {last} as i{n}", f"from .{last} import NAME as i{n}", f"from .{last} import *")
    )


def _class_of_another(s: Statements) -> str:
    """Derived from a class that another module has made, so that who is whom shows."""
    n = s.fresh()
    return (
        f"B{n} = [each for each, _ in registry.Plugin.kinds][-1:] or [registry.Plugin]\n"
        f"class S{n}(B{n}[0]):\n    pass\n"
        f"b{n} = S{n}.__mro__, issubclass(S{n}, registry.Plugin), [type(o) is S{n} for o in (S{n}(), B{n}[0]())]"
    )


def _made_by_a_metaclass(s: Statements) -> str:
    n = s.fresh()
    return s.rng.choice(
        (f"class M{n}(type):\n    def __new__(mcls, name, bases, names, **more):\n        note('meta', name, list(names))\n"
         f"        return super().__new__(mcls, name, bases, names)\nclass K{n}(metaclass=M{n}, x={n}):\n    a = {n}",
         f"class N{n}:\n    def __set_name__(self, owner, name):\n        note('set', owner.__qualname__, name)\n"
         f"class O{n}:\n    one = N{n}(); two = N{n}()",
         f"@abc.ABC.register\nclass R{n}: pass\nr{n} = issubclass(R{n}, abc.ABC)",
         f"@registry.handle.register\ndef h{n}(each: {s.rng.choice(('int', 'str', 'bytes', 'list'))}):\n    return {n}",
         f"h{n} = [registry.handle(each) for each in (1, 'a', b'a', [], None)]",
         f"class P{n}(typing.Protocol):\n    x: int\n    def f(self) -> 'P{n}': ...\np{n} = typing.get_type_hints(P{n}.f)")
    )  # fmt: skip


def _garbage(s: Statements) -> str:
    """What a collection finds, and who is left."""
    n = s.fresh()
    return s.rng.choice(
        (f"class L{n}(registry.Loose): pass\ndel L{n}", f"class L{n}(registry.Loose): pass", f"o{n} = registry.Loose()",
         f"gc.collect(); z{n} = [each.__name__ for each in registry.Loose.__subclasses__()]",
         f"z{n} = sum(type(each) is registry.Loose for each in gc.get_objects())",
         f"class W{n}: pass\nW{n}.me = W{n}; w{n} = weakref.ref(W{n}); del W{n}; gc.collect(); w{n} = w{n}() is None",
         f"W{n} = registry.Loose(); w{n} = weakref.WeakValueDictionary({{'x': W{n}}})")
    )  # fmt: skip


def _halfway(s: Statements) -> str:
    """What has been begun and goes on later."""
    n = s.fresh()
    return s.rng.choice(
        (f"g{n} = (i for i in range(9)); next(g{n})", f"g{n} = itertools.count({n}); next(g{n})", "next(registry.COUNT)",
         f"z{n} = next(registry.COUNT)", f"g{n} = iter([1, 2, 3]); next(g{n})",
         f"def g{n}():\n    x = yield {n}\n    note('sent', x)\n    yield x\ng{n} = g{n}(); next(g{n}); g{n}.send({n})")
    )  # fmt: skip


def _looks_at_itself(s: Statements) -> str:
    """At its own text, or at that of another module, by whatever way there is."""
    n, other = s.fresh(), s.rng.choice(s.others or ["registry"])
    how = s.rng.choice(
        ("inspect.getsource(sys.modules[__name__])", f"inspect.getsource(sys.modules[{other!r}])", "linecache.getlines(__file__)",
         "''.join(linecache.getlines(registry.__file__))", "__loader__.get_source(__name__)", "__loader__.get_data(__file__)",
         "pkgutil.get_data(__name__, os.path.basename(__file__))", "tokenize.open(__file__).read()", "ast.dump(ast.parse(open(__file__, 'rb').read()))",
         "[l for l in inspect.stack()[len('')].code_context]", "inspect.getsource([f for f in globals().values() if inspect.isfunction(f) and f.__module__ == __name__][-1])",
         "inspect.getsource([c for c in globals().values() if inspect.isclass(c) and c.__module__ == __name__][0])", "inspect.getdoc(sys.modules[__name__])",
         "inspect.getcomments(sys.modules[__name__])", "os.path.getsize(__file__)", "inspect.getmodule(sys._getframe()).__name__",
         "importlib.resources.files('plugs').joinpath('p1.py').read_text()", "traceback.format_stack(limit=len('x'))")
    )  # fmt: skip
    return f"try:\n    z{n} = zlib.crc32(repr({how}).encode())\nexcept (OSError, LookupError, TypeError) as error:\n    z{n} = type(error)"


def _asks_for_sizes(s: Statements) -> str:
    """Of what it reads: another size or time alone is no reason for a restart."""
    n, path = (
        s.fresh(),
        s.rng.choice(("data/a.txt", "data/b.json", "data/sub/c.txt", "data/link", "plugs/p1.py")),
    )
    how = s.rng.choice(
        ("len(open({0!r}).read()), os.path.getsize({0!r})", "os.stat({0!r}).st_size, open({0!r}).read()",
         "pathlib.Path({0!r}).stat().st_size, pathlib.Path({0!r}).read_bytes()", "os.path.islink({0!r})", "os.readlink({0!r})",
         "os.path.relpath(os.path.realpath({0!r}))", "open({0!r}).read()", "os.path.lexists({0!r})", "pathlib.Path({0!r}).is_symlink()",
         "pathlib.Path({0!r}).resolve().name", "os.path.samefile({0!r}, 'data/a.txt')",
         "sorted(p.name for p in importlib.resources.files('plugs').iterdir() if p.name[0] != '_')")
    )  # fmt: skip
    return (
        f"try:\n    q{n} = {how.format(path)}\nexcept (OSError, ValueError) as error:\n    q{n} = type(error)"
    )


def _writes(s: Statements) -> str:
    """And reads what it has written; under a name of its own, for two processes may do so at once."""
    n = s.fresh()
    return s.rng.choice(
        (f"if 1:\n    x{n} = pathlib.Path(f'written{{os.getpid()}}')\n    x{n}.write_text('{n}')\n"
         f"    z{n} = x{n}.read_text()\n    x{n}.unlink()\n    del x{n}",
         f"os.makedirs('made/{n % 3}', exist_ok=True); z{n} = os.path.isdir('made/{n % 3}')",
         f"if 1:\n    os.makedirs('made', exist_ok=True)\n    x{n} = f'made/{{os.getpid()}}'\n    with open(x{n}, 'w') as file:\n"
         f"        file.write('x')\n    os.replace(x{n}, x{n} + 'x')\n    z{n} = pathlib.Path(x{n} + 'x').read_text()\n"
         f"    os.remove(x{n} + 'x')\n    del x{n}, file")
    )  # fmt: skip


def _elsewhere(s: Statements) -> str:
    """Other places for modules, and other ways to come by them."""
    n, name = s.fresh(), s.rng.choice(("optional1", "optional2", "space.optional3"))
    other = s.rng.choice(s.others or ["registry"])
    return s.rng.choice(
        (f"sys.path.insert({s.rng.choice((0, 99))}, {s.rng.choice(('lib', 'lib.zip'))!r})", "sys.path.append(os.path.join(HERE, 'lib'))",
         f"try:\n    import {name} as i{n}\nexcept ImportError as error:\n    i{n} = str(error)\nelse:\n    i{n} = getattr(i{n}, 'VALUE', None), [*getattr(i{n}, '__path__', ())]",
         f"sys.modules['alias{n}'] = importlib.import_module({other!r}); import alias{n}",
         f"k{n} = importlib.util.spec_from_file_location('k{n}', os.path.join(HERE, 'plugs/p1.py'))\ni{n} = importlib.util.module_from_spec(k{n})\n"
         f"try:\n    k{n}.loader.exec_module(i{n})\nexcept OSError:\n    pass\ndel k{n}, i{n}",
         f"try:\n    i{n} = sorted(runpy.run_module({name!r}))\nexcept ImportError as error:\n    i{n} = str(error)",
         f"sys.modules[__name__].__class__ = type('Kind{n}', (types.ModuleType,), {{'prop{n}': property(lambda self: {n})}})",
         "__path__ = pkgutil.extend_path(globals().get('__path__', []), __name__) if '__path__' in globals() else note('no package')",
         f"class F{n}:\n    def find_spec(name, path=None, target=None):\n        if re.fullmatch(r'(\\w+\\.)*(m\\d+|pkg\\d+|optional\\d)', name):\n            note('find', name)\nsys.meta_path.insert(0, F{n})")
    )  # fmt: skip


def _warns_otherwise(s: Statements) -> str:
    n = s.fresh()
    return s.rng.choice(
        ("warnings.simplefilter('once')", "warnings.filterwarnings('ignore', 'the same')", f"warnings.filterwarnings('error', 'w{n + 5}')",
         f"with warnings.catch_warnings(record=True) as z{n}:\n    warnings.simplefilter('always')\n    warnings.warn('w{n}')\nz{n} = [(str(w.message), w.lineno) for w in z{n}]",
         f"warnings.warn_explicit('w{n}', UserWarning, __file__, {n}, __name__, globals().setdefault('__warningregistry__', {{}}))",
         f"def old{n}():\n    warnings.warn('old', DeprecationWarning, 2)\nold{n}()", f"z{n} = sorted(map(str, globals().get('__warningregistry__', ())))")
    )  # fmt: skip


def _of_the_process(s: Statements) -> str:
    n = s.fresh()
    return s.rng.choice(
        (f"signal.signal(signal.SIGUSR1, lambda *_: {n})", f"sys.setrecursionlimit({1000 + n})", f"sys.setswitchinterval({1 + n % 5} / 100)",
         f"gc.set_threshold({700 + n})", f"socket.setdefaulttimeout({n})", f"os.umask({n % 8}); os.umask(0o22)",
         f"sys.excepthook = lambda *_: {n}", f"mimetypes.add_type('x/{n}', '.x{n}')", f"decimal.getcontext().prec = {n % 50 + 1}",
         f"copyreg.pickle(registry.Loose, lambda each: ({n},))", f"builtins.added{n} = {n}", f"logging.addLevelName({n}, 'l{n}')",
         f"sys.argv.append('{n}')", f"sys.modules['__main__'].z{n} = {n}", f"time.sleep(0); os.environ.pop('Z{n - 3}', None)",
         f"logging.basicConfig(level={n})", f"z{n} = sys.flags.dev_mode, sys.argv[1:1], os.getcwd() + '/' == HERE, threading.main_thread().name",
         f"asyncio.set_event_loop_policy(None); z{n} = {n}", f"random.seed({n}); z{n} = random.getrandbits(32)", f"z{n} = random.Random({n}).random()")
    )  # fmt: skip


def _of_a_newer_python(s: Statements) -> str:
    """Syntax of 3.12, annotations of 3.14; on older ones something like it."""
    n = s.fresh()
    if sys.version_info < (3, 12):
        return f"def y{n}(x: 'list[{n}]') -> None: ...\ny{n} = y{n}.__annotations__, typing.Optional[int]"
    return s.rng.choice(
        (f"type Y{n} = list[int]\ny{n} = Y{n}.__value__", f"def y{n}[T](x: T) -> T:\n    return x\nt{n} = y{n}.__type_params__[0].__name__",
         f"class Y{n}[T]:\n    def f(self, x: T): return f'{{x!r:{{{n}}}}}'\nt{n} = [str(each) for each in Y{n}.__orig_bases__]",
         f"y{n} = [x for x in range({n % 9}) if x % 2]; note(*y{n})")
    )  # fmt: skip


ODDITIES: list[Make] = [
    *[_inside, _circular, _class_of_another, _looks_at_itself, _elsewhere] * 2, _from_its_package, _made_by_a_metaclass,
    _garbage, _halfway, _asks_for_sizes, _writes, _warns_otherwise, _of_the_process, _of_a_newer_python,
]  # fmt: skip

ODD_WHEN_LATE = (
    _looks_at_itself,
    _asks_for_sizes,
    _inside,
    _elsewhere,
    _writes,
    _warns_otherwise,
    _garbage,
    _circular,
)
"""Not in what a request imports: see `NOT_LATE`."""
