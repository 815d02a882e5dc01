# SPDX-License-Identifier: GPL-2.0-or-later
"""The file that an earlier, broken off dump left beside its target, and which other users could
read it or hold it open."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from livedumpfs.errors import TargetError
from livedumpfs.rights.folder import FolderLike, Standing
from livedumpfs.targets.check import target_error
from livedumpfs.targets.sidecar import read_superblock
from livedumpfs.targets.target import Target


def open_leftover(folder: FolderLike, path: str) -> int | None:
    """The file, open and locked; None: another process has taken it, or it is gone."""
    try:
        fd = folder.open(os.path.basename(path), write=True)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise target_error("write to", path, error.errno or errno.EIO) from error
    try:
        lock(fd, path)
        found, own = folder.look(os.path.basename(path)), os.fstat(fd)
        if found and (found.device, found.inode) == (own.st_dev, own.st_ino):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def is_as_made(fd: int, user: int, like: Standing | None) -> bool:
    """Whether no user can read it that could not read a new file. It may belong to another user,
    whose program waits to read our memory from it, or have the rights of a file that had its name
    long ago."""
    own = os.fstat(fd)
    mode = stat.S_IMODE(own.st_mode)
    private = own.st_uid == user and not mode & (stat.S_IRWXG | stat.S_IRWXO)
    same = like is not None and (own.st_uid, own.st_gid, mode) == (
        like.uid,
        like.gid,
        stat.S_IMODE(like.mode) & 0o777,
    )
    return own.st_nlink == 1 and (private or same)


def make_way(target: Target, *, force: bool, sidecar: bool) -> None:
    """Remove it, so that a new file can be made. Refused, as for any target, if it holds data worth
    keeping."""
    assert target.folder
    try:
        ours = read_superblock(target.fd) is not None if sidecar else None
        target.check(force=force, ours=ours)
        target.folder.remove(target.name)
    except TargetError:
        raise
    except OSError as error:
        hint = "it is in the way, and others could read what is written to it"
        raise target_error("remove", target.path, error.errno or errno.EIO, hint) from error
    finally:
        os.close(target.fd)


def lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise target_error("dump to", path, errno.EBUSY, "another dump writes to it") from error
