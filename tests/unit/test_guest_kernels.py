# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCOREINFO of Linux on AArch64 and RISC-V, and which kernel it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from livedumpfs.errors import InvalidDump
from livedumpfs.linux.kernel_description import Description
from livedumpfs.linux.kernel_tables import arm_form
from livedumpfs.machines.kernels.arm_kernel import ARM_KERNEL
from livedumpfs.machines.kernels.riscv_kernel import RISCV_KERNEL
from livedumpfs.machines.kernels.vmcoreinfo import check_vmcoreinfo, find_vmcoreinfo
from livedumpfs.machines.machine import PhysicalRange

SIZE = 2 << 20
START = 0x4000_0000
MAP = [PhysicalRange(START, SIZE, 0)]
STEXT = 0xFFFF_CACF_8A01_0000
OFFSET = STEXT - (START + 0x10000)
ARM_TEXT = """\
OSRELEASE=6.12.117+deb13-arm64
PAGESIZE={page}
SYMBOL(swapper_pg_dir)={table:x}
SYMBOL(_stext)={start:x}
NUMBER(VA_BITS)={bits}
NUMBER(kimage_voffset)={offset:#x}
NUMBER(PHYS_OFFSET)=0xfff0f59100000000
NUMBER(TCR_EL1_T1SZ)={size:#x}
KERNELOFFSET=4acf0a000000
"""
RISCV_OFFSET = 0xFFFF_FFFF_0000_0000
RISCV_TEXT = f"""\
OSRELEASE=6.12.117+deb13-riscv64
SYMBOL(swapper_pg_dir)={RISCV_OFFSET + START + 0x3000:x}
NUMBER(VA_BITS)=57
NUMBER(phys_ram_base)=2147483648
NUMBER(va_kernel_pa_offset)={RISCV_OFFSET:#x}
""".encode()


class Memory:
    """Guest memory with page tables in it."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self._free = 0x80000

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= SIZE, "reads outside the memory"
        return bytes(self.data[offset : offset + length])

    def put(self, physical: int, value: int) -> None:
        at = physical - START
        self.data[at : at + 8] = value.to_bytes(8, "little")

    def entry(self, physical: int) -> int:
        return int.from_bytes(self.read(physical - START, 8), "little")

    def table(self, size: int) -> int:
        """Physical address of a new one."""
        self._free += size
        return START + self._free

    def map_arm(
        self, top: int, virtual: int, physical: int, page_bits: int, bits: int, last: int = 0
    ) -> None:
        """By a block of memory at level `last`; 0: a page."""
        width = page_bits - 3
        levels = -(-(bits - page_bits) // width)
        table = top
        for level in reversed(range(last, levels)):
            shift = page_bits + width * level
            place = table + (virtual % (1 << bits) >> shift) % (1 << width) * 8
            if level == last:
                self.put(place, physical | 0x0060_0000_0000_0701 | (0 if level else 2))
            elif not self.entry(place):
                self.put(place, self.table(1 << page_bits) | 3)
            table = self.entry(place) & ~3


def arm_text(page: int = 4096, bits: int = 48, size: int = 16, start: int = STEXT) -> bytes:
    """`start`: where the kernel has its text, which is at START + 0x10000."""
    offset = start - (START + 0x10000)
    table = START + 0x20000 + offset
    return ARM_TEXT.format(
        page=page, table=table, start=start, bits=bits, offset=offset, size=size
    ).encode()


def is_arm_current(memory: Memory, text: bytes) -> bool:
    return ARM_KERNEL.is_current(text, memory.read, MAP, [1])


@pytest.mark.parametrize(
    ("page_bits", "bits", "size", "used"),
    [
        (12, 48, 16, 48),
        (12, 39, 25, 39),
        (12, 52, 16, 48),
        (12, 52, 12, 52),
        (14, 47, 17, 47),
        (14, 52, 17, 47),
        (16, 48, 16, 48),
        (16, 52, 16, 52),
    ],
)
def test_arm_tables_that_map_the_kernel_prove_its_text(
    page_bits: int, bits: int, size: int, used: int
) -> None:
    """`used`: by which the first table's entries are counted."""
    memory, start = Memory(), STEXT | -(1 << used) % (1 << 64)
    text = arm_text(1 << page_bits, bits, size, start)
    form = arm_form(Description(text))
    assert form and (form.page_bits, form.address_bits) == (page_bits, used)
    assert not is_arm_current(memory, text)
    memory.map_arm(START + 0x20000, start, START + 0x10000, page_bits, used)
    assert is_arm_current(memory, text)
    assert not is_arm_current(memory, arm_text(1 << page_bits, bits, size, start + 0x1000_0000))


