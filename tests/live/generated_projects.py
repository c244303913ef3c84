"""Random projects and random edits of them, from a seed.

A project is a model in memory; `write` brings a folder up to it. An edit changes the model. Whoever runs
both decides when, and how files are saved.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.live.generated_statements import MAIN, NEEDED, OPTIONAL, REGISTRY, SHADOWING, Statements


@dataclass
class Module:
    """The text of a module.

    Attributes:
        head: a docstring and imports from `__future__`, if any.
        body: its statements.
        tail: what always stands at its end.
        cut: how much of it is there: half a save, or a slip of the hand.
    """

    name: str
    is_package: bool = False
    head: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    tail: str = ""
    newline: str = "\n"
    coding: str = "utf-8"
    ends: bool = True
    cut: float = 1.0

    @property
    def path(self) -> str:
        """Of its file."""
        return self.name.replace(".", "/") + ("/__init__.py" if self.is_package else ".py")

    def data(self) -> bytes:
        """What is in its file."""
        cookie = [] if self.coding.startswith("utf-8") else [f"# -*- coding: {self.coding} -*-"]
        text = "\n".join([*cookie, *self.head, *self.body, *([self.tail] if self.tail else [])])
        text = (text + "\n" if self.ends else text).replace("\n", self._newline())
        data = text.encode(self.coding, "backslashreplace")
        return data[: int(len(data) * self.cut)]

    def _newline(self) -> str:
        # `tokenize` finds no cookie in a file of which it takes all for the first line.
        return "\n" if self.newline == "\r" and not self.coding.startswith("utf-8") else self.newline


class Project:
    """See the module.

    Attributes:
        modules: by name.
        data: other files, by path.
        past: what it was before each of the last edits.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.statements = Statements(self.rng)
        self.modules: dict[str, Module] = {}
        self.past: list[Snapshot] = []
        self.data = {
            "data/a.txt": b"a", "data/b.json": b'{"b": 1}', "data/sub/c.txt": b"c",
            "plugs/__init__.py": b"", "plugs/p1.py": b"import registry\nregistry.note('plug', 1)\n",
        }  # fmt: skip
        if self.rng.random() < 0.5:
            self.data["optional1.py"] = b"VALUE = 1\n"
        self._make()

    def _make(self) -> None:
        names = ["m1"]
        packages = [""]
        for number in range(2, self.rng.randint(3, 11)):
            parent = self.rng.choice(packages)
            if self.rng.random() < 0.3:
                names.append(f"{parent}pkg{number}")
                packages.append(f"{parent}pkg{number}.")
            else:
                names.append(f"{parent}m{number}")
        self._packages = [name[:-1] for name in packages if name]
        for name in names:
            self.modules[name] = self._module(name, self.rng.randint(2, 14))
        main = self._module("main", self.rng.randint(4, 12))
        main.tail = MAIN
        main.body.append("def lazily():\n    import late")
        self.modules["main"] = main
        self.modules["late"] = self._module("late", self.rng.randint(1, 8))
        for _ in range(self.rng.randint(0, 2)):  # circles
            module = self.rng.choice(list(self.modules.values()))
            other = self.rng.choice(names)
            module = self.modules["main"] if module.name == "late" else module
            module.body.insert(self._place(module), f"import {other}")

    def _module(self, name: str, count: int) -> Module:
        rng = self.rng
        module = Module(name, is_package=name in self._packages)
        if rng.random() < 0.5:
            module.head.append(f'"""Module {self.statements.fresh()}.\n\nMore.\n"""')
        if rng.random() < 0.3:
            module.head.append("from __future__ import annotations")
        module.newline = rng.choice(("\n", "\n", "\n", "\r\n", "\r"))
        module.coding = rng.choice(("utf-8", "utf-8", "latin-1", "utf-8-sig", "cp1252"))
        module.ends = rng.random() < 0.8
        module.body = [*NEEDED, f"NAME = {name!r}"]
        if name == "main":
            module.body += (f"import {other}" for other in self.modules)
        for _ in range(count):
            module.body.append(self.statement(module))
        return module

    def statement(self, module: Module) -> str:
        """A new one for a module."""
        made = self.statements
        before = list(self.modules)
        before = before[: before.index(module.name)] if module.name in before else before
        made.name, made.others, made.every = module.name, before, list(self.modules) or [module.name]
        made.late = module.name == "late"
        made.is_package, made.parent = module.is_package, module.name.rpartition(".")[0]
        return made.one()

    def _place(self, module: Module) -> int:
        return self.rng.randint(len(NEEDED) + 1, len(module.body))

    def files(self) -> dict[str, bytes]:
        """All files, by path."""
        files = {"registry.py": REGISTRY.encode(), "statedump.py": DUMP.read_bytes(), **self.data}
        files.update((module.path, module.data()) for module in self.modules.values())
        return files

    # edits

    def edit(self) -> str:
        """Change something. Returns what."""
        if self.rng.random() < 0.15:
            names = [self.edit() for _ in range(self.rng.randint(2, 3))]
            return " + ".join(names)
        self.past = [*self.past[-9:], self.snapshot()]
        edit = self.rng.choice(EDITS)
        return f"{edit.__name__.strip('_')} {edit(self)}"

    def snapshot(self) -> Snapshot:
        """What `restore` takes."""
        return copy.deepcopy(self.modules), dict(self.data)

    def restore(self, snapshot: Snapshot) -> None:
        """Be as it was."""
        self.modules, self.data = copy.deepcopy(snapshot[0]), dict(snapshot[1])

    def some(self) -> Module:
        """A module; `main` more often."""
        main = self.modules["main"]
        return self.rng.choice([*self.modules.values(), main, main])


