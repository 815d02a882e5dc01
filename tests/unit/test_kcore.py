# SPDX-License-Identifier: GPL-2.0-or-later
"""kcore: the kernel's memory by its own addresses."""

from __future__ import annotations

import errno
import io
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from livedumpfs.formats import Image, MachineInfo, MemoryRange
from livedumpfs.formats.note import Note
from livedumpfs.formats.snapshot_files import ImageFile, SnapshotFiles, standard_images
from livedumpfs.linux import kcore as module
from livedumpfs.linux.kcore import kcore_image, memory_of

SIZE = 4 << 20
START = 0x8000_0000
LINEAR, TEXT, STACK = 0xFFFF_FFD6_0000_0000, 0xFFFF_FFFF_8000_0000, 0xFFFF_FFC6_0000_8000
ROOT = 0x3000
"""Of the memory."""
VMCOREINFO = f"""\
OSRELEASE=6.12.117+deb13-riscv64
PAGESIZE=4096
SYMBOL(swapper_pg_dir)={TEXT + ROOT:x}
NUMBER(VA_BITS)=39
NUMBER(phys_ram_base)={START}
NUMBER(va_kernel_pa_offset)={TEXT - START:#x}
"""


def machine(architecture: str = "riscv64", text: str = VMCOREINFO, hole: int = 0) -> MachineInfo:
    """`hole`: bytes without memory in the middle."""
    notes = (Note(b"VMCOREINFO\0", 0, text.encode()),) if text else ()
    half = SIZE // 2
    ranges = (MemoryRange(START, half, 0), MemoryRange(START + half + hole, half, half))
    return MachineInfo("test", architecture, 243, 0, ranges, False, 0, notes)


@pytest.fixture
def memory() -> bytearray:
    """Random bytes, and tables of Sv39: two blocks of 2 MiB of linear addresses, the text by one
    of them, a stack of two pages that are not beside each other, and a device."""
    data = bytearray(random.Random(17).randbytes(SIZE))
    free = ROOT

    def table() -> int:
        nonlocal free
        free += 0x1000
        data[free : free + 0x1000] = bytes(0x1000)
        return free

    def put(table: int, index: int, physical: int, kind: int) -> None:
        entry = physical >> 12 << 10 | kind
        data[table + 8 * index : table + 8 * index + 8] = entry.to_bytes(8, "little")

    def above(address: int) -> int:
        middle = table()
        put(ROOT, address >> 30 & 511, START + middle, 1)
        return middle

    data[ROOT : ROOT + 0x1000] = bytes(0x1000)
    linear = above(LINEAR)
    for number in range(3):  # the third is a device, or behind the memory
        put(linear, number, START + (number << 21), 0xCF)
    put(above(TEXT), 0, START, 0xCF)
    stack, pages = above(STACK), table()
    put(stack, STACK >> 21 & 511, START + pages, 1)
    for number, physical in enumerate((0x5000, 0x9000)):
        put(pages, (STACK >> 12 & 511) + number, START + physical, 0xCF)
    return data


Read = Callable[[int, memoryview], None]


def reader(data: bytearray) -> Read:
    def read(offset: int, view: memoryview) -> None:
        view[:] = data[offset : offset + len(view)]

    return read


def files(info: MachineInfo, read: Read) -> SnapshotFiles:
    return SnapshotFiles(
        standard_images(info, SIZE),
        lambda image: ImageFile(image, read),
        dict,
        make_kcore=kcore_image(info, SIZE, ()),
    )


def loads(shown: SnapshotFiles) -> list[Any]:
    whole = io.BytesIO(shown.pread("kcore", 0, shown.size("kcore")))
    elf = ELFFile(whole)
    assert elf.header.e_machine == "EM_RISCV" and elf.header.e_type == "ET_CORE"
    return [one for one in elf.iter_segments() if one.header.p_type == "PT_LOAD"]


def test_it_shows_memory_by_the_kernels_addresses(memory: bytearray) -> None:
    shown = files(machine(), reader(memory))
    assert shown.names == ("vmcore", "mem.raw", "mem.lime", "kcore", "info.json")
    found = {
        one.header.p_vaddr: (one.header.p_paddr, one.data()) for one in loads(shown)
    }  # fmt: skip
    assert found == {
        STACK: (START + 0x5000, memory[0x5000:0x6000]),
        STACK + 0x1000: (START + 0x9000, memory[0x9000:0xA000]),
        LINEAR: (START, memory[: 2 << 20]),
        LINEAR + (2 << 20): (START + (2 << 20), memory[2 << 20 :]),
        TEXT: (START, memory[: 2 << 20]),
    }
    assert SIZE < shown.stored("kcore") <= shown.size("kcore") < SIZE + 2 * 4096


