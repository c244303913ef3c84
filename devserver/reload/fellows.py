"""The workers of a generation that serve beside its first one.

The first is the child that the supervisor knows as the current one: it loads the application, leaves
checkpoints, and begins to serve as soon as it may. Then the launcher starts the others, its fellows: mostly
as copies of where the first has come to, so that nothing is loaded again. They end together. What befalls one
of them befalls the generation, and the supervisor decides what follows; here is only how they begin.
"""

from __future__ import annotations

import logging
import os
import time

from devserver.config import Config
from devserver.process.control import Message
from devserver.reload import protocol
from devserver.reload.child import Child
from devserver.reload.children import Children
from devserver.reload.launcher import Launcher
from devserver.reload.report import Report

logger = logging.getLogger("devserver")


class Fellows:
    """See the module."""

    def __init__(self, children: Children, launcher: Launcher, report: Report) -> None:
        self._children = children
        self._launcher = launcher
        self._report = report
        self._word = protocol.Serve("")

    def __contains__(self, child: Child) -> bool:
        return child in self._children.fellows

    def serve(self, first: Child) -> None:
        """Have the first worker of a generation serve."""
        self._word = protocol.Serve(os.urandom(8).hex())
        first.told = first.tell(self._word)

    def begin(self, first: Child, config: Config) -> None:
        """Start the others, now that the first serves."""
        if config.workers.count == 1:
            return
        self._report.worker_started(first)
        self._report.worker_serves(first)
        for place in range(2, config.workers.count + 1):
            try:
                fellow = self._launcher.join(first.generation, config, place)
            except OSError as error:
                logger.error("worker %d cannot be started: %s", place, error)
                continue
            fellow.place, fellow.generation, fellow.began = place, first.generation, time.monotonic()
            self._children.fellows.append(fellow)
            self._report.worker_started(fellow)

    def heard(self, child: Child, word: protocol.OfCurrent) -> bool:
        """Take what a fellow says about its beginning. False: it is something else."""
        match word:
            case protocol.Loaded():
                child.loaded, child.told = True, child.tell(self._word)
            case protocol.Serving():
                self._children.serves(child, word.judges)
                self._report.worker_serves(child)
            case protocol.Barrier():
                pass  # the first has said so
            case _:
                return False
        return True


def of_worker(child: Child, failure: Message) -> Message:
    """A failure, with the worker that it befell."""
    if not child.place or (child.place == 1 and not child.told):  # what the first one loads, the others share
        return failure
    return {**failure, "error": f"worker {child.place}: {failure['error']}"}
