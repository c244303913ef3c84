"""What the programs print: where it was measured, medians, ratios, Markdown tables."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

PEERS = (
    "devserver",
    "uvicorn",
    "granian",
    "hypercorn",
    "gunicorn",
    "django",
    "waitress",
    "hupper",
    "werkzeug",
)
PARTS = ("uvloop", "httptools", "watchfiles", "watchdog")
"""What the servers lean on when it is there."""


def setting() -> str:
    """The machine and the versions, in two lines."""
    machine = f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{machine}, {python}\n{', '.join(filter(None, map(_version, (*PEERS, *PARTS))))}\n"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is aligned to the right."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows)) + "\n"


def ratio(values: Sequence[float | None], reference: Sequence[float | None]) -> float | None:
    """How many times the reference something is: the median of the ratios within each round.

    Not the ratio of the medians: what slows a whole round down cancels out in its ratio.
    """
    pairs = zip(values, reference, strict=True)
    return median([one / other if one and other else None for one, other in pairs])


def median(values: Sequence[float | None]) -> float | None:
    """The median of those values that there are."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def show(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A number for a table."""
    return "-" if value is None else f"{value:,.{digits}f}{unit}"


def turns(count: int, round_number: int) -> list[int]:
    """The order in a round: there, and back in the next, so that a steady drift favours nobody."""
    order = list(range(count))
    return order if round_number % 2 == 0 else order[::-1]
