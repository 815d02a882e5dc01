# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a kernel has its page tables, and how they are read, by its VMCOREINFO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.linux.kernel_description import Description
from livedumpfs.paging.table_form import (
    ALL_BITS,
    TableForm,
    arm_kernel_form,
    long_mode,
    supervisor_mode,
)

_X86_KERNEL_MAP: Final = 0xFFFF_FFFF_8000_0000
"""Virtual address of the kernel's text on x86-64, less phys_base."""
_ROOT: Final = "swapper_pg_dir"
_ARM_BITS: Final = 64
_RISCV_LEVELS: Final = {39: 3, 48: 4, 57: 5}
"""By the bits of a virtual address."""


def kernel_tables(architecture: str, said: Description) -> tuple[TableForm, int]:
    """Form of the tables, and physical address of the first one. InvalidDump: a processor that is
    not known here, or a kernel that does not say enough."""
    if architecture not in _FORMS:
        raise InvalidDump(
            f"Linux on {architecture or 'a processor without a name'} is not known here",
            hint="crash and drgn may read its dumps",
        )
    form, offset = _FORMS[architecture](said)
    if form is None:
        raise InvalidDump("the kernel's VMCOREINFO tells of page tables that no kernel has")
    return form, said.symbol(_ROOT) - offset & ALL_BITS


def _x86(said: Description) -> tuple[TableForm | None, int]:
    form = long_mode(5 if said.find_number("pgtable_l5_enabled") == 1 else 4)
    encrypted = said.find_number("sme_mask") or 0  # a bit of each entry, AMD's memory encryption
    form = replace(form, number=form.number & ~encrypted)
    return form, _X86_KERNEL_MAP - said.number("phys_base")


def _riscv(said: Description) -> tuple[TableForm | None, int]:
    levels = _RISCV_LEVELS.get(said.number("VA_BITS"))
    form = supervisor_mode(levels) if levels else None
    return form, said.number("va_kernel_pa_offset")


def _arm(said: Description) -> tuple[TableForm | None, int]:
    return arm_form(said), said.number("kimage_voffset")


def arm_form(said: Description) -> TableForm | None:
    """None: no kernel has such tables. InvalidDump: it does not say."""
    built = said.number("VA_BITS")
    size = said.find_number("TCR_EL1_T1SZ")
    return arm_kernel_form(said.page_size, built if size is None else _ARM_BITS - size, built)


_FORMS: Final[Mapping[str, Callable[[Description], tuple[TableForm | None, int]]]] = {
    "x86_64": _x86,
    "aarch64": _arm,
    "riscv64": _riscv,
}
