# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: the kernel's own SIGBUS of a store to memory of ours. The memory is cut
off there, as a full tmpfs would have it; before a dump, or in armed memory."""

from __future__ import annotations

import os
import resource
import sys

from caught import SETTINGS

from livedumpfs import Arena, LiveDump
from livedumpfs.core.capi import lib

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

with Arena(MIB) as arena, LiveDump(arena) as live:
    live.init(None, SETTINGS)
    if sys.argv[1] == "armed":
        live.start()
        arena.live[0] = 1
    os.ftruncate(lib.ldfs_arena_memfd(arena.handle), MIB // 2)
    print("now", flush=True)
    arena.live[MIB // 2] = 1
