"""The few exceptions that a user can see. Each message names what is wrong and the remedy.

Nothing here knows how a message is shown: the edge that catches one prints it without
a traceback and ends the process with `exit_code`.
"""


class DevserverError(Exception):
    """A problem that the user can mend; `str(error)` says what it is and how."""

    exit_code = 1


class UsageError(DevserverError):
    """An option, a key of the configuration file or a path that cannot be used as given."""

    exit_code = 2


class TargetError(DevserverError):
    """The target names no module, no attribute, or something that is no application."""


class BindError(DevserverError):
    """An address cannot be listened on, most often because another process holds it."""


class ApplicationError(DevserverError):
    """The application broke ASGI or WSGI; the message names what it sent and in which state."""
