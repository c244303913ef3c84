"""A devserver that the debug adapter of VS Code starts, as the editor has it do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.live.dap import Dap, Message
from tests.live.process import DevServer, descendants

SHORT_GRACE = {"DEVSERVER_RELOAD_GRACE": "0.2"}
"""Short, so that it is soon over for a process that stands at a breakpoint."""


class Launched(DevServer):
    """A devserver that VS Code's debug adapter starts.

    Attributes:
        process: the launcher, which waits for the supervisor.
        adapter: the debug adapter.
    """

    def __init__(self, folder: Path, editor: Dap, configuration: Message, env: Mapping[str, str]) -> None:
        super().__init__(cwd=folder, env=env)
        self._editor = editor
        self._configuration = configuration
        self._fifo = folder.parent / f"{folder.name}.events"

    def __enter__(self) -> Launched:
        os.mkfifo(self._fifo)
        self._read = os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK)
        self._editor.run = self._run
        ours, theirs = socket.socketpair()
        with theirs:
            command, fd = [sys.executable, "-m", "debugpy.adapter"], theirs.fileno()
            self.adapter = subprocess.Popen(command, stdin=fd, stdout=fd, stderr=self.log_file)
        self._editor.open(ours, {**self._configuration, "cwd": str(self._cwd)})
        return self

    def _run(self, wanted: Message) -> int:
        """Do what VS Code's terminal does."""
        own = {"DEVSERVER_PORT": "0", "DEVSERVER_EVENTS": str(self._fifo)}
        env = {name: value for name, value in wanted.get("env", {}).items() if value is not None}
        self.process = subprocess.Popen(
            wanted["args"],
            cwd=wanted["cwd"],
            env={**self._env, **own, **env},
            stdin=subprocess.DEVNULL,
            stdout=self.log_file,
            stderr=subprocess.STDOUT,
        )
        return self.process.pid

    def __exit__(self, *error: Any) -> None:
        try:
            if self.process.poll() is None:
                for pid in descendants(self.process.pid):
                    os.kill(pid, signal.SIGINT)
            super().__exit__(*error)
        finally:
            self.adapter.kill()
            self.adapter.wait()
