# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux on AArch64.

QEMU's monitor does not show TTBR1_EL1, the kernel's page tables. So a VMCOREINFO is proven by the
memory alone: the tables that it names must map the kernel to the place that it names. The tables of
a kernel that ran before do not, once another kernel has been loaded there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from livedumpfs.machines.kernels.kernel_kind import KernelKind, Map
from livedumpfs.machines.kernels.page_tables import TableForm, physical_address
from livedumpfs.machines.kernels.vmcoreinfo import number_in
from livedumpfs.machines.machine import ReadSnapshot

_ALL_BITS: Final = 64
_PAGE_BITS: Final = {4096: 12, 16384: 14, 65536: 16}
_MOST_BITS: Final = 52
_ADDRESS: Final = (1 << 48) - 1
"""Bits of an entry that hold an address, before those within a page are left out. Of physical
addresses of more than 48 bits the upper ones are elsewhere; QEMU's machines have none."""
_VALID: Final = 1
_TABLE: Final = 1 << 1
"""Of an entry above the last level: it names a table, not a block of memory."""


def table_form(text: bytes) -> TableForm | None:
    """Of the kernel's page tables, by its VMCOREINFO. None: it does not say."""
    page_bits = _PAGE_BITS.get(number_in(text, "PAGESIZE") or 0)
    built = number_in(text, "NUMBER(VA_BITS)") or 0
    size = number_in(text, "NUMBER(TCR_EL1_T1SZ)")
    used = built if size is None else _ALL_BITS - size
    if page_bits is None or not page_bits < used <= built <= _MOST_BITS:
        return None
    form = _form(page_bits, used)
    # A processor with fewer bits than the kernel was built for uses the upper part of its first
    # table, unless it needs a level less.
    larger = _form(page_bits, built)
    return larger if larger.levels == form.levels else form


def _form(page_bits: int, address_bits: int) -> TableForm:
    mask = _ADDRESS & ~((1 << page_bits) - 1)
    return TableForm(
        page_bits,
        address_bits,
        lambda entry: entry & mask,
        lambda entry: bool(entry & _VALID),
        lambda entry: not entry & _TABLE,
    )


def is_current(text: bytes, read: ReadSnapshot, memory_map: Map, running: Iterable[int]) -> bool:
    """See KernelKind."""
    del running
    form = table_form(text)
    names = ("SYMBOL(swapper_pg_dir)", "SYMBOL(_stext)", "NUMBER(kimage_voffset)")
    symbol, start, offset = (number_in(text, name) for name in names)
    if form is None or symbol is None or start is None or offset is None:
        return False
    found = physical_address(read, memory_map, form, symbol - offset, start)
    return found == start - offset


def kernel_tables(read: ReadSnapshot, memory_map: Map, running: Iterable[int]) -> frozenset[bytes]:
    """See KernelKind. All kernels look alike here; `running`: 1 for a vCPU that runs one."""
    del read, memory_map
    return frozenset({b"kernel"} if any(running) else ())


ARM_KERNEL: Final = KernelKind(is_current, kernel_tables)
