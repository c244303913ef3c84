"""What each interface tells an application of a TLS session.

ASGI has an extension for it (ASGI TLS extension 0.2). WSGI has none: there the variables are those of
Apache's mod_ssl (its documentation, "Environment Variables"), which middleware looks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from devserver.http.exchange import Tls

_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "emailAddress": "Email",
    "givenName": "G",
    "initials": "I",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "surname": "S",
    "title": "T",
    "userId": "UID",
}
"""Short names of what a distinguished name has, as RFC 4514 section 3 and mod_ssl have them."""


def extension(tls: Tls) -> dict[str, Any]:
    """The value of `scope["extensions"]["tls"]`."""
    return {
        "server_cert": tls.server_cert,
        "client_cert_chain": list(tls.client_chain),
        "client_cert_name": _name(tls.client["subject"]) if "subject" in tls.client else None,
        "client_cert_error": None,  # a certificate that is not good ends the handshake
        "tls_version": _VERSIONS.get(tls.version),
        "cipher_suite": tls.cipher_suite,
    }


def environ(tls: Tls) -> dict[str, str]:
    """What a WSGI environ has of it."""
    found = {
        "HTTPS": "on",
        "SSL_PROTOCOL": tls.version,
        "SSL_CIPHER": tls.cipher,
        "SSL_CIPHER_USEKEYSIZE": str(tls.bits),
        "SSL_SESSION_RESUMED": "Resumed" if tls.resumed else "Initial",
        "SSL_CLIENT_VERIFY": "SUCCESS" if tls.client_chain else "NONE",
    }
    if tls.server_name:
        found["SSL_TLS_SNI"] = tls.server_name
    if tls.server_cert:
        found["SSL_SERVER_CERT"] = tls.server_cert
    if tls.client_chain:
        found["SSL_CLIENT_CERT"] = tls.client_chain[0]
        found.update((f"SSL_CLIENT_CERT_CHAIN_{n}", pem) for n, pem in enumerate(tls.client_chain[1:]))
    plain = {"serialNumber": "M_SERIAL", "version": "M_VERSION", "notBefore": "V_START", "notAfter": "V_END"}
    for key, name in plain.items():
        if key in tls.client:
            found[f"SSL_CLIENT_{name}"] = str(tls.client[key])
    for key, name in {"subject": "S", "issuer": "I"}.items():
        if key in tls.client:
            found[f"SSL_CLIENT_{name}_DN"] = _name(tls.client[key])
            # Of several of a kind the first counts, as in mod_ssl.
            for kind, value in reversed(list(_attributes(tls.client[key]))):
                found[f"SSL_CLIENT_{name}_DN_{kind}"] = value
    return found


def _attributes(name: Any) -> Iterator[tuple[str, str]]:
    for part in name:
        for kind, value in part:
            yield _SHORT.get(kind, kind), value


def _name(name: Any) -> str:
    """A distinguished name as text (RFC 4514 section 2). Args: name: as `getpeercert` has it."""
    parts = ["+".join(f"{kind}={_escaped(value)}" for kind, value in _attributes([part])) for part in name]
    return ",".join(reversed(parts))


def _escaped(value: str) -> str:
    """RFC 4514 section 2.4."""
    text = "".join(f"\\{char}" if char in '"+,;<>\\' else char for char in value).replace("\0", "\\00")
    if text.startswith((" ", "#")):
        text = f"\\{text}"
    return f"{text[:-1]}\\ " if text.endswith(" ") and len(value) > 1 else text
