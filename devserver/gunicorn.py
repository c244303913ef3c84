"""Workers for gunicorn: `gunicorn -k devserver.gunicorn.Worker app:app`, WSGI and ASGI told apart.

gunicorn's arbiter binds, forks, restarts and kills; a worker serves on its sockets. This module translates:
gunicorn's settings into a configuration, its signals, its heartbeat and its hooks into what `server.Serving`
knows. Nothing else imports it.

gunicorn's base class leaves a worker from within signal handlers, which a loop would not survive. So as soon
as there is a loop, it handles the signals, all but SIGABRT: that is for a worker whose loop hangs.

Requests are counted and logged between HTTP and the application (`Watched`), since gunicorn's log wants to
know more than our own: the size of the response, and its headers. What HTTP refuses has a line in the error
log, and a response that was cut short has none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable
from datetime import timedelta
from time import perf_counter
from types import SimpleNamespace
from typing import Any, Literal, cast

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers import base

from devserver.alone import run_loop
from devserver.app import Application
from devserver.config import Config
from devserver.console import format_failure
from devserver.errors import UsageError
from devserver.front.entrance import Handshake
from devserver.gateway.lifespan import StartupFailed
from devserver.http.codes import SWITCHING_PROTOCOLS
from devserver.http.exchange import Exchange, Gateway, Handler, Headers, Request, Session
from devserver.interface import classify
from devserver.server import Serving

assert sys.platform != "win32"  # there is no gunicorn there; a type checker reads no further

_BEAT = 1.0
"""Seconds between two heartbeats, unless `--timeout` asks for more."""

_MARGIN = 0.5
"""Seconds before the end of `--graceful-timeout`, when the arbiter kills."""

_HEAD = 65536
"""The largest head in bytes, unless gunicorn's limits together are set to more."""


_NAMES = {
    "--wsgi-threads": "--threads",
    "--timeout-graceful-shutdown": "--graceful-timeout",
    "--timeout-keep-alive": "--keep-alive",
    "--ssl-": "--",
}
"""Options of ours, and what gunicorn calls them."""


class Worker(base.Worker):  # type: ignore[misc] # gunicorn has no types
    """Serves with uvloop and httptools where they are installed."""

    parser: Literal["auto", "h11"] = "auto"
    loop_name: Literal["asyncio"] | None = None

    def run(self) -> None:
        """Serve until told to stop."""
        _log_to(self.log.error_log, self.cfg.threads)
        try:
            config = _configuration(self.cfg, self.parser, self.loop_name)
            contexts = _Contexts(self.cfg, config) if config.tls.enabled else None
        except UsageError as error:  # another start would fail, too: the arbiter ends
            self.log.error("%s", error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        self._grace = max(self.cfg.graceful_timeout - _MARGIN, self.cfg.graceful_timeout / 2)
        sockets = [each.sock for each in self.sockets]
        for sock in sockets:
            sock.setblocking(False)
        self._serving = Serving(
            config,
            self._application(),
            sockets,
            own=Watched(self._counted, self._logged if _logs(self.log) else None),
            entrance=None if contexts is None else Handshake(config, contexts),
        )
        try:
            run_loop(self._serve(), config)
        except StartupFailed as error:
            self.log.error("%s", format_failure(error.__cause__) if error.__cause__ else error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)  # another start would fail, too: the arbiter ends

    def _application(self) -> Application:
        name = str(self.cfg.wsgi_app or "the application")
        interface = classify(self.wsgi, name=name)
        app = _flagged(self.wsgi, self.cfg) if interface == "wsgi" else self.wsgi
        return Application(app, interface, name)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain)
        for signum in (signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(signum, self._quit)
        loop.add_signal_handler(signal.SIGUSR1, self.log.reopen_files)
        loop.add_reader(self.PIPE[0], self._woken)
        self._beat()
        try:
            await self._serving.run(lambda: None)
        finally:
            # The arbiter repeats SIGTERM, which without a loop would end this process amid its exit handlers.
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM))

    def _beat(self) -> None:
        """Tell the arbiter that the loop turns; notice that it has gone."""
        self.notify()
        if self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False
        self._look()
        asyncio.get_running_loop().call_later(min(_BEAT, (self.timeout or _BEAT) / 2), self._beat)

    def _woken(self) -> None:
        """The reloader has found a change, in a thread."""
        os.read(self.PIPE[0], 4096)
        self._look()

    def _look(self) -> None:
        if not self.alive:
            self._serving.stop(self._grace)

    def _drain(self) -> None:
        self.alive = False
        self._look()

    def _quit(self) -> None:
        """End without waiting for requests; at once if it has begun to end."""
        begun, self.alive = not self.alive, False
        self.cfg.worker_int(self)
        if begun:
            sys.exit(0)
        self._serving.stop(0.0)

    def _counted(self) -> bool:
        """Another request begins; whether this worker ends after it."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self._drain()
        return not self.alive

    def _logged(self, request: Request, response: Response, seconds: float) -> None:
        """Write the access line in gunicorn's format. Args: seconds: from the head to the response's end."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers}
        environ |= {
            "REQUEST_METHOD": request.method,
            "RAW_URI": request.target.decode("latin-1"),
            "SERVER_PROTOCOL": f"HTTP/{request.version}",
            "PATH_INFO": request.path.decode("latin-1"),
            "QUERY_STRING": request.query.decode("latin-1"),
            "REMOTE_ADDR": request.peer.client[0] if request.peer.client else "",
        }
        told = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
        shown = SimpleNamespace(status=response.status, sent=response.sent, headers=told)
        self.log.access(shown, SimpleNamespace(headers=headers), environ, timedelta(seconds=seconds))


