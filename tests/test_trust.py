"""Who is this machine's developer, and which pages ask for themselves. No server is needed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from devserver.devtools import trust
from devserver.devtools.neighbour import Neighbour, asks_for_others, judged, look
from devserver.devtools.trust import own, trusted
from devserver.http.exchange import Address
from tests.strangers import LOCAL, request


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST:8000", "localhost.", "shop.localhost", "127.0.0.1:1", "[::1]:8000",
        "10.1.2.3", "", None,
    ],
)  # fmt: skip
def test_this_machine_is_trusted(host: str | None) -> None:
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert trusted(request((address, 50000), host=host))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "a b"]
)
def test_a_name_that_others_control_is_not_trusted(host: str) -> None:
    assert not trusted(request(host=host))


@pytest.mark.parametrize(
    "address", ["192.168.1.2", "10.0.0.1", "fe80::1%eth0", "::ffff:10.0.0.1", "nonsense"]
)
def test_another_machine_is_not_trusted(address: str) -> None:
    assert not trusted(request((address, 50000)))


@pytest.mark.parametrize("client", [("/run/app.sock", None), None])
def test_whoever_connects_to_a_unix_socket_is_a_proxy(client: Address | None) -> None:
    assert not trusted(request(client))


def test_a_proxy_that_speaks_an_old_version_is_not_trusted() -> None:
    asked = request()
    asked.version = "1.0"
    assert not trusted(asked)


def test_a_client_that_a_proxy_has_told_is_not_trusted() -> None:
    """Believed or not, and by whatever way it was told."""
    asked = request()
    asked.peer.is_proxied = True
    assert not trusted(asked)


DAEMON, PERSON, OTHER = 33, 1000, 1001


@pytest.mark.parametrize(
    ("neighbour", "own", "asks"),
    [
        (Neighbour(PERSON, "firefox"), PERSON, False),
        (Neighbour(PERSON, "sshd"), PERSON, False),
        (Neighbour(PERSON), 0, False),  # a browser, and devserver with sudo
        (Neighbour(0), PERSON, False),
        (Neighbour(OTHER), PERSON, False),
        (Neighbour(DAEMON), PERSON, True),
        (Neighbour(DAEMON), 0, True),
        (Neighbour(65534), PERSON, True),
        (Neighbour(DAEMON, "curl"), DAEMON, False),
        (Neighbour(PERSON, "nginx", True), PERSON, True),
        (Neighbour(PERSON, "ssh"), PERSON, True),
        (Neighbour(PERSON, "socat"), PERSON, True),
    ],
)
def test_who_asks_for_others(neighbour: Neighbour, own: int, asks: bool) -> None:
    assert judged(neighbour, own) is asks


CONNECTS = """
import socket, sys
listener = socket.create_server((sys.argv[2], 0)) if sys.argv[2] else None
sock = socket.create_connection((sys.argv[1], int(sys.argv[3])))
print(*sock.getsockname()[:2], flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "dual"])
@pytest.mark.parametrize("listens", ["", "127.0.0.1", "0.0.0.0"])
def test_a_neighbour_is_found(host: str, listens: str) -> None:
    family = socket.AF_INET if host == "127.0.0.1" else socket.AF_INET6
    address = "::" if host == "dual" else host
    with socket.create_server((address, 0), family=family, dualstack_ipv6=host == "dual") as listener:
        to = "127.0.0.1" if host == "dual" else host
        program = [sys.executable, "-c", CONNECTS, to, listens, str(listener.getsockname()[1])]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            accepted, client = listener.accept()
            with accepted:
                found = look(client[:2], accepted.getsockname()[:2])
            assert found is not None
            assert found.uid == os.getuid()
            assert found.is_reachable is (listens == "0.0.0.0")
            assert "python" in found.name
            process.communicate()


def test_a_neighbour_that_is_not_here_is_not_found() -> None:
    assert look(("203.0.113.7", 1), ("127.0.0.1", 2)) is None
    assert look(("nonsense", 1), ("127.0.0.1", 2)) is None
    assert not asks_for_others(("203.0.113.7", 1), None)


@pytest.mark.parametrize("client", [LOCAL, ("::1", 5)])
@pytest.mark.parametrize(
    "header",
    [
        "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix",
        "x-real-ip", "via", "cf-connecting-ip", "cf-ray", "x-original-host", "x-original-url",
        "true-client-ip", "fly-client-ip", "x-client-ip", "cdn-loop",
    ],
)  # fmt: skip
def test_whom_a_proxy_asks_for_is_not_trusted(header: str, client: Address | None) -> None:
    """It has this machine's address, and may have rewritten the host."""
    assert not trusted(request(client, header=header))


@pytest.mark.parametrize("header", ["accept-via", "x-forward", "x-requested-with", "client", "x-viable"])
def test_other_headers_change_nothing(header: str) -> None:
    assert trusted(request(header=header))


def test_the_gateway_of_a_container_is_the_machine_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_container_gateway", lambda: "172.17.0.1")
    assert trusted(request(("172.17.0.1", 50000)))
    assert not trusted(request(("172.17.0.2", 50000)))
    assert not trusted(request(("172.17.0.1", 50000), host="evil.example"))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("LOCALHOST:8000", "http://localhost:8000"),
        ("localhost:8000", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000", "http://[::1]:8000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("shop.localhost:8000", "http://shop.localhost:8000"),
        ("10.1.2.3:8000", "http://10.1.2.3:8000"),
    ],
)
def test_a_page_of_this_server_is_its_own(host: str, origin: str) -> None:
    assert own(request(host=host, origin=origin))


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "http://evil.example", "http://evil.example:8000", "http://192.0.2.7", "http://192.0.2.7:8000",
        "http://localhost:3000", "http://localhost", "https://localhost:8000", "http://shop.localhost:8000",
        "http://localhost:8000.evil.example", "http://localhost:8000@evil.example", "localhost:8000",
        "http://[", "%", "http://a:b:c", "http://localhost:8000/", "http://localhost:8000, null", "file://",
        "http://localhost:", "http://local\xe9host:8000", "h" * 65536,
    ],
)  # fmt: skip
def test_a_page_of_another_site_is_not(origin: str) -> None:
    assert not own(request(host="localhost:8000", origin=origin))


def test_two_origins_are_none_of_ours() -> None:
    asked = request(host="localhost:8000", origin="http://localhost:8000")
    asked.headers.append((b"origin", b"http://localhost:8000"))
    assert not own(asked)


@pytest.mark.parametrize(
    ("site", "ours"),
    [
        (None, True),
        ("same-origin", True),
        ("none", True),
        ("same-site", False),
        ("cross-site", False),
        ("", False),
    ],
)
def test_a_browser_says_from_which_site_it_asks(site: str | None, ours: bool) -> None:
    assert own(request(host="localhost:8000", site=site)) is ours
