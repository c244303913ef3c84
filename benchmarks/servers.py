"""How each server is started: one table of commands for each question.

A command is split at spaces, then filled in: `{bin}` is where this interpreter's programs are,
`{python}` the interpreter, `{target}` the application, `{port}` where to listen. Access logs are off
everywhere, since only some servers write one by themselves.

The first server of a table, or of those that were asked for, is what the others are held against.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from applications import Project


@dataclass(frozen=True)
class Command:
    """How to start a server.

    Attributes:
        name: of the row in the tables.
        interface: "asgi" or "wsgi".
        line: the command; see the module.
        script: a program for `-c`, put at the end of the command.
        needs: a file without which it cannot serve a project.
    """

    name: str
    interface: str
    line: str
    script: str = ""
    needs: str = ""

    def fits(self, project: Project) -> bool:
        """Whether it can serve a project."""
        return bool(getattr(project, self.interface)) and (project.folder / self.needs).exists()

    def argv(self, project: Project, port: int) -> list[str]:
        """The command for a project."""
        target = getattr(project, self.interface)
        places = {
            "bin": Path(sys.executable).parent,
            "python": sys.executable,
            "target": target,
            "port": port,
        }
        words = [word.format(**places) for word in self.line.split()]
        return [*words, "-c", self.script.format(**places)] if self.script else words


# With watchdog installed Werkzeug would watch the whole standard library and overflow its queue.
_WERKZEUG = """
import importlib, logging, sys
from werkzeug.serving import run_simple
sys.path.insert(0, "")
logging.getLogger("werkzeug").setLevel("ERROR")
module, _, name = "{target}".partition(":")
application = getattr(importlib.import_module(module), name)
run_simple("127.0.0.1", {port}, application, threaded=True, use_reloader=RELOAD, reloader_type="stat")
"""

_RELOAD = "--reload --port {port} --no-access-log"

RELOADING = (
    Command("uvicorn", "asgi", "{bin}/uvicorn {target} --reload --port {port} --no-access-log"),
    Command("gunicorn", "wsgi", "{bin}/gunicorn {target} --reload -b 127.0.0.1:{port}"),
    Command("gunicorn", "asgi", "{bin}/gunicorn {target} --reload -k asgi -b 127.0.0.1:{port}"),
    Command("granian", "wsgi", "{bin}/granian {target} --interface wsgi --reload --port {port}"),
    Command("granian", "asgi", "{bin}/granian {target} --interface asgi --reload --port {port}"),
    Command("hypercorn", "asgi", "{bin}/hypercorn {target} --reload -b 127.0.0.1:{port}"),
    Command("runserver", "wsgi", "{python} manage.py runserver {port}", needs="manage.py"),
    Command(
        "runserver (daphne)",
        "asgi",
        "/usr/bin/env BENCH_APPS=daphne {python} manage.py runserver {port}",
        needs="manage.py",
    ),
    Command(
        "runserver (devserver)",
        "wsgi",
        "/usr/bin/env BENCH_APPS=devserver.django {python} manage.py runserver {port} --no-access-log",
        needs="manage.py",
    ),
    Command("waitress (hupper)", "wsgi", "{bin}/hupper -m waitress --port {port} {target}"),
    Command("werkzeug", "wsgi", "{python}", _WERKZEUG.replace("RELOAD", "True")),
    *(
        Command(f"devserver{more}", interface, f"{{bin}}/devserver {{target}} {_RELOAD}{more}")
        for more in ("", " --restart cold")
        for interface in ("wsgi", "asgi")
    ),
)

_DEVSERVER = "{bin}/devserver {target} --port {port} --no-access-log"
_UVICORN = "{bin}/uvicorn {target} --port {port} --no-access-log"

THROUGHPUT: dict[str, tuple[Command, ...]] = {
    "h11": (
        Command("uvicorn", "asgi", f"{_UVICORN} --http h11 --loop asyncio"),
        Command("hypercorn", "asgi", "{bin}/hypercorn {target} -b 127.0.0.1:{port}"),
        Command("devserver", "asgi", f"{_DEVSERVER} --http h11 --loop asyncio"),
    ),
    "httptools": (
        Command("uvicorn", "asgi", f"{_UVICORN} --http httptools --loop uvloop"),
        Command("granian", "asgi", "{bin}/granian {target} --interface asgi --port {port}"),
        Command("gunicorn", "asgi", "{bin}/gunicorn {target} -k asgi -b 127.0.0.1:{port}"),
        Command("devserver", "asgi", f"{_DEVSERVER} --http httptools --loop uvloop"),
    ),
    "wsgi": (
        Command(
            "gunicorn gthread", "wsgi", "{bin}/gunicorn {target} -k gthread --threads 8 -b 127.0.0.1:{port}"
        ),
        Command("gunicorn sync", "wsgi", "{bin}/gunicorn {target} -b 127.0.0.1:{port}"),
        Command("granian", "wsgi", "{bin}/granian {target} --interface wsgi --port {port}"),
        Command("waitress", "wsgi", "{bin}/waitress-serve --port {port} {target}"),
        Command("werkzeug", "wsgi", "{python}", _WERKZEUG.replace("RELOAD", "False")),
        Command("hypercorn", "wsgi", "{bin}/hypercorn wsgi:{target} -b 127.0.0.1:{port}"),
        Command("devserver h11", "wsgi", f"{_DEVSERVER} --http h11 --loop asyncio"),
        Command("devserver", "wsgi", f"{_DEVSERVER} --http httptools --loop uvloop"),
    ),
}

GATE: dict[str, tuple[Command, ...]] = {
    group: tuple(
        Command(f"devserver{reload}", interface, f"{_DEVSERVER}{reload} --http {http} --loop {loop}")
        for reload in ("", " --reload")
    )
    for group, interface, http, loop in (
        ("h11", "asgi", "h11", "asyncio"),
        ("httptools", "asgi", "httptools", "uvloop"),
        ("wsgi", "wsgi", "httptools", "uvloop"),
    )
}

_WATCHING = f"{_DEVSERVER} --reload"

WARMTH = tuple(
    Command(how, interface, f"{_WATCHING} --restart {how}")
    for how in ("cold", "warm")
    for interface in ("wsgi", "asgi")
)
_ALL = "--reload-include *"

IDLE = (
    Command("devserver", "asgi", _WATCHING),
    Command("devserver --poll", "asgi", f"{_WATCHING} --poll"),
    Command("devserver (all files)", "asgi", f"{_WATCHING} {_ALL}"),
    Command("devserver --poll (all files)", "asgi", f"{_WATCHING} --poll {_ALL}"),
    Command("uvicorn", "asgi", f"{_UVICORN} --reload"),
    Command("granian", "asgi", "{bin}/granian {target} --interface asgi --reload --port {port}"),
)

DETECTION = (
    Command("devserver", "asgi", _WATCHING),
    Command("devserver --poll", "asgi", f"{_WATCHING} --poll"),
)

EDGE_SECONDS = 1
"""For which an idle connection may be reused."""

EDGE = tuple(
    Command(name, "asgi", f"{line} --timeout-keep-alive {EDGE_SECONDS}")
    for name, line in (("uvicorn", _UVICORN), ("devserver", _DEVSERVER))
)

HOSTILE = (
    Command("devserver", "asgi", _DEVSERVER),
    Command("devserver h11", "asgi", f"{_DEVSERVER} --http h11 --loop asyncio"),
    Command("uvicorn", "asgi", _UVICORN),
)

TABLES: dict[str, Sequence[Command]] = {
    "reloading": RELOADING,
    **{f"throughput, {group}": commands for group, commands in THROUGHPUT.items()},
    **{f"gate, {group}": commands for group, commands in GATE.items()},
    "warm and cold": WARMTH,
    "idle": IDLE,
    "detection": DETECTION,
    "edge": EDGE,
    "hostile": HOSTILE,
}


def choose(commands: Sequence[Command], project: Project, names: str = "") -> list[Command]:
    """Those commands that fit a project, at most one for each name.

    Args:
        names: which ones, separated by commas, and in which order; "" for all in the table's. One
            that no table has ends the program.
    """
    fitting: dict[str, Command] = {}
    for command in commands:
        if command.fits(project):
            fitting.setdefault(command.name, command)
    if not names:
        return list(fitting.values())
    wanted = [name.strip() for name in names.split(",")]
    known = {command.name for table in TABLES.values() for command in table}
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"no server is named {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    return [fitting[name] for name in wanted if name in fitting]


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the commands by which the servers are started.")
    parser.parse_args()
    for title, commands in TABLES.items():
        print(f"{title}:")
        for command in commands:
            print(f"  {command.name} ({command.interface}): {command.line}{' -c …' * bool(command.script)}")


if __name__ == "__main__":
    main()
