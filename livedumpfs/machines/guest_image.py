# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest program: a static ELF64 file for x86-64, cut into what is copied to memory."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from livedumpfs.errors import MachineError
from livedumpfs.machines import boot
from livedumpfs.machines.machine import PhysicalRange

EM_X86_64 = 62
ET_EXEC = 2
PT_LOAD, PT_INTERP = 1, 3
HOW_TO_LINK = "link it with -static -no-pie, see guest/boot.h"

_HEADER = struct.Struct("<4sBBB9x2HI3QI6H")
_SEGMENT = struct.Struct("<2I6Q")


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
    def load(cls, path: Path) -> GuestImage:
        """MachineError: cannot be read (its errno), or is no program for this machine (ENOEXEC)."""
        try:
            data = path.read_bytes()
        except OSError as error:
            code = error.errno or errno.EIO
            raise MachineError(f"cannot read guest {path}: {error.strerror}", errno=code) from error
        return cls.parse(path, data)

    @classmethod
    def parse(cls, path: Path, data: bytes) -> GuestImage:
        """As load, of bytes that were read already; `path` is for messages."""
        entry, headers = _headers(path, data)
        segments = tuple(_segments(path, data, headers))
        if not any(s.address <= entry < s.end for s in segments):
            raise _refuse(path, f"its entry {entry:#x} is in none of its segments", HOW_TO_LINK)
        return cls(path, entry, segments)

    def check_fits(self, memory_map: Sequence[PhysicalRange]) -> None:
        """MachineError: a segment lies outside RAM, or where the loader's own data are."""
        for s in self.segments:
            where = f"its segment [{s.address:#x}, {s.end:#x})"
            if s.address < boot.END:
                raise _refuse(self.path, f"{where} begins below {boot.END:#x}", HOW_TO_LINK)
            if not any(r.start <= s.address and s.end <= r.end for r in memory_map):
                ram = ", ".join(f"[{r.start:#x}, {r.end:#x})" for r in memory_map)
                raise _refuse(self.path, f"{where} lies outside RAM", f"RAM is {ram}")


def _refuse(path: Path, cause: str, hint: str = "") -> MachineError:
    return MachineError(f"cannot run guest {path}: {cause}", errno=errno.ENOEXEC, hint=hint)


def _headers(path: Path, data: bytes) -> tuple[int, list[tuple[int, ...]]]:
    """Entry and program headers."""
    if not data.startswith(b"\x7fELF"):
        raise _refuse(path, "it is not an ELF file")
    if len(data) < _HEADER.size:
        raise _refuse(path, "it ends within its ELF header")
    _, bits, order, _, kind, machine, _, entry, table, _, _, _, size, count, _, _, _ = (
        _HEADER.unpack_from(data)
    )
    if (bits, order) != (2, 1):
        raise _refuse(path, "it is not 64-bit little-endian ELF")
    if machine != EM_X86_64:
        raise _refuse(path, f"it is for ELF machine {machine}, not for x86-64 ({EM_X86_64})")
    if kind != ET_EXEC:
        raise _refuse(path, f"it is of ELF type {kind}, not an executable (2)", HOW_TO_LINK)
    if size != _SEGMENT.size or table + count * size > len(data):
        raise _refuse(path, "its program headers are damaged")
    return entry, [_SEGMENT.unpack_from(data, table + i * size) for i in range(count)]


def _segments(path: Path, data: bytes, headers: list[tuple[int, ...]]) -> Iterator[Segment]:
    for kind, _, offset, address, _, in_file, in_memory, _ in headers:
        if kind == PT_INTERP:
            raise _refuse(path, "it wants a dynamic linker", HOW_TO_LINK)
        if kind != PT_LOAD or in_memory == 0:
            continue
        if in_file > in_memory or offset + in_file > len(data):
            raise _refuse(path, f"it ends within its segment at {address:#x}")
        yield Segment(address, data[offset : offset + in_file], in_memory)