Snapshot = tuple[dict[str, Module], dict[str, bytes]]
"""The modules and the other files, copied."""

DUMP = Path(__file__).with_name("state_dump.py")


def _insert(p: Project) -> str:
    module = p.some()
    module.body.insert(p._place(module), p.statement(module))
    return module.path


def _append(p: Project) -> str:
    module = p.some()
    module.body.append(p.statement(module))
    return module.path


def _replace(p: Project) -> str:
    module = p.some()
    place = p._place(module)
    if place < len(module.body) and "lazily" not in module.body[place]:
        module.body[place] = p.statement(module)
    return module.path


def _delete(p: Project) -> str:
    module = p.some()
    place = p._place(module)
    if place < len(module.body) and "lazily" not in module.body[place]:
        del module.body[place]
    return module.path


def _swap(p: Project) -> str:
    module = p.some()
    place = p._place(module)
    if place + 1 < len(module.body):
        module.body[place], module.body[place + 1] = module.body[place + 1], module.body[place]
    return module.path


def _change_a_number(p: Project) -> str:
    """Within a statement, a function's body or a comment; the length stays, most often."""
    module = p.some()
    place = p._place(module)
    if place < len(module.body) and not re.search("sleep|linecache", module.body[place]):
        module.body[place] = re.sub(
            r"(?<![\w.])\d+", lambda m: str(p.rng.randrange(100)), module.body[place], count=1
        )
    return module.path


def _edit_a_function(p: Project) -> str:
    module = p.some()
    for place in p.rng.sample(range(len(module.body)), len(module.body)):
        if re.match(r"(@.*\n)?def [ftd]\d+", module.body[place]):
            lines = module.body[place].split("\n")
            lines.insert(
                len(lines) - 1,
                lines[-1][: len(lines[-1]) - len(lines[-1].lstrip())] + f"_ = {p.statements.fresh()}",
            )
            module.body[place] = "\n".join(lines)
            break
    return module.path


def _comment(p: Project) -> str:
    module = p.some()
    module.body.insert(p._place(module), p.rng.choice(("", "# a comment", "#\n\n", "\f")))
    return module.path


def _comment_behind(p: Project) -> str:
    module = p.some()
    place = p._place(module) - 1
    if "\n" not in module.body[place] and "\\" not in module.body[place]:
        module.body[place] += p.rng.choice(
            (
                "  # behind",
                " ",
                ";"
                if module.body[place].strip()
                and "#" not in module.body[place]
                and ";" not in module.body[place]
                and not module.body[place].startswith("if ")
                else "",
            )
        )
    return module.path