class H11Worker(Worker):
    """Serves with h11 and asyncio, in pure Python; also under PyPy."""

    parser: Literal["auto", "h11"] = "h11"
    loop_name: Literal["asyncio"] | None = "asyncio"


class Response:
    """What was answered: a status, headers, and the bytes of the body."""

    __slots__ = ("headers", "sent", "status")

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.headers: Headers = []
        self.sent = 0


Logged = Callable[[Request, Response, float], None]


class Watched:
    """A gateway before another, which counts requests and logs responses. Implements `service.Own`.

    Attributes:
        waiting: nothing waits here for anything.
        running, websockets: the other's.
    """

    waiting = 0
    running: set[Handler]
    websockets: bool

    def __init__(self, counted: Callable[[], bool], logged: Logged | None) -> None:
        """
        Args:
            counted: called when a request, or a WebSocket, has begun; whether it is to be the last one.
            logged: takes what was answered, and the seconds that it took; None if nobody wants it.
        """
        self._counted = counted
        self._logged = logged

    def has(self, path: bytes) -> bool:
        """No path is the server's own."""
        return False

    def before(self, gateway: Gateway) -> Gateway:
        """Watch a gateway."""
        self._gateway = gateway
        self.running, self.websockets = gateway.running, gateway.websockets
        return self

    def exchange(self, exchange: Exchange) -> Handler:
        """See `Gateway`."""
        is_last = self._counted()
        if self._logged is not None or is_last:
            exchange = cast(Exchange, _Counting(exchange, self._logged, is_last=is_last))
        return self._gateway.exchange(exchange)

    def session(self, session: Session) -> Handler:
        """See `Gateway`; a WebSocket is logged as it begins."""
        self._counted()
        if self._logged is not None:
            self._logged(session.request, Response(SWITCHING_PROTOCOLS), 0.0)
        return self._gateway.session(session)

    def close(self) -> None:
        """See `Gateway`."""
        self._gateway.close()


class _Counting:
    """An exchange that notes what is sent; all else it leaves to the one behind it."""

    def __init__(self, exchange: Exchange, logged: Logged | None, *, is_last: bool) -> None:
        """Args: is_last: no other is to follow on the connection."""
        self._exchange = exchange
        self._is_last = is_last
        self._logged = logged
        self._began = perf_counter()
        self._response = Response()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchange, name)

    def start(self, status: int, headers: Headers) -> None:
        if self._is_last:
            headers = [*headers, (b"Connection", b"close")]
        self._exchange.start(status, headers)
        self._response.status, self._response.headers = status, headers

    def write(self, data: bytes, more: bool) -> None:
        self._exchange.write(data, more)
        self._sent(len(data), more)

    def send_file(self, file: int, offset: int, count: int, more: bool) -> None:
        self._exchange.send_file(file, offset, count, more)
        self._sent(count, more)

    def trail(self, headers: Headers) -> None:
        self._exchange.trail(headers)
        self._sent(0, False)

    def _sent(self, count: int, more: bool) -> None:
        exchange, response = self._exchange, self._response
        if exchange.request.method != "HEAD":
            response.sent += count
        if self._logged is not None and not more and not exchange.disconnected:
            self._logged(exchange.request, response, perf_counter() - self._began)


