# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_short_of.py: spill that finds no more memory blocks and loses nothing."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from aftermath import unharmed

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20

place = Path(sys.argv[1])
calls = ctypes.CDLL(None)

with Arena(32 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    live.init(
        place / "dump", DumpSettings(policy="spill", pool=MIB, granule=16384, spill_limit=64 * MIB)
    )
    live.start()
    calls.fail_populate(2)
    live.sweep()
    arena.live[::4096] = 2
    assert live.finish(300) == "consistent", live.failure
    counters = live.counters()
    assert counters.slots_peak <= counters.slots < 32 * MIB // 16384
    calls.fail_populate(0)
    live.release()
    with open_dump(place / "dump") as dump:
        assert dump.read_arena(0, 32 * MIB).count(1) == 32 * MIB
print("done")
