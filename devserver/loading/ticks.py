"""Modules that are executed statement by statement, as far as the rest of a process can tell.

A module is compiled *whole*, with a call before each of its top-level statements: a *tick*. So
docstrings, annotations, constants and line numbers are those of a plain import, and yet there is a
moment between two statements at which all that was executed is known. At such a moment a process may
be forked; the copy may go on with a newer text of the module, if what was executed stands in it
unchanged: the old frame is left by an exception raised at the tick, and the rest of the new text is
executed in the same namespace.

Refuses to know what is done at a tick, and who forks.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import sys
from collections.abc import Callable, Iterator
from importlib.util import decode_source
from types import CodeType, FunctionType
from typing import cast

from devserver.loading.constants import Constants, collect, share
from devserver.loading.reads import disguise

TICK = "<devserver tick>"
"""A name that no program can spell; looked up where built-in names are."""

_TYPED_LATE = sys.version_info >= (3, 14)
"""A module's annotations are one function (PEP 649): it cannot be made in two halves."""


class Text:
    """The source of a module, cut into its top-level statements.

    Attributes:
        text: the source, decoded.
        ends: for each statement the offset of its end in the text as UTF-8.
        first: the number of statements that are no more than a docstring and `__future__` imports.
    """

    def __init__(self, data: bytes, path: str) -> None:
        """
        Raises:
            SyntaxError: as from the compiler.
        """
        self.text = decode_source(data)
        self.path = path
        self.tree = ast.parse(data, path)
        self._bytes = self.text.encode("utf-8", "surrogatepass")
        starts = [0]
        for line in self._bytes.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self.ends = [starts[node.end_lineno - 1] + node.end_col_offset for node in self.tree.body]  # type: ignore[operator]
        self.first = sum(1 for _ in _preamble(self.tree.body))

    def begins_like(self, other: Text, count: int) -> bool:
        """Whether the first statements are the same, byte for byte and line for line."""
        if self.ends[:count] != other.ends[:count] or len(self.ends) < count:
            return False
        end = self.ends[count - 1] if count else 0
        return self._bytes[:end] == other._bytes[:end] and self.first == other.first

    def differs_at(self, other: Text) -> int:
        """The number of the first statement that is not the same in another text."""
        low, high = 0, min(len(self.ends), len(other.ends))
        while low < high:
            middle = (low + high + 1) // 2
            if self.begins_like(other, middle):
                low = middle
            else:
                high = middle - 1
        return low

    def compile(self, start: int = -1) -> CodeType:
        """The code of the whole module, or of what comes from a statement on, with its ticks.

        Args:
            start: number of the first statement; -1 for the whole.
        """
        body, flags = self.tree.body, 0
        kept: list[ast.stmt] = []
        if start < 0:
            kept, start = body[: self.first], self.first
        else:
            for node in _preamble(body):
                if isinstance(node, ast.ImportFrom):
                    flags |= _flags(node)
            kept = _names_imported(body[:start])
        for number in range(start, len(body)):
            kept += [_tick(number, body[number]), body[number]]
        last = body[-1] if body else ast.Pass(lineno=1, col_offset=0, end_lineno=1, end_col_offset=0)
        kept.append(_tick(len(body), last))
        module = ast.Module(body=kept, type_ignores=[])
        code: CodeType = compile(module, self.path, "exec", flags=flags, dont_inherit=True)
        return code

    def annotates(self) -> bool:
        """Whether executing the module makes `__annotations__`."""
        return any(isinstance(node, ast.AnnAssign) for node in _of_module(self.tree.body))