def _join_else(p: Project) -> str:
    module = p.some()
    place = p._place(module) - 1
    text = module.body[place]
    if text.startswith(("for ", "while ", "try:", "if ")) and "else" not in text and "finally" not in text:
        module.body[place] = text + f"\nelse:\n    note('joined', {p.statements.fresh()})"
    return module.path


def _head(p: Project) -> str:
    module = p.some()
    module.head = p.rng.choice(
        ([], ['"""Doc."""'], ["'Other'", "from __future__ import annotations"], ["# first", *module.head],
         ["from __future__ import annotations"], [*module.head, "from __future__ import generator_stop"],
         ['"""Doc."""; from __future__ import annotations'])
    )  # fmt: skip
    return module.path


def _form(p: Project) -> str:
    module = p.some()
    what = p.rng.randrange(3)
    if what == 0:
        module.newline = p.rng.choice(("\n", "\r\n", "\r"))
    elif what == 1:
        module.coding = p.rng.choice(("utf-8", "latin-1", "utf-8-sig", "cp1252"))
    else:
        module.ends = not module.ends
    return module.path


def _data(p: Project) -> str:
    path = p.rng.choice(
        ("data/a.txt", "data/b.json", "data/sub/c.txt", "data/missing.txt", "data/new.txt", "data/x.json")
    )
    if path in p.data and p.rng.random() < 0.4:
        del p.data[path]
    else:
        p.data[path] = json.dumps(p.rng.randrange(100)).encode()
    return path


def _optional(p: Project) -> str:
    path = p.rng.choice(
        (*(f"{name.replace('.', '/')}.py" for name in OPTIONAL), "optional1/__init__.py", "space/__init__.py")
    )
    if path in p.data and p.rng.random() < 0.6:
        del p.data[path]
    else:
        p.data[path] = f"import registry\nVALUE = {p.rng.randrange(10)}\nregistry.note(__name__)\n".encode()
    return path


def _shadow(p: Project) -> str:
    """A module of the project stands for one of Python's, or does so no more."""
    path = f"{p.rng.choice(SHADOWING)}.py"
    if p.data.pop(path, None) is None:
        p.data[path] = f"import registry\nregistry.note(__name__, {p.rng.randrange(9)})\n".encode()
    return path


def _plug(p: Project) -> str:
    number = p.rng.randint(1, 3)
    path = f"plugs/p{number}.py"
    if path in p.data and p.rng.random() < 0.5:
        del p.data[path]
    else:
        p.data[path] = f"import registry\nregistry.note('plug', {number}, {p.rng.randrange(9)})\n".encode()
    return path


def _package(p: Project) -> str:
    """A module becomes a package, or one without submodules a module."""
    module = p.some()
    if module.name not in ("main", "late") and not any(
        name.startswith(module.name + ".") for name in p.modules
    ):
        old, new = ("from ..", "from .") if module.is_package else ("from .", "from ..")
        module.body = [text.replace(old, new) for text in module.body]
        module.is_package = not module.is_package
    return module.name


def _rename(p: Project) -> str:
    module = p.some()
    last = module.name.rpartition(".")[2]
    kind = last.rstrip("0123456789")
    if kind not in ("m", "pkg"):
        return "nothing"
    new = f"{kind}{p.statements.fresh() + 100}"
    old_name, new_name = module.name, module.name[: -len(last)] + new
    renamed: dict[str, Module] = {}
    for name, each in p.modules.items():
        each.body = [re.sub(rf"\b{last}\b", new, text) for text in each.body]
        each.name = re.sub(rf"^{re.escape(old_name)}(?=$|\.)", new_name, name)
        renamed[each.name] = each
    p.modules = renamed
    return f"{old_name} -> {new_name}"


def _same(p: Project) -> str:
    return "nothing"


def _undo(p: Project) -> str:
    """As version control does: many files at once are what they were."""
    p.restore(p.rng.choice(p.past))
    return "some edits"


def _move(p: Project) -> str:
    """A statement from one module to another."""
    module, other = p.some(), p.some()
    place = p._place(module)
    if (
        place < len(module.body)
        and other.name != "late"
        and not re.search(r"lazily|from \.", module.body[place])
    ):
        other.body.insert(p._place(other), module.body.pop(place))
    return f"{module.path} -> {other.path}"


