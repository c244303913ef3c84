"""The debugger's side of an IDE, as far as the tests need one: sessions, breakpoints, stops.

`Dap` speaks the Debug Adapter Protocol with debugpy as VS Code does: one session for the process that
was launched, and one more, on a connection of its own, for each process below it, which a
`debugpyAttach` event announces. `Pydevd` is the listening side of pydevd's own protocol of lines, with
which PyCharm debugs: each process connects to it.

Both set the same breakpoints in every process, and put each stop into a queue. Every session has a
thread, since a process does not run before its session has answered.
"""

from __future__ import annotations

import json
import queue
import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.patience import DEADLINE

Message = dict[str, Any]
Then = Callable[[Message], None]


@dataclass(frozen=True)
class Stop:
    """A thread of a process that has stopped.

    Attributes:
        reason: why, in the protocol's own word.
        path, line: where.
        resume: lets the whole process run again.
        step: lets it run to the next line.
    """

    reason: str
    path: str
    line: int
    resume: Callable[[], None]
    step: Callable[[], None]


class Editor:
    """What both kinds share.

    Attributes:
        breakpoints: lines by path; those of the moment when a process starts count for it.
        sessions: how many processes have been attached to.
        problems: what a session could not understand; empty unless a test is wrong.
    """

    def __init__(self, breakpoints: Mapping[Path, list[int]]) -> None:
        self.breakpoints = breakpoints
        self.sessions = 0
        self.problems: list[str] = []
        self._stops: queue.Queue[Stop] = queue.Queue()
        self._more = threading.Condition()

    def stopped(self) -> Stop:
        """The next stop of any process."""
        try:
            return self._stops.get(timeout=DEADLINE)
        except queue.Empty:
            raise AssertionError(f"nothing stopped; {self.sessions} sessions, {self.problems}") from None

    def attached(self, count: int) -> None:
        """Wait until so many processes have been attached to."""
        with self._more:
            assert self._more.wait_for(lambda: self.sessions >= count, DEADLINE), self.sessions

    def end(self) -> None:
        """What the button to stop does."""
        raise NotImplementedError

    def idle(self) -> bool:
        """Whether no stop has come that was not taken."""
        return self._stops.empty()

    def stop_at(self, stop: Stop) -> None:
        """A session reports a stop."""
        self._stops.put(stop)

    def begin(self, run: Callable[[], None]) -> None:
        """Run a session in a thread of its own."""
        with self._more:
            self.sessions += 1
            self._more.notify_all()

        def guarded() -> None:
            try:
                run()
            except (OSError, ValueError):
                pass  # a process that is killed takes its connection along
            except Exception as error:
                self.problems.append(repr(error))

        threading.Thread(target=guarded, name=f"session-{self.sessions}", daemon=True).start()


class Dap(Editor):
    """The client of debug adapters."""

    def __init__(
        self, breakpoints: Mapping[Path, list[int]], run: Callable[[Message], int] | None = None
    ) -> None:
        """Args: run: starts a program in a terminal, as `runInTerminal` asks for. Returns its process id."""
        super().__init__(breakpoints)
        self.run = run
        self.root: Session | None = None

    def open(self, connection: socket.socket, configuration: Message) -> Session:
        """Begin a session: `configuration` is one of launch.json, or what `debugpyAttach` brought."""
        session = Session(self, connection, configuration)
        self.root = self.root or session
        self.begin(session.listen)
        return session

    def end(self) -> None:
        """See `Editor`."""
        assert self.root is not None
        self.root.send("terminate")

    def attach(self, configuration: Message) -> Session:
        """Begin a session on a connection of its own."""
        where = configuration["connect"]
        connection = socket.create_connection((where["host"], where["port"]), DEADLINE)
        connection.settimeout(None)
        return self.open(connection, configuration)


