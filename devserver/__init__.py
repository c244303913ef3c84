"""devserver: an autoreloading development server for any WSGI or ASGI application.

    devserver.run("app:application", reload=True)

`Config` and `Server` serve an application in a thread, for tests and for embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Config", "Server", "__version__", "run"]

if TYPE_CHECKING:
    from typing import Unpack

    from devserver.arguments import Arguments
    from devserver.config import Config
    from devserver.embedded import Server


def run(target: object, /, **options: Unpack[Arguments]) -> None:
    """Serve an application until Ctrl-C or SIGTERM, like the command line.

    To be called in the main thread of a script. With `reload=True` each restart runs the script again up to
    this call: put it below `if __name__ == "__main__":`. With `restart="warm"`, too, it goes on from behind
    the call, and what was read before it stays as it was.

    Args:
        target: an application, or an import string such as "app:application" or "shop/main.py".
        options: the command line's options with underscores, such as `port=0`, `reload=True` or
            `timeout_keep_alive=2.5`. Times are in seconds, sizes in bytes; what may be repeated takes a
            list; None means not given. What is not given is taken from the environment (`DEVSERVER_PORT`),
            then from the nearest pyproject.toml, as on the command line.

    Raises:
        devserver.errors.UsageError: an unknown option, or a value that cannot be used; `reload=True` with
            a target that is no import string.
        devserver.errors.TargetError: without `reload`, the target cannot be found, or is no application.
        devserver.errors.BindError: the address cannot be listened on, most often because it is in use.
        SystemExit: when serving has ended: 0 after a stop, 130 after a second Ctrl-C, 3 when the lifespan's
            startup failed, 1 when the application could not be loaded; in the child of a supervisor
            always, with its exit code.
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
