# SPDX-License-Identifier: GPL-2.0-or-later
"""How a dump is laid out on its target. Pure: bytes and offsets, no files.

The life of a plan::

    plan = plan_dump("elf", machine_info, arena_size=..., granule_size=..., identity=...)
    target.expect_room(plan.total_size)                      # ENOSPC; then an old sidecar goes
    target.prepare(plan.total_size)                          # files are emptied
    apply(plan.opening(meta), target, sidecar)               # INIT; then the C core: empty table
    apply(plan.started(registers, meta), target, sidecar)    # after START
    apply(plan.seal(verdict, meta, registers), target, sidecar)  # FINISH, after the drain

(`prepare` and `apply` belong to livedumpfs.targets.) For the C core: `plan.extents`,
`plan.dump_id`, `plan.table_offset`, and `table_fd` = the fd of the file that `plan.book` names.
"""

from __future__ import annotations

from livedumpfs.compression import COMPRESSION
from livedumpfs.errors import UsageError
from livedumpfs.formats.elf import ElfPlan, plan_elf
from livedumpfs.formats.image import (
    ArenaPiece,
    Gap,
    Image,
    Literal,
    lime_image,
    raw_image,
    vmcore_image,
)
from livedumpfs.formats.kdump import KdumpPlan, plan_kdump
from livedumpfs.formats.machine_info import MachineInfo, MemoryRange, Registers
from livedumpfs.formats.plan import Extent, Plan, Role, Step, Sync, Write, Zero, room_for
from livedumpfs.formats.raw import RawPlan, plan_raw
from livedumpfs.formats.superblock import VERDICTS, Superblock, VerdictWord
from livedumpfs.settings import FORMATS, OPTION
from livedumpfs.units import PAGE_SIZE

__all__ = [
    "FORMATS",
    "VERDICTS",
    "ArenaPiece",
    "ElfPlan",
    "Extent",
    "Gap",
    "Image",
    "KdumpPlan",
    "Literal",
    "MachineInfo",
    "MemoryRange",
    "Plan",
    "RawPlan",
    "Registers",
    "Role",
    "Step",
    "Superblock",
    "Sync",
    "VerdictWord",
    "Write",
    "Zero",
    "lime_image",
    "plan_dump",
    "raw_image",
    "room_for",
    "vmcore_image",
]


def plan_dump(
    format: str,
    machine: MachineInfo,
    *,
    arena_size: int,
    granule_size: int,
    dump_id: bytes | None = None,
    identity: tuple[int, int] = (0, 0),
    meta_room: int | None = None,
    compression: str = COMPRESSION,
    level: int = 0,
    table: str = "sidecar",
    device_size: int | None = None,
    align: int = PAGE_SIZE,
) -> Plan:
    """Lay out one dump.

    `arena_size`: bytes, whole pages. `granule_size`: bytes, a power of two, at least a page.
    `dump_id`: 16 bytes; None: random ones. `identity`: Target.identity. `meta_room`: bytes for each
    of the two JSON texts, whole pages; None: room_for(machine). `compression`, `level`: of `kdump`.
    `table`: of `raw`, "sidecar" or "tail". `device_size`: bytes of the target if it is a device.
    `align`: of `elf`, where the memory lies, at the least; a power of two.
    UsageError (ValueError): unknown format, sizes out of range, or a memory map that does not cover
    the arena exactly.
    """
    OPTION["format"].check(format)
    meta_room = meta_room or room_for(machine)
    if format == "raw":
        return plan_raw(
            machine,
            arena_size=arena_size,
            granule_size=granule_size,
            dump_id=dump_id,
            identity=identity,
            meta_room=meta_room,
            table=table,
            device_size=device_size,
        )
    if format == "kdump":
        return plan_kdump(
            machine,
            arena_size=arena_size,
            granule_size=granule_size,
            dump_id=dump_id,
            identity=identity,
            meta_room=meta_room,
            compression=compression,
            level=level,
        )
    if format == "elf":
        return plan_elf(
            machine,
            arena_size=arena_size,
            granule_size=granule_size,
            dump_id=dump_id,
            identity=identity,
            meta_room=meta_room,
            align=align,
        )
    raise UsageError(f"no plan lays out format {format}")
