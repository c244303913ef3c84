"""devserver: an autoreloading development server for any WSGI or ASGI application.

    devserver.run("app:application", reload=True)

`Config` and `Server` serve an application in a thread, for tests and for embedding.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Config", "Server", "__version__", "run"]

if TYPE_CHECKING:
    from devserver.config import Config
    from devserver.embedded import Server


def run(target: object, /, **options: object) -> None:
    """Serve an application until Ctrl-C, like the command line.

    Args:
        target: an application, or an import string such as "app:application".
        options: the command line's options by their Python names, such as `port=0` or `reload=True`.

    Raises:
        devserver.errors.DevserverError: an option or the target cannot be used; with `reload` the
            target must be an import string.
        SystemExit: 0 after a stop; in the child of a supervisor its exit code.
    """
    from devserver.launch import run as launch

    launch(target, options)


def __getattr__(name: str) -> object:
    # On demand: a supervisor imports this package and needs neither.
    if name == "Config":
        from devserver.config import Config

        return Config
    if name == "Server":
        from devserver.embedded import Server

        return Server
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
