"""The composition root: which role has this process, and which parts does it need?

    start         the command line: a supervisor with `--reload`, else the one serving process
    run           the same from Python
    child         the process that a supervisor spawned: the application's, or the page's

The only place where serving and reloading meet. Every import is made in the role that needs it:
a supervisor must stay light, and a child must begin to load as soon as it can.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, assert_never

from devserver import console
from devserver.alone import run_loop
from devserver.config import OPTIONS, Config, resolve
from devserver.cpython import CAN_COPY, keep_all
from devserver.errors import DevserverError, UsageError
from devserver.events import Events
from devserver.options import misspelt
from devserver.process import Terminal, adopt, guard, listeners_from
from devserver.process.control import Channel, Closed
from devserver.process.signals import Signals, wanted

if TYPE_CHECKING:
    import socket

    from devserver.app import Application
    from devserver.listeners import Listeners
    from devserver.loading.loader import Recorder
    from devserver.reload import protocol
    from devserver.reload.child import Child, Stepwise
    from devserver.reload.launcher import Launcher
    from devserver.stage import Program, Stage
    from devserver.watching.watchset import Gate

logger = logging.getLogger("devserver")

SPAWNED = "--multiprocessing-fork"
"""Among the arguments of a process that `multiprocessing` has spawned."""


def target(stage: Stage, then: Callable[[], None] = lambda: None) -> int:
    """The program that serves what `--target` names, or what is found without one.

    Args:
        then: called when it is loaded.
    """
    application = _load(stage.config)
    then()
    return stage.serve(application)


def start(
    config: Config,
    *,
    spare: bool = True,
    program: Program = target,
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
    from devserver.listeners import bind

    console.configure(config.log)
    found = str(config.app.target or "the application found") if find is None else find(config)
    listeners = bind(config.bind)
    events = Events.open(config.log.events)
    try:
        if config.reload.enabled:
            with Signals(wanted()) as signals:  # from now on they are heard, if not at once
                _announce(config, listeners, events, found)
                return _supervise(config, listeners.sockets, events, spare, signals, found)
        from devserver.alone import serve_alone

        if spare:
            _keep()
        _announce(config, listeners, events, found)
        return serve_alone(config, listeners.sockets, events, program, found)
    finally:
        listeners.close()
        events.close()


def _announce(config: Config, listeners: Listeners, events: Events, found: str) -> None:
    for line in misspelt(OPTIONS, os.environ):
        logger.warning("%s", line)
    keys = sys.stdin is not None and sys.stdin.isatty()
    for line in console.banner(_urls(config, listeners), found, config.reload.enabled, keys):
        logger.info("%s", line)
    events.emit("listening", url=listeners.urls[0], urls=listeners.urls, pid=os.getpid())


def _urls(config: Config, listeners: Listeners) -> list[str]:
    """The listeners' URLs; where all interfaces are meant, with those of the network."""
    urls = list(listeners.urls)
    for sock in listeners.sockets:
        name = sock.getsockname()
        if isinstance(name, tuple) and name[0] in ("0.0.0.0", "::"):
            urls += console.lan_urls(name[0], name[1])
    return urls


def run(target: object, options: Mapping[str, object]) -> None:
    """See `devserver.run`."""
    channel = adopt()
    if channel is not None:
        sys.exit(child(channel))
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


def _load(config: Config) -> Application:
    """The environment file first, then the application."""
    from devserver.app import load
    from devserver.discovery import discover

    section = config.app
    if section.env_file is not None:
        from devserver.dotenv import load as load_environment

        load_environment(section.env_file, os.environ)
    if section.target is None:
        section = replace(section, target=discover(section.app_dir))
    return load(section)


# a supervisor and its children


def explain_paths(config: Config, paths: Iterable[str]) -> tuple[list[str], bool]:
    """What a change of each path would do; see `reload.explain`."""
    from devserver.reload.explain import explain

    return explain(config, _launcher(spare=False), paths)


def _supervise(
    config: Config, sockets: list[socket.socket], events: Events, spare: bool, signals: Signals, found: str
) -> int:
    terminal = Terminal()
    with guard(terminal.restore):
        launcher = _launcher(spare)
        launcher.begin()  # its imports take their time, and so do ours
        from devserver.reload.supervisor import Supervisor

        if spare:
            _keep()
        return Supervisor(config, sockets, events, launcher, terminal, found).run(signals)


