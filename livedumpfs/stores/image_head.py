# SPDX-License-Identifier: GPL-2.0-or-later
"""ImageHead: all of an image before its memory, as it comes from a dump that is under way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats import meta as meta_slot
from livedumpfs.formats import superblock, table
from livedumpfs.formats.superblock import Superblock
from livedumpfs.stores.about import check_granule
from livedumpfs.units import format_size

_MOST: Final = 512 << 20
"""More bytes than the longest head has."""
_CHUNKS_MOST: Final = 1 << 27
"""Of one image: its index has 40 bytes for each."""
_LAYOUT: Final = (
    "format",
    "granule_size",
    "granule_count",
    "arena_size",
    "data_offset",
    "total_size",
    "superblock_offset",
    "table_offset",
    "table_size",
    "meta_offsets",
    "meta_room",
)
"""Of a superblock: what stays as it was from the first one to the sealed one."""


class ImageHead:
    """ELF header, notes, superblock, meta slots and granule table. Not for several threads."""

    def __init__(self, chunk_size: int, begun: Callable[[Superblock], object]) -> None:
        """`begun`: called once it is known where all lies."""
        self._chunk_size, self._begun = chunk_size, begun
        self._bytes = bytearray()
        self.block: Superblock | None = None
        """As it was written first: where all lies; not yet sealed."""

    def is_before_memory(self, offset: int) -> bool:
        """Whether byte `offset` of the image is of the head. The superblock comes before all
        memory."""
        return self.block is None or offset < self.block.data_offset

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """What is there already is replaced. InvalidDump, UsageError: it is not of an image that
        this store can take."""
        end = offset + len(data)
        if end > (self.block.data_offset if self.block else _MOST):
            raise InvalidDump("the dump comes in an impossible order")
        if end > len(self._bytes):
            self._bytes.extend(bytes(end - len(self._bytes)))
        self._bytes[offset:end] = data
        if self.block is None and len(data) == superblock.SIZE:
            with contextlib.suppress(InvalidDump):
                found = superblock.parse(bytes(data))
                if found.superblock_offset == offset:
                    self._begin(found)

    def _begin(self, block: Superblock) -> None:
        size = self._chunk_size
        if block.format != "elf":
            raise UsageError(f"a store takes dumps of format elf, not {block.format}")
        check_granule(block.granule_size, size)
        if block.total_size // size > _CHUNKS_MOST:
            raise UsageError(
                f"an image of {format_size(block.total_size)} has too many chunks of "
                f"{format_size(size)}",
                hint="a store with larger chunks takes it",
            )
        ends = max(block.table_offset + block.table_size, *block.meta_offsets, len(self._bytes))
        whole = block.data_offset + block.arena_size == block.total_size
        if block.data_offset % size or not ends <= block.data_offset <= _MOST or not whole:
            raise InvalidDump("the dump has an impossible layout")
        self._bytes.extend(bytes(block.data_offset - len(self._bytes)))
        self.block = block
        self._begun(block)

    def sealed(self) -> Superblock:
        """The superblock that is there now. InvalidDump: it is not sealed, or of another dump."""
        if self.block is None:
            raise InvalidDump("the dump has no superblock")
        at = self.block.superblock_offset
        now = superblock.parse(bytes(self._bytes[at : at + superblock.SIZE]))
        if not now.sealed or now.dump_id != self.block.dump_id:
            raise InvalidDump("the dump was not sealed")
        if any(getattr(now, name) != getattr(self.block, name) for name in _LAYOUT):
            raise InvalidDump("the dump was sealed with another layout than it began with")
        return now

    def meta(self, block: Superblock) -> dict[str, Any]:
        """What the dump says of itself. InvalidDump."""
        at = block.meta_offsets[block.meta_current]
        slot = bytes(self._bytes[at : at + block.meta_length])
        return meta_slot.parse_slot(slot, block.dump_id)[1]

    def entries(self, block: Superblock) -> table.Entries:
        """The granule table. InvalidDump: a part of it is missing or damaged."""
        return parse_table(bytes(self.bytes_at(block.table_offset, block.table_size)), block)

    def bytes_at(self, offset: int, length: int) -> memoryview:
        """Bytes [offset, offset + length) of the image, before its memory."""
        return memoryview(self._bytes)[offset : offset + length]


def parse_table(data: bytes, block: Superblock) -> table.Entries:
    """The whole granule table. InvalidDump: a part of it is missing or damaged."""
    parts = []
    for index in range(table.block_count(block.granule_count)):
        at = index * table.BLOCK_SIZE
        part = table.parse_block(
            data[at : at + table.BLOCK_SIZE], block.dump_id, index, block.granule_count
        )
        if part is None:
            raise InvalidDump("its granule table is not whole")
        parts.append(part)
    return np.concatenate(parts)
