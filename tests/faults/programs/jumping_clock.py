# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps whose times are kept while the wall clock jumps by 20 years at each look."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

from aftermath import comes_back, unharmed, wait_for
from faulty_disk import faulty_disk

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings

del os.environ["LD_PRELOAD"]  # programs that this one starts have the usual clock

MIB, YEAR = 1 << 20, 365 * 86400
place = Path(sys.argv[1])
clock = ctypes.CDLL(None)
first, second = time.time(), time.time()
assert abs(abs(first - second) - 20 * YEAR) < 3600, "the clock is not ours"
with Arena(8 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    # The rate of the sweep.
    arena.live[:] = 1
    begun, looks = time.monotonic(), clock.wall_clock_looks()
    live.init(place / "dump", DumpSettings(sweep_rate=16 * MIB, granule=4096))
    live.start()
    live.sweep()
    arena.live[7 * MIB :] = 2
    assert live.finish(300) == "consistent", live.failure
    assert time.monotonic() - begun > 0.1
    instant = live.counters().instant_wall_ns / 1e9
    assert min(abs(instant - one) for one in (first, second)) < 3600, "not even the label"
    assert clock.wall_clock_looks() > looks
    live.release()
    with open_dump(place / "dump") as dump:
        assert dump.read_arena(0, 8 * MIB).count(1) == 8 * MIB
    # An age that has not come, and one that has.
    live.init(None, DumpSettings(max_age=600))
    live.start()
    time.sleep(0.3)
    assert live.state.value == "start" and live.read(0, 1) is not None
    live.release()
    live.init(None, DumpSettings(max_age=0.2))
    live.start()
    wait_for(lambda: live.state.value == "uninit", lambda: live.state)
    assert "maximum age" in live.expired
    # Waiting for a drain that does not come gives up, and not at once.
    live.init(place / "slow", DumpSettings(sweep_rate=MIB // 64))
    live.start()
    live.sweep()
    begun = time.monotonic()
    try:
        live.finish(0.3)
        raise AssertionError("it was finished")
    except TimeoutError:
        assert time.monotonic() - begun > 0.25
# The longest wait for a slot, of a target that hangs.
disks = faulty_disk(place / "disk", 16 * MIB)
with disks as disk, Arena(8 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    live.init(disk.file, DumpSettings(pool=MIB, stall_deadline=0.3, force=True))
    live.start()
    disk.fault("hang")
    live.sweep()
    begun = time.monotonic()
    arena.live[::4096] = 3
    assert time.monotonic() - begun > 0.25 and live.counters().gave_up
    live.release()
    disk.fault("none")
    wait_for(lambda: comes_back(live))
print("done")
