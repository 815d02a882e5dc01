# SPDX-License-Identifier: GPL-2.0-or-later
"""MachineInfo: what a dump says of the machine, and which machines a dump can be of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from livedumpfs.errors import UsageError
from livedumpfs.formats.note import Note
from livedumpfs.units import PAGE_SIZE

MAX_RANGES: Final = 1 << 20
"""Of a memory map: bounds what a reader of a hostile file allocates. ELF could have 2^32."""
MAX_VCPUS: Final = 16384
"""The same, of vCPUs."""


Registers = Mapping[str, int]
"""Names of the processor's registers (Processor.registers) to values."""


class RangeLike(Protocol):
    """What a plan needs to know of a machine's PhysicalRange."""

    @property
    def start(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def arena_offset(self) -> int: ...


@dataclass(frozen=True, order=True)
class MemoryRange:
    """Physical [start, start+size) is arena [arena_offset, arena_offset+size). Bytes."""

    start: int
    size: int
    arena_offset: int

    @property
    def end(self) -> int:
        """First physical address behind the range."""
        return self.start + self.size


@dataclass(frozen=True)
class MachineInfo:
    """What a format says of the machine. `memory_map` is sorted by physical address."""

    name: str
    architecture: str = "x86_64"
    elf_machine: int = 62
    vcpus: int = 0
    """vCPUs whose registers the dump has room for."""
    memory_map: tuple[MemoryRange, ...] = ()
    identity_mapped: bool = True
    """Virtual addresses are physical ones; else they are not known, and 0."""
    note_room: int = 0
    """Bytes for `notes`, a multiple of 4, and as they stand in the dump."""
    notes: tuple[Note, ...] = ()
    """What it says of itself besides the registers."""

    @classmethod
    def of(
        cls,
        name: str,
        memory_map: Sequence[RangeLike],
        *,
        architecture: str = "x86_64",
        elf_machine: int = 62,
        vcpus: int = 0,
        identity_mapped: bool = True,
        note_room: int = 0,
    ) -> MachineInfo:
        """Take over a machine's own ranges, in any order."""
        ranges = sorted(MemoryRange(r.start, r.size, r.arena_offset) for r in memory_map)
        return cls(
            name, architecture, elf_machine, vcpus, tuple(ranges), identity_mapped, note_room
        )

    def describe_map(self) -> list[dict[str, int]]:
        """JSON types."""
        return [
            {"start": r.start, "size": r.size, "arena_offset": r.arena_offset}
            for r in self.memory_map
        ]

    @classmethod
    def flat(cls, name: str, arena_size: int) -> MachineInfo:
        """Memory that is no machine: one range at physical address 0, no registers."""
        return cls(name, memory_map=(MemoryRange(0, arena_size, 0),))


def check_machine(machine: MachineInfo, arena_size: int) -> None:
    """UsageError: a memory map that does not cover the arena, or more vCPUs than we know."""
    check_map(machine.memory_map, arena_size)
    if not 0 <= machine.vcpus <= MAX_VCPUS:
        raise UsageError(
            f"a machine of {machine.vcpus} vCPUs cannot be dumped",
            hint=f"livedumpfs has room for the registers of {MAX_VCPUS}, in every format",
        )


def check_map(ranges: Sequence[MemoryRange], arena_size: int) -> None:
    """UsageError unless `ranges` are whole pages, apart from each other, and cover the arena."""
    if len(ranges) > MAX_RANGES:
        raise UsageError(
            f"a memory map of {len(ranges)} ranges cannot be dumped",
            hint=f"livedumpfs takes {MAX_RANGES} of them, in every format",
        )
    for r in ranges:
        if r.size <= 0 or r.start < 0 or (r.start | r.size | r.arena_offset) % PAGE_SIZE:
            raise UsageError(f"memory range at {r.start:#x} does not consist of whole pages")
        if r.end > 1 << 62:
            raise UsageError(f"memory range at {r.start:#x} is out of range")
    for before, after in itertools.pairwise(ranges):
        if before.end > after.start:
            raise UsageError(f"memory ranges at {before.start:#x} and {after.start:#x} overlap")
    position = 0
    for r in sorted(ranges, key=lambda r: r.arena_offset):
        if r.arena_offset != position:
            raise UsageError(f"the memory map does not cover the arena at offset {position:#x}")
        position += r.size
    if position != arena_size:
        raise UsageError(f"the memory map covers {position} of {arena_size} bytes of the arena")
