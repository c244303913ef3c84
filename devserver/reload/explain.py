"""What a change of a path would do, and by which rule: `--explain PATH`.

The application is loaded in a child just as `--reload` does it, and what it read is looked at; it is
never served. Decides nothing that is decided elsewhere: what counts stands in `rules` and
`timeline`, this module puts their answers into words.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Mapping

from devserver.config import Config
from devserver.process import Orphans, await_end, guard
from devserver.process.control import Closed
from devserver.reload import protocol
from devserver.reload.child import Child, describe_exit
from devserver.reload.spawner import Spawner
from devserver.watching import watch
from devserver.watching.answers import OWN, SUFFIXES, Entry, Question, module_place
from devserver.watching.project import library_folders
from devserver.watching.rules import Counts, Rules
from devserver.watching.watchset import admit, awaited_file, rules_of

NOT_KNOWN = "not known"
"""How a judgement begins that would need what the application did not come to read."""


def explain(config: Config, launcher: Spawner, paths: Iterable[str]) -> tuple[list[str], bool]:
    """Load the application and judge paths.

    Returns a line for each, after one for what went wrong, and whether all that they say is known.
    """
    with guard(lambda: None):
        orphans = Orphans()
        entries, trouble = _load(config, launcher)
        await_end(orphans.end())
    rules = rules_of(config)
    for _ in watch.walk(rules):
        pass  # it teaches the rules which folders are virtual environments
    if (file := awaited_file(config)) is not None:
        entries.append(Entry(Question.FILE, file, None))
    for entry in entries:
        admit(rules, entry)
    real = {os.path.realpath(entry.path): entry.path for entry in entries}
    lines = []
    if trouble:
        lines.append(f"the application could not be loaded, only what it read until then counts: {trouble}")
    for path in paths:
        known = os.path.abspath(path)
        if not any(entry.path == known for entry in entries):
            known = real.get(os.path.realpath(path), known)
        there = os.path.isdir(known), os.path.exists(known)
        lines.append(f"{path}: {judge(known, *there, entries, rules, complete=not trouble)}")
    return lines, not any(NOT_KNOWN in line for line in lines)


def _load(config: Config, launcher: Spawner) -> tuple[list[Entry], str]:
    """What loading the application reads, and what is wrong with it."""
    child = launcher.launch(protocol.APP)
    child.boot(protocol.Boot(config.to_json()), 1, [])
    entries: list[Entry] = []
    try:
        trouble = _listen(child, entries, config.reload.load_timeout)
        # It is no more than loaded, and leaves at once, by its exit handlers.
        child.tell(protocol.Retire(0.0, restart=False))
        select.select([child.process.channel], [], [], config.reload.grace)
    finally:
        child.discard()
    return entries, trouble


def _listen(child: Child, entries: list[Entry], timeout: float) -> str:
    end = time.monotonic() + timeout
    channel = child.process.channel
    while select.select([channel], [], [], max(0.0, end - time.monotonic()))[0]:
        try:
            messages = channel.receive()
        except Closed:
            return f"its process {describe_exit(child.process.wait())}"
        for message, _ in messages:
            match protocol.said(message):
                case protocol.Read(entries=data):
                    entries += map(Entry.from_json, data)
                case protocol.Loaded():
                    return ""
                case protocol.Failed(error=error):
                    return error
    return f"still loading after {timeout:g} s (--load-timeout)"


def judge(
    path: str, folder: bool, exists: bool, entries: list[Entry], rules: Rules, *, complete: bool = True
) -> str:
    """Say what a change of a path would do.

    Args:
        path: absolute, as the application spells it.
        folder, exists: what is there now.
        entries: what loading the application read.
        rules: the rules of the `--reload-*` options.
        complete: whether these are all that it would read.
    """
    verdict = rules.verdict(path, folder)
    if verdict.kind is Counts.NEVER:
        return f"would not restart: ignored by {_quoted(verdict.rule)}"
    if any(entry.path == path and (entry.answer == OWN or entry.own) for entry in entries):
        return "would not restart: the application writes it itself"
    reason = _reason(path, exists, entries)
    if reason:
        return f"would restart: {reason}"
    if verdict.kind is Counts.ALWAYS and not folder:
        return f"would restart: {_quoted(verdict.rule)}"
    if exists and any(entry.kind is Question.PATH and entry.path == path for entry in entries):
        return "would not restart: not read, but looked for and found; to remove it would restart"
    if exists and any(
        entry.kind is Question.LIST and entry.path == os.path.dirname(path) for entry in entries
    ):
        return "would not restart: not read, but its folder was listed; to remove it would restart"
    if not complete and not path.startswith(library_folders()):
        return f"{NOT_KNOWN}: it was not read until then, and may be later"
    if not exists:
        return "would not restart: there is no such path, and nothing looked for it"
    if path.startswith(library_folders()):
        return (
            "would not restart: it is Python's or an installed package's;"
            " --reload-dir watches it all the same"
        )
    return "would not restart: not read while the application was loaded"


def _reason(path: str, exists: bool, entries: list[Entry]) -> str:
    """Why a change of a path is another answer to what was asked; "" if it is none."""
    names = {entry.path: entry.answer for entry in entries if entry.kind is Question.NAME}
    names.update({module_place(entry.path): entry.names for entry in entries if entry.names is not None})
    for entry in entries:
        if entry.path == path and entry.kind is Question.FILE:
            module = _module(path, names)
            return f"executed as module {module}" if module else "read at load"
        if entry.path == path and entry.kind is Question.LIST:
            return "its names were listed"
        if entry.path == path and entry.kind is Question.PATH and not entry.answer:
            return "looked for, not found"
        if entry.path == os.path.dirname(path) and entry.kind is Question.LIST and not exists:
            return "its folder was listed"
    if not exists and path.endswith(SUFFIXES) and (found := names.get(module_place(path))) is not None:
        return f"{found} was found in the same place" if found else "looked for, not found"
    return ""


def _module(path: str, names: Mapping[str, str | None]) -> str:
    """The dotted name by which a file was imported; "" if it was not."""
    at = module_place(path)
    if not path.endswith(".py") or at not in names:
        return ""
    parts = []
    while at in names:
        at, name = os.path.split(at)
        parts.append(name)
    return ".".join(reversed(parts))


def _quoted(rule: str) -> str:
    """A rule as it would be typed."""
    option, _, pattern = rule.partition(" ")
    if option in ("--reload-include", "--reload-exclude"):
        return f"{option} {pattern!r}"
    return rule.replace("always out: ", "the built-in list, ")
