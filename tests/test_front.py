"""HTTPS in the process that serves: faults of certificates, what applications are told, who speaks no TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.client

import devserver
from devserver.cli import explain_config
from devserver.config import resolve
from devserver.errors import UsageError
from devserver.front import certificate, letter, plain
from devserver.front.tls import Contexts
from devserver.gateway import tls as told
from devserver.http import line
from devserver.http.exchange import Peer, Tls
from devserver.https import Tls as Section
from tests.certificates import Certificates
from tests.patience import DEADLINE
from tests.raw import serving


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def tells(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with its scope, and with what was sent to it."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["scheme"]})
        await receive()
        return
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    about = {name: scope[name] for name in ("scheme", "client", "server", "extensions")}
    text = json.dumps({**about, "size": len(body)}).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]}
    )
    await send({"type": "http.response.body", "body": text})


def tells_environ(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The same of WSGI."""
    text = json.dumps({key: value for key, value in environ.items() if isinstance(value, str)}).encode()
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]


@contextlib.contextmanager
def client(server: devserver.Server, context: ssl.SSLContext) -> Iterator[http.client.HTTPSConnection]:
    port = int(server.url.rpartition(":")[2])
    with contextlib.closing(
        http.client.HTTPSConnection("localhost", port, context=context, timeout=DEADLINE)
    ) as connection:
        yield connection


def ask(connection: http.client.HTTPConnection, method: str = "GET", body: bytes | None = None) -> Any:
    connection.request(method, "/", body)
    return json.loads(connection.getresponse().read())


# what is wrong with a certificate


FAULTS = {
    "not there any more": ("missing.pem", None, {}, r"missing\.pem cannot be read: No such file"),
    "no certificate in it": ("server.key", None, {}, r"server\.key holds no certificate"),
    "cut short": ("broken.pem", None, {}, r"broken\.pem holds a certificate that cannot be read"),
    "no key in it": (
        "server.pem",
        None,
        {},
        r"server\.pem holds no private key: name the key's file by --ssl-keyfile",
    ),
    "key of another": (
        "server.pem",
        "other.key",
        {},
        r"other\.key does not fit the certificate in .*server\.pem",
    ),
    "expired": ("expired.pem", "expired.key", {}, r"expired\.pem expired at \d{4}-.*; renew it"),
    "not yet valid": (
        "early.pem",
        "early.key",
        {},
        r"early\.pem is not valid yet, only from .* on; the clock says",
    ),
    "password missing": (
        "server.pem",
        "locked.key",
        {},
        r"locked\.key is encrypted: give --ssl-keyfile-password",
    ),
    "password wrong": (
        "server.pem",
        "locked.key",
        {"keyfile_password": "no"},
        r"--ssl-keyfile-password does not open .*locked\.key",
    ),
    "ciphers": (
        "server.pem",
        "server.key",
        {"ciphers": "NONE"},
        r"--ssl-ciphers NONE: OpenSSL knows none of them",
    ),
    "authorities": (
        "server.pem",
        "server.key",
        {"ca_certs": "other.key"},
        r"--ssl-ca-certs .*other\.key holds no",
    ),
}


@pytest.fixture(scope="module")
def faulty(certificates: Certificates) -> Path:
    """A folder of files that do not fit."""
    folder = certificates.folder
    certificates.issue("other")
    certificates.issue("expired", days=(-30, -1))
    certificates.issue("early", days=(2, 30))
    text = (folder / "server.pem").read_text()
    (folder / "broken.pem").write_text(text[:100] + "\n-----END CERTIFICATE-----\n")
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", "server.key", "-out", "locked.key", "-passout", "pass:yes"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_certificate_is_said(faulty: Path, fault: str) -> None:
    certfile, keyfile, more, message = FAULTS[fault]
    paths = {key: str(faulty / value) if key == "ca_certs" else value for key, value in more.items()}
    options = {"certfile": str(faulty / certfile), "keyfile": keyfile and str(faulty / keyfile), **paths}
    with pytest.raises(UsageError, match=message):
        Contexts(Section(**options))  # type: ignore[arg-type]


