# SPDX-License-Identifier: GPL-2.0-or-later
"""The sidecar file of a raw dump: where it lies, and whose it is."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.formats import superblock
from livedumpfs.formats.superblock import Superblock
from livedumpfs.targets.check import open_seen

SUFFIX: Final = ".ldfs"
_CLOCK_SLACK_S: Final = 2


def sidecar_path(path: str, status: os.stat_result) -> str:
    """Where the sidecar of the target with that path and stat lies unless somebody says otherwise.

    Beside a regular file, its name with ".ldfs" behind it; for a block device in $LIVEDUMPFS_STATE,
    else /var/lib/livedumpfs (root) or ~/.local/state/livedumpfs, named by the device's number.
    """
    if not stat.S_ISBLK(status.st_mode):
        return path + SUFFIX
    name = f"block-{os.major(status.st_rdev)}-{os.minor(status.st_rdev)}{SUFFIX}"
    return os.path.join(_state_directory(), name)


def _state_directory() -> str:
    chosen = os.environ.get("LIVEDUMPFS_STATE")
    if chosen:
        return chosen
    if os.geteuid() == 0:
        return "/var/lib/livedumpfs"
    return os.path.expanduser("~/.local/state/livedumpfs")


def read_superblock(fd: int) -> Superblock | None:
    """The superblock at the start of an open sidecar file, None when there is no good one."""
    try:
        return superblock.parse(os.pread(fd, superblock.SIZE, 0))
    except (InvalidDump, OSError):
        return None


def describes(path: str, target: int) -> bool:
    """True when `path` is the sidecar of the regular file open as `target`."""
    try:
        # Looked at first: opening some devices has effects of its own.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return describes_open(fd, target)
    finally:
        os.close(fd)


def describes_open(fd: int, target: int) -> bool:
    """The same for an open sidecar file: it names the target's device, inode and size, and was
    written last."""
    own, status = os.fstat(fd), os.fstat(target)
    block = read_superblock(fd) if stat.S_ISREG(own.st_mode) else None
    return (
        block is not None
        and (block.target_device, block.target_inode) == (status.st_dev, status.st_ino)
        and block.total_size == status.st_size
        and status.st_mtime <= own.st_mtime + _CLOCK_SLACK_S
    )


def retire_sidecar(path: str) -> bool:
    """Remove the sidecar at `path` because its target gets a dump of another format; True when one
    was there. A file that is no sidecar is left alone. OSError: it cannot be removed."""
    try:
        look = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        ours = stat.S_ISREG(os.fstat(look).st_mode) and _holds_superblock(look)
    finally:
        os.close(look)
    if ours:
        os.unlink(path)
        _sync_removal(path)
    return ours


def _sync_removal(path: str) -> None:
    """So that it does not come back when the power fails. Where the folder may not be read, or
    cannot be synced, that is not known."""
    with contextlib.suppress(OSError):
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _holds_superblock(look: int) -> bool:
    try:
        fd = open_seen(look, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return read_superblock(fd) is not None
    finally:
        os.close(fd)
