# SPDX-License-Identifier: GPL-2.0-or-later
"""Where everything of one dump goes: the plan that is made at INIT and followed to the seal.

A plan does no I/O. It gives the extents and the table's place to the C core, which writes the
memory and the granule table, and it gives *steps* - writes and syncs, in order - to the code that
holds the files.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import xxhash

from livedumpfs.errors import UsageError
from livedumpfs.formats import meta as meta_slot
from livedumpfs.formats import superblock, table
from livedumpfs.formats.machine_info import MachineInfo, Registers
from livedumpfs.formats.note import Note, pack_notes
from livedumpfs.formats.superblock import Superblock, VerdictWord
from livedumpfs.units import PAGE_SIZE

Role = Literal["target", "sidecar"]
"""The files that a dump consists of. Only `raw` has a sidecar."""


@dataclass(frozen=True)
class Write:
    """Write `data` at `offset` of the file."""

    file: Role
    offset: int
    data: bytes


@dataclass(frozen=True)
class Zero:
    """Make [offset, offset+length) of the file read as zeros."""

    file: Role
    offset: int
    length: int


@dataclass(frozen=True)
class Sync:
    """Wait until all that was written to the file is durable."""

    file: Role


Step = Write | Zero | Sync


@dataclass(frozen=True)
class Extent:
    """Arena [arena_offset, arena_offset+length) lies at target_offset of the target. Bytes."""

    arena_offset: int
    length: int
    target_offset: int


@dataclass(frozen=True)
class Plan(ABC):
    """One dump's layout. Offsets and sizes in bytes."""

    format: str
    machine: MachineInfo
    arena_size: int
    granule_size: int
    dump_id: bytes
    """16 bytes, for ldfs_dump_config.dump_id too."""
    total_size: int
    """Of the target: Target.prepare(total_size)."""
    extents: tuple[Extent, ...]
    """Sorted by arena_offset, cover the arena: ldfs_dump_config.extents."""
    data_offset: int
    book: Role
    """The file with superblock, meta and table: table_fd is that file's."""
    book_size: int
    """Bytes of the sidecar file; 0 when `book` is the target."""
    superblock_offset: int
    meta_slots: tuple[int, int]
    meta_room: int
    table_offset: int
    table_size: int
    identity: tuple[int, int] = field(default=(0, 0))
    """Target.identity, kept in a sidecar file so that it is not taken for another target's."""

    @property
    def granule_count(self) -> int:
        """Granules of the arena; the last may be shorter than the others."""
        return -(-self.arena_size // self.granule_size)

    @property
    def description(self) -> tuple[int, int]:
        """(offset, bytes) of what the book says of the dump: what must have room whatever becomes
        of the memory."""
        start = min(self.superblock_offset, *self.meta_slots, self.table_offset)
        if self.book == "target" and start == self.superblock_offset:
            start = 0  # with the header
        end = max(self.superblock_offset + superblock.ROOM, self.table_offset + self.table_size)
        return start, end - start

    @abstractmethod
    def header(self, registers: Sequence[Registers] = ()) -> bytes:
        """All bytes of the target before the superblock; empty for raw."""

    @abstractmethod
    def invalidate(self) -> list[Step]:
        """What makes any older dump on the target unreadable, and stale bytes of the gaps zero."""

    def opening(self, meta: Mapping[str, object]) -> list[Step]:
        """Steps at INIT: an unsealed dump under the new id. `meta`: JSON types, see describe()."""
        slot, header = self._slot(meta, 0), self._heading((), meta, complete=False)
        return [
            *self.invalidate(),
            *self._fixed(),
            Write(self.book, self.meta_slots[1], bytes(meta_slot.HEADER_SIZE)),
            Write(self.book, self.meta_slots[0], slot),
            Write(self.book, self.superblock_offset, self._superblock(header, slot, 0).pack()),
            *self._header_write(header),
            Sync(self.book),
        ]

    def renamed(self, meta: Mapping[str, object]) -> list[Step]:
        """Steps after those of `opening` under another id, once the table is empty: from here on it
        is this dump. Durable in this order, so that no older table of this id is ever taken for its
        own."""
        slot, header = self._slot(meta, 0), self._heading((), meta, complete=False)
        return [
            Sync(self.book),
            Write(self.book, self.meta_slots[0], slot),
            Write(self.book, self.superblock_offset, self._superblock(header, slot, 0).pack()),
            Sync(self.book),
        ]

    def started(self, registers: Sequence[Registers], meta: Mapping[str, object]) -> list[Step]:
        """Steps after START: the registers of the instant, and instant and pause in `meta`."""
        slot, header = self._slot(meta, 1), self._heading(registers, meta, complete=False)
        return [
            Write(self.book, self.meta_slots[1], slot),
            *self._header_write(header),
            Write(self.book, self.superblock_offset, self._superblock(header, slot, 1).pack()),
        ]

    def seal(
        self,
        verdict: VerdictWord,
        meta: Mapping[str, object],
        registers: Sequence[Registers] = (),
        *,
        total_size: int | None = None,
    ) -> list[Step]:
        """Steps at FINISH, after the drain: `registers` as given to `started`. `total_size`: of
        the target now, where the plan could not know it.

        Everything is synced before the sealed superblock is written, and that after.
        """
        header, slot, block = self._sealed(verdict, meta, registers, total_size)
        syncs: list[Step] = [Sync("target")]
        if self.book != "target":
            syncs.append(Sync(self.book))
        return [
            Write(self.book, self.meta_slots[0], slot),
            *self._header_at_seal(header),
            *syncs,
            Write(self.book, self.superblock_offset, block.pack()),
            Sync(self.book),
        ]

    def finished(
        self,
        verdict: VerdictWord,
        meta: Mapping[str, object],
        registers: Sequence[Registers] = (),
        *,
        total_size: int | None = None,
    ) -> list[Write]:
        """All of a sealed dump but memory, descriptors and table, for files that were empty before:
        in any order, each place once. Arguments as of `seal`."""
        header, slot, block = self._sealed(verdict, meta, registers, total_size)
        return [
            *(step for step in self._header_write(header) if isinstance(step, Write)),
            Write(self.book, self.superblock_offset, block.pack()),
            *(step for step in self._fixed() if isinstance(step, Write)),
            Write(self.book, self.meta_slots[0], slot),
        ]

    def _sealed(
        self,
        verdict: VerdictWord,
        meta: Mapping[str, object],
        registers: Sequence[Registers],
        total_size: int | None,
    ) -> tuple[bytes, bytes, Superblock]:
        """Header, meta slot 0 and superblock of the sealed dump."""
        slot = self._slot({**meta, "verdict": verdict}, 0)
        header = self._heading(registers, meta, complete=verdict == "consistent")
        block = self._superblock(header, slot, 0).sealed_as(verdict)
        if total_size is not None:
            block = replace(block, total_size=total_size)
        return header, slot, block

    def _heading(
        self, registers: Sequence[Registers], meta: Mapping[str, object], *, complete: bool
    ) -> bytes:
        """The header as it is written; `complete`: of a dump that has all pages."""
        del meta, complete
        return self.header(registers)

    def _header_at_seal(self, header: bytes) -> list[Step]:
        """What the seal changes before the superblock."""
        del header
        return []

    def _fixed(self) -> list[Step]:
        """What INIT writes once, besides header, superblock, meta and table."""
        return []

    def describe(self) -> dict[str, object]:
        """The part of the meta data that a reader needs; wins over the caller's keys."""
        machine = self.machine
        return {
            "format": self.format,
            "name": machine.name,
            "architecture": machine.architecture,
            "elf_machine": machine.elf_machine,
            "vcpus": machine.vcpus,
            "identity_mapped": machine.identity_mapped,
            "notes": [one.describe() for one in machine.notes],
            "memory_map": machine.describe_map(),
        }

    def _slot(self, meta: Mapping[str, object], sequence: int) -> bytes:
        merged = {**meta, **self.describe()}
        return meta_slot.build_slot(merged, self.dump_id, sequence, room=self.meta_room)

    def _header_write(self, header: bytes) -> list[Step]:
        return [Write("target", 0, header)] if header else []

    def _superblock(self, header: bytes, slot: bytes, current: int) -> Superblock:
        return Superblock(
            dump_id=self.dump_id,
            format=self.format,
            sealed=False,
            verdict="incomplete",
            granule_size=self.granule_size,
            granule_count=self.granule_count,
            arena_size=self.arena_size,
            data_offset=self.data_offset,
            total_size=self.total_size,
            superblock_offset=self.superblock_offset,
            table_offset=self.table_offset,
            table_size=self.table_size,
            meta_offsets=self.meta_slots,
            meta_room=self.meta_room,
            meta_current=current,
            meta_length=len(slot),
            meta_checksum=xxhash.xxh3_64_intdigest(slot),
            header_checksum=xxhash.xxh3_64_intdigest(header),
            target_device=self.identity[0],
            target_inode=self.identity[1],
        )

    def with_notes(self, notes: Sequence[Note]) -> Plan:
        """The same plan with what the machine says of its instant. UsageError: there is not room
        for all."""
        pack_notes(notes, self.machine.note_room)
        return replace(self, machine=replace(self.machine, notes=tuple(notes)))

    def with_identity(self, identity: tuple[int, int]) -> Plan:
        """The same plan for the target with that Target.identity."""
        return replace(self, identity=identity)


def new_dump_id() -> bytes:
    """16 random bytes."""
    return uuid.uuid4().bytes


def check_sizes(arena_size: int, granule_size: int, meta_room: int) -> None:
    """UsageError: sizes that no dump can have."""
    if not 0 < arena_size <= superblock.MAX_ARENA or arena_size % PAGE_SIZE:
        raise UsageError(f"arena size {arena_size} is not a multiple of {PAGE_SIZE} in range")
    power = granule_size > 0 and granule_size & (granule_size - 1) == 0
    if not (power and PAGE_SIZE <= granule_size <= superblock.MAX_GRANULE):
        raise UsageError(f"granule size {granule_size} is no power of two of at least {PAGE_SIZE}")
    if -(-arena_size // granule_size) > table.MAX_GRANULES:
        raise UsageError(
            f"{arena_size} bytes in granules of {granule_size} are too many",
            hint="choose a larger granule",
        )
    if meta_room % PAGE_SIZE or not PAGE_SIZE <= meta_room <= superblock.MAX_META:
        raise UsageError(
            f"the dump's description needs {meta_room} bytes",
            hint=f"livedumpfs has room for {superblock.MAX_META}, in every format: fewer memory "
            "ranges, named arrays or vCPUs",
        )


def room_for(machine: MachineInfo, said: int = 0) -> int:
    """Bytes of a meta slot that has room for all that a dump of that machine will say of itself,
    whole pages. `said`: bytes of JSON that are known beforehand, besides the memory map."""
    notes = 2 * machine.note_room  # in base64
    known = said + notes + meta_slot.text_size({"": machine.describe_map()})
    return meta_slot.room_for(machine.vcpus, known)
