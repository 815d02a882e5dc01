# SPDX-License-Identifier: GPL-2.0-or-later
"""The sidecar file of a raw dump: where it lies, and whose it is."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.formats import superblock
from livedumpfs.formats.superblock import Superblock
from livedumpfs.rights.folder import FolderLike, Standing
from livedumpfs.targets.check import open_seen
from livedumpfs.targets.names import SIDECAR, incomplete_sidecar

_CLOCK_SLACK_S: Final = 2


def sidecar_path(path: str, status: os.stat_result) -> str:
    """Where the sidecar of the target with that path and stat lies unless somebody says otherwise.

    Beside a regular file, its name with ".ldfs" behind it; for a block device in $LIVEDUMPFS_STATE,
    else /var/lib/livedumpfs (root) or ~/.local/state/livedumpfs, named by the device's number.
    """
    if not stat.S_ISBLK(status.st_mode):
        return path + SIDECAR
    name = f"block-{os.major(status.st_rdev)}-{os.minor(status.st_rdev)}{SIDECAR}"
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


def places(name: str) -> tuple[str, str]:
    """Where in its folder the sidecar of a file of that name lies: at the usual place, or, when a
    kill came between the two renames, still at that of an unfinished one."""
    return name + SIDECAR, incomplete_sidecar(name + SIDECAR)


def current_sidecar(place: str, status: os.stat_result) -> str:
    """For readers: `place`, where the sidecar of the target with that stat should lie, or, when a
    kill came between the two renames, where it still does."""
    other = incomplete_sidecar(place)
    if stat.S_ISREG(status.st_mode) and not _names(place, status) and _names(other, status):
        return other
    return place


def _names(path: str, status: os.stat_result) -> bool:
    try:
        # Looked at first: opening some devices has effects of its own.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return belongs_to(fd, status.st_ino)
    finally:
        os.close(fd)


def belongs_to(fd: int, inode: int) -> bool:
    """Whether that open sidecar file names the target with that inode, among those in its folder.
    The number of their device may be another one at each boot."""
    block = read_superblock(fd)
    return block is not None and block.target_inode == inode


def finish_rename(folder: FolderLike, name: str, dump: Standing) -> bool:
    """The sidecar `name` of that dump still has its unfinished name, for a kill came between the
    two renames: it gets its own. True when that was so. The one that has the name already stays
    if it is the dump's, as for a reader: the other is of one that had its inode once. OSError."""
    unfinished = incomplete_sidecar(name)
    if _owner_in(folder, unfinished) != dump.inode:
        return False
    if _owner_in(folder, name) == dump.inode:
        return False
    folder.replace(unfinished, name)
    return True


def _owner_in(folder: FolderLike, name: str) -> int | None:
    """The inode of the dump that the sidecar file of that name names; None: it is none."""
    try:
        fd = folder.open(name, write=False)
    except OSError:
        return None
    try:
        block = read_superblock(fd)
        return block.target_inode if block else None
    finally:
        os.close(fd)


def retire_in(folder: FolderLike, name: str, new: tuple[int, int] | None = None) -> None:
    """Remove the sidecar of that name, durably, or empty it where it cannot be removed. A file that
    is no sidecar, that may not be read, or that is the file `new` (device and inode) is left alone.
    OSError."""
    try:
        fd = folder.open(name, write=False)
    except OSError:
        return
    try:
        status = os.fstat(fd)
        if read_superblock(fd) is None or (status.st_dev, status.st_ino) == new:
            return
    finally:
        os.close(fd)
    try:
        folder.remove(name)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        fd = folder.open(name, write=True)
        try:
            os.ftruncate(fd, 0)
            os.fsync(fd)
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
