# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps under a storm of signals whose C handler stores to armed memory; argv: folder, arming."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from aftermath import expect_equal, memory_file, unharmed, wait_for
from caught import BACKEND
from stealing import MIB, handlers

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings

place, arming = Path(sys.argv[1]), sys.argv[2]
SIZE = 8 * MIB


def before():
    handlers.calm()


def after():
    handlers.storm(ctypes.c_void_p(arena.address), ctypes.c_uint64(SIZE), 200)


with Arena(SIZE) as arena, LiveDump(arena, quiesce=before, resume=after) as live:
    handlers.calm.restype = handlers.storms.restype = ctypes.c_uint64
    with unharmed(live, place):
        for _ in range(6):
            with memory_file(SIZE) as reference:
                after()
                settings = DumpSettings(
                    granule=4096, pool=MIB // 4, arming=arming, backend=BACKEND, force=True
                )
                live.init(place / "dump", settings, reference=reference)
                live.start()
                begun = handlers.storms()
                arena.live[::4096] += 1
                wait_for(lambda begun=begun: handlers.storms() >= begun + 20, live.counters)
                live.sweep()
                arena.live[9::4096] += 1
                assert live.finish(300) == "consistent", live.failure
                live.release()
                handlers.calm()
                expect_equal(place / "dump", reference, SIZE)
    handlers.calm()  # the dump that unharmed() makes has begun it anew
print("done")
