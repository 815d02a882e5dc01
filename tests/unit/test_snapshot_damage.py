# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading dumps that were damaged on purpose: found, named or refused."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.formats import Plan, elf, meta, superblock
from livedumpfs.formats.table import ARMED
from tests.fixtures.small_dumps import MACHINE, MEMORY, PAGE, WriteDump, flip, invalid


def test_a_sealed_dump_with_a_damaged_table_block_is_incomplete(
    tmp_path: Path, write_dump: WriteDump
) -> None:
    memory = b"x" * (400 * PAGE)
    path = tmp_path / "dump"
    plan = write_dump(path, memory)
    flip(path, plan.table_offset + 4096 + 100)
    with open_dump(path) as dump:
        assert dump.verdict == "incomplete"
        assert dump.bad_blocks == [1]
        assert dump.pfn_ranges(ARMED) == [(169, 338)]
        problems = verify_dump(dump).problems
    assert "1 blocks of the granule table are damaged" in problems


@pytest.mark.parametrize("format", ["elf", "raw"])
def test_flipped_memory_is_found(tmp_path: Path, write_dump: WriteDump, format: str) -> None:
    path = tmp_path / "dump"
    plan = write_dump(path, MEMORY, format=format, machine=MACHINE)
    for page in (2, 5):  # data, hole
        extent = next(e for e in plan.extents if e.arena_offset <= page * PAGE)
        flip(path, extent.target_offset - extent.arena_offset + page * PAGE + 77)
    with open_dump(path) as dump:
        report = dump.verify_checksums(threads=1)
        assert (report.bad, report.stale, report.ok) == ([(2, 3)], [(5, 6)], False)
        assert [p.split(" ", 2)[2] for p in verify_dump(dump).problems] == [
            "are not as they were saved",
            "should be zeros and are not",
        ]


def test_checksums_of_granules_larger_than_the_buffer(
    tmp_path: Path, write_dump: WriteDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livedumpfs.dumpfile.checksums.PIECE", 8192)
    path = tmp_path / "dump"
    plan = write_dump(path, MEMORY, granule=8 * PAGE)
    seen: list[tuple[int, int]] = []
    with open_dump(path) as dump:
        report = dump.verify_checksums(lambda done, total: seen.append((done, total)), threads=3)
        assert report.ok
        assert report.checked == 3
        assert report.bytes_checked == len(MEMORY)
        assert seen[-1] == (len(MEMORY), len(MEMORY))
    flip(path, plan.data_offset + 12 * PAGE)
    with open_dump(path) as dump:
        assert dump.verify_checksums().bad == [(8, 16)]


def test_unreadable_pages_are_told_apart_from_wrong_ones(
    tmp_path: Path, write_dump: WriteDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dump"
    plan = write_dump(path, MEMORY)
    bad = plan.data_offset + 7 * PAGE
    original = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset <= bad < offset + len(buffers[0]):
            raise OSError(errno.EIO, "Input/output error")
        return original(fd, buffers, offset)

    with open_dump(path) as dump:
        monkeypatch.setattr(os, "preadv", preadv)
        report = dump.verify_checksums()
    assert (report.unreadable, report.bad, report.ok) == ([(7, 8)], [], False)


@pytest.mark.parametrize(
    "array",
    [
        {"name": "a", "dtype": "O", "shape": [1], "offset": 0},
        {"name": "a", "dtype": "<i8", "shape": [1 << 60], "offset": 0},
        {"name": "a", "dtype": "<i8", "shape": [1 << 40, 1 << 40], "offset": 0},
        {"name": "a", "dtype": "<i8", "shape": [1] * 33, "offset": 0},
        {"name": "a", "dtype": "<i8", "shape": [-1], "offset": 0},
        {"name": "a", "dtype": "<i8", "shape": [1], "offset": len(MEMORY)},
        {"name": "a", "dtype": "V0", "shape": [1], "offset": 0},
        {"name": "a", "dtype": "nonsense", "shape": [1], "offset": 0},
        {"name": "a", "dtype": {"names": ["x"], "formats": ["O"]}, "shape": [1], "offset": 0},
        {"name": "a", "dtype": [["x", "O"]], "shape": [1], "offset": 0},
        {"name": "a", "dtype": [["x", "<i4", [1 << 40]]], "shape": [1], "offset": 0},
        {"name": "a", "shape": [1], "offset": 0},
        {"name": "a", "dtype": "<i8", "shape": 5, "offset": 0},
        "text",
    ],
)
def test_arrays_that_cannot_be_are_refused(
    tmp_path: Path, write_dump: WriteDump, array: object
) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY, meta={"arrays": [array]})
    with pytest.raises(InvalidDump, match="is not a valid dump: its "):
        open_dump(path)


def test_what_is_no_dump_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"\x7fELF", b"hello" * 3000, b"\x7fELF" + bytes(5000)):
        path.write_bytes(content)
        invalid(path, "is not a valid dump: .* no sidecar file")
    invalid(Path(elf.__file__), "no ELF header")
    invalid(Path("/bin/sh"), "not that of a 64-bit")


def test_what_cannot_be_opened_is_an_os_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, code in [
        (tmp_path / "none", errno.ENOENT),
        (tmp_path, errno.EISDIR),
        (tmp_path / "fifo", errno.EINVAL),
        (Path("/dev/null"), errno.EINVAL),
    ]:
        with pytest.raises(TargetError) as caught:
            open_dump(path)
        assert caught.value.errno == code


