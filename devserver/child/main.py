"""The composition root of a child: which parts it needs, and how they meet.

`run` is called in the process that a supervisor has spawned. The first word says whether that is the
application's child or a page; a copy of the first may become a page later (`devserver.warm.checkpoint`).
What any child may need is imported here, ahead of the user's code: a spare has done so before it is wanted.
"""

from __future__ import annotations

import asyncio  # noqa: F401 # ahead
import faulthandler
import gc
import importlib
import os
import socket
import sys
from contextlib import suppress
from typing import NoReturn, Protocol, assert_never

from devserver import console, server
from devserver import discovery as discovery  # ahead
from devserver.alone import run_loop
from devserver.app import Application
from devserver.child.freshness import Freshness
from devserver.child.process import EXIT_FAILED, ChildProcess, ForServing, Retired
from devserver.config import Config
from devserver.cpython import CAN_COPY, keep_all
from devserver.devtools.endpoints import Endpoints
from devserver.devtools.error_page import Failure, PageGateway, for_exceptions
from devserver.errors import DevserverError
from devserver.gateway import wsgi as wsgi  # ahead
from devserver.loading.recorder import Recorder
from devserver.process import WORKER, listeners_from
from devserver.process.control import Channel, Closed
from devserver.process.ending import leave
from devserver.process.prompt import debugged
from devserver.process.signals import leave_interrupts
from devserver.process.standing import answer
from devserver.reload import protocol
from devserver.serve_context import Program, ServeContext, refuse_green
from devserver.server import Serving
from devserver.watching import watchset
from devserver.watching.timeline import Entry, tree_entry


def run(channel: Channel, program: Program) -> int:
    """Be the child that the supervisor at the other end of `channel` wants. Returns the exit code.

    Args:
        program: loads the application; a page has none.
    """
    leave_interrupts()
    gc.disable()
    prepare()
    keep_all()
    console.show_prints_at_once()
    try:
        message, fds = channel.receive_one()
    except Closed:
        return 1  # the supervisor is gone, or wants nothing
    boot = protocol.told(message)
    assert isinstance(boot, protocol.Boot)
    config = Config.from_json(boot.config)
    console.configure(config.log)
    with suppress(DevserverError):  # imported now, lest a module of the user's be found in its place
        server.parser(config.http.parser)
    if boot.crash:
        faulthandler.enable(fds[-1])  # what a fatal signal leaves there the supervisor reads
        answer(fds.pop())
    sockets = listeners_from(message, fds)
    for sock in sockets:
        sock.setblocking(False)
    process = ChildProcess(channel, config, boot.place)
    os.environ[WORKER] = str(boot.place or 1)  # an application need not ask how many there are
    if boot.role == protocol.PAGE:
        code = PageChild(process, config, sockets, boot).run()
    else:
        code = AppChild(process, config, sockets, boot).run(program)
    # Debuggers stop at any other SystemExit, at each restart. The supervisor has been told how this ends.
    return 0 if debugged() else code


def prepare() -> None:
    """Do ahead what costs milliseconds the first time: in a spare it is done before it is wanted."""
    watchset.prepare()
    with suppress(ImportError):  # optional
        importlib.import_module("uvloop")
    server.parser("auto")


class Stepwise(Protocol):
    """What makes this process leave checkpoints while it loads."""

    def start(self) -> None:
        """Nothing of the user's has been executed yet."""

    def stop(self) -> None:
        """Everything has been."""

    def place(self) -> protocol.Mark | None:
        """The statement that is being executed; None if it is not known."""


