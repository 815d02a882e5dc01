# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: the kernel's own SIGBUS of a store to memory of ours. The memory is cut
off there, as a full tmpfs would have it; before a dump, or in armed memory; in the last of dumps by
the backends that are named."""

from __future__ import annotations

import os
import resource
import sys

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.core.capi import lib

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

with Arena(MIB) as arena, LiveDump(arena) as live:
    for earlier in sys.argv[2:-1]:
        live.init(None, DumpSettings(backend=earlier))
        live.start()
        arena.live[0] = 1
        live.release()
    live.init(None, DumpSettings(backend=sys.argv[-1]))
    if sys.argv[1] == "armed":
        live.start()
        arena.live[0] = 1
    os.ftruncate(lib.ldfs_arena_memfd(arena.handle), MIB // 2)
    print("now", flush=True)
    arena.live[MIB // 2] = 1
