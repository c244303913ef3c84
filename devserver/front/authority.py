"""The local certificate authority: mkcert's where mkcert has one, else one of our own.

`cryptography` is used. trustme, which is made of it, can neither limit an authority to names nor write it
down; mkcert itself is a program that one would have to install. The root is name-constrained (RFC 5280
section 4.2.1.10): who steals its key can pose as a machine of this network, and not as a bank. The leaf
lives for a week and is made anew in time by whoever serves with it, and when this machine gets other
addresses.

Names below `localhost` get a leaf of their own when they are asked for: no client takes `*.localhost`,
which it holds for a whole top-level domain.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import struct
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from devserver import procfs
from devserver.errors import UsageError
from devserver.front.folder import NETWORKS, has_mkcert, mkcert_folder, own_folder

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    raise UsageError(
        "--https needs the package cryptography: pip install 'devserver[tls]'; or give --ssl-certfile"
    ) from None

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

ROOT, ROOT_KEY, LEAF = "root.pem", "root-key.pem", "leaf.pem"
_ROOT_DAYS, _LEAF_DAYS, _RENEW_DAYS = 3650, 7, 2
_SKEW = timedelta(hours=1)
"""How far behind the clock of a client may be."""

_SIOCGIFADDR = 0x8915
"""Asks for the address of an interface (linux/sockios.h)."""

_BELOW = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+localhost")
_HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*")

_DOMAINS = ("localhost", "local", "test", "internal", "lan", "home.arpa")
"""Names that are nobody's on the internet (RFC 6761, RFC 6762, RFC 8375), or will never be."""


@dataclass(frozen=True)
class Names:
    """What a certificate is for."""

    hosts: tuple[str, ...]
    addresses: tuple[Address, ...] = ()


def is_below_localhost(name: str) -> bool:
    """Whether a name is one below `localhost`."""
    return len(name) < 254 and _BELOW.fullmatch(name) is not None


def names_here() -> Names:
    """The names and addresses of this machine, the same ones in the same order each time."""
    host = socket.gethostname().lower()
    hosts = ["localhost", "*.localhost"]
    if _HOST.fullmatch(host) and host not in hosts:
        hosts.append(host)
        if "." not in host:
            hosts.append(f"{host}.local")  # as mDNS knows it
    addresses = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"), *_addresses()}
    # What is link-local on IPv6 no browser takes, and each container brings one.
    kept = [each for each in addresses if any(each in network for network in NETWORKS)]
    kept = [each for each in kept if each.version == 4 or not each.is_link_local]
    return Names(tuple(hosts), tuple(sorted(kept, key=lambda each: (each.version, int(each)))))


def _addresses() -> Iterable[Address]:
    """Addresses of this machine: that of each way to the outside, and on Linux those of each interface.

    Its name is not looked up: that may take seconds, and an event loop may wait for it.
    """
    for family, outside in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((outside, 9))  # sends nothing
            yield ipaddress.ip_address(probe.getsockname()[0])
    if sys.platform == "linux":
        yield from _interfaces()


def _interfaces() -> Iterable[Address]:
    """See netdevice(7)."""
    if sys.platform != "linux":
        return
    import fcntl  # there is none on Windows

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no address
                request = struct.pack("256s", name.encode()[:15])
                yield ipaddress.ip_address(fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, request)[20:24])
    yield from map(ipaddress.ip_address, procfs.ipv6_addresses())


