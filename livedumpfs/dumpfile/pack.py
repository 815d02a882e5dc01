# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of a dump into a kdump: read and compressed by several threads, written by one."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from livedumpfs.core.capi import check, ffi, lib
from livedumpfs.dumpfile.checksums import OnProgress
from livedumpfs.dumpfile.destination import PIECE, Placed
from livedumpfs.dumpfile.pages import Descriptors
from livedumpfs.dumpfile.reader import DumpFile
from livedumpfs.dumpfile.stored import state_runs
from livedumpfs.formats import KdumpPlan, table
from livedumpfs.formats.kdump import DESCRIPTOR
from livedumpfs.thread import needing_threads
from livedumpfs.units import PAGE_SIZE

_AHEAD: Final = 2
"""Pieces for each thread that wait for it or for the writer."""


class Packed(NamedTuple):
    """One run of pages of a state. `descriptors` is None for pages that are missing; offsets in it
    count from the start of `data`, and size 0 says: zeros."""

    offset: int
    descriptors: Descriptors | None
    data: memoryview


class KdumpWriter:
    """Writes pages and descriptors; the granule table is in `entries` then, and `end` is the size
    of the file."""

    def __init__(self, dump: DumpFile, plan: KdumpPlan, output: Placed) -> None:
        self._dump, self._plan, self._output = dump, plan, output
        self.entries = dump.entries.copy()
        self.entries["where"] = 0
        self.entries["stored"] = 0
        self.end = plan.data_offset + PAGE_SIZE

    def run(self, threads: int, progress: OnProgress | None) -> None:
        """All pages. OSError, DamagedPage: the dump cannot be read; MachineError EAGAIN: no
        threads; errors of the output."""
        size = self._dump.arena_size
        waiting: deque[tuple[int, Future[list[Packed]]]] = deque()
        with ThreadPoolExecutor(max_workers=threads) as pool:
            try:
                for offset in range(0, size, PIECE):
                    length = min(PIECE, size - offset)
                    with needing_threads(f"compress {self._dump.path}"):
                        work = pool.submit(self._pack, offset, length)
                    waiting.append((offset + length, work))
                    if len(waiting) > threads * _AHEAD:
                        self._finish(*waiting.popleft(), progress)
                while waiting:
                    self._finish(*waiting.popleft(), progress)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _finish(self, end: int, work: Future[list[Packed]], progress: OnProgress | None) -> None:
        for packed in work.result():
            self._append(packed)
        if progress is not None:
            progress(end, self._dump.arena_size)

    # ------------------------------------------------------------ in the threads

    def _pack(self, offset: int, length: int) -> list[Packed]:
        return [self._pack_run(*run) for run in state_runs(self._dump, offset, length)]

    def _pack_run(self, offset: int, size: int, state: int) -> Packed:
        nothing = memoryview(b"")
        count = size // PAGE_SIZE
        if state not in (table.SAVED, table.HOLE):
            return Packed(offset, None, nothing)
        found = np.zeros(count, DESCRIPTOR)
        if state == table.HOLE:
            return Packed(offset, found, nothing)
        pages = bytearray(size)
        self._dump.read_stored(offset, memoryview(pages))
        out = bytearray(size)
        used = check(
            lib.ldfs_pages_pack(
                self._plan.codec,
                self._plan.level,
                ffi.from_buffer(pages),
                count,
                ffi.from_buffer(out, require_writable=True),
                ffi.from_buffer("ldfs_page_desc[]", found, require_writable=True),
            ),
            "compress pages",
        )
        return Packed(offset, found, memoryview(out)[:used])

    # ---------------------------------------------------------------- in the one

    def _append(self, packed: Packed) -> None:
        found = packed.descriptors
        if found is None:
            return
        base = self.end
        self._output.write_at(packed.data, base)
        self.end += len(packed.data)
        sizes = found["size"].astype(np.int64)
        found["offset"] += base
        zeros = sizes == 0
        found["offset"][zeros], found["size"][zeros] = self._plan.data_offset, PAGE_SIZE
        for first, index, count in self._places(packed.offset, len(found)):
            place = self._plan.descriptors_offset + index * DESCRIPTOR.itemsize
            self._output.write_at(found[first : first + count].tobytes(), place)
        self._note(packed.offset, sizes, base)

    def _places(self, offset: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(first of those pages, number of its descriptor, pages) of each range that they are in;
        the pages are those of the arena from `offset` on."""
        end = offset + count * PAGE_SIZE
        extents = self._plan.extents
        first = bisect.bisect_right(extents, offset, key=lambda e: e.arena_offset) - 1
        for e in itertools.islice(extents, first, None):
            if e.arena_offset >= end:
                break
            low, high = max(offset, e.arena_offset), min(end, e.arena_offset + e.length)
            index = (e.target_offset + low - e.arena_offset) // PAGE_SIZE
            yield (low - offset) // PAGE_SIZE, index, (high - low) // PAGE_SIZE

    def _note(self, offset: int, sizes: npt.NDArray[np.int64], base: int) -> None:
        """Where the granules' bytes are; a granule may come in several runs."""
        pages = offset // PAGE_SIZE + np.arange(len(sizes))
        granules = pages // (self._dump.granule_size // PAGE_SIZE)
        starts = np.flatnonzero(np.diff(granules, prepend=-1))
        stored = np.add.reduceat(sizes, starts)
        where = base + np.cumsum(sizes)[starts] - sizes[starts]
        touched = granules[starts]
        new = (self.entries["stored"][touched] == 0) & (stored > 0)
        self.entries["where"][touched[new]] = where[new]
        self.entries["stored"][touched] += stored.astype(np.uint32)
