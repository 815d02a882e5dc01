# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading dumps: finished, torn, broken off, and damaged on purpose."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash

from livedumpfs.dumpfile import (
    describe_dump,
    format_description,
    format_ranges,
    open_dump,
    verify_dump,
)
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.formats import MachineInfo, MemoryRange, Plan, elf, meta, plan_dump, superblock
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED
from livedumpfs.targets import apply, open_in_place

PAGE = 4096
MEMORY = b"".join(bytes([i + 1]) * PAGE if i % 5 else bytes(PAGE) for i in range(23))
MAP = (MemoryRange(0x1000, 7 * PAGE, 16 * PAGE), MemoryRange(0x100000, 16 * PAGE, 0))
MACHINE = MachineInfo("test", vcpus=1, memory_map=MAP)
WriteDump = Callable[..., Plan]


@pytest.fixture(params=["elf", "raw", "kdump"])
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("granule", [PAGE, 4 * PAGE, 64 * PAGE])
def test_a_sealed_dump_reads_as_the_memory_was(
    tmp_path: Path, write_dump: WriteDump, format: str, granule: int
) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY, format=format, granule=granule, machine=MACHINE)
    with open_dump(path) as dump:
        assert (dump.format, dump.sealed, dump.verdict) == (format, True, "consistent")
        assert (dump.granule_size, dump.arena_size) == (granule, len(MEMORY))
        assert dump.memory_map == MAP
        assert dump.machine_name == "test"
        assert dump.read_arena(0, len(MEMORY)) == MEMORY
        assert dump.read_arena(len(MEMORY), 0) == b""
        assert dump.read_physical(0x1000, 7 * PAGE) == MEMORY[16 * PAGE :]
        assert dump.read_physical(0x100010, 100) == MEMORY[16:116]
        report = dump.verify_checksums()
        assert report.ok
        assert report.checked + report.holes == -(-len(MEMORY) // granule)
        assert verify_dump(dump).ok


def test_positions_outside_are_refused(tmp_path: Path, write_dump: WriteDump, format: str) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY, format=format, machine=MACHINE)
    with open_dump(path) as dump:
        for offset, length in [
            (-1, 2),
            (0, -1),
            (0, len(MEMORY) + 1),
            (len(MEMORY), 1),
            (0, 1 << 60),
        ]:
            with pytest.raises(ValueError, match="not within the arena"):
                dump.read_arena(offset, length)
        for address, length in [(0, 1), (0x1000 + 7 * PAGE - 1, 2), (0x1000, 1 << 60), (-5, 1)]:
            with pytest.raises(OSError, match="no memory at physical") as caught:
                dump.read_physical(address, length)
            assert caught.value.errno == errno.EFAULT


def test_ranges_that_touch_read_as_one(tmp_path: Path, write_dump: WriteDump) -> None:
    touching = (MemoryRange(0, 3 * PAGE, 20 * PAGE), MemoryRange(3 * PAGE, 20 * PAGE, 0))
    path = tmp_path / "dump"
    write_dump(path, MEMORY, machine=MachineInfo("t", memory_map=touching))
    with open_dump(path) as dump:
        assert dump.read_physical(0, len(MEMORY)) == MEMORY[20 * PAGE :] + MEMORY[: 20 * PAGE]


def test_lost_pages_are_torn_and_read_as_errors(
    tmp_path: Path, write_dump: WriteDump, format: str
) -> None:
    states = [LOST if i in (3, 4, 9) else SAVED for i in range(23)]
    path = tmp_path / "dump"
    write_dump(path, MEMORY, format=format, states=states, machine=MACHINE)
    with open_dump(path) as dump:
        assert dump.verdict == "torn", "the table knows more than the seal"
        assert dump.pfn_ranges(LOST) == [(3, 5), (9, 10)]
        assert dump.read_arena(5 * PAGE, 4 * PAGE) == MEMORY[5 * PAGE : 9 * PAGE]
        with pytest.raises(OSError, match=r"page 0x3 of .* is lost") as caught:
            dump.read_arena(0, len(MEMORY))
        assert caught.value.errno == errno.EIO
        report = verify_dump(dump)
        assert not report.ok
        assert report.problems == ["3 granules are lost: pages 0x3-0x4, 0x9"]


@pytest.mark.parametrize("until", ["opening", "started", "table"])
def test_a_dump_that_was_broken_off_keeps_what_was_saved(
    tmp_path: Path, write_dump: WriteDump, format: str, until: str
) -> None:
    states = [SAVED if i % 2 else ARMED for i in range(23)]
    path = tmp_path / "dump"
    write_dump(path, MEMORY, format=format, states=states, until=until, machine=MACHINE)
    with open_dump(path) as dump:
        assert (dump.sealed, dump.verdict) == (False, "incomplete")
        report = verify_dump(dump)
        assert "broken off" in report.problems[0]
        if until == "table":
            assert dump.read_arena(PAGE, PAGE) == MEMORY[PAGE : 2 * PAGE]
            assert report.checksums.checked == 11
        with pytest.raises(OSError, match="was not saved"):
            dump.read_arena(0, 1)


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


def flip(path: Path, position: int, mask: int = 1) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ mask]))


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


