# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_short_of.py: a memory cgroup that is nearly full."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from aftermath import unharmed
from memory_group import MemoryGroup
from refusals import refused

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20

place = Path(sys.argv[1])

group = MemoryGroup(Path(sys.argv[2]))
group.join()
SIZE = 96 * MIB
spill = {"policy": "spill", "pool": MIB, "granule": 16384, "spill_limit": SIZE}
with Arena(SIZE) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    group.limit(group.usage() + 48 * MIB)
    large = DumpSettings(pool=SIZE, granule=16384)
    limited = DumpSettings(pool=SIZE, granule=16384, spill_limit=SIZE)
    assert refused(lambda: live.init(None, limited)) == errno.ENOMEM
    assert refused(lambda: live.init(place / "dump", large)) == errno.ENOMEM
    # Where no limit is set, the pool is no larger than half of what there is.
    live.init(None, large)
    assert 0 < live.counters().slots <= 24 * MIB // 16384, live.counters()
    live.release()
    # Nothing frees a slot: what finds none is lost, and named.
    live.init(None, DumpSettings(**spill))
    live.start()
    arena.live[::4096] = 2
    counters = live.counters()
    assert counters.spilled > 0 and counters.slots < SIZE // 16384 - 512, counters
    assert counters.lost > 0 and live.so_far == "torn", counters
    live.release()
    # A target frees them: nothing is lost.
    arena.live[:] = 3
    live.init(place / "dump", DumpSettings(force=True, **spill))
    live.start()
    live.sweep()
    arena.live[::4096] = 4
    assert live.finish(300) == "consistent", live.failure
    counters = live.counters()
    assert counters.slots < SIZE // 16384 - 512, counters
    live.release()
    with open_dump(place / "dump") as dump:
        assert all(dump.read_arena(at, MIB).count(3) == MIB for at in range(0, SIZE, MIB))
    group.limit(None)
    live.init(None, DumpSettings(**spill))
    live.start()
    arena.live[::4096] = 5
    assert live.so_far == "consistent", live.counters()
print("done")
