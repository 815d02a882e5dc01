# SPDX-License-Identifier: GPL-2.0-or-later
"""The sidecar file of a raw dump: where it lies, and to which dump it belongs."""

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
    """Usual path of the sidecar of the target with that path and stat.

    For a regular file: beside it, its name with ".ldfs" appended. For a block device: in
    $LIVEDUMPFS_STATE, else /var/lib/livedumpfs (root) or ~/.local/state/livedumpfs, named by the
    device's number.
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
    """The superblock at the start of an open sidecar file; None: there is no good one."""
    try:
        return superblock.parse(os.pread(fd, superblock.SIZE, 0))
    except (InvalidDump, OSError):
        return None


def places(name: str) -> tuple[str, str]:
    """Names that the sidecar of a file may have in its folder: the usual one, or still that of an
    unfinished one, when the process was killed between the two renames."""
    return name + SIDECAR, incomplete_sidecar(name + SIDECAR)


def current_sidecar(place: str, status: os.stat_result) -> str:
    """For readers: `place`, the usual path of the sidecar of the target with that stat, or its path
    before the rename, when the process was killed between the two renames."""
    other = incomplete_sidecar(place)
    if stat.S_ISREG(status.st_mode) and not _names(place, status) and _names(other, status):
        return other
    return place


def _names(path: str, status: os.stat_result) -> bool:
    try:
        # The type is checked first: opening some devices has side effects.
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
    """Whether that open sidecar file names the target with that inode, of those in its folder. The
    device number is not compared: it may change at each boot."""
    block = read_superblock(fd)
    return block is not None and block.target_inode == inode


def finish_rename(folder: FolderLike, name: str, dump: Standing) -> bool:
    """Rename the sidecar of that dump to `name` if it still has its unfinished name, because the
    process was killed between the two renames. Returns True when that was so. A file at `name` that
    belongs to the dump stays, as for a reader: the other one belongs to an older dump with the same
    inode number. OSError."""
    unfinished = incomplete_sidecar(name)
    if _owner_in(folder, unfinished) != dump.inode:
        return False
    if _owner_in(folder, name) == dump.inode:
        return False
    folder.replace(unfinished, name)
    return True


def _owner_in(folder: FolderLike, name: str) -> int | None:
    """Inode of the dump that the sidecar file of that name names; None: it is not a sidecar
    file."""
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
    is not a sidecar, that may not be read, or that is the file `new` (device and inode) is left
    alone. OSError."""
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
    """Whether an open sidecar file names the device, inode and size of the open `target`, and was
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
    """Remove the sidecar at `path`, because its target gets a dump of another format. Returns
    True when there was one. A file that is not a sidecar is left alone. OSError: it cannot be
    removed."""
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
    """Sync the folder, so that the file does not come back after a power failure. Where the folder
    may not be read, or cannot be synced, this is not certain."""
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
