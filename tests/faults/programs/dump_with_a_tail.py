# SPDX-License-Identifier: GPL-2.0-or-later
"""A raw dump with its table in the tail, read back and compared."""

from __future__ import annotations

import sys

import numpy as np
from aftermath import unharmed

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.cli.proof import prove_dump
from livedumpfs.dumpfile import open_dump

MIB = 1 << 20
with Arena(8 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = np.random.default_rng(3).integers(1, 256, 8 * MIB, dtype=np.uint8)
    arena.live[2 * MIB : 3 * MIB] = 0
    arena.discard(5 * MIB, MIB)
    live.init(sys.argv[1], DumpSettings(format="raw", table="tail", granule=16 << 10, force=True))
    live.start()
    live.sweep()
    assert live.finish(300) == "consistent", live.failure
    live.release()
    with open_dump(sys.argv[1]) as dump:
        assert prove_dump(dump).ok
        assert dump.read_arena(0, 8 * MIB) == arena.live.tobytes()
