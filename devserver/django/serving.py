"""Serves what a command would hand to `django.core.servers.basehttp.run`.

In a child of ours there is a context, and the handler goes there. Elsewhere (`--noreload`,
`testserver`, `call_command(..., use_reloader=False)`) it is served in this process until Ctrl-C.

With `--nothreading` the application has one thread: that of the command where there is no loop in
it, so that a database in memory that was filled there is the one that requests see.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NoReturn

from devserver.app import Application
from devserver.config import resolve
from devserver.errors import BindError
from devserver.interface import classify
from devserver.process.signals import Bell
from devserver.serve_context import ServeContext

_context: ServeContext | None = None
_options: dict[str, Any] = {}
_scheme = "http"


def context() -> ServeContext | None:
    """Where to serve in a child of ours; None in any other process."""
    return _context


def set_stage(new: ServeContext | None) -> None:
    """Say that this process is a child of ours."""
    global _context
    _context = new


def scheme() -> str:
    """That of what is served here: "http", "https" or "uwsgi"."""
    return _context.config.scheme if _context is not None else _scheme


def set_options(options: dict[str, Any]) -> None:
    """Say which of devserver's own options the command was given: Django's `run` has no room for them."""
    _options.clear()
    _options.update(options)


def application_of(handler: Any) -> Application:
    """A handler as what can be served, WSGI or ASGI."""
    name = type(handler).__qualname__
    return Application(handler, classify(handler, "auto", name), name)


def run(
    addr: str,
    port: int,
    wsgi_handler: Any,
    ipv6: bool = False,
    threading: bool = False,
    on_bind: Callable[[int], None] | None = None,
    server_cls: object = None,
) -> None:
    """What stands for Django's function of this name. The arguments are its own.

    Args:
        server_cls: not used: the server is ours.

    Raises:
        KeyboardInterrupt: as there, after Ctrl-C.
        OSError: the address cannot be listened on.
    """
    if isinstance(wsgi_handler, Served):
        if on_bind is not None:
            on_bind(wsgi_handler.port)
        return
    if _context is not None:
        serve_on(_context, wsgi_handler, threading, on_bind)
    _Alone(wsgi_handler, threading, on_bind).run({**_options, "host": addr, "port": str(port)})


def serve_on(
    context: ServeContext, handler: Any, threading: bool, on_bind: Callable[[int], None] | None = None
) -> NoReturn:
    """Serve until the end, and end this process."""
    _redirect_access_lines()
    if on_bind is not None:
        bound = on_bind
        context.on_serving = lambda: bound(port_of(context))
    sys.exit(context.serve(application_of(handler if threading else in_one_thread(handler))))


def _redirect_access_lines() -> None:
    from devserver.django.access import redirect  # Django's logging is needed by then, and not before

    redirect()


class Served:
    """In place of a handler that is being served already: all that is left is to say so."""

    def __init__(self, port: int) -> None:
        self.port = port


def port_of(context: ServeContext) -> int:
    """The port that is listened on; 0 for none."""
    names = [sock.getsockname() for sock in context.sockets]
    return next((int(name[1]) for name in names if isinstance(name, tuple)), 0)


class _Alone:
    """One process that serves."""

    def __init__(self, handler: Any, threading: bool, on_bind: Callable[[int], None] | None) -> None:
        self._handler = handler
        self._on_bind = on_bind
        self._worker = None if threading or application_of(handler).interface != "wsgi" else Worker()

    def run(self, given: dict[str, Any]) -> None:
        given = {**given, "target": os.path.basename(sys.argv[0]), "reload": False}
        global _scheme
        config = resolve(given, os.environ, os.getcwd())
        _scheme = config.scheme
        before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            if self._worker is None:
                self._start(config)
            else:
                self._beside(self._worker, config)
        finally:
            if threading.current_thread() is threading.main_thread():
                for signum, handler in before.items():
                    signal.signal(signum, handler)
        raise KeyboardInterrupt

    def _start(self, config: Any) -> None:
        from devserver.launch import start

        try:
            start(config, spare=False, program=self._program)
        except BindError as error:
            raise OSError(str(error)) from error

    def _beside(self, worker: Worker, config: Any) -> None:
        """The loop in a thread, and the application in this one, which is the one that signals come to."""
        failed: list[BaseException] = []

        def serve() -> None:
            try:
                self._start(config)
            except BaseException as error:  # raised again in the thread of the command
                failed.append(error)
            finally:
                worker.close()

        threading.Thread(target=serve, name="devserver", daemon=True).start()
        worker.work()
        if failed:
            raise failed[0]

    def _program(self, context: ServeContext) -> int:
        context.on_serving = lambda: self._on_bind(port_of(context)) if self._on_bind is not None else None
        _redirect_access_lines()
        handler = self._handler
        if self._worker is not None:
            handler = self._worker.wrap(handler)
            context.in_main = self._worker.call
        return context.serve(application_of(handler))


class Worker:
    """Runs a WSGI application in one thread, whichever thread it is called from."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None] | None] = deque()
        self._bell = Bell()

    def work(self) -> None:
        """Do the work, in this thread, until `close`."""
        with closing(self._bell), self._bell.rung_by_signals():
            while True:
                self._bell.wait()
                while self._jobs:
                    if (job := self._jobs.popleft()) is None:
                        return
                    job()

    def close(self) -> None:
        """Have `work` return."""
        self._put(None)

    def _put(self, job: Callable[[], None] | None) -> None:
        self._jobs.append(job)
        self._bell.ring()

    def call(self, what: Callable[[], Any]) -> Any:
        """Have something called there. Returns, or raises, what it does."""
        done = threading.Event()
        answer: list[tuple[bool, Any]] = []

        def job() -> None:
            try:
                answer.append((True, what()))
            except BaseException as error:  # user code; it belongs to who asked
                answer.append((False, error))
                if isinstance(error, KeyboardInterrupt):
                    raise
            finally:
                done.set()

        self._put(job)
        done.wait()
        good, value = answer[0]
        if not good:
            raise value
        return value

    def wrap(self, application: Any) -> Callable[[Any, Any], Result]:
        """The application, called there."""

        def wrapped(environ: Any, start_response: Any) -> Result:
            return Result(self, self.call(lambda: application(environ, start_response)))

        return wrapped


class Result:
    """The iterable of a response, iterated in the worker's thread. PEP 3333."""

    def __init__(self, worker: Worker, result: Any) -> None:
        self._worker = worker
        self._result = result

    def __iter__(self) -> Iterator[bytes]:
        iterator = self._worker.call(lambda: iter(self._result))
        while (part := self._worker.call(lambda: next(iterator, None))) is not None:
            yield part

    def close(self) -> None:
        """See PEP 3333."""
        close = getattr(self._result, "close", None)
        if close is not None:
            self._worker.call(close)


def in_one_thread(handler: Any) -> Any:
    """A WSGI application with a thread of its own, and no other; one of ASGI as it is."""
    if application_of(handler).interface != "wsgi":
        return handler
    worker = Worker()
    threading.Thread(target=worker.work, name="wsgi-1", daemon=True).start()
    return worker.wrap(handler)
