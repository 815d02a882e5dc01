# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCOREINFO in a guest's memory: found wherever it lies, and nothing that only looks like it."""

from __future__ import annotations

import pytest

from livedumpfs.machines.kernels import vmcoreinfo
from livedumpfs.machines.kernels.vmcoreinfo import (
    MAX_SIZE,
    Read,
    find_vmcoreinfo,
    locate_vmcoreinfo,
)
from livedumpfs.machines.kernels.x86_kernel import is_current, kernel_tables
from livedumpfs.machines.machine import PhysicalRange

PIECE = 4 << 20
SIZE = 2 * PIECE + 4096
SYMBOL = 0xFFFFFFFF82A10000


def text(release: str = "6.1.0", base: int = 0, offset: int = 0) -> bytes:
    return (
        f"OSRELEASE={release}\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)={SYMBOL + offset:x}\n"
        f"NUMBER(phys_base)={base}\nKERNELOFFSET={offset:x}\nCRASHTIME=0\n"
    ).encode()


def memory(*placed: tuple[int, bytes], size: int = SIZE) -> bytearray:
    data = bytearray(size)
    for offset, content in placed:
        data[offset : offset + len(content)] = content
    return data


def reader(data: bytearray) -> Read:
    def read(offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(data), "reads outside the memory"
        return bytes(data[offset : offset + length])

    return read


@pytest.mark.parametrize(
    "offset",
    [0, 24, 8192, PIECE - 1, PIECE - 9, PIECE - 10, PIECE, 2 * PIECE - 5, SIZE - len(text())],
)
def test_it_is_found_wherever_it_is(offset: int) -> None:
    data = memory((offset, text()))
    assert locate_vmcoreinfo(reader(data), len(data)) == (offset, len(text()))
    assert find_vmcoreinfo(reader(data), len(data)) == text()


def test_a_place_is_read_again_by_itself() -> None:
    data = memory((100, text()), size=4096)
    place = locate_vmcoreinfo(reader(data), len(data))
    assert place is not None
    again = bytearray(data[place[0] : sum(place)])
    assert find_vmcoreinfo(reader(again), len(again)) == text()


@pytest.mark.parametrize(
    "content",
    [
        b"OSRELEASE=%s\n",
        b"OSRELEASE=",
        text()[:-1],
        text().replace(b"KERNELOFFSET", b"KERNELOFFSEX"),
        text().replace(b"NUMBER(phys_base)", b"NUMBER(phys_bass)"),
        text().replace(b"SYMBOL(swapper_pg_dir)", b"SYMBOL(swapper_pg_dis)"),
        text().replace(b"PAGESIZE", b"PAGE\0IZE"),
        text().replace(b"PAGESIZE", b"PAGE\xffIZE"),
        text() + b"x" * MAX_SIZE,
    ],
)
def test_what_only_looks_like_it_is_passed_over(content: bytes) -> None:
    assert find_vmcoreinfo(reader(memory((4096, content))), SIZE) is None
    data = memory((4096, content), (PIECE + 8192, text()))
    assert find_vmcoreinfo(reader(data), len(data)) == text()


def test_only_the_given_ranges_are_read() -> None:
    data = memory((4096, text("1")), (PIECE, text("2")))
    ranges = [(PIECE - 4096, 8192)]
    place = locate_vmcoreinfo(reader(data), len(data), data=ranges)
    assert place == (PIECE, len(text("2")))


def test_of_several_the_proven_one_is_taken_and_else_the_first() -> None:
    data = memory((0, text("1")), (8192, text("2")), (PIECE, text("3")))
    read = reader(data)
    for release in "123":
        wanted = text(release)
        assert find_vmcoreinfo(read, SIZE, lambda found, wanted=wanted: found == wanted) == wanted
    assert find_vmcoreinfo(read, SIZE, lambda found: False) == text("1")


def test_a_hostile_memory_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmcoreinfo, "_MOST_CHECKED", 50)
    looked = 0

    def count(found: bytes) -> bool:
        nonlocal looked
        looked += 1
        return False

    copies = [(index * 1024, text()) for index in range(200)]
    assert find_vmcoreinfo(reader(memory(*copies)), SIZE, count) == text()
    assert looked == 50
    words = memory((0, b"OSRELEASE=" * 100), (PIECE, text()))
    assert find_vmcoreinfo(reader(words), SIZE) is None


HIGH = 1 << 32
MAP = [PhysicalRange(0, PIECE, 0), PhysicalRange(HIGH, SIZE - PIECE, PIECE)]


def entry(table: int, physical: int) -> tuple[int, bytes]:
    """The last entry of a top-level table at arena offset `table`: present, with flags."""
    return table + 511 * 8, (physical | 0x067).to_bytes(8, "little")


@pytest.mark.parametrize("own", [0x200000, PIECE + 0x3000])
@pytest.mark.parametrize(("cr3", "task"), [(0x1000, 0x1000), (0x5000, 0x4000), (0x5007, 0x4000)])
def test_the_kernel_that_runs_is_known_by_its_page_tables(own: int, cr3: int, task: int) -> None:
    """`own`: where the kernel's first table lies; `task`: a task's, of which CR3 may be the user
    half."""
    base = (own if own < PIECE else own - PIECE + HIGH) - (SYMBOL - 0xFFFFFFFF80000000)
    running, stale = text("2", base), text("1", base + 0x100000)
    read = reader(memory(entry(own, 0x2A0C000), entry(task, 0x2A0C000)))
    assert is_current(running, read, MAP, [0x9000, cr3])
    assert not is_current(stale, read, MAP, [0x9000, cr3])
    assert not is_current(running, read, MAP, [0x9000])
    assert not is_current(running, read, MAP, [])
    other = reader(memory(entry(own, 0x2A0C000), entry(task, 0x2A0D000)))
    assert not is_current(running, other, MAP, [cr3])


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        text().replace(b"phys_base)=0", b"phys_base)=ab"),
        text().replace(b"phys_base)=0", b"phys_base)=-99999999999999999999"),
        text().replace(b"swapper_pg_dir)=f", b"swapper_pg_dir)=x"),
    ],
)
def test_numbers_that_are_none_prove_nothing(broken: bytes) -> None:
    assert not is_current(broken, reader(memory()), MAP, [0, 0x1000])


def test_a_kernel_keeps_the_tables_that_map_it() -> None:
    """Of tasks and of their user halves; before it has any there are none."""
    places = (0x1000, 0x2A0C000), (0x4000, 0x2A0C000), (0x5000, 0x77000)
    read = reader(memory(*(entry(*one) for one in places)))
    first, user = kernel_tables(read, MAP, [0x1000]), kernel_tables(read, MAP, [0x5000])
    assert first and first == kernel_tables(read, MAP, [0x4000])
    assert first & user and user - first, "of the user half's other one too"
    assert kernel_tables(read, MAP, [0, 0x9000]) == frozenset()
