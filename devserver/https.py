"""The section of the configuration that is about HTTPS. What it brings about is known in `front`."""

from collections.abc import Mapping
from dataclasses import dataclass

from devserver.errors import UsageError
from devserver.option_types import CERT_REQS, EXISTING_FILE, SECRET, SWITCH, TEXT, TLS_VERSION
from devserver.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """HTTPS. `version` is None for what OpenSSL takes."""

    https: bool = option(
        False,
        "Serve HTTPS with a certificate of this machine's own authority; devserver trust installs it.",
        kind=SWITCH,
    )
    certfile: str | None = option(
        None,
        "Serve HTTPS with the certificate in this file, PEM, and its chain.",
        kind=EXISTING_FILE,
        flag="ssl-certfile",
    )
    keyfile: str | None = option(
        None,
        "Private key of the certificate, PEM; without it the certificate's file has it, too.",
        kind=EXISTING_FILE,
        flag="ssl-keyfile",
    )
    keyfile_password: str | None = option(
        None, "Password of the private key.", kind=SECRET, flag="ssl-keyfile-password"
    )
    ca_certs: str | None = option(
        None,
        "Authorities that certificates of clients must come from, PEM.",
        kind=EXISTING_FILE,
        flag="ssl-ca-certs",
    )
    cert_reqs: str = option(
        "none",
        "Whether clients are asked for a certificate: none, optional or required (0, 1, 2).",
        kind=CERT_REQS,
        flag="ssl-cert-reqs",
    )
    ciphers: str | None = option(
        None, "Ciphers up to TLS 1.2, in OpenSSL's notation.", kind=TEXT, flag="ssl-ciphers"
    )
    version: str | None = option(
        None,
        "Lowest version of TLS: auto, 1.2 or 1.3 (or a number of Python's ssl.PROTOCOL_*).",
        kind=TLS_VERSION,
        flag="ssl-version",
        none="auto",
    )

    @property
    def enabled(self) -> bool:
        """Whether HTTPS is served."""
        return self.https or self.certfile is not None

    @property
    def scheme(self) -> str:
        """That of URLs: "http" or "https"."""
        return "https" if self.enabled else "http"


def check_https(values: Mapping[str, object]) -> None:
    """Look at options that mean nothing, or too much, without another.

    Raises:
        UsageError: there are such.
    """
    if values["ssl_certfile"] is None:
        for name in ("ssl_keyfile", "ssl_ca_certs"):
            if values[name] is not None and not (values["https"] and name == "ssl_ca_certs"):
                instead = "" if name == "ssl_keyfile" else " or --https"
                raise UsageError(
                    f"--{name.replace('_', '-')} says nothing by itself: give --ssl-certfile{instead}, too"
                )
    if (values["https"] or values["ssl_certfile"] is not None) and values["proxy_protocol"]:
        raise UsageError("--proxy-protocol and HTTPS exclude each other: have the proxy end TLS")
    if values["ssl_cert_reqs"] != "none" and values["ssl_ca_certs"] is None:
        raise UsageError("--ssl-cert-reqs asks clients for certificates: give --ssl-ca-certs, too")
