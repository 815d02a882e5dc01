# SPDX-License-Identifier: GPL-2.0-or-later
"""What has changed since another dump: numbers, ranges, and how much of each part of the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from livedumpfs.dumpfile import (
    Comparison,
    Difference,
    DifferentRange,
    DumpFile,
    OnProgress,
    compare_dumps,
)
from livedumpfs.html_report.page_map_picture import cell_count
from livedumpfs.units import PAGE_SIZE, format_size

MAX_RANGES: Final = 64
STEPS: Final = 4
"""Shades of the picture, beside that for no change."""
_MISSING: Final = STEPS + 1
NAMES: Final = {
    Difference.EQUAL: "equal",
    Difference.DIFFERENT: "different",
    Difference.MISSING_IN_A: "missing in the other dump",
    Difference.MISSING_IN_B: "missing in this dump",
    Difference.MISSING_IN_BOTH: "missing in both",
}


@dataclass(frozen=True)
class ChangedRange:
    """Of physical addresses, its end inclusive."""

    first: str
    last: str
    kind: str
    size: str


@dataclass(frozen=True)
class Changes:
    """Since the dump at `other`."""

    other: str
    verdict: str
    """Of the other."""
    numbers: list[tuple[str, int, str, float]]
    """Kind, pages, their size, and their share of all in percent."""
    ranges: list[ChangedRange]
    more: int
    """Ranges that `ranges` does not have."""
    cells: bytes
    """For each cell of this dump's arena: 0, nothing differs; 1 to STEPS, so much of it;
    STEPS + 1, pages of it are in one of the dumps alone."""
    equal: bool


def changes(dump: DumpFile, other: DumpFile, progress: OnProgress | None = None) -> Changes:
    """Compare both. OSError: one cannot be read."""
    cells = _Cells(dump)
    found = compare_dumps(other, dump, progress, max_ranges=MAX_RANGES, on_range=cells.add)
    return Changes(
        other.path,
        other.verdict,
        _numbers(found),
        [_range(one) for one in found.ranges],
        found.range_count - len(found.ranges),
        cells.steps(),
        found.equal,
    )


def _numbers(found: Comparison) -> list[tuple[str, int, str, float]]:
    whole = sum(found.pages.values())
    return [
        (NAMES[kind], pages, format_size(pages * PAGE_SIZE), 100 * pages / whole)
        for kind, pages in found.pages.items()
    ]


def _range(one: DifferentRange) -> ChangedRange:
    size = format_size(one.end - one.start)
    return ChangedRange(f"{one.start:#x}", f"{one.end - 1:#x}", NAMES[one.kind], size)


class _Cells:
    """Pages that differ, by cells of the arena."""

    def __init__(self, dump: DumpFile) -> None:
        self._map = dump.memory_map
        self._pages = -(-dump.arena_size // PAGE_SIZE)
        count = cell_count(self._pages)
        self._edges = np.arange(count + 1) * self._pages // count
        self._different = np.zeros(count, dtype=np.int64)
        self._missing = np.zeros(count, dtype=np.bool_)

    def add(self, one: DifferentRange) -> None:
        """What of it lies outside of this dump's memory has no cell."""
        for r in self._map:
            start, end = max(one.start, r.start), min(one.end, r.end)
            if start < end:
                first = (start - r.start + r.arena_offset) // PAGE_SIZE
                self._add(first, first + (end - start) // PAGE_SIZE, one.kind)

    def _add(self, first: int, end: int, kind: Difference) -> None:
        low = int(np.searchsorted(self._edges, first, side="right")) - 1
        high = int(np.searchsorted(self._edges, end, side="left"))
        if kind is not Difference.DIFFERENT:
            self._missing[low:high] = True
            return
        begins = np.maximum(self._edges[low:high], first)
        ends = np.minimum(self._edges[low + 1 : high + 1], end)
        self._different[low:high] += ends - begins

    def steps(self) -> bytes:
        """As Changes.cells."""
        sizes = np.diff(self._edges)
        found = -(-self._different * STEPS // np.maximum(sizes, 1))
        found[self._missing] = _MISSING
        return found.astype(np.uint8).tobytes()
