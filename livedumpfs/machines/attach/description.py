# SPDX-License-Identifier: GPL-2.0-or-later
"""The states of a guest's devices in a migration stream, by the description at its end.

The description is JSON: name and size of every field of every device, in their order. It is
believed only as far as it fits the sections that it describes.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from livedumpfs.machines.attach.stream import FOOTER, FULL, SUBSECTION
from livedumpfs.machines.attach.window import StreamError, strange

DESCRIPTION: Final = 6
_EOF: Final = 0
_MOST_TEXT: Final = 32 << 20
_MOST_DEPTH: Final = 32
_MOST_NUMBER: Final = 8

_Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]


class _Field(msgspec.Struct):
    name: str
    size: _Size
    array_len: _Size | None = None
    struct: _Section | None = None


class _Section(msgspec.Struct):
    fields: list[_Field] = []
    subsections: list[_Section] = []
    vmsd_name: str = ""


class _Device(_Section):
    name: str = ""
    instance_id: int = 0


class _Description(msgspec.Struct):
    devices: list[_Device]


@dataclass(frozen=True)
class DeviceState:
    """The fields of one device, as they came: numbers are big-endian. Those of its subsections are
    left out."""

    name: str
    instance: int
    fields: Mapping[str, bytes]
    """An array is one field with all of its elements."""
    parts: Mapping[str, Mapping[str, tuple[int, int]]]
    """Of fields that are structs: name of a member -> (offset, size), in one element."""

    def number(self, name: str) -> int:
        """A field that is a number of at most 64 bits. StreamError: there is none of that name."""
        found = self._field(name)
        if not 0 < len(found) <= _MOST_NUMBER:
            raise strange(f"{name} of {self.name!r} has {len(found)} bytes")
        return int.from_bytes(found, "big")

    def numbers(self, name: str, size: int) -> list[int]:
        """A field that is an array of numbers of `size` bytes each. StreamError."""
        found = self._field(name)
        if len(found) % size:
            raise strange(f"{name} of {self.name!r} has {len(found)} bytes")
        pieces = (found[at : at + size] for at in range(0, len(found), size))
        return [int.from_bytes(one, "big") for one in pieces]

    def structs(self, name: str) -> list[dict[str, int]]:
        """A field that is a struct of numbers, or an array of such. StreamError."""
        found, parts = self._field(name), self.parts.get(name, {})
        length = max((at + size for at, size in parts.values()), default=0)
        large = any(size > _MOST_NUMBER for _, size in parts.values())
        if not length or large or len(found) % length:
            raise strange(f"{name} of {self.name!r} is no array of its members")
        elements = (found[at : at + length] for at in range(0, len(found), length))
        return [
            {part: int.from_bytes(one[at : at + size], "big") for part, (at, size) in parts.items()}
            for one in elements
        ]

    def _field(self, name: str) -> bytes:
        if name not in self.fields:
            raise strange(f"{self.name!r} has no {name}")
        return self.fields[name]


def read_devices(rest: bytes) -> list[DeviceState]:
    """All devices in what MigrationStream.read returned. StreamError."""
    text, end = _find_description(rest)
    # Two devices may have one name (isa-ide); they are described in the order of their sections.
    described: defaultdict[tuple[str, int], deque[_Device]] = defaultdict(deque)
    for one in _parse(text).devices:
        described[one.name, one.instance_id].append(one)
    return list(_walk(rest[:end], described))


def _find_description(rest: bytes) -> tuple[bytes, int]:
    """Its text, and where the devices end before it: it fills the rest of the stream exactly."""
    mark = bytes([_EOF, DESCRIPTION])
    at = rest.find(mark)
    while at >= 0:
        start = at + len(mark) + 4
        length = int.from_bytes(rest[start - 4 : start], "big")
        if start + length == len(rest) and rest[start : start + 1] == b"{":
            if length > _MOST_TEXT:
                raise strange(f"the description of its devices has {length} bytes")
            return rest[start:], at
        at = rest.find(mark, at + 1)
    raise strange("it ends without a description of its devices")


def _parse(text: bytes) -> _Description:
    try:
        return msgspec.convert(json.loads(text), _Description)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise StreamError(
            f"QEMU's migration stream: the description of its devices makes no sense: {error}"
        ) from error


def _walk(
    content: bytes, described: Mapping[tuple[str, int], deque[_Device]]
) -> Iterator[DeviceState]:
    """Each section of `content`, whose length only the description tells."""
    at = 0
    while at < len(content):
        device, instance, number, at = _header(content, at)
        known = described.get((device, instance))
        if not known:
            raise strange(f"device {device!r} is not described")
        one = known.popleft()
        fields: dict[str, bytearray] = {}
        parts: dict[str, dict[str, tuple[int, int]]] = {}
        for field in one.fields:
            length = field.size * (1 if field.array_len is None else field.array_len)
            if at + length > len(content):
                raise strange(f"{field.name} of {device!r} ends behind the devices")
            fields.setdefault(field.name, bytearray()).extend(content[at : at + length])
            if field.struct is not None:
                parts[field.name] = dict(_members(field.struct))
            at += length
        at = _skip_subsections(content, at, one.subsections, 0)
        footer = bytes([FOOTER]) + number.to_bytes(4, "big")
        if content[at : at + len(footer)] != footer:
            raise strange(f"device {device!r} is not as it is described")
        at += len(footer)
        contents = {name: bytes(value) for name, value in fields.items()}
        yield DeviceState(device, instance, contents, parts)


def _header(content: bytes, at: int) -> tuple[str, int, int, int]:
    """Name, instance and number of the section at `at`, and where its content begins."""
    length = content[at + 5] if at + 5 < len(content) else 0
    end = at + 6 + length + 8
    if content[at] != FULL or end > len(content):
        raise strange(f"there is no device at byte {at} of the devices")
    name = content[at + 6 : at + 6 + length].decode("ascii", "backslashreplace")
    number = int.from_bytes(content[at + 1 : at + 5], "big")
    instance = int.from_bytes(content[end - 8 : end - 4], "big")
    return name, instance, number, end


def _members(struct: _Section) -> Iterator[tuple[str, tuple[int, int]]]:
    at = 0
    for one in struct.fields:
        size = one.size * (1 if one.array_len is None else one.array_len)
        yield one.name, (at, size)
        at += size


def _skip_subsections(content: bytes, at: int, sections: Sequence[_Section], depth: int) -> int:
    if depth > _MOST_DEPTH:
        raise strange("its devices are described too deep")
    for one in sections:
        length = content[at + 1] if at + 1 < len(content) else 0
        name = content[at + 2 : at + 2 + length].decode("ascii", "backslashreplace")
        if content[at : at + 1] != bytes([SUBSECTION]) or name != one.vmsd_name:
            raise strange(f"subsection {one.vmsd_name!r} is not where it is described")
        at += 2 + length + 4
        at += sum(size for _, (_, size) in _members(one))
        at = _skip_subsections(content, at, one.subsections, depth + 1)
    return at
