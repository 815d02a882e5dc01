# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: the thread blocks SIGSEGV during a dump, and does not store meanwhile."""

from __future__ import annotations

import resource
import signal

from aftermath import unharmed
from armed_dump import armed
from caught import SIGNAL

from livedumpfs import Arena, LiveDump

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

with Arena(MIB) as arena, LiveDump(arena) as other, unharmed(other):
    arena.live[:] = 1
    with armed(arena) as live:
        signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
        live.read(0, MIB)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGNAL})
        arena.live[:] = 2
        assert live.read(0, MIB).count(1) == MIB
print("done")
