# SPDX-License-Identifier: GPL-2.0-or-later
"""The kdump format: bytes where crash and makedumpfile look for them, and pages read back."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livedumpfs.dumpfile import DamagedPage, describe_dump, format_description, open_dump
from livedumpfs.dumpfile import verify_dump as verify
from livedumpfs.errors import InvalidDump, TargetError, UsageError
from livedumpfs.formats import (
    FORMATS,
    Extent,
    KdumpPlan,
    MachineInfo,
    MemoryRange,
    Plan,
    Sync,
    Write,
    Zero,
    elf,
    kdump,
    plan_dump,
    superblock,
)
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED
from livedumpfs.targets import open_target
from tests.fixtures.program_files import program_file

PAGE = 4096
MIB = 1 << 20
# Arena order is not physical order, and no range begins or ends at a byte of the bitmap.
MAP = (
    MemoryRange(3 * PAGE, 5 * PAGE, 18 * PAGE),
    MemoryRange(9 * PAGE, 4 * PAGE, 0),
    MemoryRange((1 << 32) + PAGE, 14 * PAGE, 4 * PAGE),
)
RAM_PFNS = [*range(3, 8), *range(9, 13), *range((1 << 20) + 1, (1 << 20) + 15)]
MACHINE = MachineInfo("engine", vcpus=2, memory_map=MAP)
MEMORY = b"".join(bytes([i + 1, i]) * 2048 if i % 5 else bytes(PAGE) for i in range(23))
NOISE = np.random.default_rng(7).bytes(PAGE)
WriteDump = Callable[..., Plan]


def plan(**changes: Any) -> KdumpPlan:
    how = {"arena_size": len(MEMORY), "granule_size": 2 * PAGE, **changes}
    found = plan_dump("kdump", how.pop("machine", MACHINE), **how)
    assert isinstance(found, KdumpPlan)
    return found


def write_kdump(write_dump: WriteDump, path: Path, memory: bytes = MEMORY, **how: Any) -> KdumpPlan:
    settings = {"granule": 2 * PAGE, "machine": MACHINE, **how}
    found = write_dump(path, memory, format="kdump", **settings)
    assert isinstance(found, KdumpPlan)
    return found


# ------------------------------------------------------------------------------- layout


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
        # Whoever reads it finds the descriptors by these two fields.
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


# ------------------------------------------------------------------------------ parsing


def head() -> bytearray:
    p = plan()
    return bytearray(p.header())


def test_a_header_comes_back() -> None:
    p = plan(compression="snappy")
    found = kdump.parse_head(p.header())
    assert (found.incomplete, found.compression) == (True, "snappy")
    kdump.check_head(found, p.layout)
    registers = [{name: i * 100 + k for k, name in enumerate(elf.REGISTERS)} for i in (1, 2)]
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


# ------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("compression", ["zlib", "none"])
@pytest.mark.parametrize("granule", [PAGE, 4 * PAGE, 32 * PAGE])
def test_pages_come_back(
    tmp_path: Path, write_dump: WriteDump, compression: str, granule: int
) -> None:
    path = tmp_path / "dump"
    memory = MEMORY[: 21 * PAGE] + NOISE + MEMORY[22 * PAGE :]
    write_kdump(write_dump, path, memory, compression=compression, granule=granule)
    with open_dump(path) as dump:
        assert (dump.format, dump.compression, dump.verdict) == ("kdump", compression, "consistent")
        assert dump.read_arena(0, len(memory)) == memory
        assert verify(dump).ok
        for offset, length in [(1, 1), (PAGE - 1, 2), (3 * PAGE + 5, 2 * PAGE), (17, 20 * PAGE)]:
            assert dump.read_arena(offset, length) == memory[offset : offset + length]
        assert dump.read_physical(3 * PAGE, 5 * PAGE) == memory[18 * PAGE :]
        assert dump.read_physical((1 << 32) + PAGE + 100, 5000) == memory[4 * PAGE + 100 :][:5000]
        described = describe_dump(dump)
    assert described["compression"] == compression
    text = format_description(described)
    assert ("kdump, compressed with zlib" in text) == (compression == "zlib")


def test_zero_pages_are_stored_once(tmp_path: Path, write_dump: WriteDump) -> None:
    path = tmp_path / "dump"
    p = write_kdump(write_dump, path, bytes(23 * PAGE))
    assert path.stat().st_size == p.data_offset + PAGE
    with open_dump(path) as dump:
        assert dump.read_arena(0, 23 * PAGE) == bytes(23 * PAGE)
        assert verify(dump).checksums.holes == 12


@pytest.mark.parametrize("until", ["opening", "started", "table"])
def test_a_kdump_that_was_broken_off(tmp_path: Path, write_dump: WriteDump, until: str) -> None:
    path = tmp_path / "dump"
    states = [SAVED if i % 2 else ARMED for i in range(12)]
    write_kdump(write_dump, path, states=states, until=until, registers=[{"rip": 7}])
    with open(path, "rb") as file:
        assert kdump.parse_head(file.read(8192)).incomplete
    with open_dump(path) as dump:
        assert (dump.sealed, dump.verdict) == (False, "incomplete")
        assert dump.registers[0]["rip"] == (0 if until == "opening" else 7)
        if until == "table":
            assert dump.read_arena(2 * PAGE, 2 * PAGE) == MEMORY[2 * PAGE : 4 * PAGE]
            assert verify(dump).checksums.checked == 6
        with pytest.raises(OSError, match=r"page 0x0 .* was not saved") as caught:
            dump.read_arena(0, 1)
        assert caught.value.errno == errno.EIO


def descriptor_place(p: KdumpPlan, page: int) -> int:
    extent = next(e for e in p.extents if 0 <= page * PAGE - e.arena_offset < e.length)
    index = (extent.target_offset + page * PAGE - extent.arena_offset) // PAGE
    return p.descriptors_offset + 24 * index


def put(path: Path, data: bytes, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


END = 1 << 63


@pytest.mark.parametrize(
    ("descriptor", "cause"),
    [
        ((0, 0, 0), "its descriptor is empty"),
        ((0, PAGE, 0), "outside the data"),
        ((4096, 100, 1), "outside the data"),
        ((1 << 40, 100, 1), "outside the data"),
        (((1 << 64) - 1, 2, 1), "outside the data"),
        ((END, PAGE, 0), "outside the data"),
        ((None, PAGE + 1, 1), "impossible size"),
        ((None, (1 << 32) - 1, 0x20), "impossible size"),
        ((None, 0, 1), "impossible size"),
        ((None, 100, 0), "impossible size or compression"),
        ((None, 100, 3), "impossible size or compression"),
        ((None, 100, 0x80000001), "impossible size or compression"),
        ((None, 13, 1), "its data is damaged"),
        ((None, 13, 2), "its data is damaged"),
        ((None, 13, 4), "its data is damaged"),
        ((None, 13, 0x20), "its data is damaged"),
    ],
)
def test_a_bad_descriptor_is_an_error_of_its_page_alone(
    tmp_path: Path,
    write_dump: WriteDump,
    descriptor: tuple[int | None, int, int],
    cause: str,
) -> None:
    path = tmp_path / "dump"
    p = write_kdump(write_dump, path, granule=PAGE)
    offset, size, flags = descriptor
    place = p.data_offset + PAGE if offset is None else offset
    put(path, struct.pack("<QIIQ", place, size, flags, 0), descriptor_place(p, 7))
    with open_dump(path) as dump:
        with pytest.raises(DamagedPage, match=f"page 0x7 of .* is damaged: .*{cause}") as caught:
            dump.read_arena(0, len(MEMORY))
        assert caught.value.errno == errno.EIO
        assert isinstance(caught.value, OSError) and isinstance(caught.value, InvalidDump)
        assert dump.read_arena(0, 7 * PAGE) == MEMORY[: 7 * PAGE]
        assert dump.read_arena(8 * PAGE, 15 * PAGE) == MEMORY[8 * PAGE :]
        report = verify(dump)
        assert report.checksums.unreadable == [(7, 8)]
        assert "pages 0x7 cannot be read" in report.problems


def test_another_pages_descriptor_is_found_by_the_checksum(
    tmp_path: Path, write_dump: WriteDump
) -> None:
    path = tmp_path / "dump"
    p = write_kdump(write_dump, path, granule=PAGE)
    content = path.read_bytes()
    put(path, content[descriptor_place(p, 8) :][:24], descriptor_place(p, 7))
    put(path, struct.pack("<QIIQ", p.data_offset, PAGE, 0, 0), descriptor_place(p, 9))
    put(path, content[descriptor_place(p, 8) :][:24], descriptor_place(p, 10))  # a hole
    with open_dump(path) as dump:
        found = verify(dump).checksums
    assert (found.bad, found.stale) == ([(7, 8), (9, 10)], [(10, 11)])


def test_a_page_of_zeros_that_is_none_is_found(tmp_path: Path, write_dump: WriteDump) -> None:
    path = tmp_path / "dump"
    states = [SAVED if i < 10 or i % 5 else HOLE for i in range(23)]
    p = write_kdump(write_dump, path, granule=PAGE, states=states)
    put(path, b"x", p.data_offset + 9)
    with open_dump(path) as dump:
        found = verify(dump).checksums
        assert found.bad == [(0, 1), (5, 6)]
        assert found.stale == [(10, 11), (15, 16), (20, 21)]


@pytest.mark.parametrize("sealed", [True, False])
def test_flipped_bits_of_header_and_bitmaps_are_seen(
    tmp_path: Path, write_dump: WriteDump, sealed: bool
) -> None:
    path = tmp_path / "dump"
    p = write_kdump(write_dump, path, until="seal" if sealed else "table")
    content = path.read_bytes()
    places = [p.layout.bitmap_offset, p.layout.bitmap_offset + p.layout.bitmap_size + 1]
    places += [p.layout.bitmap_offset + 4096 + 5, p.layout.bitmap_offset + p.layout.bitmap_size - 1]
    places += [4, 9, 430, 433, 437, 4096 + 50, 4096 + 60, 4096 + 97]
    if sealed:
        places += [13, 300, 424, 441, 460, 4097, 7000, p.superblock_offset - 30]
    for place in places:
        put(path, bytes([content[place] ^ 4]), place)
        with pytest.raises(InvalidDump, match="is not a valid dump"):
            open_dump(path)
        put(path, content[place : place + 1], place)
    open_dump(path).close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("total_size", 4096),
        ("total_size", 1 << 40),
        ("data_offset", 0),
        ("data_offset", 8192),
        ("table_offset", 16384),
        ("format", "elf"),
        ("format", "raw"),
        ("superblock_offset", 512),
        ("arena_size", 24 * PAGE),
    ],
)
def test_superblocks_that_lie_are_refused(
    tmp_path: Path, write_dump: WriteDump, field: str, value: Any
) -> None:
    path = tmp_path / "dump"
    p = write_kdump(write_dump, path)
    block = superblock.parse(path.read_bytes()[p.superblock_offset :][: superblock.SIZE])
    put(path, replace(block, **{field: value}).pack(), p.superblock_offset)
    with pytest.raises(InvalidDump, match="is not a valid dump"):
        open_dump(path)


def test_the_end_of_the_data_is_known_when_it_is_sealed(
    tmp_path: Path, write_dump: WriteDump
) -> None:
    """On a device old bytes lie behind it."""
    path = tmp_path / "dump"
    p = write_kdump(write_dump, path, granule=PAGE)
    size = path.stat().st_size
    with open(path, "ab") as file:
        file.write(zlib.compress(b"s" * PAGE))
    for place in (size, size - 1):
        data = struct.pack("<QIIQ", place, path.stat().st_size - size, 1, 0)
        put(path, data, descriptor_place(p, 1))
        with open_dump(path) as dump, pytest.raises(DamagedPage, match="outside"):
            dump.read_arena(PAGE, PAGE)
    os.truncate(path, size - 1)
    with pytest.raises(InvalidDump, match=r"cut off|ends within"):
        open_dump(path)


def test_foreign_kdump_files_and_flattened_ones_are_refused(
    tmp_path: Path, write_dump: WriteDump
) -> None:
    path = tmp_path / "dump"
    p = write_kdump(write_dump, path)
    put(path, b"\0" * 12, p.superblock_offset - 24)
    with pytest.raises(InvalidDump, match="no livedumpfs note"):
        open_dump(path)
    path.write_bytes(b"makedumpfile".ljust(9000, b"\0"))
    with pytest.raises(InvalidDump, match=r"flattened form .*convert FILE NEW --format kdump"):
        open_dump(path)


@pytest.mark.parametrize("until", ["opening", "seal"])
def test_a_kdump_of_ours_may_be_overwritten(
    tmp_path: Path, write_dump: WriteDump, until: str
) -> None:
    path = tmp_path / "dump"
    write_kdump(write_dump, path, until=until)
    write_dump(path, MEMORY)
    with open_dump(path) as dump:
        assert dump.format == "elf"
    write_kdump(write_dump, path)
    with open_dump(path) as dump:
        assert dump.format == "kdump"


def test_a_foreign_kdump_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(bytes(head()) + bytes(20000))
    with pytest.raises(TargetError, match="not a dump") as caught:
        open_target(path)
    assert caught.value.errno == errno.EEXIST


# ------------------------------------------------------------------------- other readers


def _debian_python() -> str | None:
    """The Python that Debian's python3-libkdumpfile is for."""
    python = "/usr/bin/python3"
    if not os.access(python, os.X_OK):
        return None
    run = subprocess.run(
        [python, "-c", "import kdumpfile"], capture_output=True, timeout=300, check=False
    )
    return python if run.returncode == 0 else None


