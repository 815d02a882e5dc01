# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_forks.py: workers of a pool read arrays."""

from __future__ import annotations

import multiprocessing
import resource

from livedumpfs import Arena, LiveDump

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

arena = Arena(8 * MIB)
array = arena.array("f8", (1000,), name="x")
array[:] = 1


def work(i):
    return float(array[i])


with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map_async(work, range(4)).get(60) == [1.0] * 4
    array[:] = 2
    assert pool.map_async(work, range(4)).get(60) == [2.0] * 4
    with LiveDump(arena) as live:
        live.init(None)
        live.start()
        array[:] = 3
        assert pool.map_async(work, range(4)).get(60) == [3.0] * 4
        assert live.read(0, 8) == bytes.fromhex("0000000000000040")
print("done")