def test_arm_blocks_of_2_mib() -> None:
    memory = Memory()
    memory.map_arm(START + 0x20000, STEXT, START, 12, 48, last=1)
    start = STEXT & ~0x1FFFFF | 0x10000
    assert is_arm_current(memory, arm_text(start=start))
    assert not is_arm_current(memory, arm_text(start=start + 0x200000))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"PAGESIZE=4096", b"PAGESIZE=3"),
        (b"PAGESIZE=4096\n", b""),
        (b"VA_BITS)=48", b"VA_BITS)=9999"),
        (b"T1SZ)=0x10", b"T1SZ)=0x40"),
        (b"T1SZ)=0x10", b"T1SZ)=-64"),
        (b"kimage_voffset)=0x", b"kimage_voffset)=zz"),
        (b"SYMBOL(_stext)", b"SYMBOL(_text)"),
        (b"swapper_pg_dir)=f", b"swapper_pg_dir)=0"),
    ],
)
def test_an_arm_text_that_makes_no_sense_proves_nothing(old: bytes, new: bytes) -> None:
    memory = Memory()
    memory.map_arm(START + 0x20000, STEXT, START + 0x10000, 12, 48)
    assert is_arm_current(memory, arm_text())
    assert not is_arm_current(memory, arm_text().replace(old, new))


def test_an_arm_kernel_is_searched_for_when_one_runs() -> None:
    tables = ARM_KERNEL.kernel_tables
    assert tables(Memory().read, MAP, [0, 0]) == frozenset()
    assert tables(Memory().read, MAP, [0, 1]) == tables(Memory().read, MAP, [1, 1]) != frozenset()


def satp(table: int, mode: int = 10) -> int:
    return mode << 60 | 7 << 44 | table >> 12


@pytest.mark.parametrize(
    ("satps", "current"),
    [
        ([satp(START + 0x3000)], True),
        ([0, satp(START + 0x4000)], True),
        ([satp(START + 0x4000, 0)], False),
        ([satp(START + 0x5000)], False),
        ([satp(START + 0x6000)], False),
        ([satp(START - 0x1000)], False),
        ([], False),
    ],
)
def test_a_riscv_kernel_is_known_by_its_page_tables(satps: Sequence[int], current: bool) -> None:
    """0x3000: the kernel's; 0x4000: a process's; 0x5000: another kernel's; 0x6000: not valid."""
    memory = Memory()
    for table, entry in ((0x3000, 0x27FFF001), (0x4000, 0x27FFF0C1), (0x5000, 0x28000401)):
        memory.put(START + table + 511 * 8, entry)
    memory.put(START + 0x6000 + 511 * 8, 0x27FFF000)
    assert RISCV_KERNEL.is_current(RISCV_TEXT, memory.read, MAP, satps) is current
    without = RISCV_TEXT.replace(b"va_kernel_pa_offset", b"va_kernel")
    assert not RISCV_KERNEL.is_current(without, memory.read, MAP, satps)


@pytest.mark.parametrize(("bits", "mode", "index"), [(39, 8, 510), (48, 9, 511), (57, 10, 511)])
def test_the_entry_of_a_riscv_kernel_is_the_one_that_maps_it(
    bits: int, mode: int, index: int
) -> None:
    """The kernel is linked to 0xffffffff80000000: of three levels that is not the last entry."""
    memory = Memory()
    memory.put(START + 0x3000 + index * 8, 0x27FFF001)
    text = RISCV_TEXT.replace(b"VA_BITS)=57", b"VA_BITS)=%d" % bits)
    assert RISCV_KERNEL.is_current(text, memory.read, MAP, [satp(START + 0x3000, mode)])
    assert RISCV_KERNEL.kernel_tables(memory.read, MAP, [satp(START + 0x3000, mode)])


@pytest.mark.parametrize("text", [arm_text(), RISCV_TEXT])
def test_their_texts_are_found(text: bytes) -> None:
    memory = Memory()
    memory.data[0x1F000 : 0x1F000 + len(text)] = text
    assert find_vmcoreinfo(memory.read, SIZE) == text
    for word in (b"swapper_pg_dir", b"NUMBER(PHYS_OFFSET)", b"NUMBER(phys_ram_base)"):
        if word in text:
            assert check_vmcoreinfo(text.replace(word, b"x")) is None


def test_numbers_of_a_text() -> None:
    said = Description(RISCV_TEXT)
    assert said.number("VA_BITS") == said.find_number("VA_BITS") == 57
    assert said.number("va_kernel_pa_offset") == RISCV_OFFSET
    assert said.symbol("swapper_pg_dir") == RISCV_OFFSET + START + 0x3000
    assert said.find_number("none") is None
    with pytest.raises(InvalidDump, match=r"no NUMBER\(none\)"):
        said.number("none")
