# SPDX-License-Identifier: GPL-2.0-or-later
"""Two dumps beside each other, page by page, by physical address.

The bytes themselves are compared, never the checksums of the tables: these say what was saved, not
what lies on the targets now. What is a hole in both is not read, nor what is the same chunk of a
store in both.
"""

from __future__ import annotations

import bisect
import enum
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.dumpfile.checksums import OnProgress
from livedumpfs.dumpfile.granules import runs
from livedumpfs.dumpfile.reader import DumpFile
from livedumpfs.dumpfile.stored import pages_saved, pages_there, read_or_zeros, state_runs
from livedumpfs.formats import table
from livedumpfs.formats.machine_info import MemoryRange
from livedumpfs.units import PAGE_SIZE

PIECE: Final = 1 << 20
"""Bytes of each dump that are in memory at once; whole pages."""
MAX_RANGES: Final = 64
_WORDS: Final = PAGE_SIZE // 8


class Difference(enum.IntEnum):
    """What a page is. A page is missing where a dump has lost or never saved it, or where its
    machine has no memory."""

    EQUAL = 0
    DIFFERENT = 1
    MISSING_IN_A = 2
    MISSING_IN_B = 3
    MISSING_IN_BOTH = 4


@dataclass(frozen=True)
class DifferentRange:
    """Physical [start, end) whose pages are all of one kind, which is not EQUAL."""

    start: int
    end: int
    kind: Difference


OnRange = Callable[[DifferentRange], None]


@dataclass
class Comparison:
    """What two dumps have in common."""

    pages: dict[Difference, int] = field(default_factory=lambda: dict.fromkeys(Difference, 0))
    ranges: list[DifferentRange] = field(default_factory=list)
    """By address, the first of them."""
    range_count: int = 0
    """Of all, also those that `ranges` does not hold."""

    @property
    def equal(self) -> bool:
        """Every page is in both dumps and has the same bytes."""
        return not any(n for kind, n in self.pages.items() if kind is not Difference.EQUAL)


def compare_dumps(
    a: DumpFile,
    b: DumpFile,
    progress: OnProgress | None = None,
    *,
    max_ranges: int = MAX_RANGES,
    on_range: OnRange | None = None,
) -> Comparison:
    """Compare all that either has. `max_ranges`: how many ranges are kept; `on_range` is called
    with each of them, in the order of their addresses. OSError: a target cannot be read."""
    work = _Compare(a, b, max_ranges, on_range)
    stretches = list(overlay(a.memory_map, b.memory_map))
    total, done = sum(s.size for s in stretches), 0
    for stretch in stretches:
        for inside in range(0, stretch.size, PIECE):
            length = min(PIECE, stretch.size - inside)
            work.piece(stretch, inside, length)
            done += length
            if progress is not None:
                progress(done, total)
    work.end_range()
    return work.found


@dataclass(frozen=True)
class Stretch:
    """Physical [start, start+size), and where it lies in each arena; None: no memory there."""

    start: int
    size: int
    in_a: int | None
    in_b: int | None


def overlay(a: tuple[MemoryRange, ...], b: tuple[MemoryRange, ...]) -> Iterator[Stretch]:
    """The stretches of two memory maps, sorted by address, that lie in the same range of each."""
    edges = sorted({edge for r in (*a, *b) for edge in (r.start, r.end)})
    for start, end in itertools.pairwise(edges):
        in_a, in_b = _arena_offset(a, start), _arena_offset(b, start)
        if in_a is not None or in_b is not None:
            yield Stretch(start, end - start, in_a, in_b)


def _arena_offset(ranges: tuple[MemoryRange, ...], address: int) -> int | None:
    index = bisect.bisect_right(ranges, address, key=lambda r: r.start) - 1
    if index < 0 or address >= ranges[index].end:
        return None
    return ranges[index].arena_offset + address - ranges[index].start


