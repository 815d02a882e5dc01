# SPDX-License-Identifier: GPL-2.0-or-later
"""The two meta slots: the dump's description of itself in JSON (UTF-8).

A slot starts with its own header, so that a good slot can be told from a damaged one without the
superblock. The host writes one slot after the other: when it dies in between, one is good.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, Final

import xxhash

from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.units import PAGE_SIZE, align_up

MAGIC: Final = b"LDFSMETA"
ROOM: Final = 256 << 10
"""Bytes of a slot unless the planner asks for more."""
_ROOM_OF_VCPU: Final = 2 << 10
"""Bytes for the registers of one vCPU; QEMU's take 1.6 KiB."""
_MANY: Final = 4 << 20
_VALUE: Final = 6
"""A text of more than _MANY bytes must have at least this many bytes for each value, on average. A
hostile file with smaller values would take twenty times its size in memory."""

_HEADER = struct.Struct("<8s16sIIQ")
HEADER_SIZE: Final = _HEADER.size


def room_for(vcpus: int, known: int) -> int:
    """Bytes of a slot, whole pages: room for the registers of `vcpus` vCPUs, for `known` bytes of
    text, and for what is not known yet, at least half of ROOM."""
    return align_up(ROOM + vcpus * _ROOM_OF_VCPU + max(0, known - ROOM // 2), PAGE_SIZE)


def text_size(meta: Mapping[str, object]) -> int:
    """Bytes of `meta` as text in a slot. TypeError: it has a value that JSON does not have."""
    return len(_encode(meta))


def build_slot(
    meta: Mapping[str, object], dump_id: bytes, sequence: int, *, room: int = ROOM
) -> bytes:
    """Header and text of one slot, at most `room` bytes.

    When the text does not fit, the list `lost` (ranges of pages; the granule table has them all) is
    shortened and `lost_cut` set. UsageError: it does not fit even so; TypeError: not JSON.
    """
    text = _encode(meta)
    if HEADER_SIZE + len(text) > room:
        text = _encode(_cut_lost(meta, HEADER_SIZE + len(text) - room))
    if HEADER_SIZE + len(text) > room:
        raise UsageError(
            f"the dump's description needs {HEADER_SIZE + len(text)} bytes, {room} are reserved",
            hint="fewer or shorter array names",
        )
    checksum = xxhash.xxh3_64_intdigest(text)
    return _HEADER.pack(MAGIC, dump_id, sequence, len(text), checksum) + text


def _encode(meta: Mapping[str, object]) -> bytes:
    return json.dumps(dict(meta), separators=(",", ":"), allow_nan=False).encode()


def _cut_lost(meta: Mapping[str, object], excess: int) -> dict[str, object]:
    lost = meta.get("lost")
    if not isinstance(lost, list) or not lost:
        return dict(meta)
    spare = excess + len(b',"lost_cut":true')
    kept = list(lost)
    while kept and spare > 0:
        spare -= len(_encode({"": kept.pop()})) - len(b'{"":}') + len(b",")
    return {**meta, "lost": kept, "lost_cut": True}


def parse_slot(data: bytes, dump_id: bytes) -> tuple[int, dict[str, Any]]:
    """(sequence, meta) of the slot in `data`. InvalidDump: empty, damaged, or of another dump."""
    if len(data) < HEADER_SIZE:
        raise InvalidDump("its meta data is cut off")
    magic, owner, sequence, length, checksum = _HEADER.unpack_from(data)
    if magic != MAGIC or owner != dump_id:
        raise InvalidDump("its meta data is missing")
    text = data[HEADER_SIZE : HEADER_SIZE + length]
    if len(text) != length or xxhash.xxh3_64_intdigest(text) != checksum:
        raise InvalidDump("its meta data is damaged (checksum)")
    if length > _MANY and text.count(b",") * _VALUE > length:
        raise InvalidDump("its meta data has impossible contents")
    try:
        meta = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidDump("its meta data is not JSON") from error
    if not isinstance(meta, dict):
        raise InvalidDump("its meta data is not a JSON object")
    return sequence, meta


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def slot_length(head: bytes, room: int) -> int:
    """Bytes of the slot that starts with `head`, header included; 0 when it is not a slot."""
    if len(head) < HEADER_SIZE:
        return 0
    magic, _, _, length, _ = _HEADER.unpack_from(head)
    return HEADER_SIZE + length if magic == MAGIC and HEADER_SIZE + length <= room else 0
