# SPDX-License-Identifier: GPL-2.0-or-later
"""Reference: the memory at the instant of a dump, for tests that compare whole dumps."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from livedumpfs.closing import Closing
from livedumpfs.dumpfile import HOLE, SAVED, DumpFile
from livedumpfs.units import PAGE_SIZE

PIECE = 4096
"""Pages that are compared at once."""
Pages = npt.NDArray[np.uint8]


class Reference(Closing):
    """Memory of `size` bytes to which the core copies the arena inside the pause: `reference=` of
    LiveDump.init. `fd`: one that the caller has; it stays the caller's."""

    def __init__(self, size: int, fd: int | None = None) -> None:
        self.size = size
        self._owned = fd is None
        self.fd = os.memfd_create("reference") if fd is None else fd
        if self._owned:
            self.clear()

    def clear(self, size: int | None = None) -> None:
        """All zeros again; `size`: other than before. Not while what pages() returned is in use."""
        self.size = self.size if size is None else size
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, self.size)

    def pages(self) -> Pages:
        """One row a page; read-only. What is a hole reads as zeros and becomes memory."""
        kept = mmap.mmap(self.fd, self.size, prot=mmap.PROT_READ)
        return np.frombuffer(kept, dtype=np.uint8).reshape(-1, PAGE_SIZE)

    def different_pages(self, dump: DumpFile) -> npt.NDArray[np.intp]:
        """Pages that the target has otherwise than the machine had at the instant; lost ones
        too."""
        return self._differ(dump, [(0, self.size // PAGE_SIZE)])

    def wrong_pages(self, dump: DumpFile) -> npt.NDArray[np.intp]:
        """As different_pages, but only of what the dump says that it has."""
        return self._differ(dump, [*dump.pfn_ranges(SAVED), *dump.pfn_ranges(HOLE)])

    def _differ(self, dump: DumpFile, ranges: Iterable[tuple[int, int]]) -> npt.NDArray[np.intp]:
        expected = self.pages()
        buffer = np.empty((PIECE, PAGE_SIZE), dtype=np.uint8)
        found = [np.empty(0, dtype=np.intp)]
        for begin, end in ranges:
            for first in range(begin, end, PIECE):
                part = expected[first : min(first + PIECE, end)]
                got = buffer[: len(part)]
                dump.read_stored(first * PAGE_SIZE, memoryview(got).cast("B"))
                found.append(different_rows(got, part) + first)
        return np.sort(np.concatenate(found))

    def close(self) -> None:
        """Harmless when done twice."""
        if self._owned and self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


def different_rows(a: Pages, b: Pages) -> npt.NDArray[np.intp]:
    """Numbers of the rows that differ; quick when none does."""
    if np.array_equal(a.view(np.uint64), b.view(np.uint64)):
        return np.empty(0, dtype=np.intp)
    return np.flatnonzero((a != b).any(axis=1))
