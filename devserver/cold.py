"""Starts each child from nothing: where no checkpoints can be made, and what `Warm` falls back on."""

from __future__ import annotations

from collections.abc import Iterable

from devserver.config import Config
from devserver.process.control import Message
from devserver.reload import protocol
from devserver.reload.child import Child
from devserver.reload.children import Children
from devserver.reload.launcher import Begun
from devserver.reload.spawner import Spawner
from devserver.watching.watchset import WatchSet


def first(config: Config) -> int:
    """The place of the worker that loads; 0 if it is the only one."""
    return 1 if config.workers.count > 1 else 0


class Cold:
    """See the module, and `devserver.reload.launcher.Launcher`."""

    def __init__(self, spawner: Spawner, children: Children, watched: WatchSet) -> None:
        self._spawner = spawner
        self._children = children
        self._watched = watched

    def launch(self, generation: int, before: Config, config: Config) -> Begun:
        """See `Launcher.launch`."""
        return Begun(self.boot(generation, config, protocol.Boot(config.to_json(), place=first(config))))

    def boot(self, generation: int, config: Config, word: protocol.Boot) -> Child:
        """Start a child that loads, and tell it this word.

        Raises:
            OSError: no process can be started.
        """
        try:
            return self._start(generation, word)
        finally:
            self._watched.begin(config)  # what the child says is heard later than this

    def join(self, generation: int, config: Config, place: int) -> Child:
        """See `Launcher.join`. It loads for itself."""
        return self._start(generation, protocol.Boot(config.to_json(), place=place))

    def show(self, config: Config, generation: int, failure: Message) -> Child:
        """See `Launcher.show`."""
        return self._start(generation, protocol.Boot(config.to_json(), protocol.PAGE, failure=failure))

    def _start(self, generation: int, word: protocol.Boot) -> Child:
        child = self._spawner.launch(word.role)
        self._children.attend(child)
        self._children.boot(child, word, generation)
        return child

    def changed(self, paths: Iterable[str], *, handled: bool = False) -> None:
        """What has changed does not matter to a load from nothing."""

    def heard(self, child: Child, word: protocol.Said, fds: list[int]) -> bool:
        """Nothing that a child says matters to the next."""
        return True

    def distrust(self, why: str) -> None:
        """Every load begins from nothing."""

    def rest(self, *, serves: bool) -> tuple[int, int] | None:
        """Have an interpreter started that could load next."""
        self._spawner.prepare()
        return None

    def gone(self, child: Child) -> None:
        """Nothing is kept of a child."""

    def unheard(self) -> set[int]:
        """See `Launcher.unheard`."""
        return set() if self._spawner.spare is None else {self._spawner.spare.process.pid}

    def close(self) -> None:
        """See `Launcher.close`."""
        self._spawner.close()
