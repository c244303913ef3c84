"""Listening sockets, with real ones: every way to say where, and every way to be wrong."""

import contextlib
import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from devserver import listeners
from devserver.config import Bind
from devserver.errors import BindError, DevserverError, UsageError
from devserver.listeners import Listeners, bind, holder_of
from tests.patience import DEADLINE

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets, no passed descriptors")


PRELUDE = """
import os, socket, sys
from contextlib import closing
from devserver.config import Bind
from devserver.errors import DevserverError
from devserver.listeners import bind
"""


def has_ipv6() -> bool:
    """Whether ::1 can be bound to here."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


def bound(section: Bind) -> contextlib.closing[Listeners]:
    """`bind`, closed at the end of the block."""
    return contextlib.closing(bind(section))


def refused(section: Bind, kind: type[DevserverError] = BindError) -> str:
    """The message with which these options are refused."""
    with pytest.raises(kind) as caught:
        bind(section)
    return str(caught.value)


def addresses(found: Listeners) -> list[tuple[str, int]]:
    """Host and port of each socket."""
    return [sock.getsockname()[:2] for sock in found.sockets]


@contextlib.contextmanager
def busy(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port that somebody listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as sock:
        yield sock.getsockname()[1]


def free_port() -> int:
    """A port that was free on both loopbacks a moment ago."""
    with bound(Bind(port=0)) as found:
        return addresses(found)[0][1]


def program(
    text: str, *arguments: str, under: Sequence[str] = (), passed: Sequence[socket.socket] = ()
) -> list[str]:
    """Run a program with the names of `PRELUDE` at hand; the lines that it prints.

    A socket that it leaves open is an error: Python says so on stderr.

    Args:
        arguments: its own.
        under: a command that runs it.
        passed: sockets that it inherits.
    """
    run = subprocess.run(
        [*under, sys.executable, "-W", "error", "-X", "dev", "-c", PRELUDE + text, *arguments],
        pass_fds=[sock.fileno() for sock in passed],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (run.stderr, run.returncode) == ("", 0)
    return run.stdout.splitlines()


# Host and port


@needs_ipv6
@pytest.mark.parametrize("host", ["localhost", "LocalHost"])
@pytest.mark.parametrize("any_port", [True, False])
def test_localhost_is_both_loopbacks_on_one_port(host: str, any_port: bool) -> None:
    wanted = 0 if any_port else free_port()
    with bound(Bind(host=host, port=wanted)) as found:
        (first, port), (second, same) = addresses(found)
        assert (first, second) == ("127.0.0.1", "::1")
        assert port == same != 0
        assert any_port or port == wanted
        assert found.urls == [f"http://127.0.0.1:{port}", f"http://[::1]:{port}"]
        for address in addresses(found):
            socket.create_connection(address, timeout=DEADLINE).close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:"),
        ("0.0.0.0", "http://0.0.0.0:"),
        pytest.param("::1", "http://[::1]:", marks=needs_ipv6),
        pytest.param("[::1]", "http://[::1]:", marks=needs_ipv6),
        pytest.param("::", "http://[::]:", marks=needs_ipv6),
    ],
)
def test_an_address_is_taken_as_it_is(host: str, url: str) -> None:
    with bound(Bind(host=host, port=0)) as found:
        [(_, port)] = addresses(found)
        assert found.urls == [f"{url}{port}"]
        for sock in found.sockets:  # :: would be 0.0.0.0 too, on some systems and not on others
            assert sock.family == socket.AF_INET or sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@needs_linux
def test_an_address_of_one_interface_only() -> None:
    """fe80::1%eth0 means nothing without its scope."""
    lines = Path("/proc/net/if_inet6").read_text().split("\n") if has_ipv6() else []
    local = [line.split() for line in lines if line.startswith("fe80")]
    if not local:
        pytest.skip("no link-local address on this machine")
    address, index, *_, name = local[0]
    host = ":".join(address[i : i + 4] for i in range(0, 32, 4))
    with bound(Bind(host=f"{host}%{name}", port=0)) as found:
        assert found.sockets[0].getsockname()[3] == int(index, 16)


def test_sockets_listen_without_blocking_and_accept_with_their_protocol() -> None:
    with bound(Bind(port=0)) as found:
        for sock in found.sockets:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            assert not sock.getblocking()
            assert not sock.get_inheritable()
            assert sock.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY by this
            with pytest.raises(BlockingIOError):
                sock.accept()
            with socket.create_connection(sock.getsockname()[:2], timeout=DEADLINE):
                sock.settimeout(DEADLINE)
                accepted, _ = sock.accept()
                assert accepted.proto == socket.IPPROTO_TCP
                accepted.close()


def test_a_port_is_free_again_at_once() -> None:
    """Connections that our side has closed linger in the kernel, and must not hold the port."""
    with bound(Bind(port=0)) as found:
        sock, address = found.sockets[0], addresses(found)[0]
        sock.settimeout(DEADLINE)
        with socket.create_connection(address, timeout=DEADLINE) as client:
            accepted, _ = sock.accept()
            accepted.close()
            assert client.recv(1) == b""
    with bound(Bind(port=address[1])) as found:
        assert addresses(found)[0] == address


def test_auto_takes_the_next_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with busy() as port:
        monkeypatch.setattr(listeners, "FIRST_PORT", port)
        with bound(Bind(port=None)) as first, bound(Bind(port=None)) as second:
            found = [addresses(each)[0][1] for each in (first, second)]
            assert port < found[0] < found[1] < port + 1000


@needs_ipv6
def test_auto_takes_a_port_that_is_free_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    with busy("::1") as port:
        monkeypatch.setattr(listeners, "FIRST_PORT", port)
        with bound(Bind(port=None)) as found:
            ports = {found for _, found in addresses(found)}
            assert len(found.sockets) == 2
            assert len(ports) == 1
            assert min(ports) > port


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6), "0.0.0.0"])
def test_a_port_in_use_on_one_of_them_is_in_use(host: str) -> None:
    with busy(host) as port:
        message = refused(Bind(port=port))
    assert message.startswith(f"port {port} on localhost is in use")
    assert message.endswith(": stop it, or use --port auto (next free port)")


@needs_linux
def test_a_port_in_use_names_its_holder() -> None:
    text = (
        "import socket, sys\n"
        "with socket.create_server(('127.0.0.1', 0)) as sock:\n"
        "    print(sock.getsockname()[1], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", text, "a name\n\x1b[31m"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        message = refused(Bind(port=port))
        process.communicate("")
    shown = f"{sys.executable} -c {text}".replace("\n", "?")[:80]
    assert message == (
        f"port {port} on localhost is in use by {shown} (pid {process.pid}): "
        "stop it, or use --port auto (next free port)"
    )


@needs_linux
def test_a_client_does_not_hold_a_port() -> None:
    with busy() as port, socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
        assert str(holder_of(port)).endswith(f"(pid {os.getpid()})")
        assert holder_of(client.getsockname()[1]) is None


@needs_linux
def test_of_several_holders_the_eldest_is_named() -> None:
    """A server with workers: stopping a worker would not help."""
    text = (
        "import os, socket, subprocess, sys\n"
        "with socket.create_server(('127.0.0.1', 0)) as sock:\n"
        "    worker = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], "
        "pass_fds=[sock.fileno()])\n"
        "    print(sock.getsockname()[1], flush=True)\n"
        "    worker.wait()\n"
    )
    argv = [sys.executable, "-c", text]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        holder = holder_of(port)
        process.communicate("")
    assert holder is not None
    assert holder.endswith(f"(pid {process.pid})")
    assert holder_of(port) is None


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("192.0.2.1", "192.0.2.1 is no address of this machine: use localhost or 0.0.0.0"),
        ("2001:db8::1", "2001:db8::1 is no address of this machine: use localhost or 0.0.0.0"),
        (
            "a..b",
            "--host a..b: this is no name of a host; use an address of this machine, localhost or 0.0.0.0",
        ),
    ],
)
@pytest.mark.parametrize("port", [0, None, 8999])
def test_a_host_that_is_not_ours(host: str, message: str, port: int | None) -> None:
    assert refused(Bind(host=host, port=port)) == message


def test_a_host_that_nobody_knows() -> None:
    message = refused(Bind(host="no-such-host.invalid"))
    assert message.startswith("--host no-such-host.invalid: ")
    assert message.endswith("; use an address of this machine, localhost or 0.0.0.0")


@pytest.mark.parametrize(
    ("number", "port", "message"),
    [
        (errno.EACCES, 80, "port 80 on localhost needs privileges: use a port from 1024 up"),
        (
            errno.EACCES,
            8000,
            "port 8000 on localhost is reserved by the system or in use: choose another by --port",
        ),
        (errno.EADDRNOTAVAIL, 80, "localhost is no address of this machine: use localhost or 0.0.0.0"),
        (errno.EMFILE, 80, "cannot listen on port 80 on localhost: Too many open files"),
    ],
)
def test_what_the_system_says_is_explained(number: int, port: int, message: str) -> None:
    """Errors that a test run as root does not see."""
    error = listeners._explain(OSError(number, os.strerror(number)), "localhost", port)
    assert str(error) == message


# A machine without IPv6, and one without IPv4: network namespaces of our own

LOOPBACK_UP = """
import fcntl, struct
with socket.socket() as sock:
    fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
