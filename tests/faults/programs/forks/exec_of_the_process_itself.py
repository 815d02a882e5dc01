# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_forks.py: exec of the process itself."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from livedumpfs import Arena, LiveDump

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
place = Path(sys.argv[1])

arena = Arena(8 * MIB)
live = LiveDump(arena)
arena.live[:] = 1
live.init(place / "dump")
live.start()
os.execv("/bin/sh", ["sh", "-c", "grep -E '^Sig(Blk|Cgt)' /proc/self/status; kill -SEGV $$"])
