# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_forks.py: a process that leaves at once."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
place = Path(sys.argv[1])
step = sys.argv[2]

arena = Arena(8 * MIB)
live = LiveDump(arena)
arena.live[:] = 1
live.init(place / "dump", DumpSettings(sweep_rate=4 * MIB))
if step != "init":
    live.start()
if step == "sweep":
    live.sweep()
os._exit(5)
