# SPDX-License-Identifier: GPL-2.0-or-later
"""A signal's store meets the granule that its own thread is copying, under another handler."""

from __future__ import annotations

import ctypes

from aftermath import unharmed
from caught import BACKEND
from stealing import MIB, handlers, retaken

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings

with Arena(64 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    for _ in range(10):  # one is enough, unless no signal came in time
        arena.live[:] = 1
        live.init(None, DumpSettings(granule=MIB, backend=BACKEND))
        live.start()
        handlers.steal_open(0)
        met = handlers.walk_under_ticks(ctypes.c_void_p(arena.address), ctypes.c_uint64(MIB), 64)
        assert live.counters().lost == 0
        assert live.read(0, 64 * MIB).count(1) == 64 * MIB
        retaken(live)
        live.release()
        if met:
            break
    assert met > 0
print("done")
