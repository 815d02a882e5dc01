# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: a store to a page that the program itself has made read-only."""

from __future__ import annotations

import ctypes
import resource

from livedumpfs import Arena

MIB = 1 << 20
PROT_READ = 1

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

with Arena(MIB) as arena:
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(arena.address), 4096, PROT_READ) == 0
    print("now", flush=True)
    arena.live[0] = 1
