"""The composition root: which role has this process, and which parts does it need?

    start         the command line: a supervisor with `--reload`, else the one serving process
    run           the same from Python

What a supervisor has spawned is composed in `devserver.child.main`. Every import is made in the role that
needs it: a supervisor must stay light, and a child must begin to load as soon as it can.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from devserver import console
from devserver.config import OPTIONS, Config, resolve
from devserver.cpython import CAN_COPY, keep_all
from devserver.errors import UsageError
from devserver.events import Events
from devserver.extras import check_extras
from devserver.managers.systemd import Notifier
from devserver.options import misspelt
from devserver.process import Terminal, adopt, guard
from devserver.process.pidfile import PidFile
from devserver.process.prompt import debugged
from devserver.process.signals import Signals, held, managing, wanted
from devserver.target import serve_target

if TYPE_CHECKING:
    import socket

    from devserver.listeners import Listeners
    from devserver.reload.children import Children
    from devserver.reload.launcher import Launcher, MakeLauncher
    from devserver.reload.spawner import Spawner
    from devserver.serve_context import Program
    from devserver.watching.watchset import WatchSet
    from devserver.workers.peer import Peer

logger = logging.getLogger("devserver")

SPAWNED = "--multiprocessing-fork"
"""Among the arguments of a process that `multiprocessing` has spawned."""


def start(
    config: Config,
    *,
    spare: bool = True,
    program: Program = serve_target,
    find: Callable[[Config], str] | None = None,
) -> int:
    """Serve as the configuration says, until told to stop. Returns the exit code.

    Args:
        find: names what will be served, before anything is promised; "" if there is nothing yet.
        program: loads the application where there is no supervisor, whose child has one of its own.
        spare: whether this program, started again, runs no user code before it is told its role.

    Raises:
        DevserverError: what ends it at once: an address in use, a target that is none.
    """
    from devserver.listeners import Listeners, bind

    console.configure(config.log)
    check_extras(config)
    found = str(config.app.target or "the application found") if find is None else find(config)
    peer, sockets = _predecessor(config)
    listeners = bind(config.bind) if peer is None else Listeners(sockets, config.bind.uds)
    listeners.scheme = config.scheme
    if config.bind.fd == 0 and peer is None:
        _empty_input()
    notifier = Notifier.take(os.environ, os.getpid(), lives_on=config.reload.enabled)
    events = Events.open(config.log.events, None if notifier is None else notifier.happened)
    pidfile = PidFile(config.workers.pidfile)
    try:
        if config.reload.enabled:
            pidfile.write()
            if config.workers.limited:
                logger.warning("with --reload no worker is replaced: the limits of workers have no effect")
            with Signals(wanted()) as signals:  # from now on they are heard, if not at once
                return _supervise(config, listeners, events, spare, signals, found, notifier)
        if config.workers.several:
            _check_forks()
            with ExitStack() as stack:
                signals = Signals(managing())
                with held(managing()):  # who reads the file may send them
                    (pidfile.write if peer is None else pidfile.write_beside)()
                    _leave_first()
                    stack.enter_context(signals)
                _prepare(config, listeners, events, spare, found)
                return _serve_by_workers(config, listeners, events, notifier, program, signals, peer, pidfile)
        pidfile.write()
        _leave_first()
        _prepare(config, listeners, events, spare, found)
        from devserver.alone import serve_alone

        return serve_alone(config, listeners.sockets, events, program, found, notifier)
    finally:
        pidfile.close()
        listeners.close()
        events.close()
        if notifier is not None:
            notifier.close()


def _leave_first() -> None:
    if sys.platform == "linux":
        from devserver.process.first import leave_first

        leave_first()


def _prepare(config: Config, listeners: Listeners, events: Events, spare: bool, found: str) -> None:
    """Do what comes before an application is served without a supervisor.

    Raises:
        UsageError: the certificate cannot be used.
    """
    console.show_prints_at_once()
    if config.tls.enabled:
        from devserver.front.entrance import entrance

        entrance(config)
    if spare:
        _keep()
    _announce(config, listeners, events, found)


def _check_forks() -> None:
    """Refuse workers where they cannot be forked.

    Raises:
        UsageError: this system, or a process with threads, cannot fork.
    """
    if sys.platform != "win32":
        from devserver.process.orphans import is_single

        if not is_single():
            raise UsageError(
                "workers cannot be forked from a process with threads: call run before they start,"
                " or have one process serve, without workers and WEB_CONCURRENCY"
            )
    else:
        raise UsageError("--workers needs a system that can fork, which Windows is not: leave it out")


def _predecessor(config: Config) -> tuple[Peer | None, list[socket.socket]]:
    """The arbiter that this process is to succeed, with its sockets, if one has started it for that."""
    if sys.platform != "win32" and config.workers.several and not config.reload.enabled:
        from devserver.workers.peer import predecessor

        if (found := predecessor(os.environ)) is not None:
            return found
    return None, []


def _serve_by_workers(
    config: Config,
    listeners: Listeners,
    events: Events,
    notifier: Notifier | None,
    program: Program,
    signals: Signals,
    peer: Peer | None,
    pidfile: PidFile,
) -> int:
    """Begin workers, and replace them."""
    if sys.platform != "win32":
        from devserver.http.tally import Tally
        from devserver.workers.arbiter import Arbiter, Roles
        from devserver.workers.loader import Loader
        from devserver.workers.peer import Succeeding, begin_successor
        from devserver.workers.worker import Worker

        sockets, variables = listeners.sockets, {} if notifier is None else notifier.variables
        tally = None if config.http.concurrency is None else Tally()
        terminal = Terminal()
        with guard(terminal.restore):
            roles = Roles(
                work=lambda seat: Worker(config, sockets, events, seat, tally).work(program),
                load=lambda channel: Loader(config, sockets, events, channel, tally).run(program),
                close_listeners=lambda: _close(sockets),
                tally=tally,
            )
            succeeding = Succeeding(
                begin=lambda: begin_successor(sockets, variables, events.passed_on),
                done=pidfile.succeed,
                predecessor=peer,
            )
            arbiter = Arbiter(config, events, notifier, roles, succeeding)
            code = arbiter.run(signals)
            if arbiter.is_succeeded:
                listeners.keep_file()
            return code
    raise AssertionError("Windows cannot fork")


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _empty_input() -> None:
    """Have nothing to read as standard input, which was the listening socket.

    Whatever the application starts inherits it, and would hold the port.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _announce(config: Config, listeners: Listeners, events: Events, found: str) -> None:
    for line in misspelt(OPTIONS, os.environ):
        logger.warning("%s", line)
    if config.programs and config.companions.enabled and not config.reload.enabled:
        names = ", ".join(each.name for each in config.programs)
        logger.info("without --reload no companion runs beside the server: %s", names)
    keys = sys.stdin is not None and sys.stdin.isatty()
    elsewhere = _urls(listeners)
    for line in console.banner([*listeners.urls, *elsewhere], found, config.reload.enabled, keys):
        logger.info("%s", line)
    if config.http.protocol == "uwsgi":
        logger.info("the protocol is uwsgi: open the address of nginx, not this one")
    if config.bind.qr:
        _show_qr(config, elsewhere)
    if config.tls.certfile is None and config.tls.https:
        from devserver.front.folder import can_vouch, is_trusted

        for url in elsewhere:
            host = url.partition("://")[2].rpartition(":")[0].strip("[]")
            if not can_vouch(host):
                logger.warning(
                    "browsers will warn at %s: it is not an address of a private network, so the certificate"
                    " is not for it; give --ssl-certfile for one that is",
                    url,
                )
        if not is_trusted():
            logger.info("browsers will warn of the certificate until you run: devserver trust")
    events.emit("listening", url=listeners.urls[0], urls=listeners.urls, pid=os.getpid())


