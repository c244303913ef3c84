"""What can be wrong with a certificate and its key, in words that name the file.

OpenSSL says of all of it `[SSL] PEM lib`. So the files are looked at before it gets them, as far as that
needs no library: whether they can be read, what their PEM blocks are (RFC 7468), and when a certificate is
valid (RFC 5280 section 4.1.2.5), for which a few lines of DER are enough.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

from devserver.errors import UsageError

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17


def blocks(path: str, option: str) -> list[tuple[str, bytes]]:
    """The PEM blocks of a file: the label of each, and its text.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UsageError(
            f"{option} {path} cannot be read: {error.strerror}; correct the path or its rights"
        ) from None
    return [(found[1].decode("ascii"), found[0]) for found in _BLOCK.finditer(content)]


def check(path: str, now: datetime) -> str:
    """Look at the file of a certificate. Returns the certificate, PEM.

    Raises:
        UsageError: it cannot be read, holds no certificate, or one that is not valid now.
    """
    found = [text.decode("ascii") for label, text in blocks(path, "--ssl-certfile") if label == "CERTIFICATE"]
    if not found:
        raise UsageError(
            f"--ssl-certfile {path} holds no certificate: give a PEM file that begins with the server's"
        )
    try:
        begins, ends = validity(ssl.PEM_cert_to_DER_cert(found[0]))
    except (ValueError, IndexError):
        raise UsageError(
            f"--ssl-certfile {path} holds a certificate that cannot be read; make it anew"
        ) from None
    if now < begins:
        raise UsageError(
            f"--ssl-certfile {path} is not valid yet, only from {begins:%Y-%m-%d %H:%M} UTC on;"
            f" the clock says {now:%Y-%m-%d %H:%M}"
        )
    if now > ends:
        raise UsageError(f"--ssl-certfile {path} expired at {ends:%Y-%m-%d %H:%M} UTC; renew it")
    return found[0]


def check_key(path: str, password: str | None) -> None:
    """Look at the file of a private key.

    Raises:
        UsageError: it cannot be read, holds no key, or one for which a password is missing.
    """
    found = [(label, text) for label, text in blocks(path, "--ssl-keyfile") if label.endswith("PRIVATE KEY")]
    if not found:
        raise UsageError(f"{path} holds no private key: name the key's file by --ssl-keyfile")
    label, text = found[0]
    if password is None and (label == "ENCRYPTED PRIVATE KEY" or b"Proc-Type: 4,ENCRYPTED" in text):
        raise UsageError(f"the private key in {path} is encrypted: give --ssl-keyfile-password")


def validity(der: bytes) -> tuple[datetime, datetime]:
    """From when until when a certificate is valid.

    Raises:
        ValueError, IndexError: it is no certificate.
    """
    _, at, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, at)  # TBSCertificate
    tag, _, end = _element(der, at)
    if tag == _VERSION:
        _, _, end = _element(der, end)  # serialNumber
    for _ in ("signature", "issuer"):
        _, _, end = _element(der, end)
    _, at, _ = _element(der, end)
    first, begin, end = _element(der, at)
    second, start, stop = _element(der, end)
    return _time(first, der[begin:end]), _time(second, der[start:stop])


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag of an element of DER, and where its content begins and ends."""
    tag, size, at = der[at], der[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        size, at = int.from_bytes(der[at : at + count]), at + count
    return tag, at, at + size


def _time(tag: int, text: bytes) -> datetime:
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)
