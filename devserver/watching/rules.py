"""Which changes count: one gitignore-like rule behind three options, the same for every watcher.

By default a change counts if the file was read. `--reload-dir` and `--reload-include` make it count
read or not; `--reload-exclude` and a built-in list make it never count.

Patterns are gitignore's: `*`, `?`, `[..]`, `**`; a `/` at the beginning or inside anchors to the
project or to any `--reload-dir`, else a name is meant wherever it stands; a `/` at the end means
folders only; a folder's pattern covers all below it; `!` takes back what an earlier pattern of the
same option said; `\\` makes the next character plain. Absolute paths and plain paths work as they
are: `/data` means both the project's and the system's. `./` and `../` start from the project.

A path is judged from the project downwards, folder by folder, and what its parent was holds until
something matches it:

- Deeper beats higher. At the same place `--reload-exclude` beats `--reload-include`, that beats the
  built-in list, and that beats `--reload-dir`. Among patterns of one option the last one wins.
- Below a folder that is out, a pattern matches only if it names that folder in plain letters.
- Something on the built-in list comes back only by its own name (`node_modules`, `*.tmp`), not
  because `*` happens to match it. The project and each `--reload-dir` are named by being given.

What a folder above the project is called says nothing. A file outside is judged by its own name, by
absolute patterns, and by known virtual environments.

This module refuses to know the file system: it is told which folders are virtual environments.
"""

import enum
import functools
import itertools
import posixpath
import re
import sys
from collections.abc import Iterable
from typing import NamedTuple

TEMPORARY = (
    "*~",  # backups: vim, emacs, gedit
    ".*.sw?",  # vim's swap
    "4913",  # vim asks by it whether it may write in the folder
    ".#*",  # emacs' locks
    "#*#",  # emacs' automatic saves
    "*___jb_tmp___",  # JetBrains: the new text
    "*___jb_old___",  # JetBrains: the old text
    ".goutputstream-*",  # GLib: the new text
    ".subl*.tmp",  # Sublime Text: the new text
    "*.tmp",  # everybody's "write, then rename"; transient, so a listing must not depend on it
)
"""Names that editors give to files of their own beside the edited one."""

OUT = (
    *(".git", ".hg", ".svn", ".jj"),
    *("__pycache__", "*.pyc", "*.pyo"),
    *("node_modules", "site-packages"),
    *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox"),
    *TEMPORARY,
)
"""What never counts unless `--reload-include` names it."""

_WINDOWS = sys.platform == "win32"
_FLAGS = re.DOTALL | (re.IGNORECASE if _WINDOWS else re.NOFLAG)
_TOKEN = re.compile(
    r"(?P<deep>(?<![^/])\*\*/)|(?P<all>(?<![^/])\*\*$)|(?P<many>\*+)|(?P<one>\?)"
    r"|\[(?P<set>[!^]?\]?[^\]]*)\]|\\(?P<plain>.)|(?P<char>.)",
    re.DOTALL,
)
_WILD = re.compile(r"[*?\[\\]")
_DRIVE = re.compile(r"[A-Za-z]:/")


class Counts(enum.Enum):
    """When a change of a path counts."""

    READ = "if it was read"
    ALWAYS = "read or not"
    NEVER = "never"


class Verdict(NamedTuple):
    """What the rules say of a path, and the rule that said it."""

    kind: Counts
    rule: str


class _Pattern(NamedTuple):
    """One pattern of an option, compiled.

    Attributes:
        verdict: what it says of the paths that it matches.
        regex: for the whole path if `anchored`, else for the name.
        heads: where an anchored pattern may match: its beginning in plain letters, as paths.
        last: its last name, as it was written.
    """

    verdict: Verdict
    regex: re.Pattern[str]
    heads: tuple[str, ...]
    last: str
    anchored: bool
    negated: bool
    folders_only: bool

    def matches(self, path: str, folder: bool) -> bool:
        subject = path if self.anchored else posixpath.basename(path)
        return (folder or not self.folders_only) and self.regex.fullmatch(subject) is not None

    def reaches(self, folder: str) -> bool:
        """Say whether the pattern names `folder`, or something below it, in plain letters."""
        return any(_is_below(head, folder) for head in self.heads)

    def names(self, builtin: Verdict) -> bool:
        """Say whether what `builtin` leaves out is meant, and not only matched by chance."""
        return not _WILD.search(self.last) or builtin.rule == _builtin_rule(self.last)


class _State(NamedTuple):
    """A verdict, with the option and the path that brought it."""

    verdict: Verdict
    option: int = -1
    at: str = ""

    @property
    def out(self) -> bool:
        return self.verdict.kind is Counts.NEVER


