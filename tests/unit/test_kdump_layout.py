# SPDX-License-Identifier: GPL-2.0-or-later
"""The kdump format: bytes where crash and makedumpfile look for them, and refused headers."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats import (
    FORMATS,
    Extent,
    MachineInfo,
    MemoryRange,
    Sync,
    Write,
    Zero,
    kdump,
    superblock,
)
from livedumpfs.formats.processors import X86_64
from tests.fixtures.kdumps import MACHINE, MAP, MIB, PAGE, RAM_PFNS, head, plan


def test_kdump_is_one_of_the_formats() -> None:
    assert "kdump" in FORMATS


def test_header_fields_lie_where_crash_and_makedumpfile_read_them() -> None:
    p = plan(compression="lzo")
    header = p.header([{"rip": 0x1234}, {"rip": 0x5678}])
    assert header[:8] == b"KDUMP   "
    assert struct.unpack_from("<i", header, 8) == (6,)
    names = [header[12 + 65 * i : 77 + 65 * i].rstrip(b"\0") for i in range(6)]
    assert names[0] == b"Linux", "libkdumpfile ignores the others without it"
    assert (names[1], names[4]) == (b"engine", b"x86_64")
    assert names[2] and names[3]
    assert all(header[76 + 65 * i] == 0 for i in range(6))
    seconds, micros, status, block, sub_size, bitmaps = struct.unpack_from("<qqIiiI", header, 408)
    assert (seconds, micros, block) == (0, 0, 4096)
    assert status == 2 | 8
    assert sub_size * 4096 == p.superblock_offset
    assert bitmaps * 4096 == p.descriptors_offset - p.superblock_offset - 4096
    max_mapnr, ram, _, written, cpu, cpus = struct.unpack_from("<IIIIIi", header, 440)
    assert (max_mapnr, ram, written, cpu, cpus) == ((1 << 20) + 15, 23, 23, 0, 2)
    phys_base, level, split = struct.unpack_from("<Qii", header, 4096)
    assert (phys_base, level, split) == (0, 0, 0)
    assert struct.unpack_from("<QQQQ", header, 4096 + 16) == (0, 0, 0, 0)
    note, size = struct.unpack_from("<QQ", header, 4096 + 48)
    assert note + size == p.superblock_offset + superblock.SIZE
    assert struct.unpack_from("<QQQQQ", header, 4096 + 64) == (0, 0, 0, 0, (1 << 20) + 15)
    assert struct.unpack_from("<III", header, note) == (5, 336, 1)
    assert len(header) == p.superblock_offset


def test_regions_follow_each_other() -> None:
    for vcpus in (0, 1, 12, 4096):
        p = plan(machine=replace(MACHINE, vcpus=vcpus))
        position = len(p.header())
        assert position == p.superblock_offset
        for offset, size in [
            (p.superblock_offset, superblock.SIZE),
            (p.layout.bitmap_offset, 2 * p.layout.bitmap_size),
            (p.descriptors_offset, 23 * 24),
            (p.meta_slots[0], p.meta_room),
            (p.meta_slots[1], p.meta_room),
            (p.table_offset, p.table_size),
            (p.data_offset, PAGE),
        ]:
            assert offset >= position and offset % 4096 == 0
            position = offset + size
        assert position == p.total_size
        # A program that reads it finds the descriptors by these two fields.
        blocks = struct.unpack_from("<iI", p.header(), 432)
        assert (1 + sum(blocks)) * 4096 == p.descriptors_offset


def test_descriptors_are_in_physical_order() -> None:
    assert plan().extents == (
        Extent(0, 4 * PAGE, 5 * PAGE),
        Extent(4 * PAGE, 14 * PAGE, 9 * PAGE),
        Extent(18 * PAGE, 5 * PAGE, 0),
    )


@pytest.mark.parametrize(
    "ranges",
    [
        MAP,
        (MemoryRange(0, 8 * PAGE, 0),),
        (MemoryRange(0, 3 * MIB << 10, 0), MemoryRange(5 << 40, 16 * PAGE, 3 * MIB << 10)),
        (MemoryRange(kdump.MAX_PHYSICAL - PAGE, PAGE, 0),),
    ],
)
def test_bitmap_has_a_bit_for_each_page_of_ram(ranges: tuple[MemoryRange, ...]) -> None:
    layout = kdump.Layout(8192, ranges)
    windows = list(layout.windows())
    assert [at for at, _ in windows] == sorted({at for at, _ in windows})
    assert windows[0][0] == 0
    pfns = []
    for (offset, bits), (after, _) in itertools.pairwise([*windows, (layout.bitmap_size, b"")]):
        assert not bits or offset + len(bits) == after, "nothing is left out"
        found = np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little"))
        pfns.append(found + offset * 8)
    expected = [np.arange(r.start, r.end, PAGE) // PAGE for r in ranges]
    assert np.array_equal(np.concatenate(pfns), np.concatenate(expected))
    assert layout.bitmap_size * 8 >= layout.max_mapnr


def test_opening_writes_bitmaps_and_the_page_of_zeros_and_header_last() -> None:
    p = plan()
    steps = p.opening({"instant": {"wall_ns": 0}})
    assert steps[:2] == [Zero("target", 0, 4096), Sync("target")]
    zeroed = next(s for s in steps[2:] if isinstance(s, Zero))
    assert zeroed.offset == p.layout.bitmap_offset
    assert zeroed.offset + zeroed.length == p.meta_slots[0]
    writes = [s for s in steps if isinstance(s, Write)]
    assert writes[-1].offset == 0 and isinstance(steps[-1], Sync)
    file = bytearray(p.total_size)
    for write in writes:
        file[write.offset : write.offset + len(write.data)] = write.data
    for copy in (0, p.layout.bitmap_size):
        start = p.layout.bitmap_offset + copy
        bits = np.frombuffer(bytes(file[start : start + p.layout.bitmap_size]), np.uint8)
        assert np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist() == RAM_PFNS
    assert Write("target", p.data_offset, bytes(PAGE)) in writes


def test_seal_clears_the_incomplete_bit_after_the_data_is_durable() -> None:
    p = plan(compression="zlib")
    meta = {"instant": {"wall_ns": 1_700_000_000_123_456_789}}
    started = next(s for s in p.started([], meta) if isinstance(s, Write) and s.offset == 0)
    assert struct.unpack_from("<qqI", started.data, 408) == (1_700_000_000, 123456, 1 | 8)
    steps = p.seal("consistent", meta, total_size=p.total_size + 777)
    header = next(i for i, s in enumerate(steps) if isinstance(s, Write) and s.offset == 0)
    block = next(
        i for i, s in enumerate(steps) if isinstance(s, Write) and s.offset == p.superblock_offset
    )
    assert isinstance(steps[header - 1], Sync) and header < block
    assert any(isinstance(s, Sync) for s in steps[header:block])
    assert isinstance(steps[-1], Sync)
    written, sealed = steps[header], steps[block]
    assert isinstance(written, Write) and isinstance(sealed, Write)
    assert struct.unpack_from("<I", written.data, 424) == (1,)
    assert superblock.parse(sealed.data).total_size == p.total_size + 777


@pytest.mark.parametrize("verdict", ["torn", "incomplete"])
def test_what_lacks_pages_keeps_the_incomplete_bit(verdict: Any) -> None:
    steps = plan(compression="none").seal(verdict, {})
    header = next(s for s in steps if isinstance(s, Write) and s.offset == 0)
    assert struct.unpack_from("<I", header.data, 424) == (8,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compression": "rar"}, "unknown compression 'rar'"),
        ({"compression": "zstd", "level": 23}, "zstd has no level 23"),
        ({"compression": "zlib", "level": 10}, "zlib has no level 10"),
        ({"compression": "lzo", "level": 1}, "lzo has no level 1"),
        ({"level": -1}, "no level -1"),
        (
            {"machine": MachineInfo("t", memory_map=(MemoryRange(1 << 44, 23 * PAGE, 0),))},
            "no room",
        ),
        ({"arena_size": 4 * PAGE}, "the memory map covers"),
        ({"granule_size": 5000}, "no power of two"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(**changes)


def test_a_header_comes_back() -> None:
    p = plan(compression="snappy")
    found = kdump.parse_head(p.header())
    assert (found.incomplete, found.compression) == (True, "snappy")
    kdump.check_head(found, p.layout)
    registers = [{name: i * 100 + k for k, name in enumerate(X86_64.registers)} for i in (1, 2)]
    assert kdump.parse_registers(p.header(registers)) == registers
    with pytest.raises(UsageError):
        plan().header([{}, {}, {}])


@pytest.mark.parametrize(
    ("at", "format", "value", "message"),
    [
        (0, "8s", b"KDUMP  x", "no kdump header"),
        (8, "<i", 5, "version 5, this program reads version 6"),
        (428, "<i", 65536, "blocks of 65536 bytes"),
        (432, "<i", 0, "impossible values"),
        (432, "<i", -1, "impossible values"),
        (432, "<i", 1 << 30, "impossible values"),
        (4096 + 48, "<Q", 0, "no livedumpfs note"),
        (4096 + 48, "<Q", (1 << 64) - 1, "impossible values"),
        (4096 + 56, "<Q", 0, "no livedumpfs note"),
        (4096 + 56, "<Q", 1 << 40, "no livedumpfs note"),
        (4096 + 56, "<Q", 1 << 20, "impossible values"),
    ],
)
def test_headers_that_cannot_be_are_refused(
    at: int, format: str, value: object, message: str
) -> None:
    data = head()
    struct.pack_into(format, data, at, value)
    with pytest.raises(InvalidDump, match=message):
        kdump.parse_head(bytes(data))


@pytest.mark.parametrize("size", [8, 400, 4096, kdump.HEAD_SIZE - 1])
def test_a_header_that_is_cut_off_is_refused(size: int) -> None:
    with pytest.raises(InvalidDump, match="ends within its kdump header"):
        kdump.parse_head(bytes(head()[:size]))


@pytest.mark.parametrize(("at", "format"), [(436, "<I"), (4096 + 96, "<Q")])
def test_a_header_that_contradicts_the_memory_map_is_refused(at: int, format: str) -> None:
    data = head()
    (value,) = struct.unpack_from(format, data, at)
    struct.pack_into(format, data, at, value + 2)
    with pytest.raises(InvalidDump, match="disagree"):
        kdump.check_head(kdump.parse_head(bytes(data)), plan().layout)
