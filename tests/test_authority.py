"""The local authority: what it issues, whom it can vouch for, where it lies, and how it comes and goes."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from devserver.cli import main
from devserver.errors import UsageError
from devserver.front import authority, folder, stores, trusting
from devserver.front.authority import Names, find, leaf, names_here
from devserver.front.stores import Folder, Nss, Root
from devserver.front.tls import Contexts
from devserver.https import Tls as Section
from tests.patience import DEADLINE
from tests.raw import serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a user's folder is found otherwise there")


def good(environ: Any, start_response: Any) -> list[bytes]:
    """An application."""
    start_response("200 OK", [("Content-Length", "4")])
    return [b"good"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without anything."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("CAROOT", raising=False)
    return tmp_path


def names_of(path: str) -> x509.SubjectAlternativeName:
    found = x509.load_pem_x509_certificate(Path(path).read_bytes())
    return found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


# what it issues


def test_the_leaf_is_for_this_machine_and_short_lived() -> None:
    path = leaf()
    names = names_of(path)
    assert {"localhost", "*.localhost"} <= set(names.get_values_for_type(x509.DNSName))
    assert {ip_address("127.0.0.1"), ip_address("::1")} <= set(names.get_values_for_type(x509.IPAddress))
    found = x509.load_pem_x509_certificate(Path(path).read_bytes())
    assert found.not_valid_after_utc - datetime.now(UTC) < timedelta(days=8)


def test_files_are_the_users_alone() -> None:
    leaf()
    where = Path(folder.own_folder())
    assert where.stat().st_mode & 0o777 == 0o700
    assert {each.name: each.stat().st_mode & 0o777 for each in where.iterdir()} == {
        "leaf.pem": 0o600,
        "root.pem": 0o600,
        "root-key.pem": 0o600,
    }


def test_the_leaf_is_kept_until_it_has_to_be_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Path(leaf()).read_bytes()
    assert Path(leaf()).read_bytes() == first
    monkeypatch.setattr(authority, "names_here", lambda: Names(("localhost",), (ip_address("10.1.2.3"),)))
    second = Path(leaf()).read_bytes()
    assert second != first
    now, found = datetime.now(UTC), find(datetime.now(UTC))
    names = authority.names_here()
    assert found.fits(second, names, now)
    assert not found.fits(second, names, now + timedelta(days=5, hours=1))  # two days are left
    assert not found.fits(b"nonsense", names, now)


def test_another_root_makes_the_leaf_anew() -> None:
    first = Path(leaf()).read_bytes()
    for name in (authority.ROOT, authority.ROOT_KEY):
        Path(folder.own_folder(), name).unlink()
    assert Path(leaf()).read_bytes() != first


VOUCHED = {
    "localhost": True,
    "shop.localhost": True,
    "printer.lan": True,
    "example.com": False,
    "localhost.example.com": False,
    "192.168.1.7": True,
    "8.8.8.8": False,
}


@pytest.mark.parametrize("name", VOUCHED)
def test_the_root_vouches_for_nobody_elsewhere(name: str, tmp_path: Path) -> None:
    """Whoever steals the key cannot pose as a site of the internet; OpenSSL judges."""
    now = datetime.now(UTC)
    is_address = name[0].isdigit()
    names = Names((name,)) if not is_address else Names(("localhost",), (ip_address(name),))
    (tmp_path / "leaf").write_bytes(find(now).issue(names, now))
    root = os.path.join(folder.own_folder(), authority.ROOT)
    asked = ["-verify_ip" if is_address else "-verify_hostname", name]
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", root, *asked, str(tmp_path / "leaf")],
        capture_output=True,
        check=False,
    )
    assert (done.returncode == 0) is VOUCHED[name], done.stderr


def test_addresses_of_the_internet_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [*map(ip_address, ("192.168.1.7", "93.184.216.34", "fd00::7", "fe80::7"))]
    monkeypatch.setattr(authority, "_addresses", lambda: found)
    monkeypatch.setattr(socket, "gethostname", lambda: "Ann's laptop")  # no name that a certificate can have
    assert names_here() == Names(
        ("localhost", "*.localhost"), tuple(map(ip_address, ("127.0.0.1", "192.168.1.7", "::1", "fd00::7")))
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the ways to the outside are known")
def test_every_interface_has_its_addresses() -> None:
    assert ip_address("127.0.0.1") in set(authority._interfaces())


def test_mkcerts_authority_is_used_where_there_is_one(home: Path) -> None:
    now = datetime.now(UTC)
    find(now)  # any root will do, under mkcert's names
    theirs = Path(folder.mkcert_folder())
    theirs.mkdir(parents=True)
    for ours, name in ((authority.ROOT, "rootCA.pem"), (authority.ROOT_KEY, "rootCA-key.pem")):
        shutil.move(os.path.join(folder.own_folder(), ours), theirs / name)
    assert folder.is_trusted()
    assert find(now).root == x509.load_pem_x509_certificate((theirs / "rootCA.pem").read_bytes())
    said: list[str] = []
    assert trusting.trust(said.append, lambda question: False)
    assert "mkcert -install" in said[0]
    assert not Path(folder.own_folder(), authority.ROOT).exists()


def test_a_broken_authority_is_named() -> None:
    leaf()
    Path(folder.own_folder(), authority.ROOT_KEY).write_text("nonsense")
    with pytest.raises(UsageError, match=r"the authority in .*devserver cannot be used: .*; remove it"):
        find(datetime.now(UTC))


@pytest.mark.skipif(os.name != "posix", reason="rights as bits of a mode")
def test_a_key_that_others_can_read_is_refused() -> None:
    """Whoever has it can pass for any site to a browser that trusts the authority."""
    leaf()
    key = Path(folder.own_folder(), authority.ROOT_KEY)
    for mode in (0o640, 0o604):
        key.chmod(mode)
        with pytest.raises(UsageError, match=rf"can be read by others, .*: chmod 600 {re.escape(str(key))}$"):
            find(datetime.now(UTC))
    key.chmod(0o400)
    find(datetime.now(UTC))


# what is served with it


def test_names_below_localhost_have_certificates_of_their_own() -> None:
    with serving(good, https=True) as server:
        port = int(server.url.rpartition(":")[2])
        context = ssl.create_default_context(cafile=os.path.join(folder.own_folder(), authority.ROOT))
        for name in ("localhost", "shop.localhost", "a.b.localhost", "127.0.0.1"):
            raw = socket.create_connection(("127.0.0.1", port), DEADLINE)
            with context.wrap_socket(raw, server_hostname=name) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert sock.recv(100).startswith(b"HTTP/1.1 200")
        with pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(
                socket.create_connection(("127.0.0.1", port), DEADLINE), server_hostname="shop.example"
            )


def test_a_leaf_is_renewed_while_it_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = Contexts(Section(https=True))
    first = contexts.current()
    assert contexts.current() is first
    monkeypatch.setattr("devserver.front.tls._OFTEN", 0.0)
    monkeypatch.setattr(authority, "names_here", lambda: Names(("localhost",)))
    assert contexts.current().server_cert != first.server_cert


def test_without_its_library_the_option_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "devserver.front.authority")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(UsageError, match=r"pip install 'devserver\[tls\]'"):
        Contexts(Section(https=True))


def test_a_root_and_a_key_of_another_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf()
    folder_of = Path(folder.own_folder())
    other = home / "other"
    monkeypatch.setenv("XDG_DATA_HOME", str(other))
    leaf()
    shutil.copy(other / "devserver" / authority.ROOT, folder_of / authority.ROOT)
    monkeypatch.delenv("XDG_DATA_HOME")
    (folder_of / "leaf.pem").unlink()
    with pytest.raises(UsageError, match="do not belong together; remove it to have a new one"):
        leaf()


# who trusts it


@contextlib.contextmanager
def listing(nss: Path) -> Iterator[list[str]]:
    done = subprocess.run(["certutil", "-L", "-d", f"sql:{nss}"], capture_output=True, text=True, check=True)
    yield [line for line in done.stdout.splitlines() if "devserver" in line]


needs_certutil = pytest.mark.skipif(
    shutil.which("certutil") is None, reason="certutil of NSS is not installed"
)


@needs_certutil
def test_trust_and_untrust_leave_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    system, profile = home / "system", home / ".mozilla/firefox/x.default"
    for each in (system, profile):
        each.mkdir(parents=True)
    subprocess.run(["certutil", "-N", "--empty-password", "-d", f"sql:{profile}"], check=True)
    monkeypatch.setattr(stores, "_FOLDERS", ((str(system), ("true",)),))
    monkeypatch.setattr(stores, "_as_root", list)
    before = {each for each in home.rglob("*") if each.is_file()}

    with pytest.raises(SystemExit) as ended:
        main(["trust", "--yes"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for whose in ("the system's store", "Chromium", "Firefox, profile x.default"):
        assert f"done: {whose}\n" in told
    [crt] = system.iterdir()
    assert crt.read_text() == Path(folder.own_folder(), authority.ROOT).read_text()
    for nss in (profile, home / ".pki/nssdb"):
        with listing(nss) as lines:
            assert "C,," in lines[0]
    assert folder.is_trusted()

    with pytest.raises(SystemExit):
        main(["untrust", "--yes"])
    assert "removed: Chromium\n" in capsys.readouterr().out
    assert {each for each in home.rglob("*") if each.is_file()} == before
    assert not (home / ".pki").exists()
    with listing(profile) as lines:
        assert lines == []
    assert not folder.is_trusted()


def test_what_could_not_be_done_is_said_and_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stores, "_FOLDERS", ((str(home), ("false",)),))
    monkeypatch.setattr(stores, "_as_root", list)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for command in ("trust", "untrust"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--yes"])
        told = capsys.readouterr().out
        assert ended.value.code == 1
        assert "could not: the system's store: false: exit code 1\n" in told
    assert "The authority is left in" in told


@needs_certutil
def test_a_database_of_ours_that_somebody_has_used_since_is_left(home: Path) -> None:
    now = datetime.now(UTC)
    root = find(now).root.public_bytes(serialization.Encoding.PEM)
    (home / "root").write_bytes(root)
    store, nss = Nss(str(home / "nssdb"), "Chromium"), f"sql:{home / 'nssdb'}"
    store.install(Root(str(home / "root"), "ours"))
    other = find(now).issue(Names(("localhost",)), now)
    (home / "other").write_bytes(other)
    subprocess.run(["certutil", "-A", "-d", nss, "-n", "other", "-t", ",,", "-i", home / "other"], check=True)
    assert store.remove(Root(str(home / "root"), "ours"))
    assert not store.remove(Root(str(home / "root"), "ours"))
    assert (home / "nssdb" / "cert9.db").exists()


def test_a_folder_of_the_system_is_written_by_its_programs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_as_root", list)
    (home / "root").write_text("PEM")
    store = Folder(str(home), ("true",))
    assert not store.remove(Root(str(home / "root"), "a b"))
    store.install(Root(str(home / "root"), "a b"))
    assert (home / "a-b.crt").read_text() == "PEM"
    assert store.remove(Root(str(home / "root"), "a b"))
    assert not (home / "a-b.crt").exists()


@pytest.mark.parametrize("command", ["trust", "untrust"])
def test_nothing_is_done_unasked(command: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaf()
    before = sorted(home.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main([command])  # where nobody can answer
    assert ended.value.code == 2
    assert f"devserver {command} asks first" in capsys.readouterr().err
    said: list[str] = []
    assert not getattr(trusting, command)(said.append, lambda question: False)
    assert said[-1] == "Nothing was changed."
    assert sorted(home.rglob("*")) == before


def test_a_module_of_a_commands_name_has_another_way(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["trust", "--reload"])
    assert "to serve a module trust write devserver trust:app" in capsys.readouterr().err


def test_plain_http_is_served_without_any_of_it(home: Path) -> None:
    with (
        serving(good) as server,
        contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]), timeout=DEADLINE)
        ) as connection,
    ):
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
    assert not any(home.iterdir())


@pytest.mark.parametrize("command", ["trust", "untrust"])
def test_the_commands_have_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"Usage: devserver {command} [--yes]\n")


@pytest.mark.parametrize("command", ["trust", "untrust"])
def test_the_commands_name_the_extra_that_is_missing(command: str) -> None:
    """In an interpreter of its own: it must not have imported the package."""
    program = (
        f"import sys; sys.modules['cryptography'] = None; from devserver.cli import main; main(['{command}'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 2
    assert done.stderr.endswith("pip install 'devserver[tls]'; or give --ssl-certfile\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("host", "can"),
    [
        ("192.168.1.5", True),
        ("100.64.0.1", True),
        ("fd00::1", True),
        ("203.0.113.5", False),
        ("2001:db8::1", False),
    ],
)
def test_the_authority_vouches_for_private_addresses_alone(host: str, can: bool) -> None:
    assert folder.can_vouch(host) == can
