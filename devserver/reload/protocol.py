"""The words between a supervisor and its children, a type for each.

`Said` is what a child says, `Told` what it is told. A word becomes a message where a channel is written, and
a message becomes a word where it is read, and nowhere else. Whoever hears a word tells it from others by
`match`, so that a type checker finds a word that nobody handles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast, dataclass_transform

from devserver.process.control import Message

APP, PAGE = "app", "page"
"""The roles of a child."""

Mark = tuple[str, int]
"""Where a checkpoint is wanted: a module's path and the number of a statement; -1 for its first."""

END: Mark = ("<end>", 0)
"""Where everything is loaded: what was read by then an edit of what only requests read leaves as it is."""


@dataclass_transform(frozen_default=True)
class Word:
    """What is said or told. To a type checker a frozen dataclass.

    It is none, because every process would take 20 ms to make thirty of these.
    """

    fields: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        cls.fields = tuple(cls.__annotations__)

    def __init__(self, *values: object, **named: object) -> None:
        self.__dict__.update(zip(self.fields, values, strict=False), **named)


# What a child says


class Read(Word):
    """It reads something, which it says before what it is about is executed.

    Attributes:
        entries: of the timeline, as JSON.
        place: the statement that is being executed; None if it is not known.
    """

    entries: list[Any]
    place: Mark | None


class Loaded(Word):
    """The application is loaded; the word to serve it is awaited."""


class Serving(Word):
    """It answers. `judges`: its application wants to say itself what a change means."""

    judges: bool


class Failed(Word):
    """It could not be loaded, started up or gone on with.

    Attributes:
        phase: "load", "lifespan", "serve", or "check" for what is done while it is served.
        error: one line.
        traceback: the whole text, or "".
    """

    phase: str
    error: str
    traceback: str


class Changed(Word):
    """The gate has noticed that these files changed, or the application has judged so."""

    files: list[str]


class Handled(Word):
    """The application has dealt with the change of these files."""

    files: list[str]


class Asked(Word):
    """A request has come to the page, and is held."""


class Connections(Word):
    """Connections that change hands, with their descriptors; said by who gives them, told to who gets them.

    Attributes:
        sizes: for each descriptor the number of bytes that were read of it and not used.
        data: these bytes, one after the other.
    """

    sizes: list[int]
    data: bytes = b""


class Received(Word):
    """It has the connections that were sent to it."""


class Closing(Word):
    """The drain is over; the lifespan shuts down."""


class Teardown(Word):
    """The process `pid` takes apart the memory of this one, which ends now."""

    pid: int


class Stopped(Word):
    """Somebody is at a breakpoint at `where`, and the end waits."""

    where: str


class Continued(Word):
    """Nobody is at a breakpoint any more."""


class ReadsTerminal(Word):
    """The application reads the terminal, or (False) has done so."""

    reading: bool


class Left(Word):
    """A half waits at a checkpoint from now on; with a channel to the other half, `pid`, which goes on.

    Attributes:
        stack: paths and lines of the unfinished modules, outermost first.
        at: the statement before which it stands; empty where none is.
        seconds: of loading before it.
        marked: the module for whose edit it was made, or "".
    """

    pid: int
    stack: list[tuple[str, int]]
    at: list[Mark]
    seconds: float
    marked: str


class Barrier(Word):
    """No checkpoint can be made.

    Attributes:
        reason: why.
        mark: where one could be made, last.
        statement: the path and line of the statement since which it is so; None if it is not known.
    """

    reason: str
    mark: Mark
    statement: tuple[str, int] | None


# What a half that waits at a checkpoint says, and a copy that it has made


class Prepared(Word):
    """The copy `pid` was made ahead of the next restart; with its channel."""

    pid: int


class Lost(Word):
    """The half between was killed: there may be a copy that nobody was told of."""


class Resumed(Word):
    """The copy `pid` goes on; with its channel, unless it had one already."""

    pid: int


class Unfit(Word):
    """What was executed has changed, or no copy could be made."""


class ShowsPage(Word):
    """The copy `pid` of the first checkpoint, which holds nothing of the user's, shows the page."""

    pid: int


OfCurrent = Read | Loaded | Serving | Failed | Changed | Handled | Asked | Barrier
"""About the application, or a page: it counts while this child is the current one, or the page."""

OfAny = ReadsTerminal
"""What counts whoever says it."""

OfCopies = Left | Prepared | Lost | Resumed | Unfit | ShowsPage
"""About checkpoints, and copies of them."""

OfLoad = OfCurrent | OfAny | OfCopies
"""What is not about connections and ends."""

OfEnds = Connections | Received | Closing | Teardown | Stopped | Continued
"""About connections, and about the end of this child."""

Said = OfLoad | OfEnds


# What a child is told


class Boot(Word):
    """What to be. The listeners come with it.

    Attributes:
        config: as JSON.
        role: `APP` or `PAGE`.
        crash: a descriptor comes last into which a fatal signal may write.
        failure: what a page shows.
        warm, marks: whether checkpoints may be made, and before which statements they are wanted.
        place: which of several workers to be; 0 if there is one.
    """

    config: dict[str, Any]
    role: str = APP
    crash: bool = False
    failure: dict[str, Any] | None = None
    warm: bool = False
    marks: Sequence[Mark] = ()
    place: int = 0


class Serve(Word):
    """Start up and serve.

    Attributes:
        moment: by this word pages wait for the end of what serves; all workers of a generation know it.
    """

    moment: str


class Judge(Word):
    """Say what the change of these files means to the application."""

    files: list[str]


class Retire(Word):
    """Drain and end.

    Attributes:
        grace: seconds that requests in flight may take.
        restart: a successor is wanted.
    """

    grace: float
    restart: bool


class Show(Word):
    """To a page: show another failure."""

    failure: dict[str, Any]


class Answer(Word):
    """To a page: answer the request that is held longest."""


# What a half that waits at a checkpoint is told


class Resume(Word):
    """Make a copy that goes on.

    Attributes:
        marks: statements before which checkpoints are wanted.
        touched: entries of the timeline, as JSON, that are known better by now.
        place: which of several workers the copy is to be. Only the first leaves checkpoints.
    """

    marks: Sequence[Mark]
    touched: list[Any]
    place: int = 0


class Prepare(Word):
    """Make a copy ahead of the next restart.

    Attributes:
        like: the process id of a copy that has gone on before; it shows which memory will be needed.
        most: bytes of memory that may be copied for that.
    """

    like: int
    most: int


class ShowPage(Word):
    """Make a copy that shows a failure. `config`: as JSON."""

    config: dict[str, Any]
    failure: dict[str, Any]


ToWaiting = Resume | Prepare | ShowPage
Told = Boot | Serve | Judge | Retire | Show | Answer | Connections | ToWaiting

_WORDS: dict[str, type[Any]] = {word.__name__: word for word in Word.__subclasses__()}


def encode(word: Said | Told) -> Message:
    """The message for a word."""
    kind = type(word)
    return {"word": kind.__name__, **{name: getattr(word, name) for name in kind.fields}}


def said(message: Message) -> Said:
    """The word that a child has sent."""
    return cast(Said, _decode(message))


def told(message: Message) -> Told:
    """The word that the supervisor has sent. What else is in its message belongs to the channel."""
    return cast(Told, _decode(message))


def _decode(message: Message) -> Any:
    kind = _WORDS[message["word"]]
    return kind(**{name: message[name] for name in kind.fields if name in message})
