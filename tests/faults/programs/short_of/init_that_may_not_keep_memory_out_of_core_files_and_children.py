# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_short_of.py: init that may not keep memory out of core files and children."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

from aftermath import unharmed
from refusals import refused

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20

place = Path(sys.argv[1])
calls = ctypes.CDLL(None)

# With one processor there are no helpers, which a dump does without.
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
settings = DumpSettings(pool=MIB, force=True)
with Arena(4 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    for _ in range(2):  # views stay from one dump to the next
        calls.fail_keep(0)
        live.init(place / "dump", settings)
        asked = calls.keeps_asked()
        live.release()
    assert asked >= 4, asked
    for number in range(1, asked + 1):
        calls.fail_keep(number)
        assert refused(lambda: live.init(place / "dump", settings)) == errno.ENOMEM, number
        assert live.state.value == "uninit"
    calls.fail_keep(0)
print("done")