class Session:
    """One connection to an adapter, which is one process that is debugged.

    Attributes:
        ended: the adapter has said that the process is gone.
    """

    def __init__(self, editor: Dap, connection: socket.socket, configuration: Message) -> None:
        self.ended = threading.Event()
        self._editor = editor
        self._connection = connection
        self._configuration = configuration
        self._lock = threading.Lock()
        self._seq = 0
        self._waiting: dict[int, Then] = {}

    def listen(self) -> None:
        """The whole session."""
        self.send("initialize", self._initialized, adapterID="debugpy", supportsRunInTerminalRequest=True)
        with self._connection, self._connection.makefile("rb") as stream:
            while (message := _read(stream)) is not None:
                kind = message["type"]
                if kind == "response":
                    self._answered(message)
                elif kind == "request":
                    self._asked(message)
                else:
                    handler = getattr(self, f"_on_{message['event']}", None)
                    if handler is not None:
                        handler(message.get("body") or {})
        self.ended.set()

    def send(self, command: str, then: Then | None = None, /, **arguments: Any) -> None:
        """Send a request; `then` gets the body of the answer."""
        with self._lock:
            self._seq += 1
            if then is not None:
                self._waiting[self._seq] = then
            self._write({"seq": self._seq, "type": "request", "command": command, "arguments": arguments})

    def _write(self, message: Message) -> None:
        data = json.dumps(message).encode()
        self._connection.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))

    def _answered(self, message: Message) -> None:
        said = str(message.get("message"))
        # An interpreter that was made ready and is not needed ends at any moment, and its session with it.
        if not message["success"] and not said.endswith("disconnected unexpectedly"):
            self._editor.problems.append(f"{message['command']}: {said}")
        then = self._waiting.pop(message["request_seq"], None)
        if then is not None and message["success"]:
            then(message.get("body") or {})

    def _asked(self, message: Message) -> None:
        assert message["command"] == "runInTerminal"
        assert self._editor.run is not None
        pid = self._editor.run(message["arguments"])
        with self._lock:
            self._seq += 1
            self._write(
                {
                    "seq": self._seq,
                    "type": "response",
                    "request_seq": message["seq"],
                    "command": message["command"],
                    "success": True,
                    "body": {"processId": pid},
                }
            )

    def _initialized(self, body: Message) -> None:
        self.send(self._configuration["request"], **self._configuration)

    def _on_initialized(self, body: Message) -> None:
        for path, lines in self._editor.breakpoints.items():
            self.send(
                "setBreakpoints",
                source={"path": str(path)},
                breakpoints=[{"line": line} for line in lines],
            )
        self.send("setExceptionBreakpoints", filters=["uncaught"])
        self.send("configurationDone")

    def _on_debugpyAttach(self, body: Message) -> None:
        self._editor.attach(body)

    def _on_stopped(self, body: Message) -> None:
        thread = body["threadId"]

        def where(answer: Message) -> None:
            frame = answer["stackFrames"][0]
            self._editor.stop_at(
                Stop(
                    body["reason"],
                    frame["source"]["path"],
                    frame["line"],
                    lambda: self.send("continue", threadId=thread),
                    lambda: self.send("next", threadId=thread),
                )
            )

        self.send("stackTrace", where, threadId=thread, levels=1)

    def _on_terminated(self, body: Message) -> None:
        self.ended.set()
        self.send("disconnect")


def _read(stream: Any) -> Message | None:
    length = 0
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if not length:
        return None
    message: Message = json.loads(stream.read(length))
    return message


class Pydevd(Editor):
    """PyCharm's side: listens; each process connects, and is told its breakpoints and to run.

    Attributes:
        port: where it listens on 127.0.0.1.
    """

    # The numbers of pydevd's commands, `_pydevd_bundle/pydevd_comm_constants.py`.
    RUN, STOPPED, RESUME, STEP_OVER, BREAK, VERSION, ERROR = 101, 105, 106, 108, 111, 501, 901

    def __init__(self, breakpoints: Mapping[Path, list[int]]) -> None:
        super().__init__(breakpoints)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="pycharm", daemon=True).start()

    def close(self) -> None:
        """Take no more processes."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts, which a close does not
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.begin(partial(self._listen, connection))

    def _listen(self, connection: socket.socket) -> None:
        seq = iter(range(1, 10**6, 2))  # the debugger's own are even

        def send(command: int, text: str = "") -> None:
            connection.sendall(f"{command}\t{next(seq)}\t{text}\n".encode())

        with connection, connection.makefile("rb") as stream:
            send(self.VERSION, "1.1\tUNIX\tID")
            where = ((path, line) for path, lines in self.breakpoints.items() for line in lines)
            for number, (path, line) in enumerate(where, 1):
                more = "\t".join(["None"] * 4 + ["False", "ALL"])
                send(self.BREAK, f"{number}\tpython-line\t{path}\t{line}\t{more}")
            send(self.RUN)
            for raw in stream:
                command, _, text = raw.decode().rstrip("\n").split("\t", 2)
                if int(command) == self.STOPPED:
                    self._stop(unquote(text), send)
                elif int(command) == self.ERROR:
                    self.problems.append(unquote(text))

    def _stop(self, text: str, send: Callable[[int, str], None]) -> None:
        thread = re.search(r'<thread id="([^"]+)".*?stop_reason="(\d+)"', text)
        frame = re.search(r'<frame [^>]*?file="([^"]+)" line="(\d+)"', text)
        assert thread is not None, text
        assert frame is not None, text
        if int(thread[2]) == self.STOPPED:
            return  # a thread that another one's breakpoint has stopped, too
        self.stop_at(
            Stop(
                thread[2],
                unquote(unquote(frame[1])),
                int(frame[2]),
                lambda: send(self.RESUME, "*"),
                lambda: send(self.STEP_OVER, thread[1]),
            )
        )
