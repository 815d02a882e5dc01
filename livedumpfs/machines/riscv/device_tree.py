# SPDX-License-Identifier: GPL-2.0-or-later
"""A flattened device tree (Devicetree Specification 0.4, chapter 5)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Value = bytes | str | int | tuple[str, ...] | tuple[int, ...]
"""Bytes as they are; a string, or several, each with its NUL; cells, big-endian and of 32 bits. An
empty tuple: the property has no value."""

_HEADER = struct.Struct(">10I")
_MAGIC: Final = 0xD00DFEED
_VERSION: Final = 17
_LAST_COMPATIBLE: Final = 16
_BEGIN, _END, _PROPERTY, _FINISH = 1, 2, 3, 9
_NO_RESERVATIONS: Final = bytes(16)


@dataclass(frozen=True)
class Node:
    """A node with its properties, and the nodes below it, by their names ("cpu@0")."""

    properties: Mapping[str, Value] = field(default_factory=dict)
    below: Mapping[str, Node] = field(default_factory=dict)


def flatten(root: Node) -> bytes:
    """The whole tree, as a kernel takes it."""
    strings: dict[str, int] = {}
    structure = _node("", root, strings) + _words(_FINISH)
    texts = b"".join(name.encode() + b"\0" for name in strings)
    reserved = _HEADER.size
    begin = reserved + len(_NO_RESERVATIONS)
    total = begin + len(structure) + len(texts)
    header = _HEADER.pack(
        *(_MAGIC, total, begin, begin + len(structure), reserved, _VERSION, _LAST_COMPATIBLE),
        *(0, len(texts), len(structure)),
    )
    return header + _NO_RESERVATIONS + structure + texts


def _node(name: str, node: Node, strings: dict[str, int]) -> bytes:
    parts = [_words(_BEGIN), _padded(name.encode() + b"\0")]
    for key, value in node.properties.items():
        if key not in strings:
            strings[key] = sum(len(one.encode()) + 1 for one in strings)
        content = _content(value)
        parts += [_words(_PROPERTY, len(content), strings[key]), _padded(content)]
    parts += [_node(one, child, strings) for one, child in node.below.items()]
    return b"".join([*parts, _words(_END)])


def _content(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str | int):
        return _content((value,))  # type: ignore[arg-type]
    return b"".join(one.encode() + b"\0" if isinstance(one, str) else _words(one) for one in value)


def _words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
