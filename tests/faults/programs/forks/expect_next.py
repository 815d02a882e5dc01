# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_forks.py: expect next."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
place = Path(sys.argv[1])

with Arena(8 * MIB) as arena, LiveDump(arena) as live:
    arena.live[:] = 3
    assert live.save(place / "dump", DumpSettings(force=True)) == "consistent"
    with open_dump(place / "dump") as dump:
        assert dump.read_arena(0, 8 * MIB).count(3) == 8 * MIB
print("done")
