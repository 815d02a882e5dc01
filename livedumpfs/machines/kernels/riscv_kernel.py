# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux on RISC-V of 64 bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from livedumpfs.machines.kernels.kernel_kind import KernelKind, Map
from livedumpfs.machines.kernels.page_tables import read_entry
from livedumpfs.machines.kernels.vmcoreinfo import number_in
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
_LEVELS: Final = {39: 3, 48: 4, 57: 5}
"""By the bits of a virtual address."""


def is_current(text: bytes, read: ReadSnapshot, memory_map: Map, satps: Iterable[int]) -> bool:
    """See KernelKind. False also for kernels before 6.3, which do not say where they are."""
    symbol = number_in(text, "SYMBOL(swapper_pg_dir)")
    offset = number_in(text, "NUMBER(va_kernel_pa_offset)")
    levels = _LEVELS.get(number_in(text, "NUMBER(VA_BITS)") or 0)
    if symbol is None or offset is None or levels is None:
        return False
    own = _kernel_entry(read, memory_map, symbol - offset, levels)
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
