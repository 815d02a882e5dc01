# SPDX-License-Identifier: GPL-2.0-or-later
"""All that page tables map, beside the translation of single addresses, for each form of tables."""

from __future__ import annotations

import errno
import random

import numpy as np
import pytest

from livedumpfs.errors import TargetError
from livedumpfs.paging import mapped_ranges as walk
from livedumpfs.paging.mapped_ranges import mapped_ranges
from livedumpfs.paging.table_form import (
    TableForm,
    arm_kernel_form,
    long_mode,
    supervisor_mode,
    translate,
)

FORMS = {
    "x86-64, 4 levels": long_mode(4),
    "x86-64, 5 levels": long_mode(5),
    "Sv39": supervisor_mode(3),
    "Sv57": supervisor_mode(5),
    "arm64, 4 KiB": arm_kernel_form(4096, 48, 48),
    "arm64, 4 KiB, 39 bits": arm_kernel_form(4096, 39, 39),
    "arm64, 16 KiB": arm_kernel_form(16384, 47, 47),
    "arm64, 64 KiB": arm_kernel_form(65536, 48, 52),
}
TABLES = 0x4000_0000
"""Where the tables are; what they map is below."""


class Memory:
    """Tables of one form, and nothing else."""

    def __init__(self, form: TableForm) -> None:
        self.form = form
        self.page = 1 << form.page_bits
        self.pages: dict[int, bytearray] = {}
        self.root = self.new()

    def new(self) -> int:
        address = TABLES + len(self.pages) * self.page
        self.pages[address] = bytearray(self.page)
        return address

    def read(self, address: int, length: int) -> bytes:
        page = self.pages.get(address & -self.page)
        if page is None:
            raise OSError(errno.EFAULT, "no memory")
        at = address % self.page
        assert at + length <= self.page
        return bytes(page[at : at + length])

    def entry(self, physical: int, *, memory: bool, level: int) -> int:
        """Of the last level each processor has bits there."""
        form = self.form
        kind = form.kind if level == 0 or memory != form.table_has_kind else 0
        return physical >> form.number_shift | kind | 1

    def place(self, virtual: int, level: int) -> int:
        """Physical address of the entry of `level` for it; tables are made."""
        form, table = self.form, self.root
        for one in reversed(range(level, form.levels)):
            inside = virtual % (1 << form.address_bits)
            place = table + (inside >> form.shift(one)) % (1 << form.index_bits) * 8
            if one == level:
                break
            found = self.get(place)
            if not form.present(found):
                found = self.entry(self.new(), memory=False, level=one)
                self.put(place, found)
            table = form.target(found)
        return place

    def get(self, place: int) -> int:
        return int.from_bytes(self.read(place, 8), "little")

    def put(self, place: int, entry: int) -> None:
        at = place % self.page
        self.pages[place - at][at : at + 8] = entry.to_bytes(8, "little")

    def map(self, virtual: int, physical: int, level: int = 0) -> None:
        self.put(self.place(virtual, level), self.entry(physical, memory=True, level=level))

    def ranges(self) -> list[list[int]]:
        found: list[list[int]] = mapped_ranges(self.read, self.form, self.root).tolist()
        return found


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def memory(request: pytest.FixtureRequest) -> Memory:
    assert request.param
    return Memory(request.param)


def test_ranges_are_what_single_addresses_translate_to(memory: Memory) -> None:
    form, draw = memory.form, random.Random(17)
    wanted: dict[int, int] = {}
    for _ in range(300):
        level = draw.choice([0, 0, 0, min(1, form.levels - 2)])
        size = 1 << form.shift(level)
        room = (1 << 64) - form.kernel_begin
        virtual = form.kernel_begin + draw.randrange(8) * (room >> 3) + draw.randrange(64) * size
        if any(start <= virtual + size - 1 and virtual <= start + (length - 1) for start, length in
               ((start, 1 << form.shift(of)) for start, of in wanted.items())):  # fmt: skip
            continue
        memory.map(virtual, draw.randrange(64) * size, level)
        wanted[virtual] = level
    found = memory.ranges()
    assert sum(size for _, _, size in found) == sum(1 << form.shift(one) for one in wanted.values())
    assert found == sorted(found)
    compared = 0
    for virtual, physical, size in found:
        for at in {0, size >> 1 & -4096, size - 4096}:
            got = translate(memory.read, form, memory.root, virtual + at)
            assert got == physical + at
            compared += 1
    assert compared > 100


def test_what_is_contiguous_on_both_sides_is_one_range(memory: Memory) -> None:
    page, size = memory.page, 1 << memory.form.shift(1)
    start = (1 << 64) - 4 * size
    for number in range(3):
        memory.map(start + number * page, 7 * page + number * page)
    memory.map(start + 3 * page, page)
    memory.map(start + size, 4 * size, 1)
    memory.map(start + 2 * size, 5 * size, 1)
    assert memory.ranges() == [
        [start, 7 * page, 3 * page],
        [start + 3 * page, page, page],
        [start + size, 4 * size, 2 * size],
    ]


def test_user_space_is_left_out(memory: Memory) -> None:
    memory.map(memory.form.kernel_begin, memory.page)
    if not memory.form.kernel_alone:
        memory.map(0x1000, 0x1000)
    assert memory.ranges() == [[memory.form.kernel_begin, memory.page, memory.page]]


