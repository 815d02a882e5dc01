# SPDX-License-Identifier: GPL-2.0-or-later
"""Note: what a core dump says of a machine besides its memory, as an ELF note (elf(5))."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from livedumpfs.errors import InvalidDump, UsageError

HEADER: Final = struct.Struct("<III")
"""Elf64_Nhdr: sizes of name and content, type."""
OWN_NAME: Final = b"LIVEDUMPFS\0"
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


def parse_notes(items: object) -> tuple[Note, ...]:
    """The notes that describe() wrote. InvalidDump: `items` is something else."""
    if not isinstance(items, list) or len(items) > MAX_COUNT:
        raise InvalidDump("its meta data has no sensible notes")
    return tuple(_parse_note(item) for item in items)


def _parse_note(item: object) -> Note:
    found = item if isinstance(item, dict) else {}
    name, kind, text = found.get("name"), found.get("type"), found.get("content")
    if not (isinstance(name, str) and isinstance(kind, int) and isinstance(text, str)):
        raise InvalidDump("its meta data has no sensible notes")
    if len(name) >= MAX_NAME or not 0 <= kind < 1 << 32 or len(text) > 2 * MAX_SIZE:
        raise InvalidDump("its meta data has impossible notes")
    try:
        content = base64.b64decode(text, validate=True)
        return Note(name.encode("ascii") + b"\0", kind, content)
    except (ValueError, binascii.Error) as error:
        raise InvalidDump("its meta data has damaged notes") from error
