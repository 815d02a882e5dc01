# SPDX-License-Identifier: GPL-2.0-or-later
"""Granules: what a target has of the memory in a dump, granule by granule, by the dump's table."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from livedumpfs.dumpfile.pages import PackedPages
from livedumpfs.dumpfile.source import Source
from livedumpfs.formats import table
from livedumpfs.formats.plan import Extent
from livedumpfs.formats.table import Entries
from livedumpfs.units import PAGE_SIZE


class Granules:
    """The part of a dump that holds memory. All offsets and lengths are bytes, in the arena unless
    said otherwise; any number of threads may read."""

    def __init__(
        self,
        target: Source,
        extents: Sequence[Extent],
        entries: Entries,
        packed: PackedPages | None,
        *,
        granule_size: int,
        arena_size: int,
    ) -> None:
        """`extents`: where on the target which part of the arena lies, sorted by the arena, without
        gaps; `packed`: the pages of a kdump, whose extents then count descriptors. All of it has
        been checked."""
        self._target = target
        self._packed = packed
        self.path: str = target.path
        self.granule_size: int = granule_size
        self.arena_size: int = arena_size
        self.extents = extents
        self.entries: Entries = entries
        """One for each granule, in order."""
        self._starts = np.array([e.arena_offset for e in extents])

    def state_counts(self) -> dict[int, int]:
        """Granules in each of the states ARMED (missing), SAVED, HOLE and LOST."""
        counts = np.bincount(self.entries["state"], minlength=table.LOST + 1)
        return {state: int(counts[state]) for state in table.STATE_NAMES}

    def pfn_ranges(self, state: int) -> list[tuple[int, int]]:
        """Page ranges [first, end) of the arena whose granules are in that state, in order."""
        pages, last = self.granule_size // PAGE_SIZE, self.arena_size // PAGE_SIZE
        return [(a * pages, min(b * pages, last)) for a, b in runs(self.entries["state"] == state)]

    def missing(self) -> list[tuple[int, int]]:
        """Bytes [start, end) of the arena that are lost or were never saved, in order."""
        states = self.entries["state"]
        gone = runs((states != table.SAVED) & (states != table.HOLE))
        size = self.granule_size
        return [(first * size, min(end * size, self.arena_size)) for first, end in gone]

    def granule_length(self, granule: int) -> int:
        """Bytes of that granule: the last one may be shorter."""
        return min(self.granule_size, self.arena_size - granule * self.granule_size)

    def read_into(self, offset: int, view: memoryview) -> None:
        """As read_arena, into a writable buffer of bytes."""
        if not view:
            return
        if offset < 0 or offset + len(view) > self.arena_size:
            raise ValueError(f"[{offset:#x}, +{len(view):#x}) is not within the arena")
        self.check_there(offset, len(view))
        size = self.granule_size
        first, end = offset // size, (offset + len(view) - 1) // size + 1
        states = self.entries["state"][first:end]
        boundaries = [*(np.flatnonzero(np.diff(states)) + 1).tolist(), end - first]
        begin = 0
        for boundary in boundaries:
            low = max(offset, (first + begin) * size)
            high = min(offset + len(view), (first + boundary) * size)
            part = view[low - offset : high - offset]
            if states[begin] == table.HOLE:
                np.frombuffer(part, np.uint8)[:] = 0
            else:
                self.read_stored(low, part)
            begin = boundary

    def _missing(self, offset: int) -> OSError:
        state = int(self.entries["state"][offset // self.granule_size])
        why = "is lost" if state == table.LOST else "was not saved"
        return OSError(errno.EIO, f"page {offset // PAGE_SIZE:#x} of {self.path} {why}")

    def target_pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(arena offset, target offset, bytes) of the pieces that [offset, +length) lies in; of a
        kdump PAGE_SIZE times the number of the page's descriptor is the target offset."""
        index = int(np.searchsorted(self._starts, offset, side="right")) - 1
        while length > 0:
            extent = self.extents[index]
            inside = offset - extent.arena_offset
            size = min(length, extent.length - inside)
            yield offset, extent.target_offset + inside, size
            offset, length, index = offset + size, length - size, index + 1

    def read_stored(self, offset: int, view: memoryview) -> None:
        """What the target has for arena [offset, ...), whatever the table says of it. OSError, of
        a kdump also DamagedPage."""
        for position, place, size in self.target_pieces(offset, len(view)):
            part = view[position - offset : position - offset + size]
            if self._packed is not None:
                _read_packed(self._packed, place, part, position // PAGE_SIZE)
            elif self._target.read_into(place, part) != size:
                raise OSError(errno.EIO, f"{self.path} ends before page {position // PAGE_SIZE:#x}")

    def is_stored_hole(self, offset: int, length: int) -> bool:
        """True when the target's file system, or the descriptors of a kdump, know that all of arena
        [offset, +length) is zeros."""
        pieces = self.target_pieces(offset, length)
        if self._packed is not None:
            return all(
                self._packed.all_zeros(place // PAGE_SIZE, pages_of(place, size))
                for _, place, size in pieces
            )
        return all(self._target.is_hole(place, size) for _, place, size in pieces)

    def known_equal(
        self, offset: int, other: Granules, other_offset: int, length: int
    ) -> list[tuple[int, int]]:
        """[start, end) of parts of arena [offset, +length), length > 0, counted from `offset`, in
        order, for which the targets have the same bytes as for [other_offset, +length) of `other`:
        known by a store's chunks, without reading."""
        here, there = self._in_one_piece(offset, length), other._in_one_piece(other_offset, length)
        if here is None or there is None:
            return []
        return self._target.known_equal(here, other._target, there, length)

    def place(self, offset: int, length: int) -> tuple[int, int] | None:
        """(descriptor, offset in it) where arena [offset, +length), length > 0, lies as it is and
        in one piece; None: nowhere."""
        first = self._in_one_piece(offset, length)
        return None if first is None or self._target.fd < 0 else (self._target.fd, first)

    def _in_one_piece(self, offset: int, length: int) -> int | None:
        """Where on the target it lies as it is; None: not in one piece, or packed."""
        if self._packed is not None:
            return None
        (_, first, size), *more = self.target_pieces(offset, length)
        end = first + size
        for _, place, size in more:
            if place != end:
                return None
            end += size
        return first

    def check_there(self, offset: int, length: int) -> None:
        """OSError EIO unless all of arena [offset, +length), length > 0, was saved."""
        size = self.granule_size
        first = offset // size
        states = self.entries["state"][first : (offset + length - 1) // size + 1]
        gone = np.flatnonzero((states != table.SAVED) & (states != table.HOLE))
        if len(gone):
            raise self._missing(max(offset, (first + int(gone[0])) * size))

    def holes(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """(arena offset, bytes) of what is zeros in arena [offset, +length), length > 0, whatever
        the target has there; without what its file system knows to be zeros."""
        size, end = self.granule_size, offset + length
        first = offset // size
        states = self.entries["state"][first : (end - 1) // size + 1]
        for low, high in runs(states == table.HOLE):
            at = max(offset, (first + low) * size)
            count = min(end, (first + high) * size) - at
            if not self.is_stored_hole(at, count):
                yield at, count


def _read_packed(packed: PackedPages, place: int, view: memoryview, page: int) -> None:
    """Bytes from `place` on, where page n of the descriptors begins at n * PAGE_SIZE; `page`: what
    the first is called in messages."""
    index, inside = divmod(place, PAGE_SIZE)
    done = 0
    while done < len(view):
        if inside or len(view) - done < PAGE_SIZE:
            # A part of a page: its first, or its last.
            size = min(PAGE_SIZE - inside, len(view) - done)
            buffer = memoryview(bytearray(PAGE_SIZE))
            packed.read(index, buffer, page)
            view[done : done + size] = buffer[inside : inside + size]
            inside = 0
        else:
            size = (len(view) - done) // PAGE_SIZE * PAGE_SIZE
            packed.read(index, view[done : done + size], page)
        pages = -(-size // PAGE_SIZE)
        done, index, page = done + size, index + pages, page + pages


def pages_of(place: int, length: int) -> int:
    """How many pages [place, +length) lies in."""
    return -(-(place + length) // PAGE_SIZE) - place // PAGE_SIZE


def runs(chosen: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[first, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
