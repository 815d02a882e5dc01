# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel: the memory of a Linux kernel in a dump, by virtual addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.formats.note import parse_notes
from livedumpfs.linux.kernel_description import Description
from livedumpfs.linux.symbols import Symbols
from livedumpfs.linux.types import Types

ReadPhysical = Callable[[int, int], bytes]
"""Bytes [address, address+length) of physical memory. OSError."""

_PAGE_BITS: Final = 12
_IN_PAGE: Final = (1 << _PAGE_BITS) - 1
_ALL_BITS: Final = (1 << 64) - 1
_NAME: Final = b"VMCOREINFO\0"
# A page table entry of RISC-V: valid, a leaf (readable, writable or executable), page number.
_VALID, _LEAF, _NUMBER_SHIFT, _NUMBER_BITS = 1, 14, 10, (1 << 44) - 1
_LONGEST_STRING: Final = 4096


class Kernel:
    """Of a machine with a riscv64 processor. InvalidDump: the dump has another processor, no
    VMCOREINFO, or its memory makes no sense at a place."""

    def __init__(self, meta: Mapping[str, object], read: ReadPhysical) -> None:
        """`meta`: what the dump says of itself."""
        if meta.get("architecture") != "riscv64":
            raise InvalidDump(
                f"Linux on {meta.get('architecture')} is not known here",
                hint="crash and drgn read its dumps",
            )
        notes = parse_notes(meta.get("notes", []))
        texts = [note.content for note in notes if note.name == _NAME]
        if not texts:
            raise InvalidDump("the dump has no VMCOREINFO: no Linux had booted then")
        self.description = Description(texts[0])
        self._read_physical = read
        self._pages: dict[int, int] = {}
        said = self.description
        self._root = said.symbol("swapper_pg_dir") - said.number("va_kernel_pa_offset") & _ALL_BITS
        self._levels = (said.number("VA_BITS") - _PAGE_BITS) // 9

    # ------------------------------------------------------------------- memory

    def read(self, address: int, length: int) -> bytes:
        """Bytes at a virtual address."""
        parts = []
        while length > 0:
            part = min(length, (address | _IN_PAGE) + 1 - address)
            parts.append(self._physical(self._page_of(address) + (address & _IN_PAGE), part))
            address, length = address + part & _ALL_BITS, length - part
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
        table = self._root
        for level in reversed(range(self._levels)):
            shift = _PAGE_BITS + 9 * level
            at = table + 8 * (address >> shift & 511)
            entry = int.from_bytes(self._physical(at, 8), "little")
            if not entry & _VALID:
                break
            table = (entry >> _NUMBER_SHIFT & _NUMBER_BITS) << _PAGE_BITS
            if entry & _LEAF:
                return table | address & (1 << shift) - 1
        raise InvalidDump(f"the kernel's address {address:#x} is not mapped")

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
