# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_short_of.py: memory alone that finds no more loses pages and says which."""

from __future__ import annotations

import ctypes
import errno

from aftermath import unharmed

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20

calls = ctypes.CDLL(None)

with Arena(32 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    live.init(None, DumpSettings(policy="spill", pool=MIB, granule=16384, spill_limit=64 * MIB))
    live.start()
    calls.fail_populate(2)
    arena.live[::4096] = 2
    counters = live.counters()
    assert live.so_far == "torn" and counters.lost > 0, counters
    lost = live.lost_pages()
    assert sum(end - first for first, end in lost) == counters.lost * 4
    try:
        live.read(lost[0][0] * 4096, 1)
        raise AssertionError("a lost page was read")
    except OSError as error:
        assert error.errno == errno.EIO
    calls.fail_populate(0)
print("done")
