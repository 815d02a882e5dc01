# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF: the kernel's own structures (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Final

from livedumpfs.errors import InvalidDump

_MAGIC: Final = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MEMBER = struct.Struct("<III")
_STRUCT, _UNION = 4, 5
# Bytes behind the head of a type, by its kind: the fixed ones, and those of each of its `vlen`.
_BEHIND: Final = {
    1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12),
    17: (4, 0), 19: (0, 12),
}  # fmt: skip


class Types:
    """Where members of structures are. InvalidDump: this is no BTF, or there is none of that
    name."""

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise InvalidDump("the kernel has no types of its own (BTF)")
        magic, _, _, size, types, types_size, strings, strings_size = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise InvalidDump("the kernel has no types of its own (BTF)")
        self._types = data[size + types : size + types + types_size]
        self._strings = data[size + strings : size + strings + strings_size]

    def offset(self, structure: str, *path: str) -> int:
        """Bytes from the start of `structure` to a member, or to a member of a member. Members of
        anonymous structures within it are its own."""
        index, total = self._named.get(structure, 0), 0
        for member in path:
            found = self._member(index, member)
            if found is None:
                raise InvalidDump(f"the kernel's struct {structure} has no {'.'.join(path)}")
            total, index = total + found[0], found[1]
        return total

    def _member(self, index: int, wanted: str) -> tuple[int, int] | None:
        """(offset in bytes, number of its type)."""
        for name, kind, bits in self._members(self._resolved(index)):
            if name == wanted:
                return bits // 8, kind
            inner = None if name else self._member(kind, wanted)
            if inner:
                return bits // 8 + inner[0], inner[1]
        return None

    def _members(self, index: int) -> Iterator[tuple[str, int, int]]:
        """(name, number of its type, offset in bits)."""
        at = self._places[index] if index < len(self._places) else 0
        _, info, _ = _TYPE.unpack_from(self._types, at)
        if index == 0 or _kind(info) not in (_STRUCT, _UNION):
            return
        for i in range(info & 0xFFFF):
            name, kind, bits = _MEMBER.unpack_from(self._types, at + _TYPE.size + i * _MEMBER.size)
            # With bit fields the upper 8 bits are the member's width.
            yield self._string(name), kind, bits & 0xFFFFFF if info >> 31 else bits

    def _resolved(self, index: int) -> int:
        """Behind typedefs and qualifiers."""
        for _ in range(16):
            if not 0 < index < len(self._places):
                return 0
            _, info, below = _TYPE.unpack_from(self._types, self._places[index])
            if _kind(info) not in (8, 9, 10, 11, 18):
                return index
            index = below
        return 0

    @cached_property
    def _places(self) -> list[int]:
        """Where each type begins; number 0 is void."""
        places, at = [0], 0
        while at + _TYPE.size <= len(self._types):
            places.append(at)
            _, info, _ = _TYPE.unpack_from(self._types, at)
            fixed, each = _BEHIND.get(_kind(info), (0, 0))
            at += _TYPE.size + fixed + each * (info & 0xFFFF)
        return places

    @cached_property
    def _named(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for index, at in enumerate(self._places[1:], 1):
            name, info, _ = _TYPE.unpack_from(self._types, at)
            if _kind(info) == _STRUCT and name:
                found.setdefault(self._string(name), index)
        return found

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        return self._strings[offset:end].decode("ascii", "replace")


def _kind(info: int) -> int:
    return info >> 24 & 0x1F
