# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF64 vmcore: header, notes, superblock, meta, granule table, then the memory in arena order.

0                    ELF header, program headers (within the first 4096 bytes)
...                  notes: NT_PRSTATUS of each vCPU, then ours, whose content is the superblock
superblock_offset    superblock, 4096-aligned: the notes are laid out backwards from it
meta slots, table
data_offset          arena offset 0, aligned to the granule
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats import meta as meta_slot
from livedumpfs.formats import note, superblock, table
from livedumpfs.formats.note import Note
from livedumpfs.formats.plan import (
    Extent,
    MachineInfo,
    Plan,
    Registers,
    Step,
    Sync,
    Zero,
    check_map,
    check_sizes,
    new_dump_id,
)
from livedumpfs.units import PAGE_SIZE, align_up

MAGIC: Final = b"\x7fELF"
NOTE_TYPE: Final = 0x4C444653
HEAD_SIZE: Final = 4096
"""ELF header and program headers lie within the first HEAD_SIZE bytes."""
MAX_NOTES: Final = 4 << 20
"""Bytes of notes that a reader looks at."""

# fmt: off
REGISTERS: Final = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi",
    "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs",
    "gs",
)
# fmt: on
"""x86-64 user_regs_struct, in order."""
PRSTATUS_SIZE: Final = 336
MAX_VCPUS: Final = 4096

