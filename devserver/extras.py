"""Which packages options need that are not installed with devserver: said before anything is promised.

By looking for them, without an import: a supervisor asks, too, and stays light.
"""

from importlib.util import find_spec

from devserver.config import Config
from devserver.errors import UsageError


def check_extras(config: Config) -> None:
    """Look for the packages that were asked for by name.

    Raises:
        UsageError: one is not installed; the message names the extra.
    """
    http = config.http
    for option, is_wanted, package, extra in (
        ("--http httptools", http.parser == "httptools", "httptools", "fast"),
        ("--loop uvloop", http.loop == "uvloop", "uvloop", "fast"),
        ("--http2", http.http2 is True and http.protocol == "http", "hpack", "http2"),
        ("--qr", config.bind.qr, "segno", "qr"),
    ):
        if is_wanted and find_spec(package) is None:
            raise UsageError(f"{option}: {package} is not installed; pip install 'devserver[{extra}]'")
