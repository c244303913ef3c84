"""Django's interface for whoever has an interest in files: two signals, sent as its reloader does.

`autoreload_started` is sent once, with a sender whose `watch_dir` and `extra_files` add to what is
watched. `file_changed` is sent for each change, before anything is done about it; a receiver that
answers with something true has dealt with it, and there is no restart. Templates and translations
are made fresh by this way, and django-browser-reload listens to it.

A change is noticed twice: by the gate, before a request is begun, and by the supervisor when there
is none. It is sent once, known by what is in the file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from pathlib import Path
from typing import Any

from django.template.autoreload import template_changed
from django.utils import autoreload

from devserver.serve_context import ServeContext

logger = logging.getLogger("devserver")


class Reloader(autoreload.BaseReloader):  # type: ignore[misc] # Django has no types
    """The sender. Third parties know it as `BaseReloader`; what watches is another."""

    def __init__(self, context: ServeContext) -> None:
        super().__init__()
        self._context = context
        self._started = False

    def watch_dir(self, path: str | Path, glob: str) -> None:
        """Watch files below a folder; may be called at any time."""
        super().watch_dir(path, glob)
        if self._started:
            self._context.watch(str(Path(path).absolute()), glob)

    def start(self) -> None:
        """Watch what was asked for so far."""
        self._started = True
        for folder, globs in list(self.directory_globs.items()):
            for glob in list(globs):
                self._context.watch(str(folder), glob)
        for path in map(os.path.abspath, list(self.extra_files)):
            folder, name = os.path.split(path)
            self._context.watch(folder, name)


class Changes:
    """Decides what a change means, by asking whoever listens."""

    def __init__(self, context: ServeContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._handled: dict[str, str] = {}
        self.reloader = Reloader(context)

    def attach(self) -> None:
        """Send `autoreload_started`, and be asked about changes from now on."""
        autoreload.autoreload_started.send(sender=self.reloader)
        self._context.on_change = self.left

    def left(self, paths: list[str]) -> list[str]:
        """Those of the changed paths that nobody has dealt with. Any thread."""
        with self._lock:
            return [path for path in paths if not self._is_handled(path)]

    def _is_handled(self, path: str) -> bool:
        # Accepted only once it is dealt with: until then the gate lets no request pass. A save that
        # came while receivers were at work is another change.
        while self._handled.get(path) != (content := _digest(path)):
            if not self._ask(path):
                return False
            self._handled[path] = content
        self._context.accept(path)
        return _digest(path) == content or self._is_handled(path)

    def _ask(self, path: str) -> bool:
        """Whether a receiver has dealt with a change."""
        answers = autoreload.file_changed.send_robust(sender=self.reloader, file_path=Path(path))
        for receiver, answer in answers:
            if isinstance(answer, Exception):
                logger.error("%s failed for %s", receiver, path, exc_info=answer)
        by = [receiver for receiver, answer in answers if answer and not isinstance(answer, Exception)]
        # It takes whatever lies in a folder of templates for one. To load it anew is no help to settings.py,
        # which has read its config.json, and that may lie there too: DIRS may be the whole project.
        return bool(by) and not (by == [template_changed] and self._context.was_loaded(path))


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError:
        return ""


def begin(context: ServeContext) -> Any:
    """Attach to a context. Returns what must be called when it serves."""
    changes = Changes(context)
    changes.attach()
    return changes.reloader.start
