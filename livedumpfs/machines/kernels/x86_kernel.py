# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux on x86-64, and the page tables of long mode."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from livedumpfs.machines.kernels.kernel_kind import KernelKind, Map
from livedumpfs.machines.kernels.page_tables import TableForm, read_entry
from livedumpfs.machines.kernels.vmcoreinfo import number_in
from livedumpfs.machines.machine import ReadSnapshot

ADDRESS_BITS: Final = 0x000F_FFFF_FFFF_F000
"""Of an entry, and of CR3: the physical address."""
_PRESENT: Final = 1
_LARGE: Final = 1 << 7
_KERNEL_MAP: Final = 0xFFFF_FFFF_8000_0000
"""Virtual address of the kernel's text, less phys_base."""
_TOP_ENTRY: Final = 511
"""The last entry of a top-level page table. All tables of a kernel share that part of the address
space."""
_USER_TABLE: Final = 1 << 12
"""Bit of CR3 that is set while user space runs under page table isolation."""


def long_mode(levels: int) -> TableForm:
    """Page tables of 4 or 5 levels."""
    return TableForm(
        12,
        12 + 9 * levels,
        lambda entry: entry & ADDRESS_BITS,
        lambda entry: bool(entry & _PRESENT),
        lambda entry: bool(entry & _LARGE),
    )


def is_current(text: bytes, read: ReadSnapshot, memory_map: Map, cr3s: Iterable[int]) -> bool:
    """See KernelKind."""
    symbol, base = number_in(text, "SYMBOL(swapper_pg_dir)"), number_in(text, "NUMBER(phys_base)")
    if symbol is None or base is None:
        return False
    own = _top_entry(read, memory_map, symbol - _KERNEL_MAP + base)
    return own in kernel_tables(read, memory_map, cr3s)


def kernel_tables(read: ReadSnapshot, memory_map: Map, cr3s: Iterable[int]) -> frozenset[bytes]:
    """See KernelKind: the page table entries that map the kernel."""
    tables = (cr3 & ADDRESS_BITS & mask for cr3 in cr3s for mask in (~0, ~_USER_TABLE))
    return frozenset(filter(None, (_top_entry(read, memory_map, one) for one in tables)))


def _top_entry(read: ReadSnapshot, memory_map: Map, table: int) -> bytes | None:
    """The entry that maps the kernel in the top-level page table at physical address `table`,
    without its flag bits."""
    address = read_entry(read, memory_map, table, _TOP_ENTRY) & ADDRESS_BITS
    return address.to_bytes(8, "little") if address else None


X86_KERNEL: Final = KernelKind(is_current, kernel_tables)
