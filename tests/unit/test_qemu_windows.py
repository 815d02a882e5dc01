# SPDX-License-Identifier: GPL-2.0-or-later
"""Which guest is taken for Windows, through whose page tables, and which notes its dump has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from livedumpfs.errors import MachineError
from livedumpfs.machines.kernels.page_tables import read_physical, read_virtual
from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot
from livedumpfs.machines.qemu.notes import vcpu_notes
from livedumpfs.machines.qemu.registers import SegmentState, VcpuState
from livedumpfs.machines.qemu.windows import is_windows
from livedumpfs.paging.table_form import long_mode
from livedumpfs.settings import CpuNotes

SHARED = 0xFFFF_F780_0000_0000
KPCR = 0xFFFF_F880_0123_4000
SIZE = 1 << 20
LOW = PhysicalRange(0, SIZE // 2, 0)
HIGH = PhysicalRange(1 << 32, SIZE // 2, SIZE // 2)
"""The arena's second half is above 4 GiB."""
MAP = [LOW, HIGH]
GENERAL = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *(f"r{number}" for number in range(8, 16)),
)
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr", "gdt", "idt")
WRITABLE = 3
LARGE = 1 << 7


class Memory:
    """Guest memory with page tables in it."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self._free = 1

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= SIZE, "reads outside the arena"
        return bytes(self.data[offset : offset + length])

    def page(self) -> int:
        """Physical address of a new page; each second one is above 4 GiB."""
        self._free += 1
        start = HIGH.start if self._free % 2 else 0
        return start + self._free * 4096

    def put(self, physical: int, content: bytes) -> None:
        for one in MAP:
            if one.start <= physical < one.end:
                at = physical - one.start + one.arena_offset
                self.data[at : at + len(content)] = content

    def map(self, top: int, virtual: int, physical: int, levels: int = 4) -> None:
        table = top
        for level in reversed(range(1, levels)):
            place = table + (virtual >> 12 + 9 * level) % 512 * 8
            found = int.from_bytes(read_physical(self.read, MAP, place, 8) or b"", "little")
            if not found:
                found = self.page() | WRITABLE
                self.put(place, found.to_bytes(8, "little"))
            table = found & ~0xFFF
        place = table + (virtual >> 12) % 512 * 8
        self.put(place, (physical | WRITABLE).to_bytes(8, "little"))


def shared_page(root: str = "C:\\Windows", product: int = 1) -> bytes:
    page = bytearray(4096)
    text = root.encode("utf-16-le")
    page[0x30 : 0x30 + len(text)] = text
    page[0x264:0x268] = product.to_bytes(4, "little")
    return bytes(page)


def vcpu(
    cr3: int, *, five: bool = False, kernel_gs_base: int = 0, cr0: int = 1 << 31 | 1
) -> VcpuState:
    general = dict.fromkeys((*GENERAL, "rip", "eflags"), 0)
    segments = {name: SegmentState() for name in SEGMENTS}
    return VcpuState(
        general, segments, (cr0, 0, 0, cr3, 1 << 5 | five << 12), kernel_gs_base
    )  # fmt: skip


def windows(memory: Memory, page: bytes, *, levels: int = 4) -> int:
    """CR3 of page tables that have that page where Windows has it."""
    top, place = memory.page(), memory.page()
    memory.put(place, page)
    memory.map(top, SHARED, place, levels)
    return top


@pytest.mark.parametrize("five", [False, True])
def test_the_shared_page_tells_windows(five: bool) -> None:
    memory = Memory()
    top = windows(memory, shared_page(), levels=5 if five else 4)
    assert is_windows(memory.read, MAP, [vcpu(top | 0x18, five=five)])
    # One of several will do; the others run firmware, or have no page tables.
    others = [vcpu(0), vcpu(SIZE << 8), vcpu(top, cr0=1), vcpu(top, five=not five)]
    assert not is_windows(memory.read, MAP, others)
    assert is_windows(memory.read, MAP, [*others, vcpu(top, five=five)])
    assert not is_windows(memory.read, MAP, [])


@pytest.mark.parametrize(
    "page",
    [
        bytes(4096),
        b"\xff" * 4096,
        shared_page("/usr/lib"),
        shared_page("C:Windows"),
        shared_page("C:\\"),
        shared_page("C:\\" + "x" * 257),
        shared_page(product=0),
        shared_page(product=4),
    ],
)
def test_another_page_there_does_not(page: bytes) -> None:
    memory = Memory()
    assert not is_windows(memory.read, MAP, [vcpu(windows(memory, page))])


def test_a_vcpu_in_user_space_has_page_tables_of_its_own() -> None:
    """KVA shadow: the kernel's CR3 is where the entry to the kernel takes it from."""
    memory = Memory()
    kernel, user, kpcr = windows(memory, shared_page()), memory.page(), memory.page()
    memory.map(user, KPCR + 0x7000, kpcr)
    memory.put(kpcr, (kernel | 2).to_bytes(8, "little"))
    assert not is_windows(memory.read, MAP, [vcpu(user)])
    assert is_windows(memory.read, MAP, [vcpu(user, kernel_gs_base=KPCR)])
    # Values that a hostile guest may have there.
    for wrong in (KPCR & ~(1 << 63), KPCR + 4096, KPCR + 4093, (1 << 64) - 1, 1 << 63):
        assert not is_windows(memory.read, MAP, [vcpu(user, kernel_gs_base=wrong)])


