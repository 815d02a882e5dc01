# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the file system of the target has room for a dump; checked before the dump begins."""

from __future__ import annotations

import errno
import os

from livedumpfs.errors import TargetError
from livedumpfs.targets.target import Kind, Target
from livedumpfs.units import format_size


def expect_space(target: Target, needed: int) -> None:
    """TargetError ENOSPC: less than `needed` bytes are free for a file. Blocks that the file has
    already count as free. Quotas are not known here."""
    if target.kind is not Kind.FILE:
        return
    free = free_space(target.fd)
    if free is not None and free < needed:
        raise TargetError(
            f"cannot dump to {target.path}: the dump needs {format_size(needed)}, its file system "
            f"has {format_size(free)} free",
            errno=errno.ENOSPC,
            hint="<force> goes on",
        )


def free_space(fd: int) -> int | None:
    """Most bytes that a file may get in addition; None: the file system does not say. Blocks
    reserved for root count for root only."""
    system, own = os.fstatvfs(fd), os.fstat(fd)
    if system.f_blocks == 0:
        return None
    blocks = system.f_bfree if own.st_uid == 0 == os.geteuid() else system.f_bavail
    return blocks * system.f_frsize + own.st_blocks * 512
