# SPDX-License-Identifier: GPL-2.0-or-later
"""Index: of which chunks an image is made, as a .caibx file of casync says it.

The format is casync's (caformat.h): little-endian; an index header of 48 bytes, a table with one
item for each chunk, and a tail that says the table's size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.errors import InvalidDump
from livedumpfs.stores.chunk import CHUNK_MOST, DIGEST, ID_SIZE, Digest

_HEADER: Final = struct.Struct("<6Q")  # size, type, feature flags, chunk size: least, usual, most
HEADER_SIZE: Final = _HEADER.size
_TABLE: Final = struct.Struct("<2Q")  # all ones, type
_TAIL: Final = struct.Struct("<5Q")  # 0, 0, where the table starts, its size, mark
_ITEM: Final = np.dtype([("end", "<u8"), ("id", "u1", ID_SIZE)])

_INDEX_TYPE: Final = 0x96824D9C7B129FF9
_TABLE_TYPE: Final = 0xE75B9E112F17417D
_TAIL_MARK: Final = 0x4B4F050E5549ECD1
_SHA512_256: Final = 0x2000000000000000
_ENDLESS: Final = (1 << 64) - 1
_IMAGE_MOST: Final = 1 << 60


@dataclass(frozen=True)
class Index:
    """The chunks of one image, in order.

    `ends`: uint64[n], ascending: chunk i has bytes [ends[i-1], ends[i]) of the image. `ids`:
    uint8[n, 32]. `sizes`: bytes of a chunk, the least, usual and most; all equal where all chunks
    but the last have that size.
    """

    sizes: tuple[int, int, int]
    ends: npt.NDArray[np.uint64]
    ids: npt.NDArray[np.uint8]
    digest: Digest = DIGEST

    @classmethod
    def fixed(
        cls, size: int, chunk_size: int, ids: npt.NDArray[np.uint8], digest: Digest = DIGEST
    ) -> Index:
        """Of an image of `size` bytes in chunks of one size, the last one shorter."""
        count = -(-size // chunk_size)
        if ids.shape != (count, ID_SIZE):
            raise ValueError(f"{ids.shape} ids for {count} chunks")
        ends = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(chunk_size)
        if count:
            ends[-1] = size
        return cls((chunk_size,) * 3, ends, ids, digest)

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def chunk_size(self) -> int:
        """Bytes of every chunk but the last; 0: they differ (content-defined chunking)."""
        least, usual, most = self.sizes
        return most if least == usual == most else 0

    @property
    def longest(self) -> int:
        """Bytes of the longest chunk that it has."""
        lengths = np.diff(self.ends, prepend=np.uint64(0))
        return int(lengths.max()) if len(self.ends) else 0

    def __len__(self) -> int:
        return len(self.ends)

    def id(self, number: int) -> bytes:
        """Of chunk `number`."""
        return bytes(self.ids[number])

    def start(self, number: int) -> int:
        """Where chunk `number` starts in the image."""
        return int(self.ends[number - 1]) if number else 0

    def find(self, offset: int) -> int:
        """The number of the chunk that has byte `offset` of the image."""
        if self.chunk_size:
            return offset // self.chunk_size
        return int(np.searchsorted(self.ends, np.uint64(offset), side="right"))

    def unique(self) -> set[bytes]:
        """The ids, each once."""
        return unique_ids(self.ids)

    def pack(self) -> bytes:
        """The .caibx file."""
        flags = _SHA512_256 if self.digest == "sha512_256" else 0
        items = np.empty(len(self), _ITEM)
        items["end"], items["id"] = self.ends, self.ids
        table = _TABLE.size + items.nbytes + _TAIL.size
        return b"".join(
            (
                _HEADER.pack(_HEADER.size, _INDEX_TYPE, flags, *self.sizes),
                _TABLE.pack(_ENDLESS, _TABLE_TYPE),
                items.tobytes(),
                _TAIL.pack(0, 0, _HEADER.size, table, _TAIL_MARK),
            )
        )


def unique_ids(ids: npt.NDArray[np.uint8]) -> set[bytes]:
    """Each once. `ids`: uint8[n, 32]."""
    whole = np.ascontiguousarray(ids).view(f"V{ID_SIZE}").reshape(-1)
    return set(whole.tolist())


def is_index(head: bytes) -> bool:
    """Whether a file that starts with these HEADER_SIZE bytes is meant to be an index."""
    return head[:16] == struct.pack("<2Q", HEADER_SIZE, _INDEX_TYPE)


def parse_index(data: bytes) -> Index:
    """The index in a .caibx file. InvalidDump: it is none, or damaged."""
    if len(data) < _HEADER.size + _TABLE.size + _TAIL.size:
        raise InvalidDump("it is too short for an index of casync")
    size, kind, flags, *sizes = _HEADER.unpack_from(data)
    if (size, kind) != (_HEADER.size, _INDEX_TYPE):
        raise InvalidDump("it is no index of casync")
    body = len(data) - _HEADER.size - _TABLE.size - _TAIL.size
    tail = (0, 0, _HEADER.size, len(data) - _HEADER.size, _TAIL_MARK)
    if (
        body % _ITEM.itemsize
        or _TABLE.unpack_from(data, _HEADER.size) != (_ENDLESS, _TABLE_TYPE)
        or _TAIL.unpack_from(data, len(data) - _TAIL.size) != tail
    ):
        raise InvalidDump("its table of chunks is cut off or damaged")
    items = np.frombuffer(data, _ITEM, body // _ITEM.itemsize, _HEADER.size + _TABLE.size)
    digest: Digest = "sha512_256" if flags & _SHA512_256 else "sha256"
    found = Index((sizes[0], sizes[1], sizes[2]), items["end"].copy(), items["id"].copy(), digest)
    _check(found)
    return found


def _check(index: Index) -> None:
    least, _, most = index.sizes
    ends = index.ends
    if not 0 < least <= most <= CHUNK_MOST:
        raise InvalidDump("its chunks have an impossible size")
    if len(ends) and int(ends.max()) > _IMAGE_MOST:
        raise InvalidDump("its image is impossibly large")
    lengths = np.diff(ends.astype(np.int64), prepend=np.int64(0))
    if len(ends) and (lengths.min() <= 0 or lengths.max() > most):
        raise InvalidDump("its chunks have an impossible order")
    if index.chunk_size and len(ends) and (lengths[:-1] != most).any():
        raise InvalidDump("its chunks have not the size that it says")
