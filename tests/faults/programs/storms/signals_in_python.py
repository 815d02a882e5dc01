# SPDX-License-Identifier: GPL-2.0-or-later
"""A dump while handlers in Python store all over armed memory; argv[1]: the target."""

from __future__ import annotations

import signal
import sys

from aftermath import unharmed, wait_for
from caught import BACKEND
from stealing import MIB

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings

TIMERS = (signal.ITIMER_REAL, signal.ITIMER_PROF)
count = 0


def tick(*_):
    global count
    arena.live[count * 257 * 4096 % arena.size] += 1
    count += 1


with Arena(64 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    for one in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(one, tick)
    arena.live[:] = 1
    live.init(sys.argv[1], DumpSettings(granule=4096, backend=BACKEND))
    live.start()
    for timer in TIMERS:
        signal.setitimer(timer, 3e-4, 3e-4)
    for turn in range(200):
        wait_for(lambda turn=turn: count > turn, live.counters)
        arena.live[(turn * 263 * 4096 + 7) % arena.size] += 1
    live.sweep()
    arena.live[7::4096] += 1
    assert live.finish(300) == "consistent", live.failure
    for timer in TIMERS:
        signal.setitimer(timer, 0)
    assert live.counters().faults > 100, live.counters()
    assert live.read(0, arena.size).count(1) == arena.size
print("done")
