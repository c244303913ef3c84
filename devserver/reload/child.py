"""Phase 2: the process that a supervisor spawns. Loads, waits for the word, serves, ends.

The application's thread is the main thread, as in a production server: module-level connections,
thread locals and signal handlers made at import are at home there. A second thread reads the
control channel, so that a loop that is blocked can still be ended: when the grace is over it runs
the exit handlers, names the threads that still run, and leaves.

Refuses to know what an application is and how it is served: both come as callables. Nothing here
decides whether there is a successor; the supervisor does.

What a child says and is told stands in `protocol`; what copies of it do, in `checkpoint`.
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
from typing import Any, Protocol

from devserver.console import summarise
from devserver.process import EXIT_RESTART
from devserver.process.control import Channel, Closed, pack, unpack
from devserver.process.ending import at_last, flush, run_exit_handlers
from devserver.process.remains import bequeath
from devserver.process.standing import GUARD
from devserver.process.turns import Turns
from devserver.reload import protocol
from devserver.reload.prompt import Prompt, debugged, in_debugger, unseen

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

ForServing = protocol.Judge | protocol.Connections | protocol.Show | protocol.Answer
"""What a child is told while it serves, apart from its end."""

OnWord = Callable[[ForServing, list[int]], None]


class Retired(BaseException):
    """Raised in the main thread of a child that is told to end while it loads."""


class Service(Protocol):
    """What serves, as far as a child must know it."""

    def stop(self, grace: float, code: int) -> None:
        """Drain for at most `grace` seconds; any thread."""

    def abandon(self) -> None:
        """Hand connections over although the drain has not begun by the end of its time; any thread."""


class Adopter(Protocol):
    """What serves, as far as handing over goes."""

    def adopt(self, connections: list[tuple[socket.socket, bytes]], taken: Callable[[], None]) -> bool:
        """Serve connections, after saying that they are taken; False if it is too late."""


class Stepwise(Protocol):
    """What makes this process leave checkpoints while it loads."""

    def start(self) -> None:
        """Nothing of the user's has been executed yet."""

    def stop(self) -> None:
        """Everything has been."""

    def place(self) -> tuple[str, int] | None:
        """The statement that is being executed: a module's path and a number; None if it is not known."""


