# SPDX-License-Identifier: GPL-2.0-or-later
"""kdump-compressed (diskdump, header version 6): the pages, compressed, in the order of arrival.

block 0              header, block 1 its sub header; a block has 4096 bytes
...                  notes: NT_PRSTATUS of each vCPU, then ours, whose content is the superblock
superblock_offset    superblock, block-aligned: the notes are laid out backwards from it
bitmap, twice        a bit for each physical page: those of RAM are set
descriptors          24 bytes for each page of RAM, in the order of their physical addresses
meta slots, table
data_offset          one page of zeros, which the descriptors of all such pages point to
...                  page data

Names and sizes of the fields are those of crash (diskdump.h) and makedumpfile (diskdump_mod.h).
"""

from __future__ import annotations

import bisect
import itertools
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from livedumpfs.compression import COMPRESSION, Compression, check_compression
from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats import elf, processors, superblock, table
from livedumpfs.formats.machine_info import MachineInfo, MemoryRange, Registers, check_machine
from livedumpfs.formats.note import VMCOREINFO
from livedumpfs.formats.plan import Extent, Plan, Step, Sync, Write, Zero, check_sizes, new_dump_id
from livedumpfs.units import PAGE_SIZE, align_up

MAGIC: Final = b"KDUMP   "
FLAT_MAGIC: Final = b"makedumpfile\0"
"""First bytes of a file in makedumpfile's flattened form."""
VERSION: Final = 6
BLOCK: Final = 4096
INCOMPLETE: Final = 8
"""Bit of the header's status field: pages are missing."""

CODECS: Final[dict[Compression, int]] = {
    "zstd": 0x20, "zlib": 1, "lzo": 2, "snappy": 4, "none": 0,
}  # fmt: skip
"""Compression -> its bit in the header's status and in the descriptors' flags."""

DESCRIPTOR: Final = np.dtype(
    [("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")]
)
"""page_desc_t, 24 bytes."""

MAX_PHYSICAL: Final = 1 << 44
"""First physical address that no page can have: the header counts pages in 32 bits."""
_WINDOW: Final = 64 << 10
"""Bytes of a bitmap that are built or read at once."""
_ALL_RAM: Final = b"\xff" * _WINDOW
"""A window of RAM alone. Most windows are this one object."""

_BASE: Final = re.compile(
    rb"^NUMBER\((?:phys_base|PHYS_OFFSET|phys_ram_base)\)=(-?(?:0x[0-9a-f]+|[1-9][0-9]*))$",
    re.MULTILINE,
)
_HEADER = struct.Struct("<8si390s6xqqIiiIIIIIIi")
_SUB_HEADER = struct.Struct("<QiiQQQQQQQQQQQ")
HEAD_SIZE: Final = BLOCK + _SUB_HEADER.size
"""Bytes from the start to the end of the sub header."""
_UTS_FIELD: Final = 65
_UINT_MAX: Final = (1 << 32) - 1


