"""The documented options are those of the command line, and the links of all pages lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from devserver.cli import COMMAND, TITLES
from devserver.config import OPTIONS
from devserver.options import Option

ROOT = Path(__file__).parents[1]
OPTIONS_PAGE = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

WORDS = {"true": "on", "false": "off", "-": "none"}
"""What a default is called in the table, unless it is what `--help` calls it."""

INSTEAD = {
    "app_dir": "working directory",
    "use_colors": "the terminal decides",
    "ws_per_message_deflate": "true",
}
"""Defaults that the table calls by other words."""


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        section: the title above it.
        flags: the options it is about, with what stands for their values.
        default: as the table has it.
    """

    section: str
    flags: str
    default: str


def rows() -> Iterator[Row]:
    """The rows of the table of options."""
    section = ""
    for line in OPTIONS_PAGE.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and cells[0].startswith("**"):
            section = cells[0].strip("*")
        elif len(cells) == 3 and cells[0].startswith("`"):
            yield Row(section, cells[0].replace("\\|", "|"), cells[1])


ROWS = list(rows())


def names_in(row: Row) -> list[str]:
    """The options that a row is about."""
    return re.findall(r"`(--[a-z0-9-]+)", row.flags)


def wanted(option: Option) -> str:
    """The default that the table should have."""
    shown = option.show(option.default)
    return INSTEAD.get(option.name, WORDS.get(shown, shown))


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "target"])
def test_option_is_documented_with_its_default(name: str) -> None:
    option = OPTIONS[name]
    [row] = [row for row in ROWS if option.label in names_in(row)]
    assert (row.section, row.default) == (TITLES[option.section], wanted(option))
    if option.kind.switch:
        assert names_in(row) == [option.label, f"--no-{option.flag}"]
    if option.kind.metavar.startswith("["):
        assert row.flags == f"`{option.label} {option.kind.metavar[1:-1]}`"


def test_the_documented_options_are_those_of_the_command_line() -> None:
    known = {
        flag
        for each in COMMAND.params
        if isinstance(each, click.Option)
        for flag in (*each.opts, *each.secondary_opts)
        if flag.startswith("--")
    }
    assert {name for row in ROWS for name in names_in(row)} == {*known, "--help"}


def test_options_are_documented_in_the_order_of_help() -> None:
    told = [name for row in ROWS for name in names_in(row)]
    options = [option.label for option in OPTIONS.values() if option.name != "target"]
    assert [name for name in told if name in options] == options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith(("http://", "https://")):
            path, _, heading = link.partition("#")
            there = page.parent / path if path else page
            assert there.exists(), link
            assert not heading or heading in headings(there), link


def headings(page: Path) -> list[str]:
    """What a page's headings are linked by."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles]


def test_the_documented_events_are_those_that_are_sent() -> None:
    page = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "devserver").rglob("*.py")))
    sent = {*re.findall(r"\.emit\(\s*\"(\w+)\"", code)}
    assert sent == {*documented}
    header = (ROOT / "devserver" / "events.py").read_text(encoding="utf-8").partition('\n"""')[0]
    assert re.findall(r"^    (\w+) +[\w(]", header, re.MULTILINE) == documented


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
