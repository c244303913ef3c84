"""The program that serves what TARGET names, or what is found without one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devserver.app import Application
    from devserver.config import Config
    from devserver.serve_context import ServeContext


def serve_target(context: ServeContext, then: Callable[[], None] = lambda: None) -> int:
    """Load the target and have it served. Returns the exit code.

    Args:
        then: called when it is loaded.

    Raises:
        BaseException: what the user's code raised.
    """
    application = load(context.config)
    then()
    return context.serve(application)


def load(config: Config) -> Application:
    """The environment file first, then the application.

    Raises:
        devserver.errors.DevserverError: the target does not name an application, or none is found.
        BaseException: what the user's code raised.
    """
    from devserver.app import load as load_application
    from devserver.discovery import discover

    section = config.app
    if section.env_file is not None:
        from devserver.dotenv import load as load_environment

        load_environment(section.env_file, os.environ)
    if section.target is None:
        section = replace(section, target=discover(section.app_dir))
    return load_application(section)
