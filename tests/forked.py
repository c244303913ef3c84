"""Programs that each need an interpreter of their own, without each starting one.

One interpreter imports what all of them import, and then copies itself for each program. A copy has whatever
the program does to itself, and nothing of it is left for the next one. It ends as an interpreter does.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.patience import DEADLINE

_SERVE = """
import json, os, signal, sys

def _copied():
    "Read what is to be run, and copy this process for it. Returns the program, in the copy only."
    asked, told = os.fdopen({asked}, "rb", 0), {told}
    while line := asked.readline():
        wanted = json.loads(line)
        pid = os.fork()
        if pid:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            try:
                os.killpg(pid, signal.SIGKILL)  # what it has started and left behind
            except ProcessLookupError:
                pass
            os.write(told, b"%d\\n" % status)
            continue
        asked.close()
        os.close(told)
        os.setpgid(0, 0)
        os.chdir(wanted["cwd"])
        os.environ.update(wanted["env"])
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, fd in enumerate([nothing, *(os.open(each, os.O_WRONLY) for each in wanted["said"])]):
            os.dup2(fd, number)
            os.close(fd)
        return wanted["program"]
    sys.exit()

{prelude}
exec(_copied())
"""


class Forked:
    """Runs programs, each in a copy of one interpreter."""

    def __init__(self, prelude: str, environ: dict[str, str]) -> None:
        """
        Args:
            prelude: is executed before there are copies.
            environ: of the interpreter.
        """
        self._prelude = prelude
        self._environ = environ

    def __enter__(self) -> Forked:
        asked, self._ask = os.pipe()
        self._hear, told = os.pipe()
        program = _SERVE.format(asked=asked, told=told, prelude=self._prelude)
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            pass_fds=(asked, told),
        )
        os.close(asked)
        os.close(told)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._ask)
        os.close(self._hear)
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def run(
        self, program: str, cwd: Path, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in `__main__`, as `python -c` does.

        Args:
            env: variables in addition to the interpreter's.

        Raises:
            subprocess.TimeoutExpired: it did not end.
        """
        with tempfile.TemporaryDirectory() as folder:
            said = [Path(folder, name) for name in ("stdout", "stderr")]
            for each in said:
                each.touch()
            wanted = {"program": program, "cwd": str(cwd), "env": env or {}, "said": [*map(str, said)]}
            os.write(self._ask, json.dumps(wanted).encode() + b"\n")
            if not select.select([self._hear], [], [], DEADLINE)[0]:
                raise subprocess.TimeoutExpired(program, DEADLINE)
            status = int(os.read(self._hear, 100))
            out, err = (each.read_text() for each in said)
        return subprocess.CompletedProcess(program, status, out, err)