class AppChild:
    """The process that loads the application and serves it."""

    def __init__(
        self, process: ChildProcess, config: Config, sockets: list[socket.socket], boot: protocol.Boot
    ) -> None:
        """
        Args:
            process: this one.
            sockets: listening.
            boot: what the supervisor wants.
        """
        self._process = process
        self._config = config
        self._sockets = sockets
        self._boot = boot
        self._gate = watchset.Gate(config)
        self._recorder = Recorder(self._report, watchset.roots_of(config))
        self._checkpoints = self._make_checkpoints()
        self._context = ServeContext(
            config,
            sockets,
            self._serve,
            fail=process.unfit,
            restart=lambda path: process.changed([path]),
            watch=lambda folder, pattern: self._report(tree_entry(folder, pattern)),
            accept=self._gate.accept,
            was_loaded=self._recorder.was_loaded,
        )

    def run(self, program: Program) -> int:
        """Load what the program loads, serve it, end. Returns the exit code."""
        _inherit_no_flags()
        try:
            code: int = self._process.load(lambda: self._run_program(program))
        except Retired:
            return EXIT_FAILED
        except BaseException as error:  # user code, and SystemExit is a failure like any other
            return self._process.load_failed(error, self._recorder.settle)
        return code

    def _report(self, entry: Entry) -> None:
        """Say what is about to be read."""
        place = self._checkpoints.place() if self._checkpoints else None
        self._process.say(protocol.Read([entry.to_json()], place))
        self._gate.add(entry)

    def _make_checkpoints(self) -> Stepwise | None:
        if sys.platform == "linux" and CAN_COPY and self._boot.warm:
            from devserver.warm.checkpoint import Checkpoints

            marks = [(path, number) for path, number in self._boot.marks]
            return Checkpoints(self._process, self._recorder, marks, self._turn, self._gate.digest)
        return None

    def _turn(self, word: protocol.ShowPage) -> NoReturn:
        """Be the page's process from now on."""
        leave(PageChild(self._process, Config.from_json(word.config), self._sockets, word).run())

    def _run_program(self, program: Program) -> int:
        self._recorder.start()
        try:
            if self._checkpoints:
                self._checkpoints.start()
            if self._config.app.env_file is not None:
                self._recorder.file(self._config.app.env_file)
            return self._context.run(program)
        finally:
            if not self._context.outcome:
                self._recorder.loaded()

    def _serve(self, application: Application) -> int:
        """What the program calls when it has loaded the application."""
        refuse_green()
        if self._checkpoints is not None:
            self._checkpoints.stop()
        self._recorder.loaded()
        os.environ.pop("WERKZEUG_RUN_MAIN", None)
        outcome = self._context.outcome
        outcome[:] = [EXIT_FAILED]
        with suppress(Retired):  # it may be told to end from here on, and while it waits for the word
            outcome[:] = [self._serve_at_the_word(application)]
        return outcome[0]

    def _serve_at_the_word(self, application: Application) -> int:
        config, process, context = self._config, self._process, self._context
        freshness = Freshness(self._gate, process, context)
        freshness.watch()
        moment = process.wait_for_word().moment
        console.number(process.place)
        serving = Serving(
            config,
            application,
            self._sockets,
            on_error=for_exceptions(config.reload.error_page, moment, console.format_failure),
            on_closing=process.closing,
            gate=freshness,
            hand_over=process.giver,
            own=Endpoints([moment]),
        )
        process.attend(serving, self._hear)
        try:
            run_loop(serving.run(self._on_serving), config)
        except BaseException as error:  # a lifespan that fails, or what the application did to the loop
            return process.failed(error.__cause__ or error)
        return process.ended()

    def _on_serving(self) -> None:
        self._process.started(judges=self._context.has_say)
        self._context.on_serving()

    def _hear(self, word: ForServing, fds: list[int]) -> None:
        match word:
            case protocol.Judge():
                self._process.judge(word.files, self._context.on_change)
            case protocol.Connections():
                self._process.adopt(word, fds)
            case protocol.Show() | protocol.Answer():
                raise AssertionError("only a page is told so")
            case _:
                assert_never(word)


def _inherit_no_flags() -> None:
    """Keep from what the application starts that it is a reloader's child.

    The application still finds the flags in `os.environ`. What it starts inherits them no more: a Flask
    or Django server would take itself for the child of a reloader of its own. One that is started with
    a copy of `os.environ` still does; but RUN_MAIN must stay there while we serve, too, since code that
    runs once asks for it in a lifespan or at the first request, and nothing can be seen there and yet
    not be copied.
    """
    os.unsetenv("RUN_MAIN")
    os.unsetenv("WERKZEUG_RUN_MAIN")


class PageChild:
    """The process that says why nothing is served."""

    def __init__(
        self,
        process: ChildProcess,
        config: Config,
        sockets: list[socket.socket],
        word: protocol.Boot | protocol.ShowPage,
    ) -> None:
        """
        Args:
            process: this one.
            sockets: listening.
            word: what to show.
        """
        assert word.failure is not None
        self._process = process
        self._config = config
        self._gateway = PageGateway(Failure(**word.failure), config.reload.error_page)
        self._endpoints = Endpoints(self._gateway.failure.moments)
        self._serving = Serving(
            config,
            self._gateway,
            sockets,
            on_closing=process.closing,
            gate=self,
            hand_over=process.giver,
            own=self._endpoints,
        )

    def run(self) -> int:
        """Answer until the end. Returns the exit code."""
        self._process.load(lambda: None)
        self._process.attend(self._serving, self._hear)
        run_loop(self._serving.run(self._process.started), self._config)
        return self._process.ended()

    def lets_in(self) -> bool:
        """Hold each request back until the supervisor says what to do with it."""
        self._process.say(protocol.Asked())
        return False

    def _hear(self, word: ForServing, fds: list[int]) -> None:
        match word:
            case protocol.Show():
                failure = self._gateway.failure = Failure(**word.failure)
                self._serving.soon(lambda: self._endpoints.move_on(failure.moments))
            case protocol.Answer():
                self._serving.release()
            case protocol.Connections():
                self._process.adopt(word, fds)
            case protocol.Judge():
                raise AssertionError("a page has no application that could judge")
            case _:
                assert_never(word)
