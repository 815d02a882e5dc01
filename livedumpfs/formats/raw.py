# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw: the page of physical address A lies at offset A, as version 3 of the kernel patches did.

There is no room for anything else in it: superblock, meta and granule table lie in a sidecar:

    0        superblock
    4096     meta slots, table

or, when asked for, at the tail of the target, behind the highest physical address:

    end of memory   meta slots, table (page-aligned)
    last page       superblock; of a device its last whole page, of a file the last one
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from livedumpfs.formats import superblock
from livedumpfs.formats import table as granule_table
from livedumpfs.formats.machine_info import MachineInfo, MemoryRange, Registers, check_machine
from livedumpfs.formats.plan import Extent, Plan, Step, Sync, Zero, check_sizes, new_dump_id
from livedumpfs.formats.superblock import Superblock
from livedumpfs.settings import OPTION
from livedumpfs.units import PAGE_SIZE, align_up


def raw_extents(ranges: Sequence[MemoryRange]) -> tuple[Extent, ...]:
    """An extent for each range: target_offset is its physical address. Sorted by arena offset."""
    return tuple(
        Extent(r.arena_offset, r.size, r.start)
        for r in sorted(ranges, key=lambda r: r.arena_offset)
    )


def tail_superblock_offset(size: int) -> int:
    """Offset of the superblock on a target of `size` bytes that holds a raw dump with its table at
    the tail. Negative: the target is too small for one."""
    return size // PAGE_SIZE * PAGE_SIZE - superblock.ROOM


def is_tail_superblock(block: Superblock, size: int) -> bool:
    """Whether a superblock from the last page of a target of `size` bytes belongs there. It may
    also be a page of the dumped memory that happens to hold a superblock."""
    place = tail_superblock_offset(size)
    return (block.format, block.superblock_offset) == ("raw", place) and place > 0


@dataclass(frozen=True)
class RawPlan(Plan):
    """The plan of a `raw` dump; the module's docstring has the layout."""

    def header(self, registers: Sequence[Registers] = ()) -> bytes:
        """Empty: nothing lies before the memory. The registers are in the meta data."""
        del registers
        return b""

    def invalidate(self) -> list[Step]:
        """Wipe an older ELF dump's header, and the gaps of the memory map, which the dump does not
        write."""
        steps: list[Step] = [Zero("target", 0, PAGE_SIZE)]
        position = 0
        for r in self.machine.memory_map:
            if r.start > position:
                steps.append(Zero("target", position, r.start - position))
            position = r.end
        if self.book == "target":
            steps.append(Zero("target", self.superblock_offset, superblock.ROOM))
        return [*steps, Sync("target")]


def plan_raw(
    machine: MachineInfo,
    *,
    arena_size: int,
    granule_size: int,
    dump_id: bytes | None = None,
    identity: tuple[int, int] = (0, 0),
    meta_room: int,
    table: str = "sidecar",
    device_size: int | None = None,
) -> RawPlan:
    """Lay out a raw dump. `table`: "sidecar" (a file of its own) or "tail". `device_size`: bytes of
    the target if it is a device; for one that is too small, the plan's total_size says what it
    needs. UsageError: sizes or a memory map that no dump can have."""
    check_sizes(arena_size, granule_size, meta_room)
    check_machine(machine, arena_size)
    memory_end = max(r.end for r in machine.memory_map)
    first = _first_of_book(table, memory_end)
    table_offset = first + 2 * meta_room
    table_size = granule_table.table_size(-(-arena_size // granule_size))
    book_end = table_offset + table_size
    tail = table == "tail"
    total_size, place = memory_end, 0
    if tail:
        total_size = book_end + superblock.ROOM
        if device_size is not None:
            total_size = max(total_size, device_size // PAGE_SIZE * PAGE_SIZE)
        place = tail_superblock_offset(total_size)
    return RawPlan(
        format="raw",
        machine=machine,
        arena_size=arena_size,
        granule_size=granule_size,
        dump_id=dump_id or new_dump_id(),
        total_size=total_size,
        extents=raw_extents(machine.memory_map),
        data_offset=0,
        book="target" if tail else "sidecar",
        book_size=0 if tail else book_end,
        superblock_offset=place,
        meta_slots=(first, first + meta_room),
        meta_room=meta_room,
        table_offset=table_offset,
        table_size=table_size,
        identity=identity,
    )


def _first_of_book(table: str, memory_end: int) -> int:
    OPTION["table"].check(table)
    return align_up(memory_end, PAGE_SIZE) if table == "tail" else superblock.ROOM
