# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_short_of.py: init without a thread."""

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
format = sys.argv[2]

everywhere = os.sched_getaffinity(0)
# With one processor there are no helpers, which a dump does without.
os.sched_setaffinity(0, {min(everywhere)})
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
    # Only a processor more: a helper that is refused too, and no other thread less.
    os.sched_setaffinity(0, everywhere)
    for n in range(1, number + 4):
        calls.fail_threads(n)
        code = refused(lambda: live.init(place / "dump", settings))
        calls.fail_threads(0)
        assert code in (0, errno.EAGAIN), (n, code)
        if code == 0:
            live.start()
            live.sweep()
            live.finish(60)
            assert live.verdict == "consistent", (n, live.failure)
            live.release()
print("done")