_READ = _State(Verdict(Counts.READ, "only what was read counts"))
_EXCLUDE, _INCLUDE, _BUILTIN, _DIR = range(4)  # the strongest first


class Rules:
    """The rules of one project.

    Args:
        dirs: folders of `--reload-dir`; relative ones start from `root`.
        include: patterns of `--reload-include`.
        exclude: patterns of `--reload-exclude`.
        root: the project's folder, absolute.
        environments: virtual environments known so far (folders that hold a pyvenv.cfg).
        also: more folders of the project, absolute.
    """

    def __init__(
        self,
        dirs: tuple[str, ...],
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        root: str,
        environments: Iterable[str] = (),
        also: Iterable[str] = (),
    ) -> None:
        self._root = _plain(root)
        self._dirs = tuple(posixpath.normpath(posixpath.join(self._root, _plain(path))) for path in dirs)
        self._bases = frozenset({self._root, *self._dirs, *map(_plain, also)})
        self._exclude = [self._compile(text, Counts.NEVER, "--reload-exclude") for text in exclude]
        self._include = [self._compile(text, Counts.ALWAYS, "--reload-include") for text in include]
        self._environments = {_plain(path) for path in environments}
        self._states: dict[str, _State] = {}  # of folders
        heads = {head for pattern in self._exclude + self._include for head in pattern.heads}
        # Where judging begins: above them no name says anything.
        self._tops = self._bases | heads | self._environments

    def verdict(self, path: str, folder: bool = False) -> Verdict:
        """Judge the absolute `path`; `folder` if it is known to be one."""
        path = _plain(path)
        return (self._folder_state(path) if folder else self._state(path, False)).verdict

    def closed(self, folder: str) -> bool:
        """Say whether nothing below `folder` can count, so that it need not be entered."""
        folder = _plain(folder)
        state = self._folder_state(folder)
        return state.out and not any(
            _is_below(head, state.at) and (_is_below(folder, head) or _is_below(head, folder))
            for pattern in [*self._include, *(taken for taken in self._exclude if taken.negated)]
            for head in pattern.heads
        )

    @property
    def excludes(self) -> bool:
        """Whether there are patterns of `--reload-exclude`."""
        return bool(self._exclude)

    def trees(self) -> list[str]:
        """Give the folders (or files, or nothing yet) below which a change may count, read or not."""
        found = set(self._dirs)
        for pattern in self._include:
            if not pattern.negated:
                found.update(pattern.heads if pattern.anchored else self._bases)
        return sorted(found)

    def add_environment(self, folder: str) -> None:
        """Learn that `folder` is a virtual environment."""
        self._environments.add(_plain(folder))
        self._tops |= self._environments
        self._states.clear()

    def add_base(self, folder: str) -> None:
        """Learn that `folder` is one of the project's, though it lies where none of them is looked for."""
        if (path := _plain(folder)) not in self._bases:
            self._bases |= {path}
            self._tops |= {path}
            self._states.clear()

    def include(self, text: str) -> None:
        """Learn of one more pattern of `--reload-include`."""
        pattern = self._compile(text, Counts.ALWAYS, "--reload-include")
        if all(known.verdict != pattern.verdict for known in self._include):
            self._include.append(pattern)
            self._tops |= set(pattern.heads)
            self._states.clear()

    def _folder_state(self, path: str) -> _State:
        state = self._states.get(path)
        if state is None:
            state = self._states[path] = self._state(path, True)
        return state

    def _state(self, path: str, folder: bool) -> _State:
        above = posixpath.dirname(path)
        inside = above != path and any(_is_below(above, top) for top in self._tops)
        return self._decide(path, folder, self._folder_state(above) if inside else _READ)

    def _decide(self, path: str, folder: bool, state: _State) -> _State:
        """Let the options speak about `path`, the strongest first; `state` is its parent's."""
        named = path in self._bases
        if named and state.out:
            state = _READ
        builtin = None if named else self._find_builtin(path)
        for option in (_EXCLUDE, _INCLUDE, _BUILTIN, _DIR):
            if option == _BUILTIN:
                if builtin is not None:
                    return _State(builtin, option, path)
            elif option == _DIR:
                if not state.out and (verdict := self._find_dir(path)) is not None:
                    return _State(verdict, option, path)
            elif (pattern := self._find(option, path, folder)) is not None:
                excluding = option == _EXCLUDE and not pattern.negated
                if state.out and not excluding and not pattern.reaches(state.at):
                    continue
                if pattern.negated:
                    state = _READ if state.option == option else state
                elif option == _EXCLUDE or builtin is None or pattern.names(builtin):
                    return _State(pattern.verdict, option, path)
        return state

    def _find(self, option: int, path: str, folder: bool) -> _Pattern | None:
        """Give the last pattern of `option` that matches; what a base is called says nothing."""
        named = path in self._bases
        for pattern in reversed(self._exclude if option == _EXCLUDE else self._include):
            if (pattern.anchored or not named) and pattern.matches(path, folder):
                return pattern
        return None

    def _find_builtin(self, path: str) -> Verdict | None:
        if path in self._environments:
            return Verdict(Counts.NEVER, f"virtual environment: {path}")
        name = posixpath.basename(path)
        if _any_of(OUT).fullmatch(name) is None:
            return None
        text = next(text for text in OUT if _any_of((text,)).fullmatch(name))
        return Verdict(Counts.NEVER, _builtin_rule(text))

    def _find_dir(self, path: str) -> Verdict | None:
        for base in self._dirs:
            if path.endswith(".py") and _is_below(path, base):
                return Verdict(Counts.ALWAYS, f"--reload-dir {base}: *.py")
        return None

    def _compile(self, text: str, kind: Counts, option: str) -> _Pattern:
        negated = text.startswith("!")
        body = _slashed(text[negated:])
        starts, names = _locate(body, self._root, self._bases)
        return _Pattern(
            verdict=Verdict(kind, f"{option} {text}"),
            regex=_compile_regex(starts, names),
            heads=_find_heads(starts, names),
            last=names[-1] if names else "",
            anchored=bool(starts),
            negated=negated,
            folders_only=body.endswith("/"),
        )