def test_every_truncation_is_seen(tmp_path: Path, write_dump: WriteDump, format: str) -> None:
    path = tmp_path / "dump"
    plan = write_dump(path, MEMORY, format=format, machine=MACHINE)
    cut = tmp_path / "dump.ldfs" if format == "raw" else path
    content = cut.read_bytes()
    marks = [0, 3, 64, plan.superblock_offset, plan.table_offset, *plan.meta_slots, len(content)]
    for mark in marks:
        for size in {max(0, mark - 1), min(mark + 1, len(content) - 1)}:
            cut.write_bytes(content[:size])
            invalid(path, "is not a valid dump")
    cut.write_bytes(content)
    os.truncate(path, path.stat().st_size - 1)
    invalid(path, "cut off|ends within")


def test_flipped_header_bytes_of_a_sealed_dump_are_seen(
    tmp_path: Path, write_dump: WriteDump
) -> None:
    path = tmp_path / "dump"
    plan = write_dump(path, MEMORY, machine=MACHINE, registers=[{"rip": 1}])
    used = meta.HEADER_SIZE + len(json.dumps(plan.describe(), separators=(",", ":")))
    end = plan.meta_slots[0] + used
    for position in [*range(300), *range(3600, 4600, 7), *range(plan.meta_slots[0], end, 5)]:
        flip(path, position)
        invalid(path, "is not a valid dump")
        flip(path, position)
    open_dump(path).close()


def test_a_damaged_superblock_is_not_taken(tmp_path: Path, write_dump: WriteDump) -> None:
    path = tmp_path / "dump"
    plan = write_dump(path, MEMORY, format="raw")
    flip(tmp_path / "dump.ldfs", 8)
    invalid(path, "sidecar file .* version 0")
    flip(tmp_path / "dump.ldfs", 8)
    flip(tmp_path / "dump.ldfs", plan.superblock_offset + 50)
    invalid(path, "damaged")


def rewrite(path: Path, plan: Plan, **change: object) -> None:
    """Another superblock, with a good checksum."""
    with open(path, "r+b") as file:
        file.seek(plan.superblock_offset)
        block = superblock.parse(file.read(superblock.SIZE))
        file.seek(plan.superblock_offset)
        file.write(replace(block, **change).pack())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"table_offset": 1 << 40}, "overlap|ends within its granule table"),
        ({"table_offset": 4096}, "overlap"),
        ({"data_offset": 1 << 40}, "ends within its memory"),
        ({"data_offset": 0}, "overlap"),
        ({"meta_offsets": (8192, 8192)}, "overlap"),
        ({"total_size": 1 << 50}, "cut off"),
        ({"total_size": 4096}, "disagree"),
        ({"superblock_offset": 0}, "belongs to another dump"),
        ({"format": "kdump"}, "belongs to another dump"),
        ({"meta_length": 5}, "meta data"),
        ({"header_checksum": 5}, "header"),
        ({"dump_id": b"z" * 16}, "meta data is missing"),
    ],
)
def test_superblocks_that_point_elsewhere_are_refused(
    tmp_path: Path, write_dump: WriteDump, change: dict[str, object], cause: str
) -> None:
    path = tmp_path / "dump"
    rewrite(path, write_dump(path, MEMORY), **change)
    invalid(path, cause)


def test_meta_of_an_unsealed_dump_is_taken_from_the_good_slot(
    tmp_path: Path, write_dump: WriteDump
) -> None:
    path = tmp_path / "dump"
    plan = write_dump(path, MEMORY, until="started", meta={"policy": "spill"})
    flip(path, plan.meta_slots[1] + 60)
    with open_dump(path) as dump:
        assert dump.meta["policy"] == "spill"
    flip(path, plan.meta_slots[0] + 60)
    invalid(path, "both copies")


def test_maps_that_cannot_be_are_refused(tmp_path: Path, write_dump: WriteDump) -> None:
    path = tmp_path / "dump"
    plan = write_dump(path, MEMORY, until="started")
    for bad in ("text", [], [5], [{}], [{"start": 0, "size": 4096, "arena_offset": 0}],
                [{"start": -1, "size": len(MEMORY), "arena_offset": 0}],
                [{"start": True, "size": len(MEMORY), "arena_offset": 0}],
                [{"start": 0, "size": 0, "arena_offset": 0}] * 5000):  # fmt: skip
        slot = meta.build_slot({"memory_map": bad}, plan.dump_id, 1, room=plan.meta_room)
        with open(path, "r+b") as file:
            file.seek(plan.meta_slots[1])
            file.write(slot)
        length, checksum = len(slot), xxhash.xxh3_64_intdigest(slot)
        rewrite(path, plan, meta_length=length, meta_checksum=checksum)
        invalid(path, "memory map")


def test_program_headers_must_agree_with_the_map(tmp_path: Path, write_dump: WriteDump) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY, until="started", machine=MACHINE)
    flip(path, 64 + 56 + 24 + 1)
    invalid(path, "program headers and its memory map disagree")


def test_a_sidecar_of_something_else_is_refused(tmp_path: Path, write_dump: WriteDump) -> None:
    path, other = tmp_path / "dump", tmp_path / "other"
    write_dump(path, MEMORY, format="raw")
    write_dump(other, MEMORY[::-1][PAGE:] + b"y" * PAGE, format="raw")
    with open_dump(path, tmp_path / "dump.ldfs") as dump:
        assert dump.sidecar == str(tmp_path / "dump.ldfs")
    invalid(path, "describes something else", tmp_path / "other.ldfs")
    # Some granules are the same in both: a converted file in the raw dump's place, say.
    write_dump(other, MEMORY[: 4 * PAGE] + MEMORY[4 * PAGE :][::-1], format="raw", force=True)
    invalid(path, "describes something else", tmp_path / "other.ldfs")
    write_dump(other, MEMORY, format="elf", force=True)
    invalid(other, "is an ELF dump and has no sidecar", tmp_path / "dump.ldfs")
