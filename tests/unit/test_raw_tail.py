# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw dumps with their table at the target's tail: the layout, and what makes an older one go."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path

import pytest

from livedumpfs.errors import TargetError, UsageError
from livedumpfs.formats import MachineInfo, MemoryRange, RawPlan, Sync, Write, Zero, plan_dump
from livedumpfs.formats import superblock as superblocks
from livedumpfs.formats.raw import tail_superblock_offset
from livedumpfs.targets import apply, open_in_place
from livedumpfs.targets.tail import read_superblock

PAGE = 4096
MIB = 1 << 20
MACHINE = MachineInfo.flat("test", MIB)


def plan(device_size: int | None = None, machine: MachineInfo = MACHINE) -> RawPlan:
    size = sum(r.size for r in machine.memory_map)
    made = plan_dump(
        "raw",
        machine,
        arena_size=size,
        granule_size=PAGE,
        table="tail",
        device_size=device_size,
        dump_id=b"0123456789abcdef",
    )
    assert isinstance(made, RawPlan)
    return made


def test_memory_lies_where_it_does_without() -> None:
    beside = plan_dump("raw", MACHINE, arena_size=MIB, granule_size=PAGE)
    assert plan().extents == beside.extents
    assert (plan().book, beside.book) == ("target", "sidecar")


@pytest.mark.parametrize("device_size", [None, 8 * MIB, 8 * MIB + 512, 8 * MIB + PAGE - 1])
def test_nothing_overlaps_and_the_superblock_is_last(device_size: int | None) -> None:
    ranges = (MemoryRange(0, 5 * PAGE, 0), MemoryRange(MIB, MIB - 5 * PAGE, 5 * PAGE))
    made = plan(device_size, MachineInfo("test", memory_map=ranges))
    end = max(r.end for r in ranges)
    room = made.meta_room
    regions = [
        (0, end),
        *((slot, slot + room) for slot in made.meta_slots),
        (made.table_offset, made.table_offset + made.table_size),
        (made.superblock_offset, made.superblock_offset + PAGE),
    ]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(regions))
    assert all(start % PAGE == 0 for start, _ in regions)
    assert made.book_size == 0
    size = made.total_size if device_size is None else device_size
    assert made.superblock_offset == size // PAGE * PAGE - PAGE == tail_superblock_offset(size)
    assert made.total_size == made.superblock_offset + PAGE <= size


def test_least_size_is_enough_and_one_page_less_is_not() -> None:
    least = plan().total_size
    assert plan(least).total_size == least
    assert plan(least - PAGE).total_size == least  # which Target.prepare refuses


def test_steps_name_one_file_and_wipe_the_last_page_first() -> None:
    made = plan(8 * MIB)
    steps = [*made.opening({}), *made.started([], {}), *made.seal("consistent", {})]
    assert {step.file for step in steps} == {"target"}
    wiped = steps.index(Zero("target", made.superblock_offset, superblocks.ROOM))
    assert wiped < steps.index(Sync("target"))
    writes = [step for step in steps if isinstance(step, Write)]
    last = superblocks.parse(writes[-1].data)
    assert (last.sealed, last.verdict, last.format) == (True, "consistent", "raw")
    assert last.superblock_offset == made.superblock_offset


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown place"):
        plan_dump("raw", MACHINE, arena_size=MIB, granule_size=PAGE, table="front")


def write_opening(path: str, device_size: int | None = None) -> RawPlan:
    made = plan(device_size)
    with open_in_place(path) as target:
        target.prepare(made.total_size)
        apply(made.opening({}), target)
    return made


def test_a_file_with_one_is_a_dump_of_ours(tmp_path: Path) -> None:
    path = str(tmp_path / "dump")
    made = write_opening(path)
    with open_in_place(path) as target:  # it may be overwritten without force
        assert target.holds_dump()
        found = read_superblock(target.fd, target.size)
        assert found is not None and found.dump_id == made.dump_id


@pytest.mark.parametrize("change", ["longer", "shorter", "flipped"])
def test_a_file_that_is_no_dump_any_more(tmp_path: Path, change: str) -> None:
    path = tmp_path / "dump"
    made = write_opening(str(path))
    with open(path, "r+b") as file:
        if change == "longer":
            file.truncate(made.total_size + PAGE)
        elif change == "shorter":
            file.truncate(made.total_size - PAGE)
        else:
            file.seek(made.superblock_offset + 100)
            file.write(b"\xff")
    with pytest.raises(TargetError) as caught:
        open_in_place(str(path))
    assert caught.value.errno == errno.EEXIST


def test_a_superblock_that_is_memory_does_not_count(tmp_path: Path) -> None:
    """A sidecar's superblock, or that of another target, in the last page of some memory."""
    path = tmp_path / "memory"
    made = plan(8 * MIB)
    block = next(
        step.data
        for step in made.opening({})
        if isinstance(step, Write) and step.offset == made.superblock_offset
    )
    path.write_bytes(bytes(4 * MIB - PAGE) + block.ljust(PAGE, b"\0"))
    with open(path, "rb") as file:
        assert read_superblock(file.fileno(), 4 * MIB) is None
        assert read_superblock(file.fileno(), 100) is None


@pytest.mark.parametrize("format", ["elf", "raw"])
def test_the_next_dump_on_a_device_retires_it(loop_device, format: str) -> None:  # type: ignore[no-untyped-def]
    device = loop_device(8 * MIB + 512)
    made = write_opening(device, 8 * MIB + 512)
    with open_in_place(device) as target:
        assert read_superblock(target.fd, target.size) is not None
        after = plan_dump(format, MACHINE, arena_size=MIB, granule_size=PAGE)
        assert after.total_size <= made.superblock_offset
        target.prepare(after.total_size)
        assert read_superblock(target.fd, target.size) is None


def test_a_device_too_small_for_both_is_refused(loop_device) -> None:  # type: ignore[no-untyped-def]
    device = loop_device(MIB + 64 * 1024)
    made = plan(MIB + 64 * 1024)
    with open_in_place(device) as target:
        with pytest.raises(TargetError, match=r"the device has 1\.062 MiB") as caught:
            target.prepare(made.total_size)
        assert caught.value.errno == errno.ENOSPC
