# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest program: a static ELF64 file, cut into what is copied to memory."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from livedumpfs.errors import MachineError
from livedumpfs.formats.elf import MAGIC
from livedumpfs.machines import boot
from livedumpfs.machines.machine import PhysicalRange

EM_X86_64 = 62
EM_RISCV = 243
_NAMES = {EM_X86_64: "x86-64", EM_RISCV: "riscv64"}
ET_EXEC = 2
HOW_TO_LINK = "link it with -static -no-pie, see guest/boot.h"
_HEAD = struct.Struct("<4s14xH")
"""Of an ELF file: magic, e_machine."""
_NOT_OURS = "it is not 64-bit little-endian ELF"


@dataclass(frozen=True)
class Segment:
    """`data` at physical `address`, zeros up to `size` bytes."""

    address: int
    data: bytes
    size: int

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.address + self.size


@dataclass(frozen=True)
class GuestImage:
    """A guest program that was read and is well-formed."""

    path: Path
    entry: int
    segments: Sequence[Segment]

    @classmethod
    def load(cls, path: Path, elf_machine: int = EM_X86_64) -> GuestImage:
        """MachineError: cannot be read (its errno), or is no program for the machine with that
        number in ELF (ENOEXEC)."""
        return cls.parse(path, _read(path), elf_machine)

    @classmethod
    def parse(cls, path: Path, data: bytes, elf_machine: int = EM_X86_64) -> GuestImage:
        """As load, of bytes that were read already; `path` is for messages."""
        entry, headers = _headers(path, data, elf_machine)
        segments = tuple(_segments(path, data, headers))
        if not any(s.address <= entry < s.end for s in segments):
            raise _refuse(path, f"its entry {entry:#x} is in none of its segments", HOW_TO_LINK)
        return cls(path, entry, segments)

    def check_fits(self, memory_map: Sequence[PhysicalRange]) -> None:
        """MachineError: a segment lies outside RAM, or where the loader's own data are."""
        for s in self.segments:
            where = f"its segment [{s.address:#x}, {s.end:#x})"
            begin = memory_map[0].start + boot.END
            if memory_map[0].start <= s.address < begin:
                raise _refuse(self.path, f"{where} begins below {begin:#x}", HOW_TO_LINK)
            if not any(r.start <= s.address and s.end <= r.end for r in memory_map):
                ram = ", ".join(f"[{r.start:#x}, {r.end:#x})" for r in memory_map)
                raise _refuse(self.path, f"{where} lies outside RAM", f"RAM is {ram}")


def is_for_riscv64(path: Path) -> bool:
    """By its ELF header alone; other files are refused when they are loaded. MachineError: it
    cannot be read."""
    head = _read(path)[: _HEAD.size]
    return len(head) == _HEAD.size and _HEAD.unpack(head) == (MAGIC, EM_RISCV)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        code = error.errno or errno.EIO
        raise MachineError(f"cannot read guest {path}: {error.strerror}", errno=code) from error


def _refuse(path: Path, cause: str, hint: str = "") -> MachineError:
    return MachineError(f"cannot run guest {path}: {cause}", errno=errno.ENOEXEC, hint=hint)


def _headers(path: Path, data: bytes, elf_machine: int) -> tuple[int, list[Any]]:
    """Entry and program headers. Of these pyelftools' own classes are not made: one for PT_DYNAMIC
    goes through all sections."""
    # Not for machines without a guest program.
    from elftools.common.exceptions import ELFError, ELFParseError
    from elftools.common.utils import struct_parse
    from elftools.elf.elffile import ELFFile
    from elftools.elf.enums import ENUM_E_MACHINE, ENUM_E_TYPE

    if not data.startswith(MAGIC):
        raise _refuse(path, "it is not an ELF file")
    try:
        elf = ELFFile(BytesIO(data))
    except ELFParseError as error:
        raise _refuse(path, "it ends within its ELF header") from error
    except ELFError as error:
        raise _refuse(path, _NOT_OURS) from error
    if not elf.little_endian or elf.elfclass != 64:
        raise _refuse(path, _NOT_OURS)
    kind, machine = _number(ENUM_E_TYPE, elf["e_type"]), _number(ENUM_E_MACHINE, elf["e_machine"])
    if machine != elf_machine:
        wanted = f"{_NAMES[elf_machine]} ({elf_machine})"
        raise _refuse(path, f"it is for ELF machine {machine}, not for {wanted}")
    if kind != ET_EXEC:
        raise _refuse(path, f"it is of ELF type {kind}, not an executable ({ET_EXEC})", HOW_TO_LINK)
    header, table, size = elf.structs.Elf_Phdr, elf["e_phoff"], elf["e_phentsize"]
    end = table + elf["e_phnum"] * size
    if size != header.sizeof() or end > len(data):
        raise _refuse(path, "its program headers are damaged")
    return elf["e_entry"], [struct_parse(header, elf.stream, at) for at in range(table, end, size)]


def _number(names: Mapping[str, Any], value: str | int) -> int:
    """pyelftools gives what it knows by name."""
    return int(names[value]) if isinstance(value, str) else value


def _segments(path: Path, data: bytes, headers: list[Any]) -> Iterator[Segment]:
    for header in headers:
        if header.p_type == "PT_INTERP":
            raise _refuse(path, "it wants a dynamic linker", HOW_TO_LINK)
        if header.p_type != "PT_LOAD" or header.p_memsz == 0:
            continue
        address, end = header.p_vaddr, header.p_offset + header.p_filesz
        if header.p_filesz > header.p_memsz or end > len(data):
            raise _refuse(path, f"it ends within its segment at {address:#x}")
        yield Segment(address, data[header.p_offset : end], header.p_memsz)
