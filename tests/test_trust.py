"""Who is this machine's developer, and which pages ask for themselves. No server is needed."""

from __future__ import annotations

import pytest

from devserver.devtools import trust
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
def test_a_unix_socket_has_permissions_of_its_own(client: Address | None) -> None:
    assert trusted(request(client, host="evil.example"))


@pytest.mark.parametrize("client", [LOCAL, ("/run/app.sock", None), None])
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
