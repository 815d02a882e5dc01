# SPDX-License-Identifier: GPL-2.0-or-later
"""BaseImage: an image of the store from which the next dump takes what did not change."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from livedumpfs.errors import InvalidDump, LivedumpError
from livedumpfs.formats import elf, superblock, table
from livedumpfs.formats.superblock import Superblock
from livedumpfs.stores.caibx import Index
from livedumpfs.stores.image_head import parse_table
from livedumpfs.stores.store import Store


@dataclass(frozen=True)
class BaseImage:
    """Its name in the store, its chunks and its granule table."""

    name: str
    index: Index
    block: Superblock
    entries: table.Entries
    checked: bool = False
    """The store was seen to have all of its chunks, under the lock that it still has."""

    def unchanged(self, block: Superblock, entries: table.Entries) -> npt.NDArray[np.bool_]:
        """For each granule of the dump with that superblock and table: whether the base has its
        bytes, which both tables must say by the same checksum."""
        sizes = (self.block.granule_size, self.block.arena_size)
        if (block.granule_size, block.arena_size) != sizes:
            return np.zeros(len(entries), np.bool_)
        saved: npt.NDArray[np.bool_] = (entries["state"] == table.SAVED) & (
            self.entries["state"] == table.SAVED
        )
        same: npt.NDArray[np.bool_] = entries["checksum"] == self.entries["checksum"]
        return saved & same


def load_base(store: Store, name: str) -> BaseImage:
    """The dump with exactly that name. InvalidDump: it cannot be a base; TargetError."""
    index = store.index(name)
    if index.chunk_size != store.about.chunk_size:
        raise InvalidDump(f"{store.url}/{name} has chunks of another size than its store")
    if index.digest != store.about.digest:
        raise InvalidDump(f"{store.url}/{name} names its chunks by another hash than its store")
    head = _read(store, index, 0, elf.HEAD_SIZE)
    note = elf.first_note(head)
    notes = _read(store, index, note.offset, note.size)
    at = elf.own_note_position(notes)
    block = superblock.parse(notes[at : at + superblock.SIZE])
    if block.format != "elf" or block.data_offset % index.chunk_size:
        raise InvalidDump(f"{store.url}/{name} has another layout than dumps of a store")
    data = _read(store, index, block.table_offset, block.table_size)
    return BaseImage(name, index, block, parse_table(data, block))


def find_base(store: Store, ids: Sequence[bytes]) -> BaseImage | None:
    """The first of the dumps with these ids that the store has, whole. The caller holds the store's
    lock until the dump is published. None: it has none, or lacks chunks of them: then all is to be
    read, which puts them again."""
    with contextlib.suppress(LivedumpError):
        names = store.names()
        for name in (one for dump_id in ids for one in names if _is_of(one, dump_id)):
            with contextlib.suppress(LivedumpError):
                found = load_base(store, name)
                if found.block.dump_id in ids and store.chunks.has_every(found.index.unique()):
                    return replace(found, checked=True)
    return None


def _is_of(name: str, dump_id: bytes) -> bool:
    """As receive.dump_name makes names."""
    return name.endswith("-" + dump_id.hex()[:8])


def _read(store: Store, index: Index, offset: int, length: int) -> bytes:
    if offset + length > index.size:
        raise InvalidDump("it ends within its description")
    first, last = index.find(offset), index.find(offset + length - 1)
    most = index.sizes[2]
    parts = (store.chunks.get(index.id(i), most, index.digest) for i in range(first, last + 1))
    begin = offset - index.start(first)
    return b"".join(parts)[begin : begin + length]