@pytest.mark.parametrize("compression", ["zlib", "none"])
def test_libkdumpfile_reads_every_page(
    tmp_path: Path, write_dump: WriteDump, compression: str
) -> None:
    python = _debian_python()
    if python is None:
        pytest.skip("python3-libkdumpfile is not installed")
    path = tmp_path / "dump"
    registers = [{"rip": 0x1234}, {"rip": 0x5678}]
    write_kdump(write_dump, path, compression=compression, registers=registers)
    run = subprocess.run(
        [
            python,
            program_file(__file__, "kdumpfile_knows.py"),
            str(path),
            *(f"{r.start},{r.size}" for r in MAP),
        ],
        capture_output=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout == MEMORY[18 * PAGE :] + MEMORY[: 18 * PAGE]


def test_makedumpfile_rearranges_what_we_flatten(tmp_path: Path, write_dump: WriteDump) -> None:
    from livedumpfs.cli.main import main

    tool = shutil.which("makedumpfile", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if tool is None:
        pytest.skip("makedumpfile is not installed")
    source, flat, out = tmp_path / "dump", tmp_path / "flat", tmp_path / "out"
    write_kdump(write_dump, source)
    assert main(["convert", str(source), str(flat), "--format", "flat"]) == 0
    with open(flat, "rb") as file:
        subprocess.run(
            [tool, "-R", str(out)], stdin=file, capture_output=True, timeout=300, check=True
        )
    with open_dump(out) as dump:
        assert verify(dump).ok
        assert dump.read_arena(0, len(MEMORY)) == MEMORY
    again = tmp_path / "again"
    assert main(["convert", str(flat), str(again), "--format", "kdump"]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_lost_pages_have_empty_descriptors(tmp_path: Path, write_dump: WriteDump) -> None:
    path = tmp_path / "dump"
    states = [LOST if i == 3 else SAVED for i in range(23)]
    p = write_kdump(write_dump, path, granule=PAGE, states=states, verdict="torn")
    assert path.read_bytes()[descriptor_place(p, 3) :][:24] == bytes(24)
    with open_dump(path) as dump:
        assert dump.verdict == "torn"
        with pytest.raises(OSError, match=r"page 0x3 .* is lost"):
            dump.read_arena(0, 5 * PAGE)
