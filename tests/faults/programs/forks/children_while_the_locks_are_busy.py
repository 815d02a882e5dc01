# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_forks.py: children while the locks are busy."""

from __future__ import annotations

import resource
import threading

from aftermath import unharmed
from children import child

from livedumpfs import Arena, LiveDump

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

stop = threading.Event()
with Arena(4 * MIB) as arena, LiveDump(arena) as live, unharmed(live):

    def dumps():
        while not stop.is_set():
            live.init(None)
            live.start()
            arena.live[::4096] += 1
            live.release()

    def arenas():
        while not stop.is_set():
            with Arena(MIB) as other:
                other.live[0] = 1
            del other

    threads = [threading.Thread(target=one) for one in (dumps, arenas)]
    for one in threads:
        one.start()

    def own_dump():
        # An arena of the child's own is dumped as any.
        with Arena(MIB) as own, LiveDump(own) as mine:
            own.live[:] = 3
            mine.init(None)
            mine.start()
            own.live[:] = 4
            good = mine.read(0, MIB).count(3) == MIB
        live.release()
        return 0 if good else 1

    try:
        codes = [child(own_dump) for _ in range(25)]
    finally:
        stop.set()
        for one in threads:
            one.join()
    assert codes == [0] * 25, codes
print("done")
