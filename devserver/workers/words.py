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
