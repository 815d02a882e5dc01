# SPDX-License-Identifier: GPL-2.0-or-later
"""Live memory by physical address. What no range covers reads as zeros."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence

from livedumpfs.machines import PhysicalRange


class PhysicalMemory:
    """[0, size) of the machine's physical addresses; `read(arena_offset, length)` gives bytes."""

    def __init__(self, ranges: Sequence[PhysicalRange], read: Callable[[int, int], bytes]) -> None:
        self._ranges = sorted(ranges, key=lambda one: one.start)
        self._read = read
        self.size = max((one.start + one.size for one in self._ranges), default=0)
        self.stored = sum(one.size for one in self._ranges)
        """Bytes that lie in no hole of the map."""

    def pread(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset+length), fewer at the end. ValueError: a negative number."""
        if offset < 0 or length < 0:
            raise ValueError(f"range is negative: {offset}, {length}")
        end = min(offset + length, self.size)
        pieces = []
        at = offset
        first = bisect.bisect_right(self._ranges, at, key=lambda one: one.start + one.size)
        for one in itertools.islice(self._ranges, first, None):
            if one.start >= end:
                break
            start, stop = max(at, one.start), min(end, one.start + one.size)
            pieces.append(bytes(start - at))
            pieces.append(self._read(one.arena_offset + start - one.start, stop - start))
            at = stop
        # A read that ends in a hole between two ranges; the last range ends where memory does.
        pieces.append(bytes(max(0, end - at)))
        return b"".join(pieces)