def _show_qr(config: Config, urls: Sequence[str]) -> None:
    from devserver.qr import code, draw

    if not urls:
        logger.warning("--qr: no other device can reach this server; add --host 0.0.0.0")
        return
    logger.info("%s as a QR code:", urls[0])
    colors = console.wants_colors(config.log.colors, sys.stderr, os.environ)
    try:
        # Not by the log, which takes what is no text for an attempt to play with the terminal.
        sys.stderr.write(draw(code(urls[0]), colors) + "\n")
    except UnicodeEncodeError:
        logger.warning("--qr: the terminal's encoding has no blocks to draw with; set PYTHONIOENCODING=utf-8")


def _urls(listeners: Listeners) -> list[str]:
    """URLs of the network, where all interfaces are meant."""
    urls: list[str] = []
    for sock in listeners.sockets:
        name = sock.getsockname()
        if isinstance(name, tuple) and name[0] in ("0.0.0.0", "::"):
            urls += console.lan_urls(name[0], name[1], listeners.scheme)
    return urls


def run(target: object, options: Mapping[str, object]) -> None:
    """See `devserver.run`."""
    channel = adopt()
    if channel is not None:
        from devserver.child import main

        sys.exit(main.run(channel, serve_target))
    given = options if target is None else {"target": target, **options}
    config = resolve(given, os.environ, os.getcwd(), typed=True)
    _check_caller(config)
    sys.exit(start(config, spare=False))


