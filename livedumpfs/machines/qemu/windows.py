# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a guest runs 64-bit Windows, by what elf2dmp (contrib/elf2dmp of QEMU), the reader of its
dumps, relies on, too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from livedumpfs.machines.kernels.page_tables import read_virtual
from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot
from livedumpfs.machines.qemu.registers import VcpuState
from livedumpfs.paging.table_form import X86_ADDRESS, TableForm, long_mode
from livedumpfs.units import PAGE_SIZE

_DUMP_HEADER: Final = b"PAGEDU64"
"""Signature and ValidDump of a crash dump's header. The driver of QEMU's device `vmcoreinfo` for
Windows (fwcfg64) puts such a header where Linux has its VMCOREINFO."""

_SHARED: Final = 0xFFFF_F780_0000_0000
"""Virtual address of KUSER_SHARED_DATA, in each Windows."""
_ROOT: Final = slice(0x30, 0x30 + 2 * 260)
"""NtSystemRoot, UTF-16: where Windows is installed."""
_IS_ROOT: Final = re.compile(r"[A-Z]:\\[^\0\\][^\0]*\0", re.IGNORECASE)
_PRODUCT: Final = slice(0x264, 0x268)
"""NtProductType."""
_PRODUCTS: Final = range(1, 4)

_KERNEL_TABLE: Final = 0x7000
"""In the KPCR: the kernel's CR3, where user space has page tables of its own (KVA shadow)."""
_UPPER_HALF: Final = 1 << 63
_LONG_MODE: Final = 1 << 31 | 1
"""Of CR0: paging and protected mode."""
_PAE: Final = 1 << 5
_FIVE_LEVELS: Final = 1 << 12
"""Both of CR4."""


def is_windows(
    read: ReadSnapshot,
    memory_map: Sequence[PhysicalRange],
    vcpus: Sequence[VcpuState],
    told: bytes | None = None,
) -> bool:
    """Whether a vCPU's page tables have Windows's shared page, or the guest has reported the header
    of a Windows dump to QEMU (`told`: what it has reported). False also for one that still boots,
    and for 32-bit Windows."""
    if told is not None and told.startswith(_DUMP_HEADER):
        return True
    for vcpu in vcpus:
        for table in _tables(read, memory_map, vcpu):
            page = read_virtual(read, memory_map, _form(vcpu), table, _SHARED, PAGE_SIZE)
            if page is not None and _is_shared_page(page):
                return True
    return False


def _tables(
    read: ReadSnapshot, memory_map: Sequence[PhysicalRange], vcpu: VcpuState
) -> Iterator[int]:
    """CR3 of the vCPU, and that of its kernel while it runs user space."""
    if vcpu.controls[0] & _LONG_MODE != _LONG_MODE or not vcpu.controls[4] & _PAE:
        return
    own = vcpu.controls[3]
    yield own & X86_ADDRESS
    if vcpu.kernel_gs_base & _UPPER_HALF:
        place = vcpu.kernel_gs_base + _KERNEL_TABLE
        if place % PAGE_SIZE <= PAGE_SIZE - 8 and place < 1 << 64:
            found = read_virtual(read, memory_map, _form(vcpu), own & X86_ADDRESS, place, 8)
            if found is not None:
                yield int.from_bytes(found, "little") & X86_ADDRESS


def _form(vcpu: VcpuState) -> TableForm:
    return long_mode(5 if vcpu.controls[4] & _FIVE_LEVELS else 4)


def _is_shared_page(page: bytes) -> bool:
    root = page[_ROOT].decode("utf-16-le", "replace")
    product = int.from_bytes(page[_PRODUCT], "little")
    return bool(_IS_ROOT.match(root)) and product in _PRODUCTS
