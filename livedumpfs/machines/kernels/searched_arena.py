# SPDX-License-Identifier: GPL-2.0-or-later
"""SearchedArena: an arena of this process as memory in which a kernel's texts are looked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import lib


class SearchedArena:
    """See SearchedMemory."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.size = arena.size

    def read(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset+length) as they are now."""
        return self._arena.read(offset, length)

    def data(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of each range that is no hole."""
        descriptor, end = lib.ldfs_arena_memfd(self._arena.handle), 0
        while end < self.size:
            try:
                start = os.lseek(descriptor, end, os.SEEK_DATA)
                end = os.lseek(descriptor, start, os.SEEK_HOLE)
            except OSError:  # ENXIO: no data behind `end`
                return
            yield start, end - start
