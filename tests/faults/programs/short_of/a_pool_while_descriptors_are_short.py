# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_short_of.py: for a while the keeper cannot open /proc/meminfo, so that it does not
know how much memory there is. That is no answer: it looks again, and the stores wait for it."""

from __future__ import annotations

import os
import resource
import threading

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.settings import POOL_START

SIZE = 4 * POOL_START

with Arena(SIZE) as arena, LiveDump(arena) as live:
    arena.live[:] = 1
    live.init(None, DumpSettings(pool="auto", granule=64 << 10))
    live.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    end = threading.Timer(0.3, resource.setrlimit, (resource.RLIMIT_NOFILE, (soft, hard)))
    end.start()
    arena.live[:] = 2
    end.join()
    assert live.counters().lost == 0, live.counters()
    assert live.read(0, SIZE).count(1) == SIZE
    live.release()
print("done")
