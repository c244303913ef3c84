"""Listening sockets: bound once, listening from the first moment, handed down to children.

The kernel queues connections on a listening socket whoever holds it, so a socket that is never
closed never refuses anyone. Knows no asyncio and no HTTP.

TCP sockets are made with proto=IPPROTO_TCP, because accepted ones inherit it, and asyncio sets
TCP_NODELAY only where it is there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Sequence

from devserver import procfs
from devserver.config import Bind
from devserver.errors import BindError, UsageError
from devserver.managers import systemd

FIRST_PORT = 8000
"""Where `--port auto` begins to look."""

_STANDARD_STREAMS = 3

_ATTEMPTS = 20
"""How often a free port is looked for that is free on every address of a host."""

_NO_SUCH_FAMILY = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
"""What binding to ::1 fails with on a machine without IPv6."""

_Address = tuple[str | int | bytes, ...]
"""As getaddrinfo gives it: the host and the port, for IPv6 flow and scope too."""


class Listeners:
    """The sockets of a server.

    Attributes:
        sockets: each bound and listening.
        scheme: "http", "https" or "uwsgi".
    """

    scheme = "http"

    def __init__(self, sockets: Sequence[socket.socket], path: str | None = None) -> None:
        """Args: path: a Unix socket's file that `close` removes."""
        self.sockets = list(sockets)
        self._path = path
        self._identity = _identity(path) if path else None

    @property
    def urls(self) -> list[str]:
        """Where clients reach the server; for a Unix socket `unix:` and its path."""
        return [url(sock, self.scheme) for sock in self.sockets]

    def keep_file(self) -> None:
        """Somebody else listens on the same socket: leave its file to them."""
        self._path = None

    def close(self) -> None:
        """Close the sockets and remove the Unix socket's file if it still is ours."""
        path, self._path = self._path, None
        if path is not None:
            # While our socket is open no other file can get its inode.
            try:
                if _identity(path) == self._identity:
                    os.unlink(path)
            except OSError:
                pass  # somebody has removed it
        for sock in self.sockets:
            sock.close()


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def url(sock: socket.socket, scheme: str = "http") -> str:
    """The URL of a listening socket."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        name = sock.getsockname()
        return "unix:" + (name if isinstance(name, str) else os.fsdecode(name))
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def bind(section: Bind) -> Listeners:
    """Bind and listen as the options say.

    Sockets of socket activation come before `--host`, `--port` and `--uds`, but after `--fd`.

    Raises:
        BindError: the address is in use (with who holds it) or not ours.
        UsageError: `--fd` or LISTEN_FDS is no listening socket.
    """
    passed = systemd.take_sockets(os.environ, os.getpid())
    if section.fd is not None:
        for fd, _ in passed:
            with contextlib.suppress(OSError):
                os.set_inheritable(fd, False)
        return Listeners([_inherited(section.fd, "--fd", section.backlog)])
    if passed:
        return Listeners(_taken(passed, section.backlog))
    if section.uds is not None:
        return _bind_unix(section.uds, section.backlog)
    ports = [section.port] if section.port is not None else list(range(FIRST_PORT, FIRST_PORT + 1000))
    addresses = _resolve(section.host)
    for port in ports:
        try:
            return Listeners(_bind_all(addresses, port, section.backlog))
        except OSError as error:
            if section.port is None and error.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            raise _explain(error, section.host, port) from None
    raise BindError(f"no port from {ports[0]} to {ports[-1]} is free; choose one by --port")


def _bind_all(addresses: Sequence[tuple[int, _Address]], port: int, backlog: int) -> list[socket.socket]:
    """One socket for each address, all on one port. Port 0 is any that is free on all of them."""
    # What was opened in vain is held meanwhile, lest the kernel offer the same port again.
    with contextlib.ExitStack() as held:
        for _ in range(1 if port else _ATTEMPTS):
            opened = held.enter_context(contextlib.ExitStack())
            try:
                sockets = _bind_once(addresses, port, backlog, opened)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                taken = error
            else:
                opened.pop_all()
                return sockets
    raise taken


def _bind_once(
    addresses: Sequence[tuple[int, _Address]], port: int, backlog: int, opened: contextlib.ExitStack
) -> list[socket.socket]:
    """One socket for each address that the machine has; at least one it must have."""
    sockets: list[socket.socket] = []
    absent = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, (host, _, *scope) in addresses:
        chosen = sockets[0].getsockname()[1] if sockets and not port else port
        try:
            sockets.append(opened.enter_context(_listen(family, (host, chosen, *scope), backlog)))
        except OSError as error:
            if error.errno not in _NO_SUCH_FAMILY:
                raise
            absent = error
    if not sockets:
        raise absent
    return sockets


def _resolve(host: str) -> list[tuple[int, _Address]]:
    """Families and addresses of a host. `localhost` is both loopbacks, whatever the hosts file
    says: front-end tools try ::1 first, older clients 127.0.0.1.

    Raises:
        BindError: no such host.
    """
    if host.lower() == "localhost":
        both: list[tuple[int, _Address]] = [
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_INET6, ("::1", 0, 0, 0)),
        ]
        return both if socket.has_ipv6 else both[:1]
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or "0.0.0.0", 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:  # the latter: no name at all, as "a..b"
        reason = error.strerror if isinstance(error, socket.gaierror) else "this is no name of a host"
        raise BindError(
            f"--host {host}: {reason}; use an address of this machine, localhost or 0.0.0.0"
        ) from None
    # A dict, since some hosts files name an address twice. The scope of fe80::1%eth0 is kept.
    return list(
        dict.fromkeys(
            (int(family), address)
            for family, _, _, _, address in found
            if family in (socket.AF_INET, socket.AF_INET6)
        )
    )


def _listen(family: int, address: _Address, backlog: int) -> socket.socket:
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
    if sys.platform == "win32":
        raise UsageError("--uds: Python has no Unix sockets on Windows; use --host and --port")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path):
            _make_room(path)
        sock.bind(path)
        sock.listen(backlog)
        sock.setblocking(False)
        return Listeners([sock], path)
    except OSError as error:
        sock.close()
        reason = error.strerror or error
        raise BindError(
            f"cannot listen on the Unix socket {path}: {reason}; choose another path by --uds"
        ) from None
    except BaseException:
        sock.close()
        raise


def _make_room(path: str) -> None:
    """Remove a socket's file that nobody listens on.

    Raises:
        BindError: somebody listens, or it is something else.
        OSError: it cannot be told, or not be removed.
    """
    if sys.platform == "win32":
        return
    if not (os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode)):
        raise BindError(f"{path} exists and is not a socket: remove it or choose another path by --uds")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a server that accepts nothing would keep us waiting
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise BindError(f"the Unix socket {path} is in use: stop its server or choose another path by --uds")


def _inherited(fd: int, source: str, backlog: int) -> socket.socket:
    """A socket of our own for a descriptor that we were started with.

    A duplicate: closing it must not close a standard stream, if that is what was passed.
    """
    copy = -1
    try:
        copy = os.dup(fd)
        sock = socket.socket(fileno=copy)
    except OSError as error:
        if copy >= 0:
            os.close(copy)
        reason = error.strerror or error
        raise UsageError(f"{source} {fd}: {reason}; pass the number of an open socket") from None
    try:
        _ensure_listening(sock, backlog)
        sock.setblocking(False)
        if fd >= _STANDARD_STREAMS:
            os.set_inheritable(fd, False)  # what the application starts must not hold the port
    except OSError:
        sock.close()
        raise UsageError(
            f"{source} {fd} is not a socket that can listen: pass a bound TCP or Unix stream socket"
        ) from None
    return sock


def _ensure_listening(sock: socket.socket, backlog: int) -> None:
    """Have a bound socket listen. Raises OSError for one that cannot."""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return
    if sock.family in (socket.AF_INET, socket.AF_INET6) and not sock.getsockname()[1]:
        # listen() would bind it to a port of its own choice, on every network.
        raise OSError(errno.EDESTADDRREQ, os.strerror(errno.EDESTADDRREQ))
    sock.listen(backlog)


def _taken(passed: Sequence[systemd.Passed], backlog: int) -> list[socket.socket]:
    with contextlib.ExitStack() as opened:
        sockets = [
            opened.enter_context(_inherited(fd, "LISTEN_FDS, descriptor", backlog)) for fd, _ in passed
        ]
        opened.pop_all()
        return sockets


def _explain(error: OSError, host: str, port: int) -> BindError:
    where = f"port {port} on {host}"
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(port)
        by = f" by {holder}" if holder else ""
        return BindError(f"{where} is in use{by}: stop it, or use --port auto (next free port)")
    if error.errno == errno.EACCES and port < 1024:
        return BindError(f"{where} needs privileges: use a port from 1024 up")
    if error.errno == errno.EACCES:  # Windows: held exclusively, or set aside for Hyper-V
        return BindError(f"{where} is reserved by the system or in use: choose another by --port")
    if error.errno in _NO_SUCH_FAMILY:
        return BindError(f"{host} is no address of this machine: use localhost or 0.0.0.0")
    return BindError(f"cannot listen on {where}: {error.strerror or error}")


def holder_of(port: int) -> str | None:
    """The process that listens on a TCP port, as `command (pid N)`; None where that cannot be seen.

    Linux only: the socket's inode from /proc/net, its owner from the descriptors of processes.
    """
    inodes = {listener.inode for listener in procfs.listeners() if listener.port == port}
    if not inodes:
        return None
    # Several may hold one socket; the eldest is the one to stop, the others are most often its children.
    for pid in procfs.pids():
        if not inodes.isdisjoint(procfs.sockets(pid)):
            return f"{_command(pid)} (pid {pid})"
    return None


def _command(pid: int) -> str:
    """The beginning of a process's command line, fit to be shown."""
    text = " ".join(procfs.words(pid, "cmdline"))
    return "".join(c if c.isprintable() else "?" for c in text[:80]) or "a process"
