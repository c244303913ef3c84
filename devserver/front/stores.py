"""The places where this machine's programs keep the authorities that they trust.

    the system's     for curl, Python, git; on Windows and macOS for browsers, too
    NSS databases    for Chromium on Linux, one for each user; for Firefox, one for each profile

Each store installs and removes one root, by the programs that the system has for it, and says what it did.
Refuses to know where the root comes from, and whether the user was asked.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


class Failed(Exception):
    """It could not be done; says why, and what to do instead."""


@dataclass(frozen=True)
class Root:
    """A root to be trusted.

    Attributes:
        path: of its certificate, PEM.
        name: by which stores know it; no other one has it.
    """

    path: str
    name: str


class Store(Protocol):
    """See the module. As text it says whose store it is."""

    def install(self, root: Root) -> None:
        """Have a root trusted. Raises: Failed."""

    def remove(self, root: Root) -> bool:
        """Have it trusted no more; whether it was. Raises: Failed."""


def stores(home: str) -> list[Store]:
    """All stores that there are for a user. Args: home: the user's folder."""
    found: list[Store] = []
    if sys.platform == "win32":
        found.append(Windows())
    elif sys.platform == "darwin":
        found.append(MacOS(os.path.join(home, "Library/Keychains/login.keychain-db")))
    else:
        found += [Folder(*each) for each in _FOLDERS if os.path.isdir(each[0])][:1]
    return [*found, *(Nss(folder, whose) for folder, whose in _databases(home))]


_FOLDERS = (
    ("/etc/pki/ca-trust/source/anchors", ("update-ca-trust", "extract")),  # Fedora and its kin
    # Without --fresh Debian's leaves the links to what is there no more.
    ("/usr/local/share/ca-certificates", ("update-ca-certificates", "--fresh")),  # Debian and its kin, Alpine
    ("/etc/ca-certificates/trust-source/anchors", ("trust", "extract-compat")),  # Arch
    ("/usr/share/pki/trust/anchors", ("update-ca-certificates", "--fresh")),  # SUSE
)


class Folder:
    """The store of a Linux system: a folder, and a program that reads it."""

    def __init__(self, folder: str, update: Sequence[str]) -> None:
        self._folder = folder
        self._update = update

    def __str__(self) -> str:
        return "the system's store"

    def install(self, root: Root) -> None:
        path = self._path(root)
        _run([*_as_root(), "install", "-m", "644", root.path, path])
        _run([*_as_root(), *self._update])

    def remove(self, root: Root) -> bool:
        path = self._path(root)
        if not os.path.exists(path):
            return False
        _run([*_as_root(), "rm", "-f", path])
        _run([*_as_root(), *self._update])
        return True

    def _path(self, root: Root) -> str:
        return os.path.join(self._folder, root.name.replace(" ", "-") + ".crt")


def _as_root() -> list[str]:
    if sys.platform == "win32" or os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        raise Failed("only root may change it, and there is no sudo: run this as root, with HOME as it is")
    return ["sudo"]


class MacOS:
    """The login keychain."""

    def __init__(self, keychain: str) -> None:
        self._keychain = keychain

    def __str__(self) -> str:
        return "the login keychain"

    def install(self, root: Root) -> None:
        _run(["security", "add-trusted-cert", "-r", "trustRoot", "-k", self._keychain, root.path])

    def remove(self, root: Root) -> bool:
        known = subprocess.run(
            ["security", "find-certificate", "-c", root.name, self._keychain],
            capture_output=True,
            check=False,
        )
        if known.returncode:
            return False
        _run(["security", "remove-trusted-cert", root.path])
        _run(["security", "delete-certificate", "-c", root.name, self._keychain])
        return True


class Windows:
    """The user's store of Windows, which asks the user by itself."""

    def __str__(self) -> str:
        return "the user's store of Windows"

    def install(self, root: Root) -> None:
        _run(["certutil", "-user", "-addstore", "Root", root.path])

    def remove(self, root: Root) -> bool:
        command = ["certutil", "-user", "-store", "Root", root.name]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        _run(["certutil", "-user", "-delstore", "Root", root.name])
        return True


def _databases(home: str) -> Iterator[tuple[str, str]]:
    """The folders of NSS databases, and whose they are."""
    if sys.platform.startswith("linux"):
        shared = [os.path.join(home, each) for each in (".pki/nssdb", ".local/share/pki/nssdb")]
        # One that is not there yet: Chromium takes it when it is started first.
        for folder in [each for each in shared if os.path.isdir(each)] or shared[:1]:
            yield folder, "Chromium"
        for folder in glob.glob(os.path.join(glob.escape(home), "snap/chromium/current/.pki/nssdb")):
            yield folder, "Chromium (snap)"
    profiles = (
        ".mozilla/firefox/*",
        ".config/mozilla/firefox/*",
        "snap/firefox/common/.mozilla/firefox/*",
        ".var/app/org.mozilla.firefox/.mozilla/firefox/*",
        "Library/Application Support/Firefox/Profiles/*",
        "AppData/Roaming/Mozilla/Firefox/Profiles/*",
    )
    for pattern in profiles:
        for path in sorted(glob.glob(os.path.join(glob.escape(home), pattern, "cert9.db"))):
            folder = os.path.dirname(path)
            yield folder, f"Firefox, profile {os.path.basename(folder)}"


class Nss:
    """A database of NSS, which Firefox has in each profile, and Chromium on Linux."""

    def __init__(self, folder: str, whose: str) -> None:
        self._folder = folder
        self._whose = whose

    def __str__(self) -> str:
        return self._whose

    @property
    def _is_there(self) -> bool:
        return os.path.exists(os.path.join(self._folder, "cert9.db"))

    def install(self, root: Root) -> None:
        certutil = self._certutil()
        if not self._is_there:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            _run([*certutil, "-N", "--empty-password"])
            open(os.path.join(self._folder, _MADE), "w").close()
        _run([*certutil, "-A", "-t", "C,,", "-n", root.name, "-i", root.path])

    def remove(self, root: Root) -> bool:
        if not self._is_there:
            return False
        certutil = self._certutil()
        known = subprocess.run([*certutil, "-L", "-n", root.name], capture_output=True, check=False)
        if known.returncode == 0:
            _run([*certutil, "-D", "-n", root.name])
        self._unmake(certutil)
        return known.returncode == 0

    def _unmake(self, certutil: list[str]) -> None:
        """Remove the database if it was made for us, and nobody has put anything into it since."""
        mark = os.path.join(self._folder, _MADE)
        if not os.path.exists(mark):
            return
        os.unlink(mark)
        listed = subprocess.run([*certutil, "-L"], capture_output=True, text=True, check=False).stdout
        if len([line for line in listed.splitlines() if line.strip()]) > _HEADER_LINES:
            return
        for name in ("cert9.db", "key4.db", "pkcs11.txt"):
            path = os.path.join(self._folder, name)
            if os.path.exists(path):
                os.unlink(path)
        for folder in (self._folder, os.path.dirname(self._folder)):
            if os.listdir(folder):
                return
            os.rmdir(folder)

    def _certutil(self) -> list[str]:
        if sys.platform == "win32" or shutil.which("certutil") is None:
            raise Failed(
                "the program certutil of NSS is missing: apt install libnss3-tools, dnf install nss-tools,"
                " brew install nss; or import the root by hand"
            )
        return ["certutil", "-d", f"sql:{self._folder}"]


_MADE = "made-by-devserver"
"""A file in a database's folder that we have made."""

_HEADER_LINES = 2
"""Of what certutil lists, without blank ones."""


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        last = (done.stdout.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Failed(f"{' '.join(command)}: {last}")
