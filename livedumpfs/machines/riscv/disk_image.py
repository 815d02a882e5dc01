# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk of an emulated machine: a file or block device that is open for it alone."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from livedumpfs.errors import MachineError

SECTOR: Final = 512


@dataclass(frozen=True)
class DiskImage:
    """`size` in bytes, whole sectors."""

    descriptor: int
    size: int
    read_only: bool

    @classmethod
    def open(cls, path: Path, *, read_only: bool) -> DiskImage:
        """MachineError: cannot be opened, is no disk, or another program has it (EBUSY)."""
        flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(path, flags)
        except OSError as error:
            raise _refuse(path, error, read_only=read_only) from error
        try:
            return cls(descriptor, _expect_disk(path, descriptor, read_only), read_only)
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Once."""
        os.close(self.descriptor)


def _expect_disk(path: Path, descriptor: int, read_only: bool) -> int:
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        cause = "it is neither a file nor a block device"
        raise MachineError(f"cannot use disk {path}: {cause}", errno=errno.ENOTBLK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_NB | (fcntl.LOCK_SH if read_only else fcntl.LOCK_EX))
    except BlockingIOError:
        cause = "another program has it"
        raise MachineError(f"cannot use disk {path}: {cause}", errno=errno.EBUSY) from None
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size < SECTOR or size % SECTOR:
        cause = f"its size is {size} bytes, not a multiple of {SECTOR} above 0"
        raise MachineError(f"cannot use disk {path}: {cause}", errno=errno.EINVAL)
    return size


def _refuse(path: Path, error: OSError, *, read_only: bool) -> MachineError:
    code = error.errno or errno.EIO
    closed = not read_only and code in (errno.EACCES, errno.EROFS, errno.EPERM)
    hint = "with `--read-only` the guest only reads it" if closed else ""
    return MachineError(f"cannot open disk {path}: {error.strerror}", errno=code, hint=hint)
