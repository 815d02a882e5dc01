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
slowly = 0.001


def only_what_is_stored(at: int) -> bool:
    """Whether of a block of 1 MiB at `at` two stores side by side take no third slot."""
    before = live.counters().slots_peak
    arena.live[at] = arena.live[at + GRANULE] = 2
    return live.counters().slots_peak == before + 2


with Arena(SIZE) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    # Little after INIT: slots are for stores alone, though each granule might have one.
    live.init(None, settings)
    live.start()
    assert not only_what_is_stored(0)
    group.limit(group.usage() + 20 * MIB)
    at = MIB
    while not only_what_is_stored(at):
        at += MIB
        assert at < SIZE, f"fault-around goes on: {live.counters()}"
        time.sleep(slowly)
        slowly = min(5, slowly * 1.1)
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