@dataclass(frozen=True)
class Layout:
    """The layout of what stands behind the superblock, for a machine with these ranges, which are
    sorted by address."""

    superblock_offset: int
    ranges: tuple[MemoryRange, ...]

    @property
    def max_mapnr(self) -> int:
        """One more than the highest page frame number (PFN)."""
        return max(r.end for r in self.ranges) // PAGE_SIZE

    @property
    def pages(self) -> int:
        """Number of pages of RAM."""
        return sum(r.size for r in self.ranges) // PAGE_SIZE

    @property
    def bitmap_offset(self) -> int:
        """Offset of the first of the two bitmaps."""
        return self.superblock_offset + superblock.ROOM

    @property
    def bitmap_size(self) -> int:
        """Bytes of one bitmap; whole blocks."""
        return align_up(-(-self.max_mapnr // 8), BLOCK)

    @property
    def descriptors_offset(self) -> int:
        """Offset of descriptor 0."""
        return self.bitmap_offset + 2 * self.bitmap_size

    @property
    def end(self) -> int:
        """Offset of the first block behind the descriptors."""
        return align_up(self.descriptors_offset + self.pages * DESCRIPTOR.itemsize, BLOCK)

    def extents(self) -> tuple[Extent, ...]:
        """The order of the pages' descriptors: target_offset is PAGE_SIZE times the number of the
        range's first descriptor. Sorted by arena offset."""
        found, index = [], 0
        for r in self.ranges:
            found.append(Extent(r.arena_offset, r.size, index * PAGE_SIZE))
            index += r.size // PAGE_SIZE
        return tuple(sorted(found, key=lambda e: e.arena_offset))

    def windows(self) -> Iterator[tuple[int, bytes]]:
        """One bitmap in pieces, in order: the offset in it, and the bytes. b"" stands for zeros up
        to the next piece."""
        at = 0
        while at < self.bitmap_size:
            ahead = bisect.bisect_right(self.ranges, at * 8 * PAGE_SIZE, key=lambda r: r.end)
            start = self.ranges[ahead].start if ahead < len(self.ranges) else MAX_PHYSICAL
            first = min(start // PAGE_SIZE // 8 // _WINDOW * _WINDOW, self.bitmap_size)
            if first > at:
                yield at, b""
                at = first
                continue
            size = min(_WINDOW, self.bitmap_size - at)
            yield at, self._window(at * 8, size * 8, ahead)
            at += size

    def _window(self, first: int, count: int, ahead: int) -> bytes:
        """Bits [first, first+count) as bytes. `ahead`: index of the first range that ends behind
        them."""
        covers = self.ranges[ahead].start // PAGE_SIZE <= first
        if covers and self.ranges[ahead].end // PAGE_SIZE >= first + count:
            return _ALL_RAM[: count // 8]
        bits = np.zeros(count, dtype=np.uint8)
        for r in itertools.islice(self.ranges, ahead, None):
            low, high = r.start // PAGE_SIZE - first, r.end // PAGE_SIZE - first
            if low >= count:
                break
            bits[max(0, low) : min(count, high)] = 1
        return np.packbits(bits, bitorder="little").tobytes()


@dataclass(frozen=True)
class Head:
    """The contents of header and sub header. Offsets and sizes in bytes."""

    status: int
    sub_header_blocks: int
    bitmap_blocks: int
    max_mapnr: int
    note_offset: int
    note_size: int
    architecture: str
    """Of the machine, as `uname -m` says it."""

    @property
    def incomplete(self) -> bool:
        """Whether the header's status says that pages are missing."""
        return bool(self.status & INCOMPLETE)

    @property
    def compression(self) -> str:
        """A key of CODECS, or "unknown"."""
        flags = self.status & ~INCOMPLETE
        return next((name for name, flag in CODECS.items() if flag == flags), "unknown")


@dataclass(frozen=True)
class KdumpPlan(Plan):
    """The plan of a `kdump`; the module's docstring has the layout. `total_size` is the least that
    the dump can have; the extents are those of Layout.extents()."""

    descriptors_offset: int = field(default=0)
    codec: int = field(default=0)
    """A value of CODECS."""
    level: int = field(default=0)
    """0: the codec's default."""

    @property
    def layout(self) -> Layout:
        """The places of bitmaps and descriptors."""
        return Layout(self.superblock_offset, self.machine.memory_map)

    def header(self, registers: Sequence[Registers] = ()) -> bytes:
        """All bytes before the superblock, with a status that says incomplete. UsageError: more
        registers than vCPUs."""
        return self._heading(registers, {}, complete=False)

    def _heading(
        self, registers: Sequence[Registers], meta: Mapping[str, object], *, complete: bool
    ) -> bytes:
        notes = elf.all_notes(self.machine, registers)
        note_offset = self.superblock_offset - len(notes)
        note_size = len(notes) + superblock.SIZE
        status = self.codec | (0 if complete else INCOMPLETE)
        machine = replace(self.machine, vcpus=len(registers) or self.machine.vcpus)
        head = build_head(machine, self.layout, status, (note_offset, note_size), meta)
        return head + bytes(note_offset - len(head)) + notes

    def _header_at_seal(self, header: bytes) -> list[Step]:
        """The data is synced before a header is written that says all pages are there."""
        return [Sync("target"), *self._header_write(header)]

    def _fixed(self) -> list[Step]:
        layout = self.layout
        steps: list[Step] = [
            Zero("target", layout.bitmap_offset, layout.end - layout.bitmap_offset),
        ]
        for copy in (0, layout.bitmap_size):
            place = layout.bitmap_offset + copy
            steps += [Write("target", place + at, bits) for at, bits in layout.windows() if bits]
        return [*steps, Write("target", self.data_offset, bytes(PAGE_SIZE))]

    def invalidate(self) -> list[Step]:
        """Overwrite the header: without it there is no dump. An older dump may have its superblock
        at another offset."""
        return [Zero("target", 0, max(BLOCK, elf.HEAD_SIZE)), Sync("target")]


def _utsname(machine: MachineInfo) -> bytes:
    """The six strings of struct new_utsname. libkdumpfile takes the architecture from them, and
    only if the system is "Linux" and none of release, version and machine is empty."""
    words = ("Linux", machine.name or "machine", "unknown", "livedumpfs", machine.architecture, "")
    return b"".join(
        word.encode("ascii", "replace")[: _UTS_FIELD - 1].ljust(_UTS_FIELD, b"\0") for word in words
    )


def _vmcoreinfo(machine: MachineInfo, note_offset: int) -> tuple[int, int]:
    """Offset and size of the text of the VMCOREINFO note; (0, 0): there is none."""
    at = note_offset + len(elf.register_notes(machine, ()))
    for one in machine.notes:
        packed = one.pack()
        if one.name == VMCOREINFO:
            return at + packed.index(one.content, len(one.name)), len(one.content)
        at += len(packed)
    return 0, 0


def _phys_base(machine: MachineInfo) -> int:
    """From the kernel's own VMCOREINFO: its load address on x86-64; on others, as makedumpfile has
    it, where the RAM begins. 0: it does not say."""
    texts = [one.content for one in machine.notes if one.name == VMCOREINFO]
    match = _BASE.search(texts[0]) if texts else None
    return int(match[1], 0) % (1 << 64) if match else 0


def _wall_ns(meta: Mapping[str, object]) -> int:
    instant = meta.get("instant")
    wall = instant.get("wall_ns") if isinstance(instant, Mapping) else None
    return wall if isinstance(wall, int) and 0 <= wall < 1 << 63 else 0


def build_head(
    machine: MachineInfo,
    layout: Layout,
    status: int,
    notes: tuple[int, int],
    meta: Mapping[str, object],
) -> bytes:
    """Header and sub header, HEAD_SIZE bytes. `notes`: their offset and size in bytes. `meta`: its
    "instant", if there, is the time of the snapshot instant."""
    seconds, rest = divmod(_wall_ns(meta), 1_000_000_000)
    pages = min(layout.pages, _UINT_MAX)
    header = _HEADER.pack(
        MAGIC, VERSION, _utsname(machine), seconds, rest // 1000, status, BLOCK,
        layout.superblock_offset // BLOCK, 2 * layout.bitmap_size // BLOCK,
        min(layout.max_mapnr, _UINT_MAX), pages, 0, pages, 0, max(1, machine.vcpus),
    )  # fmt: skip
    information = _vmcoreinfo(machine, notes[0])
    sub_header = _SUB_HEADER.pack(
        _phys_base(machine), 0, 0, 0, 0, *information, *notes, 0, 0, 0, 0, layout.max_mapnr
    )
    return header.ljust(BLOCK, b"\0") + sub_header


def codec_of(compression: str, level: int) -> int:
    """The codec's value in CODECS. UsageError: no such compression, or not with that level."""
    check_compression(compression, level)
    return next(flag for name, flag in CODECS.items() if name == compression)


def plan_kdump(
    machine: MachineInfo,
    *,
    arena_size: int,
    granule_size: int,
    dump_id: bytes | None = None,
    identity: tuple[int, int] = (0, 0),
    meta_room: int,
    compression: str = COMPRESSION,
    level: int = 0,
) -> KdumpPlan:
    """Lay out a kdump. UsageError: sizes, memory map or compression that no kdump can have."""
    check_sizes(arena_size, granule_size, meta_room)
    check_machine(machine, arena_size)
    if max(r.end for r in machine.memory_map) > MAX_PHYSICAL:
        raise UsageError(
            f"a kdump has no room for memory behind {MAX_PHYSICAL:#x}", hint="format elf has"
        )
    codec = codec_of(compression, level)
    notes = len(elf.all_notes(machine))
    layout = Layout(align_up(HEAD_SIZE + notes, BLOCK), machine.memory_map)
    slots = (layout.end, layout.end + meta_room)
    table_offset = slots[1] + meta_room
    table_size = table.table_size(-(-arena_size // granule_size))
    data = align_up(table_offset + table_size, PAGE_SIZE)
    return KdumpPlan(
        format="kdump",
        machine=machine,
        arena_size=arena_size,
        granule_size=granule_size,
        dump_id=dump_id or new_dump_id(),
        total_size=data + PAGE_SIZE,
        extents=layout.extents(),
        data_offset=data,
        book="target",
        book_size=0,
        superblock_offset=layout.superblock_offset,
        meta_slots=slots,
        meta_room=meta_room,
        table_offset=table_offset,
        table_size=table_size,
        identity=identity,
        descriptors_offset=layout.descriptors_offset,
        codec=codec,
        level=level,
    )


def parse_head(data: bytes, *, anywhere: bool = False) -> Head:
    """The header and sub header in `data`, the file's first HEAD_SIZE bytes. InvalidDump: not a
    kdump, one of another version, or one without notes that could be ours. `anywhere`: they may
    lie behind the pages, as in a kdump-filtered."""
    if data[: len(MAGIC)] != MAGIC:
        raise InvalidDump("it has no kdump header")
    if len(data) < HEAD_SIZE:
        raise InvalidDump("it ends within its kdump header")
    fields = _HEADER.unpack_from(data)
    version, status, block, blocks, bitmap_blocks = fields[1], *fields[5:9]
    if version != VERSION:
        raise InvalidDump(
            f"its kdump header has version {version}, this program reads version {VERSION}"
        )
    if block != BLOCK:
        raise InvalidDump(f"its kdump header has blocks of {block} bytes, not {BLOCK}")
    sub = _SUB_HEADER.unpack_from(data, BLOCK)
    offset, size = sub[7:9]
    if not superblock.SIZE < size <= elf.MAX_NOTES or offset < HEAD_SIZE:
        raise InvalidDump("it has no livedumpfs note")
    outside = not anywhere and offset + size > (1 + blocks) * BLOCK
    if not 0 < blocks < 1 << 20 or outside:
        raise InvalidDump("its kdump header has impossible values (notes)")
    return Head(status, blocks, bitmap_blocks, sub[13], offset, size, _architecture(fields[2]))


def _architecture(utsname: bytes) -> str:
    """Its fifth string."""
    found, _, _ = utsname[4 * _UTS_FIELD : 5 * _UTS_FIELD].partition(b"\0")
    return found.decode("ascii", "replace")


def check_head(head: Head, layout: Layout) -> None:
    """InvalidDump: the header, which other tools read, contradicts the memory map."""
    expected = (
        layout.superblock_offset // BLOCK,
        2 * layout.bitmap_size // BLOCK,
        layout.max_mapnr,
    )
    if (head.sub_header_blocks, head.bitmap_blocks, head.max_mapnr) != expected:
        raise InvalidDump("its kdump header and its memory map disagree")


def parse_registers(header: bytes) -> list[dict[str, int]]:
    """Registers in a header from KdumpPlan.header, in vCPU order. None: its processor is not
    known."""
    head = parse_head(header)
    processor = processors.named(head.architecture)
    return elf.parse_register_notes(header[head.note_offset :], processor) if processor else []
