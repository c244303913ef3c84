"""Listeners and connections: accept, serve, drain; with the lifespan around it.

Accepts with a loop of its own. `asyncio.Server` strands connections that were accepted while it
closes, and from Python 3.13 on removes a Unix socket's file that belongs to the next generation as
well. Knows neither reloading nor where its listeners come from.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import logging
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from devserver import __version__
from devserver.app import Application
from devserver.config import Config
from devserver.errors import UsageError
from devserver.front.entrance import Entrance
from devserver.front.entrance import entrance as entrance_of
from devserver.front.proxies import Proxies
from devserver.gateway.asgi import AsgiGateway, asgi2
from devserver.gateway.asgi_words import OnError
from devserver.gateway.lifespan import Lifespan
from devserver.http import framing, uwsgi
from devserver.http.codes import CLOSE_GOING_AWAY, CLOSE_RESTART, INTERNAL_ERROR
from devserver.http.connection import Connection
from devserver.http.exchange import Gateway, Handler, Headers, Request
from devserver.http.framing import Parser
from devserver.http.h2 import is_spoken
from devserver.http.service import Gate, HandOver, Own, Service
from devserver.http.tally import Share

logger = logging.getLogger("devserver")

_ACCEPT_BURST = 64
_LAST = 4096
"""Connections that are accepted at the end, at most, for each listener."""

_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 0.5
"""Seconds without accepting after the system had no descriptor left."""

_POLL = 0.005
"""Seconds between two looks at what a drain still waits for, after the first few: it ends rarely and soon."""

_UNWIND = 0.1
"""Seconds that cancelled tasks have to unwind."""

_HURRY = 0.05
"""Seconds that the application has to end what never ends by itself, when a drain begins."""


def plain_error(request: Request, error: BaseException) -> tuple[int, Headers, bytes]:
    """The response to an exception when no error page is wanted."""
    return INTERNAL_ERROR, [(b"Content-Type", b"text/plain; charset=utf-8")], b"Internal Server Error"


def parser(name: str) -> Parser:
    """The parser of heads that `--http` names.

    Raises:
        UsageError: httptools was named and is not installed.
    """
    if name != "h11":
        try:
            parse: Parser = importlib.import_module("devserver.http.h1_httptools").parse
            return parse
        except ImportError:
            if name == "httptools":
                raise UsageError("--http httptools: not installed; pip install 'devserver[fast]'") from None
    from devserver.http import h1

    return h1.parse


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop that `--loop` names.

    Raises:
        UsageError: uvloop was named and is not installed.
    """
    # Patched by nest_asyncio a loop of asyncio's can be run again while it runs; one of uvloop's cannot.
    if name == "uvloop" or (name == "auto" and "nest_asyncio" not in sys.modules):
        try:
            uvloop = importlib.import_module("uvloop")
            factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
            return factory
        except ImportError:
            if name == "uvloop":
                raise UsageError("--loop uvloop: not installed; pip install 'devserver[fast]'") from None
    # The proactor of Windows cannot serve a listener that a predecessor has used.
    return asyncio.SelectorEventLoop if sys.platform == "win32" else asyncio.new_event_loop


async def _never(scope: object, receive: object, send: object) -> None:
    """The lifespan of what has none."""