def test_what_is_mapped_and_no_memory_is_left_out(memory: bytearray) -> None:
    """A hole of 1 MiB, which is mapped with the rest."""
    shown = files(machine(hole=1 << 20), reader(memory))
    found = {one.header.p_vaddr: one.data() for one in loads(shown)}
    assert found[LINEAR] == memory[: 2 << 20]
    assert found[LINEAR + (3 << 20)] == memory[2 << 20 :]
    assert len(found) == 5


@pytest.mark.parametrize(
    ("architecture", "text"),
    [
        ("riscv64", ""),
        ("mips64", VMCOREINFO),
        ("riscv64", VMCOREINFO.replace("VA_BITS)=39", "VA_BITS)=40")),
        ("riscv64", VMCOREINFO.replace("swapper_pg_dir", "x")),
        ("aarch64", VMCOREINFO),
    ],
)
def test_without_a_known_linux_there_is_none(
    architecture: str, text: str, memory: bytearray
) -> None:
    shown = files(machine(architecture, text), reader(memory))
    assert "kcore" not in shown.names
    with pytest.raises(FileNotFoundError):
        shown.size("kcore")


def test_a_lost_first_table_is_an_error_until_it_can_be_read(memory: bytearray) -> None:
    gone = True

    def lost(offset: int, view: memoryview) -> None:
        if gone and offset < 2 << 20 and len(view):
            raise OSError(errno.EIO, "lost")
        view[:] = memory[offset : offset + len(view)]

    shown = files(machine(), lost)
    with pytest.raises(OSError, match="lost"):
        shown.size("kcore")
    assert shown.stored("kcore") == shown.stored("vmcore")
    gone = False
    assert len(loads(shown)) == 5


def test_what_statfs_asks_waits_for_no_memory(memory: bytearray) -> None:
    """Whether a mount is alive is found out by it."""

    def hangs(offset: int, view: memoryview) -> None:
        raise AssertionError("it reads")

    shown = files(machine(), hangs)
    assert all(shown.stored(name) > 0 for name in shown.names)


def test_the_tables_are_read_once(memory: bytearray) -> None:
    reads = 0

    def counted(offset: int, view: memoryview) -> None:
        nonlocal reads
        reads += 1
        view[:] = memory[offset : offset + len(view)]

    shown = files(machine(), counted)
    assert "kcore" in shown.names and reads == 0
    assert shown.size("kcore") > SIZE
    first = reads
    assert first > 0 and shown.size("kcore") > SIZE and reads == first


def test_parts_that_are_memory_are_those_of_a_slow_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = random.Random(17)
    for _ in range(200):
        ends = sorted(draw.sample(range(1, 400), 2 * draw.randrange(1, 12)))
        ranges = tuple(
            MemoryRange(begin, end - begin, 1000 * number)
            for number, (begin, end) in enumerate(zip(ends[::2], ends[1::2], strict=True))
        )
        info = MachineInfo("test", memory_map=ranges)
        rows = [[10_000 * n, draw.randrange(400), draw.randrange(1, 60)] for n in range(20)]
        found = memory_of(np.array(rows, np.uint64), info)
        assert found == [
            (virtual + begin - start, begin, end - begin, r.arena_offset + begin - r.start)
            for virtual, start, size in rows
            for r in ranges
            for begin, end in [(max(start, r.start), min(start + size, r.end))]
            if begin < end
        ]
    assert len(found) > 3
    monkeypatch.setattr(module, "MAX_RANGES", 3)
    assert memory_of(np.array(rows, np.uint64), info)[-2:] == found[-2:]


def test_one_image_is_made_for_many_readers(memory: bytearray) -> None:
    made: list[Image] = []
    info = machine()
    make = kcore_image(info, SIZE, ())
    assert make

    def counted(read: Any) -> Image:
        made.append(make(read))
        return made[-1]

    shown = SnapshotFiles(
        standard_images(info, SIZE),
        lambda image: ImageFile(image, reader(memory)),
        dict,
        make_kcore=counted,
    )
    with ThreadPoolExecutor(8) as pool:
        sizes = set(pool.map(lambda _: shown.size("kcore"), range(32)))
    assert len(made) == len(sizes) == 1