"""
WITHOUT_IPV6 = """
if os.path.exists("/proc/sys/net/ipv6"):
    with open("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "w") as file:
        file.write("1")
"""
WITHOUT_IPV4 = """
os.system("ip address delete 127.0.0.1/8 dev lo")
"""
SHOW_URLS = """
try:
    for port in 8000, 0:
        with closing(bind(Bind(host=sys.argv[1], port=port))) as found:
            numbers = {str(sock.getsockname()[1]) for sock in found.sockets}
            print(*(url.replace(*numbers, "N") for url in found.urls))
except DevserverError as error:
    print(error)
"""


def unshare() -> list[str]:
    """The command that runs another in a network of its own; skips where that is not allowed."""
    for command in (["unshare", "-n"], ["unshare", "-rn"]):
        if shutil.which("unshare") and not subprocess.run([*command, "true"], capture_output=True).returncode:
            return command
    pytest.skip("network namespaces are not permitted here")


@needs_linux
@pytest.mark.parametrize(
    ("host", "lines"),
    [
        ("localhost", ["http://127.0.0.1:N"] * 2),
        ("0.0.0.0", ["http://0.0.0.0:N"] * 2),
        ("::1", ["::1 is no address of this machine: use localhost or 0.0.0.0"]),
    ],
)
def test_a_machine_without_ipv6(host: str, lines: list[str]) -> None:
    assert program(LOOPBACK_UP + WITHOUT_IPV6 + SHOW_URLS, host, under=unshare()) == lines


@needs_linux
@needs_ipv6
def test_a_machine_without_ipv4() -> None:
    if not shutil.which("ip"):
        pytest.skip("the command ip is not installed")
    lines = program(LOOPBACK_UP + WITHOUT_IPV4 + SHOW_URLS, "localhost", under=unshare())
    assert lines == ["http://[::1]:N"] * 2


@needs_linux
@needs_ipv6
def test_any_port_is_one_that_is_free_on_both() -> None:
    """Of the four ports that there are, two are taken on ::1 only."""
    text = """
def taken(port):
    return socket.create_server(("::1", port), family=socket.AF_INET6)

with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
    file.write("40000 40003")
for _ in range(20):
    with taken(40000), taken(40001), closing(bind(Bind(port=0))) as found:
        ports = {sock.getsockname()[1] for sock in found.sockets}
        print(len(found.sockets), len(ports), ports <= {40002, 40003})
"""
    assert program(LOOPBACK_UP + text, under=unshare()) == ["2 1 True"] * 20


# Unix sockets


def unix_server(path: Path, backlog: int = 1) -> socket.socket:
    """A Unix socket that somebody else listens on."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen(backlog)
    return sock


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a Unix socket goes."""
    return tmp_path / "app.sock"


@needs_posix
def test_a_unix_socket_listens_and_is_removed_at_the_end(place: Path) -> None:
    with bound(Bind(uds=str(place))) as found:
        assert found.urls == [f"unix:{place}"]
        [sock] = found.sockets
        assert not sock.getblocking()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))
    assert not place.exists()


@needs_posix
def test_a_unix_socket_that_was_left_behind_is_replaced(place: Path) -> None:
    unix_server(place).close()
    assert place.exists()
    with bound(Bind(uds=str(place))), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))


@needs_posix
def test_a_unix_socket_in_use_is_left_alone(place: Path) -> None:
    with unix_server(place), socket.socket(socket.AF_UNIX) as client:
        assert refused(Bind(uds=str(place))) == (
            f"the Unix socket {place} is in use: stop its server or choose another path by --uds"
        )
        client.connect(str(place))


@needs_posix
def test_a_unix_socket_whose_server_does_not_accept_is_in_use(place: Path) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(unix_server(place, backlog=0))
        with contextlib.suppress(BlockingIOError):
            for _ in range(100):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(place))
        assert "is in use" in refused(Bind(uds=str(place)))
        assert place.exists()


@needs_posix
def test_what_is_no_socket_is_left_alone(place: Path) -> None:
    message = f"{place} exists and is not a socket: remove it or choose another path by --uds"
    place.write_text("precious")
    assert refused(Bind(uds=str(place))) == message
    assert place.read_text() == "precious"
    place.unlink()
    place.symlink_to(place.with_name("nowhere"))
    assert refused(Bind(uds=str(place))) == message
    assert place.is_symlink()


@needs_posix
@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing/app.sock", "No such file or directory"), ("x" * 200, "AF_UNIX path too long")],
)
def test_where_no_unix_socket_can_be(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / name
    assert refused(Bind(uds=str(path))) == (
        f"cannot listen on the Unix socket {path}: {reason}; choose another path by --uds"
    )


@needs_posix
def test_a_socket_of_another_kind_is_left_alone(place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(place))
        assert refused(Bind(uds=str(place))).startswith(f"cannot listen on the Unix socket {place}: ")
        assert place.exists()


@needs_posix
def test_the_file_of_a_successor_is_not_removed(place: Path) -> None:
    found = bind(Bind(uds=str(place)))
    place.unlink()
    with unix_server(place):
        found.close()
        assert stat.S_ISSOCK(place.stat().st_mode)


@needs_posix
def test_a_second_close_does_not_touch_the_file_of_a_successor(place: Path) -> None:
    found = bind(Bind(uds=str(place)))
    found.close()
    with unix_server(place):
        found.close()
        assert place.exists()


@needs_posix
def test_a_file_that_is_gone_already_is_no_problem(place: Path) -> None:
    found = bind(Bind(uds=str(place)))
    place.unlink()
    found.close()
    assert found.sockets[0].fileno() == -1


# Descriptors that were passed


@needs_posix
def test_a_passed_tcp_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        os.set_inheritable(passed.fileno(), True)
        with bound(Bind(fd=passed.fileno())) as found:
            [sock] = found.sockets
            assert sock.fileno() != passed.fileno()
            assert sock.getsockname() == passed.getsockname()
            assert (sock.family, sock.proto) == (socket.AF_INET, socket.IPPROTO_TCP)
            assert not sock.getblocking()
            # Nothing that the application starts may hold the port.
            assert not sock.get_inheritable()
            assert not passed.get_inheritable()
        socket.create_connection(passed.getsockname(), timeout=DEADLINE).close()


@needs_posix
def test_a_passed_unix_socket(place: Path) -> None:
    with unix_server(place) as passed:
        with bound(Bind(fd=passed.fileno())) as found:
            assert found.urls == [f"unix:{place}"]
        assert place.exists()  # not ours to remove


@needs_posix
def test_a_passed_socket_that_does_not_listen_yet(place: Path) -> None:
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(place))
        with bound(Bind(fd=tcp.fileno())), bound(Bind(fd=unix.fileno())):
            socket.create_connection(tcp.getsockname(), timeout=DEADLINE).close()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(place))


@needs_posix
def test_a_passed_socket_that_cannot_listen() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(type=socket.SOCK_DGRAM) as datagrams, socket.socket() as unbound:
        datagrams.bind(("127.0.0.1", 0))
        for sock in (ours, datagrams, unbound):
            assert refused(Bind(fd=sock.fileno()), UsageError) == (
                f"--fd {sock.fileno()} is not a socket that can listen:"
                " pass a bound TCP or Unix stream socket"
            )
        assert unbound.getsockname()[1] == 0


@needs_posix
def test_a_passed_descriptor_that_is_no_socket(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file:
        number = file.fileno()
        before = sorted(os.listdir("/dev/fd"))
        assert refused(Bind(fd=number), UsageError) == (
            f"--fd {number}: Socket operation on non-socket; pass the number of an open socket"
        )
        assert sorted(os.listdir("/dev/fd")) == before
    assert refused(Bind(fd=number), UsageError) == (
        f"--fd {number}: Bad file descriptor; pass the number of an open socket"
    )


@needs_posix
def test_standard_input_may_be_the_socket() -> None:
    """As inetd and systemd can pass it; closing ours must not close descriptor 0."""
    text = """
for _ in range(3):
    with closing(bind(Bind(fd=0))) as found:
        print(*found.urls, flush=True)
        found.sockets[0].settimeout(600)
        with closing(found.sockets[0].accept()[0]) as connection:
            connection.sendall(b"served")
print(os.get_inheritable(0))
"""
    with socket.create_server(("127.0.0.1", 0)) as passed:
        address = passed.getsockname()
        argv = [sys.executable, "-c", PRELUDE + text]
        with subprocess.Popen(argv, stdin=passed.fileno(), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(3):
                assert process.stdout.readline() == f"http://127.0.0.1:{address[1]}\n"
                with socket.create_connection(address, timeout=DEADLINE) as client:
                    assert client.recv(100) == b"served"
            assert process.stdout.read() == "True\n"


# Socket activation

ACTIVATED = """
import fcntl
copies = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 50) for number in sys.argv[1].split()]
for target, copy in enumerate(copies, 3):
    os.dup2(copy, target)
    os.close(copy)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ.update(item.split("=", 1) for item in sys.argv[2:])