class _Compare:
    """The work, in pieces in the order of their addresses."""

    def __init__(self, a: DumpFile, b: DumpFile, max_ranges: int, on_range: OnRange | None) -> None:
        self._a, self._b = a, b
        self._max_ranges, self._on_range = max_ranges, on_range
        self._buffers = memoryview(bytearray(PIECE)), memoryview(bytearray(PIECE))
        self._open: DifferentRange | None = None
        self.found = Comparison()

    def piece(self, stretch: Stretch, inside: int, length: int) -> None:
        kinds = self._kinds(
            None if stretch.in_a is None else stretch.in_a + inside,
            None if stretch.in_b is None else stretch.in_b + inside,
            length,
        )
        counts = np.bincount(kinds, minlength=len(Difference)).tolist()
        for kind in Difference:
            self.found.pages[kind] += counts[kind]
        edges = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
        for first, end in itertools.pairwise(edges):
            kind = Difference(int(kinds[first]))
            if kind is not Difference.EQUAL:
                start = stretch.start + inside
                self._range(start + first * PAGE_SIZE, start + end * PAGE_SIZE, kind)

    def _kinds(self, in_a: int | None, in_b: int | None, length: int) -> npt.NDArray[np.uint8]:
        nothing = np.zeros(length // PAGE_SIZE, dtype=np.bool_)
        there_a = nothing if in_a is None else pages_there(self._a, in_a, length)
        there_b = nothing if in_b is None else pages_there(self._b, in_b, length)
        kinds = np.full(len(nothing), Difference.MISSING_IN_BOTH, dtype=np.uint8)
        kinds[there_a & ~there_b] = Difference.MISSING_IN_B
        kinds[there_b & ~there_a] = Difference.MISSING_IN_A
        both = there_a & there_b
        kinds[both] = Difference.EQUAL
        if in_a is not None and in_b is not None and both.any():
            kinds[both & self._differ(in_a, in_b, length)] = Difference.DIFFERENT
        return kinds

    def _differ(self, in_a: int, in_b: int, length: int) -> npt.NDArray[np.bool_]:
        """For each page: whether the bytes are others; zeros stand for what is missing."""
        differ = np.zeros(length // PAGE_SIZE, dtype=np.bool_)
        if _all_holes(self._a, in_a, length) and _all_holes(self._b, in_b, length):
            return differ
        for first, end in runs(~self._known_equal(in_a, in_b, length)):
            at, size = first * PAGE_SIZE, (end - first) * PAGE_SIZE
            differ[first:end] = self._differ_read(in_a + at, in_b + at, size)
        return differ

    def _known_equal(self, in_a: int, in_b: int, length: int) -> npt.NDArray[np.bool_]:
        """For each page: whether both dumps have saved it, and it is known to be the same."""
        known = np.zeros(length // PAGE_SIZE, dtype=np.bool_)
        for start, end in self._a.known_equal(in_a, self._b, in_b, length):
            known[-(-start // PAGE_SIZE) : end // PAGE_SIZE] = True
        if known.any():
            known &= pages_saved(self._a, in_a, length) & pages_saved(self._b, in_b, length)
        return known

    def _differ_read(self, in_a: int, in_b: int, length: int) -> npt.NDArray[np.bool_]:
        one, other = (buffer[:length] for buffer in self._buffers)
        read_or_zeros(self._a, in_a, one)
        read_or_zeros(self._b, in_b, other)
        words = np.frombuffer(one, np.uint64) != np.frombuffer(other, np.uint64)
        differ: npt.NDArray[np.bool_] = words.reshape(-1, _WORDS).any(axis=1)
        return differ

    def _range(self, start: int, end: int, kind: Difference) -> None:
        last = self._open
        if last is not None and (last.end, last.kind) == (start, kind):
            self._open = DifferentRange(last.start, end, kind)
            return
        self.end_range()
        self._open = DifferentRange(start, end, kind)

    def end_range(self) -> None:
        if self._open is None:
            return
        self.found.range_count += 1
        if len(self.found.ranges) < self._max_ranges:
            self.found.ranges.append(self._open)
        if self._on_range is not None:
            self._on_range(self._open)
        self._open = None


def _all_holes(dump: DumpFile, offset: int, length: int) -> bool:
    return all(state == table.HOLE for _, _, state in state_runs(dump, offset, length))
