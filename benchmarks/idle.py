"""What watching costs when nothing happens: processor time of the whole tree, in a large project.

All servers run at the same time: processor time counts for each process by itself. The rows "(all
files)" have every file of the project watched; otherwise devserver watches what the application
has read.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from applications import Project, asgi, widen
from report import setting, show, table
from servers import IDLE, choose
from subject import Subject, all_stopped, folder_for, idle_percent

READ = 300
"""Modules that the application imports."""

IN_A_FOLDER = 100
SETTLE = 5.0
"""Seconds from the first answer until a server counts as idle: watchers get ready, a spare is started."""


def large(folder: Path, files: int) -> Project:
    """A bare ASGI callable amid so many files, some of which it imports."""
    project = asgi(folder)
    widen(project, min(READ, files))
    for number in range(files - min(READ, files)):
        place = folder / f"data{number // IN_A_FOLDER}"
        place.mkdir(exist_ok=True)
        (place / f"part{number}{'.py' if number % 2 else '.txt'}").touch()
    return project


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the CPU that servers use while nobody asks them.")
    names = ",".join(command.name for command in IDLE)
    parser.add_argument("--servers", default="", help=f"default: {names}")
    parser.add_argument("--files", type=int, default=10_000, help="in the project; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=30.0, help="default: %(default)s")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(setting())
    subjects: list[Subject] = []
    with tempfile.TemporaryDirectory(prefix="devserver-benchmark-") as work, all_stopped(subjects):
        sample = asgi(folder_for(Path(work), "sample"))
        for command in choose(IDLE, sample, options.servers):
            subjects.append(Subject(command, large(folder_for(Path(work), command.name), options.files)))
            subjects[-1].await_start()
        time.sleep(SETTLE)
        shares = idle_percent(subjects, options.seconds)
        rows = [
            [subject.name, show(share, 2), show(subject.pss_mib(), 1)]
            for subject, share in zip(subjects, shares, strict=True)
        ]
    print(f"{options.files:,} files, {options.seconds:g} s\n")
    print(table(("server", "CPU % of a core", "PSS MiB"), rows))


if __name__ == "__main__":
    main()
