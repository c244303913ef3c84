"""What an arbiter and its workers say to each other. A message is a dictionary with a `word`."""

from typing import Final

SERVING: Final = "serving"
"""A worker: I answer requests."""

TURNS: Final = "turns"
"""A worker: my loop turns, and not all of my threads stand still."""

WORN: Final = "worn"
"""A worker: replace me; `why`."""

LEAVING: Final = "leaving"
"""A worker: I end by myself, as somebody told me to."""

RETIRE: Final = "retire"
"""The arbiter: answer what you have begun, and end. If `last`, nobody serves after you."""

CONNECTIONS: Final = "connections"
"""Either: serve these, which have come with it; `sizes` and `data` are what was read of each."""

RECEIVED: Final = "received"
"""A worker: I have them."""

FORK: Final = "fork"
"""The arbiter to a loader: fork worker `place`, whose end of a channel has come with it."""

FORKED: Final = "forked"
"""A loader: the worker that was wanted first is the process `pid`."""

ENDED: Final = "ended"
"""A loader: the process `pid` has ended, with this exit `code`."""

SIGNAL: Final = "signal"
"""The arbiter to a loader: send `signum` to the process `pid`, if it has not ended."""

CLOSE: Final = "close"
"""The arbiter to a loader: close the listeners; nobody is to connect any more."""

END: Final = "end"
"""The arbiter to a loader: end; nobody is wanted of you any more."""

SUCCEED: Final = "succeed"
"""An arbiter, whose process is `pid`, to the one that it has started: serve, too, on the sockets with it."""
