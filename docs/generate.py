"""Writes the parts of these pages that are made from the code: the diagrams in states.md.

python docs/generate.py          writes them
python docs/generate.py --check  fails if they are not as they would be written
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from devserver.child import machine as child
from devserver.reload.machine import APART, TABLE, Event, State

PAGE = Path(__file__).with_name("states.md")
APART_FROM_ARROWS = (Event.STOP, Event.PAGE_LOST)
"""Events that may come in most states and are told in words: their arrows would hide the others."""


def diagram() -> str:
    """The supervisor's table as a state diagram for Mermaid: an arrow for each pair of states."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for table, mark in ((TABLE, ""), (APART, " *")):
        for (state, event), (after, _) in table.items():
            known = TABLE.get((state, event)) if mark else None
            if event not in APART_FROM_ARROWS and (known is None or known[0] != after):
                arrows.setdefault((state, after), []).append(_name(event) + mark)
    lines = ["stateDiagram-v2", f"    [*] --> {State.STARTING.name}"]
    lines += [
        f"    {state.name} --> {after.name}: {', '.join(events)}" for (state, after), events in arrows.items()
    ]
    return "\n".join([*lines, f"    {State.STOPPED.name} --> [*]"])


def child_diagram() -> str:
    """The child's table, likewise."""
    arrows: dict[tuple[child.State, child.State], list[str]] = {}
    for (state, event), (after, _) in child.TABLE.items():
        if state is not after:
            arrows.setdefault((state, after), []).append(_name(event))
    lines = ["stateDiagram-v2", f"    [*] --> {child.State.LOADING.name}"]
    lines += [
        f"    {state.name} --> {after.name}: {', '.join(names)}" for (state, after), names in arrows.items()
    ]
    return "\n".join([*lines, f"    {child.State.ENDED.name} --> [*]"])


def _name(event: Event | child.Event) -> str:
    return event.name.lower().replace("_", " ")


def written(page: str) -> str:
    """The page with the diagrams as they are now."""
    diagrams = iter((diagram(), child_diagram()))
    return re.sub(r"(?<=```mermaid\n).*?(?=\n```)", lambda _: next(diagrams), page, flags=re.DOTALL)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if written(text) == text else f"{PAGE.name} is out of date: run python docs/generate.py")
    PAGE.write_text(written(text), encoding="utf-8")
