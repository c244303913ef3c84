"""The section of the configuration that is about proxies. What it brings about is known in `front`."""

from collections.abc import Mapping
from dataclasses import dataclass

from devserver.errors import UsageError
from devserver.option_types import PROXIES, SWITCH
from devserver.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Which proxies are believed, and about what."""

    headers: bool = option(
        True,
        "Believe what trusted proxies say of the client, in X-Forwarded-* and Forwarded.",
        kind=SWITCH,
        flag="proxy-headers",
    )
    allow: tuple[str, ...] = option(
        ("127.0.0.1", "::1", "unix"),
        "Trust proxies at this address or network; unix is a Unix socket, * everybody.",
        kind=PROXIES,
        flag="forwarded-allow-ips",
        variable="FORWARDED_ALLOW_IPS",
    )
    protocol: bool = option(
        False,
        "Take the client from the PROXY protocol, which trusted proxies then have to speak.",
        kind=SWITCH,
        flag="proxy-protocol",
    )


def check_uwsgi(values: Mapping[str, object]) -> None:
    """Look at options that contradict `--protocol uwsgi`.

    Raises:
        UsageError: there are such.
    """
    if values["protocol"] != "uwsgi":
        return
    if values["https"] or values["ssl_certfile"] is not None:
        raise UsageError("--protocol uwsgi and HTTPS exclude each other: have the proxy end TLS")
    if values["http2"]:
        raise UsageError(
            "--protocol uwsgi and --http2 exclude each other: the proxy speaks HTTP/2 with browsers, so leave"
            " --http2 out"
        )
    if values["proxy_protocol"]:
        raise UsageError(
            "--protocol uwsgi and --proxy-protocol exclude each other: uwsgi names the client already,"
            " so leave --proxy-protocol out"
        )
    if values["qr"]:
        raise UsageError(
            "--protocol uwsgi and --qr exclude each other: no browser speaks uwsgi, so open the proxy's URL"
        )
