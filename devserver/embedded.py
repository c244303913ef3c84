"""A server in a thread of somebody else's process: `devserver.Server`, for tests and for embedding.

Binds, loads, serves and stops, and reports to whoever called. Refuses to know signals, restarts and
the command line: the process is not ours.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from types import TracebackType

from devserver.app import load
from devserver.config import Config
from devserver.errors import UsageError
from devserver.listeners import Listeners, bind
from devserver.server import Serving, loop_factory

logger = logging.getLogger("devserver")


class Server:
    """Serves an application in a thread: for tests and for embedding. Used once.

        with devserver.Server(devserver.Config(app, port=0)) as server:
            urllib.request.urlopen(server.url)

    Attributes:
        listeners: the sockets, bound when the server is made; `urls` holds their addresses.
    """

    def __init__(self, config: Config, listeners: Listeners | None = None) -> None:
        """
        Args:
            config: what to serve and where. `reload` is not for this class: use `devserver.run`. Its
                `env_file` and the section `log` are not acted on: environment and logging are the process's.
            listeners: sockets that are bound already, and will be closed; otherwise `config.bind` says which.

        Raises:
            devserver.errors.UsageError: `reload` is set, or the certificate cannot be used.
            devserver.errors.TargetError: there is no such target, or it is no application.
            devserver.errors.BindError: the address cannot be listened on.
            BaseException: what the application's own code raised while it was imported.
        """
        if config.reload.enabled:
            raise UsageError("Server cannot reload the process that it is embedded in: use devserver.run()")
        if config.workers.several:
            logger.warning(
                "Server serves in a thread of this process: workers and their limits have no effect;"
                " use devserver.run() for them"
            )
        self._config = config
        self._application = load(config.app)
        self.listeners = listeners or bind(config.bind)
        self.listeners.scheme = config.scheme
        self._serving = Serving(config, self._application, self.listeners.sockets)
        self._thread = threading.Thread(target=self._run, name="devserver", daemon=True)
        self._ready = threading.Event()
        self._error: BaseException | None = None

    @property
    def url(self) -> str:
        """The first of the server's URLs."""
        return self.listeners.urls[0]

    def start(self) -> None:
        """Start the thread and wait until requests are answered, however long the lifespan's startup takes.

        Raises:
            devserver.gateway.lifespan.StartupFailed: the lifespan's startup failed. The listeners are closed.
            BaseException: whatever else ended it. Likewise.
        """
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self.listeners.close()
            raise self._error

    def stop(self) -> None:
        """Drain, shut the application down, close the listeners, and wait for the thread's end.

        Requests in flight and the lifespan's shutdown each have `timeout_graceful_shutdown` seconds.
        """
        self._serving.stop(self._config.http.graceful)
        self._thread.join()
        self.listeners.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory(self._config.http.loop)) as runner:
                runner.run(self._serving.run(self._ready.set))
        except BaseException as error:  # handed to the thread that waits in `start`
            self._error = error
        finally:
            self._ready.set()