def test_a_password_opens_a_key(faulty: Path) -> None:
    certfile, keyfile = str(faulty / "server.pem"), str(faulty / "locked.key")
    assert Contexts(Section(certfile=certfile, keyfile=keyfile, keyfile_password="yes")).current()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(faulty: Path) -> None:
    (faulty / "secret.key").touch(0o000)
    with pytest.raises(UsageError, match=r"secret\.key cannot be read: Permission denied"):
        certificate.check_key(str(faulty / "secret.key"), None)


def test_validity_is_read_off_both_forms_of_time(certificates: Certificates) -> None:
    certfile, _ = certificates.issue("long", days=(-1, 40000))  # beyond 2049: GeneralizedTime
    der = ssl.PEM_cert_to_DER_cert(
        certfile.read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
    )
    begins, ends = certificate.validity(der)
    now = datetime.now(UTC)
    assert timedelta(hours=23) < now - begins < timedelta(hours=25)
    assert timedelta(days=39998) < ends - now < timedelta(days=40001)


def test_a_renewed_certificate_is_taken_for_new_connections(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    certfile, keyfile = certificates.issue("renewed")
    with (
        serving(tells, ssl_certfile=str(certfile), ssl_keyfile=str(keyfile)) as server,
        client(server, certificates.client()) as first,
    ):
        before = ask(first)["extensions"]["tls"]["server_cert"]
        whole = certfile.read_bytes()
        certfile.write_bytes(whole[:200])  # half-written: what was read before stays
        with client(server, certificates.client()) as meanwhile:
            assert ask(meanwhile)["extensions"]["tls"]["server_cert"] == before
        assert "the certificate that was read before stays in use" in caplog.text
        certificates.issue("renewed")
        with client(server, certificates.client()) as second:
            assert ask(second)["extensions"]["tls"]["server_cert"] != before
        assert ask(first)["extensions"]["tls"]["server_cert"] == before


# what applications are told


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_asgi_application_is_told_of_tls(certificates: Certificates, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    with serving(tells, loop=loop, **certificates.options) as server:
        assert server.url.startswith("https://")
        with client(server, certificates.client()) as connection:
            scope = ask(connection)
            assert connection.sock.selected_alpn_protocol() is None  # http.client offers none
    about = scope["extensions"]["tls"]
    assert scope["scheme"] == "https"
    assert scope["client"][0] == "127.0.0.1"
    assert about["tls_version"] == 0x0304
    assert about["cipher_suite"] in (0x1301, 0x1302, 0x1303)
    assert about["server_cert"] in certificates.certfile.read_text()
    assert about["client_cert_chain"] == []
    assert about["client_cert_name"] is None


def test_without_tls_there_is_no_extension() -> None:
    with (
        serving(tells) as server,
        contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]), timeout=DEADLINE)
        ) as connection,
    ):
        scope = ask(connection)
    assert scope["scheme"] == "http"
    assert "tls" not in scope["extensions"]


