"""The section of the configuration that is about the processes that serve. What it brings about is known in
`workers`."""

from collections.abc import Mapping
from dataclasses import dataclass

from devserver.errors import UsageError
from devserver.option_types import PATH, SWITCH, integer, seconds
from devserver.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How many processes serve, and when one of them is replaced. Times are in seconds."""

    count: int = option(
        1,
        "Number of processes that serve the application side by side.",
        kind=integer(1),
        flag="workers",
        variable="WEB_CONCURRENCY",
    )
    preload: bool = option(
        False,
        "Load the application once, and fork workers that share its memory and start at once.",
        kind=SWITCH,
    )
    healthcheck: float = option(
        30.0,
        "Replace a worker whose event loop, or all of whose threads, have stood still for this many seconds;"
        " 0 never does.",
        kind=seconds(zero=True),
        flag="timeout-worker-healthcheck",
    )
    max_requests: int | None = option(
        None, "Replace a worker after this many requests.", kind=integer(1), flag="limit-max-requests"
    )
    jitter: int = option(
        0,
        "Add up to this many requests, at random, to --limit-max-requests of each worker.",
        kind=integer(0),
        flag="limit-max-requests-jitter",
    )
    max_memory: int | None = option(
        None,
        "Replace a worker that holds more than this many MiB of memory (Linux).",
        kind=integer(1),
        flag="limit-max-memory",
    )
    pidfile: str | None = option(None, "Write the server's process id to this file while it runs.", kind=PATH)

    @property
    def several(self) -> bool:
        """Whether processes of their own serve, which can be replaced."""
        return self.count > 1 or self.limited

    @property
    def limited(self) -> bool:
        """Whether a process that serves is replaced when it has served enough, or holds too much."""
        return self.max_requests is not None or self.max_memory is not None


def check_workers(values: Mapping[str, object]) -> None:
    """Look at options that mean nothing without another.

    Raises:
        UsageError: there are such.
    """
    if values["limit_max_requests_jitter"] and values["limit_max_requests"] is None:
        raise UsageError("--limit-max-requests-jitter says nothing by itself: give --limit-max-requests, too")