def _launcher(spare: bool) -> Launcher:
    from devserver.reload.launcher import Launcher

    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    interpreter = [sys.executable, "-P"]
    # The page child must not run a user's script again, nor find a user's module named like one of ours.
    page = f"import sys; sys.path.append({root!r}); from devserver.__main__ import main; main()"
    page_argv = [*interpreter, "-c", page]
    if SPAWNED in sys.orig_argv:  # it would look for its parent's pipe; the application is named by a string
        return Launcher(page_argv, page_argv, spare=True, repeats=False)
    return Launcher([sys.executable, *sys.orig_argv[1:]], page_argv, spare=spare)


def _keep() -> None:
    """What is there by now lives to the end: no collection needs to look at it, least of all the last one.

    Not where a script calls `run`, which may want to collect what it has made before, or nothing.
    """
    keep_all()


def _prepare() -> None:
    """Import what any role may need: in a spare this is what was done ahead."""
    import asyncio  # noqa: F401

    from devserver import app, discovery, server  # noqa: F401
    from devserver.devtools import endpoints  # noqa: F401
    from devserver.gateway import wsgi  # noqa: F401
    from devserver.loading import loader  # noqa: F401
    from devserver.reload import child  # noqa: F401
    from devserver.watching import watchset

    watchset.prepare()
    with suppress(ImportError):  # optional
        importlib.import_module("uvloop")
    server.parser("auto")


def child(channel: Channel, program: Program = target) -> int:
    """Be the child that the supervisor at the other end of `channel` wants. Returns the exit code.

    Args:
        program: loads the application; a page has none.
    """
    from devserver.process.signals import leave_interrupts
    from devserver.process.standing import answer
    from devserver.reload import protocol
    from devserver.reload.child import Child
    from devserver.reload.prompt import debugged

    leave_interrupts()
    gc.disable()
    _prepare()
    from devserver import server

    _keep()
    try:
        message, fds = channel.receive_one()
    except Closed:
        return 1  # the supervisor is gone, or wants nothing
    word = protocol.told(message)
    assert isinstance(word, protocol.Boot)
    config = Config.from_json(word.config)
    console.configure(config.log)
    with suppress(DevserverError):  # imported now, lest a module of the user's be found in its place
        server.parser(config.http.parser)
    if word.crash:
        faulthandler.enable(fds[-1])  # what a fatal signal leaves there the supervisor reads
        answer(fds.pop())
    sockets = listeners_from(message, fds)
    for sock in sockets:
        sock.setblocking(False)
    this = Child(channel, config.http.graceful)
    if word.role == protocol.PAGE:
        code = _serve_page(this, config, sockets, word)
    else:
        code = _serve_application(this, config, sockets, word, program)
    # Debuggers stop at any other SystemExit, at each restart. The supervisor has been told how this ends.
    return 0 if debugged() else code


def _serve_application(
    this: Child, config: Config, sockets: list[socket.socket], boot: protocol.Boot, program: Program
) -> int:
    from devserver.loading.loader import Recorder
    from devserver.reload import protocol
    from devserver.reload.child import EXIT_FAILED, Retired
    from devserver.stage import Stage, refuse_green
    from devserver.watching.timeline import Entry, tree_entry
    from devserver.watching.watchset import Gate, roots_of

    _inherit_no_marks()
    gate = Gate(config)

    def report(entry: Entry) -> None:
        this.say(protocol.Read([entry.to_json()], warm.place() if warm else None))
        gate.add(entry)

    recorder = Recorder(report, roots_of(config))
    warm = _checkpoints(this, recorder, boot, sockets, gate.digest)

    def serve(application: Application) -> int:
        refuse_green()
        if warm is not None:
            warm.stop()
        recorder.serving()
        os.environ.pop("WERKZEUG_RUN_MAIN", None)
        with suppress(Retired):  # it may be told to end from here on, and while it waits for the word
            stage.outcome.append(EXIT_FAILED)
            stage.outcome[:] = [_serve_until_told(this, stage, application, gate)]
        return stage.outcome[0] if stage.outcome else EXIT_FAILED

    stage = Stage(
        config,
        sockets,
        serve,
        fail=lambda error: this.unfit(error, console.format_failure),
        restart=lambda path: _none(this.noticed(lambda: [path], config.reload.grace)),
        watch=lambda folder, pattern: report(tree_entry(folder, pattern)),
        accept=gate.accept,
        was_loaded=recorder.was_loaded,
    )

    def play() -> int:
        recorder.start()
        try:
            if warm:
                warm.start()
            if config.app.env_file is not None:
                recorder.file(config.app.env_file)
            return stage.play(program)
        finally:
            if not stage.outcome:
                recorder.serving()

    try:
        code: int = this.load(play)
    except Retired:
        return EXIT_FAILED
    except BaseException as error:  # user code, and SystemExit is a failure like any other
        return this.load_failed(error, console.format_failure, recorder.settle)
    return code


