# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: the handler leaves with the last arena."""

from __future__ import annotations

import gc
import resource
from pathlib import Path

from armed_dump import armed
from caught import SIGNAL

from livedumpfs import Arena

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def caught() -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(one for one in lines if one.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (SIGNAL - 1) & 1)


arena, other = Arena(MIB), Arena(MIB)
with armed(arena):
    assert caught()
assert caught()
arena.close()
gc.collect()
assert caught()
other.close()
gc.collect()
assert not caught()
Arena(MIB).array("u1", MIB)[:] = 1
print("done")
