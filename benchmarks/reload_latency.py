"""From a save to the first new answer, server beside server.

All servers run at the same time, each with a copy of the project, and take turns: one save each in
every round. So a slow minute of the machine hits all of them, and the ratios hold. After a save the
server is asked on new connections until the new code answers; what came instead is counted.

A save follows the one before after a random pause: a server that looks once a second would
otherwise be met at the same moment of its second every time.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from applications import APPLICATIONS, PLACES
from report import median, ratio, setting, show, table, turns
from servers import RELOADING, Command, choose
from subject import Asked, Subject, all_stopped, folder_for, idle_percent

SETTLE = 2.5
"""Seconds that watchers have to get ready after the start."""

PAUSES = (0.2, 1.2)
"""Seconds before a save."""

MIN_GAP = 1.1
"""Seconds between two saves to one server: a .pyc file tells no two texts of one second apart."""

LIMIT = 20.0
"""Seconds after which a save counts as never seen."""

HEAD = (
    "server", "start s", "leaf → new s", "min", "max", "/ first", "root → new s", "min", "max", "/ first",
    "never", "refused", "errors", "stale", "PSS MiB", "idle CPU %",
)  # fmt: skip


@dataclass
class Measured:
    """What was measured of one server: seconds, one for each round, and the rest."""

    command: Command
    starts: list[float | None] = field(default_factory=list)
    saves: dict[str, list[Asked]] = field(default_factory=lambda: {place: [] for place in PLACES})
    pss: float = 0.0
    idle: float = 0.0
    failure: str = ""

    def seconds(self, place: str) -> list[float | None]:
        """From each save in a place to its first new answer."""
        return [asked.seconds for asked in self.saves[place]]

    def row(self, first: Measured) -> list[str]:
        """Its row in the table."""
        saves = [asked for place in PLACES for asked in self.saves[place]]
        counts = [sum(getattr(asked, name) for asked in saves) for name in ("refused", "errors", "stale")]
        return [
            self.command.name,
            show(median(self.starts)),
            *self._times("leaf", first),
            *self._times("root", first),
            str(sum(asked.seconds is None for asked in saves)),
            *map(str, counts),
            show(self.pss, 1),
            show(self.idle, 2),
        ]

    def _times(self, place: str, first: Measured) -> list[str]:
        known = [seconds for seconds in self.seconds(place) if seconds is not None]
        return [
            show(median(known), 3),
            show(min(known, default=None), 3),
            show(max(known, default=None), 3),
            show(ratio(self.seconds(place), first.seconds(place)), 3),
        ]


class Contest:
    """One application, and the servers that take turns with it."""

    def __init__(self, application: str, work: Path, servers: str) -> None:
        make = APPLICATIONS[application]
        self._application = application
        self._work = work
        self._make = make
        self._random = random.Random(application)
        self._saved: dict[str, float] = {}
        commands = choose(RELOADING, make(folder_for(work, application, "choice")), servers)
        self.all = [Measured(command) for command in commands]
        self._alive: list[tuple[Measured, Subject]] = []
        self._running: list[Subject] = []

    def run(self, starts: int, rounds: int, idle: float) -> None:
        """Measure everything."""
        with all_stopped(self._running):
            for number in range(starts):
                self._stop_all()
                for at in turns(len(self.all), number):
                    self._start(self.all[at])
            time.sleep(SETTLE)
            for place in PLACES:
                for number in range(rounds):
                    for at in turns(len(self._alive), number):
                        self._save(*self._alive[at], place, f"{place[0]}{number + 1:04}")
            self._rest(idle)

    def _stop_all(self) -> None:
        self._alive.clear()
        while self._running:
            self._running.pop().stop()

    def _start(self, measured: Measured) -> None:
        name = measured.command.name
        project = self._make(folder_for(self._work, self._application, name))
        subject = Subject(measured.command, project)
        self._running.append(subject)
        try:
            measured.starts.append(subject.await_start())
        except RuntimeError as error:
            measured.failure = str(error)
        else:
            self._alive.append((measured, subject))

    def _save(self, measured: Measured, subject: Subject, place: str, token: str) -> None:
        since = time.monotonic() - self._saved.get(subject.name, 0.0)
        time.sleep(max(self._random.uniform(*PAUSES), MIN_GAP - since))
        self._saved[subject.name] = time.monotonic()
        subject.project.save(token, place)
        measured.saves[place].append(subject.ask_until(token, LIMIT))

    def _rest(self, seconds: float) -> None:
        time.sleep(SETTLE)
        shares = idle_percent([subject for _, subject in self._alive], seconds)
        for (measured, subject), share in zip(self._alive, shares, strict=True):
            measured.pss, measured.idle = subject.pss_mib(), share

    def table(self) -> str:
        """What was measured, as a Markdown table, with what went wrong below it."""
        rows = [measured.row(self.all[0]) for measured in self.all if measured.saves["leaf"]]
        failures = [f"{measured.failure}\n" for measured in self.all if measured.failure]
        return "\n".join([table(HEAD, rows), *failures])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure how servers start and restart, what is lost meanwhile, memory and idle CPU."
    )
    parser.add_argument(
        "--applications", default="tiny,tiny_wsgi,fastapi_mid,heavy,django_big", help="default: %(default)s"
    )
    names = ",".join(dict.fromkeys(command.name for command in RELOADING))
    parser.add_argument("--servers", default="", help=f"the first is compared with; default: {names}")
    parser.add_argument(
        "--rounds", type=int, default=7, help="saves of each module for each server; default: %(default)s"
    )
    parser.add_argument("--starts", type=int, default=3, help="of each server; default: %(default)s")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds; default: %(default)s")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(setting())
    with tempfile.TemporaryDirectory(prefix="devserver-benchmark-") as work:
        for application in options.applications.split(","):
            contest = Contest(application, Path(work), options.servers)
            if not contest.all:
                print(f"{application}: none of these servers serves it\n")
                continue
            contest.run(max(1, options.starts), options.rounds, options.idle)
            print(f"{application}: {options.rounds} saves of each module, {options.starts} starts, medians\n")
            print(contest.table(), flush=True)


if __name__ == "__main__":
    main()
