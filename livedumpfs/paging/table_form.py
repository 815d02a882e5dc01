# SPDX-License-Identifier: GPL-2.0-or-later
"""TableForm: how a processor reads its page tables, for each that Linux uses here. All are trees
whose tables have a page each, with entries of 8 bytes whose bit 0 is set when they name anything
(a table that breaks the rules of its processor in its other bits is not told from one that does
not).

Sources: Intel SDM volume 3, 4.5; Arm ARM, D8.3; RISC-V privileged architecture, 10.3 to 10.5,
and Svnapot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import numpy.typing as npt

ENTRY: Final = 8
"""Bytes of an entry."""
ALL_BITS: Final = (1 << 64) - 1
_PRESENT: Final = 1
_TAG: Final = 0xFF << 56
_NUMBER_SHIFT: Final = 10
_GROUP_BIT: Final = 63
_IN_GROUP: Final = 0xF000
"""Of RISC-V's entries: where a page's number begins; N of Svnapot; bits of an address within 16
pages."""

ReadPhysical = Callable[[int, int], bytes]
"""Bytes [address, address+length) of physical memory."""
_Entry = TypeVar("_Entry", int, npt.NDArray[Any])
"""One, or an array of np.uint64."""


@dataclass(frozen=True)
class TableForm:
    """Of one processor in one mode."""

    page_bits: int
    """Bits of an address within a page: 12, 14 or 16."""
    address_bits: int
    """Bits of a virtual address that are translated."""
    number: int
    """Bits of an entry that hold a physical address..."""
    number_shift: int
    """...once they are shifted left by so many."""
    kind: int
    """Bits of an entry above the last level that tell memory from a table: any of them is set in
    one that names memory..."""
    table_has_kind: bool = False
    """...or in one that names a table."""
    kernel_alone: bool = False
    """The kernel's first table has no part for user space."""
    groups: bool = False
    """Of RISC-V: entries of the last level may stand for 16 pages."""

    @property
    def index_bits(self) -> int:
        """Bits of an address that choose an entry of one table."""
        return self.page_bits - (ENTRY.bit_length() - 1)

    @property
    def levels(self) -> int:
        """Of tables, one below the other."""
        return -(-(self.address_bits - self.page_bits) // self.index_bits)

    @property
    def kernel_begin(self) -> int:
        """Lowest virtual address of the kernel's part; it ends at 2**64."""
        return (1 << 64) - (1 << (self.address_bits - (not self.kernel_alone)))

    def shift(self, level: int) -> int:
        """Bits of an address below those that choose an entry of a table of `level`; the last level
        is 0."""
        return self.page_bits + self.index_bits * level

    def target(self, entry: _Entry) -> _Entry:
        """Physical address that the entry names."""
        return (entry & self.number) << self.number_shift

    def present(self, entry: _Entry) -> _Entry:
        """Not 0: the entry names something."""
        return entry & _PRESENT

    def page(self, entry: _Entry, virtual: _Entry) -> _Entry:
        """Physical address of the page at `virtual`, by its entry of the last level."""
        found = self.target(entry)
        if not self.groups:
            return found
        # Svnapot: 16 pages have the same entry, whose four lowest bits of the number are 1000.
        low = entry >> _NUMBER_SHIFT
        group = (entry >> _GROUP_BIT) & (low >> 3) & ~(low | low >> 1 | low >> 2) & 1
        chosen: _Entry = group * _IN_GROUP
        page: _Entry = found & ~chosen | virtual & chosen
        return page

    def is_translated(self, address: int) -> bool:
        """Whether the processor takes the address at all (canonical); the kernel's alone where its
        tables are. The upper byte of AArch64's may be a tag."""
        if self.kernel_alone:
            return address | _TAG >= self.kernel_begin
        return address >= self.kernel_begin or address < 1 << self.address_bits - 1

    def names_memory(self, entry: _Entry) -> _Entry:
        """Not 0: an entry above the last level names memory, not a table."""
        return entry & self.kind ^ (self.kind if self.table_has_kind else 0)


def translate(read: ReadPhysical, form: TableForm, table: int, address: int) -> int | None:
    """Physical address of a virtual one. `table`: physical address of the first table. None:
    nothing is mapped there. Raises what `read` raises."""
    if not form.is_translated(address):
        return None
    address %= 1 << form.address_bits
    base = table
    for level in reversed(range(form.levels)):
        shift = form.shift(level)
        index = (address >> shift) % (1 << form.index_bits)
        entry = int.from_bytes(read(base + index * ENTRY, ENTRY), "little")
        if not form.present(entry):
            return None
        if level == 0:
            return form.page(entry, address) | address & (1 << shift) - 1
        base = form.target(entry)
        if form.names_memory(entry):
            below = (1 << shift) - 1
            return base & ~below | address & below
    return None


X86_ADDRESS: Final = 0x000F_FFFF_FFFF_F000
"""Of an entry of long mode, and of CR3: the physical address."""


def long_mode(levels: int) -> TableForm:
    """x86-64, 4 or 5 levels."""
    return TableForm(12, 12 + 9 * levels, X86_ADDRESS, 0, kind=1 << 7)


def supervisor_mode(levels: int) -> TableForm:
    """RISC-V: Sv39, Sv48 or Sv57. An entry that may be read, written or executed is of memory."""
    number = ((1 << 44) - 1) << _NUMBER_SHIFT
    return TableForm(12, 12 + 9 * levels, number, 12 - _NUMBER_SHIFT, kind=0b1110, groups=True)


_ARM_PAGES: Final = {4096: 12, 16384: 14, 65536: 16}
_ARM_MOST_BITS: Final = 52
_ARM_ADDRESS: Final = (1 << 48) - 1
"""Bits of an entry that hold an address, before those within a page are left out. Of physical
addresses of more than 48 bits the upper ones are elsewhere; QEMU's machines have none."""


def arm_kernel_form(page_size: int, used: int, built: int) -> TableForm | None:
    """AArch64, from TTBR1_EL1. `used`: bits of an address that the processor translates; `built`:
    that the kernel could have used. None: no kernel has these."""
    page_bits = _ARM_PAGES.get(page_size)
    if page_bits is None or not page_bits < used <= built <= _ARM_MOST_BITS:
        return None
    number = _ARM_ADDRESS & ~((1 << page_bits) - 1)
    form = partial(
        TableForm, page_bits, number=number, number_shift=0, kind=1 << 1, table_has_kind=True,
        kernel_alone=True,
    )  # fmt: skip
    # A processor with fewer bits than the kernel was built for uses the upper part of its first
    # table, unless it needs a level less.
    larger, own = form(address_bits=built), form(address_bits=used)
    return larger if larger.levels == own.levels else own
