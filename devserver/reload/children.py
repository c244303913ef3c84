"""The supervisor's children: which there are, what they are to each other, and how they end.

At most one is the *current* child, at most one is the *page*; whoever was told to end is *retired*
until its process is gone, and killed when its grace is over. What children say about connections and
about their own ends is answered here; the rest is for whoever owns this. Decides neither when a child
is wanted nor when it must end.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from devserver.config import Config
from devserver.process import Kin, await_end
from devserver.process.control import Closed, unpack
from devserver.process.reactor import Reactor
from devserver.process.remains import Remains
from devserver.process.standing import Standing
from devserver.reload import protocol
from devserver.reload.copies import Copies
from devserver.reload.launcher import Launcher, Spawned
from devserver.reload.prompt import debugged
from devserver.reload.protocol import APP, GOING_AWAY, PAGE, SERVICE_RESTART
from devserver.reload.transit import Transit

logger = logging.getLogger("devserver")

SLACK = 0.25
"""Seconds beyond its grace after which a child is killed; by then it should have left by itself."""

SLACK_DEBUGGED = 2.0
"""The same under a debugger, which is slow to say where it has stopped, and to let a process end."""

LATER = 0.1
"""Seconds until the first requests have most likely been answered: they need the processor."""


class Children:
    """See the module.

    Attributes:
        current: the child that loads or serves the application.
        page: the child that shows why nobody serves it.
        stopping: nobody is to come after those that end now.
    """

    def __init__(
        self,
        config: Config,
        sockets: list[socket.socket],
        launcher: Launcher,
        reactor: Reactor,
        *,
        said: Callable[[Spawned, protocol.OfCurrent | protocol.OfAny], None],
        ended: Callable[[Spawned, int, str], None],
    ) -> None:
        """
        Args:
            sockets: bound and listening; every child gets duplicates.
            launcher: makes the processes.
            reactor: waits for what they say and for their ends.
            said: takes the words that are not about connections or ends.
            ended: called when a process is gone, with its exit code and its last words.
        """
        self.config = config
        self.current: Spawned | None = None
        self.page: Spawned | None = None
        self.stopping = False
        self._sockets = sockets
        self._launcher = launcher
        self._reactor = reactor
        self._said = said
        self._ended = ended
        self._retired: list[Spawned] = []
        self._copies = Copies(self._attend)
        self._prepare_at: float | None = None
        self._then: Callable[[], None] = self.prepare
        self._transit = Transit()
        self._kin = Kin()
        self._kin.attend(reactor)
        self._remains = Remains(reactor)
        self._slack = SLACK_DEBUGGED if debugged() else SLACK

    def launch(self, generation: int, word: protocol.Boot) -> Spawned:
        """Start a child and tell it its role.

        Raises:
            OSError: no process can be started: the interpreter is not there, or there are too many processes.
        """
        self._prepare_at = None
        spawned = self._launcher.launch(word.role)
        self._attend(spawned)
        spawned.boot(word, generation, self._sockets)
        if word.role == APP:
            self.current = spawned
        else:
            self.page = spawned
        return spawned

    def _attend(self, spawned: Spawned) -> None:
        self._reactor.add(spawned.child.channel, lambda: self._heard(spawned), spawned.child.channel)
        self._reactor.add(spawned.child.fileno(), lambda: self._exited(spawned))

    def prepare_copy(self, waiting: Spawned, most: int) -> None:
        """Have a child that waits make a copy ahead of the next `resume`; see `Copies`."""
        self._copies.prepare(waiting, self.current.child.pid if self.current is not None else 0, most)

    def waiting(self, waiting: Spawned) -> list[int]:
        """The process ids of a child that waits, and of a copy that was made ahead of it."""
        return self._copies.pids(waiting)

    def resume(self, waiting: Spawned, generation: int, word: protocol.Resume) -> bool:
        """Have a copy of a child that waits go on as the current child. False: it cannot.

        Waits for the answer: the process does nothing but wait for this question.
        """
        copy = self._copies.resume(waiting, word)
        if copy is not None:
            self._prepare_at, self.current = None, copy
            copy.generation, copy.began, copy.resumed = generation, time.monotonic(), True
        return copy is not None

    def dismiss(self, waiting: Spawned) -> None:
        """End a child that waits, and what was made ahead of it."""
        self._copies.dismiss(waiting)

    def put_up(self, waiting: Spawned | None, generation: int, failure: dict[str, Any]) -> None:
        """Start the page: a copy of a child that waits and holds no user code, or a process of its own."""
        config, copy = self.config.to_json(), None
        if waiting is not None and self._launcher.is_clean:
            copy = self._copies.make(waiting, protocol.ShowPage(config, failure))
        if copy is None:
            self.launch(generation, protocol.Boot(config, PAGE, failure=failure))
        else:
            self.page = copy
            copy.role, copy.generation, copy.began = PAGE, generation, time.monotonic()

    @property
    def is_clean(self) -> bool:
        """See `Launcher`."""
        return self._launcher.is_clean

    def outdated(self) -> bool:
        """Whether packages were installed or removed since processes were started."""
        return self._launcher.outdated()

    def prepare(self) -> None:
        """See `Launcher.prepare`."""
        self._launcher.prepare()

    def later(self, then: Callable[[], None]) -> None:
        """Have something done when the first requests have been answered, unless a child is wanted before."""
        self._then, self._prepare_at = then, time.monotonic() + LATER

    def pass_on(self) -> None:
        """Give connections in transit to whoever serves now."""
        for spawned in (self.current, self.page):
            if spawned is not None and spawned.serving and not spawned.exited:
                self._transit.pass_on(spawned)
                return

    # hearing

    def _heard(self, spawned: Spawned) -> None:
        try:
            for message, fds in spawned.child.channel.receive():
                self._take(spawned, protocol.said(message), fds)
        except Closed:
            self._reactor.remove(spawned.child.channel)  # its exit is reported by its own descriptor

    def _take(self, spawned: Spawned, word: protocol.Said, fds: list[int]) -> None:
        match word:
            case protocol.Connections():
                self._transit.take(unpack(word.sizes, word.data, fds))
                if spawned.kill_at is not None:  # what it has not sent yet would be reset
                    spawned.kill_at = max(spawned.kill_at, time.monotonic() + self._slack)
                self.pass_on()
            case protocol.Received():
                self._transit.received(spawned)
                self.pass_on()
            case protocol.Left():
                copy = self._copies.adopt(spawned, word.pid, fds[0])
                if copy is not None:
                    self._left(spawned, word, copy)
                else:
                    spawned.child.kill()  # nobody goes on; its exit will be reported
            case protocol.Prepared():
                if self._copies.prepared(spawned, word.pid, fds[0]):
                    self._said(spawned, word)
            case protocol.Lost():
                self._copies.lost(spawned)
            case protocol.Remains():
                self._remains.add(word.pid)
            case protocol.Closing() | protocol.Stopped() | protocol.Continued():
                if spawned in self._retired:
                    self._put_off(spawned, word)
            case protocol.Resumed() | protocol.Unfit() | protocol.ShowsPage():
                pass  # an answer that came too late: whoever asked has killed it
            case _:
                self._said(spawned, word)

    def _left(self, spawned: Spawned, word: protocol.Left, copy: Spawned) -> None:
        """A child waits from now on, and its copy goes on in its place."""
        if spawned is self.current:
            self.current = copy
            copy.resumed = spawned.resumed
            self._copies.waiting.add(spawned)
            self._said(spawned, word)
        else:  # it was told to end meanwhile
            self._retired.append(copy)
            for late in (spawned, copy):
                late.child.kill()

    def _put_off(
        self, spawned: Spawned, word: protocol.Closing | protocol.Stopped | protocol.Continued
    ) -> None:
        """A child that drains has a reason to live longer."""
        match word:
            case protocol.Closing():
                self._kill_after(spawned, self.config.http.graceful)
            case protocol.Continued():
                self._kill_after(spawned, self.config.reload.grace)
            case protocol.Stopped():
                if self.stopping:
                    self._wait_no_more(spawned)
                else:
                    spawned.kill_at = None
                    logger.warning("the restart waits: %s", word.where)

    # ending

    def retire_current(self) -> None:
        """Have the current child drain and end."""
        for waiting in self._retired if self.stopping else ():
            if waiting.kill_at is None:
                self._wait_no_more(waiting)
        spawned, self.current = self.current, None
        if spawned is not None:
            self._retire(spawned)
            if not spawned.told and not spawned.failed and not spawned.exited:
                # It loads, and reads no messages. One that serves would take the signal for the end of all.
                spawned.child.terminate()

    def retire_page(self) -> None:
        """Have the page drain and end."""
        spawned, self.page = self.page, None
        if spawned is not None:
            self._retire(spawned)

    def _retire(self, spawned: Spawned) -> None:
        if not spawned.exited:
            self._see_off(spawned)
            self._retired.append(spawned)

    def _see_off(self, spawned: Spawned) -> None:
        grace = self.config.http.graceful if self.stopping else self.config.reload.grace
        code = GOING_AWAY if self.stopping else SERVICE_RESTART
        spawned.tell(protocol.Retire(grace, code, restart=not self.stopping))
        self._kill_after(spawned, grace)

    def _wait_no_more(self, spawned: Spawned) -> None:
        """The end has come for a child that waits for somebody at a breakpoint or a prompt."""
        if spawned.serving:
            self._see_off(spawned)
        else:
            spawned.child.kill()  # it loads, reads no messages, and has nothing to drain

    def _kill_after(self, spawned: Spawned, grace: float) -> None:
        spawned.kill_at = time.monotonic() + grace + self._slack

    def deadlines(self) -> Iterator[float]:
        """When `be_punctual` has something to do, on `time.monotonic`."""
        lost = 0.0 if self._copies.has_lost else None
        due = [lost, self._prepare_at, *(spawned.kill_at for spawned in self._retired)]
        return (when for when in due if when is not None)

    def be_punctual(self, now: float) -> None:
        """Do what is due: kill those whose time is over, and what was to be done later."""
        if self._copies.has_lost:  # not sooner: others are heard on the way, amid whatever goes on
            self._copies.has_lost = False
            self._end_kin()
        if self._prepare_at is not None and self._prepare_at <= now:
            self._prepare_at = None
            self._then()
        for spawned in self._retired:
            if spawned.kill_at is not None and spawned.kill_at <= now:
                spawned.kill_at = None
                logger.warning("process %d did not end within its grace and was killed", spawned.child.pid)
                spawned.child.kill()

    def stands(self) -> tuple[str, Standing]:
        """What the current child said last that it would read, and where it stands."""
        if self.current is None or self.current.exited:
            return "", Standing()
        ours = {os.fstat(sock.fileno()).st_ino for sock in self._sockets}
        return self.current.at, self.current.stands(ours)

    def kill(self) -> None:
        """Kill all that live; their exits will be reported."""
        for spawned in self._living():
            spawned.child.kill()

    def alone(self) -> bool:
        """Whether nobody retired lives who held the application; when stopping, nobody retired at all."""
        return not any(spawned.role == APP or self.stopping for spawned in self._retired)

    def close(self) -> None:
        """Kill all that live, and what they have left behind."""
        for spawned in self._living():
            spawned.discard()
        self._launcher.close()
        self._transit.close()
        await_end(self._kin.end())

    def _living(self) -> list[Spawned]:
        ours = [*self._retired, *self._copies.waiting, self.current, self.page]
        return [spawned for spawned in ours if spawned is not None and not spawned.exited]

    def _exited(self, spawned: Spawned) -> None:
        child = spawned.child
        code = child.exit_code()
        if code is None:
            return
        self._reactor.remove(child.fileno())
        if self._reactor.remove(child.channel):
            for message, fds in child.channel.drain():
                self._take(spawned, protocol.said(message), fds)
        spawned.exited = True
        trace = spawned.last_words()
        child.close()
        self._transit.lost(spawned)
        self.pass_on()
        if spawned in self._retired:
            self._retired.remove(spawned)
        self._end_kin()
        self._copies.gone(spawned)
        self._ended(spawned, code, trace)

    def _end_kin(self) -> None:
        for pid in self._kin.end(self._ours):
            self._remains.add(pid)

    def _ours(self) -> set[int]:
        """Our own children that are meant to live, with those that have been announced just now."""
        heard = set[Spawned]()
        while unheard := [spawned for spawned in self._living() if spawned not in heard]:
            for spawned in unheard:  # of whom others may be heard that have more to announce
                heard.add(spawned)
                while spawned.child.channel in self._reactor and spawned.child.channel.wait(0):
                    self._heard(spawned)
        spare = self._launcher.spare
        ours = {spawned.child.pid for spawned in (*self._living(), *([spare] if spare is not None else []))}
        return ours | self._remains.pids