def _preamble(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The docstring and the `__future__` imports, which must come first."""
    for number, node in enumerate(body):
        constant = node.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else None
        is_docstring = number == 0 and constant is not None and isinstance(constant.value, str)
        if not is_docstring and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            return
        yield node


def _flags(node: ast.ImportFrom) -> int:
    """What an import from `__future__` means to the compiler: nothing, if that is the present by now."""
    flags = 0
    for feature in (getattr(__future__, alias.name) for alias in node.names):
        mandatory = feature.getMandatoryRelease()
        if mandatory is None or mandatory > sys.version_info:
            flags |= feature.compiler_flag
    return flags


def _names_imported(body: list[ast.stmt]) -> list[ast.stmt]:
    """Nothing to be executed: it only has the compiler know which names are those of modules.

    It calls their functions by other instructions, to which it gives other places.
    """
    known: list[ast.stmt] = []
    for node in _of_module(body):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            node = ast.copy_location(ast.Import(names=node.names), node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            known.append(node)
    if not known:
        return []
    test = ast.copy_location(ast.Constant(value=False), known[0])
    return [ast.copy_location(ast.If(test=test, body=known, orelse=[]), known[0])]


def _of_module(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that are executed in the module's own scope."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for name in ("body", "orelse", "finalbody"):
                yield from _of_module(getattr(node, name, []))
            for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
                yield from _of_module(part.body)


def _tick(number: int, before: ast.stmt) -> ast.stmt:
    call = ast.Call(func=ast.Name(id=TICK, ctx=ast.Load()), args=[ast.Constant(value=number)], keywords=[])
    node = ast.Expr(value=call)
    for part in ast.walk(node):
        if isinstance(part, ast.expr | ast.stmt):
            part.lineno = part.end_lineno = before.lineno
            part.col_offset = part.end_col_offset = before.col_offset
    return node


class Execution:
    """A module that is being executed.

    Attributes:
        path: of its source.
        namespace: the module's.
        index: the number of the statement that is executed next, or being executed.
        line: where that statement begins.
        begins: no tick has been reached yet.
    """

    __slots__ = ("_constants", "_read", "_rest", "begins", "index", "line", "namespace", "path")

    def __init__(self, path: str, namespace: dict[str, object], read: Callable[[], bytes | None]) -> None:
        """Args: read: gives the bytes that were compiled; None when nobody has them any more."""
        self.path = path
        self.namespace = namespace
        self.index = 0
        self.line = 0
        self.begins = True
        self._read = read
        self._rest: CodeType | None = None
        self._constants: Constants = {}

    def read(self) -> bytes | None:
        """The bytes of what is executed; None when nobody has them any more."""
        return self._read()

    def keep(self, data: bytes | None) -> None:
        """From now on these are the bytes."""
        self._read = lambda: data

    def go_on_with(self, text: Text, number: int) -> None:
        """At the next tick leave the old code, and execute what comes in a newer text from a statement on.

        Raises:
            SyntaxError: of the kinds that only the compiler finds.
        """
        self._rest = text.compile(number)

    @property
    def is_outdated(self) -> bool:
        """Whether there is a newer text to go on with."""
        return self._rest is not None

    def leave(self, code: CodeType) -> None:
        """Execute no more of the code that was executed until now."""
        collect(code, self._constants)

    def rest(self) -> CodeType:
        """The code to go on with. Its constants are those of what was executed before."""
        code, self._rest = self._rest, None
        assert code is not None
        return share(code, self._constants)


class _Left(BaseException):
    """Raised at a tick to leave a frame whose module has a newer text."""


class Ticker:
    """Executes modules and calls back at their ticks.

    Attributes:
        stack: the modules that are being executed, the innermost last.
        execute: executes a module: `execute(execution, code)`, with whatever texts it has until its end.
    """

    def __init__(self, at: Callable[[Execution], None]) -> None:
        """Args: at: called at each tick of the innermost module; it may call `go_on_with` of any."""
        self.stack: list[Execution] = []
        self.execute = _execute_on(self.stack)
        self._tick = _tick_on(self.stack, at)

    def install(self) -> None:
        """Make the name known to compiled modules."""
        setattr(builtins, TICK, self._tick)

    def uninstall(self) -> None:
        """From now on ticks, of functions that are never called again, do nothing."""
        setattr(builtins, TICK, _nothing)


def _execute_on(stack: list[Execution]) -> FunctionType:
    def execute(execution: Execution, code: CodeType) -> None:
        stack.append(execution)
        try:
            while True:
                try:
                    exec(code, execution.namespace)
                except _Left:
                    pass
                else:
                    return
                code = execution.rest()
        finally:
            stack.remove(execution)

    return disguise(cast("FunctionType", execute))


def _tick_on(stack: list[Execution], at: Callable[[Execution], None]) -> FunctionType:
    def tick(number: int) -> None:
        if not stack:
            return
        execution = stack[-1]
        frame = sys._getframe(1)
        if execution.namespace is not frame.f_globals:
            return  # of another thread, or of code that was taken out of its module
        execution.index, execution.line = number, frame.f_lineno
        if not execution.is_outdated:
            at(execution)
        if execution.is_outdated:
            execution.leave(frame.f_code)
            raise _Left

    return disguise(cast("FunctionType", tick))


def _nothing(number: int) -> None:
    """A tick when nobody listens."""


def can_go_on(old: Text, new: Text, executed: int) -> bool:
    """Whether a module of which so many statements were executed can go on with a newer text.

    Of an outer module the statement that is being executed counts as executed.
    """
    if old.annotates() != new.annotates() or (_TYPED_LATE and new.annotates()):
        return False  # `__annotations__` is made at the start
    if any(isinstance(node, ast.Global) for node in _of_module(new.tree.body[executed:])):
        return False  # an error, if the name was used before, which the rest alone does not show
    return executed >= old.first and new.begins_like(old, executed)
