"""Access lines of `manage.py runserver`: after Django's own text, and where LOGGING sends them.

Django writes them to the logger `django.server`. A project that has configured it gets them there, with the
levels and extras of Django's; any other gets devserver's own, which know the time that a request took.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import cast

from django.utils.log import ServerFormatter

from devserver.console import ACCESS, send_access_to
from devserver.process.ending import at_last

SERVER = "django.server"

Line = tuple[str, str, str, str, int, str]
"""Client, method, target, version, status, the time taken: the arguments of an access line's record."""


def redirect() -> None:
    """Send access lines to `django.server` if the project has configured it; the settings are loaded."""
    if _is_configured(logging.getLogger(SERVER)):
        send_access_to(_ToDjango())


def _is_configured(logger: logging.Logger) -> bool:
    """Whether the logger is another than Django's default makes it.

    A configuration that disables existing loggers, which is `dictConfig`'s default, disables this one, too,
    and means nothing by it.
    """
    if logger.disabled or not logger.hasHandlers():
        return False
    plain = [type(each) is logging.StreamHandler and not each.filters for each in logger.handlers] == [True]
    default = plain and type(logger.handlers[0].formatter) is ServerFormatter
    return not default or logger.level != logging.INFO or logger.propagate or bool(logger.filters)


class _ToDjango(logging.Handler):
    """Gives access lines to Django's logger, as `WSGIRequestHandler.log_message` does."""

    def emit(self, record: logging.LogRecord) -> None:
        if not isinstance(record.args, tuple) or len(record.args) != 6:
            return
        _, method, target, version, status, taken = cast("Line", record.args)
        level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
        extra = {
            "status_code": status,
            "request": None,  # Django's is a socket, which is the server's here
            "server_time": time.strftime("%d/%b/%Y %H:%M:%S", time.localtime(record.created)),
        }
        line = f"{method} {target} HTTP/{version}"
        logging.getLogger(SERVER).log(level, '"%s" %s %s', line, str(status), taken, extra=extra)


class Held(logging.Filter):
    """Keeps access lines back until `release`: Django's text comes first, although requests may be faster."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._records: list[logging.LogRecord] | None = []
        ACCESS.addFilter(self)
        at_last(self.release)

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        with self._lock:
            if self._records is not None:
                self._records.append(record)
            return self._records is None

    def release(self) -> None:
        """Let them go, in order."""
        with self._lock:
            records, self._records = self._records or [], None
            for record in records:
                ACCESS.handle(record)
        ACCESS.removeFilter(self)
