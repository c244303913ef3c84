"""How long a restart takes, by how much there is to import and by where in it the edit is.

Twenty modules are imported one after the other, each of which computes for a twentieth of the time. A cold
restart imports them all again; a warm one only what comes after the edit. So with the last module edited
its time should not depend on the time of all imports, and with another one on what comes after that.

The first edit of a place restarts from an earlier checkpoint, since nobody knew of it, and has one left just
before that place: both are measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from applications import Project, put
from graph import Axis, graph
from report import median, setting, show, table
from servers import WARMTH, Command
from subject import Subject, all_stopped, folder_for

MODULES = 20

TOTALS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Seconds of importing, in the first table."""

TOTAL = 2.0
"""The same in the second."""

LIMIT = 40.0
PAUSE = 0.7
"""Seconds before a save."""

COLD, FIRST, AGAIN = "cold", "warm, first edit of a place", "warm, from the second on"

PART = """
import time

END = time.perf_counter() + {seconds}
while time.perf_counter() < END:
    pass
TOKEN = "t0000"
"""

MAIN = """
{imports}

BODY = " ".join([{tokens}]).encode()


async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": BODY}})
"""


def project(folder: Path, total: float) -> Project:
    """An application whose import takes so many seconds."""
    names = [f"part{number}" for number in range(1, MODULES + 1)]
    put(folder, {f"{name}.py": PART.format(seconds=total / MODULES) for name in names})
    imports = "\n".join(f"import {name}" for name in names)
    put(folder, {"main.py": MAIN.format(imports=imports, tokens=", ".join(f"{n}.TOKEN" for n in names))})
    return Project(folder, folder / f"{names[-1]}.py", folder / "main.py", asgi="main:application")


@dataclass
class Times:
    """Seconds from a save to the new answer: of the first edit of a place, and of those after it."""

    first: float | None
    again: float | None


class Run:
    """A server with one project."""

    def __init__(self, command: Command, work: Path, total: float, rounds: int) -> None:
        self._project = project(folder_for(work, command.name, f"{total:g}"), total)
        self.subject = Subject(command, self._project)
        self._rounds = rounds
        self._saves = 0

    def edit(self, number: int) -> Times:
        """Save one of the modules again and again."""
        edited = replace(self._project, leaf=self._project.folder / f"part{number}.py")
        seconds = []
        for _ in range(self._rounds + 1):
            time.sleep(PAUSE)
            self._saves += 1
            token = f"t{self._saves:04}"
            edited.save(token)
            seconds.append(self.subject.ask_until(token, LIMIT).seconds)
        return Times(seconds[0], median(seconds[1:]))


Found = dict[str, list[tuple[float, float]]]


def measure(work: Path, total: float, numbers: list[int], rounds: int) -> list[dict[str, float | None]]:
    """For each module by number, what an edit of it costs, by the name of the line."""
    found: list[dict[str, float | None]] = [{} for _ in numbers]
    for command in (command for command in WARMTH if command.interface == "asgi"):
        running: list[Subject] = []
        with all_stopped(running):
            run = Run(command, work, total, rounds)
            running.append(run.subject)
            run.subject.await_start()
            for at, number in enumerate(numbers):
                times = run.edit(number)
                if command.name == "cold":
                    found[at][COLD] = median([times.first, times.again])
                else:
                    found[at].update({FIRST: times.first, AGAIN: times.again})
    return found


def tell(
    title: str, head: str, unit: str, places: list[float], found: list[dict[str, float | None]]
) -> Found:
    """Print a table; gives the lines of the graph."""
    names = (COLD, FIRST, AGAIN)
    rows = [
        [f"{place:g}{unit}", *(show(each[name], 3) for name in names)]
        for place, each in zip(places, found, strict=True)
    ]
    print(f"{title}\n")
    print(table((head, *names), rows), flush=True)
    return {
        name: [
            (place, seconds)
            for place, each in zip(places, found, strict=True)
            if (seconds := each[name]) is not None
        ]
        for name in names
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure restarts by the time of all imports, and by the position of the edit."
    )
    parser.add_argument("--rounds", type=int, default=3, help="saves of each module; default: %(default)s")
    parser.add_argument("--svg", type=Path, help="a folder for by_total.svg and by_position.svg")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(setting())
    seconds = Axis("seconds from the save to the new answer", (0.01, 0.1, 1, 10), logarithmic=True)
    with tempfile.TemporaryDirectory(prefix="devserver-benchmark-") as work:
        found = [measure(Path(work), total, [MODULES], options.rounds)[0] for total in TOTALS]
        by_total = tell("The last module edited, s", "import s", "", list(TOTALS), found)
        numbers = [1, *range(MODULES // 4, MODULES + 1, MODULES // 4)]
        found = measure(Path(work), TOTAL, numbers, options.rounds)
        shares = [100 * (number - 1) / MODULES for number in numbers]
        title = f"{TOTAL:g} s of importing, s"
        by_position = tell(title, "imported before the edited module", " %", shares, found)
    if options.svg is not None:
        options.svg.mkdir(parents=True, exist_ok=True)
        x = Axis("seconds of importing", TOTALS, logarithmic=True)
        text = graph("The last of twenty modules edited", x, seconds, by_total)
        (options.svg / "by_total.svg").write_text(text)
        x = Axis("percent of the imports that come before the edited module", (0, 25, 50, 75, 100))
        text = graph(f"{TOTAL:g} s of importing", x, seconds, by_position)
        (options.svg / "by_position.svg").write_text(text)


if __name__ == "__main__":
    main()
