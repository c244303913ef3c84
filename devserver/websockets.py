"""The section of the configuration that is about WebSockets. What it brings about is known in `http`."""

from dataclasses import dataclass

from devserver.option_types import BOOLEAN, choice, integer, seconds
from devserver.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocket:
    """WebSocket. Times are in seconds, sizes in bytes."""

    implementation: str = option(
        "auto",
        "WebSocket library; none refuses WebSockets.",
        kind=choice("auto", "wsproto", "none"),
        flag="ws",
    )
    max_size: int = option(2**24, "Largest message in bytes.", kind=integer(1), flag="ws-max-size")
    ping_interval: float = option(
        20.0, "Seconds between two pings; 0 sends none.", kind=seconds(zero=True), flag="ws-ping-interval"
    )
    ping_timeout: float = option(
        20.0, "Seconds that the answer to a ping may take.", kind=seconds(zero=False), flag="ws-ping-timeout"
    )
    deflate: bool = option(True, "Offer permessage-deflate.", kind=BOOLEAN, flag="ws-per-message-deflate")
