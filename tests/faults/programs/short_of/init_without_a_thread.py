# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_short_of.py: init without a thread."""

from __future__ import annotations

import ctypes
import errno
import sys
from pathlib import Path

from aftermath import unharmed
from refusals import refused

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20

place = Path(sys.argv[1])
calls = ctypes.CDLL(None)
format = sys.argv[2]

settings = DumpSettings(format=format, policy="spill", max_age=600, force=True)
with Arena(4 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    for number in range(1, 20):
        calls.fail_threads(number)
        code = refused(lambda: live.init(place / "dump", settings))
        calls.fail_threads(0)
        if code == 0:
            break
        assert code == errno.EAGAIN, code
        assert live.state.value == "uninit"
    live.release()
    assert number > 4, number
    print(number - 1, "threads")
print("done")
