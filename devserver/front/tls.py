"""TLS contexts: made from the options, made anew when their files change, and what a session has found out.

A certificate that is renewed is taken for the connections that come after, without a restart: the files are
looked at before each handshake, which costs a few microseconds. Files that do not fit, as while one of two is
written, change nothing; then what was read before stays.

Python's `ssl` is used. pyOpenSSL would bring a second OpenSSL into the process, and asyncio could not use it.
"""

from __future__ import annotations

import logging
import os
import ssl
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from devserver.errors import UsageError
from devserver.front import certificate
from devserver.http.exchange import Tls
from devserver.http.peer import address, show
from devserver.http.repeats import Repeats
from devserver.https import Tls as Section

logger = logging.getLogger("devserver")

_NONE_SENT = "PEER_DID_NOT_RETURN_A_CERTIFICATE"
"""What OpenSSL calls the reason for which a client without a certificate is refused."""

HTTP1, HTTP2 = "http/1.1", "h2"
"""Protocols as ALPN names them (RFC 7301)."""

_NAME = "_devserver_name"
"""Attribute of a session: the name that its client has asked for."""

_OFTEN = 60.0
"""Seconds between two looks whether our own certificate is still good."""

_MOST = 100
"""Names below `localhost` whose certificates are kept."""

_REQUIREMENTS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_LOWEST = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Context(ssl.SSLContext):
    """A context that knows what its sessions are to tell.

    Attributes:
        server_cert: the certificate that clients are shown, PEM.
        suites: the numbers of cipher suites by their names.
    """

    server_cert: str
    suites: dict[str, int]


class Contexts:
    """The context of a server, as its files are now."""

    def __init__(self, section: Section, http2: bool = False) -> None:
        """
        Args:
            http2: whether HTTP/2 is offered to clients.

        Raises:
            UsageError: a file or an option cannot be used; the message names it.
        """
        self._section = section
        self._http2 = http2
        self._is_ours = section.certfile is None
        self._looked = 0.0
        self._below: dict[str, Context] = {}
        self._renew()
        self._seen = self._look()
        self._context = self._make(self._section)

    def current(self) -> Context:
        """The context for a connection that begins now."""
        try:
            self._renew()
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._context = self._make(self._section)
                self._below.clear()
                logger.info("the certificate in %s was renewed", self._section.certfile)
        except UsageError as error:
            logger.warning("%s; the certificate that was read before stays in use", error)
        return self._context

    def _renew(self) -> None:
        """Have our own certificate made anew in time, and when this machine gets other addresses."""
        now = time.monotonic()
        if self._is_ours and (not self._looked or now - self._looked > _OFTEN):
            from devserver.front.authority import leaf

            self._looked = now
            self._section = replace(self._section, certfile=leaf(), keyfile=None)

    def _make(self, section: Section) -> Context:
        context = make(section, self._http2)
        context.sni_callback = self._asked_for
        return context

    def _asked_for(self, session: Any, name: str | None, context: ssl.SSLContext) -> None:
        """A client has said which name it wants."""
        setattr(session, _NAME, name)  # the session itself does not keep it
        if self._is_ours and name is not None:
            from devserver.front.authority import is_below_localhost

            if is_below_localhost(name.lower()):
                try:
                    session.context = self._context_below(name.lower())
                except (UsageError, OSError) as error:
                    logger.warning("no certificate for %s: %s", name, error)

    def _context_below(self, name: str) -> Context:
        found = self._below.get(name)
        if found is None:
            from devserver.front.authority import leaf_for

            if len(self._below) >= _MOST:
                self._below.clear()
            with tempfile.TemporaryDirectory() as folder:  # this user's alone; OpenSSL takes files
                path = os.path.join(folder, "leaf.pem")
                with open(path, "wb") as file:
                    file.write(leaf_for(name))
                found = self._below[name] = make(replace(self._section, certfile=path), self._http2)
        return found

    def _look(self) -> list[tuple[int, int, int]]:
        """Something that changes when a file does."""
        found = []
        section = self._section
        for path in filter(None, (section.certfile, section.keyfile, section.ca_certs)):
            try:
                status = os.stat(path)
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return found