def _inherit_no_marks() -> None:
    """Keep from what the application starts that it is a reloader's child.

    The application still finds the marks in `os.environ`. What it starts inherits them no more: a Flask
    or Django server would take itself for the child of a reloader of its own. One that is started with
    a copy of `os.environ` still does; but RUN_MAIN must stay there while we serve, too, since code that
    runs once asks for it in a lifespan or at the first request, and nothing can be seen there and yet
    not be copied.
    """
    os.unsetenv("RUN_MAIN")
    os.unsetenv("WERKZEUG_RUN_MAIN")


def _none(whatever: object) -> None:
    """For a callback whose result says nothing to who calls it."""


def _serve_until_told(this: Child, stage: Stage, application: Application, gate: Gate) -> int:
    """Wait for the word, then serve what has been loaded. Returns the exit code."""
    from devserver.devtools.endpoints import Endpoints
    from devserver.devtools.error_page import for_exceptions
    from devserver.reload import protocol
    from devserver.reload.child import EXIT_FAILED, ForServing
    from devserver.reload.prompt import unseen
    from devserver.server import Serving

    config = stage.config
    moment = os.urandom(8).hex()  # not `secrets`: an application may have a module of that name

    def watch() -> None:
        gate.open()
        # Ahead of the first request, and while a predecessor drains.
        unseen(threading.Thread(target=gate.settle, name="devserver-digests", daemon=True)).start()

    if not this.wait_for_word(watch):
        return EXIT_FAILED

    def changed() -> list[str]:
        files = gate.changed()
        return stage.on_change(files) if files else files

    def hear(word: ForServing, fds: list[int]) -> None:
        match word:
            case protocol.Judge():
                this.judge(word.files, stage.on_change, config.reload.grace)
            case protocol.Connections():
                this.adopt(serving, word, fds)
            case protocol.Show() | protocol.Answer():
                raise AssertionError("only a page is told so")
            case _:
                assert_never(word)

    def on_serving() -> None:
        this.serving(judges=stage.has_say)
        stage.on_serving()

    serving = Serving(
        config,
        application,
        stage.sockets,
        on_error=for_exceptions(config.reload.error_page, moment, console.format_failure),
        on_closing=this.closing,
        gate=lambda: not this.noticed(changed, config.reload.grace),
        hand_over=this.giver,
        own=Endpoints([moment]),
    )
    this.attend(serving, hear)
    try:
        run_loop(serving.run(on_serving), config)
    except BaseException as error:  # a lifespan that fails, or what the application did to the loop
        return this.failed(error.__cause__ or error, console.format_failure)
    return this.ended()


def _checkpoints(
    this: Child,
    recorder: Recorder,
    boot: protocol.Boot,
    sockets: list[socket.socket],
    ahead: Callable[[Callable[[], bool]], None],
) -> Stepwise | None:
    if sys.platform == "linux" and CAN_COPY and boot.warm:
        from devserver.process.ending import leave
        from devserver.reload.checkpoint import Checkpoints

        def turn(word: protocol.ShowPage) -> NoReturn:
            leave(_serve_page(this, Config.from_json(word.config), sockets, word))

        return Checkpoints(this, recorder, [(path, number) for path, number in boot.marks], turn, ahead)
    return None


def _serve_page(
    this: Child, config: Config, sockets: list[socket.socket], told: protocol.Boot | protocol.ShowPage
) -> int:
    from devserver.devtools.endpoints import Endpoints
    from devserver.devtools.error_page import Failure, PageGateway
    from devserver.reload import protocol
    from devserver.reload.child import ForServing
    from devserver.server import Serving

    assert told.failure is not None
    gateway = PageGateway(Failure(**told.failure), config.reload.error_page)
    endpoints = Endpoints(gateway.failure.moments)

    def ask() -> bool:
        this.say(protocol.Asked())
        return False

    def hear(word: ForServing, fds: list[int]) -> None:
        match word:
            case protocol.Show():
                failure = gateway.failure = Failure(**word.failure)
                serving.soon(lambda: endpoints.move_on(failure.moments))
            case protocol.Answer():
                serving.release()
            case protocol.Connections():
                this.adopt(serving, word, fds)
            case protocol.Judge():
                raise AssertionError("a page has no application that could judge")
            case _:
                assert_never(word)

    serving = Serving(
        config, gateway, sockets, on_closing=this.closing, gate=ask, hand_over=this.giver, own=endpoints
    )
    this.load(lambda: None)
    this.attend(serving, hear)
    run_loop(serving.run(this.serving), config)
    return this.ended()
