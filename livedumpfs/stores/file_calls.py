# SPDX-License-Identifier: GPL-2.0-or-later
"""What the files of a folder need of the C library, and Python has not: syncfs, and a name that
takes no other file's place."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from livedumpfs.errors import os_cause

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_REPLACE: Final = 1
"""RENAME_NOREPLACE."""
_libc: Final = ctypes.CDLL(None, use_errno=True)
renameat2: Final = getattr(_libc, "renameat2", None)


def sync_file_systems(place: int, folders: Iterable[str]) -> None:
    """syncfs of the file system of the folder `place`, and of those that are mounted at `folders`
    in it: a disk for the chunks alone. OSError."""
    _syncfs(place)
    own = os.fstat(place).st_dev
    for one in folders:
        # What this user cannot enter has nothing of ours.
        with suppress(FileNotFoundError, PermissionError):
            if os.stat(one, dir_fd=place, follow_symlinks=False).st_dev != own:
                _sync_folder(os.open(one, _FOLDER, dir_fd=place))


def _sync_folder(fd: int) -> None:
    try:
        _syncfs(fd)
    finally:
        os.close(fd)


def _syncfs(fd: int) -> None:
    if _libc.syncfs(fd):
        raise _error()


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os_cause(code))


def is_full(name: str, folder: int) -> bool:
    """Whether it is a regular file with something in it. FileNotFoundError."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def name_first(folder: int, beside: str, name: str) -> None:
    """`beside` becomes `name`, unless that is a full file by now: that one stays then, and `beside`
    goes. For files whose names say what is in them. The other one may be durable, and needed by a
    dump that is published, and a file system may lose the bytes of this one at a power loss, but
    not that it has taken its place (ext4 with noauto_da_alloc). OSError."""
    if _rename_new(folder, beside, name):
        return
    with suppress(FileNotFoundError):
        if is_full(name, folder):
            os.unlink(beside, dir_fd=folder)
            return
    os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)


def _rename_new(folder: int, old: str, new: str) -> bool:
    """False: there is something of that name, or this cannot be done here, as on NFS. OSError."""
    if renameat2 is None:
        return False
    if not renameat2(folder, os.fsencode(old), folder, os.fsencode(new), _NO_REPLACE):
        return True
    error = _error()
    if error.errno not in (errno.EEXIST, errno.EINVAL, errno.ENOSYS):
        raise error
    return False