def test_a_wsgi_application_is_told_of_tls_and_of_the_client(certificates: Certificates) -> None:
    pair = certificates.issue("ann", "ann@example.com")
    options = {**certificates.options, "ssl_ca_certs": str(certificates.root), "ssl_cert_reqs": "optional"}
    with serving(tells_environ, **options) as server:
        with client(server, certificates.client(pair)) as connection:
            known = ask(connection)
        with client(server, certificates.client()) as connection:
            unknown = ask(connection)
    assert known["wsgi.url_scheme"] == "https"
    assert known["HTTPS"] == "on"
    assert known["SSL_PROTOCOL"] == "TLSv1.3"
    assert known["SSL_TLS_SNI"] == "localhost"
    assert known["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert known["SSL_CLIENT_S_DN_CN"] == "ann"
    assert known["SSL_CLIENT_S_DN"].startswith("CN=ann,")
    assert known["SSL_CLIENT_CERT"] in pair[0].read_text()
    assert unknown["SSL_CLIENT_VERIFY"] == "NONE"
    assert not any(name.startswith("SSL_CLIENT_S") for name in unknown)


def test_a_client_without_the_certificate_that_is_required_is_not_served(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**certificates.options, "ssl_ca_certs": str(certificates.root), "ssl_cert_reqs": "required"}
    with serving(tells, **options) as server:
        with client(server, certificates.client()) as connection, pytest.raises((ssl.SSLError, OSError)):
            ask(connection)
        with client(server, certificates.client(certificates.issue("bob"))) as connection:
            assert ask(connection)["extensions"]["tls"]["client_cert_name"].startswith("CN=bob,")
    [line] = [record.getMessage() for record in caplog.records if "certificate" in record.getMessage()]
    assert line.startswith("refused 127.0.0.1:")
    assert "no certificate was sent; --ssl-ca-certs" in line


def test_a_client_with_a_certificate_of_others_is_named(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    own = certificates.options["ssl_certfile"]  # has issued nothing
    options = {**certificates.options, "ssl_ca_certs": own, "ssl_cert_reqs": "required"}
    with (
        serving(tells, **options) as server,
        client(server, certificates.client(certificates.issue("bob"))) as connection,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        ask(connection)
    assert re.search(r"refused 127.0.0.1:\d+ for its certificate: .+; --ssl-ca-certs", caplog.text)


def test_versions_below_the_lowest_are_refused(certificates: Certificates) -> None:
    old = certificates.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(tells, ssl_version="1.3", **certificates.options) as server:
        with client(server, old) as connection, pytest.raises(ssl.SSLError):
            ask(connection)
        with client(server, certificates.client()) as connection:
            assert ask(connection)["scheme"] == "https"


NAMES = {
    "plain": ([[("countryName", "DE")], [("commonName", "ann")]], "CN=ann,C=DE"),
    "several in one": ([[("commonName", "ann"), ("userId", "7")]], "CN=ann+UID=7"),
    "escaped": ([[("commonName", ' a+b,"c"; ')]], r"CN=\ a\+b\,\"c\"\;\ "),
    "number sign": ([[("organizationName", "#1")]], r"O=\#1"),
    "no short name": ([[("dnQualifier", "x")]], "dnQualifier=x"),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_are_written_as_rfc_4514_says(case: str) -> None:
    name, text = NAMES[case]
    tls = Tls("TLSv1.2", "x", None, 128, client_chain=["PEM"], client={"subject": name})
    assert told.extension(tls)["client_cert_name"] == text
    assert told.environ(tls)["SSL_CLIENT_S_DN"] == text


# letters


def test_a_letter_says_everything_again() -> None:
    tls = Tls(
        "TLSv1.3", "x", 0x1301, 128, "localhost", True, "PEM", ["a"], {"subject": [[["commonName", "b"]]]}
    )
    for peer in (Peer(("::1", 5), ("::1", 443), "https", tls=tls), Peer(scheme="https")):
        text = letter.write(peer)
        assert letter.length(text + b"GET /") == len(text)
        about, rest = letter.take(text + b"GET /")
        assert rest == b"GET /"
        assert about.letter == text
        about.letter = b""
        assert about == peer


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n", b"\0TLS", b"\0TLS\0\0\0\x09{}"])
def test_what_is_no_letter_is_not_taken_for_one(data: bytes) -> None:
    with pytest.raises(ValueError, match="letter"):
        letter.take(data)


# what comes in plain text


ANSWERS = {
    "a page": (
        b"GET /a?b HTTP/1.1\r\nHost: localhost:8000\r\n\r\n",
        b"307",
        b"Location: https://localhost:8000/a?b\r\n",
    ),
    "an address": (
        b"HEAD / HTTP/1.0\r\nHost: [::1]:8000\r\n\r\n",
        b"307",
        b"Location: https://[::1]:8000/\r\n",
    ),
    "a form": (b"POST /a HTTP/1.1\r\nHost: a\r\n\r\n", b"400", b"this port speaks HTTPS: use https://a/a\n"),
    "a WebSocket": (
        b"GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        b"400",
        b"use https://a/a\n",
    ),
    "no host": (b"GET /a HTTP/1.1\r\n\r\n", b"400", b"ask with https://\n"),
    "a bad host": (b"GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n", b"400", b"ask with https://\n"),
    "a bad target": (b"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", b"400", b"ask with https://\n"),
    "everything": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"400", b"use https://a\n"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_plain_http_is_answered(case: str) -> None:
    head, status, part = ANSWERS[case]
    answer = plain.answer(head)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert part in answer


def test_plain_http_and_garbage_on_the_port_of_https(certificates: Certificates) -> None:
    with serving(tells, **certificates.options) as server:
        port = int(server.url.rpartition(":")[2])
        for data, found in (
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 307"),
            (b"\x80\x01\0", b""),
        ):
            with socket.create_connection(("127.0.0.1", port), DEADLINE) as sock:
                sock.sendall(data)
                got = b""
                with contextlib.suppress(ConnectionResetError):  # garbage stays unread
                    while part := sock.recv(4096):
                        got += part
            assert got.startswith(found)
            assert bool(got) == bool(found)


def test_handshakes_that_never_end_hold_up_neither_others_nor_the_end(certificates: Certificates) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(tells, **certificates.options))
        port = int(server.url.rpartition(":")[2])
        for n in range(100):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE))
            sock.sendall(b"\x16\x03\x01\x02\x00"[: n % 6])
        with client(server, certificates.client()) as connection:
            assert ask(connection)["scheme"] == "https"
        server.stop()  # returns, although they are open


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_end_waits_neither_for_farewells_nor_cuts_what_is_slow(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    monkeypatch.setattr(line, "SILENCE", 0.001)
    monkeypatch.setattr(line, "HURRY", 0.001)
    size = 3_000_000

    def much(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(size))])
        return [bytes(size)]

    with (
        serving(much, loop=loop, timeout_graceful_shutdown=10 * DEADLINE, **certificates.options) as server,
        client(server, certificates.client()) as idle,
    ):
        ask_for_nothing(idle)
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that the rest waits at the server
        raw.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        with certificates.client().wrap_socket(raw, server_hostname="localhost") as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            got, stopping = 0, threading.Thread(target=server.stop)
            while data := slow.recv(1000):
                if not got:
                    stopping.start()
                got += len(data)
            assert got > size
        stopping.join(DEADLINE)  # although `idle` never says farewell
        assert not stopping.is_alive()


def ask_for_nothing(connection: http.client.HTTPConnection) -> None:
    connection.request("HEAD", "/")
    connection.getresponse().read()


def test_a_large_body_and_a_websocket(certificates: Certificates, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tells, **certificates.options) as server, caplog.at_level(logging.WARNING):
        with client(server, certificates.client()) as connection:
            assert ask(connection, "POST", b"x" * 3_000_000)["size"] == 3_000_000
            assert ask(connection)["size"] == 0
        url = server.url.replace("https", "wss").replace("127.0.0.1", "localhost")
        with websockets.sync.client.connect(url, ssl=certificates.client(), proxy=None) as socket_:
            assert socket_.recv(DEADLINE) == "wss"
    assert not caplog.text


# options


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("ssl_cert_reqs", "2", "required"),
        ("ssl_cert_reqs", ssl.CERT_OPTIONAL, "optional"),
        ("ssl_cert_reqs", "None", "none"),
        ("ssl_version", "TLSv1.3", "1.3"),
        ("ssl_version", ssl.PROTOCOL_TLS_SERVER, None),
        ("ssl_version", "17", None),
        ("ssl_version", "1.2", "1.2"),
    ],
)
def test_values_are_taken_as_uvicorn_takes_them(
    certificates: Certificates, name: str, given: Any, value: str | None
) -> None:
    authorities = {"ssl_ca_certs": str(certificates.root)}
    options: Any = {**certificates.options, **authorities, name: given}
    config = devserver.Config("app", **options)
    assert config.value(name) == value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ssl_version": "1.1"}, "must be auto, 1.2 or 1.3"),
        ({"ssl_cert_reqs": "3"}, "must be none, optional or required"),
        ({"ssl_keyfile": __file__}, "--ssl-keyfile says nothing by itself: give --ssl-certfile, too"),
        ({"ssl_certfile": __file__, "ssl_cert_reqs": 2}, "give --ssl-ca-certs, too"),
        ({"https": True, "proxy_protocol": True}, "--proxy-protocol and HTTPS exclude each other"),
    ],
)
def test_options_that_cannot_be_used(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        devserver.Config("app", **options)


def test_the_password_is_not_shown(certificates: Certificates) -> None:
    options: Any = {**certificates.options, "ssl_keyfile_password": "very secret"}
    config = devserver.Config("app", **options)
    assert "very secret" not in explain_config(config)


def test_whoever_ends_tls_keeps_its_options(certificates: Certificates, tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(f'[tool.devserver]\nssl-certfile = "{certificates.certfile}"\nlog-level = "debug"\n')
    config = resolve({}, {}, tmp_path)
    assert config.tls.enabled
    file.write_text("[tool.devserver]\n")
    again = config.reread()
    assert again.log.level == "info"
    assert again.tls == config.tls
