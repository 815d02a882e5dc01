# SPDX-License-Identifier: GPL-2.0-or-later
"""Which chunks lie where in packs: the index object of one pack, and the table of all packs.

An index object is little-endian: a header of 24 bytes (mark, version, number of chunks, bytes of
the pack), an item of 40 bytes for each chunk (id, offset, length), and the SHA-512/256 of all that.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.errors import InvalidDump
from livedumpfs.stores.chunk import CHUNK_MOST, ID_SIZE

_HEADER: Final = struct.Struct("<8sIIQ")
_MARK: Final = b"LDFSPACK"
_VERSION: Final = 1
ITEM: Final = np.dtype([("id", "u1", ID_SIZE), ("offset", "<u4"), ("length", "<u4")])
_SUM: Final = 32
_KEY: Final = 8
"""Bytes of an id by which chunks are sorted."""

Items = npt.NDArray[np.void]
"""Of dtype ITEM."""


def pack_items(items: Items, size: int) -> bytes:
    """The index object of a pack of `size` bytes."""
    body = _HEADER.pack(_MARK, _VERSION, len(items), size) + items.tobytes()
    return body + hashlib.new("sha512_256", body).digest()


def parse_items(data: bytes) -> Items:
    """InvalidDump: it is no index of a pack, is damaged, or names bytes that the pack has not."""
    if len(data) < _HEADER.size + _SUM:
        raise InvalidDump("it is too short for an index of a pack")
    mark, version, count, size = _HEADER.unpack_from(data)
    if mark != _MARK:
        raise InvalidDump("it is no index of a pack")
    if version > _VERSION:
        raise InvalidDump(f"it has version {version}: a newer livedumpfs is needed")
    body = data[:-_SUM]
    if len(body) != _HEADER.size + count * ITEM.itemsize:
        raise InvalidDump("it is cut off")
    if hashlib.new("sha512_256", body).digest() != data[-_SUM:]:
        raise InvalidDump("its checksum is wrong")
    items = np.frombuffer(body, ITEM, count, _HEADER.size)
    ends = items["offset"].astype(np.uint64) + items["length"]
    if count and int(ends.max()) > size:
        raise InvalidDump("it names bytes that its pack has not")
    if count and int(items["length"].max()) > stored_most(CHUNK_MOST):
        raise InvalidDump("it names a chunk that is too long")
    return items


def stored_most(size: int) -> int:
    """Most bytes of the stored form of a chunk of `size` bytes: what cannot be compressed becomes a
    little longer, and a seal is some bytes."""
    return size + (size >> 6) + 4096


@dataclass(frozen=True)
class Spot:
    """Where a chunk is."""

    pack: str
    offset: int
    length: int


class PackTable:
    """All chunks of a number of packs, sorted: 44 bytes for each."""

    def __init__(self, packs: Sequence[tuple[str, Items]]) -> None:
        items = np.concatenate([one for _, one in packs]) if packs else np.empty(0, ITEM)
        of = np.repeat(np.arange(len(packs), dtype=np.uint32), [len(one) for _, one in packs])
        self._sort([name for name, _ in packs], items, of)

    def _sort(self, names: list[str], items: Items, of: npt.NDArray[np.uint32]) -> None:
        self.names = names
        """The packs."""
        keys = np.ascontiguousarray(items["id"][:, :_KEY]).view("<u8").reshape(-1)
        order = np.argsort(keys, kind="stable")
        self._keys, self._of = keys[order], of[order]
        self._rests = np.ascontiguousarray(items["id"][order, _KEY:])
        self._offsets, self._lengths = items["offset"][order], items["length"][order]

    def with_all(self, other: PackTable) -> PackTable:
        """The chunks of both."""
        found = PackTable(())
        every = np.arange(len(self)), np.arange(len(other))
        items = np.concatenate([self._items(every[0]), other._items(every[1])])
        of = np.concatenate([self._of, other._of + np.uint32(len(self.names))])
        found._sort([*self.names, *other.names], items, of)
        return found

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, identity: bytes) -> list[Spot]:
        """Where it is: in no pack, in one, or in several of dumps that were made at once."""
        key = np.uint64(int.from_bytes(identity[:_KEY], "little"))
        at, found = int(self._keys.searchsorted(key)), []
        while at < len(self._keys) and self._keys[at] == key:
            if self._rests[at].tobytes() == identity[_KEY:]:
                found.append(self._spot(at))
            at += 1
        return found

    def _spot(self, at: int) -> Spot:
        return Spot(self.names[self._of[at]], int(self._offsets[at]), int(self._lengths[at]))

    def _id(self, at: int) -> bytes:
        found: bytes = self._keys[at].tobytes() + self._rests[at].tobytes()
        return found

    def every(self) -> Iterator[tuple[bytes, int]]:
        """All, by id, each once: id, bytes in its pack."""
        last = b""
        for at in range(len(self)):
            identity = self._id(at)
            if identity != last:
                yield identity, int(self._lengths[at])
            last = identity

    def items(self, pack: str) -> Items:
        """What the index of that pack says, by offset."""
        those = np.flatnonzero(self._of == self.names.index(pack))
        those = those[np.argsort(self._offsets[those])]
        return self._items(those)

    def _items(self, those: npt.NDArray[np.intp]) -> Items:
        found = np.empty(len(those), ITEM)
        found["id"][:, :_KEY] = self._keys[those].view(np.uint8).reshape(-1, _KEY)
        found["id"][:, _KEY:] = self._rests[those]
        found["offset"], found["length"] = self._offsets[those], self._lengths[those]
        return found

    def mostly(self, ids: Collection[bytes], part: float) -> list[str]:
        """The packs of which more than `part` is chunks with these ids, by bytes; and those of
        which no chunk is named."""
        marked = np.fromiter((self._id(at) in ids for at in range(len(self))), bool, len(self))
        lengths = self._lengths.astype(np.float64)
        count = len(self.names)
        every = np.bincount(self._of, lengths, minlength=count)
        theirs = np.bincount(self._of, lengths * marked, minlength=count)
        return [self.names[at] for at in np.flatnonzero((theirs > every * part) | (every == 0))]


class GrowingTable:
    """Packs that come one after the other. Its tables are each twice as long as the next, or more,
    so that they are few. One thread adds, any number look."""

    def __init__(self) -> None:
        self._tables: tuple[PackTable, ...] = ()

    def add(self, name: str, items: Items) -> None:
        """One pack."""
        *tables, last = *self._tables, PackTable([(name, items)])
        while tables and len(tables[-1]) < 2 * len(last):
            last = tables.pop().with_all(last)
        self._tables = *tables, last

    def find(self, identity: bytes) -> list[Spot]:
        """See PackTable."""
        return [spot for table in self._tables for spot in table.find(identity)]

    def names(self) -> list[str]:
        """The packs."""
        return [name for table in self._tables for name in table.names]
