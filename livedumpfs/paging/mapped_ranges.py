# SPDX-License-Identifier: GPL-2.0-or-later
"""All that a kernel's page tables map, as ranges that are contiguous on both sides."""

from __future__ import annotations

import errno
from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.errors import TargetError
from livedumpfs.paging.table_form import ALL_BITS, ENTRY, ReadPhysical, TableForm

_Numbers = npt.NDArray[np.uint64]
_LOST: Final = (errno.EIO, errno.EFAULT)
Ranges = npt.NDArray[np.uint64]
"""Of shape (n, 3): virtual address, physical address, bytes; by virtual addresses."""

MOST_RANGES: Final = 1 << 18
"""Of more, the smallest are left out. A kernel has some thousands: mostly single pages of its
stacks and modules."""
_MOST_FOUND: Final = 1 << 22
"""Before ranges of several tables are merged."""
_MOST_TABLES: Final = 1 << 20
"""They map 2 TiB by pages of 4 KiB. A hostile memory has all its pages for tables."""


def mapped_ranges(read: ReadPhysical, form: TableForm, table: int) -> Ranges:
    """What the kernel's part of the tree maps, whether there is memory or not. `table`: physical
    address of the first table.

    A table that is lost, or no memory (OSError EIO, EFAULT), or there in part, maps nothing or that
    part; without the first one there is nothing to begin with, and what `read` raises is raised, as
    every other error is. A table that the tree has twice counts once: kernels fill an area so (the
    shadow of KASAN, espfix of x86), and a damaged tree may contain itself."""
    walk = _Walk(read, form)
    walk.below(form.levels - 1, table, (1 << 64) - (1 << form.address_bits))
    return _largest(_merged(np.concatenate(walk.found)))


class _Walk:
    def __init__(self, read: ReadPhysical, form: TableForm) -> None:
        self._read = read
        self._form = form
        self._seen: set[int] = set()
        self._count = 0
        self.found: list[Ranges] = [np.empty((0, 3), np.uint64)]

    def below(self, level: int, table: int, virtual: int) -> None:
        """Of the table of `level` at a physical address; `virtual`: of its first entry."""
        if len(self._seen) > _MOST_TABLES or self._count > _MOST_FOUND:
            return
        self._seen.add(table)
        starts, entries = self._present(level, table, virtual)
        form = self._form
        if level == 0:
            self._add(level, starts, form.page(entries, starts))
            return
        memory = form.names_memory(entries) != 0
        self._add(level, starts[memory], form.target(entries[memory]))
        tables = form.target(entries[~memory]).tolist()
        # The kernel itself lies highest.
        for start, one in zip(reversed(starts[~memory].tolist()), reversed(tables), strict=True):
            if one not in self._seen:
                self.below(level - 1, one, start)

    def _present(self, level: int, table: int, virtual: int) -> tuple[_Numbers, _Numbers]:
        """Virtual addresses and entries of those that name something."""
        form = self._form
        try:
            found = self._read(table, ENTRY << form.index_bits)
        except OSError as error:
            lost = error.errno in _LOST and not isinstance(error, TargetError)
            if level == form.levels - 1 or not lost:
                raise
            found = b""
        entries = np.frombuffer(found[: len(found) // ENTRY * ENTRY], "<u8")
        starts = np.arange(len(entries), dtype=np.uint64) << np.uint64(form.shift(level))
        starts += np.uint64(virtual)
        chosen = (form.present(entries) != 0) & (starts >= np.uint64(form.kernel_begin))
        return starts[chosen], entries[chosen]

    def _add(self, level: int, starts: _Numbers, targets: _Numbers) -> None:
        size = 1 << self._form.shift(level)
        physical = targets & (ALL_BITS ^ size - 1)
        ranges = np.stack((starts, physical, np.full(len(starts), size, np.uint64)), axis=1)
        self.found.append(_merged(ranges))
        self._count += len(self.found[-1])


def _merged(ranges: Ranges) -> Ranges:
    """Sorted, and those that follow each other on both sides as one."""
    ranges = ranges[np.argsort(ranges[:, 0])]
    if len(ranges) == 0:
        return ranges
    ends = ranges[:-1, :2] + ranges[:-1, 2:]
    begins = np.flatnonzero(np.concatenate(([True], (ends != ranges[1:, :2]).any(axis=1))))
    return np.column_stack((ranges[begins, :2], np.add.reduceat(ranges[:, 2], begins)))


def _largest(ranges: Ranges) -> Ranges:
    if len(ranges) <= MOST_RANGES:
        return ranges
    chosen = np.argsort(ranges[:, 2], kind="stable")[-MOST_RANGES:]
    return ranges[np.sort(chosen)]
