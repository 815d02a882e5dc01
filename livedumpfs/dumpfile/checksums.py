# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a whole dump back: every saved granule against its checksum, every hole against zero."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import xxhash

from livedumpfs.dumpfile.granules import Granules, runs
from livedumpfs.formats import table
from livedumpfs.thread import needing_threads
from livedumpfs.units import PAGE_SIZE

PIECE: Final = 4 << 20
"""Bytes that one thread reads at once; more is never in memory for one."""

OnProgress = Callable[[int, int], None]
"""progress(bytes looked at, bytes of the arena); called from one thread at a time."""


@dataclass(frozen=True)
class ChecksumReport:
    """What reading everything back showed. Ranges are [first, end) of arena pages, in order."""

    checked: int
    """Granules whose checksum was right."""
    bytes_checked: int
    holes: int
    """Granules that are holes, and read as zeros."""
    bad: list[tuple[int, int]]
    """Saved, and the bytes are others now."""
    stale: list[tuple[int, int]]
    """Holes where the target has something other than zeros."""
    unreadable: list[tuple[int, int]]
    """The target gave an I/O error."""

    @property
    def ok(self) -> bool:
        """True when nothing was wrong. Missing and lost granules are the verdict's matter."""
        return not (self.bad or self.stale or self.unreadable)


@dataclass
class _Findings:
    checked: int = 0
    bytes_checked: int = 0
    holes: int = 0
    bad: list[int] = field(default_factory=list)
    stale: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)

    def add(self, other: _Findings) -> None:
        self.checked += other.checked
        self.bytes_checked += other.bytes_checked
        self.holes += other.holes
        self.bad += other.bad
        self.stale += other.stale
        self.unreadable += other.unreadable


def verify_checksums(
    dump: Granules, progress: OnProgress | None = None, *, threads: int = 2
) -> ChecksumReport:
    """Check all that the dump has, with `threads` threads of PIECE bytes each. MachineError EAGAIN:
    there are no threads."""
    check = _Check(dump, progress)
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        try:
            with needing_threads(f"read {dump.path} back"):
                workers = [pool.submit(check.work) for _ in range(max(1, threads))]
            for worker in workers:
                worker.result()
        finally:
            check.stopped = True
    found = check.total
    return ChecksumReport(
        checked=found.checked,
        bytes_checked=found.bytes_checked,
        holes=found.holes,
        bad=_page_ranges(dump, found.bad),
        stale=_page_ranges(dump, found.stale),
        unreadable=_page_ranges(dump, found.unreadable),
    )


def _page_ranges(dump: Granules, granules: list[int]) -> list[tuple[int, int]]:
    chosen = np.zeros(len(dump.entries), dtype=bool)
    chosen[granules] = True
    pages, last = dump.granule_size // PAGE_SIZE, dump.arena_size // PAGE_SIZE
    return [(a * pages, min(b * pages, last)) for a, b in runs(chosen)]


class _Check:
    """The work, in batches of granules that a counter hands out."""

    def __init__(self, dump: Granules, progress: OnProgress | None) -> None:
        self.dump = dump
        self.progress = progress
        self.batch = max(1, PIECE // dump.granule_size)
        self.total = _Findings()
        self.stopped = False
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._done = 0

    def work(self) -> None:
        """One thread: take batches until there are none."""
        buffer = memoryview(bytearray(min(PIECE, self.batch * self.dump.granule_size)))
        count = len(self.dump.entries)
        while not self.stopped:
            first = next(self._numbers) * self.batch
            if first >= count:
                return
            end = min(first + self.batch, count)
            self._finish(self._check_batch(first, end, buffer), first, end)

    def _finish(self, found: _Findings, first: int, end: int) -> None:
        with self._lock:
            self.total.add(found)
            size = self.dump.granule_size
            self._done += min(end * size, self.dump.arena_size) - first * size
            if self.progress is not None:
                self.progress(self._done, self.dump.arena_size)

    def _check_batch(self, first: int, end: int, buffer: memoryview) -> _Findings:
        found = _Findings()
        states = self.dump.entries["state"][first:end]
        for low, high in runs(states == table.SAVED):
            self._check_saved(first + low, first + high, buffer, found)
        for low, high in runs(states == table.HOLE):
            self._check_holes(first + low, first + high, buffer, found)
        return found

    def _check_saved(self, first: int, end: int, buffer: memoryview, found: _Findings) -> None:
        size = self.dump.granule_size
        if size > PIECE:
            for granule in range(first, end):
                self._check_large(granule, buffer, found)
            return
        view = buffer[: min(end * size, self.dump.arena_size) - first * size]
        try:
            self.dump.read_stored(first * size, view)
        except OSError:
            self._check_singly(first, end, view, found)
            return
        for granule, checksum in enumerate(
            self.dump.entries["checksum"][first:end].tolist(), first
        ):
            piece = view[(granule - first) * size : (granule - first + 1) * size]
            self._judge(granule, xxhash.xxh3_64_intdigest(piece) == checksum, found)

    def _check_singly(self, first: int, end: int, buffer: memoryview, found: _Findings) -> None:
        """After an I/O error in a run: which granules can be read."""
        for granule in range(first, end):
            view = buffer[: self.dump.granule_length(granule)]
            try:
                self.dump.read_stored(granule * self.dump.granule_size, view)
            except OSError:
                found.unreadable.append(granule)
                continue
            good = xxhash.xxh3_64_intdigest(view) == int(self.dump.entries["checksum"][granule])
            self._judge(granule, good, found)

    def _check_large(self, granule: int, buffer: memoryview, found: _Findings) -> None:
        digest = xxhash.xxh3_64()
        try:
            for piece in self._pieces(granule, buffer):
                digest.update(piece)
        except OSError:
            found.unreadable.append(granule)
            return
        self._judge(
            granule, digest.intdigest() == int(self.dump.entries["checksum"][granule]), found
        )

    def _judge(self, granule: int, good: bool, found: _Findings) -> None:
        if good:
            found.checked += 1
            found.bytes_checked += self.dump.granule_length(granule)
        else:
            found.bad.append(granule)

    def _check_holes(self, first: int, end: int, buffer: memoryview, found: _Findings) -> None:
        size, arena = self.dump.granule_size, self.dump.arena_size
        if self.dump.is_stored_hole(first * size, min(end * size, arena) - first * size):
            found.holes += end - first
            return
        for granule in range(first, end):
            self._check_hole(granule, buffer, found)

    def _check_hole(self, granule: int, buffer: memoryview, found: _Findings) -> None:
        try:
            for piece in self._pieces(granule, buffer):
                if np.frombuffer(piece, dtype=np.uint64).any():
                    found.stale.append(granule)
                    return
        except OSError:
            found.unreadable.append(granule)
            return
        found.holes += 1

    def _pieces(self, granule: int, buffer: memoryview) -> Iterator[memoryview]:
        """The stored bytes of a granule, at most PIECE at a time, each in the same buffer.
        OSError: they cannot be read."""
        start, length = granule * self.dump.granule_size, self.dump.granule_length(granule)
        for position in range(0, length, PIECE):
            view = buffer[: min(PIECE, length - position)]
            self.dump.read_stored(start + position, view)
            yield view