_EHDR = struct.Struct("<4s5B7xHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_NO_ALIGNMENT: Final = 0
"""Of a PT_LOAD, as in /proc/vmcore and QEMU's dumps. A core whose first one has another, and begins
at a page of the file, is one of netdump for crash: it does not look where the kernel lies then."""
_PRSTATUS = struct.Struct("<3ih2xQQ4i8Q27Qi4x")

_ET_CORE, _EV_CURRENT = 4, 1
_PT_LOAD, _PT_NOTE = 1, 4
_PF_RWX = 7
_NT_PRSTATUS = 1
_X86_64 = 62

MAX_SEGMENTS: Final = (HEAD_SIZE - _EHDR.size) // _PHDR.size - 1


@dataclass(frozen=True)
class Segment:
    """A program header that says where memory or notes lie. Bytes."""

    type: int
    offset: int
    physical: int
    size: int


def prstatus(registers: Registers, pid: int) -> bytes:
    """struct elf_prstatus of x86-64 with the general registers; unknown ones are 0."""
    values = [registers.get(name, 0) & 0xFFFF_FFFF_FFFF_FFFF for name in REGISTERS]
    return _PRSTATUS.pack(0, 0, 0, 0, 0, 0, pid, 0, 0, 0, *[0] * 8, *values, 0)


def register_notes(machine: MachineInfo, registers: Sequence[Registers]) -> bytes:
    """NT_PRSTATUS of each vCPU that `registers` has; when it has none, before START, zeros for all.
    UsageError: more registers than vCPUs."""
    if len(registers) > machine.vcpus:
        raise UsageError(f"registers of {len(registers)} vCPUs for {machine.vcpus}")
    if machine.elf_machine != _X86_64:
        return b""
    given = registers or [{}] * machine.vcpus
    notes = (Note(b"CORE\0", _NT_PRSTATUS, prstatus(r, i + 1)) for i, r in enumerate(given))
    return b"".join(one.pack() for one in notes)


@dataclass(frozen=True)
class ElfPlan(Plan):
    """See the module's text."""

    def header(self, registers: Sequence[Registers] = ()) -> bytes:
        """Everything before the superblock. UsageError: more registers than vCPUs."""
        notes = all_notes(self.machine, registers)
        note_offset = self.superblock_offset - len(notes)
        note_size = len(notes) + superblock.SIZE
        head = core_headers(self.machine, (note_offset, note_size), self.data_offset)
        return head + bytes(note_offset - len(head)) + notes

    def invalidate(self) -> list[Step]:
        """No ELF header: no dump. An older one may have its superblock elsewhere."""
        return [Zero("target", 0, HEAD_SIZE), Sync("target")]


def all_notes(machine: MachineInfo, registers: Sequence[Registers] = ()) -> bytes:
    """NT_PRSTATUS of each vCPU, the machine's own notes, and of ours what stands before the
    superblock. Never longer than without registers."""
    more = note.pack_notes(machine.notes, machine.note_room)
    return register_notes(machine, registers) + more + _own_note_head()


def _own_note_head() -> bytes:
    head = note.HEADER.pack(len(note.OWN_NAME), superblock.SIZE, NOTE_TYPE)
    return head + note.padded(note.OWN_NAME)


def headers_size(machine: MachineInfo, *, noted: bool = True) -> int:
    """Bytes of core_headers; `noted`: with a PT_NOTE."""
    return _EHDR.size + _PHDR.size * (noted + len(machine.memory_map))


def core_headers(machine: MachineInfo, notes: tuple[int, int], data_offset: int) -> bytes:
    """ELF header and program headers: PT_NOTE, then a PT_LOAD for each range.

    `notes`: their offset and size; no PT_NOTE when the size is 0. `data_offset`: where arena
    offset 0 lies in the file.
    """
    programs = [_PHDR.pack(_PT_NOTE, 0, notes[0], 0, 0, notes[1], 0, 4)] if notes[1] else []
    programs += [
        _PHDR.pack(_PT_LOAD, _PF_RWX, offset, virtual, r.start, r.size, r.size, _NO_ALIGNMENT)
        for r in machine.memory_map
        for offset in [data_offset + r.arena_offset]
        for virtual in [r.start if machine.identity_mapped else 0]
    ]
    return _elf_header(machine.elf_machine, len(programs)) + b"".join(programs)


def _elf_header(machine: int, programs: int) -> bytes:
    return _EHDR.pack(
        MAGIC, 2, 1, _EV_CURRENT, 0, 0, _ET_CORE, machine, _EV_CURRENT, 0, _EHDR.size, 0, 0,
        _EHDR.size, _PHDR.size, programs, 0, 0, 0,
    )  # fmt: skip


def check_machine(machine: MachineInfo, arena_size: int) -> None:
    """UsageError: a memory map that does not cover the arena, more ranges or vCPUs than fit."""
    check_map(machine.memory_map, arena_size)
    if len(machine.memory_map) > MAX_SEGMENTS:
        raise UsageError(f"{len(machine.memory_map)} memory ranges, {MAX_SEGMENTS} fit")
    if not 0 <= machine.vcpus <= MAX_VCPUS:
        raise UsageError(f"{machine.vcpus} vCPUs, at most {MAX_VCPUS} fit")


def plan_elf(
    machine: MachineInfo,
    *,
    arena_size: int,
    granule_size: int,
    dump_id: bytes | None = None,
    identity: tuple[int, int] = (0, 0),
    meta_room: int = meta_slot.ROOM,
) -> ElfPlan:
    """Lay out an ELF dump. UsageError: sizes or memory map that cannot be."""
    check_sizes(arena_size, granule_size, meta_room)
    check_machine(machine, arena_size)
    heads = headers_size(machine)
    notes = len(all_notes(machine))
    block = align_up(heads + notes, PAGE_SIZE)
    slots = (block + superblock.ROOM, block + superblock.ROOM + meta_room)
    table_offset = slots[1] + meta_room
    table_size = table.table_size(-(-arena_size // granule_size))
    data = align_up(table_offset + table_size, max(granule_size, PAGE_SIZE))
    return ElfPlan(
        format="elf",
        machine=machine,
        arena_size=arena_size,
        granule_size=granule_size,
        dump_id=dump_id or new_dump_id(),
        total_size=data + arena_size,
        extents=(Extent(0, arena_size, data),),
        data_offset=data,
        book="target",
        book_size=0,
        superblock_offset=block,
        meta_slots=slots,
        meta_room=meta_room,
        table_offset=table_offset,
        table_size=table_size,
        identity=identity,
    )


def parse_segments(head: bytes) -> list[Segment]:
    """Program headers in the file's first HEAD_SIZE bytes. InvalidDump: no ELF64 core of ours."""
    if len(head) < _EHDR.size or head[:4] != MAGIC:
        raise InvalidDump("it has no ELF header")
    fields = _EHDR.unpack_from(head)
    if fields[1:4] != (2, 1, _EV_CURRENT) or fields[6] != _ET_CORE:
        raise InvalidDump("its ELF header is not that of a 64-bit little-endian core")
    offset, size, count = fields[10], fields[14], fields[15]
    if size != _PHDR.size or not 1 <= count <= MAX_SEGMENTS + 1 or offset != _EHDR.size:
        raise InvalidDump("its program headers are not those of a livedumpfs dump")
    if offset + size * count > len(head):
        raise InvalidDump("it ends within its program headers")
    programs = (_PHDR.unpack_from(head, offset + size * i) for i in range(count))
    return [Segment(p[0], p[2], p[4], p[5]) for p in programs]


def note_segment(segments: Sequence[Segment]) -> Segment:
    """The one PT_NOTE. InvalidDump: none, or of an impossible size."""
    notes = [segment for segment in segments if segment.type == _PT_NOTE]
    if len(notes) != 1 or not superblock.SIZE < notes[0].size <= MAX_NOTES:
        raise InvalidDump("it has no livedumpfs note")
    return notes[0]


def load_segments(segments: Sequence[Segment]) -> list[Segment]:
    """The PT_LOADs, in their order."""
    return [segment for segment in segments if segment.type == _PT_LOAD]


def own_note_position(notes: bytes) -> int:
    """Where the content of our own note starts in the bytes of PT_NOTE. InvalidDump: nowhere."""
    position = 0
    while position + note.HEADER.size <= len(notes):
        name_size, size, kind = note.HEADER.unpack_from(notes, position)
        name = position + note.HEADER.size
        content = name + align_up(name_size, 4)
        if kind == NOTE_TYPE and notes[name : name + name_size] == note.OWN_NAME:
            if size == superblock.SIZE and content + size <= len(notes):
                return content
            break
        position = content + align_up(size, 4)
    raise InvalidDump("it has no livedumpfs note")


def parse_registers(header: bytes) -> list[dict[str, int]]:
    """Registers in the NT_PRSTATUS notes of a header that ElfPlan.header made, in vCPU order."""
    return parse_register_notes(header[note_segment(parse_segments(header[:HEAD_SIZE])).offset :])


def parse_register_notes(notes: bytes) -> list[dict[str, int]]:
    """Registers in the NT_PRSTATUS notes that `notes` starts with."""
    position, found = 0, []
    while position + note.HEADER.size <= len(notes):
        name_size, size, kind = note.HEADER.unpack_from(notes, position)
        content = position + note.HEADER.size + align_up(name_size, 4)
        if kind != _NT_PRSTATUS or size != PRSTATUS_SIZE or content + size > len(notes):
            break
        values = _PRSTATUS.unpack_from(notes, content)
        found.append(dict(zip(REGISTERS, values[18 : 18 + len(REGISTERS)], strict=True)))
        position = content + size
    return found
