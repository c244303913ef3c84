"""A server in a thread of somebody else's process: `devserver.Server`, for tests and for embedding.

Binds, loads, serves and stops, and reports to whoever called. Refuses to know signals, restarts and
the command line: the process is not ours.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

from devserver.app import load
from devserver.config import Config
from devserver.errors import UsageError
from devserver.listeners import Listeners, bind
from devserver.server import Serving, loop_factory


class Server:
    """Serves an application in a thread: for tests and for embedding.

        with devserver.Server(devserver.Config(app, port=0)) as server:
            urllib.request.urlopen(server.url)

    Attributes:
        listeners: the sockets, bound when the server is made; `urls` holds their addresses.
    """

    def __init__(self, config: Config, listeners: Listeners | None = None) -> None:
        """
        Args:
            config: what to serve and where. `reload` is not for this class: use `devserver.run`.
            listeners: sockets that are bound already; otherwise `config.bind` says which.

        Raises:
            BindError: the address is in use.
            TargetError: the target is no application.
            UsageError: `reload` is set.
        """
        if config.reload.enabled:
            raise UsageError("Server cannot reload the process that it is embedded in: use devserver.run()")
        self._config = config
        self._application = load(config.app)
        self.listeners = listeners or bind(config.bind)
        self._serving = Serving(config, self._application, self.listeners.sockets)
        self._thread = threading.Thread(target=self._run, name="devserver", daemon=True)
        self._ready = threading.Event()
        self._error: BaseException | None = None

    @property
    def url(self) -> str:
        """The first of the server's URLs."""
        return self.listeners.urls[0]

    def start(self) -> None:
        """Start the thread and wait until requests are answered.

        Raises:
            Whatever the start raised: `StartupFailed` for a lifespan, for one.
        """
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self.listeners.close()
            raise self._error

    def stop(self) -> None:
        """Drain, shut the application down, close the listeners, and wait for the thread's end."""
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
