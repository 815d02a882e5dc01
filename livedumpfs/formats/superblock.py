# SPDX-License-Identifier: GPL-2.0-or-later
"""The superblock: 512 bytes that say what a dump is and whether it is sealed (valid and final).

In ELF files and kdumps it is the content of our own note; in raw dumps it is the first block of the
sidecar file, or lies in the last page of the target. It fills one sector, so a write that is torn
between two sectors leaves either the old superblock or the new one. The rest of its page stays
free.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import xxhash

from livedumpfs.errors import InvalidDump
from livedumpfs.formats import table
from livedumpfs.units import PAGE_SIZE

SIZE: Final = 512
ROOM: Final = 4096
"""Bytes from the superblock's start to what follows it."""
MAGIC: Final = b"LDFSDUMP"
VERSION: Final = 1

FILTERED: Final = "kdump-filtered"
"""Format of a kdump from which makedumpfile left pages out; see formats/filtered.py."""
MAX_ARENA: Final = 1 << 46
MAX_GRANULE: Final = 1 << 30
MAX_META: Final = 64 << 20
"""Most bytes of one meta slot."""

VerdictWord = Literal["incomplete", "consistent", "torn"]
VERDICTS: Final[tuple[VerdictWord, ...]] = get_args(VerdictWord)

_HEAD = struct.Struct("<8sIIQ")
_BODY = struct.Struct("<16s16sIIQQQQQQQQQQQIIQQQQ")
_CHECKSUM = slice(16, 24)


@dataclass(frozen=True)
class Superblock:
    """The values of a superblock. Offsets and lengths in bytes; those of table and meta count in
    the file that holds the superblock."""

    dump_id: bytes
    format: str
    sealed: bool
    verdict: VerdictWord
    granule_size: int
    granule_count: int
    arena_size: int
    data_offset: int
    total_size: int
    """Bytes of the target."""
    superblock_offset: int
    table_offset: int
    table_size: int
    meta_offsets: tuple[int, int]
    meta_room: int
    """Bytes of one meta slot."""
    meta_current: int = 0
    meta_length: int = 0
    """Bytes of the slot's header and text together; 0: no meta yet."""
    meta_checksum: int = 0
    """XXH3-64 of those bytes."""
    header_checksum: int = 0
    """XXH3-64 of the target's bytes before the superblock (elf, kdump); of nothing for raw."""
    target_device: int = 0
    target_inode: int = 0
    """With target_device: the target that a sidecar file belongs to, as in Target.identity."""

    def sealed_as(self, verdict: VerdictWord) -> Superblock:
        """The same superblock, sealed with `verdict`."""
        return replace(self, sealed=True, verdict=verdict)

    def pack(self) -> bytes:
        """The 512 bytes."""
        body = _BODY.pack(
            self.dump_id,
            self.format.encode("ascii"),
            int(self.sealed),
            VERDICTS.index(self.verdict),
            self.granule_size,
            self.granule_count,
            self.arena_size,
            self.data_offset,
            self.total_size,
            self.superblock_offset,
            self.table_offset,
            self.table_size,
            *self.meta_offsets,
            self.meta_room,
            self.meta_current,
            self.meta_length,
            self.meta_checksum,
            self.header_checksum,
            self.target_device,
            self.target_inode,
        )
        block = bytearray(SIZE)
        block[: _HEAD.size + len(body)] = _HEAD.pack(MAGIC, VERSION, SIZE, 0) + body
        block[_CHECKSUM] = xxhash.xxh3_64_intdigest(block).to_bytes(8, "little")
        return bytes(block)


def judge(block: Superblock, armed: int, lost: int) -> VerdictWord:
    """What the dump is worth: the seal's word, unless the table knows worse. `armed`, `lost`: how
    many of its granules the table says were never saved, and lost."""
    if not block.sealed or armed:
        return "incomplete"
    return "torn" if lost and block.verdict == "consistent" else block.verdict


def is_superblock(data: bytes) -> bool:
    """Whether parse() accepts `data`."""
    try:
        parse(data)
    except InvalidDump:
        return False
    return True


def parse(data: bytes) -> Superblock:
    """The superblock in `data`. InvalidDump: not one, of another version, damaged or impossible."""
    _check_head(data)
    fields = _BODY.unpack_from(data, _HEAD.size)
    verdict, current = fields[3], fields[15]
    if verdict >= len(VERDICTS) or current > 1 or fields[2] > 1:
        raise InvalidDump("its superblock has impossible values")
    block = Superblock(
        dump_id=fields[0],
        format=fields[1].rstrip(b"\0").decode("ascii", "replace"),
        sealed=bool(fields[2]),
        verdict=VERDICTS[verdict],
        granule_size=fields[4],
        granule_count=fields[5],
        arena_size=fields[6],
        data_offset=fields[7],
        total_size=fields[8],
        superblock_offset=fields[9],
        table_offset=fields[10],
        table_size=fields[11],
        meta_offsets=(fields[12], fields[13]),
        meta_room=fields[14],
        meta_current=current,
        meta_length=fields[16],
        meta_checksum=fields[17],
        header_checksum=fields[18],
        target_device=fields[19],
        target_inode=fields[20],
    )
    _check_values(block)
    return block


def _check_head(data: bytes) -> None:
    if len(data) < SIZE:
        raise InvalidDump("it ends within its superblock")
    magic, version, size, checksum = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise InvalidDump("there is no livedumpfs superblock where it should be")
    if version != VERSION or size != SIZE:
        raise InvalidDump(f"it has version {version}, this program reads version {VERSION}")
    content = bytearray(data[:SIZE])
    content[_CHECKSUM] = bytes(8)
    if xxhash.xxh3_64_intdigest(content) != checksum:
        raise InvalidDump("its superblock is damaged (checksum)")


def _check_values(block: Superblock) -> None:
    """Check all values by which a reader allocates or seeks. The checksum does
    not help: a hostile file can have a right one."""
    size, granule = block.arena_size, block.granule_size
    good_granule = PAGE_SIZE <= granule <= MAX_GRANULE and granule & (granule - 1) == 0
    if not (0 < size <= MAX_ARENA and size % PAGE_SIZE == 0 and good_granule):
        raise InvalidDump("its superblock has impossible values (arena or granule size)")
    count = -(-size // granule)
    if block.granule_count != count or count > table.MAX_GRANULES:
        raise InvalidDump("its superblock has impossible values (number of granules)")
    tabled = 0 if block.format == FILTERED else table.table_size(count)
    if block.table_size != tabled or block.table_offset % 512:
        raise InvalidDump("its superblock has impossible values (granule table)")
    if not block.meta_length <= block.meta_room <= MAX_META:
        raise InvalidDump("its superblock has impossible values (meta data)")
    offsets = (block.data_offset, block.table_offset, *block.meta_offsets)
    if max(*offsets, block.total_size, block.superblock_offset) >= 1 << 62:
        raise InvalidDump("its superblock has impossible values (an offset)")
