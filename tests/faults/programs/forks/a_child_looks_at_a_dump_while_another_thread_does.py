# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_forks.py: a child looks at a dump while another thread does."""

from __future__ import annotations

import resource
import threading

from children import child

from livedumpfs import Arena, LiveDump

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

with Arena(MIB) as arena, LiveDump(arena) as live:
    arena.live[:] = 1
    live.init(None)
    live.start()
    arena.live[0] = 2
    held, over = threading.Event(), threading.Event()

    def hold():
        with live._run.core._lock:
            held.set()
            over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()

    def look():
        seen = live.counters().faults, live.so_far, live.lost_pages(), live.progress().phase
        live.release()
        return 0 if seen == (1, "consistent", [], "start") else 1

    try:
        assert child(look) == 0
    finally:
        over.set()
        holder.join()
print("done")
