"""The supervisor's children: which there are, what they are to each other, and how they end.

At most one is the *current* child, at most one is the *page*; whoever was told to end is *retired*
until its process is gone, and killed when its grace is over. What children say about connections and
about their own ends is answered here; the rest is for whoever owns this. Decides neither when a child
is wanted nor when it must end, and starts none.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

from devserver.config import Config
from devserver.process import Orphans, await_end
from devserver.process.control import Closed, unpack
from devserver.process.prompt import debugged
from devserver.process.reactor import Reactor
from devserver.process.standing import Standing
from devserver.process.teardown import Teardowns
from devserver.reload import protocol
from devserver.reload.child import Child
from devserver.reload.machine import About
from devserver.reload.protocol import APP
from devserver.reload.transit import Transit

logger = logging.getLogger("devserver")

SLACK = 1.0
"""Seconds beyond its grace after which a child is killed; by then it should have left by itself, on a busy
machine too: connections that it has not handed over would be reset."""

SLACK_DEBUGGED = 2.0
"""The same under a debugger, which is slow to say where it has stopped, and to let a process end."""


class Terminator(Protocol):
    """What accepts in the children's place, and ends TLS, as far as children go.

    Attributes:
        pids: its process, if it has one.
    """

    @property
    def pids(self) -> set[int]: ...

    def attend(self, reactor: Reactor, take: Callable[[Iterable[tuple[int, bytes]]], None]) -> None:
        """Give connections from now on, with what belongs to each."""

    def was_read(self, data: bytes) -> bool:
        """Whether among the bytes of a connection there are some that a client has sent."""
        ...

    def deadlines(self) -> Iterable[float]:
        """When `be_punctual` has something to do, on `time.monotonic`."""
        ...

    def be_punctual(self, now: float) -> None:
        """Do what is due."""

    def close(self, seconds: float) -> None:
        """Send what is left, within so many seconds, and end."""


class Beside(Protocol):
    """Programs that run beside the server, as far as children go. They end after the last child.

    Attributes:
        pids: their processes, and what those have started, as far as these are our children.
        lives: whether there is a process.
        awaited: the names of those for which the application waits.
    """

    @property
    def pids(self) -> set[int]: ...

    @property
    def lives(self) -> bool: ...

    @property
    def awaited(self) -> list[str]: ...

    def attend(
        self,
        reactor: Reactor,
        current: Callable[[], Config],
        ready: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        """Begin.

        Args:
            reactor: waits for what happens.
            current: gives the configuration of the newest generation.
            ready: called when the application need not wait any more.
            over: called when there is no process any more.
        """

    def deadlines(self) -> Iterable[float]:
        """When `be_punctual` has something to do, on `time.monotonic`."""
        ...

    def be_punctual(self, now: float) -> None:
        """Do what is due."""

    def stop(self) -> None:
        """Have all end."""

    def kill(self) -> None:
        """Have all end at once."""

    def close(self) -> None:
        """Kill what lives."""


class Children:
    """See the module.

    Attributes:
        current: the child that loads or serves the application.
        fellows: those that serve it beside the current one, which is the first of several workers.
        page: the child that shows why nobody serves it.
        stopping: nobody is to come after those that end now.
        sockets: listening; every child gets duplicates.
        waiting: children that do nothing but wait for a word, of which whoever keeps them knows more.
        over: called when nobody is left at the end.
    """

    def __init__(
        self,
        config: Config,
        sockets: list[socket.socket],
        reactor: Reactor,
        *,
        said: Callable[[Child, protocol.OfLoad, list[int]], None],
        ended: Callable[[Child, int, str], None],
        unheard: Callable[[], set[int]],
    ) -> None:
        """
        Args:
            sockets: bound and listening; every child gets duplicates.
            reactor: waits for what they say and for their ends.
            said: takes the words that are not about connections or ends, with their descriptors.
            ended: called when a process is gone, with its exit code and its last words.
            unheard: gives the process ids of others that are meant to live.
        """
        self.config = config
        self.current: Child | None = None
        self.fellows: list[Child] = []
        self.page: Child | None = None
        self.stopping = False
        self.sockets = sockets
        self.waiting = set[Child]()
        self._reactor = reactor
        self._said = said
        self._ended = ended
        self._retired: list[Child] = []
        self._unheard = unheard
        self._has_lost = False
        self._turn = 0
        self._transit = Transit()
        self._orphans = Orphans()
        self._orphans.attend(reactor)
        self._teardowns = Teardowns(reactor)
        self._terminator: Terminator | None = None
        self._beside: Beside | None = None
        self._beside_ends = False
        self._held: tuple[Child, Callable[[], None]] | None = None
        self.over: Callable[[], None] = lambda: None
        self._slack = SLACK_DEBUGGED if debugged() else SLACK

    def stand_behind(self, terminator: Terminator) -> None:
        """Have connections come from the process that ends TLS."""
        self._terminator = terminator
        self._transit.was_read = terminator.was_read
        terminator.attend(self._reactor, self._arrived)

    def accompany(self, beside: Beside) -> None:
        """Have programs run beside the server, from now on."""
        self._beside = beside
        beside.attend(self._reactor, lambda: self.config, self._release, lambda: self.over())

    def boot(self, child: Child, word: protocol.Boot, generation: int) -> None:
        """Tell a child what to be; one that loads the application, when what comes before that is done."""
        begin = partial(child.boot, word, generation, self.sockets)
        if word.role == APP and self._beside is not None and self._beside.awaited:
            child.role, child.generation, child.began = word.role, generation, time.monotonic()
            self._held = child, begin
        else:
            begin()

    def _release(self) -> None:
        if self._held is not None and self._beside is not None and not self._beside.awaited:
            (child, begin), self._held = self._held, None
            if not child.exited:
                begin()

    def _arrived(self, connections: Iterable[tuple[int, bytes]]) -> None:
        self._transit.take(connections)
        self.pass_on()

    def attend(self, child: Child) -> None:
        """Have a child heard from now on, and its end noticed."""
        self._reactor.add(child.process.channel, lambda: self._heard(child), child.process.channel)
        self._reactor.add(child.process.fileno(), lambda: self._exited(child))

    def goes_on(self, child: Child, copy: Child) -> bool:
        """A child waits from now on, and its copy goes on in its place.

        False: it was told to end meanwhile, and both are killed.
        """
        if child is self.current:
            self.current = copy
            copy.resumed = child.resumed
            self.waiting.add(child)
            return True
        self._retired.append(copy)
        for late in (child, copy):
            late.process.kill()
        return False

    def lose(self) -> None:
        """There may be processes that are nobody's, to be ended when whatever goes on is over."""
        self._has_lost = True

    def workers(self) -> list[Child]:
        """The child that loads or serves the application, and those that do beside it."""
        return [*([] if self.current is None else [self.current]), *self.fellows]

    def about(self, child: Child) -> About:
        """A child, as far as it decides what happens to it means."""
        if child in self.fellows:  # which are only there since the first serves
            return About(serves=True, failed=child.failed, beside=True)
        return About(child is self.current, child.serves, child.resumed, child.failed, bool(self.fellows))

    def serves(self, child: Child, judges: bool) -> None:
        """A child answers. Args: judges: its application wants to say itself what a change means."""
        child.serves, child.judges = True, judges
        self.pass_on()

    def judge(self) -> bool:
        """Whether the application wants to say itself what a change means."""
        return self.current is not None and self.current.judges

    def pass_on(self) -> None:
        """Give connections in transit to whoever serves now, to several workers in turn."""
        receivers = [child for child in self.workers() if child.serves and not child.exited]
        if not receivers and self.page is not None and self.page.serves and not self.page.exited:
            receivers = [self.page]
        self._turn += 1
        for number in range(len(receivers)):
            share = -(-len(self._transit) // (len(receivers) - number))
            self._transit.pass_on(receivers[(self._turn + number) % len(receivers)], share)

    def ask(self, paths: list[str]) -> bool:
        """Ask whoever serves what a change means to the application; whether any could be asked."""
        asked = [child.ask(paths) for child in self.workers() if child.serves]
        return any(asked)

    def answered(self, child: Child) -> bool:
        """Note an answer to `ask`; whether no other is awaited."""
        child.unjudged -= 1
        return not any(each.unjudged for each in self.workers())

    # hearing

    def _heard(self, child: Child) -> None:
        try:
            for message, fds in child.process.channel.receive():
                self._take(child, protocol.said(message), fds)
        except Closed:
            self._reactor.remove(child.process.channel)  # its exit is reported by its own descriptor

    def _take(self, child: Child, word: protocol.Said, fds: list[int]) -> None:
        match word:
            case protocol.Connections():
                self._transit.take(unpack(word.sizes, word.data, fds))
                if child.kill_at is not None:  # what it has not sent yet would be reset
                    child.kill_at = max(child.kill_at, time.monotonic() + self._slack)
                self.pass_on()
            case protocol.Received():
                self._transit.received(child)
                self.pass_on()
            case protocol.Teardown():
                self._teardowns.add(word.pid)
            case protocol.Closing() | protocol.Stopped() | protocol.Continued():
                if child in self._retired:
                    self._put_off(child, word)
            case protocol.Resumed() | protocol.Unfit() | protocol.ShowsPage():
                pass  # an answer that came too late: whoever asked has killed it
            case _:
                self._said(child, word, fds)

    def _put_off(self, child: Child, word: protocol.Closing | protocol.Stopped | protocol.Continued) -> None:
        """A child that drains has a reason to live longer."""
        match word:
            case protocol.Closing():
                self._kill_after(child, self.config.http.graceful)
            case protocol.Continued():
                self._kill_after(child, self.config.reload.grace)
            case protocol.Stopped():
                if self.stopping:
                    self._wait_no_more(child)
                else:
                    child.kill_at = None
                    logger.warning("the restart waits: %s", word.where)

    # ending

    def retire_current(self) -> None:
        """Have the current child drain and end, and whoever serves beside it."""
        for waiting in self._retired if self.stopping else ():
            if waiting.kill_at is None:
                self._wait_no_more(waiting)
        workers, self.current, self.fellows = self.workers(), None, []
        for child in workers:
            self._retire(child)
            if self._held is not None and child is self._held[0]:
                self._held = None
                child.process.kill()  # it has not even been told what to be
            elif not child.told and not child.failed and not child.exited:
                # It loads, and reads no messages. One that serves would take the signal for the end of all.
                child.process.terminate()

    def retire_page(self) -> None:
        """Have the page drain and end."""
        child, self.page = self.page, None
        if child is not None:
            self._retire(child)

    def _retire(self, child: Child) -> None:
        if not child.exited:
            self._see_off(child)
            self._retired.append(child)

    def _see_off(self, child: Child) -> None:
        if self._held is not None and child is self._held[0]:
            return
        grace = self.config.http.graceful if self.stopping else self.config.reload.grace
        child.tell(protocol.Retire(grace, restart=not self.stopping))
        self._kill_after(child, grace)

    def _wait_no_more(self, child: Child) -> None:
        """The end has come for a child that waits for somebody at a breakpoint or a prompt."""
        if child.serves:
            self._see_off(child)
        else:
            child.process.kill()  # it loads, reads no messages, and has nothing to drain

    def _kill_after(self, child: Child, grace: float) -> None:
        child.kill_at = time.monotonic() + grace + self._slack

    def deadlines(self) -> Iterator[float]:
        """When `be_punctual` has something to do, on `time.monotonic`."""
        lost = 0.0 if self._has_lost else None
        tls = () if self._terminator is None else self._terminator.deadlines()
        others = () if self._beside is None else self._beside.deadlines()
        last = 0.0 if self._is_last() else None
        due = [lost, last, *tls, *others, *(child.kill_at for child in self._retired)]
        return (when for when in due if when is not None)

    def be_punctual(self, now: float) -> None:
        """Do what is due: end what is nobody's, and kill those whose time is over."""
        if self._has_lost:  # not sooner: others are heard on the way, amid whatever goes on
            self._has_lost = False
            self._end_kin()
        if self._terminator is not None:
            self._terminator.be_punctual(now)
        if self._beside is not None:
            if self._is_last():
                self._beside_ends = True
                self._beside.stop()
            self._beside.be_punctual(now)
        for child in self._retired:
            if child.kill_at is not None and child.kill_at <= now:
                child.kill_at = None
                logger.warning("process %d did not end within its grace and was killed", child.process.pid)
                child.process.kill()

    def stands(self) -> tuple[str, Standing]:
        """What the current child said last that it would read, and where it stands."""
        if self.current is None or self.current.exited:
            return "", Standing()
        if self._held is not None and self._beside is not None:
            return "", Standing(awaits=self._beside.awaited)
        ours = {os.fstat(sock.fileno()).st_ino for sock in self.sockets}
        return self.current.at, self.current.stands(ours)

    def kill(self) -> None:
        """Kill all that live; their exits will be reported."""
        for child in self._living():
            child.process.kill()
        if self._beside is not None:
            self._beside.kill()

    def alone(self) -> bool:
        """Whether nobody retired lives who held the application; when stopping, nobody at all."""
        if self.stopping and self._beside is not None and self._beside.lives:
            return False
        return not any(child.role == APP or self.stopping for child in self._retired)

    def _is_last(self) -> bool:
        """Whether it is time for the programs beside the server to end."""
        return self.stopping and not self._retired and self._beside is not None and not self._beside_ends

    def close(self) -> None:
        """Kill all that live, and what they have left behind."""
        for child in self._living():
            child.discard()
        self._transit.close()
        if self._terminator is not None:
            self._terminator.close(self.config.http.graceful)
        if self._beside is not None:
            self._beside.close()
        await_end(self._orphans.end())

    def _living(self) -> list[Child]:
        ours = [*self._retired, *self.waiting, *self.fellows, self.current, self.page]
        return [child for child in ours if child is not None and not child.exited]

    def _exited(self, child: Child) -> None:
        process = child.process
        code = process.exit_code()
        if code is None:
            return
        self._reactor.remove(process.fileno())
        if self._reactor.remove(process.channel):
            for message, fds in process.channel.drain():
                self._take(child, protocol.said(message), fds)
        child.exited = True
        trace = child.last_words()
        process.close()
        self._transit.lost(child)
        self.pass_on()
        if child in self._retired:
            self._retired.remove(child)
        self._end_kin()
        self.waiting.discard(child)
        self._ended(child, code, trace)

    def _end_kin(self) -> None:
        for pid in self._orphans.end(self._ours):
            self._teardowns.add(pid)

    def reap(self) -> None:
        """A process has ended, and nobody may be there to take its exit code but us."""
        self._orphans.reap(self._ours)

    def _ours(self) -> set[int]:
        """Our own children that are meant to live, with those that have been announced just now."""
        heard = set[Child]()
        while unheard := [child for child in self._living() if child not in heard]:
            for child in unheard:  # of whom others may be heard that have more to announce
                heard.add(child)
                while child.process.channel in self._reactor and child.process.channel.wait(0):
                    self._heard(child)
        others = self._unheard() | self._teardowns.pids
        if self._terminator is not None:
            others |= self._terminator.pids
        if self._beside is not None:
            others |= self._beside.pids
        return {child.process.pid for child in self._living()} | others