class Serving:
    """An application on listeners, from startup to shutdown, once.

    `run` is the whole life, in the event loop; `stop` may be called from any thread.
    """

    def __init__(
        self,
        config: Config,
        application: Application | Gateway,
        sockets: Sequence[socket.socket],
        *,
        on_error: OnError = plain_error,
        on_closing: Callable[[], None] = lambda: None,
        gate: Gate | None = None,
        hand_over: HandOver | None = None,
        own: Own | None = None,
        entrance: Entrance | None = None,
        share: Share | None = None,
    ) -> None:
        """
        Args:
            config: the sections `app`, `http`, `websocket` and `log` are used.
            application: what to serve; or a gateway as it is.
            sockets: listening, not blocking. They are left open if somebody serves next.
            on_error: makes the response to an exception of the application.
            on_closing: called when the drain is over and the lifespan's shutdown begins.
            gate, hand_over, own, share: see `Service`.
            entrance: how connections are entered, if not as the configuration says.

        Raises:
            UsageError: the certificate cannot be used.
        """
        self._config = config
        self._application = application
        self._entrance = entrance or entrance_of(config)
        self._sockets = sockets if self._entrance.accepts else ()
        self._on_error = on_error
        self._on_closing = on_closing
        self._gate = gate
        self._hand_over = hand_over
        self._own = own
        self._share = share
        self._service: Service | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Future[tuple[float, bool]] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock = threading.Lock()
        self._early: tuple[float, bool] | None = None

    @property
    def started(self) -> bool:
        """Whether the application has started up, or need not."""
        return self._service is not None

    @property
    def running(self) -> set[Handler]:
        """The requests that the application works on, and those that wait for a thread."""
        return set() if self._service is None else self._service.gateway.running

    @property
    def has_threads(self) -> bool:
        """Whether the application works on requests in threads, of which there is a bounded number."""
        return isinstance(self._application, Application) and self._application.interface == "wsgi"

    def stop(self, grace: float, restart: bool = False) -> None:
        """Stop accepting and drain.

        Args:
            grace: seconds that requests in flight may take.
            restart: somebody else serves next.
        """
        with self._lock:
            self._early = grace, restart
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._stopped, (grace, restart))

    def _stopped(self, how: tuple[float, bool]) -> None:
        if self._stop is not None and not self._stop.done():
            self._stop.set_result(how)

    async def run(self, on_serving: Callable[[], None]) -> None:
        """Start up, call `on_serving`, serve until `stop`, drain, shut down.

        Raises:
            devserver.gateway.lifespan.StartupFailed: the application did not start up.
        """
        loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        with self._lock:
            self._loop = loop
            if self._early is not None:
                self._stopped(self._early)
        gateway, lifespan = self._gateway()
        startup = loop.create_task(lifespan.startup())
        awaited: list[asyncio.Future[Any]] = [startup, self._stop]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if not startup.done() and not lifespan.started:
            startup.cancel()
            await lifespan.cancel()
            return
        await startup
        if self._own is not None:
            gateway = self._own.before(gateway)
        service = self._service = self._make_service(gateway)
        for sock in self._sockets:
            loop.add_reader(sock.fileno(), self._accept, sock, service)
        on_serving()
        grace, restart = await self._stop
        for sock in self._sockets:
            loop.remove_reader(sock.fileno())
            if not restart:
                self._accept_last(sock, service)
        await self._drain(service, grace, restart)
        self._on_closing()
        await self._shut_down(lifespan)
        gateway.close()

    def _gateway(self) -> tuple[Gateway, Lifespan]:
        section, application = self._config.app, self._application
        if not isinstance(application, Application):
            return application, Lifespan(_never, "off")
        if application.interface == "wsgi":
            from devserver.gateway.wsgi import WsgiGateway

            loop = asyncio.get_running_loop()
            wsgi = WsgiGateway(
                application.callable,
                root_path=section.root_path,
                on_error=self._on_error,
                loop=loop,
                threads=self._config.http.wsgi_threads,
            )
            wsgi.constant["wsgi.multiprocess"] = self._config.workers.several
            return wsgi, Lifespan(_never, "off")
        legacy = application.interface == "asgi2"
        app = asgi2(application.callable) if legacy else application.callable
        lifespan = Lifespan(app, section.lifespan)
        return AsgiGateway(
            app, root_path=section.root_path, state=lifespan.state, on_error=self._on_error, legacy=legacy
        ), lifespan

    def _make_service(self, gateway: Gateway) -> Service:
        http = self._config.http
        defaults = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in http.headers]
        names = {name.lower() for name, _ in defaults}
        if http.server_header and b"server" not in names:
            defaults.append((b"Server", b"devserver/" + __version__.encode("ascii")))
        from devserver.console import AccessLog

        access = AccessLog(self._config.log)
        is_uwsgi = http.protocol == "uwsgi"
        parse: Parser = uwsgi.parse if is_uwsgi else parser(http.parser)
        return Service(
            gateway,
            parse,
            http,
            self._config.websocket,
            defaults,
            access if access.enabled else None,
            gate=self._gate,
            hand_over=self._hand_over,
            own=self._own,
            front=Proxies(self._config.proxy),
            heads=uwsgi if is_uwsgi else framing,
            http2=is_spoken(http),
            share=self._share,
        )

    # accepting

    def _accept(self, sock: socket.socket, service: Service) -> None:
        loop = asyncio.get_running_loop()
        # Others wait for the same connections: who is first must not have them all.
        for _ in range(1 if self._config.workers.count > 1 else _ACCEPT_BURST):
            try:
                connection, _address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                logger.error("cannot accept a connection: %s; raise the limit of open files", error.strerror)
                loop.remove_reader(sock.fileno())
                loop.call_later(_PAUSE, self._resume, sock, service)
                return
            if connection.family != getattr(socket, "AF_UNIX", None):
                # asyncio does it only where the listener was made with proto=IPPROTO_TCP.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._begin(connection, None, service)

    def _accept_last(self, sock: socket.socket, service: Service) -> None:
        """Serve whoever has connected, and let nobody else do so: they would be reset at the end.

        Where others listen on the same socket, they go on.
        """
        for _ in range(_LAST):
            try:
                connection, _address = sock.accept()
            except OSError:  # most often, there is none
                break
            self._begin(connection, None, service)
        sock.close()

    def _begin(self, connection: socket.socket, data: bytes | None, service: Service) -> None:
        connection.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._connect(connection, data, service))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _resume(self, sock: socket.socket, service: Service) -> None:
        if self._stop is not None and not self._stop.done():
            asyncio.get_running_loop().add_reader(sock.fileno(), self._accept, sock, service)

    async def _connect(self, connection: socket.socket, data: bytes | None, service: Service) -> None:
        if service.draining and service.hand_over is not None:
            service.leave(connection.fileno(), data or b"", connection.close)
            return
        try:
            await self._entrance.enter(connection, data, partial(Connection, service))
        except OSError:
            connection.close()  # gone before it was begun

    def adopt(self, connections: list[tuple[socket.socket, bytes]], taken: Callable[[], None]) -> bool:
        """Serve connections that a predecessor has handed over; any thread. False: too late.

        Args:
            connections: with what was read of each.
            taken: called directly before anything of them is served: until then another process could,
                and from then on none may. A request may end this process.
        """
        with self._lock:
            if self._loop is None or self._service is None or self._service.draining:
                return False
            self._loop.call_soon_threadsafe(self._adopt, connections, self._service, taken)
            return True

    def _adopt(
        self, connections: list[tuple[socket.socket, bytes]], service: Service, taken: Callable[[], None]
    ) -> None:
        taken()
        for connection, data in connections:
            self._begin(connection, data, service)

    def release(self) -> None:
        """Begin the request that the gate has held back first; any thread.

        Not all of them: those behind it may have come after a save, and are asked about on their own.
        """

        def begin() -> None:
            if self._service is not None and self._service.held:
                self._service.held.popleft().release()

        self.soon(begin)

    def soon(self, callback: Callable[[], None]) -> None:
        """Call something in the event loop's thread, if it still runs; any thread."""
        with self._lock:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(callback)

    # ending

    def abandon(self) -> None:
        """Hand over what can be, as the loop has not turned since it was told to stop; any thread.

        This process is about to end; connections that were accepted would be reset.
        """
        service = self._service
        if service is not None and not service.draining and service.hand_over is not None:
            given = [each.abandoned() for each in list(service.connections)]
            service.hand_over([each for each in given if each is not None])

    async def _drain(self, service: Service, grace: float, restart: bool) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            service.draining = True
        if not restart:
            service.hand_over = None  # nobody serves next
        await asyncio.sleep(0)  # what was adopted until now becomes a task
        while self._tasks:
            for task in self._tasks if self._entrance.waits else ():
                task.cancel()  # nothing was asked yet, and a handshake may never end
            await asyncio.wait(self._tasks)
        deadline = loop.time() + grace
        endless = {handler for connection in service.connections for handler in connection.endless}
        # Those first of which something was read: somebody waits for their answer.
        for connection in sorted(service.connections, key=lambda each: not each.waiting):
            connection.shutdown(CLOSE_RESTART if restart else CLOSE_GOING_AWAY)
        if endless:
            await self._idle(service, min(deadline, loop.time() + _HURRY), set())
            for handler in endless & service.gateway.running:
                handler.cancel()
            # One more look for tasks to unwind; a thread that sleeps in such a response is not waited for.
            await asyncio.sleep(_POLL)
        if await self._idle(service, deadline, endless):
            service.flush()
            return
        is_reload = restart and self._config.reload.enabled
        option = "--reload-grace" if is_reload else "--timeout-graceful-shutdown"
        for connection in list(service.connections):
            connection.disconnect(f"cut off: it took longer than {grace:g} s ({option})")
        await asyncio.sleep(_POLL)  # applications see the disconnect before they are cancelled
        for handler in list(service.gateway.running):
            handler.cancel()
        await self._idle(service, loop.time() + _UNWIND, endless)
        for handler in service.gateway.running:
            logger.warning("still running at the end of the grace: %s", handler)

    async def _idle(self, service: Service, deadline: float, apart_from: set[Handler]) -> bool:
        """Wait until no connection is open and no handler runs. False: not by the deadline."""
        loop = asyncio.get_running_loop()
        pause = _POLL / 16  # a successor may be waiting, and mostly it is a matter of a turn of the loop
        while service.connections or service.gateway.running - apart_from:  # see _POLL
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _POLL)
        return True

    async def _shut_down(self, lifespan: Lifespan) -> None:
        try:
            await asyncio.wait_for(lifespan.shutdown(), self._config.http.graceful)
        except TimeoutError:
            logger.error(
                "the lifespan's shutdown took longer than %g s (--timeout-graceful-shutdown) and was cut off",
                self._config.http.graceful,
            )
            await lifespan.cancel()
