"""Watching with watchfiles: macOS and Windows.

Written against the documented behaviour of `RustNotify`; here it has only been run on Linux. This
module refuses to know what a hint leads to.
"""

import importlib.machinery
import importlib.util
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

from devserver.watching.places import Places
from devserver.watching.polling import Polling
from devserver.watching.watcher import EVERYTHING, Hints

log = logging.getLogger("devserver")


class Notify(Protocol):
    """The part of watchfiles that is used."""

    def watch(
        self, debounce_ms: int, step_ms: int, timeout_ms: int, stop_event: threading.Event
    ) -> set[tuple[int, str]] | str:
        """Wait for changes; a string says why there are none."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


def load_notify() -> Callable[..., Notify]:
    """Load the compiled part of watchfiles alone.

    `import watchfiles` would bring asyncio and anyio, which the supervisor must not load.

    Raises:
        ImportError: it is not installed.
    """
    package = importlib.util.find_spec("watchfiles")
    folders = package.submodule_search_locations if package is not None else None
    spec = importlib.machinery.PathFinder.find_spec("watchfiles._rust_notify", folders)
    if not folders or spec is None or spec.loader is None:
        raise ImportError("watchfiles is not installed")
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Callable[..., Notify] = module.RustNotify
    return made


class Watchfiles:
    """Listens with watchfiles, in a thread that pokes a socket.

    The library takes its folders when it is made and cannot be given more. So when folders are
    added it is made anew, and since what happens meanwhile is lost, `EVERYTHING` is hinted when
    it stands again. It also loses events without a word (a full queue; on macOS a second folder
    discards what the first had queued), so a slow sweep stays beneath it, and takes over when the
    library fails. Several spellings of one folder are ours to know: it reports only one.

    Raises:
        ImportError: watchfiles is not installed.
    """

    name = "watchfiles"

    def __init__(self, notify: Callable[..., Notify] | None = None) -> None:
        self._notify = notify or load_notify()
        self._places = Places()
        self._net = Polling(pause=2.0, cost=250.0)
        self._reader, self._poker = socket.socketpair()
        self._reader.setblocking(False)
        self._poker.setblocking(False)
        self._thread = threading.Thread(target=self._listen, name="devserver-watch", daemon=True)
        self._lock = threading.Lock()  # over what follows: shared with the thread
        self._folders: frozenset[str] = frozenset()
        self._events: set[str] = set()
        self._lost = self._closed = False
        self._turn = threading.Event()  # the folders have changed, or it is the end

    @property
    def interval(self) -> float | None:
        """The time until the sweep beneath is due."""
        return self._net.interval

    def watch(self, path: str) -> None:
        """Add the folders that `path` needs."""
        keys = self._places.ask(path)
        self._net.watch(path)
        for key in keys:
            self._places.follow(key)
        if keys:
            self._listen_to_places()

    def forget(self) -> None:
        """Drop every path."""
        self._places = Places()
        self._net.forget()
        with self._lock:
            self._events.clear()
        self._listen_to_places()

    def fileno(self) -> int | None:
        """The socket that the thread pokes."""
        return self._reader.fileno()

    def quiet(self) -> bool:
        """Say whether the thread has gathered nothing, and no sweep is due."""
        return not (self._events or self._lost) and self._net.quiet()

    def hints(self) -> Hints:
        """Translate what the thread has gathered."""
        try:
            while self._reader.recv(4096):
                pass
        except OSError:
            pass  # empty, or closed
        with self._lock:
            events, self._events = self._events, set()
            lost, self._lost = self._lost, False
        touched = self._net.hints()
        keys = set(self._places.trails) if lost else self._doubtful(events, touched)
        for path in events:
            folder, name = os.path.split(path)
            touched |= self._places.spell(folder, name, listing=True)
            keys |= self._places.bent(folder, name)
        touched |= self._follow(keys)
        return EVERYTHING if lost else touched

    def close(self) -> None:
        """End the thread and close the socket."""
        with self._lock:
            self._closed = True
        self._turn.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._reader.close()
        self._poker.close()

    def _doubtful(self, events: set[str], swept: set[str]) -> set[str]:
        """Give the keys whose folder was lost, or about which the sweep found something."""
        keys = self._places.through(events & self._folders)
        for path in swept:
            keys.update(key for key in (path, os.path.dirname(path)) if key in self._places.trails)
            if path in self._places:
                keys.update(self._places.unfollowed(path))
        return keys

    def _follow(self, keys: set[str]) -> set[str]:
        touched: set[str] = set()
        while keys:
            key = keys.pop()
            before = self._places.trails.get(key)
            if self._places.follow(key) != before:
                touched |= self._places.below(key)
                keys |= self._places.arrived(key)
        if touched:
            self._listen_to_places()
        return touched

    def _listen_to_places(self) -> None:
        folders = frozenset(folder for trail in self._places.trails.values() for folder in trail.folders)
        if folders != self._folders:
            with self._lock:
                self._folders = folders
            self._turn.set()
            if self._thread.ident is None:
                self._thread.start()

    def _listen(self) -> None:
        """Run in the thread: listen to the folders of the moment until there are others."""
        while True:
            for _ in range(10):  # gather until 20 ms pass without more
                self._turn.clear()
                if self._closed:
                    return
                if not self._turn.wait(0.02):
                    break
            try:
                self._listen_once()
            except (OSError, RuntimeError) as error:  # RuntimeError: the library's own
                self._give_up(error)
                return

    def _listen_once(self) -> None:
        with self._lock:
            folders = sorted(filter(os.path.isdir, self._folders))
        notify = self._notify(folders, False, False, 0, False, True)
        try:
            self._report(set(), lost=True)
            while not isinstance(changes := notify.watch(50, 10, 0, self._turn), str):
                self._report({path for _, path in changes})
        finally:
            notify.close()

    def _report(self, events: set[str], lost: bool = False) -> None:
        with self._lock:
            self._events |= events
            self._lost |= lost
        try:
            self._poker.send(b".")
        except OSError:
            pass  # full: it is readable already

    def _give_up(self, error: Exception) -> None:
        log.warning("watchfiles has failed (%s): polling instead", error)
        self.name = "polling"
        self._net.hurry()
        self._report(set(), lost=True)
