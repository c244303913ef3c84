"""Performs what the child's table says: threads, signals, words, deadlines, the end.

The application's thread is the main thread, as in a production server: module-level connections,
thread locals and signal handlers made at import are at home there. A second thread reads the
control channel, so that a loop that is blocked can still be ended: when the grace is over, a third runs
the exit handlers, names the threads that still run, and leaves.

Refuses to know what an application is and how it is served: both come as callables. What is decided
stands in `machine`; what a child says and is told, in `devserver.reload.protocol`.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, sleep
from types import FrameType
from typing import Any, Protocol, assert_never

from devserver.child.machine import PHASES, Action, Event, State, step
from devserver.config import Config
from devserver.console import format_failure, summarise
from devserver.process import EXIT_RESTART
from devserver.process.control import Channel, Closed, pack, unpack
from devserver.process.ending import at_last, flush, run_exit_handlers
from devserver.process.prompt import Prompt, debugged, in_debugger, unseen
from devserver.process.serializer import Serializer
from devserver.process.standing import GUARD
from devserver.process.teardown import hand_over_memory
from devserver.reload import protocol

logger = logging.getLogger("devserver")

EXIT_FAILED = 1
_LOOK = 0.1
"""Seconds between two looks whether a debugger still stands."""

_MOMENT = 0.005
"""Seconds until a signal that came in a debugger's own code is sent again."""

_OVERTAKEN = 1.0
"""Seconds in which the end of a save that was under way while it was read should have been noticed."""

_ORPHANED = 0.5
"""Seconds that the lifespan's shutdown has when the supervisor was killed."""

_SLACK = 0.15
"""Seconds between the end of a grace and the end of the process: for cancelled tasks to unwind."""

_FLASK_RUN = "KeyError: 'WERKZEUG_SERVER_FD'"
"""What `app.run()` of Flask raises: it takes itself for the child of werkzeug's reloader."""

_FAREWELL = 1.0
"""Seconds in which a debugger ends the threads of its own."""

_CALM = (State.LOADING, State.WAITING)
"""States that only the main thread leaves: no other thread of ours runs yet."""

_AT_ONCE = protocol.Retire(0.0, restart=False)
"""What a child does to whom somebody else says that it is to end, or nobody can say anything any more."""

ForServing = protocol.Judge | protocol.Connections | protocol.Show | protocol.Answer
"""What a child is told while it serves, apart from its end."""

OnWord = Callable[[ForServing, list[int]], None]

About = protocol.Said | protocol.Retire | None
"""The word that an event is about: what the supervisor is told of it, or has said."""


class Retired(BaseException):
    """Raised in the main thread of a child that is told to end before it serves."""


class Server(Protocol):
    """What serves, as far as a child must know it."""

    def stop(self, grace: float, restart: bool) -> None:
        """Drain for at most `grace` seconds; any thread. `restart`: somebody else serves next."""

    def abandon(self) -> None:
        """Hand connections over although the drain has not begun by the end of its time; any thread."""

    def adopt(self, connections: list[tuple[socket.socket, bytes]], taken: Callable[[], None]) -> bool:
        """Serve connections, after saying that they are taken; False if it is too late."""