def _beside(p: Project) -> str:
    """In a folder or an archive that may be on the path, or is part of a package without a text."""
    name = p.rng.choice((*OPTIONAL, *SHADOWING, "m1")).replace(".", "/") + ".py"
    path = p.rng.choice((f"lib/{name}", f"lib/{name}", "lib.zip"))
    if p.data.pop(path, None) is None:
        text = f"import registry\nVALUE = {p.rng.randrange(10)}\nregistry.note(__name__, 'lib')\n"
        p.data[path] = _archive(name, text) if path == "lib.zip" else text.encode()
    return path


def _archive(name: str, text: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr(zipfile.ZipInfo(name), text)
    return data.getvalue()


def _link(p: Project) -> str:
    """A link that leads elsewhere, or is no link any more."""
    p.data["data/link"] = p.rng.choice((b"-> a.txt", b"-> b.json", b"-> sub", b"-> gone", b"a link no more"))
    return "data/link"


EDITS: list[Callable[[Project], str]] = [
    *[_insert, _append, _replace, _delete, _change_a_number] * 3, *[_edit_a_function, _comment, _data] * 2,
    _swap, _comment_behind, _join_else, _head, _form, _optional, _plug, _shadow, _package, _rename, _same,
    _undo, _move, _beside, _link,
]  # fmt: skip

BREAKS = (
    "x = (", "def broken(:", "raise RuntimeError('out of cheese')", "import sys; sys.exit(3)", "import nowhere_at_all",
    "raise KeyboardInterrupt", "1 / 0", "return 1", "  indented = 1", "sys.exit()", "from registry import nothing",
    "def f():\n    raise LookupError('deep')\nf()", "'unterminated", "nonlocal x", "raise SystemExit('words')",
    "exec('x = = 1')", "raise registry.Odd", "async with x: pass", "x = '\\N{no such name}'", "break",
    "class X(Exception):\n    pass\ntry:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise X from e",
)  # fmt: skip


def break_something(p: Project) -> str:
    """Have some module fail, most often."""
    module, how = p.some(), p.rng.choice(BREAKS)
    if p.rng.random() < 0.2:
        module.cut = p.rng.choice((0.0, p.rng.random()))
        return f"cut {module.path}"
    module.body.insert(p._place(module), how)
    return f"break {module.path} by {how!r}"


def write(folder: Path, before: dict[str, bytes], after: dict[str, bytes], rng: random.Random) -> None:
    """Bring the files from one state to another, in random order and manners."""
    paths = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    rng.shuffle(paths)
    for path in paths:
        place = folder / path
        if path not in after:
            place.unlink()
            _clear(place.parent, folder)
            continue
        _make_room(place, folder)
        _save(place, after[path], rng)
    if rng.random() < 0.15:
        path = rng.choice([path for path in after if path != "data/link"])
        os.utime(folder / path) if rng.random() < 0.5 else _save(folder / path, after[path], rng)


def _save(place: Path, data: bytes, rng: random.Random) -> None:
    if place.name == "link":
        place.unlink(missing_ok=True)
        if data.startswith(b"-> "):
            place.symlink_to(data[3:].decode())
            return
    manner, beside = rng.randrange(7), place.with_name(place.name + "~")
    if manner == 4 and place.exists():
        place.unlink()
    if manner == 5 and place.exists():
        place.rename(beside)
        place.write_bytes(data)
        beside.unlink()
        return
    if manner == 6:
        with place.open("wb", buffering=0) as file:
            file.write(data[: len(data) // 2])
            file.write(data[len(data) // 2 :])
        return
    if manner == 0:
        beside.write_bytes(data)
        beside.rename(place)
        return
    status = place.stat() if place.exists() else None
    place.write_bytes(data)
    if manner == 1 and status is not None:
        os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))


def _make_room(place: Path, folder: Path) -> None:
    for parent in reversed(place.relative_to(folder).parents):
        (folder / parent).mkdir(exist_ok=True)


def _clear(where: Path, folder: Path) -> None:
    while where != folder:
        names = {each.name for each in where.iterdir()}
        if names - {"__pycache__"}:
            return
        for each in where.glob("__pycache__/*"):
            each.unlink()
        if names:
            (where / "__pycache__").rmdir()
        where.rmdir()
        where = where.parent
