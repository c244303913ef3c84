"""How long devserver takes to notice a save when nobody asks it.

From the moment when the save has returned to the arrival of the `change` event, and of the
`serving` event of the code that was saved. Saves come at random moments: a sweep is
somewhere between its beginning and its end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from applications import Project, asgi, widen
from report import quantile, setting, show, table
from servers import DETECTION, Command, choose
from subject import Subject, all_stopped, folder_for

LIMIT = 20.0
"""Seconds that an event is waited for."""

PAUSES = (0.5, 1.0)
"""Seconds between an answer and the next save."""

HEAD = ("server, how it is saved", "change ms: median", "p95", "max", "serving ms: median", "p95")


class Events:
    """The events that a devserver writes into a pipe."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        self._lines: list[bytes] = []
        self._rest = b""
        self._arrived = 0.0

    def until(self, name: str) -> float:
        """Wait for the next event of a name. Returns when it arrived, by `time.perf_counter`.

        Raises:
            TimeoutError: it did not.
        """
        deadline = time.monotonic() + LIMIT
        while True:
            while self._lines:
                if json.loads(self._lines.pop(0))["event"] == name:
                    return self._arrived
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no event {name!r} within {LIMIT:g} s")
            self._arrived = time.perf_counter()
            *self._lines, self._rest = (self._rest + os.read(self._read, 65536)).split(b"\n")

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._read)
        os.close(self.write)


def in_place(project: Project, token: str) -> None:
    """Save by writing over the file."""
    project.save(token)


def by_rename(project: Project, token: str) -> None:
    """Save by putting another file in place."""
    other = project.leaf.with_suffix(".tmp")
    other.write_text(f'TOKEN = "{token}"\n')
    other.replace(project.leaf)


SAVES: dict[str, Callable[[Project, str], None]] = {"in place": in_place, "by rename": by_rename}


def measure(subject: Subject, events: Events, how: str, saves: int) -> list[str]:
    """Save so many times. Returns a row of the table."""
    chance = random.Random(how)
    noticed, served = [], []
    for number in range(saves):
        time.sleep(chance.uniform(*PAUSES))
        SAVES[how](subject.project, f"{how} {number}")
        began = time.perf_counter()
        noticed.append(1000 * (events.until("change") - began))
        served.append(1000 * (events.until("serving") - began))
    shown = [quantile(noticed, 0.5), quantile(noticed, 0.95), max(noticed)]
    shown += [quantile(served, 0.5), quantile(served, 0.95)]
    return [f"{subject.name}, {how}", *(show(value, 1) for value in shown)]


def rows(command: Command, work: Path, saves: int, modules: int) -> list[list[str]]:
    """Measure one way of watching, for each way of saving."""
    project = asgi(folder_for(work, command.name))
    if modules:
        widen(project, modules)
    events = Events()
    subject = Subject(command, project, more=["--events", f"fd:{events.write}"], fd=events.write)
    with all_stopped([subject]):
        events.until("serving")
        result = [measure(subject, events, how, saves) for how in SAVES]
    events.close()
    return result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure the time from a save to its detection, without requests."
    )
    names = ",".join(command.name for command in DETECTION)
    parser.add_argument("--servers", default="", help=f"default: {names}")
    parser.add_argument("--saves", type=int, default=40, help="for each way of saving; default: %(default)s")
    parser.add_argument("--modules", type=int, default=300, help="in the watch set; default: %(default)s")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(setting())
    with tempfile.TemporaryDirectory(prefix="devserver-benchmark-") as work:
        sample = asgi(folder_for(Path(work), "sample"))
        measured = [
            row
            for command in choose(DETECTION, sample, options.servers)
            for row in rows(command, Path(work), options.saves, options.modules)
        ]
    print(f"{options.saves} saves for each row, {options.modules} modules in the watch set\n")
    print(table(HEAD, measured))


if __name__ == "__main__":
    main()