def test_a_table_that_the_tree_has_twice_counts_once(memory: Memory) -> None:
    """As the shadow of KASAN, and a tree that contains itself."""
    form = memory.form
    memory.map(form.kernel_begin, memory.page)
    top = form.levels - 1
    entry = memory.get(memory.place(form.kernel_begin, top))
    for number in range(1, 5):
        memory.put(memory.place(form.kernel_begin + (number << form.shift(top)), top), entry)
    itself = memory.entry(memory.root, memory=False, level=top)
    memory.put(memory.place(form.kernel_begin + (5 << form.shift(top)), top), itself)
    last = form.kernel_begin + (4 << form.shift(top))
    assert memory.ranges() == [[last, memory.page, memory.page]]


def test_tables_that_are_lost_map_nothing(memory: Memory) -> None:
    form = memory.form
    memory.map(form.kernel_begin, memory.page)
    memory.map((1 << 64) - memory.page, 3 * memory.page)
    table = form.target(memory.get(memory.place((1 << 64) - memory.page, form.levels - 1)))
    del memory.pages[table]
    assert memory.ranges() == [[form.kernel_begin, memory.page, memory.page]]


def test_without_the_first_table_there_is_nothing(memory: Memory) -> None:
    del memory.pages[memory.root]
    with pytest.raises(OSError, match="no memory"):
        memory.ranges()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENODATA, "released"), TargetError("slow", errno=errno.EIO)]
)
def test_what_may_be_there_later_is_an_error(memory: Memory, error: OSError) -> None:
    """A target that does not answer is not a page that is lost."""
    memory.map(memory.form.kernel_begin, memory.page)
    calls = 0

    def read(address: int, length: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls == memory.form.levels:
            raise error
        return memory.read(address, length)

    with pytest.raises(type(error)):
        mapped_ranges(read, memory.form, memory.root)


def test_addresses_that_no_kernel_has_are_not_translated(memory: Memory) -> None:
    """Null pointers and what debuggers and allocators fill memory with."""
    form, page = memory.form, memory.page
    memory.map(form.kernel_begin, 5 * page)
    inside = form.kernel_begin % (1 << form.address_bits)
    assert translate(memory.read, form, memory.root, form.kernel_begin + 16) == 5 * page + 16
    for wrong in (0x6B6B << 48 | inside, inside + 16):
        if wrong != form.kernel_begin + 16:
            assert translate(memory.read, form, memory.root, wrong) is None
    tagged = form.kernel_begin & (1 << 56) - 1 | 0xF4 << 56
    found = translate(memory.read, form, memory.root, tagged)
    assert found == (5 * page if form.kernel_alone else None)


@pytest.mark.parametrize("levels", [3, 5])
def test_sixteen_pages_of_one_entry(levels: int) -> None:
    """Svnapot of RISC-V, 64 KiB; another pattern with that bit is T-Head's own."""
    memory = Memory(supervisor_mode(levels))
    start = (1 << 64) - (1 << 20)
    for number in range(16):
        group = 0x8765_8000 >> 2 | 1 << 63 | 0b1111
        memory.put(memory.place(start + number * 4096, 0), group)
        memory.put(memory.place(start + (32 + number) * 4096, 0), 0x9000_3000 >> 2 | 1 << 63 | 15)
    assert memory.ranges()[0] == [start, 0x8765_0000, 0x1_0000]
    assert translate(memory.read, memory.form, memory.root, start + 0x3010) == 0x8765_3010
    assert translate(memory.read, memory.form, memory.root, start + 0x2_0010) == 0x9000_3010


def test_of_too_many_ranges_the_largest_stay(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MOST_RANGES", 3)
    begin, page = memory.form.kernel_begin, memory.page
    for number in (0, 2, 3, 5, 7, 8, 9):
        memory.map(begin + number * page, number * page)
    found = memory.ranges()
    assert [begin + 2 * page, 2 * page, 2 * page] in found
    assert [begin + 7 * page, 7 * page, 3 * page] in found
    assert len(found) == 3 and found == sorted(found)


def test_of_too_many_tables_the_highest_stay(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel itself is there."""
    highest = (1 << 64) - memory.page
    memory.map(memory.form.kernel_begin, memory.page)
    memory.map(highest, 3 * memory.page)
    monkeypatch.setattr(walk, "_MOST_TABLES", memory.form.levels - 1)
    assert memory.ranges() == [[highest, 3 * memory.page, memory.page]]


def test_a_hostile_tree_is_left_in_time(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each table is full of tables."""
    monkeypatch.setattr(walk, "_MOST_TABLES", 100)
    read = 0

    def full(address: int, length: int) -> bytes:
        nonlocal read
        read += 1
        numbers = TABLES + np.arange(read, read + length // 8, dtype=np.uint64) * memory.page
        entries = numbers >> np.uint64(memory.form.number_shift) | np.uint64(1)
        return (entries | np.uint64(memory.form.kind * memory.form.table_has_kind)).tobytes()

    ranges = mapped_ranges(full, memory.form, TABLES)
    assert read <= 101 and len(ranges) > 0