try:
    with closing(bind(Bind(host="127.0.0.1", port=0))) as found:
        print(*found.urls)
        print(*(sock.getblocking() for sock in found.sockets))
        print(*(os.get_inheritable(fd) for fd in range(3, 3 + len(copies))))
except DevserverError as error:
    print(error, error.exit_code)
print(*sorted(name for name in os.environ if name.startswith("LISTEN_")))
"""


def activated(passed: Sequence[socket.socket], *variables: str) -> list[str]:
    """What a program says to which sockets were passed as systemd passes them."""
    numbers = " ".join(str(sock.fileno()) for sock in passed)
    return program(ACTIVATED, numbers, *variables, passed=passed)


@needs_posix
def test_activated_sockets_are_taken_and_the_variables_go(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, unix_server(place) as unix:
        assert activated([tcp, unix], "LISTEN_FDS=2", "LISTEN_FDNAMES=web:local") == [
            f"http://127.0.0.1:{tcp.getsockname()[1]} unix:{place}",
            "False False",
            "False False",
            "",
        ]
        assert place.exists()


@needs_posix
def test_sockets_that_were_meant_for_another_process_are_not_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        first, *_, last = activated([passed], "LISTEN_FDS=1", "LISTEN_PID=1")
        assert first != f"http://127.0.0.1:{passed.getsockname()[1]}"
        assert last == "LISTEN_FDS LISTEN_PID"


@needs_posix
def test_no_activated_sockets_are_as_good_as_no_activation() -> None:
    first, *_, last = activated([], "LISTEN_FDS=0")
    assert first.startswith("http://127.0.0.1:")
    assert last == ""


@needs_posix
@pytest.mark.parametrize("count", ["many", "-1", "", "²"])
def test_a_number_of_activated_sockets_that_is_none(count: str) -> None:
    assert activated([], f"LISTEN_FDS={count}") == [
        f"LISTEN_FDS must be the number of sockets passed, not {count!r}; unset LISTEN_PID 2",
        "",
    ]


@needs_posix
def test_an_activated_socket_of_another_kind_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        assert activated([tcp, datagrams], "LISTEN_FDS=2") == [
            "LISTEN_FDS, descriptor 4 is not a socket that can listen:"
            " pass a bound TCP or Unix stream socket 2",
            "",
        ]