class Authority:
    """A root, and what it issues."""

    def __init__(self, root: x509.Certificate, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        self.root = root
        self._key = key

    def issue(self, names: Names, now: datetime) -> bytes:
        """A certificate, its key behind it, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.DNSName(each) for each in names.hosts]
        alternatives += [x509.IPAddress(each) for each in names.addresses]
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(names.hosts[0]))
            .issuer_name(self.root.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + timedelta(days=_LEAF_DAYS))
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign=True, certify=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(identifier, critical=False)
            .add_extension(_issued_by(self.root), critical=False)
        )
        found = builder.sign(self._key, hashes.SHA256())
        return found.public_bytes(serialization.Encoding.PEM) + _private(key)

    def fits(self, leaf: bytes, names: Names, now: datetime) -> bool:
        """Whether a certificate of before still will do."""
        try:
            found = x509.load_pem_x509_certificate(leaf)
            known = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            found.verify_directly_issued_by(self.root)
        except Exception:  # whatever is wrong with the file, another takes its place
            return False
        same = set(known.get_values_for_type(x509.DNSName)) == set(names.hosts)
        same &= set(known.get_values_for_type(x509.IPAddress)) == set(names.addresses)
        return same and found.not_valid_after_utc - now > timedelta(days=_RENEW_DAYS)


def find(now: datetime) -> Authority:
    """mkcert's authority, else our own, which is made if there is none.

    Raises:
        UsageError: its files cannot be read or written.
    """
    return _load(mkcert_folder(), ("rootCA.pem", "rootCA-key.pem")) if has_mkcert() else own(now)


def own(now: datetime) -> Authority:
    """Our own authority, which is made if there is none.

    Raises:
        UsageError: its files cannot be read or written.
    """
    folder, names = own_folder(), (ROOT, ROOT_KEY)
    if not all(os.path.exists(os.path.join(folder, name)) for name in names):
        _make(folder, now)
    return _load(folder, names)


def _load(folder: str, names: tuple[str, str]) -> Authority:
    try:
        secret = os.path.join(folder, names[1])
        if os.name == "posix" and os.stat(secret).st_mode & 0o077:
            raise UsageError(
                f"{secret} can be read by others, who could pass for any site: chmod 600 {secret}"
            )
        root, key = (Path(folder, name).read_bytes() for name in names)
        loaded = serialization.load_pem_private_key(key, None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError("a kind of key that is not known")
        certificate = x509.load_pem_x509_certificate(root)
        if _spki(certificate.public_key()) != _spki(loaded.public_key()):
            raise ValueError(f"{names[0]} and {names[1]} do not belong together")
        return Authority(certificate, loaded)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"the authority in {folder} cannot be used: {error}; remove it to have a new one"
        ) from None


def _spki(key: Any) -> bytes:
    """A public key as bytes (RFC 5280 section 4.1.2.7)."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(serialization.Encoding.DER, form))


def _make(folder: str, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"devserver on {socket.gethostname()}"[:64])
    host = socket.gethostname().lower()
    domains = [*_DOMAINS, *([host] if _HOST.fullmatch(host) else [])]
    allowed: list[x509.GeneralName] = [x509.DNSName(each) for each in domains]
    allowed += [x509.IPAddress(each) for each in NETWORKS]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=_ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=False, certify=True), critical=True)
        .add_extension(x509.NameConstraints(allowed, None), critical=True)
        .add_extension(identifier, critical=False)
    )
    root = builder.sign(key, hashes.SHA256())
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        write(os.path.join(folder, ROOT_KEY), _private(key))
        write(os.path.join(folder, ROOT), root.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise UsageError(
            f"--https keeps its authority in {folder}: {error.strerror}; correct the rights of the folder"
        ) from None


def leaf() -> str:
    """The path of a certificate with its key that is good for this machine now, made anew if need be.

    Raises:
        UsageError: the authority's files cannot be read or written.
    """
    now, names = datetime.now(UTC), names_here()
    authority, path = find(now), os.path.join(own_folder(), LEAF)
    try:
        with suppress(FileNotFoundError):
            if authority.fits(Path(path).read_bytes(), names, now):
                return path
        os.makedirs(own_folder(), mode=0o700, exist_ok=True)
        write(path, authority.issue(names, now))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}; correct the rights of its folder"
        ) from None
    return path


def leaf_for(name: str) -> bytes:
    """A certificate, and its key, for a name below `localhost`."""
    now = datetime.now(UTC)
    return find(now).issue(Names((name,)), now)


def write(path: str, content: bytes) -> None:
    """Write a file that is this user's alone, whole or not at all."""
    descriptor, new = tempfile.mkstemp(dir=os.path.dirname(path))  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


def _name(text: str) -> x509.Name:
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "devserver")
    return x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _usage(*, sign: bool, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=certify,
        encipher_only=False,
        decipher_only=False,
    )


def _issued_by(root: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    with suppress(x509.ExtensionNotFound):
        known = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
    key = root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