def _check_caller(config: Config) -> None:
    """Refuse at once what would fail later, and less clearly."""
    loops = sys.modules.get("asyncio.events")  # whoever runs one has imported it
    if loops is not None and loops._get_running_loop() is not None:
        raise UsageError(
            "devserver.run cannot be called while an event loop runs in its thread;"
            " devserver.Server serves beside it"
        )
    if config.reload.enabled and threading.current_thread() is not threading.main_thread():
        raise UsageError(
            "devserver.run with reload=True must be called in the main thread, to which signals come;"
            " devserver.Server serves in any thread, without reload"
        )


# a supervisor and its children


def explain_paths(config: Config, paths: Iterable[str]) -> tuple[list[str], bool]:
    """What a change of each path would do; see `reload.explain`."""
    from devserver.reload.explain import explain

    return explain(config, _spawner(spare=False), paths)


def _supervise(
    config: Config,
    listeners: Listeners,
    events: Events,
    spare: bool,
    signals: Signals,
    found: str,
    notifier: Notifier | None,
) -> int:
    terminal = Terminal()
    with guard(terminal.restore):
        spawner = _spawner(spare)
        spawner.begin()  # its imports take their time, and so do ours
        make = _launcher(spawner)
        if config.tls.enabled and sys.platform != "win32":
            try:
                make = _behind_terminator(config, listeners.sockets, make)
            except UsageError:  # a certificate that cannot be used ends it all
                spawner.close()
                raise
        make = _accompanied(config, events, listeners.urls[0], make)
        _announce(config, listeners, events, found)
        from devserver.reload.report import Report
        from devserver.reload.supervisor import Supervisor

        if spare:
            _keep()
        report = Report(events, found, notifier)
        return Supervisor(config, listeners.sockets, report, make, terminal).run(signals)


def _behind_terminator(config: Config, sockets: list[socket.socket], make: MakeLauncher) -> MakeLauncher:
    """Start the process that ends TLS, and have children get their connections from it.

    Raises:
        UsageError: the certificate cannot be used.
    """
    from devserver.front.keeper import Keeper

    terminator = Keeper(config, sockets)
    terminator.begin()

    def behind(children: Children, watched: WatchSet) -> Launcher:
        children.stand_behind(terminator)
        return make(children, watched)

    return behind


def _accompanied(config: Config, events: Events, url: str, make: MakeLauncher) -> MakeLauncher:
    """Have programs run beside the server; `url` is its address."""
    from devserver.companions.keeper import Companions

    companions = Companions(config, events, url)

    def beside(children: Children, watched: WatchSet) -> Launcher:
        children.accompany(companions)
        return make(children, watched)

    return beside


def _launcher(spawner: Spawner) -> MakeLauncher:
    """What starts the children: warm, where this system and this Python can copy a process."""
    if sys.platform == "linux" and CAN_COPY and hasattr(os, "pidfd_open") and not debugged():
        from devserver.warm.launcher import Warm

        return partial(Warm, spawner)
    from devserver.cold import Cold

    return partial(Cold, spawner)


def _spawner(spare: bool) -> Spawner:
    from devserver.reload.spawner import Spawner

    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    interpreter = [sys.executable, "-P"]
    # The page child must not run a user's script again, nor find a user's module named like one of ours.
    page = f"import sys; sys.path.append({root!r}); from devserver.__main__ import main; main()"
    page_argv = [*interpreter, "-c", page]
    if SPAWNED in sys.orig_argv:  # it would look for its parent's pipe; the application is named by a string
        return Spawner(page_argv, page_argv, spare=True, repeats=False)
    return Spawner([sys.executable, *sys.orig_argv[1:]], page_argv, spare=spare)


def _keep() -> None:
    """What is there by now lives to the end: no collection needs to look at it, least of all the last one.

    Not where a script calls `run`, which may want to collect what it has made before, or nothing.
    """
    keep_all()
