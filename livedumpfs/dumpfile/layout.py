# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding and judging a dump's own description: superblock, meta, memory map, arrays, table.

All of it comes from a file that may be damaged or hostile. What is used as a size or an offset has
been bounded here or in formats.superblock before; every refusal is an InvalidDump without the path,
which open_dump adds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import xxhash
from msgspec import Meta

from livedumpfs.dumpfile.source import Source
from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats import elf, kdump, superblock, table
from livedumpfs.formats import meta as meta_slot
from livedumpfs.formats.machine_info import MAX_RANGES, MemoryRange, check_map
from livedumpfs.formats.plan import Extent
from livedumpfs.formats.raw import is_tail_superblock, raw_extents, tail_superblock_offset
from livedumpfs.formats.superblock import Superblock
from livedumpfs.formats.typed import Natural, typed
from livedumpfs.units import PAGE_SIZE

_TABLE_PIECE: Final = 256 * table.BLOCK_SIZE
_ZERO_PIECE: Final = 1 << 20
MAX_DIMENSIONS: Final = 32


@dataclass(frozen=True)
class DumpArray:
    """A named array in the arena. `offset` in bytes of the arena."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    dims: tuple[str, ...] | None = None
    """Names of its dimensions; None: they have none."""

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def find_superblock(source: Source) -> Superblock:
    """The superblock of a dump that describes itself in its head. InvalidDump: there is none, or a
    damaged one."""
    head = source.read(0, max(elf.HEAD_SIZE, kdump.HEAD_SIZE))
    if head.startswith(kdump.FLAT_MAGIC):
        raise InvalidDump(
            "it is in makedumpfile's flattened form",
            hint="make a dump of it: livedump convert FILE NEW --format kdump",
        )
    if head.startswith(kdump.MAGIC):
        found = kdump.parse_head(head, anywhere=True)
        return _superblock_in(source, "kdump", found.note_offset, found.note_size)
    if not head.startswith(elf.MAGIC):
        raise InvalidDump("it has no ELF header and no kdump header")
    note = elf.first_note(head)
    return _superblock_in(source, "elf", note.offset, note.size)


def _superblock_in(source: Source, format: str, offset: int, size: int) -> Superblock:
    """The superblock in our note, which is one of those at `offset`."""
    notes = source.read_exact(offset, size, "notes")
    position = elf.own_note_position(notes)
    block = superblock.parse(notes[position : position + superblock.SIZE])
    if block.format == superblock.FILTERED and format == "kdump":
        raise InvalidDump(
            "makedumpfile has left pages out of it",
            hint="`livedump info` and `livedump verify` read it, and so do crash and drgn",
        )
    if block.superblock_offset != offset + position or block.format != format:
        raise InvalidDump("its superblock belongs to another dump")
    return block


def find_tail_superblock(source: Source) -> Superblock | None:
    """The superblock in the last page of a raw dump. None: that is a page of memory, or damaged."""
    place = tail_superblock_offset(source.size)
    if place <= 0:
        return None
    try:
        block = superblock.parse(source.read(place, superblock.SIZE))
    except InvalidDump:
        return None
    return block if is_tail_superblock(block, source.size) else None


def read_header(source: Source, block: Superblock) -> bytes:
    """All before the superblock of an ELF dump or a kdump; a sealed one must have its checksum."""
    if block.superblock_offset > elf.MAX_HEADERS + PAGE_SIZE + elf.MAX_NOTES:
        raise InvalidDump("its superblock has impossible values (an offset)")
    header = source.read_exact(0, block.superblock_offset, "header")
    if block.sealed and xxhash.xxh3_64_intdigest(header) != block.header_checksum:
        raise InvalidDump("its header or notes are damaged (checksum)")
    return header


def check_regions(
    block: Superblock, book: Source, others: Sequence[tuple[int, int, str]] = ()
) -> None:
    """InvalidDump: parts of the description, and `others` (offset, bytes, name) in the same file,
    overlap or lie outside it."""
    regions = [
        (block.superblock_offset, superblock.SIZE, "superblock"),
        (block.meta_offsets[0], block.meta_room, "meta data"),
        (block.meta_offsets[1], block.meta_room, "meta data"),
        (block.table_offset, block.table_size, "granule table"),
    ]
    if block.format == "elf":
        regions.append((block.data_offset, block.arena_size, "memory"))
    if block.format == "kdump":
        if block.total_size < block.data_offset + PAGE_SIZE:
            raise InvalidDump("its superblock has impossible values (size)")
        regions.append((block.data_offset, block.total_size - block.data_offset, "memory"))
    regions.extend(others)
    regions.sort()
    for (start, size, name), (after, _, other) in itertools.pairwise(regions):
        if start + size > after:
            raise InvalidDump(f"its {name} overlaps its {other}")
    end, size, name = regions[-1]
    if end + size > book.size:
        raise InvalidDump(f"it ends within its {name} ({book.size} of {end + size} bytes)")


def read_meta(book: Source, block: Superblock) -> dict[str, Any]:
    """The meta data that the superblock names; of an unsealed dump, the best slot that is good."""
    current = block.meta_current
    data = book.read_exact(block.meta_offsets[current], block.meta_length, "meta data")
    if xxhash.xxh3_64_intdigest(data) == block.meta_checksum:
        return meta_slot.parse_slot(data, block.dump_id)[1]
    if block.sealed:
        raise InvalidDump("its meta data is damaged (checksum)")
    slots = [s for i in (0, 1) if (s := _try_slot(book, block, i)) is not None]
    if not slots:
        raise InvalidDump("its meta data is damaged (both copies)")
    return max(slots, key=lambda slot: slot[0])[1]


def _try_slot(book: Source, block: Superblock, index: int) -> tuple[int, dict[str, Any]] | None:
    offset = block.meta_offsets[index]
    length = meta_slot.slot_length(book.read(offset, meta_slot.HEADER_SIZE), block.meta_room)
    try:
        return meta_slot.parse_slot(book.read(offset, length), block.dump_id)
    except InvalidDump:
        return None


class _Range(msgspec.Struct):
    """Of the memory map."""

    start: Natural
    size: Natural
    arena_offset: Natural


_Map = Annotated[list[_Range], Meta(min_length=1, max_length=MAX_RANGES)]


def parse_map(meta: dict[str, Any], arena_size: int) -> tuple[MemoryRange, ...]:
    """The memory map, sorted by address. InvalidDump: missing, or not covering the arena."""
    found = typed(meta.get("memory_map"), _Map, "memory map")
    ranges = sorted(MemoryRange(r.start, r.size, r.arena_offset) for r in found)
    try:
        check_map(ranges, arena_size)
    except UsageError as error:
        raise InvalidDump(f"its memory map is wrong: {error.message}") from error
    return tuple(ranges)


class _Array(msgspec.Struct):
    """One of the arrays."""

    name: str
    shape: Annotated[tuple[Natural, ...], Meta(max_length=MAX_DIMENSIONS)]
    offset: Natural
    dtype: Any
    dims: Annotated[tuple[str, ...], Meta(max_length=MAX_DIMENSIONS)] | None = None


def parse_arrays(meta: dict[str, Any], arena_size: int) -> tuple[DumpArray, ...]:
    """The named arrays. InvalidDump: one that is no plain array within the arena."""
    items = typed(meta.get("arrays", []), list[_Array], "list of arrays")
    return tuple(_parse_array(item, arena_size) for item in items)


def _parse_array(item: _Array, arena_size: int) -> DumpArray:
    try:
        dtype = np.dtype(_dtype_description(item.dtype))
    except (TypeError, ValueError, SyntaxError) as error:
        raise InvalidDump("its list of arrays has an unknown dtype") from error
    array = DumpArray(item.name, dtype, item.shape, item.offset, item.dims)
    if dtype.hasobject or dtype.itemsize == 0:
        raise InvalidDump("its list of arrays has an array of no plain type")
    if array.dims is not None and len(array.dims) != len(array.shape):
        raise InvalidDump(f"its array {array.name!r} has names for other dimensions")
    if array.offset + array.size > arena_size:
        raise InvalidDump(f"its array {array.name!r} lies outside the memory")
    return array


def _dtype_description(value: object, depth: int = 0) -> Any:
    """What np.dtype takes: a string, or the list that dtype.descr gives, through JSON."""
    if depth > MAX_DIMENSIONS:
        raise ValueError("nested too deeply")
    if isinstance(value, str) and len(value) <= 256:
        return value
    if isinstance(value, list) and all(isinstance(f, list) and len(f) in (2, 3) for f in value):
        return [
            (str(f[0]), _dtype_description(f[1], depth + 1), *map(_sub_shape, f[2:])) for f in value
        ]
    raise ValueError("not a dtype")


def _sub_shape(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return typed(values, tuple[Natural, ...], "array dtype")


def find_extents(block: Superblock, ranges: tuple[MemoryRange, ...]) -> tuple[Extent, ...]:
    """Where the arena lies on the target. InvalidDump: not at the size that the superblock says."""
    if block.format == "elf":
        extents: tuple[Extent, ...] = (Extent(0, block.arena_size, block.data_offset),)
    elif block.format == "raw":
        extents = raw_extents(ranges)
    elif block.format == "kdump":
        return kdump.Layout(block.superblock_offset, ranges).extents()
    else:
        raise InvalidDump(f"its format {block.format!r} is unknown")
    end = max(e.target_offset + e.length for e in extents)
    if is_tail(block):
        end = block.superblock_offset + superblock.ROOM
    if end != block.total_size:
        raise InvalidDump("its size and its memory map disagree")
    return extents


def is_tail(block: Superblock) -> bool:
    """Whether that superblock lies at the tail of the memory that it describes."""
    return block.format == "raw" and block.superblock_offset != 0


def check_tail(block: Superblock, target: Source, ranges: tuple[MemoryRange, ...]) -> None:
    """InvalidDump: the memory of a raw dump reaches into its own description."""
    check_regions(block, target, [(r.start, r.size, "memory") for r in ranges])


def check_kdump(
    header: bytes, block: Superblock, target: Source, ranges: tuple[MemoryRange, ...]
) -> kdump.Layout:
    """Bitmaps and descriptors. InvalidDump: what other tools read says something else than the
    map, or lies where something else is."""
    if block.superblock_offset < kdump.HEAD_SIZE or ranges[-1].end > kdump.MAX_PHYSICAL:
        raise InvalidDump("its kdump header and its memory map disagree")
    layout = kdump.Layout(block.superblock_offset, ranges)
    kdump.check_head(kdump.parse_head(header), layout)
    check_regions(
        block,
        target,
        [
            (layout.bitmap_offset, 2 * layout.bitmap_size, "bitmap"),
            (layout.descriptors_offset, layout.end - layout.descriptors_offset, "descriptors"),
        ],
    )
    for copy in (0, layout.bitmap_size):
        _check_bitmap(layout, target, layout.bitmap_offset + copy)
    return layout


def _check_bitmap(layout: kdump.Layout, target: Source, offset: int) -> None:
    pieces = itertools.chain(layout.windows(), [(layout.bitmap_size, b"")])
    for (at, bits), (end, _) in itertools.pairwise(pieces):
        good = (
            target.read(offset + at, len(bits)) == bits
            if bits
            else _is_zero(target, offset + at, end - at)
        )
        if not good:
            raise InvalidDump("its page bitmap and its memory map disagree")


def _is_zero(target: Source, offset: int, length: int) -> bool:
    if target.is_hole(offset, length):
        return True
    pieces = range(offset, offset + length, _ZERO_PIECE)
    return not any(any(target.read(at, min(_ZERO_PIECE, offset + length - at))) for at in pieces)


def check_segments(header: bytes, block: Superblock, ranges: tuple[MemoryRange, ...]) -> None:
    """InvalidDump: the program headers that other tools read say something else than the map."""
    loads = elf.load_segments(elf.parse_segments(header))
    found = sorted((s.physical, s.size, s.offset - block.data_offset) for s in loads)
    if found != [(r.start, r.size, r.arena_offset) for r in ranges]:
        raise InvalidDump("its program headers and its memory map disagree")


def read_table(book: Source, block: Superblock) -> tuple[table.Entries, list[int]]:
    """All entries, and the numbers of the blocks that do not count (their granules: not saved)."""
    entries = table.empty_entries(block.granule_count)
    bad: list[int] = []
    for piece in range(0, block.table_size, _TABLE_PIECE):
        size = min(_TABLE_PIECE, block.table_size - piece)
        data = memoryview(book.read(block.table_offset + piece, size))
        for position in range(0, size, table.BLOCK_SIZE):
            index = (piece + position) // table.BLOCK_SIZE
            content = data[position : position + table.BLOCK_SIZE]
            found = table.parse_block(content, block.dump_id, index, block.granule_count)
            if found is None:
                bad.append(index)
            else:
                first = index * table.BLOCK_ENTRIES
                entries[first : first + len(found)] = found
    return entries, bad


def check_stored(entries: table.Entries, end: int) -> None:
    """InvalidDump: granules of a kdump lie behind the end of its data."""
    stored = entries[(entries["state"] == table.SAVED) & (entries["stored"] > 0)]
    if len(stored) == 0:
        return
    # No sum of two numbers from the file, which may be anything.
    where, size = stored["where"], stored["stored"]
    if ((where > end) | (end - where < size)).any():
        raise InvalidDump(f"it is cut off: pages should lie behind its {end} bytes")
