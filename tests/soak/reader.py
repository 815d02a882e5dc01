# SPDX-License-Identifier: GPL-2.0-or-later
"""Reader: reads the snapshot of a dump that is under way, and compares it with the reference."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import numpy as np
from machine import NAME
from oracle import Reference, different_rows

from livedumpfs.dump import Snapshot
from livedumpfs.units import PAGE_SIZE

_COUNTS = (1, 1, 3, 64, 512, 2048)
"""Pages of a piece."""


class Reader:
    """By one of the three ways that a snapshot can be read, chosen anew each time."""

    def __init__(self, snapshot: Snapshot, reference: Reference, seed: str) -> None:
        self.pages = 0
        """That were compared."""
        self.different: list[int] = []
        self.refused: list[tuple[int, int]] = []
        """Page ranges [first, end) that gave EIO."""
        self._snapshot = snapshot
        self._expected = reference.pages()
        self._random = random.Random(seed)

    def step(self) -> bool:
        """One piece; False: released, or it has read as much as there is: the dump wants the cores,
        too."""
        r, last = self._random, len(self._expected)
        if self.pages > last:
            return False
        count = min(r.choice(_COUNTS), last)
        try:
            self._read(r.randint(0, last - count), count)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            return False
        return True

    def read_all(self, lost_pages: Callable[[], list[list[int]]]) -> None:
        """Everything piece by piece; where that is refused, what lies between lost pages."""
        for first in range(0, len(self._expected), _COUNTS[-1]):
            end = min(first + _COUNTS[-1], len(self._expected))
            if not self._read(first, end - first):
                self._read_between(first, end, lost_pages())

    def _read_between(self, first: int, end: int, lost: list[list[int]]) -> None:
        for a, b in lost:
            if a >= end:
                break
            if a > first:
                self._read(first, a - first)
            first = max(first, b)
        if first < end:
            self._read(first, end - first)

    def _read(self, first: int, count: int) -> bool:
        """Compare so many pages from `first` on; False: EIO."""
        try:
            data = self._bytes(first, count)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.refused.append((first, first + count))
            return False
        found = np.frombuffer(data, dtype=np.uint8).reshape(-1, PAGE_SIZE)
        wrong = different_rows(found, self._expected[first : first + count])
        self.different += (wrong + first).tolist()
        self.pages += count
        return True

    def _bytes(self, first: int, count: int) -> bytes:
        if count == len(self._expected) and self._random.random() < 0.5:
            whole: bytes = self._snapshot.array(NAME).tobytes()
            return whole
        if self._random.random() < 0.7:
            return self._snapshot.read(first * PAGE_SIZE, count * PAGE_SIZE)
        with self._snapshot.file() as file:
            file.seek(first * PAGE_SIZE)
            out = bytearray()
            while len(out) < count * PAGE_SIZE:
                piece = file.read(count * PAGE_SIZE - len(out))
                assert piece, "the snapshot's file ends too early"
                out += piece
        return bytes(out)
