"""Requests per second by wrk, server beside server; with --gate, what the gate costs.

In each round all servers are started, warmed up, and take turns with short bursts; the next round
starts them anew, because two processes of the same server differ by some percent for as long as they
live. A ratio is taken within a turn, so that what slows the machine down cancels out.

The processor time per request says the same with less noise, when something else runs.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from applications import FIRST, asgi, widen, wsgi
from report import median, ratio, setting, show, table, turns
from servers import GATE, THROUGHPUT, Command, choose
from subject import Subject, all_stopped, folder_for

GATE_FILES = 300
"""Modules that the application imports."""

SETTLE = 2.0
"""Seconds that a server has for what it does once after its start, such as a spare process."""

HEAD = ("server", "requests/s", "min", "max", "/ first", "CPU µs/request", "/ first", "failed")


@dataclass(frozen=True)
class Load:
    """What wrk does in a burst."""

    seconds: int
    connections: int
    close: bool

    def burst(self, port: int, seconds: int | None = None) -> tuple[int, float, int]:
        """Ask as fast as possible. Returns how many answers came, how many a second, and how many failed."""
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds or self.seconds}"]
        command += ["-H", "Connection: close"] if self.close else []
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{port}/"], check=True, capture_output=True, text=True
        )
        return _answers(done.stdout)


def _answers(text: str) -> tuple[int, float, int]:
    count = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", text)
    if count is None or rate is None:
        raise RuntimeError(f"wrk did not say how many requests were answered:\n{text}")
    failed = re.findall(r"\b(?:connect|read|write|timeout|responses:) (\d+)", text)
    return int(count[1]), float(rate[1]), sum(map(int, failed))


@dataclass
class Measured:
    """What was measured of one server, one value for each turn."""

    command: Command
    rates: list[float | None] = field(default_factory=list)
    costs: list[float | None] = field(default_factory=list)
    failed: int = 0

    def take(self, subject: Subject, load: Load) -> None:
        """Measure one burst."""
        before = subject.cpu_seconds()
        count, rate, failed = load.burst(subject.port)
        self.rates.append(rate)
        self.costs.append(1e6 * (subject.cpu_seconds() - before) / max(count, 1))
        self.failed += failed

    def row(self, first: Measured) -> list[str]:
        """Its row in the table."""
        known = [rate for rate in self.rates if rate is not None]
        return [
            self.command.name,
            show(median(known), 0),
            show(min(known), 0),
            show(max(known), 0),
            show(ratio(self.rates, first.rates), 3),
            show(median(self.costs), 1),
            show(ratio(self.costs, first.costs), 3),
            str(self.failed),
        ]


def contest(
    commands: Sequence[Command], work: Path, load: Load, rounds: int, bursts: int, files: int
) -> list[Measured]:
    """Have servers take turns; `files` modules more are in their watch sets."""
    everyone = [Measured(command) for command in commands]
    for number in range(rounds):
        subjects: list[Subject] = []
        with all_stopped(subjects):
            subjects.extend(_start(command, work, files) for command in commands)
            for subject in subjects:
                load.burst(subject.port, seconds=1)
            time.sleep(SETTLE)
            for turn in range(bursts):
                for at in turns(len(everyone), number + turn):
                    everyone[at].take(subjects[at], load)
    return everyone


def _start(command: Command, work: Path, files: int) -> Subject:
    folder = folder_for(work, command.interface, command.name)
    project = asgi(folder) if command.interface == "asgi" else wsgi(folder)
    if files:
        widen(project, files)
    subject = Subject(command, project)
    try:
        subject.await_start(FIRST)
    except RuntimeError:
        subject.stop()
        raise
    return subject


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure requests per second and processor time per request; needs wrk."
    )
    parser.add_argument("--groups", default=",".join(THROUGHPUT), help="default: %(default)s")
    parser.add_argument("--servers", default="", help="the first is compared with; default: all of a group")
    parser.add_argument(
        "--gate",
        action="store_true",
        help=f"devserver with --reload beside devserver without, {GATE_FILES} modules in its watch set",
    )
    parser.add_argument("--rounds", type=int, default=3, help="starts of all servers; default: %(default)s")
    parser.add_argument(
        "--bursts", type=int, default=3, help="of each server in a round; default: %(default)s"
    )
    parser.add_argument("--seconds", type=int, default=3, help="of a burst; default: %(default)s")
    parser.add_argument("--connections", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--close", action="store_true", help="a new connection for each request")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; it is a Debian package: apt install wrk")
    load = Load(options.seconds, options.connections, options.close)
    print(setting())
    with tempfile.TemporaryDirectory(prefix="devserver-benchmark-") as work:
        for group in options.groups.split(","):
            sample = (wsgi if group == "wsgi" else asgi)(folder_for(Path(work), group))
            commands = choose((GATE if options.gate else THROUGHPUT)[group], sample, options.servers)
            files = GATE_FILES if options.gate else 0
            everyone = contest(commands, Path(work), load, options.rounds, options.bursts, files)
            bursts = options.rounds * options.bursts
            print(f"{group}: {options.connections} connections, {bursts} bursts, medians\n")
            print(table(HEAD, [measured.row(everyone[0]) for measured in everyone]), flush=True)


if __name__ == "__main__":
    main()
