# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: START refuses when another handler took SIGSEGV."""

from __future__ import annotations

import faulthandler
import resource

from aftermath import unharmed
from caught import BACKEND, SETTINGS

from livedumpfs import Arena, LiveDump

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

arena = Arena(MIB)
a = arena.array("u1", MIB)
a[:] = 1
live = LiveDump(arena)
with unharmed(live):
    live.init(None, SETTINGS)
    faulthandler.enable()
    for step in (lambda: live.machine.check_start(BACKEND), live.start):
        try:
            step()
        except OSError as error:
            print(error)
    live.machine.check_start("uffd")
    a[:] = 2
    faulthandler.disable()
    live.start()
    a[:] = 3
    print(live.counters().faults > 0, live.read(0, MIB).count(2) == MIB)
