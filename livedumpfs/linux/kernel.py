# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel: the memory of a Linux kernel in a dump, by virtual addresses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.formats.note import parse_notes
from livedumpfs.linux.kernel_description import description_of
from livedumpfs.linux.kernel_tables import kernel_tables
from livedumpfs.linux.symbols import Symbols
from livedumpfs.linux.types import Types
from livedumpfs.paging.table_form import ALL_BITS, ReadPhysical, translate

_PAGE_BITS: Final = 12
"""Of what is translated at once; no kernel has smaller pages."""
_IN_PAGE: Final = (1 << _PAGE_BITS) - 1
_LONGEST_STRING: Final = 4096
_MOST_READ: Final = 256 << 20
"""At once; the largest are BTF and the names of symbols, some MB each."""


class Kernel:
    """Of a machine whose processor is known. InvalidDump: the dump has another processor, no
    VMCOREINFO, or its memory makes no sense at a place."""

    def __init__(self, meta: Mapping[str, object], read: ReadPhysical) -> None:
        """`meta`: what the dump says of itself. `read`: raises OSError."""
        self.description = description_of(parse_notes(meta.get("notes", [])))
        architecture = str(meta.get("architecture", ""))
        self._form, self._root = kernel_tables(architecture, self.description)
        self._read_physical = read
        self._pages: dict[int, int] = {}

    # ------------------------------------------------------------------- memory

    def read(self, address: int, length: int) -> bytes:
        """Bytes at a virtual address."""
        if not 0 <= length <= _MOST_READ:
            raise InvalidDump(f"the kernel has a table of {length} bytes at {address:#x}")
        parts = []
        while length > 0:
            part = min(length, (address | _IN_PAGE) + 1 - address)
            parts.append(self._physical(self._page_of(address) + (address & _IN_PAGE), part))
            address, length = address + part & ALL_BITS, length - part
        return b"".join(parts)

    def number(self, address: int, size: int = 8) -> int:
        """An unsigned number of `size` bytes."""
        return int.from_bytes(self.read(address, size), "little")

    def string(self, address: int, length: int) -> str:
        """A text of at most `length` bytes, up to its NUL."""
        found, _, _ = self.read(address, min(length, _LONGEST_STRING)).partition(b"\0")
        return found.decode("utf-8", "backslashreplace")

    def _physical(self, address: int, length: int) -> bytes:
        try:
            return self._read_physical(address, length)
        except OSError as error:
            raise InvalidDump(f"the kernel's memory at {address:#x}: {error.strerror}") from error

    def _page_of(self, address: int) -> int:
        page = address >> _PAGE_BITS
        if page not in self._pages:
            self._pages[page] = self._walk(address) & ~_IN_PAGE
        return self._pages[page]

    def _walk(self, address: int) -> int:
        found = translate(self._physical, self._form, self._root, address)
        if found is None:
            raise InvalidDump(f"the kernel's address {address:#x} is not mapped")
        return found

    # ---------------------------------------------------------------- what is where

    @cached_property
    def symbols(self) -> Symbols:
        """Of the kernel itself."""
        return Symbols(self.read, self.description)

    @cached_property
    def types(self) -> Types:
        """Its structures, from the BTF that it carries for its own use (CONFIG_DEBUG_INFO_BTF)."""
        begin, end = self.symbols["__start_BTF"], self.symbols["__stop_BTF"]
        return Types(self.read(begin, end - begin))