def test_an_error_in_progress_ends_the_check(tmp_path: Path, write_dump: WriteDump) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "dump"
    write_dump(path, MEMORY)
    with open_dump(path) as dump, pytest.raises(KeyboardInterrupt):
        dump.verify_checksums(stop)


def test_registers_and_description(tmp_path: Path, write_dump: WriteDump) -> None:
    described = {
        "instant": {"wall_ns": 1_700_000_000_123_456_789, "mono_ns": 5},
        "pause_ns": 85_000,
        "policy": "block",
        "counters": {"faults": 3},
        "host_version": "0.1.0",
        "name": "overridden",
    }
    path = tmp_path / "dump"
    write_dump(path, MEMORY, machine=MACHINE, meta=described, registers=[{"rip": 0x1234}])
    with open_dump(path) as dump:
        assert dump.registers[0]["rip"] == 0x1234
        info = describe_dump(dump)
    assert json.loads(json.dumps(info)) == info
    assert info["granules"] == {"missing": 0, "saved": 18, "hole": 5, "lost": 0}
    assert info["saved_by"]["sweep"] == 18
    assert info["kinds"]["sweep"]["granules"] == 18
    assert info["kinds"]["hole"]["pages"][:2] == [[0, 1], [5, 6]]
    assert info["counters"] == {"faults": 3}
    text = format_description(info)
    assert "verdict     consistent\n" in text
    assert "instant     2023-11-14 22:13:20.123456 UTC, 0.000000 s after boot\n" in text
    assert "pause       85 us\n" in text
    assert "saved 18, hole 5 of 4 KiB" in text
    assert "by sweep    18 granules in 5 ranges\n" in text
    assert "holes       5 granules in 5 ranges\n" in text
    assert "by fault" not in text
    assert "checksums   XXH3-64 of each granule\n" in text


def test_description_of_a_broken_off_dump_says_so(tmp_path: Path, write_dump: WriteDump) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY, until="opening", meta={"policy": "\x1b[2Jclear"})
    with open_dump(path) as dump:
        text = format_description(describe_dump(dump))
    assert "verdict     incomplete, not sealed" in text
    assert "missing     23 granules: pages 0x0-0x16\n" in text
    assert "\x1b" not in text
    assert "instant" not in text


def test_arrays_come_back(tmp_path: Path, write_dump: WriteDump) -> None:
    table = np.arange(2000, dtype=np.int64).reshape(4, 500)
    memory = bytearray(8 * PAGE)
    memory[PAGE : PAGE + table.nbytes] = table.tobytes()
    fields = [["a", "<i4"], ["b", "<f8", [2]]]
    arrays = [
        {"name": "t", "dtype": "<i8", "shape": [4, 500], "offset": PAGE},
        {"name": "r", "dtype": fields, "shape": [3], "offset": 0},
        {"name": "zero", "dtype": "<f4", "shape": [], "offset": 0},
    ]
    path = tmp_path / "dump"
    write_dump(path, bytes(memory), meta={"arrays": arrays})
    with open_dump(path) as dump:
        assert np.array_equal(dump.array("t"), table)
        assert dump.array("r").dtype == np.dtype([("a", "<i4"), ("b", "<f8", (2,))])
        assert dump.array("zero").shape == ()
        with pytest.raises(KeyError):
            dump.array("none")


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


def invalid(path: Path, cause: str, sidecar: Path | None = None) -> None:
    with pytest.raises(InvalidDump, match=cause) as caught:
        open_dump(path, sidecar)
    assert isinstance(caught.value, ValueError)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


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


def test_an_enormous_sparse_dump_costs_nothing(tmp_path: Path) -> None:
    """16 TiB that are all holes: opened and verified from what the file system knows."""
    path = tmp_path / "dump"
    size, granule = 1 << 42, 1 << 30
    machine = MachineInfo.flat("t", size)
    plan = plan_dump("elf", machine, arena_size=size, granule_size=granule)
    with open_in_place(path) as target:
        target.prepare(plan.total_size)
        apply(plan.opening({}), target)
    with open_dump(path) as dump:
        assert dump.verdict == "incomplete"
        assert dump.verify_checksums().checked == 0


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


def test_a_new_dump_makes_the_old_one_invalid_at_once(
    tmp_path: Path, write_dump: WriteDump, format: str
) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY, format="elf", machine=MACHINE)
    write_dump(path, b"n" * len(MEMORY), format=format, machine=MACHINE, until="opening")
    with open_dump(path) as dump:
        assert dump.verdict == "incomplete"
        assert dump.state_counts()[ARMED] == 23


def test_format_ranges() -> None:
    assert format_ranges([]) == ""
    assert format_ranges([(1, 2), (16, 32)]) == "0x1, 0x10-0x1f"
    assert format_ranges([(i, i + 1) for i in range(0, 20, 2)], limit=2) == (
        "0x0, 0x2 and 8 more ranges"
    )


def test_holes_and_saved_pages_are_counted(tmp_path: Path, write_dump: WriteDump) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY)
    with open_dump(path) as dump:
        assert dump.state_counts() == {ARMED: 0, SAVED: 18, HOLE: 5, LOST: 0}
        assert dump.pfn_ranges(HOLE) == [(i, i + 1) for i in range(0, 23, 5)]
