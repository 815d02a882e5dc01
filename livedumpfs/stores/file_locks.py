# SPDX-License-Identifier: GPL-2.0-or-later
"""On which file systems an flock holds for all computers that see the file: a store needs that."""

from __future__ import annotations

import errno
from typing import Final, Literal

from livedumpfs.errors import TargetError
from livedumpfs.proc import proc_fields, proc_lines

Scope = Literal["local", "shared", "unknown"]
"""One computer has the file system; several, and an flock holds for all; or it may not hold."""

_LOCAL: Final = frozenset(
    ("tmpfs", "ramfs", "overlay", "aufs", "zfs", "ubifs", "jffs2", "ecryptfs", "bcachefs", "btrfs")
)
"""Without a block device, or of modules that are often not in /proc/filesystems of a container."""
_SHARED: Final = frozenset(("ceph", "gfs2", "ocfs2", "gpfs"))
_NFS: Final = frozenset(("nfs", "nfs4"))
_NFS_ALONE: Final = frozenset(("nolock", "local_lock=all", "local_lock=flock"))
_HINT: Final = "a folder of a local disk or of NFS, or store:s3://... (docs/object-stores.md)"


def scope_of(kind: str, options: frozenset[str], with_device: frozenset[str]) -> Scope:
    """Of a file system of that type, mounted with these options. `with_device`: types of this
    kernel that are on block devices."""
    if kind in _NFS:  # Linux 2.6.12 and later: an flock is a lock on the server
        return "unknown" if options & _NFS_ALONE else "shared"
    if kind == "lustre":
        return "shared" if "flock" in options else "unknown"
    if kind in _SHARED:
        return "shared"
    return "local" if kind in _LOCAL or kind in with_device else "unknown"


def lock_scope(fd: int) -> tuple[Scope, str]:
    """Of the file system of an open file, and its type; "unknown" where this cannot be seen."""
    try:
        number = proc_fields(f"/proc/self/fdinfo/{fd}")["mnt_id"].strip()
        kind, options = _mount(number)
        named = (line.partition("\t") for line in proc_lines("/proc/filesystems"))
        with_device = frozenset(name for mark, _, name in named if not mark)
    except (OSError, KeyError):
        return "unknown", "that cannot be seen"
    return scope_of(kind, options, with_device), kind


def _mount(number: str) -> tuple[str, frozenset[str]]:
    """Type and options of the mount with that id. KeyError: there is none."""
    for line in proc_lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        if before.split(" ", 1)[0] == number:
            kind, _, rest = after.partition(" ")
            return kind, frozenset(rest.rpartition(" ")[2].split(","))
    raise KeyError(number)


def expect_lockable(fd: int, path: str) -> None:
    """TargetError ENOTSUP: another computer may not see our locks in the folder `fd`."""
    scope, kind = lock_scope(fd)
    if scope == "unknown":
        raise TargetError(
            f"cannot lock the store {path}: locks on its file system ({kind}) may not hold for "
            "other computers, whose gc would remove chunks of a dump",
            errno=errno.ENOTSUP,
            hint=_HINT,
        )


def seen_by_others(fd: int) -> bool:
    """Whether other computers may write the folder."""
    return lock_scope(fd)[0] != "local"
