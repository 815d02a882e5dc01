# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a dump will find room on the file system of its target: known before it begins."""

from __future__ import annotations

import errno
import os

from livedumpfs.errors import TargetError
from livedumpfs.targets.target import Kind, Target
from livedumpfs.units import format_size


def expect_space(target: Target, needed: int) -> None:
    """TargetError ENOSPC: fewer than `needed` bytes are free for a file. What lies in it already
    counts as free. What a quota leaves nobody can ask here."""
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
    """Bytes that a file may come to have; None: the file system does not say. What is kept for root
    is for root's files."""
    system, own = os.fstatvfs(fd), os.fstat(fd)
    if system.f_blocks == 0:
        return None
    blocks = system.f_bfree if own.st_uid == 0 == os.geteuid() else system.f_bavail
    return blocks * system.f_frsize + own.st_blocks * 512
