# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: faulthandler enabled during a dump is survived."""

from __future__ import annotations

import faulthandler
import resource

from aftermath import unharmed, wait_for
from caught import SETTINGS, SIGNAL

from livedumpfs import Arena, LiveDump
from livedumpfs.core.capi import lib

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

arena = Arena(4 * MIB)
a = arena.array("u1", 4 * MIB)
live = LiveDump(arena)
with unharmed(live):
    a[:] = 1
    live.init(None, SETTINGS)
    live.start()
    faulthandler.enable()
    a[0] = 2
    a[3 * MIB] = 2
    print(live.read(0, 4 * MIB).count(1) == 4 * MIB, int(a[0]), int(a[3 * MIB]))
    wait_for(lambda: lib.ldfs_fault_verify(SIGNAL) == 0)
