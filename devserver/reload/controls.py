"""What people do with a server that runs: keys in its terminal, and signals.

`r` Enter restarts, `R` Enter from nothing, `q` Enter quits, `h` Enter lists these; SIGHUP restarts,
unless the terminal has gone; any other signal quits. Keys are lines: the terminal stays as it is, and an
application that reads it is left alone. Knows nothing of children.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

from devserver.process import Terminal
from devserver.process.reactor import Reactor
from devserver.process.signals import Signals

logger = logging.getLogger("devserver")

KEYS = (
    "keys, each followed by Enter: r restarts, R restarts and loads everything again, q quits, h lists these;"
    " Ctrl-C quits, too"
)


class Controls:
    """See the module."""

    def __init__(
        self,
        terminal: Terminal,
        reactor: Reactor,
        restart: Callable[[str, bool], None],
        quit: Callable[[], None],
        child_ended: Callable[[], None],
    ) -> None:
        """
        Args:
            terminal: from which this program was started.
            reactor: waits for what comes.
            restart: called with the reason, and whether from nothing.
            quit: called at the end.
            child_ended: called when a child of this process has ended, whoever has started it.
        """
        self._terminal = terminal
        self._reactor = reactor
        self._restart = restart
        self._quit = quit
        self._child_ended = child_ended

    def attend(self, signals: Signals) -> None:
        """Act on signals, and on keys from now on."""
        self._reactor.add(signals, lambda: self._signalled(signals))
        self.listen(True)

    def listen(self, on: bool) -> None:
        """Read lines from the terminal, or leave them to an application that reads them."""
        fd = self._terminal.keys()
        if fd is None or on == (fd in self._reactor):
            return
        if on:
            self._reactor.add(fd, self._key)
        else:
            self._reactor.remove(fd)

    def tidy(self) -> None:
        """A process has ended that may have left the terminal in disorder, or have been reading it."""
        self._terminal.restore()
        self.listen(True)

    def _signalled(self, signals: Signals) -> None:
        for signum in signals.taken():
            if signum == getattr(signal, "SIGCHLD", None):
                self._child_ended()
            elif signum == getattr(signal, "SIGHUP", None) and not self._terminal.hung_up():
                self._restart("SIGHUP", False)
            else:
                self._quit()

    def _key(self) -> None:
        lines = self._terminal.read_lines()
        if lines is None:
            self.listen(False)  # end of file: nobody types any more
        for line in lines or ():
            if line in ("r", "R"):
                self._restart(f"{line} was pressed", line == "R")
            elif line == "q":
                self._quit()
            elif line in ("h", "?"):
                logger.info("%s", KEYS)