def test_what_the_guest_has_told_qemu() -> None:
    memory = Memory()
    assert is_windows(memory.read, MAP, [], b"PAGEDU64" + bytes(8184))
    for told in (b"PAGEDUMP", b"PAGE", b"", None, b"OSRELEASE=6.1.0\n"):
        assert not is_windows(memory.read, MAP, [], told)


def test_memory_that_is_lost_tells_nothing() -> None:
    memory = Memory()
    top = windows(memory, shared_page())

    def read(offset: int, length: int) -> bytes:
        raise MachineError("lost")

    assert not is_windows(read, MAP, [vcpu(top)])


def test_page_tables_that_lead_nowhere() -> None:
    memory = Memory()
    top = memory.page()
    for entry in (0, 1 << 40 | 1, (1 << 52) - 4096 | 1, top | 2):
        memory.put(top + 495 * 8, entry.to_bytes(8, "little"))
        assert read_virtual(memory.read, MAP, long_mode(4), top, SHARED, 8) is None
    memory.put(top + 495 * 8, (top | 1).to_bytes(8, "little"))  # a circle
    assert read_virtual(memory.read, MAP, long_mode(4), top, SHARED, 8) is None
    with pytest.raises(ValueError, match="not in one page"):
        read_virtual(memory.read, MAP, long_mode(4), top, SHARED + 4090, 8)


@pytest.mark.parametrize(("level", "size"), [(1, 2 << 20), (2, 1 << 30)])
def test_large_pages(level: int, size: int) -> None:
    """Of 2 MiB and of 1 GiB, of which this guest has the beginning."""
    memory = Memory()
    top, read = memory.page(), memory.read
    virtual = 0xFFFF_8000_0000_0000
    memory.map(top, virtual, 0)
    table = top
    for at in range(3, level, -1):
        entry = read_physical(read, MAP, table + (virtual >> 12 + 9 * at) % 512 * 8, 8)
        assert entry
        table = int.from_bytes(entry, "little") & ~0xFFF
    place = table + (virtual >> 12 + 9 * level) % 512 * 8
    for start in (0, HIGH.start):
        # Bit 12 of such an entry is no part of the address.
        memory.put(place, (start | 1 << 12 | LARGE | WRITABLE).to_bytes(8, "little"))
        memory.put(start + 0x5008, start.to_bytes(8, "little") + b"found")
        found = read_virtual(read, MAP, long_mode(4), top, virtual + 0x5008, 13)
        assert found == start.to_bytes(8, "little") + b"found"
        assert read_virtual(read, MAP, long_mode(4), top, virtual + size - 16, 16) is None


# ------------------------------------------------------------------------- the notes

NAMES: dict[tuple[CpuNotes, str], list[str]] = {
    ("auto", "linux"): ["QEMU", "QEMU", "VMCOREINFO"],
    ("auto", "windows"): ["QEMU", "QEMU"],
    ("auto", "other"): [],
    ("on", "linux"): ["QEMU", "QEMU", "VMCOREINFO"],
    ("on", "windows"): ["QEMU", "QEMU"],
    ("on", "other"): ["QEMU", "QEMU"],
    ("off", "linux"): ["VMCOREINFO"],
    ("off", "windows"): [],
    ("off", "other"): [],
}


@pytest.mark.parametrize(("choice", "guest"), NAMES)
def test_the_notes_by_choice_and_guest(choice: CpuNotes, guest: str) -> None:
    vcpus = [replace(vcpu(0), number=number) for number in range(2)]
    text = b"OSRELEASE=6.1.0\n" if guest == "linux" else None
    notes = vcpu_notes(vcpus, text, choice, lambda: guest == "windows")
    assert [one.name.rstrip(b"\0").decode() for one in notes] == NAMES[choice, guest]
    for note in notes[: 2 * (notes[:1] != [] and notes[0].name == b"QEMU\0")]:
        assert VcpuState.parse(note.content) == vcpu(0)


def unused(read: ReadSnapshot) -> bool:
    raise AssertionError


def test_the_memory_is_asked_only_where_it_matters() -> None:
    for choice, text in (("on", None), ("off", None), ("auto", b"OSRELEASE=6.1.0\n")):
        vcpu_notes([vcpu(0)], text, choice, lambda: unused(Memory().read))  # type: ignore[arg-type]
