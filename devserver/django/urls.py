"""A Django project that was loaded through its `wsgi.py` or `asgi.py` has its URLs loaded, too.

Django leaves them, and so all views, to the first request. They would be executed anew after each
change of anything; loaded with the rest they are part of what a warm restart need not execute
again. `runserver` loads them for its checks.
"""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("devserver")


def load_urls() -> None:
    """Import all URLs if there is a project that serves requests. What is wrong with them Django says."""
    if "django.core.handlers.base" not in sys.modules:
        return
    from django.apps import apps
    from django.conf import settings
    from django.urls import get_resolver

    try:
        if apps.ready and getattr(settings, "ROOT_URLCONF", None):
            get_resolver().url_patterns  # noqa: B018 # imports them
    except Exception as error:  # user code, which the first request executes again
        logger.debug("the URLs cannot be loaded yet: %r", error)
