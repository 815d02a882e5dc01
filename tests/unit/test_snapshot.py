# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading dumps: finished, torn and broken off."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from livedumpfs.dumpfile import (
    describe_dump,
    format_description,
    format_ranges,
    open_dump,
    verify_dump,
)
from livedumpfs.formats import MachineInfo, MemoryRange, plan_dump
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED
from livedumpfs.targets import apply, open_in_place
from tests.fixtures.small_dumps import MACHINE, MAP, MEMORY, PAGE, WriteDump


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
