"""What Linux tells of processes in /proc (proc(5)): the one module that reads it.

Elsewhere there is no /proc, and what is asked here is answered with nothing: no part of serving may need it.
A process may end while it is looked at, and a descriptor may be closed: then there is nothing to tell either.
A function that raises instead says so.

Weighed: psutil. It would be a compiled dependency, and has neither pagemap nor fdinfo.
"""

from __future__ import annotations

import io
import os
import re
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

_open, _listdir, _readlink, _stat = open, os.listdir, os.readlink, os.stat  # an application may replace them

MOUNTS = "/proc/self/mountinfo"
"""The table of mounts."""

MOST_WATCHES = "/proc/sys/fs/inotify/max_user_watches"
"""The number of inotify watches that one user may have."""

_LISTENS = "0A"
"""A state in /proc/net/tcp (Linux, include/net/tcp_states.h)."""

_SOCKET = re.compile(r"socket:\[(\d+)\]")


def text(path: str) -> str:
    """A file below /proc as text; "" where there is none."""
    try:
        with _open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


# processes


def pids() -> list[int]:
    """All processes, in the order of their numbers."""
    try:
        return sorted(int(name) for name in _listdir("/proc") if name.isdigit())
    except OSError:
        return []


def words(process: int | str, name: str) -> list[str]:
    """The words of a file that end in NUL each.

    Args:
        process: a process id, or "self".
        name: "cmdline" or "environ".
    """
    try:
        with _open(f"/proc/{process}/{name}", "rb") as file:
            data = file.read()
    except OSError:
        return []
    return [os.fsdecode(word) for word in data.removesuffix(b"\0").split(b"\0")]


def name(pid: int) -> str:
    """The name of a process's program, up to 15 bytes of it; "" where that is not told."""
    return text(f"/proc/{pid}/comm").strip()


def children() -> set[int]:
    """The process ids of this thread's children."""
    return {int(pid) for pid in text(f"/proc/self/task/{threading.get_native_id()}/children").split()}


def catches(pid: int, signum: int) -> bool:
    """Whether a process has a handler for a signal."""
    return _is_among(signum, pid, "SigCgt:")


def ignores(pid: int, signum: int) -> bool:
    """Whether a process ignores a signal."""
    return _is_among(signum, pid, "SigIgn:")


def _is_among(signum: int, pid: int, field: str) -> bool:
    for line in text(f"/proc/{pid}/status").splitlines():
        if line.startswith(field):
            return bool(int(line.split()[1], 16) >> (signum - 1) & 1)
    return False


class Activity(NamedTuple):
    """What the main thread of a process does.

    Attributes:
        waits: it sleeps, or waits for a device: it executes nothing.
        seconds: of the processor's time that it has had.
    """

    waits: bool
    seconds: float


def activity(pid: int) -> Activity:
    """What the main thread of a process does; of one that is gone, that it waits."""
    fields = text(f"/proc/{pid}/task/{pid}/stat").rpartition(")")[2].split()
    if sys.platform == "win32" or len(fields) < 13:
        return Activity(True, 0.0)
    return Activity(fields[0] in "SD", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))


# threads of this process


def thread_count() -> int:
    """The number of threads.

    Raises:
        OSError: there is no /proc.
    """
    return _stat("/proc/self/task").st_nlink - 2


def thread_ids() -> set[int]:
    """The numbers of the threads.

    Raises:
        OSError: there is no /proc.
    """
    return {int(name) for name in _listdir("/proc/self/task")}


def thread_names() -> dict[int, str]:
    """The names of the threads, by their numbers.

    Raises:
        OSError: there is no /proc.
    """
    names = {}
    for number in thread_ids():
        try:
            with _open(f"/proc/self/task/{number}/comm") as file:
                names[number] = file.read().strip()
        except OSError:
            continue
    return names


# descriptors


def descriptors() -> set[int]:
    """The open descriptors of this process, and one that is closed by now: that of this very look.

    Raises:
        OSError: there is no /proc.
    """
    return {int(name) for name in _listdir("/proc/self/fd")}


def target(fd: int) -> str:
    """What a descriptor of this process is open on: a path, or a name such as `anon_inode:[eventpoll]`.

    Raises:
        OSError: it is not open, or there is no /proc.
    """
    return _readlink(f"/proc/self/fd/{fd}")


def targets(pid: int) -> Iterator[str]:
    """What the descriptors of a process are open on, as far as we may see them; see `target`."""
    try:
        names = _listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            yield _readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue


def details(fd: int) -> bytes:
    """Flags, position and locks of a descriptor of this process.

    Raises:
        OSError: it is not open, or there is no /proc.
    """
    with _open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return file.read()


# sockets


class Listener(NamedTuple):
    """A TCP socket that listens. `inode` says which socket it is."""

    host: str
    port: int
    inode: int


def sockets(pid: int) -> set[int]:
    """The inodes of the sockets that a process has open, as far as we may see them."""
    return {int(match[1]) for each in targets(pid) if (match := _SOCKET.fullmatch(each))}


def listeners(process: int | str = "self") -> Iterator[Listener]:
    """The listening TCP sockets where a process is: in its network namespace."""
    for table in ("tcp", "tcp6"):
        for line in text(f"/proc/{process}/net/{table}").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS:
                yield Listener(*_address(fields[1]), int(fields[9]))


def _address(field: str) -> tuple[str, int]:
    """Host and port: words of four bytes in the machine's order, in hex, and the port."""
    host, port = field.split(":")
    parts = [int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8)]
    family = socket.AF_INET if len(parts) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(parts)), int(port, 16)


def ipv6_addresses() -> list[bytes]:
    """The IPv6 addresses of this machine, sixteen bytes each."""
    return [bytes.fromhex(line.split()[0]) for line in text("/proc/net/if_inet6").splitlines()]


def gateway() -> str | None:
    """The address of the default gateway (IPv4); None if there is none."""
    for line in text("/proc/net/route").splitlines():
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":
            return socket.inet_ntoa(struct.pack("<I", int(fields[2], 16)))
    return None


# memory


def memory(process: int | str) -> dict[str, int]:
    """The memory of a process in bytes, by the names of the kernel (`Pss`, `Rss`, `Shared_Clean` …)."""
    sizes = {}
    for line in text(f"/proc/{process}/smaps_rollup").splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024
    return sizes


def maps() -> str:
    """The mappings of this process, a line for each.

    Raises:
        OSError: there is no /proc.
    """
    with _open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        return file.read()


def pagemap(process: int | str) -> io.FileIO:
    """What each page of a process is, eight bytes for each; see pagemap in the kernel's documentation.

    Raises:
        OSError: it is gone, is not ours to look at, or there is no /proc.
    """
    return _open(f"/proc/{process}/pagemap", "rb", 0)
