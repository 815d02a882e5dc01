# SPDX-License-Identifier: GPL-2.0-or-later
"""A raw dump that has its granule table with it: the superblock is in the target's last page."""

from __future__ import annotations

import os

from livedumpfs.errors import InvalidDump
from livedumpfs.formats import superblock
from livedumpfs.formats.raw import is_tail_superblock, tail_superblock_offset
from livedumpfs.formats.superblock import Superblock


def read_superblock(fd: int, size: int) -> Superblock | None:
    """The superblock in the last whole page of a target of `size` bytes; None: there is no good
    one."""
    place = tail_superblock_offset(size)
    if place < 0:
        return None
    try:
        block = superblock.parse(os.pread(fd, superblock.SIZE, place))
    except (InvalidDump, OSError):
        return None
    return block if is_tail_superblock(block, size) else None