def temporary(name: str) -> bool:
    """Say whether an editor (or "write, then rename") makes files of this name and removes them again."""
    return _any_of(TEMPORARY).fullmatch(name) is not None


def passing(name: str) -> bool:
    """Say whether a name comes and goes in a folder without saying anything about the project."""
    return name == "__pycache__" or name.endswith((".pyc", "-journal", "-wal", "-shm")) or temporary(name)


def _slashed(path: str) -> str:
    return path.replace("\\", "/") if _WINDOWS else path


def _plain(path: str) -> str:
    return _slashed(path).rstrip("/") or "/"


def _is_below(path: str, top: str) -> bool:
    """Say whether `path` is `top` or lies below it."""
    return path == top or path.startswith(top if top.endswith("/") else top + "/")


def _builtin_rule(text: str) -> str:
    return f"always out: {text}"


def _locate(body: str, root: str, bases: Iterable[str]) -> tuple[list[str], list[str]]:
    """Give the folders from which a pattern starts (none: it is a name, anywhere) and its names."""
    names = [name for name in body.split("/") if name]
    if names and names[0] in (".", ".."):
        while names and names[0] in (".", ".."):
            root = posixpath.dirname(root) if names.pop(0) == ".." else root
        return [root], names
    if _DRIVE.match(body):
        return names[:1], names[1:]
    if "/" not in body.rstrip("/"):
        return [], names
    starts = [base.rstrip("/") for base in sorted(bases)]
    return [*starts, ""] if body.startswith("/") else starts, names  # "": the system's root


def _find_heads(starts: list[str], names: list[str]) -> tuple[str, ...]:
    plain = list(itertools.takewhile(lambda name: not _WILD.search(name), names))
    heads = ("/".join([start, *plain]) for start in starts)
    return tuple(head for head in heads if head)


def _compile_regex(starts: list[str], names: list[str]) -> re.Pattern[str]:
    """Compile a pattern that is a glob or, since paths may hold brackets, the plain text."""
    body = "/".join(names)
    start = "|".join(map(re.escape, starts))
    before = f"(?:{start})" + ("/" if names else "") if starts else ""
    try:
        return re.compile(f"{before}(?:{_TOKEN.sub(_translate, body)}|{re.escape(body)})", _FLAGS)
    except re.error:  # a range such as [z-a]
        return re.compile(before + re.escape(body), _FLAGS)


def _translate(token: re.Match[str]) -> str:
    """Give the regular expression for one token of a gitignore pattern."""
    kind = token.lastgroup or "char"
    if kind == "set":
        text = token["set"]
        negation = "^" if text[0] in "!^" else ""
        inside = re.sub(r"([\\\[&~|^])", r"\\\1", text[len(negation) :])
        return f"(?!/)[{negation}{inside}]"
    return _REGEX.get(kind) or re.escape(token[kind])


_REGEX = {"deep": "(?:[^/]+/)*", "all": ".+", "many": "[^/]*", "one": "[^/]"}


@functools.cache
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(_TOKEN.sub(_translate, text) for text in patterns), _FLAGS)
