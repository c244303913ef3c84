"""The words between a supervisor and its terminator, each the `word` of a message.

The first message to a terminator has no word: it has `config`, as JSON, and the listeners.
"""

READY = "Ready"
"""From the terminator: it accepts."""

REFUSED = "Refused"
"""From the terminator, which ends: what it was given cannot be used; `error` says why."""

CONNECTIONS = "Connections"
"""From the terminator: connections, as `process.control.pack` has them. The bytes of each are its letter."""

FINISH = "Finish"
"""To the terminator: accept no more, send what is left within so many `seconds`, and end."""
