"""Listening sockets: bound once, listening from the first moment, handed down to children.

The kernel queues connections on a listening socket whoever holds it, so a socket that is never
closed never refuses anyone. Knows no asyncio and no HTTP.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from devserver.config import Bind
from devserver.errors import BindError, UsageError

FIRST_PORT = 8000
"""Where `--port auto` begins to look."""

_SYSTEMD_FIRST_FD = 3


class Listeners:
    """The sockets of a server.

    Attributes:
        sockets: each bound and listening.
    """

    def __init__(self, sockets: Sequence[socket.socket], path: str | None = None) -> None:
        """Args: path: a Unix socket's file that `close` removes."""
        self.sockets = list(sockets)
        self._path = path
        self._inode = os.stat(path).st_ino if path else 0

    @property
    def urls(self) -> list[str]:
        """Where clients reach the server; for a Unix socket `unix:` and its path."""
        return [url(sock) for sock in self.sockets]

    def close(self) -> None:
        """Close the sockets and remove the Unix socket's file if it still is ours."""
        for sock in self.sockets:
            sock.close()
        if self._path is not None:
            try:
                if os.stat(self._path).st_ino == self._inode:
                    os.unlink(self._path)
            except OSError:
                pass  # somebody has removed it


def url(sock: socket.socket) -> str:
    """The URL of a listening socket."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        name = sock.getsockname()
        return "unix:" + (name if isinstance(name, str) else os.fsdecode(name))
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def bind(section: Bind) -> Listeners:
    """Bind and listen as the options say.

    Raises:
        BindError: the address is in use (with who holds it) or not ours.
        UsageError: `--fd` is no listening socket.
    """
    if section.fd is not None:
        return Listeners([_inherited(section.fd, "--fd")])
    handed = _from_systemd()
    if handed:
        return Listeners(handed)
    if section.uds is not None:
        return _bind_unix(section.uds, section.backlog)
    ports = [section.port] if section.port is not None else list(range(FIRST_PORT, FIRST_PORT + 1000))
    for port in ports:
        try:
            return Listeners(_bind_all(section.host, port, section.backlog))
        except OSError as error:
            if section.port is None and error.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            raise _explain(error, section.host, port) from None
    raise BindError(f"no port from {ports[0]} to {ports[-1]} is free; choose one by --port")


def _bind_all(host: str, port: int, backlog: int) -> list[socket.socket]:
    """One socket for each address of a host, all on one port."""
    addresses = list(_resolve(host))
    for last in range(20, -1, -1):
        sockets: list[socket.socket] = []
        try:
            for family, address in addresses:
                chosen = sockets[0].getsockname()[1] if sockets and not port else port
                sockets.append(_listen(family, (address, chosen), backlog))
        except OSError as error:
            for sock in sockets:
                sock.close()
            if error.errno == errno.EADDRNOTAVAIL and len(addresses) > 1:
                addresses = [a for a in addresses if a[0] == socket.AF_INET]  # a machine without IPv6
            elif error.errno != errno.EADDRINUSE or port or not last:
                raise
        else:
            return sockets
    raise AssertionError("unreachable")


def _resolve(host: str) -> Iterator[tuple[int, str]]:
    """Families and addresses of a host. `localhost` is both loopbacks, whatever the hosts file
    says: front-end tools try ::1 first, older clients 127.0.0.1."""
    if host == "localhost":
        yield socket.AF_INET, "127.0.0.1"
        if socket.has_ipv6:
            yield socket.AF_INET6, "::1"
        return
    seen = set()
    for family, _, _, _, address in socket.getaddrinfo(
        host.strip("[]") or "0.0.0.0", None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        if family in (socket.AF_INET, socket.AF_INET6) and address[0] not in seen:
            seen.add(address[0])
            yield family, str(address[0])


def _listen(family: int, address: tuple[str, int], backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform == "win32":
            # There SO_REUSEADDR would let a second server take the same port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(path: str, backlog: int) -> Listeners:
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("--uds: this system has no Unix sockets; use --host and --port")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
            _remove_dead(path)
        sock.bind(path)
        sock.listen(backlog)
        sock.setblocking(False)
        return Listeners([sock], path)
    except OSError as error:
        sock.close()
        raise BindError(f"cannot listen on the Unix socket {path}: {error.strerror or error}") from None
    except BaseException:
        sock.close()
        raise


def _remove_dead(path: str) -> None:
    """Remove a socket's file that nobody listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise BindError(f"the Unix socket {path} is in use: stop its server or choose another by --uds")


def _inherited(fd: int, source: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        raise UsageError(f"{source} {fd}: {error.strerror or error}; pass the number of an open socket") from None
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        try:
            sock.listen()
        except OSError:
            sock.close()
            raise UsageError(f"{source} {fd} is not a socket that can listen") from None
    sock.setblocking(False)
    return sock


def _from_systemd() -> list[socket.socket]:
    """Sockets of socket activation (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    del os.environ["LISTEN_PID"]
    return [_inherited(fd, "LISTEN_FDS") for fd in range(_SYSTEMD_FIRST_FD, _SYSTEMD_FIRST_FD + count)]


def _explain(error: OSError, host: str, port: int) -> BindError:
    where = f"port {port} on {host}"
    if isinstance(error, socket.gaierror):
        return BindError(f"--host {host}: {error.strerror}; use an address of this machine, localhost or 0.0.0.0")
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(port)
        return BindError(
            f"{where} is in use{f' by {holder}' if holder else ''}: stop it, or use --port auto (next free port)"
        )
    if error.errno == errno.EACCES:
        return BindError(f"{where} needs privileges: use a port from 1024 up")
    if error.errno == errno.EADDRNOTAVAIL:
        return BindError(f"{host} is no address of this machine: use localhost or 0.0.0.0")
    return BindError(f"cannot listen on {where}: {error.strerror or error}")


def holder_of(port: int) -> str | None:
    """The process that listens on a TCP port, as `name (pid N)`; None where that cannot be seen.

    Linux only: the socket's inode from /proc/net, its owner from the descriptors of processes.
    """
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir()):
                arguments = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                return f"{os.fsdecode(b' '.join(arguments))[:80]} (pid {process.name})"
        except OSError:
            continue  # ended meanwhile, or another user's
    return None
