# SPDX-License-Identifier: GPL-2.0-or-later
"""What was live before the swap is the next dump's shadow: when it is wanted, it is read-only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
from aftermath import wait_for

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.proc import proc_text
from livedumpfs.settings import REAL_BACKENDS, Backend

MIB = 1 << 20
SIZE = 8 * MIB


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena(SIZE) as arena:
        arena.live[:] = 1
        yield arena


def writable(arena: Arena) -> list[tuple[int, int]]:
    """The mappings of the arena's memory that can be written: address and bytes."""
    maps = proc_text("/proc/self/maps")
    live = re.search(rf"^{arena.address:x}-\S+ \S+ \S+ \S+ (\d+)", maps, re.MULTILINE)
    assert live
    # By its inode: an arena of an earlier test may not be collected yet.
    found = re.findall(rf"^([0-9a-f]+)-([0-9a-f]+) rw-s \S+ \S+ {live[1]} ", maps, re.MULTILINE)
    return [(int(start, 16), int(end, 16) - int(start, 16)) for start, end in found]


def expect_live_alone(arena: Arena) -> None:
    def seen() -> list[tuple[int, int]]:
        return writable(arena)

    wait_for(lambda: seen() == [(arena.address, SIZE)], seen)


@pytest.mark.parametrize("format", ["elf", "kdump"])
def test_it_is_protected_behind_the_sweep(arena: Arena, tmp_path: Path, format: str) -> None:
    settings = DumpSettings(format=format, force=True)
    with LiveDump(arena) as live:
        for number in range(2, 5):
            live.init(tmp_path / "dump", settings)
            live.start()
            assert len(writable(arena)) == 1, "or this test shows nothing"
            arena.live[number * MIB] = number  # a granule that the sweep passes over
            live.sweep()
            live.wait()
            expect_live_alone(arena)
            live.release()
            assert arena.live[number * MIB] == number


def test_it_is_protected_after_a_release(arena: Arena) -> None:
    """No sweep has done it."""
    with LiveDump(arena) as live:
        for number in range(2, 5):
            live.init(None)
            live.start()
            arena.live[0] = number
            live.release()
            expect_live_alone(arena)
            assert arena.live[0] == number


def registered(arena: Arena) -> bool:
    """Whether the live view is one of a userfaultfd."""
    text = Path("/proc/self/smaps").read_text()
    found = re.search(rf"^{arena.address:x}-.*?^VmFlags:(.*?)$", text, re.MULTILINE | re.DOTALL)
    assert found
    return " uw" in found[1]


def test_a_backend_leaves_no_registration_to_the_next(arena: Arena, tmp_path: Path) -> None:
    """A program may have a userfaultfd of its own."""
    with LiveDump(arena) as live:
        for backend in ("uffd", "sigsegv", "sigbus", "sigsegv", "sigsegv"):
            live.save(tmp_path / "dump", DumpSettings(backend=backend, force=True))
            assert not registered(arena)


@pytest.mark.parametrize(("first", "then"), [*permutations(REAL_BACKENDS, 2)])
def test_a_dump_that_was_broken_off_leaves_one_mapping(
    tmp_path: Path, first: Backend, then: Backend
) -> None:
    """What the sweep has closed of the view in its way, and what it has not come to: START moves
    one mapping alone."""
    rate = DumpSettings(backend=first, sweep_rate=16 * MIB, force=True)
    with Arena(64 * MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        for number in range(2, 6):
            live.init(tmp_path / "dump", rate)
            live.start()
            live.sweep()
            wait_for(lambda: live.counters().bytes_written > 0, live.counters)
            live.release()
            live.init(tmp_path / "dump", DumpSettings(backend=then, force=True))
            live.start()
            arena.live[0] = number
            live.sweep()
            assert live.finish() == "consistent"
            assert live.counters().faults > 0
            live.release()
