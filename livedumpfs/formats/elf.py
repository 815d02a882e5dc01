# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF64 vmcore: header, notes, superblock, meta, granule table, then the memory in arena order.

0                    ELF header, program headers: of up to 71 ranges within the first 4096 bytes
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
from livedumpfs.formats import note, processors, superblock, table
from livedumpfs.formats.machine_info import MAX_RANGES, MachineInfo, Registers, check_machine
from livedumpfs.formats.note import Note
from livedumpfs.formats.plan import Extent, Plan, Step, Sync, Zero, check_sizes, new_dump_id
from livedumpfs.formats.processors import Processor
from livedumpfs.units import PAGE_SIZE, align_up

MAGIC: Final = b"\x7fELF"
NOTE_TYPE: Final = 0x4C444653
HEAD_SIZE: Final = 4096
"""Bytes of a file that are enough to find the end of the program headers; when these are few, all
of them are within."""
MAX_NOTES: Final = 16 << 20
"""Most bytes of notes that a reader looks at."""

_EHDR = struct.Struct("<4s5B7xHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_NO_ALIGNMENT: Final = 0
"""p_align of a PT_LOAD, as in /proc/vmcore and QEMU's dumps. A core whose first PT_LOAD has another
alignment, and starts at a page of the file, is taken by crash for one of netdump; crash then does
not search for the kernel's load address."""

_ET_CORE, _EV_CURRENT = 4, 1
_PT_LOAD, _PT_NOTE = 1, 4
_PF_RWX = 7
_NT_PRSTATUS = 1
_PN_XNUM = 0xFFFF
"""Value of e_phnum for this many program headers or more. The real number is then in sh_info of
section 0."""
MAX_HEADERS: Final = _EHDR.size + _SHDR.size + (MAX_RANGES + 1) * _PHDR.size
"""Bytes of the longest headers that a dump can have."""


Load = tuple[int, int, int, int]
"""What a PT_LOAD shows: virtual address, physical address, bytes, arena offset."""


@dataclass(frozen=True)
class ProgramHeader:
    """A program header (PT_LOAD or PT_NOTE): where memory or notes lie. In bytes."""

    type: int
    offset: int
    physical: int
    size: int


def register_notes(machine: MachineInfo, registers: Sequence[Registers]) -> bytes:
    """One NT_PRSTATUS for each vCPU in `registers`. When `registers` is empty, as before START: one
    for each vCPU of the machine, all zeros. None for a processor that is not known. UsageError:
    more registers than vCPUs."""
    if len(registers) > machine.vcpus:
        raise UsageError(f"registers of {len(registers)} vCPUs for {machine.vcpus}")
    processor = processors.of_elf_machine(machine.elf_machine)
    if processor is None:
        return b""
    given = registers or [{}] * machine.vcpus
    contents = (processor.prstatus(one, index + 1) for index, one in enumerate(given))
    notes = (Note(b"CORE\0", _NT_PRSTATUS, one) for one in contents)
    return b"".join(one.pack() for one in notes)


@dataclass(frozen=True)
class ElfPlan(Plan):
    """The plan of an `elf` dump; the module's docstring has the layout."""

    def header(self, registers: Sequence[Registers] = ()) -> bytes:
        """Everything before the superblock. UsageError: more registers than vCPUs."""
        notes = all_notes(self.machine, registers)
        note_offset = self.superblock_offset - len(notes)
        note_size = len(notes) + superblock.SIZE
        loads = memory_loads(self.machine)
        head = core_headers(self.machine, (note_offset, note_size), self.data_offset, loads)
        return head + bytes(note_offset - len(head)) + notes

    def invalidate(self) -> list[Step]:
        """Overwrite the ELF header: without it there is no dump. An older dump may have its
        superblock at another offset."""
        return [Zero("target", 0, HEAD_SIZE), Sync("target")]


def all_notes(machine: MachineInfo, registers: Sequence[Registers] = ()) -> bytes:
    """All notes: NT_PRSTATUS of each vCPU, the machine's own notes, and the part of our note that
    stands before the superblock. Never longer than the result without registers."""
    more = note.pack_notes(machine.notes, machine.note_room)
    return register_notes(machine, registers) + more + own_note_head()


def own_note_head() -> bytes:
    """What stands before the superblock in our note."""
    head = note.HEADER.pack(len(note.OWN_NAME), superblock.SIZE, NOTE_TYPE)
    return head + note.padded(note.OWN_NAME)


def headers_size(loads: int, *, noted: bool = True) -> int:
    """Bytes of core_headers with so many PT_LOADs; `noted`: with a PT_NOTE."""
    programs = noted + loads
    return _programs_offset(programs) + _PHDR.size * programs


def _programs_offset(programs: int) -> int:
    """Offset of the first of `programs` program headers. Section 0 stands before them when it has
    to hold their number. QEMU writes it in the same order: the first bytes of a file are enough to
    know how long the headers are."""
    return _EHDR.size + (_SHDR.size if programs >= _PN_XNUM else 0)


def core_headers(
    machine: MachineInfo,
    notes: tuple[int, int],
    data_offset: int,
    loads: Sequence[Load],
) -> bytes:
    """ELF header and program headers: a PT_NOTE, then a PT_LOAD for each of `loads`, in any number.

    `notes`: offset and size of the notes; no PT_NOTE when the size is 0. `data_offset`: offset in
    the file of arena offset 0.
    """
    # elf2dmp goes by the size in memory, as QEMU's dumps have it.
    size = notes[1]
    programs = [_PHDR.pack(_PT_NOTE, 0, notes[0], 0, 0, size, size, 4)] if size else []
    programs += [
        _PHDR.pack(
            _PT_LOAD, _PF_RWX, data_offset + at, virtual, start, length, length, _NO_ALIGNMENT
        )
        for virtual, start, length, at in loads
    ]
    return _elf_header(machine.elf_machine, len(programs)) + b"".join(programs)


def memory_loads(machine: MachineInfo) -> list[Load]:
    """Of each range of the memory."""
    return [
        (r.start if machine.identity_mapped else 0, r.start, r.size, r.arena_offset)
        for r in machine.memory_map
    ]


def _elf_header(machine: int, programs: int) -> bytes:
    """The ELF header, with section 0 behind it when that holds the number of program headers."""
    many = programs >= _PN_XNUM
    sections = (_EHDR.size, _SHDR.size, 1) if many else (0, 0, 0)
    head = _EHDR.pack(
        MAGIC, 2, 1, _EV_CURRENT, 0, 0, _ET_CORE, machine, _EV_CURRENT, 0,
        _programs_offset(programs), sections[0], 0, _EHDR.size, _PHDR.size,
        min(programs, _PN_XNUM), *sections[1:], 0,
    )  # fmt: skip
    return head + (_SHDR.pack(0, 0, 0, 0, 0, 0, 0, programs, 0, 0) if many else b"")


def plan_elf(
    machine: MachineInfo,
    *,
    arena_size: int,
    granule_size: int,
    dump_id: bytes | None = None,
    identity: tuple[int, int] = (0, 0),
    meta_room: int,
    align: int = PAGE_SIZE,
) -> ElfPlan:
    """Lay out an ELF dump. `align`: a power of two. UsageError: sizes or a memory map that no dump
    can have."""
    check_sizes(arena_size, granule_size, meta_room)
    check_machine(machine, arena_size)
    heads = headers_size(len(machine.memory_map))
    notes = len(all_notes(machine))
    block = align_up(heads + notes, PAGE_SIZE)
    slots = (block + superblock.ROOM, block + superblock.ROOM + meta_room)
    table_offset = slots[1] + meta_room
    table_size = table.table_size(-(-arena_size // granule_size))
    data = align_up(table_offset + table_size, max(granule_size, align))
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


def headers_end(head: bytes) -> int:
    """Offset of the end of the program headers. `head`: the file's first bytes, HEAD_SIZE of them
    are enough. InvalidDump: not an ELF64 core as this module writes it."""
    return _find_programs(head)[1]


def _find_programs(head: bytes) -> tuple[int, int]:
    """Offsets of the program headers' begin and end."""
    if len(head) < _EHDR.size or head[:4] != MAGIC:
        raise InvalidDump("it has no ELF header")
    fields = _EHDR.unpack_from(head)
    if fields[1:4] != (2, 1, _EV_CURRENT) or fields[6] != _ET_CORE:
        raise InvalidDump("its ELF header is not that of a 64-bit little-endian core")
    offset, sections, size, count = fields[10], fields[11], fields[14], fields[15]
    if count == _PN_XNUM:
        if sections != _EHDR.size or len(head) < sections + _SHDR.size:
            raise InvalidDump("it has no section header that counts its program headers")
        count = _SHDR.unpack_from(head, sections)[7]
    good = 1 <= count <= MAX_RANGES + 1 and offset == _programs_offset(count)
    if size != _PHDR.size or not good:
        raise InvalidDump("its program headers are not those of a livedumpfs dump")
    return offset, offset + size * count


def parse_segments(headers: bytes) -> list[ProgramHeader]:
    """The program headers. `headers`: the file's first bytes, at least headers_end of them.
    InvalidDump: not an ELF64 core as this module writes it."""
    offset, end = _find_programs(headers)
    if end > len(headers):
        raise InvalidDump("it ends within its program headers")
    programs = _PHDR.iter_unpack(memoryview(headers)[offset:end])
    return [ProgramHeader(p[0], p[2], p[4], p[5]) for p in programs]


def note_segment(segments: Sequence[ProgramHeader]) -> ProgramHeader:
    """The one PT_NOTE. InvalidDump: none, or of an impossible size."""
    notes = [segment for segment in segments if segment.type == _PT_NOTE]
    if len(notes) != 1 or not superblock.SIZE < notes[0].size <= MAX_NOTES:
        raise InvalidDump("it has no livedumpfs note")
    return notes[0]


def load_segments(segments: Sequence[ProgramHeader]) -> list[ProgramHeader]:
    """The PT_LOADs, in the file's order."""
    return [segment for segment in segments if segment.type == _PT_LOAD]


def first_note(head: bytes) -> ProgramHeader:
    """The PT_NOTE of a dump. `head`: the file's first HEAD_SIZE bytes. In our dumps it is the first
    program header, so a hostile file cannot keep the reader busy with a million other headers.
    InvalidDump: as note_segment."""
    offset, _ = _find_programs(head)
    if len(head) < offset + _PHDR.size:
        raise InvalidDump("it ends within its program headers")
    first = _PHDR.unpack_from(head, offset)
    return note_segment([ProgramHeader(first[0], first[2], first[4], first[5])])


def own_note_position(notes: bytes) -> int:
    """Offset of our own note's content in the bytes of PT_NOTE. InvalidDump: no such note."""
    for name, kind, content, size in note.find_notes(notes):
        if kind == NOTE_TYPE and name == note.OWN_NAME:
            if size == superblock.SIZE and content + size <= len(notes):
                return content
            break
    raise InvalidDump("it has no livedumpfs note")


def parse_registers(header: bytes) -> list[dict[str, int]]:
    """Registers in the NT_PRSTATUS notes of a header from ElfPlan.header, in vCPU order. None: its
    processor is not known."""
    processor = processors.of_elf_machine(_EHDR.unpack_from(header)[7])
    notes = header[note_segment(parse_segments(header)).offset :]
    return parse_register_notes(notes, processor) if processor else []


def parse_register_notes(notes: bytes, processor: Processor) -> list[dict[str, int]]:
    """Registers in the NT_PRSTATUS notes at the beginning of `notes`, in their order."""
    found = []
    for _, kind, content, size in note.find_notes(notes):
        if kind != _NT_PRSTATUS or size != processor.prstatus_size or content + size > len(notes):
            break
        found.append(processor.parse_prstatus(notes[content : content + size]))
    return found
