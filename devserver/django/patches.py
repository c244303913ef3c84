"""What is other about Django in a child of ours. Each is done as soon as a module has been imported:
to import Django before manage.py would put it before what has to come first there (gevent, a tracer).

    django.core.management    `runserver` is one without Django's reloader, which would hide why the
                              project cannot be set up and go on with an empty one; and the commands
                              that come with Django and daphne are replaced by ours, wherever
                              INSTALLED_APPS has it
    … .commands.runserver     a command of somebody else's serves here, too
    django.utils.autoreload   `trigger_reload` restarts

Knows neither the command nor how it serves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from devserver.django import serving

COMMAND = "runserver"

STOCK = ("django.core.", "django.contrib.staticfiles.", "daphne.", "channels.")
"""Where commands come from that ours can do everything of."""


def take() -> None:
    """Take hold of Django, which may have been imported already."""
    for name, change in CHANGES.items():
        if name in sys.modules:
            change(sys.modules[name])
    sys.meta_path.insert(0, Finder())


class Finder:
    """Finds three modules, as they would be found without it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        change = CHANGES.get(name)
        spec = PathFinder.find_spec(name, path, target) if change is not None else None
        if change is not None and spec is not None and spec.loader is not None:
            _run_after(spec.loader, change)
        return spec


def _run_after(loader: Any, change: Callable[[Any], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        change(module)

    loader.exec_module = exec_module


def _change_management(module: Any) -> None:
    utility = module.ManagementUtility
    execute, fetch_command = utility.execute, utility.fetch_command

    def execute_without_reloader(self: Any) -> None:
        if self.argv[1:2] == [COMMAND] and "--noreload" not in self.argv:
            # Another list: `sys.argv` stays as it was typed.
            self.argv = [*self.argv[:2], "--noreload", *self.argv[2:]]
        execute(self)

    def fetch_ours(self: Any, subcommand: str) -> Any:
        command = fetch_command(self, subcommand)
        if subcommand == COMMAND and type(command).__module__.startswith(STOCK):
            from devserver.django.management.commands.runserver import Command

            return Command()
        return command

    utility.execute, utility.fetch_command = execute_without_reloader, fetch_ours


def _change_runserver(module: Any) -> None:
    module.run = serving.run


def _change_autoreload(module: Any) -> None:
    def trigger_reload(filename: object) -> None:
        context = serving.context()
        if context is not None:
            context.restart(str(filename))

    module.trigger_reload = trigger_reload


CHANGES: dict[str, Callable[[Any], None]] = {
    "django.core.management": _change_management,
    "django.core.management.commands.runserver": _change_runserver,
    "django.utils.autoreload": _change_autoreload,
}