def make(section: Section, http2: bool) -> Context:
    """A context as the options say.

    Args:
        http2: whether HTTP/2 is offered to clients.

    Raises:
        UsageError: a file or an option cannot be used; the message names it.
    """
    assert section.certfile is not None
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.server_cert = certificate.check(section.certfile, datetime.now(UTC))
    _load(context, section.certfile, section.keyfile, section.keyfile_password)
    _ask_clients(context, section)
    if section.version is not None:
        context.minimum_version = _LOWEST[section.version]
    if section.ciphers is not None:
        try:
            context.set_ciphers(section.ciphers)
        except ssl.SSLError:
            raise UsageError(
                f"--ssl-ciphers {section.ciphers}: OpenSSL knows none of them; openssl ciphers lists its own"
            ) from None
    context.set_alpn_protocols([HTTP2, HTTP1] if http2 else [HTTP1])  # the best first
    context.suites = {str(each["name"]): int(each["id"]) & 0xFFFF for each in context.get_ciphers()}
    return context


def _load(context: ssl.SSLContext, certfile: str, keyfile: str | None, password: str | None) -> None:
    key = keyfile or certfile
    certificate.check_key(key, password)
    try:
        # Never without a password: OpenSSL would ask for it on the terminal.
        context.load_cert_chain(certfile, key, password or "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(
                f"the private key in {key} does not fit the certificate in {certfile}:"
                " name the key that it was made with"
            ) from None
        if password is not None and error.reason in (None, "BAD_DECRYPT", "PEM_LIB", "CIPHERFINAL_ERROR"):
            raise UsageError(f"--ssl-keyfile-password does not open the private key in {key}") from None
        raise UsageError(
            f"OpenSSL cannot use {certfile} with the key in {key}: {error.reason or error}"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{certfile} with the key in {key} cannot be used: {error}") from None


def _ask_clients(context: ssl.SSLContext, section: Section) -> None:
    if section.ca_certs is None:
        return
    certificate.blocks(section.ca_certs, "--ssl-ca-certs")
    try:
        context.load_verify_locations(section.ca_certs)
    except ssl.SSLError:
        raise UsageError(
            f"--ssl-ca-certs {section.ca_certs} holds no certificate of an authority, PEM"
        ) from None
    context.verify_mode = _REQUIREMENTS[section.cert_reqs]


def describe(session: ssl.SSLObject | ssl.SSLSocket) -> Tls:
    """What a session has found out, when its handshake is over."""
    name, _, bits = session.cipher() or ("", "", 0)
    context = session.context
    suites = context.suites if isinstance(context, Context) else {}
    return Tls(
        version=session.version() or "",
        cipher=name,
        cipher_suite=suites.get(name),
        bits=bits,
        server_name=getattr(session, _NAME, None),
        resumed=bool(session.session_reused),
        server_cert=context.server_cert if isinstance(context, Context) else None,
        client_chain=_chain(session),
        client=dict(session.getpeercert() or {}),
    )


def _chain(session: ssl.SSLObject | ssl.SSLSocket) -> list[str]:
    own = session.getpeercert(True)
    if own is None:
        return []
    whole = getattr(session, "get_unverified_chain", None)  # from Python 3.13 on
    return [ssl.DER_cert_to_PEM_cert(der) for der in (whole() if whole is not None else [own])]


_refused = Repeats()


def tell_failed(client: object, error: Exception) -> None:
    """Say that a handshake has failed: aloud if it was for the client's certificate.

    Args:
        client: the name of the client's end of the socket.
    """
    what = "no certificate was sent" if getattr(error, "reason", "") == _NONE_SENT else ""
    if isinstance(error, ssl.SSLCertVerificationError):
        what = error.verify_message
    who = show(address(client))
    more = _refused.another("", time.monotonic()) if what else None
    if more is not None:
        logger.warning(
            "refused %s for its certificate: %s; --ssl-ca-certs has the authorities that are taken%s",
            who,
            what,
            more,
        )
    else:
        logger.debug("no TLS with %s: %s", who, error)
