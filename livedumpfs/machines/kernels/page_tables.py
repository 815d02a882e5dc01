# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a guest's memory by physical address, and by virtual address through page tables of any of
the forms that Linux uses: a tree whose tables have a page each, with entries of 8 bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from livedumpfs.errors import LivedumpError
from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot
from livedumpfs.units import PAGE_SIZE

_ENTRY: Final = 8


@dataclass(frozen=True)
class TableForm:
    """How a processor reads its page tables."""

    page_bits: int
    """Bits of an address within a page: 12, 14 or 16."""
    address_bits: int
    """Bits of a virtual address that are translated."""
    target: Callable[[int], int]
    """Entry -> physical address that it names."""
    present: Callable[[int], bool]
    """Whether the entry names anything."""
    leaf: Callable[[int], bool]
    """Whether an entry above the last level names memory, not a table."""

    @property
    def index_bits(self) -> int:
        """Bits of an address that choose an entry of one table."""
        return self.page_bits - (_ENTRY.bit_length() - 1)

    @property
    def levels(self) -> int:
        """Of tables, one below the other."""
        return -(-(self.address_bits - self.page_bits) // self.index_bits)


def read_physical(
    read: ReadSnapshot, memory_map: Sequence[PhysicalRange], address: int, length: int
) -> bytes | None:
    """Bytes at a physical address. None: they are no RAM, not in one range, or lost."""
    for one in memory_map:
        if one.start <= address <= one.end - length:
            try:
                return read(address - one.start + one.arena_offset, length)
            except (LivedumpError, OSError):  # lost, or was never there
                return None
    return None


def read_entry(
    read: ReadSnapshot, memory_map: Sequence[PhysicalRange], table: int, index: int
) -> int:
    """An entry of the table at physical address `table`. 0, as of nothing: it is no RAM."""
    found = read_physical(read, memory_map, table + index * _ENTRY, _ENTRY)
    return int.from_bytes(found or b"", "little")


def physical_address(
    read: ReadSnapshot,
    memory_map: Sequence[PhysicalRange],
    form: TableForm,
    table: int,
    address: int,
) -> int | None:
    """Physical address of a virtual one. `table`: physical address of the first table. None:
    nothing is mapped there."""
    address %= 1 << form.address_bits
    base = table
    for level in reversed(range(form.levels)):
        shift = form.page_bits + form.index_bits * level
        index = (address >> shift) % (1 << form.index_bits)
        entry = read_entry(read, memory_map, base, index)
        if not form.present(entry):
            return None
        base = form.target(entry)
        if level == 0 or form.leaf(entry):
            below = (1 << shift) - 1
            return (base & ~below) | (address & below)
    return None


def read_virtual(
    read: ReadSnapshot,
    memory_map: Sequence[PhysicalRange],
    form: TableForm,
    table: int,
    address: int,
    length: int,
) -> bytes | None:
    """Bytes at a virtual address, all of them in one page of 4 KiB. None: nothing is mapped there,
    or it is no RAM."""
    if address % PAGE_SIZE + length > PAGE_SIZE:
        raise ValueError(f"[{address:#x}, +{length:#x}) is not in one page")
    found = physical_address(read, memory_map, form, table, address)
    return None if found is None else read_physical(read, memory_map, found, length)
