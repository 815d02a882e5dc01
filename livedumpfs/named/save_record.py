# SPDX-License-Identifier: GPL-2.0-or-later
"""SaveRecord: what a group says of the save that made it, and of its pieces. It is the attribute
`livedumpfs` of the group, in JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from livedumpfs.core.array_info import ArrayInfo
from livedumpfs.errors import InvalidDump
from livedumpfs.formats import VerdictWord
from livedumpfs.formats.typed import Natural, typed

KEY: Final = "livedumpfs"
VERSION: Final = 1
DIGEST: Final = 32
"""Hexadecimal digits of a piece's XXH3-128."""

Shape = tuple[Natural, ...]


class Missing(msgspec.Struct, frozen=True):
    """Bytes of an array that the dump lost: zeros stand there."""

    first: Natural
    """From the array's start."""
    end: Natural


class ArrayRecord(msgspec.Struct, frozen=True):
    """One array. Its type is in `dtype` as in a dump: big-endian ones are little-endian in Zarr."""

    dtype: Any
    shape: Shape
    offset: Natural
    """In the arena, in bytes."""
    piece: Shape
    """Elements that have one checksum, by dimension."""
    xxh3_128: str
    """Of the bytes of each piece as they were in memory, in the order of memory."""
    dims: tuple[str, ...] | None = None
    stamps: list[tuple[int, int]] | None = None
    """Size and time of change, in ns, of each piece's file; 0 and 0: there is none, the piece is
    zeros. None: the pieces are no files."""
    missing: list[Missing] = []

    def digest(self, number: int) -> str:
        """Of the piece with that number in the order of memory; "": it has none."""
        return self.xxh3_128[number * DIGEST : (number + 1) * DIGEST]


class SaveRecord(msgspec.Struct, frozen=True):
    """Of one save."""

    version: Annotated[int, Meta(ge=1, le=VERSION)]
    dump_id: str
    verdict: VerdictWord
    host_version: str
    instant: dict[str, int]
    """wall_ns and mono_ns, as in a dump."""
    arena_size: Natural
    arrays: dict[str, ArrayRecord]
    pause_ns: int = 0
    reason: str | None = None
    """Why it is not consistent."""

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def new_id() -> str:
    """Of a save: 32 hexadecimal digits."""
    return os.urandom(16).hex()


def read_record(attributes: Mapping[str, Any]) -> SaveRecord | None:
    """None: the group is not of a save. InvalidDump: what it says makes no sense."""
    if KEY not in attributes:
        return None
    found = typed(attributes[KEY], SaveRecord, "record of a save")
    for name, one in found.arrays.items():
        if len(one.shape) != len(one.piece) or 0 in one.piece:
            raise InvalidDump(f"what it says of array {name!r} makes no sense")
    return found


def array_record(
    info: ArrayInfo,
    piece: tuple[int, ...],
    digests: list[str],
    stamps: list[tuple[int, int]] | None,
    missing: list[Missing],
) -> ArrayRecord:
    """Of an array that was written."""
    said: dict[str, Any] = info.describe()
    return ArrayRecord(
        said["dtype"], info.shape, info.offset, piece, "".join(digests), info.dims, stamps, missing
    )


def bytes_of(info: ArrayInfo) -> int:
    """Size of the array."""
    return math.prod(info.shape) * info.dtype.itemsize
