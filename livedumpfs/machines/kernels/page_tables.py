# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a guest's memory by physical address, and by virtual address through its page tables. What
is lost or no RAM is not there."""

from __future__ import annotations

from collections.abc import Sequence

from livedumpfs.errors import LivedumpError
from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot
from livedumpfs.paging.table_form import ENTRY, TableForm, translate
from livedumpfs.units import PAGE_SIZE


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
    found = read_physical(read, memory_map, table + index * ENTRY, ENTRY)
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

    def there(at: int, length: int) -> bytes:
        return read_physical(read, memory_map, at, length) or bytes(length)

    return translate(there, form, table, address)


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
