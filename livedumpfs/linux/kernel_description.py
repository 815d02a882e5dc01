# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's description of itself: VMCOREINFO as numbers."""

from __future__ import annotations

import re
from typing import Final

from livedumpfs.errors import InvalidDump

_LINE: Final = re.compile(r"^(\w+)\(([^)]+)\)=(-?(?:0x)?[0-9a-f]+)$")
_ALL_BITS: Final = (1 << 64) - 1


class Description:
    """What the text says. InvalidDump: it does not say that."""

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

    def symbol(self, name: str) -> int:
        """Virtual address."""
        return self._value("SYMBOL", name) & _ALL_BITS

    def offset(self, name: str) -> int:
        """Of a structure's member, "struct.member", in bytes."""
        return self._value("OFFSET", name)

    def size(self, name: str) -> int:
        """Of a structure, in bytes."""
        return self._value("SIZE", name)

    def number(self, name: str) -> int:
        """A number."""
        return self._value("NUMBER", name)

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