class Child:
    """This process, seen as a child.

    Attributes:
        channel: to the supervisor.
        pid: of this process.
        sayings: what is said, one after the other.
        phase: what the process is at: "load", "lifespan" or "serve"; "end" if it never came to these.
    """

    def __init__(self, channel: Channel, graceful: float) -> None:
        """Args: graceful: seconds that the lifespan's shutdown may take."""
        self.channel = channel
        self.pid = os.getpid()
        self.phase = "load"
        self._graceful = graceful
        self.sayings = Turns(self._send)
        self._retire_lock = threading.Lock()
        self._service: Service | None = None
        self._on_word: OnWord = lambda word, fds: None
        self._retiring = self._unfit = self._restart = False
        self._handed = 0  # connections, so far
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._prompt = Prompt(lambda reading: self.say(protocol.ReadsTerminal(reading)))

    def say(self, word: protocol.Said, fds: Sequence[int] = ()) -> None:
        """Tell the supervisor something; a supervisor that is gone is noticed elsewhere."""
        give = self.sayings.give_now if fds else self.sayings.give  # they are closed by the caller
        give((word, fds))

    def _send(self, saying: tuple[protocol.Said, Sequence[int]]) -> None:
        word, fds = saying
        with suppress(Closed):
            self.channel.send(protocol.encode(word), fds)

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
        if self.phase == "load":
            if self._prompt.where() or in_debugger(frame):
                self._start(self._interrupt_later, "devserver-signal")
                return
            self.phase = "end"
            raise Retired
        if self.phase != "end":
            # In a thread: the locks on the way may be held by the very code that this interrupts.
            self._start(lambda: self.retire(0.0, protocol.GOING_AWAY, restart=False), "devserver-signal")

    def _interrupt_later(self) -> None:
        """The main thread is in a debugger's own code, which would swallow an exception, or at a prompt."""
        if not self._wait_for_person():
            sleep(_MOMENT)
        if self.phase == "load":
            os.kill(os.getpid(), signal.SIGTERM)

    def _start(self, target: Callable[[], None], name: str) -> None:
        unseen(threading.Thread(target=target, name=name, daemon=True)).start()

    def wait_for_word(self, before: Callable[[], None]) -> bool:
        """Do what is left, say that it is loaded, wait until it may be served. False: it never may."""
        before()
        self.say(protocol.Loaded())
        while True:
            try:
                message, _ = self.channel.receive_one()
            except Closed:
                return False
            match protocol.told(message):
                case protocol.Serve():
                    return True
                case protocol.Retire():
                    self.phase = "end"
                    return False

    def load_failed(
        self,
        error: BaseException,
        describe: Callable[[BaseException], str],
        half_written: Callable[[], bool],
    ) -> int:
        """Report what user code raised while it was loaded, if it is news. Returns the exit code.

        Args:
            half_written: whether something was read that was still being written. Then it is left to
                the supervisor to notice how that went on, and to retire this process.
        """
        try:
            if half_written() and select.select([self.channel], [], [], _OVERTAKEN)[0]:
                self.phase = "end"  # the signal that may follow means nothing any more
                return EXIT_FAILED
            return self.failed(error, describe)
        except Retired:
            return EXIT_FAILED

    def failed(self, error: BaseException, describe: Callable[[BaseException], str], phase: str = "") -> int:
        """Report what user code raised. Returns the exit code."""
        if isinstance(error, SystemExit):
            summary = f"the application called sys.exit({'' if error.code is None else repr(error.code)})"
        else:
            summary = summarise(error)
            if summary == _FLASK_RUN:
                summary = f"the application serves by itself (app.run()) when it is imported: {GUARD}"
        trace = describe(error)
        # An error of ours that points at no line of the user's is all that there is to say.
        trace = "" if trace.strip() == summary else trace
        self.say(protocol.Failed(phase or self.phase, summary, trace))
        return EXIT_FAILED

    # serving

    def attend(self, service: Service, on_word: OnWord) -> None:
        """Listen to the supervisor from now on, in a thread.

        Args:
            service: what is to be stopped.
            on_word: takes the words that are not for this class, with their descriptors.
        """
        self._service = service
        self._on_word = on_word
        self.phase = "lifespan"
        signal.signal(signal.SIGINT, _ignore)
        signal.signal(signal.SIGTERM, self._interrupt)
        self._start(self._listen, "devserver-control")

    def serving(self, judges: bool = False) -> None:
        """The application answers requests.

        Args:
            judges: whether it wants to say itself what a change means to it.
        """
        self.phase = "serve"
        self.say(protocol.Serving(judges))

    def judge(self, files: list[str], on_change: Callable[[list[str]], list[str]], grace: float) -> None:
        """Have the application say what a change means that the supervisor has noticed; in a thread."""

        def ask() -> None:
            left = on_change(files)
            if not left:
                self.say(protocol.Handled(files))
            else:
                self.noticed(lambda: left, grace)

        self._start(ask, "devserver-judge")

    def unfit(self, error: BaseException, describe: Callable[[BaseException], str]) -> None:
        """Report that what is served should not be; any thread. The supervisor ends this process."""
        if not self._retiring:
            self._unfit = True  # from now on no request is begun here
            self.failed(error, describe, "check")

    def noticed(self, changed: Callable[[], list[str]], grace: float) -> bool:
        """Ask the gate, in the event loop. True: what is served is old, and this process is ending."""
        if self._retiring or self._unfit:
            return True
        files = changed()
        if files:
            self.say(protocol.Changed(files))
            self.retire(grace, protocol.SERVICE_RESTART, restart=True)
        return bool(files)

    @property
    def giver(self) -> Callable[[list[tuple[int, bytes]]], None] | None:
        """What gives connections to whoever serves next; None on Windows, where no descriptor can be sent."""
        return None if sys.platform == "win32" else self._hand_over

    def _hand_over(self, connections: list[tuple[int, bytes]]) -> None:
        for fds, sizes, data in pack(connections):
            self.say(protocol.Connections(sizes, data), fds)
            self._handed += len(fds)

    def adopt(self, serving: Adopter, word: protocol.Connections, fds: list[int]) -> None:
        """Take connections over from a predecessor. Those that come too late stay the supervisor's."""
        connections = [(socket.socket(fileno=fd), data) for fd, data in unpack(word.sizes, word.data, fds)]
        if not serving.adopt(connections, lambda: self.say(protocol.Received())):
            for connection, _ in connections:
                connection.close()

    def closing(self) -> None:
        """The drain is over and the lifespan's shutdown begins."""
        self._closing.set()
        self.say(protocol.Closing())

    def ended(self) -> int:
        """What was served has ended. Returns the exit code."""
        self._ended.set()
        if not self._restart:
            return EXIT_FAILED
        at_last(lambda: bequeath(self.channel.fileno(), lambda pid: self.say(protocol.Remains(pid))))
        return EXIT_RESTART

    def _listen(self) -> None:
        while True:
            try:
                # Without the GIL and without a timeout: an idle server costs nothing.
                select.select([self.channel], [], [])
                messages = self.channel.receive()
            except (Closed, OSError, ValueError):
                self._orphaned()
                return
            for message, fds in messages:
                match protocol.told(message):
                    case protocol.Retire() as word:
                        self.retire(word.grace, word.code, word.restart)
                    case protocol.Boot() | protocol.Serve() as word:
                        raise AssertionError(f"a child that serves was told {word}")
                    case protocol.Resume() | protocol.Prepare() | protocol.ShowPage() as word:
                        raise AssertionError(f"a child that does not wait was told {word}")
                    case word:
                        self._on_word(word, fds)

    def retire(self, grace: float, code: int, restart: bool) -> None:
        """Begin to end; any thread. Being told so again changes only what is wanted.

        Args:
            grace: seconds that requests in flight may take.
            code: WebSockets are closed with it.
            restart: a successor is wanted.
        """
        with self._retire_lock:
            again, self._retiring = self._retiring, True
            self._restart = restart  # no more, perhaps: then nobody is waited for any longer
        if again:
            return
        self._start(lambda: self._see_off(grace, code), "devserver-deadline")

    def _see_off(self, grace: float, code: int) -> None:
        """Drain, and leave at the end of the grace, whatever the main thread and others are doing."""
        assert self._service is not None
        self._wait_for_person()
        self._service.stop(grace, code)
        deadline = monotonic() + grace + _SLACK
        handed = self._handed
        while not self._closing.wait(max(0.0, deadline - monotonic())):
            if self._wait_for_person():
                deadline = monotonic() + grace + _SLACK
            elif handed != (handed := self._handed):  # it is at it, and each that was left would be reset
                deadline = monotonic() + _SLACK
            else:
                break
        if self._closing.is_set():
            # Drained: the lifespan has its own time, and threads of the application what is left.
            self._ended.wait(self._graceful + _SLACK)
            sleep(max(_FAREWELL if debugged() else 2 * _SLACK, deadline - monotonic()))
        elif self._restart:
            self._service.abandon()
        self._leave()

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
        return self._restart or self.phase == "load"

    def _orphaned(self) -> None:
        """The supervisor is gone; its guardian ends what does not end by itself."""
        assert self._service is not None
        self._service.stop(0.0, protocol.GOING_AWAY)
        self._ended.wait(_ORPHANED)
        self._leave()

    def _leave(self) -> None:
        names = (t.name for t in threading.enumerate() if t is not threading.main_thread())
        running = [name for name in names if not name.startswith("devserver-")]
        if not self._ended.is_set():
            running.insert(0, "the main thread")
        told = ", ".join(running or ["exit handlers"])
        logger.warning("still running at the end of the grace, and ended: %s", told)
        try:
            run_exit_handlers()
        finally:
            flush()
            os._exit(EXIT_RESTART if self._restart else EXIT_FAILED)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """The supervisor acts on signals to the whole process group; here they are its message's echo.

    A function and not SIG_IGN, which programs that the application starts would inherit.
    """
