# SPDX-License-Identifier: GPL-2.0-or-later
"""Note: what a core dump says of a machine besides its memory, as an ELF note (elf(5))."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from livedumpfs.errors import UsageError
from livedumpfs.formats.typed import typed
from livedumpfs.units import align_up

HEADER: Final = struct.Struct("<III")
"""Elf64_Nhdr: sizes of name and content, type."""
OWN_NAME: Final = b"LIVEDUMPFS\0"
VMCOREINFO: Final = b"VMCOREINFO\0"
"""Name of the note in which a Linux describes itself."""
PADDING_TYPE: Final = 0x4C444650
"""Type of our notes that only fill room; their content means nothing."""
MAX_COUNT: Final = 16384
MAX_NAME: Final = 256
MAX_SIZE: Final = 1 << 20
"""Most bytes of one note's content in the meta data."""


@dataclass(frozen=True)
class Note:
    """One ELF note; `name` ends in NUL."""

    name: bytes
    type: int
    content: bytes

    def pack(self) -> bytes:
        """Header, name and content, both padded to 4 bytes."""
        head = HEADER.pack(len(self.name), len(self.content), self.type)
        return head + padded(self.name) + padded(self.content)

    def describe(self) -> dict[str, object]:
        """JSON types."""
        return {
            "name": self.name.rstrip(b"\0").decode("ascii", "replace"),
            "type": self.type,
            "content": base64.b64encode(self.content).decode("ascii"),
        }


def padded(data: bytes) -> bytes:
    """`data` with zeros up to a multiple of 4 bytes."""
    return data + bytes(-len(data) % 4)


def find_notes(data: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Name, type, where the content begins in `data` and its size, of each note there. It may end
    behind `data`: the caller looks."""
    position = 0
    while position + HEADER.size <= len(data):
        name_size, size, kind = HEADER.unpack_from(data, position)
        name = position + HEADER.size
        content = name + align_up(name_size, 4)
        yield data[name : name + name_size], kind, content, size
        position = content + align_up(size, 4)


def pack_notes(notes: Sequence[Note], room: int) -> bytes:
    """The notes in exactly `room` bytes, a multiple of 4. A note of PADDING_TYPE fills the rest.
    UsageError: they do not fit."""
    packed = b"".join(note.pack() for note in notes)
    left = room - len(packed)
    head = len(Note(OWN_NAME, PADDING_TYPE, b"").pack())
    if left == 0:
        return packed
    if left < head:
        raise UsageError(f"notes of {len(packed)} bytes do not fit into {room}")
    return packed + Note(OWN_NAME, PADDING_TYPE, bytes(left - head)).pack()


class _Described(msgspec.Struct):
    """What describe() makes."""

    name: Annotated[str, Meta(max_length=MAX_NAME - 1, pattern=r"^[\x00-\x7f]*\Z")]
    type: Annotated[int, Meta(ge=0, lt=1 << 32)]
    content: Annotated[bytes, Meta(max_length=MAX_SIZE)]


_Notes = Annotated[list[_Described], Meta(max_length=MAX_COUNT)]


def parse_notes(items: object) -> tuple[Note, ...]:
    """The notes that describe() wrote. InvalidDump: `items` is something else."""
    found = typed(items, _Notes, "notes")
    return tuple(Note(one.name.encode("ascii") + b"\0", one.type, one.content) for one in found)
