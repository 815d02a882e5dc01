# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw: the page of physical address A lies at offset A, as version 3 of the kernel patches did.

There is no room for anything else in it: superblock, meta and granule table lie in a sidecar:

    0        superblock
    4096     meta slots, table
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from livedumpfs.formats import meta as meta_slot
from livedumpfs.formats import superblock, table
from livedumpfs.formats.plan import (
    Extent,
    MachineInfo,
    MemoryRange,
    Plan,
    Registers,
    Step,
    Sync,
    Zero,
    check_map,
    check_sizes,
    new_dump_id,
)
from livedumpfs.units import PAGE_SIZE


def raw_extents(ranges: Sequence[MemoryRange]) -> tuple[Extent, ...]:
    """Offset = physical address, sorted by arena offset."""
    return tuple(
        Extent(r.arena_offset, r.size, r.start)
        for r in sorted(ranges, key=lambda r: r.arena_offset)
    )


@dataclass(frozen=True)
class RawPlan(Plan):
    """See the module's text."""

    def header(self, registers: Sequence[Registers] = ()) -> bytes:
        """Nothing lies before the memory; the registers go into the meta data."""
        del registers
        return b""

    def invalidate(self) -> list[Step]:
        """Wipe an older ELF dump's header, and the gaps of the map, which nobody else writes."""
        steps: list[Step] = [Zero("target", 0, PAGE_SIZE)]
        position = 0
        for r in self.machine.memory_map:
            if r.start > position:
                steps.append(Zero("target", position, r.start - position))
            position = r.end
        return [*steps, Sync("target")]


def plan_raw(
    machine: MachineInfo,
    *,
    arena_size: int,
    granule_size: int,
    dump_id: bytes | None = None,
    identity: tuple[int, int] = (0, 0),
    meta_room: int = meta_slot.ROOM,
) -> RawPlan:
    """Lay out a raw dump and its sidecar. UsageError: sizes or memory map that cannot be."""
    check_sizes(arena_size, granule_size, meta_room)
    check_map(machine.memory_map, arena_size)
    slots = (superblock.ROOM, superblock.ROOM + meta_room)
    table_offset = slots[1] + meta_room
    table_size = table.table_size(-(-arena_size // granule_size))
    return RawPlan(
        format="raw",
        machine=machine,
        arena_size=arena_size,
        granule_size=granule_size,
        dump_id=dump_id or new_dump_id(),
        total_size=max(r.end for r in machine.memory_map),
        extents=raw_extents(machine.memory_map),
        data_offset=0,
        book="sidecar",
        book_size=table_offset + table_size,
        superblock_offset=0,
        meta_slots=slots,
        meta_room=meta_room,
        table_offset=table_offset,
        table_size=table_size,
        identity=identity,
    )