class _Contexts:
    """The TLS context, as the hook `ssl_context` makes it."""

    def __init__(self, settings: Any, config: Config) -> None:
        from devserver.front.tls import make
        from devserver.http.h2 import is_spoken

        http2 = is_spoken(config.http)
        self._context: ssl.SSLContext = settings.ssl_context(settings, lambda: make(config.tls, http2))

    def current(self) -> ssl.SSLContext:
        """The context for a connection that begins now."""
        return self._context


def _logs(log: Any) -> bool:
    """Whether responses are logged, or counted by a logger of another class, such as statsd's."""
    return type(log).access is not Logger.access or bool(getattr(log, "access_log_enabled", True))


def _flagged(app: Callable[..., Any], settings: Any) -> Callable[..., Any]:
    """A WSGI application that is told how many run beside it (PEP 3333)."""
    threads, processes = settings.threads > 1, settings.workers > 1

    def flagged(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.multithread"], environ["wsgi.multiprocess"] = threads, processes
        return app(environ, start_response)

    return flagged


def _configuration(settings: Any, parser: Literal["auto", "h11"], loop: Literal["asyncio"] | None) -> Config:
    """gunicorn's settings as options. Settings that came with a later gunicorn may be missing.

    Raises:
        UsageError: settings that exclude each other.
    """
    announced = getattr(settings, "proxy_protocol", False) not in (False, "off")
    allowed = settings.proxy_allow_ips if announced else settings.forwarded_allow_ips
    protocol: Any = getattr(settings, "protocol", "http")  # since gunicorn 24
    if protocol == "uwsgi":
        allowed = settings.uwsgi_allow_ips
    head = settings.limit_request_line + settings.limit_request_field_size
    tls: dict[str, Any] = {}
    if settings.is_ssl:
        if settings.certfile is None:
            raise UsageError("--keyfile says nothing by itself: give --certfile, too")
        tls = {
            "ssl_certfile": settings.certfile,
            "ssl_keyfile": settings.keyfile,
            "ssl_ca_certs": settings.ca_certs,
            "ssl_cert_reqs": int(settings.cert_reqs) if settings.ca_certs else None,
            "ssl_ciphers": settings.ciphers,
        }
    return Config(
        protocol=protocol,
        http=parser,
        loop=loop or cast(Literal["auto"], getattr(settings, "asgi_loop", "auto")),
        lifespan=getattr(settings, "asgi_lifespan", "auto"),
        root_path=getattr(settings, "root_path", "") or None,
        timeout_keep_alive=settings.keepalive,
        timeout_graceful_shutdown=settings.graceful_timeout,
        wsgi_threads=settings.threads,
        workers=settings.workers,
        h11_max_incomplete_event_size=max(_HEAD, head),
        ws_max_size=getattr(settings, "websocket_max_message_size", None),
        forwarded_allow_ips=[*_addresses(allowed), "unix"],
        proxy_protocol=announced,
        access_log=False,  # it is gunicorn's
        **tls,
    )


def _addresses(allowed: Any) -> list[str]:
    return [str(each) for each in (allowed.split(",") if isinstance(allowed, str) else allowed)]


def _log_to(error_log: logging.Logger, threads: int) -> None:
    """Have our own lines in gunicorn's error log."""
    logger = logging.getLogger("devserver")
    logger.handlers, logger.propagate = error_log.handlers, False
    logger.setLevel(error_log.level)
    logger.addFilter(InItsWords(threads))


class InItsWords(logging.Filter):
    """Lines of our own that name options, with gunicorn's names for them."""

    def __init__(self, threads: int) -> None:
        """Args: threads: for a WSGI application. That requests wait for the only one is no news."""
        super().__init__()
        self._threads = threads

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written; its text is changed."""
        text = str(record.msg)
        for ours, its in _NAMES.items():
            text = text.replace(ours, its)
        is_news = "--wsgi-threads" not in str(record.msg) or self._threads > 1
        record.msg = text
        return is_news
