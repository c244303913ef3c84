"""What warm restarts cost where nothing is saved: the first start, and memory.

The same application is started warm and cold in turns. Memory is that of all processes, with what they
share counted once, when it has served its first request, and after each save; the highest counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from applications import APPLICATIONS, PLACES
from report import median, ratio, setting, show, table, turns
from servers import WARMTH, Command, choose
from subject import Subject, all_stopped, folder_for

LIMIT = 20.0
SETTLE = 1.0
"""Seconds after which a server has done what it leaves for later: to make a spare, to drop checkpoints."""

HEAD = ("", "start s", "/ cold", "PSS MiB", "/ cold", "highest PSS MiB", "/ cold")


@dataclass
class Cost:
    """Of one of the two ways: one value for each start."""

    command: Command
    starts: list[float | None] = field(default_factory=list)
    sizes: list[float | None] = field(default_factory=list)
    highest: list[float | None] = field(default_factory=list)

    def row(self, cold: Cost) -> list[str]:
        """Its row in the table."""
        row = [self.command.name]
        for name, digits in (("starts", 3), ("sizes", 1), ("highest", 1)):
            own = getattr(self, name)
            row += [show(median(own), digits), show(ratio(own, getattr(cold, name)))]
        return row


def start(cost: Cost, application: str, work: Path, saves: int, *, counts: bool) -> None:
    """Start it once, and save.

    Args:
        counts: else it is only started, so that everything is compiled and in the system's cache.
    """
    running: list[Subject] = []
    with all_stopped(running):
        project = APPLICATIONS[application](folder_for(work, application, cost.command.name))
        # Written a moment ago, its bytecode would not be believed.
        time.sleep(SETTLE)
        subject = Subject(cost.command, project)
        running.append(subject)
        seconds = subject.await_start()
        time.sleep(SETTLE)
        if not counts:
            return
        cost.starts.append(seconds)
        cost.sizes.append(subject.pss_mib())
        highest = [subject.pss_mib()]
        for number in range(saves):
            for place in PLACES:
                token = f"{place[0]}{number + 1:04}"
                project.save(token, place)
                subject.ask_until(token, LIMIT)
                highest.append(subject.pss_mib())
                time.sleep(SETTLE)
                highest.append(subject.pss_mib())
        cost.highest.append(max(highest))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what warm restarts cost: first start and memory.")
    names = "tiny,tiny_wsgi,fastapi_mid,heavy,django_big"
    parser.add_argument("--applications", default=names, help="default: %(default)s")
    parser.add_argument("--starts", type=int, default=5, help="of each; default: %(default)s")
    parser.add_argument("--saves", type=int, default=3, help="of each module; default: %(default)s")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(setting())
    with tempfile.TemporaryDirectory(prefix="devserver-benchmark-") as folder:
        work = Path(folder)
        for application in options.applications.split(","):
            sample = APPLICATIONS[application](folder_for(work, application, "choice"))
            costs = [Cost(command) for command in choose(WARMTH, sample)]
            for cost in costs:
                start(cost, application, work, 0, counts=False)
            for number in range(options.starts):
                for at in turns(len(costs), number):
                    start(costs[at], application, work, options.saves, counts=True)
            print(f"{application}: {options.starts} starts, medians\n")
            print(table(HEAD, [cost.row(costs[0]) for cost in costs]), flush=True)


if __name__ == "__main__":
    main()
