"""Which mounts keep changes to themselves: a file written elsewhere makes no event here.

Pure: it is given the table of mounts (proc(5), /proc/self/mountinfo) and paths without links.
"""

import os

from devserver.watching.places import ancestors

SILENT = ("9p", "drvfs", "nfs", "nfs4", "cifs", "smb3", "smbfs", "vboxsf", "virtiofs", "prl_fs", "vmhgfs")
"""File systems on which others may write without an event here; so may all whose type begins with fuse."""


def read_mounts(table: str) -> dict[str, str]:
    """Read /proc/self/mountinfo (proc(5)): mount point to type; what was mounted last covers the rest."""
    mounts = {}
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        if after:
            point = before.split()[4]
            if "\\" in point:  # rarely: spaces, as octal numbers
                point = os.fsdecode(point.encode().decode("unicode_escape").encode("latin-1"))
            mounts[point] = after.split()[0]
    return mounts


def find_silent_mount(folder: str, mounts: dict[str, str]) -> tuple[str, str] | None:
    """Give mount point and type if `folder` lies on a mount where events do not arrive."""
    for point in ancestors(folder):
        kind = mounts.get(point)
        if kind is not None:
            return (point, kind) if kind in SILENT or kind.startswith("fuse") else None
    return None
