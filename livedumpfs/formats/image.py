# SPDX-License-Identifier: GPL-2.0-or-later
"""Images: files that show an arena as other tools want it, without holding any of it.

An image is a list of segments, bytes of its own or a range of the arena; all else is zeros::

    image = vmcore_image(machine_info, arena_size, registers)
    for piece in image.pieces(offset, length):
        match piece:
            case Literal(): piece.data
            case ArenaPiece(): read_arena(piece.arena_offset, piece.length)
            case Gap(): bytes(piece.length)
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from livedumpfs.errors import UsageError
from livedumpfs.formats import elf
from livedumpfs.formats.machine_info import MachineInfo, Registers, check_machine
from livedumpfs.units import PAGE_SIZE, align_up

LIME_MAGIC: Final = 0x4C694D45
LIME_VERSION: Final = 1
_LIME_HEADER = struct.Struct("<IIQQ8x")


@dataclass(frozen=True)
class Literal:
    """Bytes of the image itself, at `offset` in it."""

    offset: int
    data: bytes

    @property
    def length(self) -> int:
        """In bytes."""
        return len(self.data)


@dataclass(frozen=True)
class ArenaPiece:
    """Arena [arena_offset, arena_offset+length), shown at `offset` of the image. In bytes."""

    offset: int
    arena_offset: int
    length: int


@dataclass(frozen=True)
class Gap:
    """`length` zeros at `offset` of the image."""

    offset: int
    length: int


ImageSegment = Literal | ArenaPiece
Piece = Literal | ArenaPiece | Gap


@dataclass(frozen=True)
class Image:
    """A file of `size` bytes. Its `segments` are sorted, not empty, do not overlap, and lie within
    the size; else UsageError (ValueError)."""

    name: str
    size: int
    segments: tuple[ImageSegment, ...]

    def __post_init__(self) -> None:
        position = 0
        for one in self.segments:
            if one.offset < position or one.length <= 0:
                raise UsageError(f"{self.name}: segment at {one.offset:#x} is out of order")
            position = one.offset + one.length
        if position > self.size:
            raise UsageError(f"{self.name}: segments end at {position:#x}, behind the file")

    @cached_property
    def _ends(self) -> list[int]:
        return [one.offset + one.length for one in self.segments]

    @property
    def filled(self) -> int:
        """Bytes that are not in a gap."""
        return sum(one.length for one in self.segments)

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """The pieces of [offset, offset+length), in order and without a break. They end at the end
        of the file; none lies behind it. ValueError: a negative number."""
        if offset < 0 or length < 0:
            raise ValueError(f"range is negative: {offset}, {length}")
        return self._pieces(offset, min(offset + length, self.size))

    def _pieces(self, at: int, end: int) -> Iterator[Piece]:
        # The first segment whose end is behind `at`.
        first = bisect.bisect_right(self._ends, at)
        for one in map(self.segments.__getitem__, range(first, len(self.segments))):
            if at >= end or one.offset >= end:
                break
            if one.offset > at:
                yield Gap(at, one.offset - at)
                at = one.offset
            stop = min(end, one.offset + one.length)
            yield _cut(one, at, stop)
            at = stop
        if at < end:
            yield Gap(at, end - at)


def _cut(segment: ImageSegment, start: int, stop: int) -> ImageSegment:
    """The part [start, stop) of the image; it must lie in `segment`."""
    within = start - segment.offset
    if isinstance(segment, Literal):
        return Literal(start, segment.data[within : within + stop - start])
    return ArenaPiece(start, segment.arena_offset + within, stop - start)


def vmcore_image(
    machine: MachineInfo,
    arena_size: int,
    registers: Sequence[Registers] = (),
    *,
    name: str = "vmcore",
    loads: Sequence[elf.Load] | None = None,
) -> Image:
    """An ELF64 core: a PT_LOAD for each of `loads`, without them for each range of the memory;
    NT_PRSTATUS of each vCPU, then the machine's notes.

    The memory lies behind the headers in arena order, as in an `elf` dump, and starts at a page
    boundary. UsageError: a memory map that does not cover the arena, or more registers than vCPUs.
    """
    check_machine(machine, arena_size)
    noted = elf.register_notes(machine, registers) + b"".join(one.pack() for one in machine.notes)
    shown = elf.memory_loads(machine) if loads is None else loads
    start = elf.headers_size(len(shown), noted=bool(noted))
    data = align_up(start + len(noted), PAGE_SIZE)
    head = elf.core_headers(machine, (start, len(noted)), data, shown)
    return Image(
        name, data + arena_size, (Literal(0, head + noted), ArenaPiece(data, 0, arena_size))
    )


def raw_image(machine: MachineInfo, arena_size: int, *, name: str = "mem.raw") -> Image:
    """The memory at offset = physical address; zeros where the machine has no memory. UsageError: a
    memory map that does not cover the arena."""
    check_machine(machine, arena_size)
    segments = tuple(ArenaPiece(r.start, r.arena_offset, r.size) for r in machine.memory_map)
    return Image(name, max(r.end for r in machine.memory_map), segments)


def lime_image(machine: MachineInfo, arena_size: int, *, name: str = "mem.lime") -> Image:
    """LiME version 1: before each range a header with its first and last physical address (both
    inclusive). UsageError: a memory map that does not cover the arena."""
    check_machine(machine, arena_size)
    segments: list[ImageSegment] = []
    position = 0
    for r in machine.memory_map:
        header = _LIME_HEADER.pack(LIME_MAGIC, LIME_VERSION, r.start, r.end - 1)
        segments.append(Literal(position, header))
        segments.append(ArenaPiece(position + len(header), r.arena_offset, r.size))
        position += len(header) + r.size
    return Image(name, position, tuple(segments))
