# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_short_of.py: a pool that follows the free memory, where there is little at INIT and
more later, and the other way round."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from aftermath import unharmed
from memory_group import MemoryGroup

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20
SIZE = 160 * MIB
GRANULE = 65536

place = Path(sys.argv[1])
group = MemoryGroup(Path(sys.argv[2]))
group.join()
settings = DumpSettings(granule=GRANULE)


def only_what_is_stored(at: int) -> bool:
    """Whether of a block of 1 MiB at `at` two stores side by side take no third slot."""
    before = live.counters().slots_peak
    arena.live[at] = arena.live[at + GRANULE] = 2
    return live.counters().slots_peak == before + 2


def first_block(at: int, *, sparing: bool, why: str) -> int:
    """Address behind the first block from `at` on of which only so much is taken. The keeper looks
    at the memory now and then; and other programs may take the computer's, too."""
    slowly = 0.001
    while only_what_is_stored(at) != sparing:
        at += MIB
        assert at < SIZE, f"{why}: {live.counters()}"
        time.sleep(slowly)
        slowly = min(5, slowly * 1.1)
    return at + MIB


with Arena(SIZE) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    # Little after INIT: slots are for stores alone, though each granule might have one.
    live.init(None, settings)
    live.start()
    at = first_block(0, sparing=False, why="no fault-around, with memory for all")
    group.limit(group.usage() + 20 * MIB)
    first_block(at, sparing=True, why="fault-around goes on")
    group.limit(None)
    assert live.so_far == "consistent", live.counters()
    live.release()

    # Little at INIT: the pool is small, and grows when there is more.
    group.limit(group.usage() + 60 * MIB)
    live.init(place / "small", settings)
    first = live.counters().slots
    assert MIB <= first * GRANULE <= 22 * MIB, live.counters()
    assert live.settings.spill_limit == SIZE
    group.limit(None)
    live.start()
    arena.live[: 64 * MIB : 4096] = 2
    live.sweep()
    assert live.finish(300) == "consistent", live.failure
    live.release()
print("done")
