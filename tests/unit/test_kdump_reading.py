# SPDX-License-Identifier: GPL-2.0-or-later
"""The kdump format: reading what was written, broken off or damaged."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.dumpfile import DamagedPage, describe_dump, format_description, open_dump
from livedumpfs.dumpfile import verify_dump as verify
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.formats import kdump, superblock
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED
from livedumpfs.targets import open_target
from tests.fixtures.kdumps import (
    MEMORY,
    NOISE,
    PAGE,
    WriteDump,
    descriptor_place,
    head,
    put,
    write_kdump,
)


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


def test_lost_pages_have_empty_descriptors(tmp_path: Path, write_dump: WriteDump) -> None:
    path = tmp_path / "dump"
    states = [LOST if i == 3 else SAVED for i in range(23)]
    p = write_kdump(write_dump, path, granule=PAGE, states=states, verdict="torn")
    assert path.read_bytes()[descriptor_place(p, 3) :][:24] == bytes(24)
    with open_dump(path) as dump:
        assert dump.verdict == "torn"
        with pytest.raises(OSError, match=r"page 0x3 .* is lost"):
            dump.read_arena(0, 5 * PAGE)
