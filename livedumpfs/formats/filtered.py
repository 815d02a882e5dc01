# SPDX-License-Identifier: GPL-2.0-or-later
"""kdump-filtered: a kdump that makedumpfile wrote of a snapshot, with our record behind it.

0                    as makedumpfile wrote it, but its sub header finds the notes in the record
...                  makedumpfile's notes again, then ours, whose content is the superblock
superblock_offset    superblock, block-aligned; its header_checksum is of all bytes before it
meta slot            one

There is no granule table: which pages are there is said by makedumpfile's second bitmap.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import xxhash

from livedumpfs.errors import InvalidDump
from livedumpfs.formats import elf, kdump, superblock
from livedumpfs.formats import meta as meta_slot
from livedumpfs.formats.superblock import Superblock, VerdictWord
from livedumpfs.units import PAGE_SIZE, align_up

_LEVEL: Final = struct.Struct("<i")
_LEVEL_AT: Final = kdump.BLOCK + 8
_NOTES: Final = struct.Struct("<QQ")
_NOTES_AT: Final = kdump.BLOCK + 48


@dataclass(frozen=True)
class Written:
    """What makedumpfile's header says. Offsets and sizes in bytes."""

    level: int
    """Its -d."""
    note_offset: int
    note_size: int
    bitmap_offset: int
    """Of the second bitmap: which pages are there."""
    bitmap_size: int

    @property
    def descriptors_offset(self) -> int:
        """Of the descriptors, one for each of those pages."""
        return self.bitmap_offset + self.bitmap_size


def parse_written(head: bytes) -> Written:
    """`head`: the first kdump.HEAD_SIZE bytes. InvalidDump: not a whole kdump with notes."""
    found = kdump.parse_head(head, anywhere=True)
    if found.incomplete:
        raise InvalidDump("its kdump header says that it is incomplete")
    half = found.bitmap_blocks // 2 * kdump.BLOCK
    if not 0 < half <= kdump.MAX_PHYSICAL // PAGE_SIZE // 8:
        raise InvalidDump("its kdump header has impossible values (bitmap)")
    level = _LEVEL.unpack_from(head, _LEVEL_AT)[0]
    first = (1 + found.sub_header_blocks) * kdump.BLOCK
    return Written(level, found.note_offset, found.note_size, first + half, half)


@dataclass(frozen=True)
class SealRecord:
    """Where the record lies behind a kdump, and what it says."""

    superblock_offset: int
    notes: bytes
    """All of them, up to the superblock."""

    @property
    def note_offset(self) -> int:
        """Where they begin."""
        return self.superblock_offset - len(self.notes)

    @property
    def pointer(self) -> tuple[int, bytes]:
        """Offset and bytes of the sub header's words about the notes."""
        return _NOTES_AT, _NOTES.pack(self.note_offset, len(self.notes) + superblock.SIZE)

    def seal(
        self,
        meta: Mapping[str, object],
        *,
        dump_id: bytes,
        verdict: VerdictWord,
        sizes: tuple[int, int],
        checksum: int,
    ) -> bytes:
        """All from the superblock on. `sizes`: bytes of the memory and of a granule; `checksum`:
        XXH3-64 of all before."""
        arena, granule = sizes
        slot = meta_slot.build_slot(meta, dump_id, 1, room=superblock.MAX_META)
        place = self.superblock_offset + superblock.ROOM
        room = align_up(len(slot), PAGE_SIZE)
        block = Superblock(
            dump_id=dump_id,
            format=superblock.FILTERED,
            sealed=True,
            verdict=verdict,
            granule_size=granule,
            granule_count=-(-arena // granule),
            arena_size=arena,
            data_offset=0,
            total_size=place + room,
            superblock_offset=self.superblock_offset,
            table_offset=0,
            table_size=0,
            meta_offsets=(place, place),
            meta_room=room,
            meta_length=len(slot),
            meta_checksum=xxhash.xxh3_64_intdigest(slot),
            header_checksum=checksum,
        )
        return block.pack().ljust(superblock.ROOM, b"\0") + slot.ljust(room, b"\0")


def plan_record(end: int, notes: bytes) -> SealRecord:
    """A record behind the `end` bytes of a kdump with those notes."""
    ours = notes + bytes(-len(notes) % 4) + elf.own_note_head()
    return SealRecord(align_up(end + len(ours), kdump.BLOCK), ours)
