# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux on RISC-V of 64 bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.linux.kernel_description import Description
from livedumpfs.linux.kernel_tables import kernel_tables as tables_of
from livedumpfs.machines.kernels.kernel_kind import KernelKind, Map
from livedumpfs.machines.kernels.page_tables import read_entry
from livedumpfs.machines.machine import ReadSnapshot

_PAGE_BITS: Final = 12
_MODE_SHIFT: Final = 60
"""Of satp: how many levels; 0: addresses are physical."""
_NUMBER_BITS: Final = (1 << 44) - 1
"""Of satp, and of an entry when its flags are shifted out: the number of the table's page."""
_FLAG_BITS: Final = 10
_VALID: Final = 1
_KERNEL: Final = 0xFFFF_FFFF_8000_0000
"""Where the kernel is linked to. All tables of a kernel share the entry that maps it."""
_MODE_OF_THREE_LEVELS: Final = 8
_INDEX_BITS: Final = 9


def is_current(text: bytes, read: ReadSnapshot, memory_map: Map, satps: Iterable[int]) -> bool:
    """See KernelKind. False also for kernels before 6.3, which do not say where they are."""
    try:
        form, table = tables_of("riscv64", Description(text))
    except InvalidDump:
        return False
    own = _kernel_entry(read, memory_map, table, form.levels)
    return own in kernel_tables(read, memory_map, satps)


def kernel_tables(read: ReadSnapshot, memory_map: Map, satps: Iterable[int]) -> frozenset[bytes]:
    """See KernelKind: the page table entries that map the kernel."""
    return frozenset(
        filter(
            None,
            (
                _kernel_entry(
                    read,
                    memory_map,
                    (satp & _NUMBER_BITS) << _PAGE_BITS,
                    (satp >> _MODE_SHIFT) - _MODE_OF_THREE_LEVELS + 3,
                )
                for satp in satps
                if satp >> _MODE_SHIFT
            ),
        )
    )


def _kernel_entry(read: ReadSnapshot, memory_map: Map, table: int, levels: int) -> bytes | None:
    """The entry that maps the kernel in the top-level page table at physical address `table`,
    without its flag bits."""
    index = _KERNEL >> _PAGE_BITS + _INDEX_BITS * (levels - 1) & (1 << _INDEX_BITS) - 1
    entry = read_entry(read, memory_map, table, index)
    number = entry >> _FLAG_BITS & _NUMBER_BITS
    return number.to_bytes(8, "little") if entry & _VALID and number else None


RISCV_KERNEL: Final = KernelKind(is_current, kernel_tables)
