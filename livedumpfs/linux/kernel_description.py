# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's description of itself: VMCOREINFO as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.formats.note import VMCOREINFO, Note
from livedumpfs.paging.table_form import ALL_BITS

_LINE: Final = re.compile(r"^(\w+)\(([^)]+)\)=(-?(?:0x)?[0-9a-f]+)$")


class Description:
    """What the text says. InvalidDump: it does not say that."""

    page_size = 0
    """Bytes of the kernel's pages; 0: it does not say."""

    kernel_offset = 0
    """Bytes between where the kernel is and where it was linked to (KASLR)."""

    def __init__(self, text: bytes) -> None:
        self._values: dict[tuple[str, str], int] = {}
        self.release = ""
        for line in text.decode("ascii", "replace").splitlines():
            found = _LINE.match(line)
            if found:
                kind, name, value = found.groups()
                base = 16 if kind == "SYMBOL" or value.startswith("0x") else 10
                self._values[kind, name] = _number(value, base)
            elif line.startswith("OSRELEASE="):
                self.release = line.removeprefix("OSRELEASE=")
            elif line.startswith("PAGESIZE="):
                self.page_size = _number(line.removeprefix("PAGESIZE="), 10)
            elif line.startswith("KERNELOFFSET="):
                self.kernel_offset = _number(line.removeprefix("KERNELOFFSET="), 16)

    def symbol(self, name: str) -> int:
        """Virtual address."""
        return self._value("SYMBOL", name) & ALL_BITS

    def offset(self, name: str) -> int:
        """Of a structure's member, "struct.member", in bytes."""
        return self._value("OFFSET", name)

    def size(self, name: str) -> int:
        """Of a structure, in bytes."""
        return self._value("SIZE", name)

    def number(self, name: str) -> int:
        """A number."""
        return self._value("NUMBER", name)

    def find_number(self, name: str) -> int | None:
        """A number; None: it does not say."""
        return self._values.get(("NUMBER", name))

    def _value(self, kind: str, name: str) -> int:
        try:
            return self._values[kind, name]
        except KeyError:
            raise InvalidDump(f"the kernel's VMCOREINFO has no {kind}({name})") from None


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        return 0


def description_of(notes: Iterable[Note]) -> Description:
    """What the kernel says of itself in a dump's notes. InvalidDump: nothing."""
    for note in notes:
        if note.name == VMCOREINFO:
            return Description(note.content)
    raise InvalidDump("the dump has no VMCOREINFO: no Linux had booted then")
