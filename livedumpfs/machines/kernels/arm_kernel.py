# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux on AArch64.

QEMU's monitor does not show TTBR1_EL1, the kernel's page tables. So a VMCOREINFO is proven by the
memory alone: the tables that it names must map the kernel to the place that it names. The tables of
a kernel that ran before do not, once another kernel has been loaded there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.linux.kernel_description import Description
from livedumpfs.linux.kernel_tables import kernel_tables as tables_of
from livedumpfs.machines.kernels.kernel_kind import KernelKind, Map
from livedumpfs.machines.kernels.page_tables import physical_address
from livedumpfs.machines.machine import ReadSnapshot


def is_current(text: bytes, read: ReadSnapshot, memory_map: Map, running: Iterable[int]) -> bool:
    """See KernelKind."""
    del running
    said = Description(text)
    try:
        form, table = tables_of("aarch64", said)
        start, offset = said.symbol("_stext"), said.number("kimage_voffset")
    except InvalidDump:
        return False
    return physical_address(read, memory_map, form, table, start) == start - offset


def kernel_tables(read: ReadSnapshot, memory_map: Map, running: Iterable[int]) -> frozenset[bytes]:
    """See KernelKind. All kernels look alike here; `running`: 1 for a vCPU that runs one."""
    del read, memory_map
    return frozenset({b"kernel"} if any(running) else ())


ARM_KERNEL: Final = KernelKind(is_current, kernel_tables)
