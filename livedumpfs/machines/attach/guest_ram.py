# SPDX-License-Identifier: GPL-2.0-or-later
"""The RAM of a guest whose QEMU runs already: its blocks, and where the guest has them."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

import msgspec

from livedumpfs.errors import MachineError
from livedumpfs.machines.attach.obstacles import answer, memory_devices
from livedumpfs.machines.attach.received_memory import RamBlock
from livedumpfs.machines.machine import PhysicalRange
from livedumpfs.machines.qemu.memory_map import read_memory_map
from livedumpfs.machines.qemu.now import peers_memory
from livedumpfs.machines.qemu.qmp_commands import QmpCommands

_SPARSE: Final = "virtio-mem"
_STORAGE: Final = "virtio-pmem"
"""A disk that the guest sees as memory. QEMU sends nothing of it."""


class _Backend(msgspec.Struct):
    id: str
    size: int


def find_memory(monitor: QmpCommands) -> tuple[list[RamBlock], Sequence[PhysicalRange]]:
    """The guest's RAM now, and where it lies. MachineError."""
    kinds, text = memory_devices(monitor), monitor.hmp("info mtree -f")
    blocks: list[RamBlock] = []
    ranges: list[PhysicalRange] = []
    offset = 0
    peers = peers_memory(monitor)
    for one in answer(monitor, "query-memdev", list[_Backend]):
        if one.id in peers or kinds.get(one.id) == _STORAGE:
            continue
        try:
            found = read_memory_map(text, one.id, one.size)
        except MachineError as error:
            if error.errno == errno.ENODATA:  # in no place of the guest
                continue
            raise
        blocks.append(RamBlock(one.id, one.size, offset, kinds.get(one.id) == _SPARSE))
        ranges += [
            PhysicalRange(each.start, each.size, each.arena_offset + offset) for each in found
        ]
        offset += one.size
    if not blocks:
        raise MachineError(
            "QEMU shows no memory of the guest",
            errno=errno.ENODATA,
            hint="see `info mtree -f` in its monitor",
        )
    return blocks, sorted(ranges, key=lambda one: one.start)


def resident(pid: int) -> int:
    """Bytes of memory that it has now; 0: that cannot be seen."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
