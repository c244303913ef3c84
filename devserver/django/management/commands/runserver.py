"""The command: Django's and staticfiles' own, served by devserver.

All that a subclass may have changed is asked for: `get_handler`, `inner_run`, `on_bind`, the default
address. In a child the handler is served first; the checks, and the text that Django prints before
it serves, come while it does, from Django's own `inner_run`, so that they are what they are there.
"""

from __future__ import annotations

import copy
import os
import threading
from argparse import ArgumentParser
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.contrib.staticfiles.management.commands.runserver import Command as Runserver
from django.core.management import CommandError
from django.core.management.commands import runserver
from django.db import connections
from django.urls import get_resolver
from django.utils.module_loading import import_string

from devserver.django import access, bootstrap, changes, serving
from devserver.django.command_line import Wanted, add_options, own_options
from devserver.errors import DevserverError
from devserver.process import WORKER
from devserver.serve_context import ServeContext

runserver.run = serving.run


SPEAKING_ASGI = ("daphne", "channels")
"""With these ASGI_APPLICATION is meant to be served; else a template may have set it for production."""


class Refused(DevserverError):
    """The command or a check says no; the message is Django's."""


class Command(Runserver):  # type: ignore[misc] # Django has no types
    """See the module."""

    help = "Starts devserver: serves the project, and restarts it when what it has read changes."

    stdout: Any
    _serves_asgi = _passed_over = _has_no_asgi = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Django's, staticfiles' and devserver's."""
        super().add_arguments(parser)
        add_options(parser)
        if apps.is_installed("whitenoise.runserver_nostatic"):
            parser.set_defaults(use_static_handler=False)

    def handle(self, *args: Any, **options: Any) -> None:
        """As Django's; what it refuses in a child is shown like any other failure."""
        try:
            super().handle(*args, **options)
        except CommandError as error:
            if serving.context() is None:
                raise
            raise Refused(str(error)) from error

    def run(self, **options: Any) -> None:
        """Become the supervisor, or serve."""
        if options["use_reloader"] and serving.context() is None and _is_in_main_thread():
            bootstrap.become_supervisor(
                Wanted(self.addr, str(self.port), self.use_ipv6, own_options(options))
            )
        self.inner_run(None, **options)

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """ASGI_APPLICATION where it is wanted, else the handler for WSGI_APPLICATION; with static files.

        Django's own command serves WSGI whatever the settings say, daphne's ASGI.
        """
        static = options["use_static_handler"] and apps.is_installed("django.contrib.staticfiles")
        path = getattr(settings, "ASGI_APPLICATION", None)
        wanted = options.get("use_asgi")
        if wanted is None:
            wanted = any(map(apps.is_installed, SPEAKING_ASGI))
            self._passed_over = bool(path) and not wanted
        elif wanted:
            self._has_no_asgi = not path
        self._serves_asgi = bool(path) and wanted
        if not self._serves_asgi:
            return super().get_handler(*args, **{**options, "use_static_handler": static})
        application = import_string(path)  # of which there is none if `wanted` was said without it
        if static and (settings.DEBUG or options["insecure_serving"]):
            return ASGIStaticFilesHandler(application)
        return application

    def on_bind(self, server_port: int) -> None:
        """Say what Django says, and what is served where that could be mistaken."""
        stdout = self.stdout
        if serving.scheme() != "http":
            self.protocol = serving.scheme()
        if self._serves_asgi:
            self.stdout = _Renaming(stdout)
        try:
            super().on_bind(server_port)
        finally:
            self.stdout = stdout
        if self._has_no_asgi:
            self.stdout.write("WSGI is served: for --asgi, set ASGI_APPLICATION in the settings.")
        if self._passed_over:
            self.stdout.write("WSGI is served, as Django does it; --asgi serves ASGI_APPLICATION.")

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Load the rest of the project and serve it; in a child check it meanwhile."""
        context = serving.context()
        if context is None:
            serving.set_options(own_options(options))
            super().inner_run(*args, **options)
            return
        if getattr(settings, "ROOT_URLCONF", None):
            get_resolver().url_patterns  # noqa: B018 # imports all URLs
        handler = self.get_handler(*args, **options)
        watch = changes.begin(context)
        held = access.Held()
        told = copy.copy(self)
        told.__dict__["get_handler"] = lambda *args, **options: serving.Served(serving.port_of(context))

        def check() -> None:
            try:
                watch()
                if os.environ.get(WORKER, "1") == "1":  # the others have the same code
                    told._check(context, *args, **options)
            finally:
                held.release()

        def on_serving() -> None:
            threading.Thread(target=check, name="devserver-checks", daemon=True).start()

        context.on_serving = on_serving
        serving.serve_on(context, handler, options["use_threading"])

    def _check(self, context: ServeContext, *args: Any, **options: Any) -> None:
        """Do what Django does before it serves; instead of serving, it tells that it serves."""
        try:
            super().inner_run(*args, **options)
        except CommandError as error:
            context.fail(Refused(str(error)))
        except Exception as error:  # user code: checks, database backends
            context.fail(error)
        finally:
            connections.close_all()


class _Renaming:
    """An output that calls by its name what Django 6.1 takes for WSGI."""

    def __init__(self, output: Any) -> None:
        self._output = output

    def write(self, text: str = "", *arguments: Any, **named: Any) -> None:
        self._output.write(text.replace("Starting WSGI", "Starting ASGI"), *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name)


def _is_in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
