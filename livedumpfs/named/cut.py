# SPDX-License-Identifier: GPL-2.0-or-later
"""Cut: how an array is cut into pieces that lie in the arena one behind the other.

A piece is what is written, compared and kept as a whole: a shard of several chunks where the store
has shards, else a chunk. It has all of the last dimensions, a part of one, and one element of those
before: so its elements are neighbours in memory, which is C-ordered, and it is one range of bytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

CHUNK: Final = 4 << 20
"""Bytes of a chunk at the most, where one row of elements is no larger."""
CHUNKS_OF_A_SHARD: Final = 4


@dataclass(frozen=True)
class ArrayPiece:
    """A part of an array. `offset` in bytes from the array's start."""

    index: tuple[int, ...]
    """Of the piece in the array's grid of pieces."""
    region: tuple[slice, ...]
    """Its elements."""
    offset: int
    length: int
    """Bytes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its elements."""
        return tuple(one.stop - one.start for one in self.region)


@dataclass(frozen=True)
class Cut:
    """Of an array with `shape` whose elements have `itemsize` bytes."""

    shape: tuple[int, ...]
    itemsize: int
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None
    """None: it has no shards."""

    @classmethod
    def of(cls, shape: tuple[int, ...], itemsize: int, *, sharded: bool) -> Cut:
        """The usual one."""
        row, axis = itemsize, len(shape)
        while axis and row * shape[axis - 1] <= CHUNK:
            axis -= 1
            row *= max(shape[axis], 1)
        if axis == 0:  # all of it
            return cls(shape, itemsize, tuple(max(one, 1) for one in shape), None)
        rows = max(1, CHUNK // row)
        before, after = (1,) * (axis - 1), tuple(max(one, 1) for one in shape[axis:])
        chunk = (*before, rows, *after)
        shard = (*before, rows * CHUNKS_OF_A_SHARD, *after) if sharded else None
        return cls(shape, itemsize, chunk, shard)

    @property
    def piece(self) -> tuple[int, ...]:
        """Elements of a whole piece, by dimension."""
        return self.shard or self.chunk

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of pieces, by dimension."""
        return tuple(-(-n // step) for n, step in zip(self.shape, self.piece, strict=True))

    def pieces(self) -> Iterator[ArrayPiece]:
        """In the order in which they lie in memory."""
        for index in itertools.product(*map(range, self.grid)):
            first = [i * step for i, step in zip(index, self.piece, strict=True)]
            end = [
                min(at + step, n) for at, step, n in zip(first, self.piece, self.shape, strict=True)
            ]
            region = tuple(map(slice, first, end))
            count = math.prod(b - a for a, b in zip(first, end, strict=True))
            at = 0
            for n, one in zip(self.shape, first, strict=True):
                at = at * n + one
            yield ArrayPiece(index, region, at * self.itemsize, count * self.itemsize)
