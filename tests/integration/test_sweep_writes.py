# SPDX-License-Identifier: GPL-2.0-or-later
"""What the sweep writes, and by which way: pages of zeros on targets that held other bytes, and
data past the page cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.cli.proof import prove_dump
from livedumpfs.dumpfile import open_dump
from livedumpfs.units import PAGE_SIZE

MIB = 1 << 20
GRANULE = 16 << 10
SIZE = 24 * MIB
ZEROS = range(0, 8 * MIB, 3 * GRANULE)
"""Offsets of granules that exist and are all zeros, each between two of data."""
LONG_ZEROS = slice(12 * MIB, 17 * MIB)
HOLES = slice(18 * MIB, 20 * MIB)
DEADLINE_S = 300.0
LoopMaker = Callable[..., str]


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena(SIZE) as arena:
        arena.live[:] = np.random.default_rng(7).integers(1, 256, SIZE, dtype=np.uint8)
        for start in ZEROS:
            arena.live[start : start + GRANULE] = 0
        arena.live[LONG_ZEROS] = 0
        # Zeros up to their last byte: no granule of these is one.
        arena.live[20 * MIB : 21 * MIB] = 0
        arena.live[20 * MIB + GRANULE - 1 : 21 * MIB : GRANULE] = 1
        arena.discard(HOLES.start, HOLES.stop - HOLES.start)
        yield arena


def expected_holes() -> int:
    long = (LONG_ZEROS.stop - LONG_ZEROS.start) + (HOLES.stop - HOLES.start)
    return len(ZEROS) + long // GRANULE


def expect_dump(arena: Arena, target: Path | str, format: str, buffered: bool) -> None:
    """A dump while no thread writes; what other tools read there is the memory, byte for byte."""
    settings = DumpSettings(
        format=format, granule=GRANULE, buffered=buffered, force=True, sidecar=None
    )
    with LiveDump(arena) as live:
        live.init(target, settings)
        live.start()
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        counters = live.counters()
    assert counters.holes == expected_holes()
    assert counters.by_sweep == SIZE // GRANULE - expected_holes()
    with open_dump(target) as dump:
        assert dump.read_arena(0, SIZE) == arena.live.tobytes()
        assert prove_dump(dump).ok
        offset = dump.superblock.data_offset
    with open(target, "rb") as file:
        file.seek(offset)
        assert file.read(SIZE) == arena.live.tobytes()


@pytest.mark.parametrize("format", ["elf", "raw"])
@pytest.mark.parametrize("buffered", [False, True], ids=["direct", "buffered"])
def test_zeros_on_a_device_that_held_other_bytes(
    arena: Arena,
    loop_device: LoopMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    buffered: bool,
    format: str,
) -> None:
    monkeypatch.setenv("LIVEDUMPFS_STATE", str(tmp_path / "state"))
    device = loop_device(SIZE + 8 * MIB)
    with open(device, "r+b", buffering=0) as file:
        for _ in range(SIZE // MIB + 8):
            file.write(b"s" * MIB)
    expect_dump(arena, device, format, buffered)


@pytest.mark.parametrize("format", ["elf", "raw"])
def test_zeros_in_a_file_stay_a_hole(arena: Arena, tmp_path: Path, format: str) -> None:
    target = tmp_path / "dump"
    expect_dump(arena, target, format, buffered=False)
    arena.live[:] = 9
    with LiveDump(arena) as live:
        assert live.save(target, DumpSettings(format=format)) == "consistent"
    arena.live[LONG_ZEROS] = 0
    with LiveDump(arena) as live:
        assert live.save(target, DumpSettings(format=format)) == "consistent"
    with open_dump(target) as dump:
        assert dump.read_arena(0, SIZE) == arena.live.tobytes(), "nothing of the older dump"
    assert os.stat(target).st_blocks * 512 < SIZE - 4 * MIB


def pages_cached(file: Path) -> int:
    tool = shutil.which("fincore")
    if tool is None:
        pytest.skip("fincore (util-linux) is not installed")
    done = subprocess.run(
        [tool, "--noheadings", "--output", "pages", file],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return int(done.stdout)


def takes_direct_writes(folder: Path) -> bool:
    try:
        os.close(os.open(folder / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        return False
    return True


def test_data_goes_past_the_page_cache_unless_asked_otherwise(arena: Arena, tmp_path: Path) -> None:
    if not takes_direct_writes(tmp_path):
        pytest.skip("this file system has no direct I/O")
    pages = {}
    for buffered in (True, False):
        target = tmp_path / f"dump-{buffered}"
        with LiveDump(arena) as live:
            settings = DumpSettings(granule=GRANULE, buffered=buffered)
            assert live.save(target, settings) == "consistent"
        pages[buffered] = pages_cached(target)
    data = (SIZE - expected_holes() * GRANULE) // PAGE_SIZE
    assert pages[True] > data * 9 // 10, "or this test shows nothing"
    assert pages[False] < data // 10


HOLLOW = 1024 * MIB
SLOW_RATE = 256 << 10
"""Bytes a second: what exists takes a moment of it, all of the arena more than an hour."""


@pytest.mark.parametrize("zeros", ["holes", "pages"])
@pytest.mark.parametrize("format", ["elf", "kdump"])
@pytest.mark.parametrize("where", ["file", "device"])
def test_a_rate_counts_what_is_written(
    loop_device: LoopMaker, tmp_path: Path, where: str, format: str, zeros: str
) -> None:
    target = tmp_path / "dump" if where == "file" else Path(loop_device(HOLLOW + 64 * MIB))
    with Arena(HOLLOW) as arena, LiveDump(arena) as live:
        arena.live[HOLLOW // 2 : HOLLOW // 2 + GRANULE] = 1
        if zeros == "pages":
            arena.live[: 64 * MIB] = 0
        live.init(target, DumpSettings(format=format, granule=GRANULE, sweep_rate=SLOW_RATE))
        live.start()
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        counters = live.counters()
    assert counters.by_sweep == 1 and counters.bytes_pool == 0
    assert 0 < counters.bytes_written <= GRANULE


def test_a_rate_holds_back_what_is_written(tmp_path: Path) -> None:
    """A second of its rate is written, and the sweep is not done before."""
    with Arena(HOLLOW) as arena, LiveDump(arena) as live:
        arena.live[: 2 * GRANULE] = 1
        rate = 2 * GRANULE
        live.init(tmp_path / "dump", DumpSettings(granule=GRANULE, sweep_rate=rate))
        live.start()
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        counters = live.counters()
    assert counters.bytes_written == rate
    assert counters.drained_ns - counters.sweep_start_ns >= 1e9
