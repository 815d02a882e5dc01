# SPDX-License-Identifier: GPL-2.0-or-later
"""GranuleSums: XXH3-64 of the granules of an image as they came, for its granule table to be
compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash


@dataclass(frozen=True)
class GranulePlaces:
    """Where they are, in chunks: the first chunk of the memory, chunks of a granule, granules."""

    start: int
    chunks: int
    count: int


class GranuleSums:
    """One for each granule. The caller keeps threads apart."""

    def __init__(self, granules: GranulePlaces) -> None:
        self._granules = granules
        self.values: npt.NDArray[np.uint64] = np.zeros(granules.count, np.uint64)
        self._pieces: npt.NDArray[np.uint32] = np.zeros(granules.count, np.uint32)

    def of_piece(self, first: int, view: memoryview, size: int) -> tuple[int, list[int]]:
        """Of the granules that are whole in the bytes of chunks from number `first` on: number of
        the first one, and their sums. Any thread may call. `size`: bytes of a chunk."""
        where = self._granules
        if first < where.start:
            return 0, []
        begin = -(-(first - where.start) // where.chunks)
        at = (where.start + begin * where.chunks - first) * size
        step = where.chunks * size
        sums: list[int] = []
        while at < len(view) and begin + len(sums) < where.count:
            last = begin + len(sums) == where.count - 1
            if at + step > len(view) and not last:
                break
            sums.append(xxhash.xxh3_64_intdigest(view[at : at + step]))
            at += step
        return begin, sums

    def keep(self, first: int, sums: list[int], piece: int) -> None:
        """They came with that piece; a later one counts more."""
        span = slice(first, first + len(sums))
        later = self._pieces[span] <= piece
        self.values[span][later] = np.array(sums, np.uint64)[later]
        self._pieces[span][later] = piece

    def whole(self, given: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """For each granule: whether all of its chunks came last in one piece that was summed.
        `given`: number of the last piece, of each chunk of the image."""
        where = self._granules
        room = np.zeros(where.count * where.chunks, np.uint32)
        memory = given[where.start : where.start + len(room)]
        room[: len(memory)] = memory
        if len(memory):
            room[len(memory) :] = memory[-1]  # behind the end of a shorter last granule
        same: npt.NDArray[np.bool_] = (room.reshape(-1, where.chunks) == self._pieces[:, None]).all(
            axis=1
        )
        return same & (self._pieces > 0)