class ChildProcess:
    """This process, as a child of its supervisor.

    Attributes:
        channel: to the supervisor.
        pid: of this process.
        place: which of several workers it is; 0 if there is one.
        sayings: what is said, one after the other.
        state: where it stands.
    """

    def __init__(self, channel: Channel, config: Config, place: int = 0) -> None:
        """Args: config: for the seconds that a drain and the lifespan's shutdown may take."""
        self.channel = channel
        self.place = place
        self.pid = os.getpid()
        self.state = State.LOADING
        self.sayings = Serializer(self._send)
        self._graceful = config.http.graceful
        self._order = protocol.Retire(config.reload.grace, restart=True)
        self._moved = threading.Condition()
        self._server: Server | None = None
        self._on_word: OnWord = lambda word, fds: None
        self._handed = 0  # connections, so far
        self._prompt = Prompt(lambda reading: self.say(protocol.ReadsTerminal(reading)))

    def say(self, word: protocol.Said, fds: Sequence[int] = ()) -> None:
        """Tell the supervisor something; a supervisor that is gone is noticed elsewhere."""
        give = self.sayings.give_now if fds else self.sayings.give  # they are closed by the caller
        give((word, fds))

    def _send(self, saying: tuple[protocol.Said, Sequence[int]]) -> None:
        word, fds = saying
        with suppress(Closed):
            self.channel.send(protocol.encode(word), fds)

    def _happen(self, event: Event, about: About = None) -> None:
        """Take an event through the table, and do what it says; any thread.

        A signal's handler, which may interrupt this very method, calls it in calm states only.
        """
        with self._moved:
            self.state, actions = step(self.state, event)
            if isinstance(about, protocol.Retire):
                self._order = about  # the newest counts: perhaps nobody is waited for any longer
            self._moved.notify_all()
        for action in actions:
            self._perform(action, about)

    def _perform(self, action: Action, about: About) -> None:
        match action:
            case Action.SAY:
                assert about is not None
                assert not isinstance(about, protocol.Retire)
                self.say(about)
            case Action.GIVE_UP:
                raise Retired
            case Action.START:
                signal.signal(signal.SIGINT, _ignore)
                signal.signal(signal.SIGTERM, self._interrupt)
                self._start(self._listen, "devserver-control")
            case Action.DRAIN:
                self._start(self._see_off, "devserver-deadline")
            case Action.QUIT:
                self._quit()
            case Action.ABANDON:
                if self._order.restart and self._server is not None:
                    self._server.abandon()
            case Action.LEAVE:
                self._leave()
            case _:
                assert_never(action)

    def _start(self, target: Callable[[], None], name: str) -> None:
        unseen(threading.Thread(target=target, name=name, daemon=True)).start()

    # loading

    def load(self, load: Callable[[], Any]) -> Any:
        """Load the application, interruptibly.

        Raises:
            Retired: the supervisor wants this child to end.
            BaseException: what user code raised.
        """
        signal.signal(signal.SIGINT, _ignore)
        if sys.platform != "win32":
            signal.signal(signal.SIGHUP, _ignore)
        signal.signal(signal.SIGTERM, self._interrupt)
        self._prompt.install()
        return load()

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self.pid:  # a process that the application has forked, and that is to end
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        if self.state not in _CALM:
            # In a thread: the locks on the way may be held by the very code that this interrupts.
            self._start(lambda: self._happen(Event.TERM, _AT_ONCE), "devserver-signal")
        elif self._prompt.where() or in_debugger(frame):
            self._start(self._interrupt_later, "devserver-signal")
        else:
            self._happen(Event.TERM)

    def _interrupt_later(self) -> None:
        """The main thread is in a debugger's own code, which would swallow an exception, or at a prompt."""
        if not self._wait_for_person():
            sleep(_MOMENT)
        if self.state in _CALM:
            os.kill(os.getpid(), signal.SIGTERM)

    def wait_for_word(self) -> protocol.Serve:
        """Say that the application is loaded, and wait until it may be served. Returns the word.

        Raises:
            Retired: it never may.
        """
        self._happen(Event.LOADED, protocol.Loaded())
        while True:
            try:
                message, _ = self.channel.receive_one()
            except Closed:
                self._happen(Event.ORPHANED)
            match protocol.told(message):
                case protocol.Serve() as word:
                    return word
                case protocol.Retire() as order:
                    self._happen(Event.RETIRE, order)

    def load_failed(self, error: BaseException, half_written: Callable[[], bool]) -> int:
        """Report what user code raised while it was loaded, if it is news. Returns the exit code.

        Args:
            half_written: whether something was read that was still being written. Then it is left to
                the supervisor to notice how that went on, and to retire this process.
        """
        with suppress(Retired):
            if half_written() and select.select([self.channel], [], [], _OVERTAKEN)[0]:
                self._happen(Event.RETIRE)  # the signal that may follow means nothing any more
            self.failed(error)
        return EXIT_FAILED

    def failed(self, error: BaseException) -> int:
        """Report what user code raised, after which nothing goes on here. Returns the exit code."""
        self._happen(Event.FAILED, _failure(PHASES.get(self.state, "serve"), error))
        return EXIT_FAILED

    # serving

    def attend(self, server: Server, on_word: OnWord) -> None:
        """Listen to the supervisor from now on, in a thread.

        Args:
            server: what is to be stopped.
            on_word: takes the words that are not for this class, with their descriptors.
        """
        self._server = server
        self._on_word = on_word
        self._happen(Event.SERVE)

    def started(self, judges: bool = False) -> None:
        """The application answers requests.

        Args:
            judges: whether it wants to say itself what a change means.
        """
        self._happen(Event.STARTED, protocol.Serving(judges))

    def unfit(self, error: BaseException) -> None:
        """Report that what is served should not be; any thread. The supervisor ends this process."""
        self._happen(Event.UNFIT, _failure("check", error))

    def changed(self, files: list[str]) -> None:
        """What is served is old, because of these files; any thread. This process begins to end."""
        self._happen(Event.OLD, protocol.Changed(files))

    def judge(self, files: list[str], on_change: Callable[[list[str]], list[str]]) -> None:
        """Have the application say what a change means that the supervisor has noticed; in a thread."""

        def ask() -> None:
            left = on_change(files)
            if left:
                self.changed(left)
            else:
                self.say(protocol.Handled(files))

        self._start(ask, "devserver-judge")

    @property
    def giver(self) -> Callable[[list[tuple[int, bytes]]], None] | None:
        """What gives connections to whoever serves next; None on Windows, where no descriptor can be sent."""
        return None if sys.platform == "win32" else self._hand_over

    def _hand_over(self, connections: list[tuple[int, bytes]]) -> None:
        for fds, sizes, data in pack(connections):
            self.say(protocol.Connections(sizes, data), fds)
            self._handed += len(fds)

    def adopt(self, word: protocol.Connections, fds: list[int]) -> None:
        """Take connections over from a predecessor. Those that come too late stay the supervisor's."""
        assert self._server is not None
        connections = [(socket.socket(fileno=fd), data) for fd, data in unpack(word.sizes, word.data, fds)]
        if not self._server.adopt(connections, lambda: self.say(protocol.Received())):
            for connection, _ in connections:
                connection.close()

    def closing(self) -> None:
        """The drain is over and the lifespan's shutdown begins."""
        self._happen(Event.DRAINED, protocol.Closing())

    def ended(self) -> int:
        """What was served has ended. Returns the exit code."""
        self._happen(Event.CLOSED)
        if not self._order.restart:
            return EXIT_FAILED
        at_last(lambda: hand_over_memory(self.channel.fileno(), lambda pid: self.say(protocol.Teardown(pid))))
        return EXIT_RESTART

    def _listen(self) -> None:
        while True:
            try:
                # Without the GIL and without a timeout: an idle server costs nothing.
                select.select([self.channel], [], [])
                messages = self.channel.receive()
            except (Closed, OSError, ValueError):
                self._happen(Event.ORPHANED, _AT_ONCE)
                return
            for message, fds in messages:
                match protocol.told(message):
                    case protocol.Retire() as word:
                        self._happen(Event.RETIRE, word)
                    case protocol.Boot() | protocol.Serve() as word:
                        raise AssertionError(f"a child that serves was told {word}")
                    case protocol.Resume() | protocol.Prepare() | protocol.ShowPage() as word:
                        raise AssertionError(f"a child that does not wait was told {word}")
                    case word:
                        self._on_word(word, fds)

    # ending

    def _see_off(self) -> None:
        """Drain, and leave at the end of the grace, whatever the main thread and others are doing."""
        assert self._server is not None
        grace = self._order.grace
        self._wait_for_person()
        self._server.stop(grace, self._order.restart)
        deadline = monotonic() + grace + _SLACK
        handed = self._handed
        while self._stays(deadline - monotonic(), State.DRAINING):
            if self._wait_for_person():
                deadline = monotonic() + grace + _SLACK
            elif handed != (handed := self._handed):  # it is at it, and each that was left would be reset
                deadline = monotonic() + _SLACK
            else:
                break
        else:
            # Drained: the lifespan has its own time, and threads of the application what is left.
            self._stays(self._graceful + _SLACK, State.CLOSING)
            sleep(max(_FAREWELL if debugged() else 2 * _SLACK, deadline - monotonic()))
        self._happen(Event.LATE)

    def _stays(self, seconds: float, *states: State) -> bool:
        """Wait until none of these states is this process's. Returns whether one still is then."""
        with self._moved:
            return not self._moved.wait_for(lambda: self.state not in states, max(0.0, seconds))

    def _wait_for_person(self) -> bool:
        """Wait while somebody is at a breakpoint or a prompt, when only a restart is wanted.

        Returns whether anybody was.
        """
        where = self._prompt.where()
        if not where or not self._waits():
            return False
        self.say(protocol.Stopped(where))
        while self._waits() and self._prompt.where():
            sleep(_LOOK)
        self.say(protocol.Continued())
        return True

    def _waits(self) -> bool:
        # While it loads it has not been told why it is to end; at the end the supervisor is not patient.
        return self._order.restart or self.state in _CALM

    def _quit(self) -> None:
        """The supervisor is gone; its guardian ends what does not end by itself."""
        assert self._server is not None
        self._server.stop(self._order.grace, self._order.restart)
        self._stays(_ORPHANED, State.DRAINING, State.CLOSING)
        self._leave()

    def _leave(self) -> None:
        names = (t.name for t in threading.enumerate() if t is not threading.main_thread())
        running = [name for name in names if not name.startswith("devserver-")]
        if self.state is not State.ENDED:
            running.insert(0, "the main thread")
        told = ", ".join(running or ["exit handlers"])
        logger.warning("still running at the end of the grace, and ended: %s", told)
        try:
            run_exit_handlers()
        finally:
            flush()
            os._exit(EXIT_RESTART if self._order.restart else EXIT_FAILED)


def _failure(phase: str, error: BaseException) -> protocol.Failed:
    """What the supervisor is told of an exception."""
    if isinstance(error, SystemExit):
        summary = f"the application called sys.exit({'' if error.code is None else repr(error.code)})"
    else:
        summary = summarise(error)
        if summary == _FLASK_RUN:
            summary = f"the application serves by itself (app.run()) when it is imported: {GUARD}"
    trace = format_failure(error)
    # An error of ours that points at no line of the user's is all that there is to say.
    return protocol.Failed(phase, summary, "" if trace.strip() == summary else trace)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """The supervisor acts on signals to the whole process group; here they are its message's echo.

    A function and not SIG_IGN, which programs that the application starts would inherit.
    """
