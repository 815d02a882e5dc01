# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux on x86-64."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.linux.kernel_description import Description
from livedumpfs.linux.kernel_tables import kernel_tables as tables_of
from livedumpfs.machines.kernels.kernel_kind import KernelKind, Map
from livedumpfs.machines.kernels.page_tables import read_entry
from livedumpfs.machines.machine import ReadSnapshot
from livedumpfs.paging.table_form import X86_ADDRESS

_TOP_ENTRY: Final = 511
"""The last entry of a top-level page table. All tables of a kernel share that part of the address
space."""
_USER_TABLE: Final = 1 << 12
"""Bit of CR3 that is set while user space runs under page table isolation."""


def is_current(text: bytes, read: ReadSnapshot, memory_map: Map, cr3s: Iterable[int]) -> bool:
    """See KernelKind."""
    try:
        _, table = tables_of("x86_64", Description(text))
    except InvalidDump:
        return False
    own = _top_entry(read, memory_map, table)
    return own in kernel_tables(read, memory_map, cr3s)


def kernel_tables(read: ReadSnapshot, memory_map: Map, cr3s: Iterable[int]) -> frozenset[bytes]:
    """See KernelKind: the page table entries that map the kernel."""
    tables = (cr3 & X86_ADDRESS & mask for cr3 in cr3s for mask in (~0, ~_USER_TABLE))
    return frozenset(filter(None, (_top_entry(read, memory_map, one) for one in tables)))


def _top_entry(read: ReadSnapshot, memory_map: Map, table: int) -> bytes | None:
    """The entry that maps the kernel in the top-level page table at physical address `table`,
    without its flag bits."""
    address = read_entry(read, memory_map, table, _TOP_ENTRY) & X86_ADDRESS
    return address.to_bytes(8, "little") if address else None


X86_KERNEL: Final = KernelKind(is_current, kernel_tables)
